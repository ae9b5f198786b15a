"""Watch: which boards are flashed, which are left alone, and how it ends."""

from __future__ import annotations

import errno
import gc
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import usb.core

from esp_dfu_ext import EventSink, Flasher, FlashOptions
from esp_dfu_ext.dfu.spec import Mode, Status
from esp_dfu_ext.errors import InterruptedByUserError, UsbError
from esp_dfu_ext.events import AlreadyFlashed, BoardLeft, DeviceFound, Event, Failed, Flashed, Progress
from esp_dfu_ext.operations.restart import BUS_RESET, NO_RESET
from esp_dfu_ext.operations.results import FlashOutcome, FlashResult, WatchResult
from esp_dfu_ext.simulator import Board, Faults
from esp_dfu_ext.simulator.board import error_status, hang, vanish
from esp_dfu_ext.simulator.bus import SimulatedBackend
from esp_dfu_ext.simulator.rom import TransferNak

from .kit.archives import CHIP_SIZE, checked, small_image
from .kit.boards import Rig
from .kit.chips import chip, chips
from .kit.clocks import SharedClock

S2, S3 = "esp32s2", "esp32s3"


class Station:
    """A watch with its boards; `end` seconds after the start somebody stops it."""

    def __init__(self, name: str = S3) -> None:
        self.clock = SharedClock()
        self.rig = Rig(clock=self.clock)
        self.name = name
        self.events: list[Event] = []
        self.outcomes: list[tuple[str, str | None, str]] = []
        self.results: list[WatchResult] = []
        self.flashed: list[FlashResult] = []
        self.stop = threading.Event()

    def board(self, path: str, number: int = 1) -> Board:
        board = Board.make(chip(self.name), path, self.clock, number=number, flash_size=CHIP_SIZE)
        self.rig.add(board)
        return board

    def later(self, path: str, number: int, when: float) -> Board:
        board = self.board(path, number)
        board.unplug()
        self.clock.at(when, board.plug)
        return board

    def take(self, outcome: FlashOutcome, so_far: WatchResult) -> None:
        assert threading.current_thread() is threading.main_thread()
        code = "PASS" if outcome.error is None else outcome.error.code
        self.outcomes.append((outcome.path, outcome.serial, code))
        self.results.append(so_far)
        if outcome.result is not None:
            self.flashed.append(outcome.result)

    def watch(
        self,
        end: float | None = None,
        after: str = NO_RESET,
        no_loader: bool = False,
        on_event: EventSink | None = None,
        **boards: Any,
    ) -> WatchResult:
        if end is not None:
            self.clock.at(end, self.stop.set)
        before = threading.active_count()
        image = checked(target=chip(self.name))
        flasher = Flasher(
            FlashOptions(after=after, no_loader=no_loader),
            bus=self.rig.bus,
            targets=chips(),
            clock=self.clock,
            on_event=on_event or self.events.append,
        )
        result = flasher.watch(image, stop=self.stop, on_outcome=self.take, **boards)
        assert threading.active_count() == before
        return result

    def codes(self) -> list[str]:
        return [code for _, _, code in self.outcomes]

    def count(self, kind: type[Event]) -> int:
        return sum(isinstance(event, kind) for event in self.events)


def open_files() -> int:
    """Open files of this process, where Linux tells."""
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def untouched(board: Board) -> bool:
    """Nothing was ever written to it."""
    return board.rom.flash.read(0, CHIP_SIZE) == b"\xff" * CHIP_SIZE


# --- which board is which ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [S2, S3])
def test_board_that_stays_is_flashed_once(name: str) -> None:
    station = Station(name)
    board = station.board("1-1")
    result = station.watch(end=60)
    assert station.codes() == ["PASS"]
    station.rig.assert_flashed(board=board)
    assert (result.passed, result.failed, result.first_error, result.stopped) == (1, 0, None, None)
    assert board.rom.mode is Mode.DFU
    assert station.count(BoardLeft) == 0


def test_replug_is_new_board_without_serial_and_mac() -> None:
    station = Station(S2)
    board = station.board("1-1")
    for when in (20, 40):
        station.clock.at(when, board.unplug)
        station.clock.at(when + 5, board.plug)
    assert station.watch(end=80, no_loader=True).passed == 3
    assert station.outcomes == [("1-1", "0", "PASS")] * 3
    assert station.count(BoardLeft) == 2


