"""Flash one board through pyusb: every start, every failure, and its message."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from esp_dfu_ext.dfu.spec import Mode, Status
from esp_dfu_ext.errors import (
    AccessDeniedError,
    DeviceBusyError,
    DeviceNotFoundError,
    DfuError,
    DfuStatusError,
    EspDfuError,
    InterruptedByUserError,
    OtherUsbError,
    ReenumerationError,
    SeveralDevicesError,
    SimulationError,
    UsageError,
    UsbError,
)
from esp_dfu_ext.events import (
    BoardIdentified,
    DeviceFound,
    Event,
    Flashed,
    Notice,
    Phase,
    PhaseFinished,
    PhaseStarted,
    Progress,
    Waiting,
)
from esp_dfu_ext.operations.restart import BUS_RESET, NO_RESET
from esp_dfu_ext.simulator import Simulation
from esp_dfu_ext.simulator.apps import ConsoleApp
from esp_dfu_ext.simulator.board import error_status

from .kit.archives import FILES, small_image
from .kit.boards import Rig, Transfer, make_rig, serial_jtag
from .kit.chips import NAMES, chip
from .kit.host import ABORT, DETACH, DNLOAD, IDLE

STREAM = bytes(small_image().stream)
BLOCKS = -(-len(STREAM) // 64)
APP = FILES[-1]
APP_FIRST = STREAM.index(APP.data) // 64
PLACES = {
    "index": 1,
    "first block of a file": APP_FIRST,
    "middle": APP_FIRST + 40,
    "last": BLOCKS - 1,
    "zero-length": BLOCKS,
}


def _assert_order(events: list[Event], *, complete: bool = True) -> None:
    """The order that the module of events promises."""
    restarts = [n for n, e in enumerate(events) if isinstance(e, Notice) and e.code in ("restart", "strict-restart")]
    if restarts:  # what it cut short comes again
        last = restarts[-1]
        began = [n for n, e in enumerate(events[:last]) if isinstance(e, PhaseStarted) and e.phase is Phase.DOWNLOAD]
        events = events[: began[0]] + events[last:]
    rest = [e for e in events if not isinstance(e, Notice)]
    while rest and isinstance(rest[0], Waiting):
        rest.pop(0)
    if complete or rest:
        assert isinstance(rest.pop(0), DeviceFound)
    open_phase: Phase | None = None
    order: list[int] = []
    flashed = False
    for event in rest:
        assert not flashed, f"{event} after Flashed"
        if isinstance(event, PhaseStarted):
            assert open_phase is None, f"{event} inside {open_phase}"
            open_phase = event.phase
            order.append(list(Phase).index(event.phase))
        elif isinstance(event, PhaseFinished):
            assert event.phase is open_phase
            assert event.seconds >= 0
            open_phase = None
        elif isinstance(event, Progress):
            assert event.phase is open_phase
            assert 0 <= event.done <= event.total
        elif isinstance(event, BoardIdentified):
            assert open_phase is None
            assert Phase.DOWNLOAD not in [list(Phase)[number] for number in order]
        else:
            assert isinstance(event, Flashed)
            assert open_phase is None
            flashed = True
    assert order == sorted(order)
    assert flashed is complete
    paths = {e.path for e in rest if not isinstance(e, Waiting)}
    assert len(paths) <= 1


# --- success ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("start", ["run-time", "DFU mode", "app with console"])
def test_flash_writes_every_file(name: str, start: str, strict: bool) -> None:
    rig = make_rig(name, mode=Mode.DFU if start == "DFU mode" else Mode.RUN_TIME, start=0)
    if start == "app with console":
        rig.board.start_app(ConsoleApp(rig.board.rom))
    result = rig.flash(strict=strict)
    rig.assert_flashed()
    assert (result.path, result.size) == ("1-1", sum(len(f.data) for f in FILES))
    assert (result.status, result.state, result.after_reset) == ("OK", "dfuIDLE", None)
    assert result.seconds == pytest.approx(rig.clock.monotonic())
    _assert_order(rig.events)
    detach = [] if start == "DFU mode" else ["detach"]
    assert rig.phases() == [*detach, "download", "verify"]
    assert len(rig.dfu(DETACH)) == len(detach)
    assert rig.clock.monotonic() < {"DFU mode": 0.1, "run-time": 0.6}.get(start, 1.2)
    assert rig.board.rom.state == IDLE
    assert rig.resets == []


def test_events_name_board_and_result() -> None:
    rig = make_rig(mode=Mode.DFU)
    result = rig.flash()
    assert rig.events[0] == DeviceFound("1-1", "DFU", "7c:df:a1:00:00:01")
    assert rig.events[-1] == Flashed("1-1", result.size, result.seconds, "OK", "dfuIDLE")
    assert make_rig("esp32s2").flash().status == "OK"


def test_event_names_mode_of_board() -> None:
    rig = make_rig("esp32s2")
    rig.flash()
    assert rig.events[0] == DeviceFound("1-1", "run-time", "0")


def test_flash_keeps_content_outside_image() -> None:
    rig = make_rig()
    old = bytes(range(256)) * 512
    rig.board.rom.flash.program(0, old)
    rig.flash()
    rig.assert_flashed()
    assert rig.board.rom.flash.read(0, 0x1000) == old[:0x1000]
    assert rig.board.rom.flash.read(0x2000, 0x6000) == old[0x2000:0x8000]
    assert rig.board.rom.flash.read(0x12000, 0x2000) == old[0x12000:0x14000]


def test_second_flash_without_replug() -> None:
    rig = make_rig()
    rig.flash()
    rig.events.clear()
    rig.flash()
    rig.assert_flashed()
    assert rig.phases() == ["download", "verify"]


@pytest.mark.parametrize("blocks", [1, 30])
def test_abandoned_download_is_recovered(blocks: int) -> None:
    rig = make_rig(mode=Mode.DFU)
    for number in range(blocks):
        rig.board.rom.control(0x21, DNLOAD, number, STREAM[64 * number : 64 * number + 64], 0)
    rig.flash()
    rig.assert_flashed()
    assert rig.phases() == ["recover", "download", "verify"]
    assert len(rig.dfu(ABORT)) == 1
    _assert_order(rig.events)


def test_earlier_error_state_is_cleared() -> None:
    rig = make_rig(mode=Mode.DFU)
    rig.board.rom.fail(Status.errFIRMWARE)
    rig.flash()
    rig.assert_flashed()
    assert rig.phases() == ["recover", "download", "verify"]


@pytest.mark.parametrize("start", list(Mode))
def test_device_that_requires_getstatus_is_restarted(start: Mode) -> None:
    rig = make_rig(mode=start)
    rig.board.rom.wants_status = True
    rig.flash()
    rig.assert_flashed()
    assert rig.notices() == ["strict-restart"]
    _assert_order(rig.events)


@pytest.mark.parametrize("strict", [False, True])
def test_slow_device_is_flashed(strict: bool) -> None:
    rig = make_rig(start=0)
    rig.board.faults.block_time = 0.25
    result = rig.flash(strict=strict)
    rig.assert_flashed()
    assert result.seconds == pytest.approx((BLOCKS + 1) * 0.25 + 0.4, abs=0.1)
    seconds = {e.phase: e.seconds for e in rig.events if isinstance(e, PhaseFinished)}
    assert seconds[Phase.DOWNLOAD] == pytest.approx(BLOCKS * 0.25)
    assert seconds[Phase.VERIFY] == pytest.approx(0.25)
    assert 0.4 <= seconds[Phase.DETACH] <= 0.5


def test_comparison_finds_different_flash_memory() -> None:
    rig = make_rig()
    rig.flash()
    rig.board.rom.flash.program(APP.address + 77, b"\0")
    with pytest.raises(SimulationError, match=r"app\.bin"):
        Simulation(rig.bus, tuple(rig.boards)).compare(small_image(), "1-1")


# --- choosing ---------------------------------------------------------------------------------------------


def test_several_boards_without_choice_are_refused() -> None:
    rig = make_rig("esp32s3", "esp32s3")
    with pytest.raises(SeveralDevicesError) as caught:
        rig.flash()
    assert caught.value.paths == ("1-1", "1-2")
    assert rig.dfu(DETACH) == rig.dfu(DNLOAD) == []
    assert rig.events == []


def test_path_selects_one_board() -> None:
    rig = make_rig("esp32s2", "esp32s2", "esp32s2")
    assert rig.flash(path="1-2").path == "1-2"
    rig.assert_flashed(board=rig.boards[1])
    assert {t.path for t in rig.log} == {"1-2"}
    assert rig.boards[0].rom.flash.read(0, 0x20000) == rig.boards[2].rom.flash.read(0, 0x20000) == b"\xff" * 0x20000
    assert {e.path for e in rig.events if not isinstance(e, Waiting)} == {"1-2"}


def test_serial_selects_one_board() -> None:
    rig = make_rig("esp32s3", "esp32s3", "esp32s3")
    assert rig.flash(serial="7c:df:a1:00:00:03").path == "1-3"
    rig.assert_flashed(board=rig.boards[2])
    assert {t.path for t in rig.log if t.is_dfu} == {"1-3"}


def test_fixed_serial_does_not_select_board() -> None:
    rig = make_rig("esp32s2", "esp32s2")
    with pytest.raises(UsageError, match="1-1, 1-2"):
        rig.flash(serial="0")
    assert rig.dfu(DETACH) == []


def test_boards_of_other_chips_are_ignored() -> None:
    rig = make_rig("esp32s2", "esp32s3", "esp32p4", others=[serial_jtag()])
    assert rig.flash(target=chip("esp32p4")).path == "1-3"
    rig.assert_flashed(board=rig.boards[2])
    assert {t.path for t in rig.log} == {"1-3"}


def test_no_board_is_error() -> None:
    rig = make_rig(others=[serial_jtag()], start=0)
    rig.board.unplug()
    with pytest.raises(OtherUsbError):
        rig.flash()
    assert rig.clock.monotonic() == 0


# --- waiting for a board ----------------------------------------------------------------------------------


def _plug_at(rig: Rig, when: float) -> None:
    rig.board.unplug()

    def on_event(event: Event) -> None:
        if isinstance(event, Waiting) and rig.clock.monotonic() >= when and not rig.board.present:
            rig.board.plug()

    rig.on_event = on_event


def test_wait_finds_board_plugged_in_later() -> None:
    rig = make_rig(start=0)
    _plug_at(rig, 20)
    result = rig.flash(wait=30)
    rig.assert_flashed()
    assert 20 <= rig.clock.monotonic() <= 21
    assert result.seconds < 1  # from the first contact, not from the beginning of the wait
    assert isinstance(rig.events[0], Waiting)
    _assert_order(rig.events)


def test_wait_ends_without_board() -> None:
    rig = make_rig(start=0)
    rig.board.unplug()
    with pytest.raises(DeviceNotFoundError):
        rig.flash(wait=30)
    assert rig.clock.monotonic() == pytest.approx(30)
    _assert_order(rig.events, complete=False)


def test_wait_lets_udev_grant_access() -> None:
    rig = make_rig(start=0)
    _plug_at(rig, 20)
    rig.board.faults.no_access = True
    rig.board.faults.access_after = 1.0
    rig.flash(wait=30)
    rig.assert_flashed()


# --- access -----------------------------------------------------------------------------------------------


def test_late_access_after_reenumeration_is_awaited() -> None:
    rig = make_rig()  # it has been there for long enough
    rig.board.faults.no_access = True
    rig.board.faults.access_after = 1.0
    started = rig.clock.monotonic()
    rig.flash()
    rig.assert_flashed()
    assert 1.4 <= rig.clock.monotonic() - started <= 1.6


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize(
    ("fault", "kind"), [("no_access", AccessDeniedError), ("busy", DeviceBusyError)], ids=["no access", "busy"]
)
def test_board_without_access_is_error(mode: Mode, fault: str, kind: type[UsbError]) -> None:
    rig = make_rig(mode=mode, start=0)
    setattr(rig.board.faults, fault, True)
    with pytest.raises(UsbError, match="1-1") as caught:
        rig.flash()
    assert type(caught.value) is kind
    assert rig.clock.monotonic() <= 2.1
    assert rig.dfu(DETACH) == rig.dfu(DNLOAD) == []
    _assert_order(rig.events, complete=False)
    setattr(rig.board.faults, fault, False)
    rig.flash()
    rig.assert_flashed()


def test_access_lost_after_reenumeration_is_error() -> None:
    rig = make_rig()
    rig.board.faults.no_access = True
    rig.board.faults.access_after = 50.0
    started = rig.clock.monotonic()
    with pytest.raises(AccessDeniedError, match="1-1"):
        rig.flash()
    assert 2.0 <= rig.clock.monotonic() - started <= 3.0


# --- change to DFU mode -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "value", "code"),
    [("no_return", True, "no-return"), ("return_mode", Mode.RUN_TIME, "no-dfu-mode")],
    ids=["never", "as run-time"],
)
def test_board_that_does_not_return_is_reported(fault: str, value: object, code: str) -> None:
    rig = make_rig(start=0)
    before = getattr(rig.board.faults, fault)
    setattr(rig.board.faults, fault, value)
    with pytest.raises(ReenumerationError, match="1-1") as caught:
        rig.flash()
    assert caught.value.code == code
    assert 15 <= rig.clock.monotonic() <= 15.2
    assert rig.dfu(DNLOAD) == []
    assert rig.resets == []
    _assert_order(rig.events, complete=False)
    _replug_and_flash(rig, fault, before)


def _replug_and_flash(rig: Rig, fault: str = "", value: object = None) -> None:
    """The second run, after the user did what a user does."""
    if fault:
        setattr(rig.board.faults, fault, value)
    rig.board.unplug()
    rig.clock.sleep(1)
    rig.board.plug()
    rig.events.clear()
    rig.flash()
    rig.assert_flashed()
    _assert_order(rig.events)
    assert rig.phases() == ["detach", "download", "verify"]


# --- faults (test_fault_matrix.py has all of them) ------------------------------------------------------


def _fails(rig: Rig, kind: type[EspDfuError], strict: bool = False) -> EspDfuError:
    with pytest.raises(EspDfuError) as caught:
        rig.flash(strict=strict)
    assert type(caught.value) is kind
    assert not any(isinstance(e, Flashed) for e in rig.events)
    _assert_order(rig.events, complete=False)
    return caught.value


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    ("place", "says", "says_not"),
    [
        ("index", "index", "end"),
        ("middle", "app.bin", "index"),
        ("zero-length", "last block", "app.bin"),
    ],
)
def test_error_status_names_file_or_phase(place: str, says: str, says_not: str, strict: bool) -> None:
    rig = make_rig()
    rig.board.faults.plan(error_status(Status.errWRITE), PLACES[place])
    error = _fails(rig, DfuStatusError, strict)
    assert says in error.message
    assert says_not not in error.message.replace("dfuIDLE", "")


def test_failing_erase_is_error_status() -> None:
    rig = make_rig()
    rig.board.rom.flash.program(0, bytes(0x20000))
    rig.board.rom.flash.erase = lambda address, size: None  # type: ignore[method-assign]
    error = _fails(rig, DfuStatusError)
    assert isinstance(error, DfuStatusError)
    assert error.status == "errFIRMWARE"


# --- Ctrl-C -----------------------------------------------------------------------------------------------


def _interrupted(rig: Rig, *, wait: float = 0.0, strict: bool = False, after: str = NO_RESET) -> str:
    """Flash until Ctrl-C ends it; what is said then."""
    try:
        rig.flash(wait=wait, strict=strict, after=after)
    except InterruptedByUserError as error:
        assert error.exit_code == 130
        return error.message
    except KeyboardInterrupt:
        pytest.fail("KeyboardInterrupt came through")
    pytest.fail("nothing was interrupted")


def _interrupt_when(rig: Rig, condition: Callable[[Transfer], bool], *, before: bool) -> None:
    """Ctrl-C once, in the transfer that fulfils the condition; before or after the chip took it."""
    done: list[Transfer] = []

    def hook(transfer: Transfer) -> None:
        if not done and condition(transfer):
            done.append(transfer)
            raise KeyboardInterrupt

    if before:
        rig.before = hook
    else:
        rig.after = hook


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("place", PLACES)
def test_ctrl_c_during_block_leaves_chip_idle(place: str, before: bool, strict: bool) -> None:
    rig = make_rig(start=0)
    block = PLACES[place]
    _interrupt_when(rig, lambda t: t.is_dfu and t.request == DNLOAD and t.value == block, before=before)
    message = _interrupted(rig, strict=strict)
    assert "1-1" in message
    assert "dfuIDLE" in message
    assert rig.board.rom.state == IDLE
    assert rig.clock.monotonic() < 0.6
    assert rig.resets == []
    _assert_order(rig.events, complete=False)
    rig.events.clear()
    rig.flash()
    rig.assert_flashed()


@pytest.mark.parametrize("strict", [False, True])
def test_ctrl_c_during_other_transfers_leaves_chip_idle(strict: bool) -> None:
    clean = make_rig(mode=Mode.DFU)
    clean.flash(strict=strict)
    first = next(n for n, t in enumerate(clean.log) if t.is_dfu)
    numbers = [n for n, t in enumerate(clean.log) if t.request != DNLOAD and n >= first]
    for number in numbers[:3] + numbers[-2:]:
        rig = make_rig(mode=Mode.DFU)
        _interrupt_when(rig, lambda _, rig=rig, number=number: len(rig.log) == number + 1, before=True)  # type: ignore[misc]
        assert "1-1" in _interrupted(rig, strict=strict)
        assert rig.board.rom.state == IDLE


class _Interrupting:
    """Raises KeyboardInterrupt at the first sleep after `when`."""

    def __init__(self, rig: Rig, when: Callable[[], bool]) -> None:
        self._rig, self._when, self._sleep = rig, when, rig.clock.sleep

    def __call__(self, seconds: float) -> None:
        self._sleep(seconds)
        if self._when():
            self._rig.clock.sleep = self._sleep  # type: ignore[method-assign]
            raise KeyboardInterrupt


def _interrupt_sleep(rig: Rig, when: Callable[[], bool]) -> None:
    rig.clock.sleep = _Interrupting(rig, when)  # type: ignore[method-assign]


def test_ctrl_c_during_detach_writes_nothing() -> None:
    rig = make_rig()
    _interrupt_sleep(rig, lambda: len(rig.dfu(DETACH)) == 1)
    message = _interrupted(rig)
    assert "1-1" in message
    assert "nothing was written" in message
    rig.flash(wait=5)
    rig.assert_flashed()


def test_ctrl_c_ends_wait_for_board() -> None:
    rig = make_rig(start=0)
    rig.board.unplug()
    _interrupt_sleep(rig, lambda: rig.clock.monotonic() > 3)
    _interrupted(rig, wait=30)
    assert rig.clock.monotonic() < 3.2


def test_ctrl_c_ends_wait_for_access() -> None:
    rig = make_rig()
    rig.board.faults.no_access = True
    rig.board.faults.access_after = 1.0
    _interrupt_sleep(rig, lambda: rig.board.rom.mode is Mode.DFU and rig.board.present)
    assert "1-1" in _interrupted(rig)


def test_ctrl_c_after_reset_reports_flashed_board() -> None:
    rig = make_rig(mode=Mode.DFU)
    _interrupt_sleep(rig, lambda: bool(rig.resets))
    message = _interrupted(rig, after=BUS_RESET)
    assert "1-1" in message
    assert "nothing was written" not in message
    rig.assert_flashed()


@pytest.mark.parametrize("kind", [DeviceFound, PhaseStarted, Progress, PhaseFinished])
def test_ctrl_c_in_event_sink_ends_flash(kind: type[Event]) -> None:
    rig = make_rig()
    seen = []

    def on_event(event: Event) -> None:
        # The second of its kind, where there is one: those of the download.
        if isinstance(event, kind):
            seen.append(event)
            if len(seen) == (1 if kind is DeviceFound else 2):
                raise KeyboardInterrupt

    rig.on_event = on_event
    _interrupted(rig)
    assert rig.board.rom.state in (0, IDLE)
    rig.on_event = None
    rig.flash()
    rig.assert_flashed()


# --- reset ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", list(Mode))
def test_reset_reports_download_mode(start: Mode) -> None:
    rig = make_rig("esp32p4", mode=start, start=0)
    result = rig.flash(after=BUS_RESET)
    assert result.after_reset is not None
    assert "ESP32-P4" in result.after_reset
    assert "run-time" in result.after_reset
    assert rig.resets == ["1-1"]
    assert rig.phases()[-3:] == ["download", "verify", "reset"]
    assert rig.clock.monotonic() < 1.1
    rig.assert_flashed()


def test_reset_reports_empty_port() -> None:
    rig = make_rig()
    rig.board.boots_app = True
    result = rig.flash(after=BUS_RESET)
    assert result.after_reset == "nothing"
    assert (result.status, result.state) == ("OK", "dfuIDLE")
    rig.assert_flashed()


def test_reset_reports_usb_device_of_app() -> None:
    rig = make_rig()
    rig.board.boots_app = True

    def on_event(event: Event) -> None:
        if isinstance(event, PhaseStarted) and event.phase is Phase.RESET:
            rig.others = (serial_jtag("1-1"),)

    rig.on_event = on_event
    result = rig.flash(after=BUS_RESET)
    assert result.after_reset is not None
    assert "303a:1001" in result.after_reset


@pytest.mark.parametrize("boots", [False, True])
def test_reset_events_are_in_order(boots: bool) -> None:
    rig = make_rig()
    rig.board.boots_app = boots
    rig.flash(after=BUS_RESET)
    _assert_order(rig.events)


def test_port_is_reset_only_with_reset_option() -> None:
    rig = make_rig()
    rig.flash()
    assert rig.resets == []
    rig.flash(after=BUS_RESET)
    assert rig.resets == ["1-1"]
    assert rig.log[-1].request == 3  # DFU_GETSTATUS, the last answer
    rig.clock.sleep(1)
    rig.flash()
    rig.assert_flashed()


def test_failed_download_is_not_reset() -> None:
    rig = make_rig()
    rig.board.faults.plan(error_status(Status.errWRITE), PLACES["middle"])
    with pytest.raises(DfuError):
        rig.flash(after=BUS_RESET)
    assert rig.resets == []
