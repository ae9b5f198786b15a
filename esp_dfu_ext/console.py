"""What people see: tables, bars, plain lines without a terminal, errors with their hints.

Knows events and plain values only. Everything that comes from outside (file names, serial numbers) passes
`clean`, and nothing is taken for markup: a project may be called ``[bold]``.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from rich.console import Console as RichConsole
from rich.table import Table
from rich.text import Text

from .units import clean, format_size
from .views import FlashView, GangLiveView, GangPlainView, LiveView, PlainView

if TYPE_CHECKING:
    from .watch_view import WatchView

_STYLES = ("cyan", "green", "magenta", "yellow", "blue", "red")
_LOG_WIDTH = 200


def at_most(lines: Sequence[str], limit: int = 20) -> list[str]:
    """The first lines, and how many more there are."""
    rest = len(lines) - limit
    return [*lines[:limit], f"... and {rest} more."] if rest > 0 else list(lines)


class MapRow(NamedTuple):
    """One file in the table and in the map of the flash; sizes in bytes."""

    address: int
    size: int
    sectors: int
    name: str


class Stream(RichConsole):
    """Where something is printed; one whose reader has left goes mute, because a flash must not depend on its log.

    Args:
        stream: None where the program was started without one.
        settings: of rich's Console.
    """

    def __init__(self, stream: TextIO | None, **settings: Any) -> None:
        terminal = stream is not None and stream.isatty()
        if isinstance(stream, io.TextIOWrapper):
            # A file name need not exist in the terminal's code page; better a "?" than a traceback.
            stream.reconfigure(errors="replace")
        # A log has no width; 80 columns would fold tables that somebody greps.
        settings.setdefault("width", None if terminal else _LOG_WIDTH)
        file = stream if stream is not None else io.StringIO()
        super().__init__(file=file, highlight=False, markup=False, emoji=False, **settings)

    def put(self, text: Text, *, wrap: bool = True) -> None:
        """Print a line; in a terminal broken between words if `wrap`, in a log never."""
        try:
            self.print(text, soft_wrap=not (wrap and self.is_terminal))
        except OSError:
            self.mute()

    def on_broken_pipe(self) -> None:
        """What rich does when the reader has left; by itself it would end the program."""
        self.mute()

    def mute(self) -> None:
        """Say no more."""
        self.file = io.StringIO()
        self.quiet = True


class Console:
    """Writes results to stdout, and what is said about them to stderr.

    Args:
        quiet: say nothing but results and errors.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.out = Stream(sys.stdout)
        self.err = Stream(sys.stderr)

    def raw(self, line: str) -> None:
        """A line for programs: as it is, never wrapped or coloured; an error if it cannot be written."""
        print(line, file=sys.stdout)

    def result(self, line: str, *, good: bool = True) -> None:
        """What a job was for; also said when quiet."""
        self.out.put(Text(clean(line), style="bold green" if good else "bold"))

    def say(self, line: str = "", style: str = "") -> None:
        """More for people, on stdout."""
        if not self.quiet:
            self.out.put(Text(clean(line), style=style))

    def tell(self, line: str, style: str = "") -> None:
        """For people, on stderr, where stdout belongs to programs."""
        if not self.quiet:
            self.err.put(Text(clean(line), style=style))

    def warn(self, line: str) -> None:
        """Something that deserves a second look."""
        if not self.quiet:
            self.err.put(Text("warning: ", style="bold yellow") + Text(clean(line)))

    def error(self, message: str, code: str, notes: Sequence[str], hints: Sequence[str]) -> None:
        """What happened, what was seen, what to type next; on stderr."""
        self.err.put(Text("error: ", style="bold red") + Text(f"{clean(message)} ") + Text(f"[{code}]", "dim"))
        for note in at_most(notes):
            self.err.put(Text(f"  {clean(note)}"))
        for hint in hints:
            self.hint(hint)

    def hint(self, line: str) -> None:
        """What to do next, on stderr; never broken into lines, because people copy it."""
        self.err.put(Text("  > ", style="bold cyan") + Text(clean(line)), wrap=False)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> None:
        """A table; a column whose name begins with ``>`` is aligned to the right, the last one may be folded."""
        if self.quiet:
            return
        table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
        for number, name in enumerate(columns):
            last = number == len(columns) - 1
            table.add_column(
                name.lstrip(">"),
                justify="right" if name.startswith(">") else "left",
                no_wrap=not last,
                overflow="fold" if last else "ellipsis",
            )
        for row in rows:
            table.add_row(*(cell if isinstance(cell, Text) else Text(clean(cell)) for cell in row))
        for segments in self.out.render_lines(table, pad=False):
            line = Text.assemble(*((segment.text, segment.style or "") for segment in segments))
            line.rstrip()
            self.out.put(line, wrap=False)

    def flash_table(self, rows: Sequence[MapRow], chip_size: int) -> None:
        """The files by address, and where they lie in the flash."""
        if self.quiet:
            return
        letters = [chr(ord("A") + n) if n < 26 else "#" for n in range(len(rows))]
        self.table(
            ["", ">Address", ">Size", ">Sectors", "File"],
            [
                (Text(letter, _style(number)), f"{row.address:#x}", format_size(row.size), str(row.sectors), row.name)
                for number, (letter, row) in enumerate(zip(letters, rows))
            ],
        )
        for line in _flash_map(rows, letters, chip_size, min(self.out.width - 15, 64)).split():
            self.out.put(line)

    def flash_view(self, title: str) -> FlashView:
        """A view of one board's flash; `title` is what kind of board it is."""
        if self.quiet:
            return FlashView()
        return LiveView(self, title) if self._live else PlainView(self, title)

    def gang_view(self, title: str) -> FlashView:
        """A view of several boards' flashes."""
        if self.quiet:
            return FlashView()
        return GangLiveView(self, title) if self._live else GangPlainView(self, title)

    def watch_view(self, title: str) -> WatchView:
        """A view of boards that come and go."""
        from .watch_view import WatchPlainView, WatchView

        if self.quiet:
            return WatchView(self)
        if not self._live:
            return WatchPlainView(self, title)
        from .watch_live import WatchLiveView

        return WatchLiveView(self, title)

    @property
    def _live(self) -> bool:
        return self.out.is_terminal and not self.out.is_dumb_terminal


def _style(number: int) -> str:
    return _STYLES[number % len(_STYLES)]


def _flash_map(rows: Sequence[MapRow], letters: Sequence[str], chip_size: int, width: int) -> Text:
    """One character for each stretch of flash: the letter of the file in it, ``+`` for several."""
    cell = 4096
    while chip_size > cell * max(8, width):
        cell *= 2
    line = Text("0x0 ", style="dim")
    for start in range(0, chip_size, cell):
        inside = [n for n, row in enumerate(rows) if row.address < start + cell and row.address + row.size > start]
        if not inside:
            line.append(".", style="dim")
        elif len(inside) == 1:
            line.append(letters[inside[0]], style=_style(inside[0]))
        else:
            line.append("+", style="bold")
    several = ", + is several files" if "+" in line.plain else ""
    line.append(f" {chip_size:#x}", style="dim")
    line.append(f"\n    one character is {format_size(cell)}{several}", style="dim")
    return line