def test_serial_is_recognized_on_any_port() -> None:
    station = Station()
    board = station.board("1-1", 7)
    station.clock.at(20, board.unplug)
    moved = station.later("1-2", 7, 25)
    other = station.later("1-1", 8, 30)
    assert station.watch(end=60).passed == 2
    assert [path for path, _, _ in station.outcomes] == ["1-1", "1-1"]
    assert untouched(moved)
    station.rig.assert_flashed(board=other)
    assert [event for event in station.events if isinstance(event, AlreadyFlashed)] == [
        AlreadyFlashed("1-2", "7c:df:a1:00:00:07")
    ]
    assert moved.rom.mode is Mode.RUN_TIME  # not even asked for DFU mode


def test_mac_is_recognized_on_any_port() -> None:
    """Every ESP32-S2 has the serial number "0"; only its serial loader tells the boards apart."""
    station = Station(S2)
    board = station.board("1-1", 7)
    station.clock.at(20, board.unplug)
    moved = station.later("1-2", 7, 25)
    other = station.later("1-1", 8, 30)
    assert station.watch(end=60).passed == 2
    assert station.outcomes == [("1-1", "0", "PASS")] * 2
    assert untouched(moved)
    station.rig.assert_flashed(board=other)
    assert [event for event in station.events if isinstance(event, AlreadyFlashed)] == [
        AlreadyFlashed("1-2", None, "7c:df:a1:00:00:07")
    ]
    assert [result.mac for result in station.flashed] == ["7c:df:a1:00:00:07", "7c:df:a1:00:00:08"]


def test_two_boards_with_same_mac_are_both_flashed() -> None:
    station = Station(S2)
    first, second = station.board("1-1", 7), station.later("1-2", 7, 20)
    assert station.watch(end=60).passed == 2
    station.rig.assert_flashed(board=first)
    station.rig.assert_flashed(board=second)


def test_failed_board_that_passes_on_another_port_counts_once() -> None:
    station = Station(S2)
    board, moved = station.board("1-1", 7), station.later("1-2", 7, 65)
    board.faults.plan(error_status(Status.errWRITE), 40)
    station.clock.at(60, board.unplug)
    result = station.watch(end=120)
    assert station.codes() == ["dfu-status", "PASS"]
    station.rig.assert_flashed(board=moved)
    assert (result.passed, result.failed, result.first_error) == (1, 0, None)


def silent(endpoint: int) -> bytes:
    """Take the place of a serial loader that does not answer."""
    raise TransferNak


def test_board_whose_loader_does_not_answer_is_known_by_its_port() -> None:
    station = Station(S2)
    board, moved = station.board("1-1", 7), station.later("1-2", 7, 25)
    for each in (board, moved):
        each.bulk_in = silent  # type: ignore[method-assign]
    station.clock.at(20, board.unplug)
    assert station.watch(end=60).passed == 2
    assert station.count(AlreadyFlashed) == 0


def test_flashed_board_is_recognized_with_slow_udev() -> None:
    station = Station()
    board = station.board("1-1", 7)
    board.faults.no_access, board.faults.access_after = True, 1.5
    station.clock.at(20, board.unplug)
    station.clock.at(25, board.plug)
    assert station.watch(end=60).passed == 1
    assert station.codes() == ["PASS"]
    assert station.count(AlreadyFlashed) == 1


@pytest.mark.parametrize("name", [S2, S3])
def test_short_absence_is_not_new_board(name: str) -> None:
    station = Station(name)
    board = station.board("1-1")
    station.clock.at(20, board.unplug)
    station.clock.at(20.6, board.plug)
    station.clock.at(30, board.plug)  # so quickly that no look at the bus finds the port empty
    assert station.watch(end=60).passed == 1
    assert station.codes() == ["PASS"]


def test_two_boards_with_same_serial_are_both_flashed() -> None:
    station = Station()
    first, second = station.board("1-1", 7), station.later("1-2", 7, 20)
    assert station.watch(end=60).passed == 2
    station.rig.assert_flashed(board=first)
    station.rig.assert_flashed(board=second)


@pytest.mark.parametrize("name", [S2, S3])
def test_bus_reset_is_not_new_board(name: str) -> None:
    station = Station(name)
    board = station.board("1-1")
    assert station.watch(end=60, after=BUS_RESET).passed == 1
    assert station.codes() == ["PASS"]
    assert board.rom.mode is Mode.RUN_TIME  # it came back


