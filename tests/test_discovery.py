"""Finding and choosing boards, and the way from run-time to DFU mode."""

from __future__ import annotations

import errno
from dataclasses import replace

import msgspec
import pytest
import usb.core
from pytest_mock import MockerFixture

from esp_dfu_ext.dfu.detach import detach_and_wait
from esp_dfu_ext.dfu.discovery import DfuInterface, Selector, describe, dfu_interfaces, find, select
from esp_dfu_ext.dfu.opening import open_when_permitted
from esp_dfu_ext.dfu.spec import Mode
from esp_dfu_ext.errors import (
    AccessDeniedError,
    AppRunningError,
    DeviceBusyError,
    DeviceNotFoundError,
    NoDfuModeError,
    ReenumerationError,
    SeveralDevicesError,
    UnreadableDeviceError,
    UsageError,
    UsbError,
)
from esp_dfu_ext.events import Notice, Waiting
from esp_dfu_ext.simulator.bus import OtherDevice
from esp_dfu_ext.target import OtherUsb

from .kit.boards import Bench, Transfer, bench, serial_jtag
from .kit.chips import NAMES, chip, chips
from .kit.host import DETACH


def _select(
    rig: Bench, name: str = "esp32s3", wait: float = 0.0, path: str | None = None, serial: str | None = None
) -> DfuInterface:
    return select(rig.bus, chip(name), Selector(path, serial), chips(), clock=rig.clock, wait=wait, on_event=rig.handle)


def _detach(rig: Bench) -> DfuInterface:
    target = rig.boards[0].target
    interface = find(rig.bus, target)[0]
    return detach_and_wait(
        interface, rig.bus, target, clock=rig.clock, targets=chips(), patience=0.0, on_event=rig.handle
    )


# --- find, describe ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", list(Mode))
def test_a_board_is_found_in_both_modes(name: str, mode: Mode) -> None:
    (interface,) = find(bench(name, mode=mode).bus, chip(name))
    assert (interface.path, interface.mode, interface.descriptor.number) == ("1-1", mode, 2)
    assert interface.functional == (0x0F, 700, 64, 0x0110)
    assert interface.read_serial() == ("0" if name == "esp32s2" else "7c:df:a1:00:00:01")


def test_other_chips_and_other_devices_are_not_found() -> None:
    rig = bench("esp32s2", "esp32p4", others=[serial_jtag()])
    assert find(rig.bus, chip("esp32s3")) == []
    assert [i.path for i in find(rig.bus, chip("esp32p4"))] == ["1-2"]


@pytest.mark.parametrize(
    ("class_", "subclass", "protocol"),
    [(3, 1, 1), (3, 1, 2), (0xFE, 2, 1), (0xFE, 1, 0), (0xFE, 1, 3), (0xFF, 1, 2)],
    ids=["keyboard", "mouse", "IrDA bridge", "protocol 0", "protocol 3", "a vendor's own"],
)
def test_interfaces_that_are_not_for_dfu(class_: int, subclass: int, protocol: int) -> None:
    (device,) = bench().bus.scan()
    (dfu,) = dfu_interfaces(device)
    other = replace(dfu.descriptor, class_=class_, subclass=subclass, protocol=protocol)
    found = dfu_interfaces(replace(device, interfaces=(other, dfu.descriptor, other)))
    assert [interface.descriptor for interface in found] == [dfu.descriptor]


def test_a_foreign_device_in_dfu_mode_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = bench("esp32s3")
    foreign = rig.bus.scan()[0]
    object.__setattr__(foreign, "vid", 0x0483)
    monkeypatch.setattr(rig.bus, "scan", lambda vids=None: [foreign] if vids is None or 0x0483 in vids else [])
    assert find(rig.bus, chip("esp32s3")) == []
    with pytest.raises(DeviceNotFoundError):
        _select(rig)


@pytest.mark.parametrize(
    ("mode", "facts"),
    [(Mode.RUN_TIME, ("303a:0002", "ESP32-S2", "run-time")), (Mode.DFU, ("303a:0002", "ESP32-S2", "DFU mode"))],
)
def test_description_of_a_board(mode: Mode, facts: tuple[str, ...]) -> None:
    (device,) = bench("esp32s2", mode=mode).bus.scan()
    assert all(fact in describe(device, chips()) for fact in facts)


def test_description_of_usb_serial_jtag() -> None:
    device = bench(others=[serial_jtag()]).bus.scan()[1]
    text = describe(device, chips())
    assert "303a:1001" in text
    assert "USB-Serial/JTAG" in text
    assert "without DFU" in text


# --- select -----------------------------------------------------------------------------------------------


def test_the_only_board_is_taken_whatever_else_is_there() -> None:
    rig = bench("esp32s2", "esp32s3", "esp32p4", others=[serial_jtag()])
    assert _select(rig).path == "1-2"


