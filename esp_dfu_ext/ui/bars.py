"""A flash in bars, on a terminal: one for each phase, or where there are several boards one for each board."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from types import TracebackType
from typing import Any

from rich.console import RenderableType
from rich.progress import BarColumn, ProgressColumn, Task, TaskID
from rich.progress import Progress as RichProgress
from rich.progress_bar import ProgressBar
from rich.table import Column
from rich.text import Text

from ..events import (
    AlreadyFlashed,
    BoardIdentified,
    BoardLeft,
    DeviceFound,
    Event,
    Failed,
    Flashed,
    Notice,
    PartsSkipped,
    Phase,
    PhaseFinished,
    PhaseStarted,
    Progress,
)
from ..units import clean, format_rate, format_seconds, format_size
from ..usb.descriptors import path_key
from .console import Console
from .lines import DONE, LineView, Verdict, WatchView, invitation, located
from .terminal import Terminal
from .text import shorten

_FREE = 3  # columns left free at the right: the ``^C`` that a terminal shows would wrap a full line
_FIGURES = 28  # columns; "board is in DFU mode, 0.4 s"
_LABEL = 8  # columns; "download"
_SHORTEST_BAR, _LONGEST_BAR = 6, 40  # columns
_FILE = 20  # columns for a file's name, where there is room for a bar of `_LEAST_BAR` next to it
_LEAST_BAR = 14
_NO_BOARD = "no board yet"
_TALLY = ""  # the row below the boards; no port has this name


class _Progress(RichProgress):
    """Rich's progress bars in columns whose widths depend on the terminal alone, so that no bar changes its length."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal  # rich's own attribute does not exist before the first call below
        super().__init__(_Label(), _Bar(), _Figures(), _File(), console=terminal)

    def get_renderables(self) -> Iterable[RenderableType]:
        label, *others = self._shown()
        bars, figures, files = (column.get_table_column() for column in others)
        assert isinstance(label, _Label)
        label.width = max([_LABEL, *(len(task.fields["label"]) for task in self.tasks)])
        left = max(1, self._terminal.width - _FREE) - label.width - 3  # a space after each column
        figures.width = max(1, min(_FIGURES, left - _SHORTEST_BAR))
        left -= figures.width
        files.width = _FILE + max(0, left - _FILE - _LONGEST_BAR) if left >= _LEAST_BAR + _FILE else 0
        bars.width = max(1, min(_LONGEST_BAR, left - files.width))
        # Boards start in any order, but people look for them by port.
        yield self.make_tasks_table(sorted(self.tasks, key=lambda task: path_key(task.fields["port"])))

    def _shown(self) -> Iterator[ProgressColumn]:
        return (column for column in self.columns if isinstance(column, ProgressColumn))


class _Label(ProgressColumn):
    """What a bar is about.

    Attributes:
        width: Columns that each label fills; rich 10 makes a first column of fixed width one too wide.
    """

    def __init__(self) -> None:
        super().__init__(table_column=Column(no_wrap=True, overflow="crop"))
        self.width = _LABEL

    def render(self, task: Task) -> Text:
        return Text(task.fields["label"].ljust(self.width))


class _Bar(BarColumn):
    """A bar, red where the work has failed."""

    def __init__(self) -> None:
        super().__init__(bar_width=None, style="bright_black", table_column=Column())

    def render(self, task: Task) -> ProgressBar:
        bar = super().render(task)
        bar.complete_style = bar.finished_style = bar.pulse_style = "red" if task.fields["failed"] else "green"
        return bar


class _Figures(ProgressColumn):
    """The longest of a task's texts that fits."""

    def __init__(self) -> None:
        super().__init__(table_column=Column(no_wrap=True, overflow="crop"))

    def render(self, task: Task) -> Text:
        texts, width = task.fields["figures"], self.get_table_column().width or 0
        return Text(next((text for text in texts if len(text) <= width), texts[-1]))


class _File(ProgressColumn):
    """The name of the file that is being sent."""

    def __init__(self) -> None:
        super().__init__(table_column=Column(no_wrap=True, overflow="crop"))

    def render(self, task: Task) -> Text:
        # Cut here, because rich ends a long text with a character that some code pages lack.
        width = self.get_table_column().width or 0
        return Text(shorten(task.fields["file"], width) if width else "")