@pytest.mark.parametrize(
    ("name", "no_loader", "failed"), [(S2, False, 0), (S2, True, 1), (S3, False, 0), (S3, True, 0)]
)
def test_failed_board_is_retried_after_replug(name: str, no_loader: bool, failed: int) -> None:
    station = Station(name)
    board = station.board("1-1")
    board.faults.plan(error_status(Status.errWRITE), 40)
    station.clock.at(60, board.unplug)
    station.clock.at(65, board.plug)
    result = station.watch(end=120, no_loader=no_loader)
    assert station.codes() == ["dfu-status", "PASS"]
    station.rig.assert_flashed(board=board)
    # Where the serial number or the MAC address says that it is the same board, it has passed in the end.
    assert (result.passed, result.failed) == (1, failed)
    assert (result.first_error is None) == (failed == 0)


def test_failed_board_that_restarts_is_not_retried() -> None:
    station = Station(S2)
    board = station.board("1-1")
    board.faults.plan(vanish, 40)
    station.clock.at(0.9, board.plug)
    station.clock.at(20, board.unplug)
    station.clock.at(22, board.plug)
    before: list[str] = []
    station.clock.at(19, lambda: before.extend(station.codes()))
    station.watch(end=60)
    assert before == ["device-gone"]
    assert station.codes() == ["device-gone", "PASS"]


def test_only_chosen_ports_are_watched() -> None:
    station = Station()
    mine, other = station.board("1-2", 1), station.board("1-3", 2)
    assert station.watch(end=30, paths=["1-2", "1-4"]).passed == 1
    station.rig.assert_flashed(board=mine)
    assert untouched(other)


def test_board_that_leaves_at_once_is_not_counted() -> None:
    station = Station()
    board = station.board("1-1")
    original = board.control

    def gone(*request: Any) -> bytes:
        if station.clock.monotonic() < 1.0:
            board.unplug()
            station.clock.at(5.0, board.plug)
        return original(*request)

    board.control = gone  # type: ignore[method-assign,assignment]
    assert station.watch(count=1, end=60).passed == 1
    assert station.codes() == ["PASS"]


def test_board_without_download_fails_once(monkeypatch: pytest.MonkeyPatch) -> None:
    station = Station()
    board = station.board("1-1")
    original = board.rom.configuration_descriptor
    no_download = original[:-7] + b"\x0e" + original[-6:]
    monkeypatch.setattr(type(board.rom), "configuration_descriptor", property(lambda rom: no_download))
    result = station.watch(count=1, end=60)
    assert station.codes() == ["dfu"]
    assert (result.passed, result.failed) == (0, 1)
    assert (station.count(DeviceFound), station.count(Failed)) == (1, 1)
    assert station.clock.monotonic() < 5


