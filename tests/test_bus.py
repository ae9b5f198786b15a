"""USB through pyusb: scans, strings, and pyusb's errors as ours."""

from __future__ import annotations

import errno
import sys
from typing import Any

import pytest
import usb.core
import usb.util

from esp_dfu_ext.dfu.spec import Mode
from esp_dfu_ext.errors import (
    AccessDeniedError,
    DeviceBusyError,
    DeviceGoneError,
    DriverMissingError,
    EspDfuError,
    StallError,
    TransferTimeoutError,
    UsbError,
    UsbUnavailableError,
)
from esp_dfu_ext.simulator.board import Effect, Moment, stall
from esp_dfu_ext.usb.descriptors import path_key
from esp_dfu_ext.usb.libusb import mapped

from .kit.boards import make_rig, serial_jtag
from .kit.loader import SYNC_ANSWER, SYNC_FRAME


@pytest.mark.parametrize(
    ("code", "number", "kind"),
    [
        (-3, errno.EACCES, AccessDeniedError),
        (-4, errno.ENODEV, DeviceGoneError),
        (-6, errno.EBUSY, DeviceBusyError),
        (-7, errno.ETIMEDOUT, TransferTimeoutError),
        (-9, errno.EPIPE, StallError),
        (-12, errno.ENOSYS, DriverMissingError),
        (-1, errno.EIO, UsbError),
        (-99, None, UsbError),
        (None, errno.EACCES, AccessDeniedError),
        (None, errno.EPERM, AccessDeniedError),
        (None, errno.ENODEV, DeviceGoneError),
        (None, errno.EBUSY, DeviceBusyError),
        (None, errno.ETIMEDOUT, TransferTimeoutError),
        (None, errno.EPIPE, StallError),
        (None, errno.EIO, UsbError),
        (None, None, UsbError),
    ],
)
def test_pyusb_errors_are_mapped(code: int | None, number: int | None, kind: type[UsbError]) -> None:
    with pytest.raises(UsbError) as caught, mapped("3-1.4"):
        raise usb.core.USBError("Strange thing", code, number)
    assert type(caught.value) is kind
    assert "3-1.4" in caught.value.message
    assert isinstance(caught.value.__cause__, usb.core.USBError)


def test_error_has_port() -> None:
    for raised in (usb.core.USBError("No", -3), NotImplementedError("No")):
        with pytest.raises(UsbError) as caught, mapped("Port 3-1.4", "3-1.4"):
            raise raised
        assert caught.value.path == "3-1.4"
    with pytest.raises(UsbError) as caught, mapped("USB scan"):
        raise usb.core.USBError("No", -1)
    assert caught.value.path is None


def test_other_error_keeps_pyusb_text() -> None:
    with pytest.raises(UsbError, match="Input/Output Error"), mapped("3-1"):
        raise usb.core.USBError("Input/Output Error", -1, errno.EIO)


def test_unimplemented_on_windows_means_missing_driver() -> None:
    with pytest.raises(DriverMissingError, match="3-1"), mapped("3-1"):
        raise NotImplementedError("Operation not supported or unimplemented on this platform")


def test_not_found_means_no_driver_on_windows_only(monkeypatch: pytest.MonkeyPatch) -> None:
    error = usb.core.USBError("Entity not found", -5, errno.ENOENT)
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(DriverMissingError), mapped("3-1"):
        raise error
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(DeviceGoneError), mapped("3-1"):
        raise error


def test_other_exceptions_are_not_mapped() -> None:
    with pytest.raises(ZeroDivisionError), mapped("3-1"):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("kind", "exit_code"),
    [(UsbError, 74), (StallError, 74), (TransferTimeoutError, 74), (DeviceGoneError, 74), (AccessDeniedError, 77)],
)
def test_exit_code_is_that_of_error(kind: type[EspDfuError], exit_code: int) -> None:
    assert kind.exit_code == exit_code


def test_scan_sorts_by_path() -> None:
    rig = make_rig("esp32s3", "esp32s2", others=[serial_jtag("1-10"), serial_jtag("1-9")])
    rig.boards[0].path = "2-1.4.2"
    assert [(d.path, d.usb_id) for d in rig.bus.scan()] == [
        ("1-2", "303a:0002"),
        ("1-9", "303a:1001"),
        ("1-10", "303a:1001"),
        ("2-1.4.2", "303a:0009"),
    ]


def test_scan_filters_vendors() -> None:
    rig = make_rig()
    assert [d.path for d in rig.bus.scan(frozenset([0x303A]))] == ["1-1"]
    assert rig.bus.scan(frozenset([0x1209])) == []


def test_each_scan_has_own_backend() -> None:
    rig = make_rig()
    for count in (1, 2, 3):
        rig.bus.scan()
        assert rig.scans == count


