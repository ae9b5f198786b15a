"""A flash as it goes, in bars: one for each phase, or with several boards one for each of them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderableType, RenderResult
from rich.progress import BarColumn, ProgressColumn, Task, TaskID
from rich.progress import Progress as RichProgress
from rich.table import Column
from rich.text import Text

from ..events import (
    DeviceFound,
    Event,
    Failed,
    Flashed,
    Notice,
    Phase,
    PhaseFinished,
    PhaseStarted,
    Progress,
)
from ..units import clean, format_rate, format_seconds, format_size
from ..usb.bus import path_key
from .lines import DONE, LineView
from .terminal import Terminal
from .text import shorten

if TYPE_CHECKING:
    from .console import Console


_WIDEST = 104  # columns; enough for bars of 40


class _Progress(RichProgress):
    """Rich's, with some columns left free: the ``^C`` that a terminal shows would wrap a full line."""

    def get_renderables(self) -> Iterable[RenderableType]:
        # Boards begin in any order, and are looked for by their ports.
        yield _Narrower(self.make_tasks_table(sorted(self.tasks, key=lambda task: path_key(task.fields["port"]))))


class _Narrower:
    """Keeps columns at the right free; padding would print spaces there, and the cursor would be behind them.

    On a wide terminal all bars are as long as those that are done.
    """

    def __init__(self, content: RenderableType) -> None:
        self._content = content

    def __rich_console__(self, console: RichConsole, options: ConsoleOptions) -> RenderResult:
        yield from console.render(self._content, options.update_width(max(1, min(options.max_width - 3, _WIDEST))))


class LiveView(LineView):
    """A bar for each phase, redrawn in place."""

    _narrow_file = 10  # columns for a file's name where there are few

    def __init__(self, console: Console, title: str) -> None:
        super().__init__(console, title)
        assert isinstance(console.out, Terminal)  # the only stream that is live
        self._file_width = 24 if console.out.width >= 76 else self._narrow_file
        self._progress = _Progress(
            _Field("label", Column(no_wrap=True, overflow="crop")),
            BarColumn(
                bar_width=None,
                style="bright_black",
                complete_style="green",
                finished_style="green",
                pulse_style="green",
                table_column=Column(ratio=1, min_width=6, max_width=40),
            ),
            _Field("figures", Column(no_wrap=True, overflow="crop")),
            _Field("file", Column(no_wrap=True, overflow="crop")),
            console=console.out,
            expand=True,
        )
        self._tasks: dict[Hashable, TaskID] = {}
        self._started: dict[Hashable, float] = {}
        self._open: set[Hashable] = set()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for row in list(self._open):
            self._leave_off(row)
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        if isinstance(event, PhaseStarted):
            self._begin(self._row(event.path, event.phase), self._label(event.path, event.phase.value), event.total)
        elif isinstance(event, Progress):
            self._show(self._row(event.path, event.phase), event)
        elif isinstance(event, PhaseFinished):
            self._end(self._row(event.path, event.phase), event)

    def _notice(self, event: Notice) -> None:
        # Above the bars: on stderr it would go through them.
        self._console.warn(event.message, to=self._console.out)

    def _row(self, path: str, phase: Phase) -> Hashable:
        return phase

    def _label(self, path: str, word: str) -> str:
        return word

    def _begin(self, row: Hashable, label: str, total: int) -> None:
        self._progress.start()  # not earlier: where no bar follows, nothing shall move
        # A task that has not started pulses: there is no telling how far it is.
        port = row if isinstance(row, str) else ""
        fields: dict[str, Any] = {"label": label, "figures": "...", "file": "", "port": port}
        if row in self._tasks:
            self._progress.reset(self._tasks[row], total=total or 1, start=bool(total), **fields)
        else:
            self._tasks[row] = self._progress.add_task("", total=total or 1, start=bool(total), **fields)
        self._started[row] = self._progress.get_time()
        self._open.add(row)

    def _leave_off(self, row: Hashable) -> None:
        """The phase ended in the middle: its bar stands still, and one that only pulsed is empty."""
        self._open.discard(row)
        task = self._progress.tasks[self._progress.task_ids.index(self._tasks[row])]
        if task.started:
            figures = f"{task.percentage:>3.0f} %, not finished"
        else:
            self._progress.start_task(task.id)
            figures = "not finished"
        self._progress.update(task.id, figures=figures, file="")

    def _show(self, row: Hashable, event: Progress) -> None:
        seconds = self._progress.get_time() - self._started[row]
        percent = event.done * 100 // max(event.total, 1)
        figures = f"{percent:>3} %"
        if event.done and seconds > 0.5:
            left = seconds / event.done * (event.total - event.done)
            figures += f"  {format_rate(event.done, seconds)}  {format_seconds(left)} left"
        self._progress.update(self._tasks[row], completed=event.done, figures=figures, file=self._file(event.name))

    def _file(self, name: str) -> str:
        """Cut by us: rich would end a long one with a character that not every code page has."""
        return shorten(clean(name), self._file_width) if self._file_width else ""

    def _end(self, row: Hashable, event: PhaseFinished) -> None:
        task = self._tasks[row]
        total = int(self._progress.tasks[self._progress.task_ids.index(task)].total or 1)
        done = format_rate(total, event.seconds) if event.phase is Phase.DOWNLOAD else DONE[event.phase]
        self._progress.start_task(task)
        figures = ", ".join(filter(None, (done, format_seconds(event.seconds))))
        self._progress.update(task, completed=total, figures=figures, file="")
        self._open.discard(row)


class GangLiveView(LiveView):
    """A bar for each board, as long as they are flashed; what comes then tells the same."""

    _narrow_file = 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.live.transient = kind is None
        super().__exit__(kind, error, trace)

    def __call__(self, event: Event) -> None:
        if not isinstance(event, DeviceFound):
            super().__call__(event)
        if isinstance(event, Flashed):
            self._close(event.path, "done", f"{format_size(event.size)}  {format_seconds(event.seconds)}")
        elif isinstance(event, Failed):
            if event.path not in self._tasks:
                self._begin(event.path, "", 0)
            self._close(event.path, "FAILED", event.code)

    def _row(self, path: str, phase: Phase) -> Hashable:
        return path

    def _label(self, path: str, word: str) -> str:
        return f"{path:<7} {word:<8}"

    def _close(self, path: str, word: str, figures: str) -> None:
        if path in self._open:
            self._leave_off(path)
        self._progress.update(self._tasks[path], label=self._label(path, word), figures=figures, file="")


class _Field(ProgressColumn):
    """Shows one field of a task."""

    def __init__(self, name: str, column: Column) -> None:
        super().__init__(table_column=column)
        self._name = name

    def render(self, task: Task) -> Text:
        return Text(str(task.fields.get(self._name, "")))
