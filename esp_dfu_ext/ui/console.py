"""What people see: tables, bars, plain lines without a terminal, errors with their hints.

Knows events and plain values only. Everything that comes from outside (file names, serial numbers) passes
`shown`, and nothing is taken for markup: a project may be called ``[bold]``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple

from ..units import clean, format_size
from .streams import Piece, Stream, open_stream, table_lines

_LONGEST_LINE = 8000  # characters; more than two of the longest paths
_STYLES = ("cyan", "magenta", "green", "red")


def at_most(lines: Sequence[str], limit: int = 20) -> list[str]:
    """The first lines, and how many more there are."""
    rest = len(lines) - limit
    return [*lines[:limit], f"... and {rest} more."] if rest > 0 else list(lines)


def shown(text: str) -> str:
    """The text as it may go to a terminal: clean, and not endless."""
    rest = len(text) - _LONGEST_LINE
    return clean(text if rest <= 0 else f"{text[:_LONGEST_LINE]} ... and {rest} characters more")


class MapRow(NamedTuple):
    """One file in the table and in the map of the flash; sizes in bytes."""

    address: int
    size: int
    sectors: int
    name: str


class Console:
    """Writes results to stdout, and what is said about them to stderr.

    Args:
        quiet: say nothing but results and errors.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.out = open_stream(sys.stdout)
        self.err = open_stream(sys.stderr)

    def raw(self, line: str) -> None:
        """A line for programs: as it is, never wrapped or coloured; an error if it cannot be written."""
        print(line, file=sys.stdout, flush=True)

    def result(self, line: str, *, good: bool = True) -> None:
        """What a job was for; also said when quiet."""
        self.out.put(Piece(shown(line), "bold green" if good else "bold"))

    def say(self, line: str = "", style: str = "") -> None:
        """More for people, on stdout."""
        if not self.quiet:
            self.out.put(Piece(shown(line), style))

    def tell(self, line: str) -> None:
        """For people, on stderr, where stdout belongs to programs."""
        if not self.quiet:
            self.err.put(shown(line), hang=len(line) - len(line.lstrip()))

    def warn(self, line: str, to: Stream | None = None) -> None:
        """Something that deserves a second look; on stderr, or where it does not go through bars."""
        if not self.quiet:
            (to or self.err).put(Piece("warning: ", "bold magenta"), shown(line))

    def error(
        self, message: str, code: str, notes: Sequence[str], hints: Sequence[str], to: Stream | None = None
    ) -> None:
        """What happened, what was seen, what to type next; on stderr, or where it does not go through bars."""
        to = to or self.err
        to.put(Piece("error: ", "bold red"), f"{shown(message)} [{code}]")
        for note in at_most(notes):
            to.put(f"  {shown(note)}", hang=2)
        for hint in hints:
            self.hint(hint, to)

    def hint(self, line: str, to: Stream | None = None) -> None:
        """What to do next, on stderr.

        A sentence ends with a full stop; a command does not, stands alone or behind ``: ``, and is never broken into
        lines, because people copy it. A line that begins with ``- `` is one of a list below the last hint.
        """
        to, line = to or self.err, shown(line)
        mark = Piece("  > ", "bold cyan")
        if line.startswith("- "):
            to.put("    ", line, hang=6)
        elif line.endswith((".", ":")):
            to.put(mark, line, hang=4)
        else:
            self._command(mark, line, to)

    def advise(self, line: str) -> None:
        """A step that follows a success, on stdout: what it does, ``: ``, and its command."""
        if not self.quiet:
            self._command("", shown(line), self.out)

    def _command(self, mark: str, line: str, to: Stream) -> None:
        purpose, colon, command = line.rpartition(": ")
        if colon and to.folds and len(mark) + len(line) > to.width:
            to.put(mark, f"{purpose}:", hang=len(mark))
            mark, purpose, colon = "    ", "", ""
        to.put(mark, f"{purpose}{colon}", Piece(command, "bold"), wrap=False)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table, as `table_lines` lays it out; cells that are pieces are clean already."""
        if self.quiet:
            return
        cells = [[cell if isinstance(cell, Piece) else shown(cell) for cell in row] for row in rows]
        for pieces in table_lines(columns, cells, self.out.width):
            self.out.put(*pieces, wrap=False)

    def flash_table(self, rows: Sequence[MapRow], chip_size: int) -> None:
        """The files by address, and where they lie in the flash."""
        if self.quiet:
            return
        letters = [chr(ord("A") + n) if n < 26 else "#" for n in range(len(rows))]
        self.table(
            ["", ">Address", ">Size", ">Sectors", "File"],
            [
                (Piece(letter, _style(number)), f"{row.address:#x}", format_size(row.size), str(row.sectors), row.name)
                for number, (letter, row) in enumerate(zip(letters, rows))
            ],
        )
        for pieces in _flash_map(rows, letters, chip_size, min(self.out.width - 15, 64)):
            self.out.put(*pieces)


def _style(number: int) -> str:
    return _STYLES[number % len(_STYLES)]


def _flash_map(rows: Sequence[MapRow], letters: Sequence[str], chip_size: int, width: int) -> list[list[Piece]]:
    """One character for each stretch of flash: the letter of the file in it, ``+`` for several."""
    cell = 4096
    while chip_size > cell * max(8, width):
        cell *= 2
    line = [Piece("0x0 ", "dim")]
    several = ""
    for start in range(0, chip_size, cell):
        inside = [n for n, row in enumerate(rows) if row.address < start + cell and row.address + row.size > start]
        if not inside:
            line.append(Piece(".", "dim"))
        elif len(inside) == 1:
            line.append(Piece(letters[inside[0]], _style(inside[0])))
        else:
            line.append(Piece("+", "bold"))
            several = ", + is several files"
    line.append(Piece(f" {chip_size:#x}", "dim"))
    return [line, [Piece(f"    one character is {format_size(cell)}{several}")]]