def test_scan_reads_current_descriptors() -> None:
    rig = make_rig()
    (before,) = rig.bus.scan()
    rig.board.plug(Mode.DFU)
    (after,) = rig.bus.scan()
    assert [before.interfaces[2].protocol, after.interfaces[2].protocol] == [1, 2]
    assert before.path == after.path
    assert before.address != after.address
    rig.board.unplug()
    assert rig.bus.scan() == []


def test_interfaces_of_board_are_listed() -> None:
    (device,) = make_rig().bus.scan()
    assert [(i.number, i.class_, i.subclass, i.protocol) for i in device.interfaces] == [
        (0, 2, 2, 0),
        (1, 10, 2, 0),
        (2, 0xFE, 1, 1),
    ]
    assert device.interfaces[2].extra == bytes.fromhex("09210fbc0240001001")
    assert {i.configuration for i in device.interfaces} == {1}


def test_strings() -> None:
    (device,) = make_rig().bus.scan()
    assert device.serial_index == 3
    assert [device.read_string(n) for n in range(5)] == [None, "Espressif", "ESP32-S3", "7c:df:a1:00:00:01", None]


@pytest.mark.parametrize("serial", ["a\x1b[31mb", "a\nb\x00"])
def test_control_characters_are_replaced(serial: str) -> None:
    rig = make_rig()
    rig.board.rom.serial = serial
    (device,) = rig.bus.scan()
    text = device.read_string(3)
    assert text is not None
    assert text.isprintable()
    assert len(text) == len(serial)


def test_string_of_inaccessible_device_has_reason() -> None:
    rig = make_rig()
    rig.board.faults.no_access = True
    (device,) = rig.bus.scan()
    with pytest.raises(AccessDeniedError, match="1-1") as caught:
        device.read_string(3)
    assert caught.value.path == "1-1"
    rig.board.unplug()
    with pytest.raises(DeviceGoneError):
        device.read_string(3)


def test_open_error_has_reason() -> None:
    rig = make_rig()
    (device,) = rig.bus.scan()
    rig.board.faults.busy = True
    with pytest.raises(DeviceBusyError, match="1-1"):
        device.open(2)
    rig.board.faults.busy = False
    rig.board.faults.no_access = True
    with pytest.raises(AccessDeniedError, match="1-1") as caught:
        device.open(2)
    assert caught.value.path == "1-1"
    rig.board.faults.no_access = False
    with device.open(2):
        pass


def test_device_without_readable_configuration_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = make_rig()

    def broken(*_: Any) -> None:
        raise usb.core.USBError("Input/Output Error", -1, errno.EIO)

    monkeypatch.setattr("esp_dfu_ext.simulator.bus.SimulatedBackend.get_configuration_descriptor", broken)
    (device,) = rig.bus.scan()
    assert (device.usb_id, device.interfaces) == ("303a:0009", ())


def test_failed_transfer_has_port() -> None:
    rig = make_rig()
    (device,) = rig.bus.scan()
    with device.open(2) as handle:
        rig.board.unplug()
        with pytest.raises(UsbError) as caught:
            handle.control_in(0xA1, 3, 0, 6, 1.0)
        assert caught.value.path == "1-1"
        with pytest.raises(UsbError) as caught:
            handle.reset()
        assert caught.value.path == "1-1"
        with pytest.raises(UsbError, match="is closed") as caught:
            handle.control_in(0xA1, 3, 0, 6, 1.0)
        assert caught.value.path == "1-1"


def test_short_answer_is_not_padded() -> None:
    """A device may send less than it was asked for: DFU_GETSTATUS has 6 bytes."""
    (device,) = make_rig().bus.scan()
    with device.open(2) as handle:
        assert len(handle.control_in(0xA1, 3, 0, 64, 1.0)) == 6


def test_paths_sort_numerically() -> None:
    paths = ["10-1", "1-10", "1-2", "2-1", "1-2.10", "1-2.9", "1-0"]
    assert sorted(paths, key=path_key) == ["1-0", "1-2", "1-2.9", "1-2.10", "1-10", "2-1", "10-1"]


def test_missing_libusb_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    from esp_dfu_ext.usb.libusb import libusb_backend

    monkeypatch.setattr("usb.backend.libusb1._lib", None)
    monkeypatch.setattr("usb.backend.libusb1.get_backend", lambda **_: None)
    with pytest.raises(UsbUnavailableError) as caught:
        libusb_backend()
    assert caught.value.missing == "libusb"
    monkeypatch.setattr("usb.backend.libusb1._lib", object())
    with pytest.raises(UsbUnavailableError) as caught:
        libusb_backend()
    assert caught.value.missing == ""