class BarView(LineView):
    """Shows a bar for each phase."""

    def __init__(self, console: Console, title: str) -> None:
        super().__init__(console.on_stdout(), title)
        terminal = console.out
        assert isinstance(terminal, Terminal)  # the only stream that is live
        self._terminal = terminal
        self._progress = _Progress(terminal)
        self._tasks: dict[Hashable, TaskID] = {}
        self._started: dict[Hashable, float] = {}
        self._open: set[Hashable] = set()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the terminal."""
        for row in list(self._open):
            self._abandon(row)
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        super().__call__(event)
        if isinstance(event, PhaseStarted):
            self._begin(self._row(event.path, event.phase), self._label(event.path, event.phase.value), event.total)
        elif isinstance(event, Progress):
            self._show(self._row(event.path, event.phase), event)
        elif isinstance(event, PhaseFinished):
            self._end(self._row(event.path, event.phase), event)
        if not self._progress.live.auto_refresh:
            self._progress.refresh()

    def _row(self, path: str, phase: Phase) -> Hashable:
        return phase

    def _label(self, path: str, word: str) -> str:
        return word

    def _task(self, row: Hashable) -> Task:
        return self._progress.tasks[self._progress.task_ids.index(self._tasks[row])]

    def _begin(self, row: Hashable, label: str, total: int) -> None:
        try:
            self._progress.start()  # not earlier: nothing moves unless a bar follows
        except RuntimeError:  # the system starts no more threads
            self._progress.live.auto_refresh = False
        # A task that has not started pulses: nobody knows how far it is.
        port = row if isinstance(row, str) else ""
        fields: dict[str, Any] = {"label": label, "figures": ["..."], "file": "", "port": port, "failed": False}
        if row in self._tasks:
            self._progress.reset(self._tasks[row], total=total or 1, start=bool(total), **fields)
        else:
            self._tasks[row] = self._progress.add_task("", total=total or 1, start=bool(total), **fields)
        self._started[row] = self._progress.get_time()
        self._open.add(row)

    def _show(self, row: Hashable, event: Progress) -> None:
        seconds = self._progress.get_time() - self._started[row]
        percent = event.done * 100 // max(event.total, 1)
        figures = [f"{percent:>3}%"]
        if event.done and seconds > 0.5:
            left = f"{format_seconds(seconds / event.done * (event.total - event.done))} left"
            rate = format_rate(event.done, seconds)
            figures = [f"{figures[0]}  {rate}  {left}", f"{figures[0]}  {left}", *figures]
        self._progress.update(self._tasks[row], completed=event.done, figures=figures, file=clean(event.name))

    def _end(self, row: Hashable, event: PhaseFinished) -> None:
        task = self._task(row)
        total = int(task.total or 1)
        done = format_rate(total, event.seconds) if event.phase is Phase.DOWNLOAD else DONE[event.phase]
        self._progress.start_task(task.id)
        figures = ", ".join(filter(None, (done, format_seconds(event.seconds))))
        self._progress.update(task.id, completed=total, figures=[figures, done], file="")
        self._open.discard(row)

    def _abandon(self, row: Hashable) -> None:
        """End a phase in the middle: its bar stands still, and one that only pulsed is empty."""
        self._open.discard(row)
        task = self._task(row)
        done = f"{task.percentage:>3.0f}%" if task.started else ""
        if not task.started:
            self._progress.start_task(task.id)
        figures = [", ".join(filter(None, (done, "not finished"))), done]
        self._progress.update(task.id, figures=figures, file="", failed=True)


class GangBarView(BarView):
    """Shows a bar for each board while they are flashed; the table that follows replaces them."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the terminal."""
        self._progress.live.transient = kind is None
        super().__exit__(kind, error, trace)

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if not isinstance(event, (BoardIdentified, DeviceFound, PartsSkipped)):
            super().__call__(event)
        if isinstance(event, Flashed):
            time = format_seconds(event.seconds)
            size = format_size(event.size) if event.size else "already flashed"
            self._close(event.path, "PASS", f"{size}  {time}", time)
        elif isinstance(event, Failed):
            self._close(event.path, "FAIL", event.code)

    def _row(self, path: str, phase: Phase) -> Hashable:
        return path

    def _label(self, path: str, word: str) -> str:
        return f"{path:<7} {word:<8}"

    def _close(self, path: str, word: str, *figures: str) -> None:
        if path not in self._tasks:  # it failed before its first phase
            self._begin(path, "", 0)
        if path in self._open:
            self._abandon(path)
        label = self._label(path, word)
        self._progress.update(self._tasks[path], label=label, figures=figures, file="", failed=word == "FAIL")


class WatchBarView(GangBarView, WatchView):
    """Shows each verdict as a block that can be read from a metre away, and below them a bar for each port in use."""

    def __init__(self, console: Console, title: str) -> None:
        super().__init__(console, title)
        # A watch may run for hours; ten times a second took six percent of a CPU with 16 boards.
        self._progress.live.refresh_per_second = 4

    def begin(self, ports: str, count: int | None) -> None:
        """Show that the watch begins."""
        self._console.info(invitation(self._title, ports, count))
        self._begin(_TALLY, self._label("", "watching"), count or 0)
        self._open.discard(_TALLY)  # not a phase that can be abandoned
        self._progress.update(self._tasks[_TALLY], figures=[_NO_BOARD])

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if isinstance(event, DeviceFound) and self._task(_TALLY).fields["figures"] == [_NO_BOARD]:
            self._progress.update(self._tasks[_TALLY], figures=["0 passed, 0 failed"])
        if isinstance(event, BoardLeft):
            if event.path in self._tasks:
                self._progress.remove_task(self._tasks.pop(event.path))
        elif isinstance(event, AlreadyFlashed):
            self._begin(event.path, self._label(event.path, "SKIP"), 1)
            self._close(event.path, "SKIP", "already flashed, unplug it", "unplug it")
            self._block("SKIP", event.path, event.serial or event.mac, "already flashed", "black on cyan")
        elif not isinstance(event, (Flashed, Failed)):  # shown as verdicts, once they are on record
            super().__call__(event)

    def verdict(self, verdict: Verdict) -> None:
        """Show the outcome of a board."""
        self._close(verdict.path, verdict.word, f"{verdict.figures}, unplug it", "unplug it")
        colour = "black on green" if verdict.problem is None else "bold white on red"
        self._block(verdict.word, verdict.path, verdict.serial, verdict.figures, colour)
        if verdict.problem is not None:
            self._console.error(*verdict.problem)
        self._progress.update(self._tasks[_TALLY], completed=verdict.done, figures=[verdict.tally])

    def _notice(self, event: Notice) -> None:
        self._console.warn(located(event))

    def _block(self, word: str, path: str, serial: str | None, figures: str, colour: str) -> None:
        width = self._terminal.width
        line = f"   {word}   {path}   {clean(serial) + '   ' if serial else ''}{clean(figures)}"
        # Both colours are named, because the terminal's own white cannot be read on green or cyan.
        style = "bold reverse" if self._terminal.no_color else colour
        for text in ("", line, ""):
            self._terminal.print(Text(text[:width].ljust(width), style=style))
