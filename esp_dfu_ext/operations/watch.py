"""Boards on and on: each is flashed once, as soon as it is plugged in, several at the same time.

Which board is which: one with a serial number of its own is known by that for as long as the watch goes on; one
without (`serial: fixed` in its chip's file) is known as long as it stays on its port. A change to DFU mode belongs
to the flash, and nobody looks at the port while that goes on.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from ..clock import Clock, SystemClock
from ..dfu.discovery import DfuInterface, device_at, find
from ..errors import EspDfuError, UsbError, UsbUnavailableError
from ..events import (
    AlreadyFlashed,
    BoardLeft,
    DeviceFound,
    Event,
    EventSink,
    Failed,
    Waiting,
    ignore,
)
from ..image.format import DfuImage
from ..target import Target, load_targets
from ..usb.bus import Bus
from .flash import flash, refuse_wrong_target
from .gang import FlashOutcome, Gang, Job

SCAN_INTERVAL = 0.2  # seconds between two looks at the bus: nobody notices, and an idle watch costs little
# A board that is away for less was restarted or has a loose contact; nobody changes boards so quickly.
AWAY_TIME = 1.0
BLIND_TIME = 5.0  # seconds in which no look at the bus may succeed; then the watch ends
END_INTERVAL = 0.02  # seconds between two looks at whether all have ended
MOST_TOGETHER = 64  # boards that are flashed at the same time; more wait for their turn


@dataclass(frozen=True)
class WatchResult:
    """What became of the boards; one that failed and passed later has passed.

    Attributes:
        passed: boards that are flashed.
        failed: boards that are not.
        first_error: of the first board that failed, None if all passed.
        stopped: what ended it, Ctrl-C or a signal; None if nothing did.
    """

    passed: int
    failed: int
    first_error: EspDfuError | None
    stopped: KeyboardInterrupt | None


OutcomeSink = Callable[[FlashOutcome, WatchResult], None]


def watch(
    image: DfuImage,
    target: Target,
    *,
    bus: Bus | None = None,
    paths: Sequence[str] = (),
    count: int | None = None,
    targets: Sequence[Target] | None = None,
    strict: bool = False,
    reset: bool = False,
    clock: Clock | None = None,
    stop: threading.Event | None = None,
    on_event: EventSink = ignore,
    on_outcome: OutcomeSink = lambda outcome, so_far: None,
) -> WatchResult:
    """Flash each board of one chip once as it is plugged in; those that are there already first.

    A board that failed is tried again once it was unplugged and plugged in.

    Args:
        image: as `load_image` returns it.
        target: the chip.
        bus: where the boards come and go; None for this machine's USB.
        paths: take boards on these ports only; on all if empty.
        count: end after so many boards; a board that is known by its serial number counts once. None: never.
        targets: the chips that are known; None for all.
        strict: ask the devices for their status after each block.
        reset: try to start the apps by a bus reset afterwards.
        clock: time; None for the real one.
        stop: end when it is set, in order, as after Ctrl-C.
        on_event: gets what happens; never from two threads at once.
        on_outcome: gets each board's outcome, and what became of all so far; in the caller's thread.

    Returns:
        What became of the boards, after `count` of them or after Ctrl-C. Boards that were just being flashed then
        have an InterruptedByUserError.

    Raises:
        WrongTargetError: the image is for another chip.
        UsbUnavailableError: USB cannot be used.
        UsbError: the bus could not be looked at for `BLIND_TIME` seconds.
    """
    refuse_wrong_target(image, target)
    known = load_targets() if targets is None else targets
    run = _Watch(target, bus or Bus(), frozenset(paths), count, clock or SystemClock(), on_event, on_outcome)
    flash_one = partial(flash, image, target, targets=known, wait=AWAY_TIME, strict=strict, reset=reset)
    run.gang = Gang(flash_one, bus=run.bus, clock=run.clock, on_event=run.filtered)
    return run.run(stop or threading.Event())


class _Known(Exception):
    """Ends the flash of a board that is done, before anything is sent to it; its argument is the serial number."""


@dataclass(frozen=True)
class _Ended:
    """A board's flash has ended, or it was `known`; `address` is what it has now (0: none)."""

    outcome: FlashOutcome | None
    known: str | None
    address: int


@dataclass
class _Port:
    """A port with a board that is being flashed (`job`), or that is done with and was last there at `seen`.

    `number` counts the boards; `serial` is one that no other board has.
    """

    job: Job[_Ended] | None
    number: int
    address: int = 0
    seen: float = 0.0
    serial: str | None = None
    passed: bool = False


