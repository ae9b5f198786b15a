"""From run-time mode to DFU mode with DFU_DETACH, and what can go wrong on the way."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Any

import msgspec
import pytest
import usb.core
from pytest_mock import MockerFixture

from esp_dfu_ext.dfu.detach import detach_and_wait
from esp_dfu_ext.dfu.discovery import DfuInterface, find
from esp_dfu_ext.dfu.spec import Mode
from esp_dfu_ext.errors import (
    AccessDeniedError,
    DeviceBusyError,
    NoDfuModeError,
    OtherBoardError,
    ReenumerationError,
    UsbError,
)
from esp_dfu_ext.events import Notice
from esp_dfu_ext.simulator.apps import ConsoleApp
from esp_dfu_ext.simulator.board import Moment, stall

from .kit.boards import Rig, Transfer, make_rig, serial_jtag, stranger
from .kit.chips import NAMES, chip, chips
from .kit.host import DETACH, DNLOAD


def _detach(rig: Rig) -> DfuInterface:
    target = rig.boards[0].target
    interface = find(rig.bus, target)[0]
    return detach_and_wait(
        interface, rig.bus, target, clock=rig.clock, targets=chips(), patience=0.0, on_event=rig.handle
    )


@pytest.mark.parametrize("name", NAMES)
def test_board_returns_in_dfu_mode(name: str) -> None:
    rig = make_rig(name, start=0)
    back = _detach(rig)
    assert (back.path, back.mode) == ("1-1", Mode.DFU)
    assert rig.clock.monotonic() < 0.6
    (detach,) = rig.dfu(DETACH)
    assert (detach.request_type, detach.value, detach.index, detach.data) == (0x21, 700, 2, b"")
    assert rig.resets == []


def test_sends_nothing_until_board_returns() -> None:
    rig = make_rig()
    _detach(rig)
    detach = rig.dfu(DETACH)[0]
    assert rig.log[rig.log.index(detach) :] == [detach]


@pytest.mark.parametrize(
    "error",
    [
        usb.core.USBError("Pipe error", -9, errno.EPIPE),
        usb.core.USBError("Input/Output Error", -1, errno.EIO),
        usb.core.USBError("No such device", -4, errno.ENODEV),
        usb.core.USBTimeoutError("Operation timed out", -7, errno.ETIMEDOUT),
        usb.core.USBError("Entity not found", -5, errno.ENOENT),
        usb.core.USBError("Other error", -99, None),
        None,
    ],
    ids=str,
)
def test_failed_detach_request_is_success(error: usb.core.USBError | None) -> None:
    rig = make_rig()

    def after(transfer: Transfer) -> None:
        if transfer.is_dfu and transfer.request == DETACH and error is not None:
            raise error

    control = rig.board.control

    def quiet(request_type: int, request: int, value: int, data: bytes, length: int) -> bytes:
        try:
            return control(request_type, request, value, data, length)
        except Exception:
            return b""

    rig.after = after
    rig.board.control = quiet  # type: ignore[method-assign]
    back = _detach(rig)
    assert back.mode is Mode.DFU
    assert len(rig.dfu(DETACH)) == 1
    assert rig.resets == []


def test_console_app_gets_one_detach() -> None:
    rig = make_rig("esp32s2", start=0)
    rig.board.start_app(ConsoleApp(rig.board.rom))
    assert _detach(rig).mode is Mode.DFU
    assert len(rig.dfu(DETACH)) == 1
    assert rig.clock.monotonic() < 1.2


def test_no_second_detach_within_3_seconds() -> None:
    rig = make_rig(start=0)
    rig.clock.sleep(50)
    started = rig.clock.monotonic()
    rig.board.faults.return_mode = Mode.RUN_TIME
    with pytest.raises(NoDfuModeError, match=r"1-1") as caught:
        _detach(rig)
    assert caught.value.seen == "run-time"
    assert "came back in run-time" in caught.value.message
    assert 15 <= rig.clock.monotonic() - started <= 15.2
    first, *more = [t.when for t in rig.dfu(DETACH)]
    assert len(more) == 1
    assert more[0] - first > 3
    (notice,) = [e for e in rig.events if isinstance(e, Notice)]
    assert (notice.code, notice.path) == ("detach-again", "1-1")
    assert "run-time" in notice.message


def test_second_detach_succeeds() -> None:
    rig = make_rig(start=0)
    rig.board.faults.return_mode = Mode.RUN_TIME

    def before(transfer: Transfer) -> None:
        if transfer.is_dfu and transfer.request == DETACH and transfer.when > 3:
            rig.board.faults.return_mode = Mode.DFU

    rig.before = before
    assert _detach(rig).mode is Mode.DFU
    assert 3 < rig.clock.monotonic() < 4


def test_board_leaving_before_second_detach() -> None:
    rig = make_rig(start=0)
    rig.board.faults.return_mode = Mode.RUN_TIME

    def leave(event: object) -> None:
        rig.board.unplug()
        rig.board.plug(Mode.DFU)

    rig.on_event = leave
    assert _detach(rig).mode is Mode.DFU
    assert rig.notices() == ["detach-again"]
    assert len(rig.dfu(DETACH)) == 1


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (usb.core.USBError("Pipe error", -9, errno.EPIPE), "refused the request."),
        (usb.core.USBTimeoutError("Operation timed out", -7, errno.ETIMEDOUT), "did not answer the request."),
        (usb.core.USBError("Input/Output Error", -1, errno.EIO), "the request failed: "),
        (None, "accepted the request."),
    ],
    ids=str,
)
def test_board_never_leaves_bus(error: usb.core.USBError | None, says: str) -> None:
    rig = make_rig(others=[stranger(0x1D6B, 2)])

    def before(transfer: Transfer) -> None:
        if transfer.is_dfu and transfer.request == DETACH and error is not None:
            raise error

    rig.before = before
    rig.board.control = lambda *_: b""  # type: ignore[method-assign]
    limits = msgspec.structs.replace(chip().dfu, return_timeout=1.5)
    rig.board.target = msgspec.structs.replace(chip(), dfu=limits)
    with pytest.raises(NoDfuModeError) as caught:
        _detach(rig)
    assert "port 1-1" in caught.value.message and "within 1.5 s" in caught.value.message
    assert f"never left the bus, and {says}" in caught.value.message
    assert not caught.value.message.endswith("..")
    assert len(caught.value.notes) == 1  # other vendors' devices are not named
    assert "1-1" in caught.value.notes[0]


@pytest.mark.parametrize("name", NAMES)
def test_board_never_returns(name: str) -> None:
    rig = make_rig(name, others=[serial_jtag("1-2")], start=0)
    rig.board.faults.no_return = True
    with pytest.raises(ReenumerationError, match=r"1-1.*15 s") as caught:
        _detach(rig)
    assert caught.value.code == "no-return"
    assert "no device is on its port" in caught.value.message
    assert [note[:29] for note in caught.value.notes] == ["Found on port 1-2: 303a:1001,"]
    assert 15 <= rig.clock.monotonic() <= 15.1


@pytest.mark.parametrize("pid", [0x1001, 0x0009], ids=["another ID", "its ID without DFU"])
def test_other_device_returns(pid: int) -> None:
    rig = make_rig("esp32s3")
    rig.board.faults.no_return = True
    rig.others = (replace(stranger(0x303A, pid), path="1-1"),)
    with pytest.raises(NoDfuModeError, match=f"303a:{pid:04x} is on its port") as caught:
        _detach(rig)
    assert caught.value.seen == f"303a:{pid:04x}"
    assert caught.value.notes[0].startswith(f"Found on port 1-1: 303a:{pid:04x}")


def test_board_on_another_port_is_not_ours() -> None:
    rig = make_rig("esp32s3", "esp32s3")
    rig.boards[0].faults.no_return = True
    rig.boards[1].rom.mode = Mode.DFU
    with pytest.raises(ReenumerationError):
        _detach(rig)


def test_other_chip_on_same_port_is_not_ours() -> None:
    rig = make_rig("esp32s3", "esp32s2")
    ours, other = rig.boards
    ours.faults.no_return = True
    other.path = "1-1"
    other.unplug()

    def after_detach(transfer: Transfer) -> None:
        if transfer.is_dfu and transfer.request == DETACH:
            other.plug(Mode.DFU)

    rig.before = after_detach
    with pytest.raises(NoDfuModeError) as caught:
        _detach(rig)
    assert caught.value.seen == "303a:0002"


def test_device_without_will_detach_gets_bus_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    """DFU 1.1 section 5.1, bitWillDetach: no chip of ours."""
    rom = "esp_dfu_ext.simulator.rom"
    raw = make_rig().board.rom.configuration_descriptor
    monkeypatch.setattr(f"{rom}._CONFIGURATION", raw.replace(b"\x09\x21\x0f", b"\x09\x21\x07"))
    rig = make_rig()
    board = rig.board
    board.control = lambda *_: b""  # type: ignore[method-assign]
    board.reset_bus = lambda: board.plug(Mode.DFU)  # type: ignore[method-assign]
    assert _detach(rig).mode is Mode.DFU
    assert len(rig.dfu(DETACH)) == 1
    assert rig.resets == ["1-1"]


def test_no_functional_descriptor_means_one_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = make_rig().board.rom.configuration_descriptor
    monkeypatch.setattr("esp_dfu_ext.simulator.rom._CONFIGURATION", raw.replace(b"\x09\x21\x0f", b"\x09\x24\x0f"))
    rig = make_rig()
    assert _detach(rig).functional is None
    assert [t.value for t in rig.dfu(DETACH)] == [1000]
    assert rig.resets == []


def test_each_scan_has_new_context() -> None:
    rig = make_rig()
    _detach(rig)
    assert rig.scans >= 5


def test_inaccessible_board_gets_no_detach() -> None:
    rig = make_rig(start=0)
    rig.board.faults.no_access = True
    with pytest.raises(AccessDeniedError):
        _detach(rig)
    rig.board.faults.no_access = False
    rig.board.faults.busy = True
    with pytest.raises(DeviceBusyError):
        _detach(rig)
    assert rig.dfu(DETACH) == []
    assert rig.clock.monotonic() == 0


def test_failed_scan_does_not_end_wait(mocker: MockerFixture) -> None:
    rig = make_rig()
    interface = find(rig.bus, chip())[0]
    looks = mocker.patch.object(
        rig.bus,
        "scan",
        side_effect=[UsbError("USB scan: the transfer failed."), *[mocker.DEFAULT] * 99],
        wraps=rig.bus.scan,
    )
    back = detach_and_wait(interface, rig.bus, chip(), clock=rig.clock, targets=chips(), patience=0.0)
    assert back.mode is Mode.DFU
    assert looks.call_count > 2


def test_failing_scans_end_in_time(mocker: MockerFixture) -> None:
    rig = make_rig()
    interface = find(rig.bus, chip())[0]
    mocker.patch.object(rig.bus, "scan", side_effect=UsbError("USB scan: the transfer failed."))
    with pytest.raises(ReenumerationError, match="did not come back in DFU mode within 15 s"):
        detach_and_wait(interface, rig.bus, chip(), clock=rig.clock, targets=chips(), patience=0.0)


# --- which board is back ----------------------------------------------------------------------------------


def _swap_ports(rig: Rig) -> None:
    """Exchange the ports of the first two boards while one of them is detached."""

    def before(transfer: Transfer) -> None:
        if transfer.is_dfu and transfer.request == DETACH:
            one, other, *_ = rig.boards
            one.path, other.path = other.path, one.path
            rig.before = None

    rig.before = before


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("by", [{"serial": "7C:DF:A1:00:00:01"}, {"path": "1-1"}], ids=["serial", "path"])
def test_boards_that_swap_ports_are_told_apart(by: dict[str, Any], mode: Mode) -> None:
    rig = make_rig("esp32s3", "esp32s3")
    rig.boards[1].rom.mode = mode
    _swap_ports(rig)
    with pytest.raises(OtherBoardError, match="has serial number 7c:df:a1:00:00:02") as caught:
        rig.flash(**by)
    assert (caught.value.before, caught.value.now) == ("7c:df:a1:00:00:01", "7c:df:a1:00:00:02")
    assert len(rig.dfu(DETACH)) == 1
    assert rig.dfu(DNLOAD) == []


def test_chips_that_share_a_serial_number_are_flashed() -> None:
    rig = make_rig("esp32s2", "esp32s2")
    assert rig.flash(path="1-1").serial == "0"


def test_serial_number_that_is_read_late_counts() -> None:
    rig = make_rig()
    rig.board.faults.plan(stall, at=Moment.STRING, mode=Mode.DFU)
    assert rig.flash().serial == "7c:df:a1:00:00:01"


def test_board_that_keeps_back_its_serial_number_is_not_flashed() -> None:
    rig = make_rig()
    for _ in range(1000):
        rig.board.faults.plan(stall, at=Moment.STRING, mode=Mode.DFU)
    with pytest.raises(OtherBoardError, match="does not give its serial number") as caught:
        rig.flash()
    assert caught.value.now is None
    assert rig.dfu(DNLOAD) == []


@pytest.mark.parametrize("serial", ["", " ", "\n"])
def test_blank_serial_number_is_none(serial: str) -> None:
    rig = make_rig()
    rig.board.rom.serial = serial
    assert rig.flash().serial is None


def test_second_detach_that_fails_otherwise_ends_wait() -> None:
    """Only a board that was just leaving is no reason to give up."""
    rig = make_rig(start=0)
    rig.board.faults.return_mode = Mode.RUN_TIME
    rig.clock.sleep(1.0)
    sleep = rig.clock.sleep

    def busy_later(seconds: float) -> None:
        sleep(seconds)
        rig.board.faults.busy = rig.clock.monotonic() > 3

    rig.clock.sleep = busy_later  # type: ignore[method-assign]
    with pytest.raises(DeviceBusyError):
        _detach(rig)
    assert len(rig.dfu(DETACH)) == 1