def test_several_boards_are_named() -> None:
    rig = bench("esp32s3", "esp32s2", "esp32s3")
    with pytest.raises(SeveralDevicesError, match=r"1-1.*1-3") as caught:
        _select(rig)
    assert caught.value.paths == ("1-1", "1-3")


def test_by_path() -> None:
    rig = bench("esp32s3", "esp32s3", "esp32s3")
    assert _select(rig, path="1-2").path == "1-2"


@pytest.mark.parametrize("serial", ["7c:df:a1:00:00:02", "7C:DF:A1:00:00:02"])
def test_by_serial_in_either_case(serial: str) -> None:
    rig = bench("esp32s3", "esp32s3", "esp32s3")
    assert _select(rig, serial=serial).path == "1-2"


def test_a_serial_number_that_all_boards_have_chooses_none() -> None:
    rig = bench("esp32s2", "esp32s2")
    with pytest.raises(UsageError, match=r"'0'.*1-1, 1-2") as caught:
        _select(rig, "esp32s2", serial="0")
    assert not isinstance(caught.value, SeveralDevicesError)
    assert _select(bench("esp32s2"), "esp32s2", serial="0").path == "1-1"


@pytest.mark.parametrize(
    ("boards", "other", "how", "code", "facts"),
    [
        ((), False, {}, "no-device", ("There is no USB device.",)),
        ((), True, {}, "other-usb", ("1-9", "303a:1001")),
        (("esp32s2",), False, {}, "other-chip", ("1-1", "ESP32-S2")),
        (("esp32s2",), True, {"path": "1-1"}, "other-chip", ("1-1", "ESP32-S2", "1-9")),
        (("esp32s2", "esp32s3"), True, {"path": "1-9"}, "other-usb", ("1-1", "1-2", "1-9")),
        (("esp32s3",), False, {"path": "1-7"}, "other-path", ("1-1", "ESP32-S3")),
        (("esp32s2",), False, {"path": "1-7"}, "other-path", ("1-1", "ESP32-S2")),
        (("esp32s3",), False, {"serial": "7c:df:a1:00:00:99"}, "other-serial", ("1-1", "ESP32-S3")),
        (("esp32s2",), False, {"serial": "7c:df:a1:00:00:99"}, "other-chip", ("1-1", "ESP32-S2")),
    ],
)
def test_not_found_says_what_was_seen_instead(
    boards: tuple[str, ...], other: bool, how: dict[str, str], code: str, facts: tuple[str, ...]
) -> None:
    rig = bench(*(boards or ("esp32s3",)), others=[serial_jtag()] if other else [])
    if not boards:
        rig.board.unplug()
    with pytest.raises(DeviceNotFoundError, match=r"ESP32-S3 \(303a:0009\)") as caught:
        _select(rig, path=how.get("path"), serial=how.get("serial"))
    assert caught.value.code == code
    assert len(caught.value.notes) == max(1, len(boards) + other)
    assert all(fact in " ".join(caught.value.notes) for fact in facts)
    assert all(value in caught.value.message for value in how.values())


def _stranger(vid: int, pid: int) -> OtherDevice:
    return OtherDevice(OtherUsb(vid=vid, pid=pid, name="x", meaning="x"), "1-8", 98)


def test_an_app_is_told_from_a_chip() -> None:
    rig = bench(others=[_stranger(0x303A, 0x4001), serial_jtag()])
    rig.board.unplug()
    with pytest.raises(AppRunningError) as caught:
        _select(rig)
    assert "303a:4001, no DFU interface: an app" in caught.value.notes[0]


@pytest.mark.parametrize(("count", "says"), [(1, "One other USB device is"), (2, "2 other USB devices are")])
def test_devices_of_other_vendors_are_counted(count: int, says: str) -> None:
    rig = bench(others=[_stranger(0x1D6B, 2)] * count)
    rig.board.unplug()
    with pytest.raises(DeviceNotFoundError) as caught:
        _select(rig)
    assert (caught.value.code, caught.value.notes) == (
        "no-device",
        (f"{says} there, hubs included, and none of Espressif.",),
    )


def test_a_chip_that_is_not_among_those_known_is_seen_on_another_port() -> None:
    rig = bench(start=0)
    with pytest.raises(DeviceNotFoundError) as caught:
        select(rig.bus, chip(), Selector("1-7"), (), clock=rig.clock)
    assert rig.clock.monotonic() == 0
    assert caught.value.code == "other-path"
    assert "1-1: 303a:0009" in caught.value.notes[0]


def test_a_device_that_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = bench(others=[_stranger(0x303A, 9)])
    rig.board.unplug()

    def unreadable(*_: object) -> None:
        raise usb.core.USBError("Input/Output Error", -1, errno.EIO)

    monkeypatch.setattr("esp_dfu_ext.simulator.bus.SimulatedBackend.get_configuration_descriptor", unreadable)
    with pytest.raises(UnreadableDeviceError):
        _select(rig)


