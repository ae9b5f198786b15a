"""A flash as it goes, in lines for a log; one board or several. In a terminal `live` draws bars instead."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

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
    Waiting,
)
from ..units import format_seconds, format_size

if TYPE_CHECKING:
    from .console import Console


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


class LineView(FlashView):
    """What both views say in whole lines."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._waiting = False

    def __call__(self, event: Event) -> None:
        if isinstance(event, Notice):
            self._notice(event)
        elif isinstance(event, DeviceFound):
            serial = f", serial number {event.serial}" if event.serial else ""
            self._console.say(
                f"{self._title[0].upper()}{self._title[1:]} on port {event.path}{serial}, in {event.mode} mode"
            )
        elif isinstance(event, Waiting) and not self._waiting:
            self._waiting = True
            self._console.say(f"Waiting up to {format_seconds(event.seconds)} for {self._title} ...")

    def _notice(self, event: Notice) -> None:
        self._console.warn(event.message)


# What a phase that is over has done.
DONE = {
    Phase.DETACH: "in DFU mode",
    Phase.RECOVER: "back in dfuIDLE",
    Phase.VERIFY: "every MD5 compared",
    Phase.RESET: "bus reset",
}


class PlainView(LineView):
    """Lines for a log: each phase once, the download every ten percent."""

    _step = 10  # percent between two lines

    def __init__(self, console: Console, title: str) -> None:
        super().__init__(console, title)
        self._next: dict[str, int] = {}

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        if isinstance(event, PhaseStarted):
            self._next[event.path] = self._step
        elif isinstance(event, Progress) and event.total:
            percent = event.done * 100 // event.total
            if percent >= self._next[event.path]:
                self._next[event.path] = (percent // self._step + 1) * self._step
                name = f"  {event.name}" if event.name else ""
                of = f"{format_size(event.done)} of {format_size(event.total)}"
                self._console.say(f"{self._prefix(event.path)}{event.phase.value:<9} {percent:>3} %  {of}{name}")
        elif isinstance(event, PhaseFinished) and event.phase in DONE:
            done = f"{DONE[event.phase]}, {format_seconds(event.seconds)}"
            self._console.say(f"{self._prefix(event.path)}{event.phase.value:<9} {done}")

    def _prefix(self, path: str) -> str:
        return ""


class GangPlainView(PlainView):
    """The same lines with the board's port before them, and each board's end; why it failed is said below them."""

    _step = 25

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        if isinstance(event, Flashed):
            self._console.say(f"{self._prefix(event.path)}flashed, {format_seconds(event.seconds)}")
        elif isinstance(event, Failed):
            self._console.say(f"{self._prefix(event.path)}FAILED: {event.code}")

    def _prefix(self, path: str) -> str:
        return f"{path:<7} "
