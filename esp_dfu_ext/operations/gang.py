"""Several boards at once: one thread, one session, one event stream each; none waits for another."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from ..clock import Clock, SystemClock
from ..dfu.discovery import SCAN_INTERVAL, Selector, find, not_found
from ..errors import EspDfuError
from ..events import DeviceFound, Event, EventSink, Failed, Flashed, Waiting, ignore
from ..image.format import DfuImage
from ..target import Target, load_targets
from ..usb.bus import Bus, UsbDevice
from .flash import FlashResult, flash

SETTLE_TIME = 1.0  # seconds without a new board after which those that were waited for are all there
_WAIT_INTERVAL = 0.2  # seconds; on Windows a Ctrl-C comes when a wait ends

T = TypeVar("T")


@dataclass(frozen=True)
class FlashOutcome:
    """How it went with one of several boards; either `result` or `error` is there.

    Attributes:
        path: the port it is on.
        serial: its serial number, None if it has none or could not be asked.
    """

    path: str
    serial: str | None
    result: FlashResult | None
    error: EspDfuError | None


def flash_all(
    image: DfuImage,
    target: Target,
    *,
    bus: Bus | None = None,
    paths: Sequence[str] = (),
    targets: Sequence[Target] | None = None,
    wait: float = 0.0,
    strict: bool = False,
    reset: bool = False,
    clock: Clock | None = None,
    on_event: EventSink = ignore,
) -> list[FlashOutcome]:
    """Flash several boards of one chip together.

    Args:
        image: as `load_image` returns it.
        target: the chip.
        bus: where the boards are; None for this machine's USB.
        paths: their ports; all boards of this chip if empty.
        targets: the chips that are known, to name what was seen instead; None for all.
        wait: seconds to wait until they are there; with no `paths` until one is, and all that come with it.
        strict: ask the devices for their status after each block.
        reset: try to start the apps by a bus reset afterwards.
        clock: time; None for the real one.
        on_event: gets what happens; never from two threads at once.

    Returns:
        One outcome for each board, in the order of `paths`. An error on one board changes nothing for the
        others; after Ctrl-C those that were not finished have an InterruptedByUserError.

    Raises:
        DeviceNotFoundError: a board is not there; none was touched.
    """
    bus, clock = bus or Bus(), clock or SystemClock()
    known = load_targets() if targets is None else targets
    chosen = _paths(bus, target, paths, known, clock, wait, on_event)
    flash_one = partial(flash, image, target, targets=known, strict=strict, reset=reset)
    gang = Gang(flash_one, bus=bus, clock=clock, on_event=on_event)
    jobs = [Job(path, partial(gang.flash, path)) for path in chosen]
    try:
        for job in jobs:
            job.start()
        return [job.result() for job in jobs]
    except KeyboardInterrupt as cause:
        gang.stop(cause)  # each of them now ends soon, and says how
        for job in jobs:
            with suppress(RuntimeError):  # it was started before
                job.start()
        return [job.result() for job in jobs]
    finally:
        gang.stop()


def _paths(
    bus: Bus,
    target: Target,
    paths: Sequence[str],
    targets: Sequence[Target],
    clock: Clock,
    wait: float,
    on_event: EventSink,
) -> list[str]:
    """The ports of the boards that are meant, once every one of them is there."""
    deadline = clock.monotonic() + wait
    waited = False
    while True:
        boards = find(bus, target)
        found = [interface.path for interface in boards]
        missing = [path for path in paths if path not in found]
        if found and not missing:
            break
        left = deadline - clock.monotonic()
        if left <= 0:
            raise not_found(bus, target, Selector(path=missing[0] if missing else None), targets, boards)
        on_event(Waiting(left))
        clock.sleep(min(SCAN_INTERVAL, left))
        waited = True
    if paths:
        return list(dict.fromkeys(paths))
    last = clock.monotonic()
    while waited and clock.monotonic() < min(last, deadline) + SETTLE_TIME:
        clock.sleep(SCAN_INTERVAL)
        now = [interface.path for interface in find(bus, target)]
        found, last = now, last if now == found else clock.monotonic()
    return found


class Gang:
    """What boards share that are flashed at the same time: bus, clock, one stream of events, one end.

    Args:
        flash_one: `flash` with everything but the board, and what is shared.
        bus: where the boards are.
        clock: time.
        on_event: gets what happens; never from two threads at once.
    """

    def __init__(self, flash_one: Callable[..., FlashResult], *, bus: Bus, clock: Clock, on_event: EventSink) -> None:
        self._stop = _Stop()
        self._sink = _Sink(on_event, self._stop)
        shared_clock = _StoppableClock(clock, self._stop)
        shared_bus = _Lookout(bus, shared_clock)
        self._flash_one = partial(flash_one, bus=shared_bus, clock=shared_clock, on_event=self._sink)

    def flash(self, path: str) -> FlashOutcome:
        """Flash the board on a port; called in a thread of its own. An error is told as `Failed`."""
        try:
            result = self._flash_one(selector=Selector(path=path))
        except EspDfuError as error:
            without_frames(error)
            self.tell(Failed(path, error.code, error.message))
            return FlashOutcome(path, self._sink.serials.get(path), None, error)
        finally:
            self._sink.serials.pop(path, None)
        return FlashOutcome(path, result.serial, result, None)

    def tell(self, event: Event) -> None:
        """Pass an event on, between those of the boards."""
        self._sink.tell(event)

    def stop(self, cause: KeyboardInterrupt | None = None) -> None:
        """End all of them, in order, as `cause` ended somebody; None for Ctrl-C."""
        self._stop.set(cause or KeyboardInterrupt())


class Job(threading.Thread, Generic[T]):
    """Does one board's work in a thread of its own."""

    def __init__(self, path: str, work: Callable[[], T]) -> None:
        super().__init__(name=f"dfu-{path}")
        self._work: Callable[[], T] | None = work
        self._results: list[T] = []
        self._bug: BaseException | None = None
        self._done = threading.Event()

    @property
    def is_done(self) -> bool:
        """Its work has ended; `is_alive` is wrong on some Pythons after a Ctrl-C in `join` (bpo-45274)."""
        return self._done.is_set()

    def run(self) -> None:
        """See threading.Thread."""
        assert self._work is not None
        try:
            self._results.append(self._work())
        except BaseException as bug:
            self._bug = bug
        finally:
            self._work = None
            self._done.set()

    def result(self) -> T:
        """Wait for the end; what `work` returned, or its exception."""
        while not self._done.wait(_WAIT_INTERVAL):
            pass
        self.join()
        if self._bug is not None:
            raise self._bug
        return self._results[0]


