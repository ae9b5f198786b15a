"""Flash each board once as it is plugged in, several at the same time.

A board with a serial number of its own is recognized by it for as long as the watch runs; one without (`serial: fixed`
in the chip's YAML file) by its MAC address, which its serial loader tells once it is in DFU mode, or, if that does not
answer, for as long as it stays on its port. The change to DFU mode is part of the flash, and the watch does not look at
the port meanwhile.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from ..dfu.discovery import DfuInterface, device_at, find_boards
from ..errors import EspDfuError, UsbError, UsbUnavailableError
from ..events import AlreadyFlashed, BoardLeft, DeviceFound, Event, Failed, Waiting
from .board_port import APP_TIME
from .flash_setup import BoardSkipped, FlashSetup
from .gang import BoardThread, Gang
from .results import FlashOutcome, WatchResult

WATCH_INTERVAL = 0.2  # seconds between two scans: short enough for people, long enough for an idle CPU
# A board that is away for less was restarted or has a loose contact; nobody changes boards so quickly.
AWAY_TIME = 1.0
BLIND_TIME = 5.0  # seconds without a successful scan, after which the watch ends
END_INTERVAL = 0.02  # seconds between two checks whether all flashes have ended
LONGEST_RETURN_TIME = 60.0  # seconds to look for an app that came back late before
MOST_TOGETHER = 64  # boards that are flashed at the same time; more wait for their turn

OutcomeSink = Callable[[FlashOutcome, WatchResult], None]


def watch_boards(
    setup: FlashSetup, paths: Collection[str], count: int | None, stop: threading.Event, on_outcome: OutcomeSink
) -> WatchResult:
    """Flash each board once as it is plugged in; see `Flasher.watch`."""
    return _Watch(setup, frozenset(paths), math.inf if count is None else count, on_outcome).run(stop)


@dataclass(frozen=True)
class _Ended:
    """How a flash ended: with an outcome, or, for a board that was flashed before, with what it was recognized by.

    Attributes:
        address: Address of the device that is on the port now, 0 if there is none.
    """

    outcome: FlashOutcome | None
    skipped: BoardSkipped | None
    address: int


@dataclass
class _Port:
    """A port with a board that is being flashed, or with one that is done and was last seen at the time `seen`.

    Attributes:
        thread: Flashes the board; None once it is done.
        number: Number of the board in order of arrival.
        name: Serial number or MAC address that no other board has.
        passed: The board is flashed.
    """

    thread: BoardThread[_Ended] | None
    number: int
    address: int = 0
    seen: float = 0.0
    name: str | None = None
    passed: bool = False


class _Watch:
    def __init__(self, setup: FlashSetup, paths: frozenset[str], count: float, on_outcome: OutcomeSink) -> None:
        self._bus = setup.bus
        self._target = setup.image.target
        self._targets = setup.targets
        self._asks_apps = setup.asks_apps
        self._clock = setup.clock
        self._paths = paths
        self._count = count
        self._on_event = setup.on_event
        self._on_outcome = on_outcome
        options = replace(setup.options, wait=AWAY_TIME)
        # An app with the ROM's USB console looks like a board in download mode. Without a serial number, only the
        # address tells that it is the board that was flashed.
        return_time = APP_TIME if self._target.usb.serial == "fixed" else setup.return_time
        self._ports: dict[str, _Port] = {}
        self._gang = Gang(
            replace(
                setup,
                options=options,
                on_event=self._filter,
                return_time=return_time,
                others=lambda: max(0, len(self._ports) - 1),
            )
        )
        # Seconds that the app of a flashed board may take to come back to a port, where it took longer before.
        self._return_times: dict[str, float] = {}
        # Ports of boards that were contacted; a board that left before that is not reported.
        self._contacted: set[str] = set()
        # Error of each board, None if it passed; by its name, or by its number where it has none.
        self._verdicts: dict[str | int, EspDfuError | None] = {}
        self._begun = 0
        self._scanned = -math.inf
        self._stopped: KeyboardInterrupt | None = None

    def run(self, stop: threading.Event) -> WatchResult:
        try:
            while not stop.is_set() and not (self._room() <= 0 and self._running() == 0):
                self._look()
                self._collect()
                self._clock.sleep(WATCH_INTERVAL)
        except KeyboardInterrupt as cause:
            self._stopped = cause
        finally:
            self._gang.stop(self._stopped)
            for thread in [port.thread for port in self._ports.values() if port.thread is not None]:
                thread.ensure_started()
                while not thread.is_done:
                    self._clock.sleep(END_INTERVAL)
            self._collect()
        return self._result()

    def _filter(self, event: Event) -> None:
        """Pass on the events that are of interest in a watch."""
        if isinstance(event, DeviceFound):
            self._contacted.add(event.path)
        left_again = isinstance(event, Failed) and event.path not in self._contacted
        if not isinstance(event, Waiting) and not left_again:
            self._on_event(event)

    def _result(self) -> WatchResult:
        errors = [error for error in self._verdicts.values() if error is not None]
        passed = len(self._verdicts) - len(errors)
        return WatchResult(passed, len(errors), errors[0] if errors else None, self._stopped)

    def _running(self) -> int:
        return sum(port.thread is not None for port in self._ports.values())

    def _room(self) -> float:
        """Return how many more boards may be begun now."""
        return min(self._count - len(self._verdicts), MOST_TOGETHER) - self._running()

    # --- boards come and leave ----------------------------------------------------------------------------

    def _look(self) -> None:
        now = self._clock.monotonic()
        try:
            found = find_boards(self._bus, self._target, self._targets, apps=self._asks_apps, paths=self._paths)
        except (UsbError, UsbUnavailableError):
            if now - self._scanned > BLIND_TIME:
                raise
            return
        self._scanned = now
        present = {i.path: i for i in found if not self._paths or i.path in self._paths}
        for path, port in list(self._ports.items()):
            if port.thread is None and self._is_free(port, present.get(path), now):
                del self._ports[path]
                self._gang.emit(BoardLeft(path))
        for path in present:
            if path not in self._ports and self._room() > 0:
                # Two boards that are connected at the same time are two, whatever their serial numbers say.
                self._start(path, {port.name for at, port in self._ports.items() if at in present})

    def _is_free(self, port: _Port, interface: DfuInterface | None, now: float) -> bool:
        """Tell whether the board that was done has left, or is to be tried again."""
        if interface is None:
            return now - port.seen >= AWAY_TIME
        if not interface.is_rom_of(self._target):  # its app, which is not asked again
            port.seen = now
            return False
        # A board that failed and restarted by itself would fail again, without end. To ask for a MAC address, a flash
        # changes the board to DFU mode, and its app may run by now.
        known = port.passed and port.name is not None and self._target.usb.serial != "fixed"
        if interface.device.address != port.address and known:
            return True
        port.seen = now
        return False

    def _start(self, path: str, others: set[str | None]) -> None:
        passed = {name for name, error in self._verdicts.items() if error is None and isinstance(name, str)}
        self._contacted.discard(path)
        self._begun += 1
        thread = BoardThread(path, partial(self._flash, path, passed - others), partial(self._refuse, path))
        self._ports[path] = _Port(thread, self._begun)
        thread.ensure_started()

    def _flash(self, path: str, skip: Collection[str]) -> _Ended:
        """Runs in the board's own thread."""
        outcome = skipped = device = None
        try:
            outcome = self._gang.flash(path, skip, self._return_times.get(path, 0.0))
        except BoardSkipped as board:
            skipped = board.with_traceback(None)
        with suppress(UsbError, UsbUnavailableError):
            device = device_at(self._bus, path)
        return _Ended(outcome, skipped, device.address if device is not None else 0)

    def _refuse(self, path: str, reason: str) -> _Ended:
        self._contacted.add(path)  # so that its failure is reported
        device = None
        with suppress(UsbError, UsbUnavailableError):
            device = device_at(self._bus, path)
        return _Ended(self._gang.refuse(path, reason), None, device.address if device is not None else 0)

    # --- boards are done ----------------------------------------------------------------------------------

    def _collect(self) -> None:
        for path, port in list(self._ports.items()):
            if port.thread is None or not port.thread.is_done:
                continue
            ended = port.thread.result()
            port.address, port.seen = ended.address, self._clock.monotonic() if ended.address else -math.inf
            if ended.skipped is not None:
                board = ended.skipped
                port.thread, port.passed, port.name = None, True, board.serial or board.mac
                if board.restarted and not ended.address:  # else it would be asked again, and restarted without end
                    wait = 2 * max(self._return_times.get(path, 0.0), APP_TIME)
                    self._return_times[path] = min(wait, LONGEST_RETURN_TIME)
                self._gang.emit(AlreadyFlashed(path, board.serial, board.mac))
            elif ended.outcome is None or path not in self._contacted:
                del self._ports[path]
            else:
                self._judge(port, ended.outcome)

    def _judge(self, port: _Port, outcome: FlashOutcome) -> None:
        name = outcome.own_name(self._target)
        twin = any(other.name == name for other in self._ports.values() if other is not port)
        self._verdicts[port.number if name is None or twin else name] = outcome.error
        port.thread, port.passed, port.name = None, outcome.error is None, name
        self._on_outcome(outcome, self._result())
