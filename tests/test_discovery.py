"""Finding boards, describing other devices, and choosing one board."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest
import usb.core

from esp_dfu_ext.dfu.discovery import DfuInterface, Selector, describe, dfu_interfaces, find, select
from esp_dfu_ext.dfu.spec import Mode
from esp_dfu_ext.errors import (
    AccessDeniedError,
    AppRunningError,
    DeviceNotFoundError,
    OtherChipError,
    OtherUsbError,
    SeveralDevicesError,
    UnreadableDeviceError,
    UsageError,
)
from esp_dfu_ext.events import Waiting

from .kit.boards import Rig, app_with_dfu, make_rig, serial_jtag, stranger
from .kit.chips import NAMES, chip, chips


def _select(
    rig: Rig, name: str = "esp32s3", wait: float = 0.0, path: str | None = None, serial: str | None = None
) -> DfuInterface:
    return select(rig.bus, chip(name), Selector(path, serial), chips(), clock=rig.clock, wait=wait, on_event=rig.handle)


# --- find, describe ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", list(Mode))
def test_board_is_found_in_both_modes(name: str, mode: Mode) -> None:
    (interface,) = find(make_rig(name, mode=mode).bus, chip(name))
    assert (interface.path, interface.mode, interface.descriptor.number) == ("1-1", mode, 2)
    assert interface.functional == (0x0F, 700, 64, 0x0110)
    assert interface.read_serial() == ("0" if name == "esp32s2" else "7c:df:a1:00:00:01")


def test_other_chips_and_devices_are_ignored() -> None:
    rig = make_rig("esp32s2", "esp32p4", others=[serial_jtag()])
    assert find(rig.bus, chip("esp32s3")) == []
    assert [i.path for i in find(rig.bus, chip("esp32p4"))] == ["1-2"]


@pytest.mark.parametrize(
    ("class_", "subclass", "protocol"),
    [(3, 1, 1), (3, 1, 2), (0xFE, 2, 1), (0xFE, 1, 0), (0xFE, 1, 3), (0xFF, 1, 2)],
    ids=["keyboard", "mouse", "IrDA bridge", "protocol 0", "protocol 3", "a vendor's own"],
)
def test_other_interfaces_are_ignored(class_: int, subclass: int, protocol: int) -> None:
    (device,) = make_rig().bus.scan()
    (dfu,) = dfu_interfaces(device)
    other = replace(dfu.descriptor, class_=class_, subclass=subclass, protocol=protocol)
    found = dfu_interfaces(replace(device, interfaces=(other, dfu.descriptor, other)))
    assert [interface.descriptor for interface in found] == [dfu.descriptor]


def test_dfu_device_of_another_vendor_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = make_rig("esp32s3")
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
def test_board_is_described(mode: Mode, facts: tuple[str, ...]) -> None:
    (device,) = make_rig("esp32s2", mode=mode).bus.scan()
    assert all(fact in describe(device, chips()) for fact in facts)


def test_description_of_usb_serial_jtag() -> None:
    device = make_rig(others=[serial_jtag()]).bus.scan()[1]
    text = describe(device, chips())
    assert "303a:1001" in text
    assert "USB-Serial/JTAG" in text
    assert "without DFU" in text


# --- select -----------------------------------------------------------------------------------------------


def test_only_board_is_chosen_among_other_devices() -> None:
    rig = make_rig("esp32s2", "esp32s3", "esp32p4", others=[serial_jtag()])
    assert _select(rig).path == "1-2"


def test_several_boards_are_listed() -> None:
    rig = make_rig("esp32s3", "esp32s2", "esp32s3")
    with pytest.raises(SeveralDevicesError, match=r"1-1.*1-3") as caught:
        _select(rig)
    assert caught.value.paths == ("1-1", "1-3")


def test_path_selects_board() -> None:
    rig = make_rig("esp32s3", "esp32s3", "esp32s3")
    assert _select(rig, path="1-2").path == "1-2"


@pytest.mark.parametrize("serial", ["7c:df:a1:00:00:02", "7C:DF:A1:00:00:02"])
def test_selects_by_serial_in_either_case(serial: str) -> None:
    rig = make_rig("esp32s3", "esp32s3", "esp32s3")
    assert _select(rig, serial=serial).path == "1-2"


def test_shared_serial_number_is_refused() -> None:
    rig = make_rig("esp32s2", "esp32s2")
    with pytest.raises(UsageError, match=r"'0'.*1-1, 1-2") as caught:
        _select(rig, "esp32s2", serial="0")
    assert not isinstance(caught.value, SeveralDevicesError)
    assert _select(make_rig("esp32s2"), "esp32s2", serial="0").path == "1-1"


@pytest.mark.parametrize(
    ("boards", "other", "how", "code", "facts"),
    [
        ((), False, {}, "no-device", ("libusb sees no USB devices, not even a hub.",)),
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
def test_not_found_lists_other_devices(
    boards: tuple[str, ...], other: bool, how: dict[str, str], code: str, facts: tuple[str, ...]
) -> None:
    rig = make_rig(*(boards or ("esp32s3",)), others=[serial_jtag()] if other else [])
    if not boards:
        rig.board.unplug()
    with pytest.raises(DeviceNotFoundError, match=r"ESP32-S3 \(303a:0009\)") as caught:
        _select(rig, path=how.get("path"), serial=how.get("serial"))
    assert caught.value.code == code
    assert len(caught.value.notes) == max(1, len(boards) + other)
    assert all(fact in " ".join(caught.value.notes) for fact in facts)
    assert all(value in caught.value.message for value in how.values())


def test_running_app_is_recognized() -> None:
    rig = make_rig(others=[stranger(0x303A, 0x4001), serial_jtag()])
    rig.board.unplug()
    with pytest.raises(AppRunningError) as caught:
        _select(rig)
    assert "303a:4001, no DFU interface: an app" in caught.value.notes[0]


def test_usb_device_that_chip_lacks_is_another_chip() -> None:
    rig = make_rig(others=[serial_jtag()])
    rig.board.unplug()
    with pytest.raises(OtherChipError) as caught:
        _select(rig, "esp32s2")
    assert caught.value.notes == (
        "Found on port 1-9: 303a:1001, USB-Serial/JTAG: another chip, because an ESP32-S2 has none.",
    )
    with pytest.raises(OtherUsbError, match="ESP32-P4"):
        _select(rig, "esp32p4")


def test_app_with_dfu_of_its_own_is_running_app() -> None:
    rig = make_rig(others=[app_with_dfu(0x303A, 0x4001)])
    rig.board.unplug()
    with pytest.raises(AppRunningError) as caught:
        _select(rig)
    assert (
        "303a:4001, an app with DFU in run-time mode: a flash asks it to enter download mode." in caught.value.notes[0]
    )


def test_dfu_device_of_another_vendor_is_named_but_changes_nothing() -> None:
    rig = make_rig(others=[app_with_dfu(0x2341, 0x0070)])
    rig.board.unplug()
    with pytest.raises(DeviceNotFoundError) as caught:
        _select(rig)
    assert caught.value.code == "no-device"
    assert (
        "2341:0070, an app or device of another vendor with DFU in run-time mode: a flash asks" in caught.value.notes[1]
    )


@pytest.mark.parametrize(("count", "says"), [(1, "Found 1 other USB device"), (2, "Found 2 other USB devices")])
def test_devices_of_other_vendors_are_counted(count: int, says: str) -> None:
    rig = make_rig(others=[stranger(0x1D6B, 2)] * count)
    rig.board.unplug()
    with pytest.raises(DeviceNotFoundError) as caught:
        _select(rig)
    assert (caught.value.code, caught.value.notes) == (
        "no-device",
        (f"{says} (including hubs), none of them from the chip's vendor.",),
    )


def test_unknown_chip_is_found_on_another_port() -> None:
    rig = make_rig(start=0)
    with pytest.raises(DeviceNotFoundError) as caught:
        select(rig.bus, chip(), Selector("1-7"), (), clock=rig.clock)
    assert rig.clock.monotonic() == 0
    assert caught.value.code == "other-path"
    assert "1-1: 303a:0009" in caught.value.notes[0]


def test_device_without_readable_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = make_rig(others=[stranger(0x303A, 9)])
    rig.board.unplug()

    def unreadable(*_: object) -> None:
        raise usb.core.USBError("Input/Output Error", -1, errno.EIO)

    monkeypatch.setattr("esp_dfu_ext.simulator.bus.SimulatedBackend.get_configuration_descriptor", unreadable)
    with pytest.raises(UnreadableDeviceError):
        _select(rig)


def test_unreadable_serial_number() -> None:
    rig = make_rig()
    rig.board.faults.no_access = True
    with pytest.raises(AccessDeniedError) as caught:
        _select(rig, serial="7c:df:a1:00:00:01")
    assert "could not be read, so it may be the board with 7c:df:a1:00:00:01" in caught.value.notes[0]


def test_inaccessible_board_is_found_without_serial() -> None:
    rig = make_rig()
    rig.board.faults.no_access = True
    assert _select(rig).path == "1-1"
    assert _select(rig, path="1-1").path == "1-1"


# --- waiting ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", [0.0, 0.02, 1.0, 12.5])
def test_waiting_ends_in_time(wait: float) -> None:
    rig = make_rig(start=0)
    rig.board.unplug()
    with pytest.raises(DeviceNotFoundError):
        _select(rig, wait=wait)
    assert rig.clock.monotonic() == pytest.approx(wait)
    left = [event.seconds for event in rig.events if isinstance(event, Waiting)]
    assert len(left) == len(rig.events)
    assert left == sorted(left, reverse=True)
    assert left[:1] == ([pytest.approx(wait)] if wait else [])


def test_finds_board_plugged_in_during_wait() -> None:
    rig = make_rig(start=0)
    rig.board.unplug()

    def plug(_: object) -> None:
        if rig.clock.monotonic() > 3 and not rig.board.present:
            rig.board.plug()

    rig.on_event = plug
    assert _select(rig, wait=30).path == "1-1"
    assert 3 <= rig.clock.monotonic() <= 3.2


def test_several_boards_fail_at_once() -> None:
    rig = make_rig("esp32s3", "esp32s3", start=0)
    with pytest.raises(SeveralDevicesError):
        _select(rig, wait=30)
    assert rig.clock.monotonic() == 0
