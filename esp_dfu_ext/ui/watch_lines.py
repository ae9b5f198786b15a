"""A watch as it goes: each board's verdict, in a line that a log keeps, and what led to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..events import AlreadyFlashed, Event, Notice
from .lines import FlashView, PlainView

if TYPE_CHECKING:
    from .console import Console


class Problem(NamedTuple):
    """An error, as `Console.error` takes it."""

    message: str
    code: str
    notes: Sequence[str]
    hints: Sequence[str]


class Verdict(NamedTuple):
    """What became of one board.

    Attributes:
        figures: how much in what time, or what kind of error.
        tally: what became of all so far.
        done: how many boards that are.
        problem: why it failed; None if it passed.
    """

    path: str
    serial: str | None
    figures: str
    tally: str
    done: int
    problem: Problem | None

    @property
    def word(self) -> str:
        """What counts."""
        return "PASS" if self.problem is None else "FAIL"


class WatchView(FlashView):
    """Says the verdicts, and nothing else."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def begin(self, ports: str, count: int | None) -> None:
        """The watch begins: on which ports, for how many boards."""

    def verdict(self, verdict: Verdict) -> None:
        """A board is done."""
        serial = f"  {verdict.serial}" if verdict.serial else ""
        line = f"{verdict.word}  {verdict.path}{serial}  {verdict.figures}  ({verdict.tally})"
        self._console.result(line, good=verdict.problem is None)
        if verdict.problem is not None:
            self._console.error(*verdict.problem)


class WatchPlainView(PlainView, WatchView):
    """Lines for a log."""

    _step = 25

    def begin(self, ports: str, count: int | None) -> None:
        """See WatchView."""
        self._console.say(invitation(self._title, ports, count))

    def __call__(self, event: Event) -> None:
        """See FlashView."""
        super().__call__(event)
        if isinstance(event, AlreadyFlashed):
            self._console.say(f"SKIP  {event.path}  {event.serial}  was flashed before")

    def _notice(self, event: Notice) -> None:
        self._console.warn(located(event))

    def _prefix(self, path: str) -> str:
        return f"{path:<7} "


def located(event: Notice) -> str:
    """A notice with the port that it is about."""
    return event.message if event.path in event.message else f"Port {event.path}: {event.message}"


def invitation(title: str, ports: str, count: int | None) -> str:
    """What to do now, for whoever stands before it."""
    how_many = f"{count} " if count is not None else ""
    boards, them = ("board", "it") if count == 1 else ("boards", "them")
    return f"Waiting for {how_many}{title} {boards}{ports}. Plug {them} in, in download mode; Ctrl-C ends."
