"""Flash several boards at once: independent of each other, and ended in order by Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from esp_dfu_ext import Flasher, FlashOptions
from esp_dfu_ext.clock import VirtualClock
from esp_dfu_ext.errors import DeviceNotFoundError, InterruptedByUserError, NoThreadError, OtherChipError
from esp_dfu_ext.events import DeviceFound, Event, Failed, Flashed, Progress, Waiting, ignore
from esp_dfu_ext.operations.flash_setup import FlashSetup
from esp_dfu_ext.operations.gang import SETTLE_TIME, Gang, _SharedScan
from esp_dfu_ext.simulator import simulate_text
from esp_dfu_ext.usb.trace import Trace

from .kit.archives import checked, small_image
from .kit.chips import chip, chips


def test_boards_with_same_serial_are_identified_by_path() -> None:
    simulation = simulate_text(",".join(["esp32s2"] * 5), chips())
    events: list[Event] = []
    flasher = Flasher(bus=simulation.bus, targets=chips(), on_event=events.append)
    outcomes = flasher.flash_all(checked(target=chip("esp32s2")))
    assert [(outcome.path, outcome.serial) for outcome in outcomes] == [(f"1-{n}", "0") for n in range(1, 6)]
    for outcome in outcomes:
        assert outcome.error is None
        assert simulation.compare(small_image("esp32s2"), outcome.path) > 0
    for path in (outcome.path for outcome in outcomes):
        mine = [event for event in events if getattr(event, "path", None) == path]
        assert isinstance(mine[0], DeviceFound)
        assert isinstance(mine[-1], Flashed)


def test_slow_and_failing_boards_do_not_delay_others() -> None:
    simulation = simulate_text("esp32s3,esp32s3+vanish@3,esp32s3", chips())
    slow = simulation.boards[0].rom
    quick_is_done = threading.Event()
    answer = slow.control

    def answer_late(request_type: int, request: int, value: int, data: bytes, length: int) -> bytes:
        if data:
            assert quick_is_done.wait(20)
        return answer(request_type, request, value, data, length)

    slow.control = answer_late  # type: ignore[method-assign]
    events: list[Event] = []

    def sink(event: Event) -> None:
        events.append(event)
        if isinstance(event, Flashed) and event.path == "1-3":
            quick_is_done.set()

    outcomes = Flasher(bus=simulation.bus, targets=chips(), on_event=sink).flash_all(checked())
    codes = {outcome.path: outcome.error.code if outcome.error else "OK" for outcome in outcomes}
    assert codes == {"1-1": "OK", "1-2": "device-gone", "1-3": "OK"}
    assert [event.path for event in events if isinstance(event, Failed)] == ["1-2"]


def test_bus_for_several_threads_is_whole_bus() -> None:
    simulation = simulate_text("esp32s3", chips())
    clock = VirtualClock()
    shared = _SharedScan(simulation.bus, clock)
    assert shared.ports() == simulation.bus.ports()
    trace = shared.trace = Trace(clock=clock)
    assert simulation.bus.trace is trace


def test_missing_board_stops_all_before_flashing() -> None:
    simulation = simulate_text("esp32s3,esp32s3", chips())
    with pytest.raises(DeviceNotFoundError, match="on port 1-9"):
        Flasher(bus=simulation.bus, targets=chips()).flash_all(checked(), paths=["1-1", "1-9"])
    assert [board.address for board in simulation.boards] == [2, 3]


@pytest.mark.parametrize("paths", [(), ("1-1", "1-2")])
def test_wait_flashes_all_boards_that_come(paths: tuple[str, ...]) -> None:
    clock = VirtualClock()
    simulation = simulate_text("esp32s3,esp32s3,esp32s3", chips(), clock)
    first, second, third = simulation.boards
    for board in simulation.boards:
        board.unplug()
    waits: list[float] = []

    def sink(event: Event) -> None:
        if not isinstance(event, Waiting):
            return
        waits.append(event.seconds)
        if len(waits) == 5:
            first.plug()
            second.plug(after=0.8 * SETTLE_TIME)
            third.plug(after=5.0)

    options = FlashOptions(wait=9.0)
    flasher = Flasher(options, bus=simulation.bus, targets=chips(), clock=clock, on_event=sink)
    outcomes = flasher.flash_all(checked(), paths=paths)
    assert [(outcome.path, outcome.error) for outcome in outcomes] == [("1-1", None), ("1-2", None)]
    assert waits[0] == 9.0


def test_serial_of_previous_board_is_not_reused() -> None:
    clock = VirtualClock()
    simulation = simulate_text("esp32s3", chips(), clock)
    gang = Gang(FlashSetup(checked(), FlashOptions(), simulation.bus, chips(), clock, ignore))
    flashed = gang.flash("1-1")
    assert flashed.error is None
    assert flashed.serial is not None
    simulation.boards[0].unplug()
    gone = gang.flash("1-1")
    assert isinstance(gone.error, DeviceNotFoundError)
    assert gone.serial is None


def test_wait_for_several_boards_ends() -> None:
    clock = VirtualClock()
    simulation = simulate_text("esp32s3,esp32s2", chips(), clock)
    started = clock.monotonic()
    with pytest.raises(OtherChipError, match="on port 1-2"):
        flasher = Flasher(FlashOptions(wait=3.0), bus=simulation.bus, targets=chips(), clock=clock)
        flasher.flash_all(checked(), paths=["1-1", "1-2"])
    assert clock.monotonic() - started == pytest.approx(3.0)


@pytest.mark.usefixtures("default_signals")
def test_ctrl_c_ends_every_board_in_order() -> None:
    simulation = simulate_text("esp32s3+slow,esp32s3+slow,esp32s3+slow", chips())
    before = threading.active_count()
    started = set()

    def sink(event: Event) -> None:
        if isinstance(event, Progress) and event.done:
            started.add(event.path)
            if len(started) == 3:
                os.kill(os.getpid(), signal.SIGINT)

    outcomes = Flasher(bus=simulation.bus, targets=chips(), on_event=sink).flash_all(checked())
    assert [type(outcome.error) for outcome in outcomes] == [InterruptedByUserError] * 3
    for outcome, board in zip(outcomes, simulation.boards):
        assert outcome.error is not None
        assert "dfuIDLE" in outcome.error.message
        assert str(board.rom.state) == "dfuIDLE"
    assert threading.active_count() == before


# --- threads that cannot be started -----------------------------------------------------------------------


def _refuse_threads(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let the system start no thread of these names."""
    start = threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        if thread.name in names:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)


def test_board_without_thread_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    _refuse_threads(monkeypatch, "dfu-1-2")
    simulation = simulate_text("esp32s3,esp32s3,esp32s3", chips())
    events: list[Event] = []
    outcomes = Flasher(bus=simulation.bus, targets=chips(), on_event=events.append).flash_all(checked())
    assert [outcome.error and outcome.error.code for outcome in outcomes] == [None, "no-thread", None]
    assert isinstance(outcomes[1].error, NoThreadError)
    assert [e.path for e in events if isinstance(e, Failed)] == ["1-2"]


@pytest.mark.parametrize("names", [("dfu-1-1",), ("dfu-1-1", "dfu-1-2")])
def test_watch_goes_on_without_thread(names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    _refuse_threads(monkeypatch, *names)
    simulation = simulate_text("esp32s3,esp32s3", chips())
    result = Flasher(bus=simulation.bus, targets=chips()).watch(checked(), count=2)
    assert (result.passed, result.failed) == (2 - len(names), len(names))
    assert isinstance(result.first_error, NoThreadError)