def test_board_whose_device_node_is_missing_fails_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container without the node, libusb reports a device that is on the bus as gone."""

    def no_node(*_: Any) -> Any:
        raise usb.core.USBError("No such device", -4, errno.ENODEV)

    station = Station()
    station.board("1-1")
    monkeypatch.setattr(SimulatedBackend, "open_device", no_node)
    result = station.watch(count=1, end=60)
    assert station.codes() == ["device-gone"]
    assert (result.passed, result.failed) == (0, 1)
    assert (station.count(DeviceFound), station.count(Failed)) == (1, 1)


# --- many boards ------------------------------------------------------------------------------------------


def test_boards_are_flashed_at_once() -> None:
    """Sixteen boards, each with a speed of its own, some with faults: all is over when the slowest is."""
    station = Station(S2)
    boards = [station.board(f"{bus}-{port}") for bus in (1, 3) for port in range(1, 9)]
    blocks = -(-len(small_image(S2).stream) // 64)
    for number, board in enumerate(boards):
        board.faults.block_time = 0.001 * (number + 1)
    boards[2].faults.plan(vanish, 20)
    boards[5].faults.plan(hang, 30)
    boards[6].faults.no_return = True
    boards[9].faults.plan(error_status(Status.errWRITE), 50)
    boards[11].faults.busy = True
    boards[12].faults.no_access = True
    ends: dict[str, float] = {}

    def note(event: Event) -> None:
        if isinstance(event, Flashed):
            ends[event.path] = station.clock.monotonic()

    result = station.watch(count=16, end=100, on_event=note)
    expected = ["PASS"] * 16
    for number, code in (
        (2, "device-gone"),
        (6, "no-return"),
        (9, "dfu-status"),
        (11, "device-busy"),
        (12, "no-permission"),
    ):
        expected[number] = code
    codes = {path: code for path, _, code in station.outcomes}
    assert [codes[board.path] for board in boards] == expected
    assert (result.passed, result.failed) == (11, 5)
    for number, board in enumerate(boards):
        if number == 5:
            station.rig.assert_flashed(board=board)  # it did not answer for a while, and was begun again
        elif expected[number] == "PASS":
            station.rig.assert_flashed(board=board)
            # It took its own time: 0.4 s off the bus, two intervals until the board is seen, and its blocks.
            own = 0.4 + 0.001 * (number + 1) * (blocks + 1)
            assert own <= ends[board.path] <= own + 0.2, number
        elif codes[board.path] == "dfu-status":
            assert str(board.rom.state) == "dfuIDLE"


def test_absent_boards_share_scans() -> None:
    station = Station(S2)
    for port in range(1, 17):
        station.board(f"1-{port}")
    assert station.watch(count=16, end=100).passed == 16
    # Each board: when it was found, at its return, and at its end; besides them the watch, and the shared looks.
    assert station.rig.scans <= 16 * 4 + 15


def test_count_limits_flashed_boards() -> None:
    station = Station(S2)
    boards = [station.board(f"1-{port}") for port in range(1, 6)]
    boards[0].faults.plan(error_status(Status.errWRITE), 30)
    result = station.watch(count=3, end=500)
    assert (result.passed, result.failed, len(station.outcomes)) == (2, 1, 3)
    assert [untouched(board) for board in boards] == [False, False, False, True, True]
    assert [so_far.passed + so_far.failed for so_far in station.results] == [1, 2, 3]


@pytest.mark.usefixtures("default_signals")
def test_ctrl_c_ends_every_board_in_order() -> None:
    station = Station(S2)
    boards = [station.board(f"1-{port}") for port in range(1, 17)]
    for board in boards:
        board.faults.block_time = 0.005
    boards[3].faults.block_time = 0.0
    begun: set[str] = set()

    def note(event: Event) -> None:
        if isinstance(event, Progress) and event.done and event.path not in begun:
            begun.add(event.path)
            if len(begun) == 16:
                os.kill(os.getpid(), signal.SIGINT)

    result = station.watch(on_event=note)
    assert isinstance(result.stopped, KeyboardInterrupt)
    assert isinstance(result.first_error, InterruptedByUserError)
    assert sorted(station.codes()) == ["PASS"] + ["interrupted"] * 15
    assert [str(board.rom.state) for board in boards] == ["dfuIDLE"] * 16


@pytest.mark.usefixtures("default_signals")
def test_ctrl_c_on_idle_watch_is_not_failure() -> None:
    station = Station()
    station.board("1-1")
    station.clock.at(30, lambda: os.kill(os.getpid(), signal.SIGINT))
    result = station.watch()
    assert (result.passed, result.failed, type(result.stopped)) == (1, 0, KeyboardInterrupt)


# --- failing scans ----------------------------------------------------------------------------------------


class Blind:
    """Makes looks at the bus fail for a while."""

    def __init__(self, station: Station, start: float, end: float) -> None:
        self.station, self.start, self.end = station, start, end
        self.scan = station.rig.bus.scan

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.start <= self.station.clock.monotonic() < self.end:
            raise UsbError("USB scan: no.")
        return self.scan(*args, **kwargs)


def test_watch_survives_short_scan_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    station = Station()
    board = station.later("1-1", 1, 12)
    monkeypatch.setattr(station.rig.bus, "scan", Blind(station, 10, 14))
    assert station.watch(end=40).passed == 1
    station.rig.assert_flashed(board=board)


def test_watch_ends_when_scans_keep_failing(monkeypatch: pytest.MonkeyPatch) -> None:
    station = Station()
    board = station.later("1-1", 1, 9.5)
    board.faults.block_time = 0.05
    monkeypatch.setattr(station.rig.bus, "scan", Blind(station, 11, 1000))
    with pytest.raises(UsbError, match="USB scan"):
        station.watch(end=40)
    assert 16 <= station.clock.monotonic() < 18
    assert station.codes() == ["interrupted"]
    assert str(board.rom.state) == "dfuIDLE"
    monkeypatch.setattr(station.rig.bus, "scan", Blind(station, 0, 1000))
    with pytest.raises(UsbError, match="USB scan"):
        Station.watch(station)


# --- long runs --------------------------------------------------------------------------------------------


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Whatever is left behind in a cycle stays there, and is counted."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_fifty_boards_leave_nothing_behind(no_collector: None, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: weakref.WeakSet[SimulatedBackend] = weakref.WeakSet()
    make = SimulatedBackend.__init__

    def counted(self: SimulatedBackend, *args: Any) -> None:
        make(self, *args)
        alive.add(self)

    monkeypatch.setattr(SimulatedBackend, "__init__", counted)
    station = Station()
    faults: tuple[Callable[[Faults], object], ...] = (
        lambda faults: None,
        lambda faults: faults.plan(error_status(Status.errWRITE), 30),
        lambda faults: faults.plan(vanish, 30),
        lambda faults: setattr(faults, "no_return", True),
        lambda faults: setattr(faults, "no_access", True),
        lambda faults: setattr(faults, "busy", True),
    )
    left: list[tuple[int, int, int]] = []

    numbers = count()

    def next_board(path: str) -> None:
        number = next(numbers)
        board = station.board(path, number)
        faults[number % len(faults)](board.faults)

    def note(event: Event) -> None:
        if isinstance(event, BoardLeft):
            next_board(event.path)

    def take(outcome: FlashOutcome, so_far: WatchResult) -> None:
        station.outcomes.append((outcome.path, outcome.serial, "PASS" if outcome.error is None else outcome.error.code))
        board = next(board for board in reversed(station.rig.boards) if board.path == outcome.path)
        station.clock.at(station.clock.monotonic() + 1, lambda: station.rig.remove(board))
        running = sum(thread.name.startswith("dfu-") for thread in threading.enumerate())
        left.append((open_files(), running, len(alive)))

    monkeypatch.setattr(station, "take", take)
    for port in range(1, 5):
        next_board(f"1-{port}")
    result = station.watch(count=50, end=5000, on_event=note)
    assert (result.passed + result.failed, len(station.outcomes)) == (50, 50)
    assert set(station.codes()) == {
        "PASS", "dfu-status", "device-gone", "no-return", "no-permission", "device-busy",
    }  # fmt: skip
    assert len({descriptors for descriptors, _, _ in left}) == 1
    # At any moment only those who look now have a backend: this thread, and each board's own.
    assert max(running for _, running, _ in left) <= 4
    assert max(backends for _, _, backends in left) <= 4
    assert len(alive) == 0


@pytest.mark.parametrize("seen_again", [False, True])
def test_board_that_takes_port_of_flashed_one_at_once_is_flashed(seen_again: bool) -> None:
    """No look at the bus finds the port empty; only its serial number says that it is another board."""
    station = Station()
    first, second = station.board("1-1", 1), station.later("1-1", 2, 1e6)
    if seen_again:
        station.clock.at(20, first.unplug)
        station.clock.at(25, first.plug)

    def swap() -> None:
        first.unplug()
        second.plug()

    station.clock.at(40, swap)
    assert station.watch(end=80).passed == 2
    assert station.count(AlreadyFlashed) == int(seen_again)
    station.rig.assert_flashed(board=second)


def test_second_board_that_leaves_at_once_is_not_counted() -> None:
    station = Station()
    first, second = station.board("1-1", 1), station.later("1-1", 2, 25)
    station.clock.at(20, first.unplug)
    answer = second.control

    def gone(*request: Any) -> bytes:
        second.unplug()
        return answer(*request)

    second.control = gone  # type: ignore[method-assign,assignment]
    assert station.watch(end=60).failed == 0
    assert station.codes() == ["PASS"]


def test_board_after_one_that_left_in_mid_flash_is_flashed_at_once() -> None:
    station = Station(S2)
    board = station.board("1-1")
    board.faults.plan(vanish, 40)

    def replace_it(event: Event) -> None:
        if isinstance(event, Failed):  # half a second after the result, which says that nothing is on the port
            station.clock.at(station.clock.monotonic() + 0.5, board.plug)

    station.watch(end=60, on_event=replace_it)
    assert station.codes() == ["device-gone", "PASS"]
