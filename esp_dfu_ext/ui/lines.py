"""A flash in lines, for a log: of one board, of several at once, or of boards as they are plugged in."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple

from ..events import (
    AlreadyFlashed,
    BoardIdentified,
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
    Waiting,
)
from ..units import format_seconds, format_size
from .console import Console

# What a finished phase has done.
DONE = {
    Phase.ENTER: "board is in download mode",
    Phase.DETACH: "board is in DFU mode",
    Phase.COMPARE: "MD5s compared",
    Phase.RECOVER: "back in dfuIDLE",
    Phase.VERIFY: "all MD5s match",
    Phase.CHECK: "loader's MD5s match",
    Phase.RESET: "chip reset",
}


class FlashView:
    """Takes the events of a flash; this one shows nothing."""

    def __enter__(self) -> FlashView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the terminal."""

    def __call__(self, event: Event) -> None:
        """Show an event."""


class LineView(FlashView):
    """Shows what logs and terminals both print as whole lines."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._waiting = False

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if isinstance(event, Notice):
            self._notice(event)
        elif isinstance(event, DeviceFound) and event.app is not None:
            serial = f", serial number {event.serial}" if event.serial else ""
            self._console.info(f"App {event.app} on port {event.path}{serial}: asked to enter download mode")
        elif isinstance(event, DeviceFound):
            serial = f", serial number {event.serial}" if event.serial else ""
            title = f"{self._title[0].upper()}{self._title[1:]}"
            port = f"serial port {event.path}" if event.mode == "serial" else f"port {event.path}"
            mode = "" if event.mode == "serial" else f", in {event.mode} mode"
            self._console.info(f"{title} on {port}{serial}{mode}")
        elif isinstance(event, Waiting) and not self._waiting:
            self._waiting = True
            article = "an" if self._title[0] in "AEIOU" else "a"
            self._console.info(f"Waiting up to {format_seconds(event.seconds)} for {article} {self._title} ...")
        elif isinstance(event, BoardIdentified):
            self._identified(event)
        elif isinstance(event, PartsSkipped):
            self._skipped(event)
        elif isinstance(event, PhaseStarted) and event.phase is Phase.ENTER:
            self._console.info(f"Resetting the board on serial port {event.path} into download mode")

    def _notice(self, event: Notice) -> None:
        if event.code == "no-loader":  # nothing is wrong with the flash
            self._console.info(located(event))
        else:
            self._console.warn(event.message)

    def _identified(self, event: BoardIdentified) -> None:
        self._console.info(f"  {identity(event)}")

    def _skipped(self, event: PartsSkipped) -> None:
        self._console.info(f"  {saved(event)}")


class LogView(LineView):
    """Shows each phase in a line, and the download every ten percent."""

    _step = 10  # percent between two lines

    def __init__(self, console: Console, title: str) -> None:
        super().__init__(console, title)
        self._next: dict[str, int] = {}

    def __call__(self, event: Event) -> None:
        """Show an event."""
        super().__call__(event)
        if isinstance(event, PhaseStarted):
            self._next[event.path] = self._step
        elif isinstance(event, Progress) and event.total:
            percent = event.done * 100 // event.total
            if percent >= self._next[event.path]:
                self._next[event.path] = (percent // self._step + 1) * self._step
                name = f"  {event.name}" if event.name else ""
                self._line(event.path, f"{event.phase.value:<9} {percent:>3}%{name}")
        elif isinstance(event, PhaseFinished) and event.phase in DONE:
            self._line(event.path, f"{event.phase.value:<9} {DONE[event.phase]}, {format_seconds(event.seconds)}")

    def _line(self, path: str, text: str) -> None:
        self._console.info(text)


class GangLogView(LogView):
    """Shows several boards, with the port in front of each line; errors follow at the end."""

    _step = 25

    def __call__(self, event: Event) -> None:
        """Show an event."""
        super().__call__(event)
        if isinstance(event, Flashed):
            done = "flashed" if event.size else "already flashed"
            self._line(event.path, f"{done}, {format_seconds(event.seconds)}")
        elif isinstance(event, Failed):
            self._line(event.path, f"FAIL: {event.code}")

    def _line(self, path: str, text: str) -> None:
        self._console.info(f"{path:<7} {text}")

    def _identified(self, event: BoardIdentified) -> None:
        self._line(event.path, identity(event))

    def _skipped(self, event: PartsSkipped) -> None:
        self._line(event.path, saved(event))


# --- boards as they are plugged in ------------------------------------------------------------------------


class Problem(NamedTuple):
    """An error, as `Console.error` takes it."""

    message: str
    code: str
    notes: Sequence[str]
    advice: Sequence[str]


class Verdict(NamedTuple):
    """The outcome of one board.

    Attributes:
        path: USB port.
        serial: Serial number, None where it identifies nothing.
        figures: Size and time, or the code of the error.
        tally: How many boards have passed and failed so far.
        done: Their sum.
        problem: Why it failed; None if it passed.
    """

    path: str
    serial: str | None
    figures: str
    tally: str
    done: int
    problem: Problem | None

    @property
    def word(self) -> str:
        """PASS or FAIL."""
        return "PASS" if self.problem is None else "FAIL"


class WatchView(FlashView):
    """Shows verdicts, and nothing else."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def begin(self, ports: str, count: int | None) -> None:
        """Show that the watch begins: on which ports, and for how many boards."""

    def verdict(self, verdict: Verdict) -> None:
        """Show the outcome of a board."""
        serial = f"  {verdict.serial}" if verdict.serial else ""
        line = f"{verdict.word}  {verdict.path}{serial}  {verdict.figures}  ({verdict.tally})"
        self._console.result(line, good=verdict.problem is None)
        if verdict.problem is not None:
            self._console.error(*verdict.problem)


class WatchLogView(GangLogView, WatchView):
    """Shows verdicts, and the phases that led to them."""

    def begin(self, ports: str, count: int | None) -> None:
        """Show that the watch begins."""
        self._console.info(invitation(self._title, ports, count))

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if isinstance(event, AlreadyFlashed):
            self._console.info(f"SKIP  {event.path}  {event.serial or event.mac}  already flashed")
        elif not isinstance(event, (Flashed, Failed)):  # shown as verdicts, once they are on record
            super().__call__(event)

    def _notice(self, event: Notice) -> None:
        self._console.warn(located(event))


def located(event: Notice) -> str:
    """Return the text of a notice with the port that it is about."""
    return event.message if event.path in event.message else f"Port {event.path}: {event.message}"


def identity(event: BoardIdentified) -> str:
    """Return what a board says of itself, in a line."""
    size = (
        "flash memory of unknown size"
        if event.flash_size is None
        else f"{format_size(event.flash_size)} of flash memory"
    )
    features = (("Secure Boot", event.secure_boot), ("flash encryption", event.flash_encryption))
    return ", ".join([f"MAC {event.mac}", size, *(f"{name} enabled" for name, on in features if on)])


def saved(event: PartsSkipped) -> str:
    """Return what is not sent because flash memory holds it, in a line."""
    left, size = event.size - event.skipped, format_size(event.size)
    if not left:
        return f"already flashed: all {size}; nothing is sent"
    return f"already flashed: {format_size(event.skipped)} of {size}; {format_size(left)} to send"


def invitation(title: str, ports: str, count: int | None) -> str:
    """Return what a watch tells its operator to do."""
    how_many = f"{count} " if count is not None else ""
    boards, them = ("board", "it") if count == 1 else ("boards", "them")
    return f"Waiting for {how_many}{title} {boards}{ports}. Connect {them} in download mode; press Ctrl-C to stop."