def without_frames(error: BaseException) -> None:
    """Take from an error that is kept what its traceback holds: the device, and with it a libusb context."""
    left, done = [error], set()
    while left:
        now = left.pop()
        now.__traceback__ = None
        done.add(id(now))
        left += [other for other in (now.__cause__, now.__context__) if other is not None and id(other) not in done]


class _Stop:
    """Ends all boards' threads by what ended the main one."""

    def __init__(self) -> None:
        self._cause: tuple[type[KeyboardInterrupt], tuple[Any, ...]] | None = None

    def set(self, cause: KeyboardInterrupt) -> None:
        """End them; the first cause counts."""
        if self._cause is None:
            self._cause = type(cause), cause.args  # without its frames

    def check(self) -> None:
        """Raises the cause, once there is one."""
        if self._cause is not None:
            kind, args = self._cause
            raise kind(*args)


class _Lookout(Bus):
    """A bus that many threads look at: as long as a port is empty, one look serves all who wait for its board.

    Sixteen boards that change to DFU mode together would otherwise keep a CPU busy with looking, so that the system
    has no time to set them up. A look is at most `SCAN_INTERVAL` old, and hands out no device.
    """

    def __init__(self, bus: Bus, clock: Clock) -> None:
        self._bus = bus
        self._clock = clock
        self._lock = threading.Lock()
        self._looked = -math.inf
        self._ports: frozenset[str] = frozenset()

    def scan(self, vids: frozenset[int] | None = None, *, path: str | None = None) -> list[UsbDevice]:
        """See Bus."""
        return [] if path is not None and self._is_empty(path) else self._bus.scan(vids, path=path)

    def _is_empty(self, path: str) -> bool:
        with self._lock:
            now = self._clock.monotonic()
            if now - self._looked >= SCAN_INTERVAL:
                self._ports, self._looked = self._bus.ports(), now
            return path not in self._ports


class _Sink:
    """Passes events on, one at a time; once `stop` is set it ends whoever reports."""

    def __init__(self, on_event: EventSink, stop: _Stop) -> None:
        self._on_event = on_event
        self._stop = stop
        self._lock = threading.Lock()
        self.serials: dict[str, str | None] = {}

    def __call__(self, event: Event) -> None:
        # A board that is done is done.
        if not isinstance(event, Flashed):
            self._stop.check()
        self.tell(event)

    def tell(self, event: Event) -> None:
        with self._lock:
            if isinstance(event, DeviceFound):
                self.serials[event.path] = event.serial
            self._on_event(event)


class _StoppableClock:
    """A clock whose sleepers wake up, and end, once `stop` is set."""

    def __init__(self, clock: Clock, stop: _Stop) -> None:
        self._clock = clock
        self._stop = stop

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def sleep(self, seconds: float) -> None:
        self._clock.sleep(seconds)
        self._stop.check()