def test_a_serial_number_that_cannot_be_read() -> None:
    rig = bench()
    rig.board.faults.no_access = True
    with pytest.raises(AccessDeniedError) as caught:
        _select(rig, serial="7c:df:a1:00:00:01")
    assert "7c:df:a1:00:00:01 cannot be read" in caught.value.notes[0]


def test_a_board_without_permission_is_found_without_a_serial_number() -> None:
    rig = bench()
    rig.board.faults.no_access = True
    assert _select(rig).path == "1-1"
    assert _select(rig, path="1-1").path == "1-1"


# --- waiting ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", [0.0, 0.02, 1.0, 12.5])
def test_waiting_ends_in_time(wait: float) -> None:
    rig = bench(start=0)
    rig.board.unplug()
    with pytest.raises(DeviceNotFoundError):
        _select(rig, wait=wait)
    assert rig.clock.monotonic() == pytest.approx(wait)
    left = [event.seconds for event in rig.events if isinstance(event, Waiting)]
    assert len(left) == len(rig.events)
    assert left == sorted(left, reverse=True)
    assert left[:1] == ([pytest.approx(wait)] if wait else [])


def test_a_board_that_is_plugged_in_while_we_wait() -> None:
    rig = bench(start=0)
    rig.board.unplug()

    def plug(_: object) -> None:
        if rig.clock.monotonic() > 3 and not rig.board.present:
            rig.board.plug()

    rig.on_event = plug
    assert _select(rig, wait=30).path == "1-1"
    assert 3 <= rig.clock.monotonic() <= 3.2


def test_several_boards_are_not_waited_for() -> None:
    rig = bench("esp32s3", "esp32s3", start=0)
    with pytest.raises(SeveralDevicesError):
        _select(rig, wait=30)
    assert rig.clock.monotonic() == 0


# --- detach -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_detach_brings_the_board_back_in_dfu_mode(name: str) -> None:
    rig = bench(name, start=0)
    back = _detach(rig)
    assert (back.path, back.mode) == ("1-1", Mode.DFU)
    assert rig.clock.monotonic() < 0.6
    (detach,) = rig.dfu(DETACH)
    assert (detach.request_type, detach.value, detach.index, detach.data) == (0x21, 700, 2, b"")
    assert rig.resets == []


def test_nothing_is_sent_between_detach_and_return() -> None:
    rig = bench()
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
def test_a_detach_that_fails_on_the_host_is_a_success(error: usb.core.USBError | None) -> None:
    rig = bench()

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


def test_an_app_with_the_console_comes_back_twice_and_is_asked_once() -> None:
    rig = bench("esp32s2", start=0)
    rig.board.console_app = True
    assert _detach(rig).mode is Mode.DFU
    assert len(rig.dfu(DETACH)) == 1
    assert rig.clock.monotonic() < 1.2


def test_no_second_detach_within_3_seconds() -> None:
    rig = bench(start=0)
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


def test_a_second_detach_helps_where_the_first_did_not() -> None:
    rig = bench(start=0)
    rig.board.faults.return_mode = Mode.RUN_TIME

    def before(transfer: Transfer) -> None:
        if transfer.is_dfu and transfer.request == DETACH and transfer.when > 3:
            rig.board.faults.return_mode = Mode.DFU

    rig.before = before
    assert _detach(rig).mode is Mode.DFU
    assert 3 < rig.clock.monotonic() < 4


def test_a_board_that_leaves_by_itself_before_the_second_detach_is_waited_for() -> None:
    rig = bench(start=0)
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
        (None, "took the request."),
    ],
    ids=str,
)
def test_a_board_that_never_leaves_the_bus(error: usb.core.USBError | None, says: str) -> None:
    rig = bench(others=[_stranger(0x1D6B, 2)])

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
def test_a_board_that_never_comes_back(name: str) -> None:
    rig = bench(name, others=[serial_jtag("1-2")], start=0)
    rig.board.faults.no_return = True
    with pytest.raises(ReenumerationError, match=r"1-1.*15 s") as caught:
        _detach(rig)
    assert caught.value.code == "no-return"
    assert "nothing is on its port" in caught.value.message
    assert [note[:28] for note in caught.value.notes] == ["Seen on port 1-2: 303a:1001,"]
    assert 15 <= rig.clock.monotonic() <= 15.1


