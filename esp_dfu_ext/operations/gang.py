"""Flash several boards at once: a thread for each board, and one stream of events. No board waits for another."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, wait
from dataclasses import replace
from functools import partial
from typing import Any, Generic, TypeVar

from ..clock import Clock, Deadline
from ..dfu.discovery import SCAN_INTERVAL, Selector, find_boards, not_found
from ..errors import EspDfuError, NoThreadError
from ..events import BoardIdentified, DeviceFound, Event, Failed, Flashed, Waiting
from ..usb.bus import Bus, UsbDevice
from ..usb.trace import Trace
from .flash import flash_board
from .flash_setup import FlashSetup
from .results import FlashOutcome

SETTLE_TIME = 1.0  # seconds without a new board after which no more are expected
_WAIT_INTERVAL = 0.2  # seconds; Windows delivers a Ctrl-C only when a wait ends

T = TypeVar("T")


def flash_boards(setup: FlashSetup, paths: Sequence[str] = ()) -> list[FlashOutcome]:
    """Flash several boards of one chip at once; see `Flasher.flash_all`."""
    chosen = _wait_for_boards(setup, paths)
    gang = Gang(replace(setup, others=lambda: len(chosen) - 1))
    threads = [BoardThread(path, partial(gang.flash, path), partial(gang.refuse, path)) for path in chosen]
    try:
        for thread in threads:
            thread.ensure_started()
        return [thread.result() for thread in threads]
    except KeyboardInterrupt as cause:
        gang.stop(cause)  # each of them ends soon, and reports how
        for thread in threads:
            thread.ensure_started()
        return [thread.result() for thread in threads]
    finally:
        gang.stop()


def _wait_for_boards(setup: FlashSetup, paths: Sequence[str]) -> list[str]:
    """Return the ports of the boards to flash, once all of them are connected."""
    bus, target, clock, seconds = setup.bus, setup.image.target, setup.clock, setup.options.wait
    deadline = Deadline(clock, seconds)
    waited = False
    while True:
        left = deadline.left
        boards = find_boards(bus, target, setup.targets, apps=setup.asks_apps, paths=paths)
        found = [interface.path for interface in boards]
        missing = [path for path in paths if path not in found]
        if found and not missing:
            break
        if deadline.left <= 0:
            raise not_found(bus, target, Selector(path=missing[0] if missing else None), setup.targets, boards)
        setup.on_event(Waiting(left))
        deadline.sleep(SCAN_INTERVAL)
        waited = True
    if paths:
        return list(dict.fromkeys(paths))
    settled = Deadline(clock, SETTLE_TIME)
    while waited and settled.left > 0 and deadline.left > -SETTLE_TIME:
        clock.sleep(SCAN_INTERVAL)
        boards = find_boards(bus, target, setup.targets, apps=setup.asks_apps)
        now = [interface.path for interface in boards]
        if now != found:
            found, settled = now, Deadline(clock, SETTLE_TIME)
    return found


class Gang:
    """What boards flashed at the same time share: bus, clock, event stream and the way to stop them.

    Args:
        setup: What to flash, and how; its event sink is never called from two threads at once.
    """

    def __init__(self, setup: FlashSetup) -> None:
        self._on_event = setup.on_event
        self._lock = threading.Lock()
        self._serials: dict[str, str | None] = {}
        self._macs: dict[str, str] = {}
        self._cause: tuple[type[KeyboardInterrupt], tuple[Any, ...]] | None = None
        clock = _StoppableClock(setup.clock, self._check_stopped)
        self._setup = replace(
            setup,
            bus=_SharedScan(setup.bus, clock),
            clock=clock,
            on_event=self._board_event,
            keep_result=True,
        )

    def flash(self, path: str, skip: Collection[str] = (), return_time: float = 0.0) -> FlashOutcome:
        """Flash the board on a port, in the calling thread; an error is also reported as `Failed`.

        Args:
            path: The port.
            skip: Serial numbers and MAC addresses of boards to leave alone.
            return_time: Seconds to look for the board after its restart, if that is more than the setup says.

        Raises:
            BoardSkipped: The board's serial number or MAC address is one of `skip`.
        """
        try:
            setup = replace(self._setup, return_time=max(return_time, self._setup.return_time))
            result = flash_board(setup, Selector(path=path), skip)
        except EspDfuError as error:
            _drop_frames(error)
            self.emit(Failed(path, error.code, error.message))
            return FlashOutcome(path, self._serials.get(path), None, error, self._macs.get(path))
        finally:
            self._serials.pop(path, None)
            self._macs.pop(path, None)
        return FlashOutcome(path, result.serial, result, None, result.mac)

    def refuse(self, path: str, reason: str) -> FlashOutcome:
        """Return the outcome of a board that has no thread, which is also reported as `Failed`."""
        error = NoThreadError(f"Port {path}: no thread can be started for this board: {reason}.")
        self.emit(Failed(path, error.code, error.message))
        return FlashOutcome(path, None, None, error)

    def emit(self, event: Event) -> None:
        """Pass an event on, between the events of the boards."""
        with self._lock:
            if isinstance(event, DeviceFound):
                # An app's serial number may be that of all boards that run it.
                self._serials[event.path] = event.serial if event.app is None else None
            elif isinstance(event, BoardIdentified):
                self._macs[event.path] = event.mac
            self._on_event(event)

    def stop(self, cause: KeyboardInterrupt | None = None) -> None:
        """End all flashes in order, as Ctrl-C would; the first `cause` counts."""
        if self._cause is None:
            cause = cause or KeyboardInterrupt()
            self._cause = type(cause), cause.args  # not the exception itself, whose frames would be kept alive

    def _check_stopped(self) -> None:
        if self._cause is not None:
            kind, args = self._cause
            raise kind(*args)

    def _board_event(self, event: Event) -> None:
        if not isinstance(event, Flashed):  # a board that is flashed stays flashed
            self._check_stopped()
        self.emit(event)


class BoardThread(threading.Thread, Generic[T]):
    """Does one board's work in a thread of its own.

    Args:
        path: Port of the board.
        work: What to do.
        otherwise: What to do, in the calling thread, if the system starts no more threads; it takes the reason.
    """

    def __init__(self, path: str, work: Callable[[], T], otherwise: Callable[[str], T]) -> None:
        super().__init__(name=f"dfu-{path}")
        self._work = work
        self._otherwise = otherwise
        self._future: Future[T] = Future()
        self._asked = False

    def run(self) -> None:
        """See threading.Thread."""
        try:
            self._future.set_result(self._work())
        except BaseException as error:
            self._future.set_exception(error)

    def ensure_started(self) -> None:
        """Start the thread unless it was started before."""
        if self._asked:
            return
        self._asked = True
        try:
            self.start()
        except (RuntimeError, MemoryError) as error:  # RuntimeError: can't start new thread
            self._future.set_result(self._otherwise(str(error)))

    @property
    def is_done(self) -> bool:
        """The work has ended; `is_alive` is wrong on some Pythons after a Ctrl-C in `join` (bpo-45274)."""
        return self._future.done()

    def result(self) -> T:
        """Wait for the work to end and return its result, or raise its exception."""
        while not self._future.done():
            wait([self._future], _WAIT_INTERVAL)
        if self.ident is not None:
            self.join()
        return self._future.result()


def _drop_frames(error: BaseException) -> None:
    """Remove the tracebacks of an error that is kept: their frames hold the device, and with it a libusb context."""
    left, done = [error], set()
    while left:
        now = left.pop()
        now.__traceback__ = None
        done.add(id(now))
        left += [other for other in (now.__cause__, now.__context__) if other is not None and id(other) not in done]


class _SharedScan(Bus):
    """A bus for many threads: while a port is empty, one scan serves all threads that wait for a board.

    Otherwise 16 boards that change to DFU mode at once would keep a CPU busy with scans, and the system would have no
    time to set the boards up. A scan is at most `SCAN_INTERVAL` old, and hands out no device.
    """

    def __init__(self, bus: Bus, clock: Clock) -> None:  # no super().__init__: everything is passed on to `bus`
        self._bus = bus
        self._clock = clock
        self._lock = threading.Lock()
        self._scanned = -math.inf
        self._ports: frozenset[str] = frozenset()

    def scan(self, vids: frozenset[int] | None = None, *, path: str | None = None) -> list[UsbDevice]:
        """See Bus."""
        return [] if path is not None and self._is_empty(path) else self._bus.scan(vids, path=path)

    def ports(self) -> frozenset[str]:
        """See Bus."""
        return self._bus.ports()

    @property
    def trace(self) -> Trace | None:
        """See Bus."""
        return self._bus.trace

    @trace.setter
    def trace(self, trace: Trace | None) -> None:
        self._bus.trace = trace

    def _is_empty(self, path: str) -> bool:
        with self._lock:
            now = self._clock.monotonic()
            if now - self._scanned >= SCAN_INTERVAL:
                self._ports, self._scanned = self._bus.ports(), now
            return path not in self._ports


class _StoppableClock:
    """A clock on which sleeping ends by an exception once the flashes are stopped."""

    def __init__(self, clock: Clock, check_stopped: Callable[[], None]) -> None:
        self._clock = clock
        self._check_stopped = check_stopped

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def sleep(self, seconds: float) -> None:
        self._clock.sleep(seconds)
        self._check_stopped()
