"""A watch in a terminal: a block for each verdict that can be read from a metre, and a row for each port in use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from ..events import AlreadyFlashed, BoardLeft, Event, Failed, Flashed, Notice
from ..units import clean
from .bars import GangLiveView
from .watch_lines import Verdict, WatchView, invitation, located

if TYPE_CHECKING:
    from .console import Console

_TALLY = ""  # the row of the last line; no port is called so


class WatchLiveView(GangLiveView, WatchView):
    """The verdicts stay above; below are the ports on which there is a board, and what became of all boards."""

    def __init__(self, console: Console, title: str) -> None:
        super().__init__(console, title)
        # It may stand there for hours; ten times a second cost six percent of a CPU with 16 boards.
        self._progress.live.refresh_per_second = 4

    def begin(self, ports: str, count: int | None) -> None:
        """See WatchView."""
        self._console.say(invitation(self._title, ports, count))
        self._begin(_TALLY, self._label("", "watching"), count or 0)
        self._open.discard(_TALLY)  # it is no phase that could be left off
        self._progress.update(self._tasks[_TALLY], figures="no board yet")

    def __call__(self, event: Event) -> None:
        """See FlashView."""
        if isinstance(event, BoardLeft):
            if event.path in self._tasks:
                self._progress.remove_task(self._tasks.pop(event.path))
        elif isinstance(event, AlreadyFlashed):
            self._begin(event.path, self._label(event.path, "SKIP"), 1)
            self._close(event.path, "SKIP", "flashed before, unplug it")
            self._block("SKIP", event.path, event.serial, "was flashed before", "black on cyan")
        elif not isinstance(event, (Flashed, Failed)):  # those come as verdicts, once they are on record
            super().__call__(event)

    def verdict(self, verdict: Verdict) -> None:
        """See WatchView."""
        if verdict.path not in self._tasks:
            self._begin(verdict.path, "", 0)
        self._close(verdict.path, verdict.word, f"{verdict.figures}, unplug it")
        colour = "black on green" if verdict.problem is None else "bold white on red"
        self._block(verdict.word, verdict.path, verdict.serial, verdict.figures, colour)
        if verdict.problem is not None:
            self._console.error(*verdict.problem, to=self._console.out)
        self._progress.update(self._tasks[_TALLY], completed=verdict.done, figures=verdict.tally)

    def _notice(self, event: Notice) -> None:
        self._console.warn(located(event), to=self._console.out)

    def _block(self, word: str, path: str, serial: str | None, figures: str, colour: str) -> None:
        width = self._progress.console.width
        line = f"   {word}   {path}   {clean(serial) + '   ' if serial else ''}{clean(figures)}"
        # Both colours are named, as green or cyan below a terminal's own white could not be read.
        style = "bold reverse" if self._progress.console.no_color else colour
        for text in ("", line, ""):
            self._above(Text(text[:width].ljust(width), style=style))

    def _above(self, line: Text) -> None:
        self._progress.console.print(line)
