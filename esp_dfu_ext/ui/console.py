"""What people and programs read: results on stdout, messages about them on stderr.

Text from outside (file names, serial numbers) is cleaned of control characters, and nothing is taken for markup: a
project may be called ``[bold]``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..errors import OutputError
from .streams import Stream, open_stream
from .text import Styled, at_most, printable, table_lines


class Console:
    """Prints results to stdout, and warnings, errors and advice to stderr.

    Args:
        quiet: Print only results and errors.
        out: The stream for results; stdout if None.
        err: The stream for messages; stderr if None.
    """

    def __init__(self, *, quiet: bool = False, out: Stream | None = None, err: Stream | None = None) -> None:
        self.quiet = quiet
        self.out = open_stream(sys.stdout) if out is None else out
        self.err = open_stream(sys.stderr) if err is None else err

    def on_stdout(self) -> Console:
        """Return a console that prints messages on stdout, too: below bars, stderr would go through them."""
        return Console(quiet=self.quiet, out=self.out, err=self.out)

    def on_stderr(self) -> Console:
        """Return a console that prints results on stderr, too, because stdout carries data."""
        return Console(quiet=self.quiet, out=self.err, err=self.err)

    def data(self, line: str) -> None:
        """Print a line for programs on stdout: never wrapped, coloured or dropped.

        Raises:
            BrokenPipeError: The reader left.
            OutputError: The line cannot be written.
        """
        try:
            print(line, file=sys.stdout, flush=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _unwritten(error) from error

    def check_output(self) -> None:
        """Check that all lines on stdout could be written.

        Raises:
            OutputError: Some could not, for another reason than that their reader left.
        """
        if self.out.lost is not None:
            raise _unwritten(self.out.lost)

    def result(self, line: str, *, good: bool = True) -> None:
        """Print the result of the command, even when quiet."""
        self.out.put(Styled(printable(line), "bold green" if good else "bold"))

    def info(self, line: str = "", *, command: str = "") -> None:
        """Print more about the result; `command` is one to copy that `line` introduces."""
        if self.quiet:
            return
        if command:
            _put_command(self.out, "", printable(line), printable(command))
        else:
            self.out.put(printable(line), hang=len(line) - len(line.lstrip()))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table as `table_lines` lays it out; cells that are `Styled` must be clean already."""
        if self.quiet:
            return
        cells = [[cell if isinstance(cell, Styled) else printable(cell) for cell in row] for row in rows]
        for parts in table_lines(columns, cells, self.out.width):
            self.out.put(*parts, wrap=False)

    def warn(self, line: str) -> None:
        """Print something that deserves a second look."""
        if not self.quiet:
            self.err.put(Styled("warning: ", "bold magenta"), printable(line))

    def error(self, message: str, code: str, notes: Sequence[str], advice: Sequence[str]) -> None:
        """Print what failed, what was found about it, and what to do next."""
        self.err.put(Styled("error: ", "bold red"), f"{printable(message)} [{code}]")
        for note in at_most(notes):
            self.err.put(f"  {printable(note)}", hang=2)
        for line in advice:
            self.advice(line)

    def advice(self, line: str) -> None:
        """Print what to do next.

        A sentence ends with a full stop. A command does not; it stands alone or after ``: `` and is never broken into
        lines, because people copy it. A line that begins with ``- `` belongs to a list below the advice before it.
        """
        line = printable(line)
        mark = Styled("  > ", "bold cyan")
        if line.startswith("- "):
            self.err.put("    ", line, hang=6)
        elif line.endswith((".", ":")):
            self.err.put(mark, line, hang=4)
        else:
            purpose, _, command = line.rpartition(": ")
            _put_command(self.err, mark, purpose, command)


def _unwritten(error: OSError) -> OutputError:
    return OutputError(f"The output cannot be written: {error.strerror or error}.")


def _put_command(stream: Stream, mark: str, purpose: str, command: str) -> None:
    """Print a command in one piece, on a line of its own where its purpose leaves no room for it."""
    lead = f"{purpose}: " if purpose else ""
    if purpose and stream.folds and len(mark) + len(lead) + len(command) > stream.width:
        stream.put(mark, f"{purpose}:", hang=len(mark))
        mark, lead = "    ", ""
    stream.put(mark, lead, Styled(command, "bold"), wrap=False)