def test_each_libusb_backend_has_own_context() -> None:
    # The real libusb; needs neither a device nor permissions.
    from esp_dfu_ext.usb.libusb import libusb_backend

    try:
        first, second = libusb_backend(), libusb_backend()
    except UsbUnavailableError as error:
        # libusb up to 1.0.26 cannot start on a computer without USB, and the error must say so.
        assert "cannot start" in error.message
        return
    assert first.ctx.value
    assert second.ctx.value
    assert first.ctx.value != second.ctx.value


def test_scan_opens_no_device() -> None:
    rig = make_rig()
    rig.board.faults.no_access = True
    assert len(rig.bus.scan()) == 1
    assert rig.log == []


@pytest.mark.parametrize("keep", ["device", "handle", "both"])
def test_backend_outlives_devices(keep: str) -> None:
    # libusb crashes when it gets a device back after its context has ended.
    rig = make_rig(mode=Mode.DFU)
    gone: list[str] = []

    class Token:
        def __init__(self, name: str) -> None:
            self.name = name

        def __del__(self) -> None:
            gone.append(self.name)

    (device,) = rig.bus.scan()
    device._device._ctx.backend.token = Token("context")
    device._device._ctx.dev.token = Token("device")
    handle = device.open(2)
    if keep == "device":
        handle.close()
        del handle
    elif keep == "handle":
        del device
    assert gone == []
    if keep != "device":
        handle.close()
        del handle
    if keep != "handle":
        del device
    assert gone == ["device", "context"]


@pytest.mark.parametrize("effect", [None, stall], ids=["answered", "stalled"])
def test_reading_string_leaves_device_closed(effect: Effect | None) -> None:
    rig = make_rig()
    if effect is not None:
        rig.board.faults.plan(effect, at=Moment.STRING)
    (device,) = rig.bus.scan()
    assert (device.read_string(3) is None) == (effect is not None)
    assert rig.handles == 0


# --- the simulated boards' serial port --------------------------------------------------------------------


@pytest.fixture
def serial_device() -> Any:
    """Return a board as pyusb shows it."""
    return usb.core.find(backend=make_rig().backend())


def test_serial_port_by_pyusb(serial_device: Any) -> None:
    for number in (0, 1):
        if serial_device.is_kernel_driver_active(number):
            serial_device.detach_kernel_driver(number)
        usb.util.claim_interface(serial_device, number)
    assert serial_device.write(0x03, SYNC_FRAME, 1000) == len(SYNC_FRAME)
    answer = b"".join(bytes(serial_device.read(0x84, 64, 100)) for _ in range(112))
    assert answer.hex() == SYNC_ANSWER * 8
    for endpoint in (0x84, 0x85):
        with pytest.raises(usb.core.USBTimeoutError):
            serial_device.read(endpoint, 64, 100)


def test_kernel_driver_has_both_halves_of_the_serial_port(serial_device: Any) -> None:
    assert [serial_device.is_kernel_driver_active(number) for number in (0, 1, 2)] == [True, True, False]
    with pytest.raises(usb.core.USBError) as caught:
        usb.util.claim_interface(serial_device, 1)
    assert caught.value.errno == errno.EBUSY
    serial_device.detach_kernel_driver(0)
    assert not serial_device.is_kernel_driver_active(1)
    usb.util.claim_interface(serial_device, 1)
    with pytest.raises(usb.core.USBError) as caught:
        serial_device.attach_kernel_driver(0)
    assert caught.value.errno == errno.EBUSY
    usb.util.release_interface(serial_device, 1)
    serial_device.attach_kernel_driver(0)
    assert serial_device.is_kernel_driver_active(1)


def test_interfaces_are_claimed_one_by_one() -> None:
    rig = make_rig()
    ours, theirs = (usb.core.find(backend=rig.backend()) for _ in range(2))
    ours.detach_kernel_driver(0)
    usb.util.claim_interface(ours, 0)
    usb.util.claim_interface(theirs, 2)
    for device, number in ((ours, 2), (theirs, 0)):
        with pytest.raises(usb.core.USBError) as caught:
            usb.util.claim_interface(device, number)
        assert caught.value.errno == errno.EBUSY
    usb.util.dispose_resources(ours)
    usb.util.claim_interface(theirs, 0)


def test_serial_port_of_a_board_that_left(serial_device: Any) -> None:
    serial_device.detach_kernel_driver(0)
    usb.util.claim_interface(serial_device, 1)
    serial_device._ctx.handle.owner.unplug()
    with pytest.raises(usb.core.USBError) as caught:
        serial_device.write(0x03, b"", 100)
    assert caught.value.errno in (errno.ENODEV, errno.ENOENT)
    with pytest.raises(usb.core.USBError) as caught:
        serial_device.read(0x84, 64, 100)
    assert caught.value.errno in (errno.ENODEV, errno.ENOENT)
