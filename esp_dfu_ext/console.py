"""What people see: tables, bars, plain lines without a terminal, errors with their hints.

Knows events and plain values only. Everything that comes from outside (file names, serial numbers) passes
`clean`, and nothing is taken for markup: a project may be called ``[bold]``.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple, TextIO

from rich.console import Console as RichConsole
from rich.progress import BarColumn, ProgressColumn, Task, TaskID
from rich.progress import Progress as RichProgress
from rich.table import Column, Table
from rich.text import Text

from .events import (
    DeviceFound,
    Event,
    Flashed,
    Notice,
    Phase,
    PhaseFinished,
    PhaseStarted,
    Progress,
    Waiting,
)
from .units import format_rate, format_seconds, format_size

_STYLES = ("cyan", "green", "magenta", "yellow", "blue", "red")
_LOG_WIDTH = 200
_PLAIN_STEP = 10  # percent between two lines without a terminal


def clean(text: str) -> str:
    """The text without anything that a terminal would obey or cannot print."""
    return "".join(c if c.isprintable() else "?" for c in text)


class MapRow(NamedTuple):
    """One file in the table and in the map of the flash; sizes in bytes."""

    address: int
    size: int
    sectors: int
    name: str


def _rich_console(stream: TextIO) -> RichConsole:
    if isinstance(stream, io.TextIOWrapper):
        # A file name need not exist in the terminal's code page; better a "?" than a traceback.
        stream.reconfigure(errors="replace")
    # A log has no width; 80 columns would fold tables that somebody greps.
    width = None if stream.isatty() else _LOG_WIDTH
    return RichConsole(file=stream, width=width, highlight=False, markup=False, emoji=False)


class Console:
    """Writes results to stdout, and what is said about them to stderr.

    Args:
        quiet: say nothing but results and errors.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.out = _rich_console(sys.stdout)
        self.err = _rich_console(sys.stderr)

    def raw(self, line: str) -> None:
        """A line for programs: as it is, never wrapped or coloured."""
        print(line, file=sys.stdout)

    def result(self, line: str, *, good: bool = True) -> None:
        """What a job was for; also said when quiet."""
        self._print(self.out, Text(clean(line), style="bold green" if good else "bold"))

    def say(self, line: str = "", style: str = "") -> None:
        """More for people, on stdout."""
        if not self.quiet:
            self._print(self.out, Text(clean(line), style=style))

    def tell(self, line: str, style: str = "") -> None:
        """For people, on stderr, where stdout belongs to programs."""
        if not self.quiet:
            self._print(self.err, Text(clean(line), style=style))

    def warn(self, line: str) -> None:
        """Something that deserves a second look."""
        self._print(self.err, Text("warning: ", style="bold yellow") + Text(clean(line)))

    def error(self, message: str, code: str, notes: Sequence[str], hints: Sequence[str]) -> None:
        """What happened, what was seen, what to type next; on stderr."""
        self._print(self.err, Text("error: ", style="bold red") + Text(f"{clean(message)} ") + Text(f"[{code}]", "dim"))
        for note in notes:
            self._print(self.err, Text(f"  {clean(note)}"))
        for hint in hints:
            self.hint(hint)

    def hint(self, line: str) -> None:
        """What to do next, on stderr; never broken into lines, because people copy it."""
        self.err.print(Text("  > ", style="bold cyan") + Text(clean(line)), soft_wrap=True)

    @staticmethod
    def _print(console: RichConsole, text: Text) -> None:
        """Break lines between words in a terminal, and not at all in a log."""
        console.print(text, soft_wrap=not console.is_terminal)

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
        self.out.print(table)

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
        self.out.print(_flash_map(rows, letters, chip_size, min(self.out.width - 15, 64)))

    def flash_view(self, title: str) -> FlashView:
        """A view of one board's flash; `title` is what kind of board it is."""
        if self.quiet:
            return FlashView()
        return LiveView(self, title) if self.out.is_terminal else PlainView(self, title)


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