class _Watch:
    gang: Gang

    def __init__(
        self,
        target: Target,
        bus: Bus,
        paths: frozenset[str],
        count: int | None,
        clock: Clock,
        on_event: EventSink,
        on_outcome: OutcomeSink,
    ) -> None:
        self.bus = bus
        self.clock = clock
        self._target = target
        self._paths = paths
        self._count = math.inf if count is None else count
        self._on_event = on_event
        self._on_outcome = on_outcome
        self._ports: dict[str, _Port] = {}
        self._known: dict[str, frozenset[str]] = {}  # path -> serial numbers that its job leaves alone
        # Ports of boards that somebody talked to; with those that left again before that, nothing happened.
        self._met: set[str] = set()
        # By serial number, or by their number where they have none.
        self._verdicts: dict[str | int, EspDfuError | None] = {}
        self._begun = 0
        self._looked = -math.inf
        self._stopped: KeyboardInterrupt | None = None

    def run(self, stop: threading.Event) -> WatchResult:
        try:
            while not stop.is_set() and not (self._room() <= 0 and self._running() == 0):
                self._look()
                self._collect()
                self.clock.sleep(SCAN_INTERVAL)
        except KeyboardInterrupt as cause:
            self._stopped = cause
        finally:
            self.gang.stop(self._stopped)
            for job in [port.job for port in self._ports.values() if port.job is not None]:
                with suppress(RuntimeError):  # it was started before
                    job.start()
                while not job.is_done:
                    self.clock.sleep(END_INTERVAL)
            self._collect()
        return self._result()

    def filtered(self, event: Event) -> None:
        """The gang's sink: keeps to itself what is no news here, and stops at boards that are known."""
        if isinstance(event, DeviceFound):
            if event.serial in self._known[event.path]:
                raise _Known(event.serial)
            self._met.add(event.path)
        left_again = isinstance(event, Failed) and event.path not in self._met
        if not isinstance(event, Waiting) and not left_again:
            self._on_event(event)

    def _result(self) -> WatchResult:
        errors = [error for error in self._verdicts.values() if error is not None]
        passed = len(self._verdicts) - len(errors)
        return WatchResult(passed, len(errors), errors[0] if errors else None, self._stopped)

    def _running(self) -> int:
        return sum(port.job is not None for port in self._ports.values())

    def _room(self) -> float:
        """How many boards may be begun now."""
        return min(self._count - len(self._verdicts), MOST_TOGETHER) - self._running()

    # --- looking ------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """See who came and who left."""
        now = self.clock.monotonic()
        try:
            found = find(self.bus, self._target)
        except (UsbError, UsbUnavailableError):
            if now - self._looked > BLIND_TIME:
                raise
            return
        self._looked = now
        there = {i.path: i for i in found if not self._paths or i.path in self._paths}
        for path, port in list(self._ports.items()):
            if port.job is None and self._is_another(port, there.get(path), now):
                del self._ports[path]
                self.gang.tell(BoardLeft(path))
        for path in there:
            if path not in self._ports and self._room() > 0:
                # Two boards that are there at the same time are two, whatever their serial numbers say.
                self._start(path, {port.serial for at, port in self._ports.items() if at in there})

    def _is_another(self, port: _Port, interface: DfuInterface | None, now: float) -> bool:
        """Is this no longer the board that was done with, or one to be tried again?"""
        if interface is None:
            return now - port.seen >= AWAY_TIME
        # A board that failed and restarted by itself would fail again, and so on and on.
        if interface.device.address != port.address and port.passed and port.serial is not None:
            return True
        port.address, port.seen = interface.device.address, now
        return False

    def _start(self, path: str, others: set[str | None]) -> None:
        passed = {serial for serial, error in self._verdicts.items() if error is None and isinstance(serial, str)}
        self._known[path] = frozenset(passed - others)
        self._met.discard(path)
        self._begun += 1
        job = Job(path, partial(self._flash, path))
        self._ports[path] = _Port(job, self._begun)
        job.start()

    def _flash(self, path: str) -> _Ended:
        """Runs in the board's own thread."""
        outcome = known = device = None
        try:
            outcome = self.gang.flash(path)
        except _Known as stopped:
            (known,) = stopped.args
        with suppress(UsbError, UsbUnavailableError):
            device = device_at(self.bus, path)
        return _Ended(outcome, known, device.address if device is not None else 0)

    # --- what became of them ------------------------------------------------------------------------------

    def _collect(self) -> None:
        """Take in those that are done."""
        for path, port in list(self._ports.items()):
            if port.job is None or not port.job.is_done:
                continue
            ended = port.job.result()
            port.address, port.seen = ended.address, self.clock.monotonic() if ended.address else -math.inf
            if ended.outcome is None:
                port.job, port.passed, port.serial = None, True, ended.known
                self.gang.tell(AlreadyFlashed(path, str(ended.known)))
            elif path not in self._met:
                del self._ports[path]
            else:
                self._judge(port, ended.outcome)

    def _judge(self, port: _Port, outcome: FlashOutcome) -> None:
        serial = outcome.serial if self._target.usb.serial != "fixed" else None
        twin = any(other.serial == serial for other in self._ports.values() if other is not port)
        self._verdicts[port.number if serial is None or twin else serial] = outcome.error
        port.job, port.passed, port.serial = None, outcome.error is None, serial
        self._on_outcome(outcome, self._result())