@pytest.mark.parametrize("pid", [0x1001, 0x0009], ids=["another ID", "its ID without DFU"])
def test_a_board_that_comes_back_as_something_else(pid: int) -> None:
    rig = bench("esp32s3")
    rig.board.faults.no_return = True
    rig.others = (replace(_stranger(0x303A, pid), path="1-1"),)
    with pytest.raises(NoDfuModeError, match=f"303a:{pid:04x} is on its port") as caught:
        _detach(rig)
    assert caught.value.seen == f"303a:{pid:04x}"
    assert caught.value.notes[0].startswith(f"Seen on port 1-1: 303a:{pid:04x}")


def test_another_board_in_dfu_mode_is_not_taken_for_ours() -> None:
    rig = bench("esp32s3", "esp32s3")
    rig.boards[0].faults.no_return = True
    rig.boards[1].rom.mode = Mode.DFU
    with pytest.raises(ReenumerationError):
        _detach(rig)


def test_another_chip_in_dfu_mode_on_the_same_port_is_not_taken_for_ours() -> None:
    rig = bench("esp32s3", "esp32s2")
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


def test_a_device_that_does_not_detach_by_itself_gets_a_bus_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    """DFU 1.1 section 5.1, bitWillDetach: no chip of ours."""
    rom = "esp_dfu_ext.simulator.rom"
    raw = bench().board.rom.configuration_descriptor
    monkeypatch.setattr(f"{rom}._CONFIGURATION", raw.replace(b"\x09\x21\x0f", b"\x09\x21\x07"))
    rig = bench()
    board = rig.board
    board.control = lambda *_: b""  # type: ignore[method-assign]
    board.reset_bus = lambda: board.plug(Mode.DFU)  # type: ignore[method-assign]
    assert _detach(rig).mode is Mode.DFU
    assert len(rig.dfu(DETACH)) == 1
    assert rig.resets == ["1-1"]


def test_a_device_without_the_functional_descriptor_gets_a_second_and_no_bus_reset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = bench().board.rom.configuration_descriptor
    monkeypatch.setattr("esp_dfu_ext.simulator.rom._CONFIGURATION", raw.replace(b"\x09\x21\x0f", b"\x09\x24\x0f"))
    rig = bench()
    assert _detach(rig).functional is None
    assert [t.value for t in rig.dfu(DETACH)] == [1000]
    assert rig.resets == []


def test_each_look_at_the_bus_has_a_fresh_context() -> None:
    rig = bench()
    _detach(rig)
    assert rig.scans >= 5


def test_detach_of_a_board_that_cannot_be_opened() -> None:
    rig = bench(start=0)
    rig.board.faults.no_access = True
    with pytest.raises(AccessDeniedError):
        _detach(rig)
    rig.board.faults.no_access = False
    rig.board.faults.busy = True
    with pytest.raises(DeviceBusyError):
        _detach(rig)
    assert rig.dfu(DETACH) == []
    assert rig.clock.monotonic() == 0


# --- opening ----------------------------------------------------------------------------------------------


def _open_after(rig: Bench, after: float | None, patience: float) -> float:
    rig.board.plug(Mode.DFU)
    rig.board.faults.no_access = True
    rig.board.faults.access_after = after
    started = rig.clock.monotonic()
    (interface,) = find(rig.bus, chip())
    try:
        open_when_permitted(interface, clock=rig.clock, patience=patience).close()
    except AccessDeniedError:
        return started - rig.clock.monotonic()
    return rig.clock.monotonic() - started


@pytest.mark.parametrize(
    ("after", "patience", "low", "high"),
    [(1.0, 2.0, 1.0, 1.1), (0.0, 2.0, 0.0, 0.0), (None, 2.0, -2.1, -2.0), (1.0, 0.0, 0.0, 0.0), (3.0, 2.0, -2.1, -2.0)],
)
def test_permission_is_waited_for(after: float | None, patience: float, low: float, high: float) -> None:
    """Seconds until it was open; negative for those after which it was given up."""
    assert low - 1e-9 <= _open_after(bench(), after, patience) <= high + 1e-9


def test_other_errors_are_not_waited_for() -> None:
    rig = bench(mode=Mode.DFU, start=0)
    rig.board.faults.busy = True
    (interface,) = find(rig.bus, chip())
    with pytest.raises(DeviceBusyError):
        open_when_permitted(interface, clock=rig.clock, patience=2.0)
    assert rig.clock.monotonic() == 0


def test_a_look_that_fails_does_not_end_the_wait(mocker: MockerFixture) -> None:
    rig = bench()
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


def test_a_bus_that_cannot_be_looked_at_says_that_the_board_is_not_back(mocker: MockerFixture) -> None:
    rig = bench()
    interface = find(rig.bus, chip())[0]
    mocker.patch.object(rig.bus, "scan", side_effect=UsbError("USB scan: the transfer failed."))
    with pytest.raises(ReenumerationError, match="did not come back in DFU mode within 15 s"):
        detach_and_wait(interface, rig.bus, chip(), clock=rig.clock, targets=chips(), patience=0.0)
