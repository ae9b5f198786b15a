"""What the ways to flash (one board, several at once, one after another) share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..events import EventSink
from ..operations.flash import FlashOptions
from ..operations.flasher import Flasher
from ..operations.inspect import CheckedImage
from ..target import Target
from ..usb.bus import Bus
from .session import Session

if TYPE_CHECKING:
    from ..operations.record import Recorder
    from ..simulator import Simulation

_LONGEST_WAIT = 24 * 3600  # seconds


@dataclass(frozen=True)
class FlashArguments(FlashOptions):
    """Options of `dfu-flash` and `esp-dfu flash`: how to flash, which boards, and what to show."""

    paths: Sequence[str] = ()
    all: bool = False
    serial: str | None = None
    simulate: bool = False
    json: bool = False
    watch: bool = False
    count: int | None = None
    report: str | None = None

    def check(self) -> None:
        """Raise UsageError if they contradict each other."""
        if sum((bool(self.paths), self.all, self.serial is not None)) > 1:
            raise UsageError("--path, --serial and --all each say which boards; give one of them.")
        if not 0 <= self.wait <= _LONGEST_WAIT:
            raise UsageError(f"--wait takes a number of seconds, from 0 to {_LONGEST_WAIT}.")
        if self.watch and self.serial is not None:
            raise UsageError("--watch takes whatever board comes, so --serial says nothing; --path says where.")
        if self.watch and self.wait:
            raise UsageError("--watch waits as long as it takes; leave --wait away.")
        if self.watch and self.json:
            raise UsageError("--watch has no --json; --report writes a JSON line for each board.")
        if self.count is not None and not self.watch:
            raise UsageError("--count is how many boards a --watch is for; give both.")
        if self.count is not None and self.count < 1:
            raise UsageError("--count takes a number of boards, 1 or more.")

    @property
    def several(self) -> bool:
        """More than one board may be meant."""
        return self.all or len(set(self.paths)) > 1


@dataclass(frozen=True)
class FlashRun:
    """A flash that is about to begin, and everything it needs."""

    session: Session
    image: CheckedImage
    bus: Bus
    targets: Sequence[Target]
    arguments: FlashArguments
    simulation: Simulation | None
    recorder: Recorder | None = None

    @property
    def title(self) -> str:
        """What is flashed, in words: the chip, and whether it is simulated."""
        return f"{'simulated ' if self.simulation else ''}{self.image.target.chip}"

    def flasher(self, view: EventSink) -> Flasher:
        """Return what flashes the boards and reports to `view`, and before that to the report if there is one."""
        sink = view
        if self.recorder is not None:
            self.recorder.on_event = view
            sink = self.recorder
        return Flasher(self.arguments, bus=self.bus, targets=self.targets, clock=self.session.clock, on_event=sink)