class FlashView:
    """Takes a flash's events; this one shows nothing."""

    def __enter__(self) -> FlashView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the terminal."""

    def __call__(self, event: Event) -> None:
        """Show an event."""


class _LineView(FlashView):
    """What both views say in whole lines."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._waiting = False

    def __call__(self, event: Event) -> None:
        if isinstance(event, Notice):
            self._console.tell(event.message)
        elif isinstance(event, DeviceFound):
            serial = f", serial number {event.serial}" if event.serial else ""
            self._console.say(f"{self._title} on port {event.path}{serial}, in {event.mode} mode")
        elif isinstance(event, Waiting) and not self._waiting:
            self._waiting = True
            self._console.say(f"Waiting up to {format_seconds(event.seconds)} for {self._title} ...")


_DONE = {
    Phase.DETACH: "in DFU mode",
    Phase.RECOVER: "back in dfuIDLE",
    Phase.VERIFY: "every MD5 compared",
    Phase.RESET: "bus reset",
}


class PlainView(_LineView):
    """Lines for a log: each phase once, the download every ten percent."""

    def __init__(self, console: Console, title: str) -> None:
        super().__init__(console, title)
        self._next = _PLAIN_STEP

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        if isinstance(event, PhaseStarted):
            self._next = _PLAIN_STEP
        elif isinstance(event, Progress) and event.total:
            percent = event.done * 100 // event.total
            if percent >= self._next:
                self._next = percent // _PLAIN_STEP * _PLAIN_STEP + _PLAIN_STEP
                name = f"  {event.name}" if event.name else ""
                of = f"{format_size(event.done)} of {format_size(event.total)}"
                self._console.say(f"{event.phase.value:<9} {percent:>3} %  {of}{name}")
        elif isinstance(event, PhaseFinished) and event.phase in _DONE:
            self._console.say(f"{event.phase.value:<9} {_DONE[event.phase]}, {format_seconds(event.seconds)}")


class LiveView(_LineView):
    """A bar for each phase, redrawn in place."""

    def __init__(self, console: Console, title: str) -> None:
        super().__init__(console, title)
        columns: list[ProgressColumn] = [
            _Field("label", Column(no_wrap=True)),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=10, max_width=40)),
            _Field("figures", Column(no_wrap=True)),
        ]
        if console.out.width >= 72:
            columns.append(_Field("file", Column(no_wrap=True, overflow="ellipsis", max_width=24)))
        self._progress = RichProgress(*columns, console=console.out, expand=True)
        self._tasks: dict[Phase, TaskID] = {}
        self._started: dict[Phase, float] = {}

    def __enter__(self) -> FlashView:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        if isinstance(event, PhaseStarted):
            # A task that has not started pulses: there is no telling how far it is.
            self._forget(event.phase)
            self._tasks[event.phase] = self._progress.add_task(
                "",
                total=event.total or 1,
                start=bool(event.total),
                label=event.phase.value,
                figures="...",
                file="",
            )
            self._started[event.phase] = self._progress.get_time()
        elif isinstance(event, Progress):
            self._show(event)
        elif isinstance(event, PhaseFinished) and event.phase in self._tasks:
            task = self._tasks[event.phase]
            total = int(self._progress.tasks[self._progress.task_ids.index(task)].total or 1)
            figures = format_seconds(event.seconds)
            if event.phase is Phase.DOWNLOAD:
                figures = f"{format_size(total)}  {format_rate(total, event.seconds)}  {figures}"
            self._progress.start_task(task)
            self._progress.update(task, completed=total, figures=figures, file=_DONE.get(event.phase, ""))
        elif isinstance(event, Flashed):
            self._progress.refresh()

    def _forget(self, phase: Phase) -> None:
        """A phase that begins anew takes the place of its first try."""
        if phase in self._tasks:
            self._progress.remove_task(self._tasks.pop(phase))

    def _show(self, event: Progress) -> None:
        seconds = self._progress.get_time() - self._started[event.phase]
        percent = event.done * 100 // max(event.total, 1)
        figures = f"{percent:>3} %"
        if event.done and seconds > 0.5:
            left = seconds / event.done * (event.total - event.done)
            figures += f"  {format_rate(event.done, seconds)}  {format_seconds(left)} left"
        self._progress.update(self._tasks[event.phase], completed=event.done, figures=figures, file=clean(event.name))


class _Field(ProgressColumn):
    """Shows one field of a task."""

    def __init__(self, name: str, column: Column) -> None:
        super().__init__(table_column=column)
        self._name = name

    def render(self, task: Task) -> Text:
        return Text(str(task.fields.get(self._name, "")), style="" if self._name != "file" else "dim")
