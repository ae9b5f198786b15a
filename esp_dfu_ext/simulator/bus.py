"""A pyusb backend for simulated boards, so that everything from `usb.core.find` on is real."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from ..clock import Clock
from ..errors import (
    AccessDeniedError,
    DeviceBusyError,
    DeviceGoneError,
    DriverMissingError,
    StallError,
    TransferTimeoutError,
    UsbError,
)
from ..target import OtherUsb
from ..usb.libusb import pyusb_error
from .apps import App
from .board import SERIAL_INTERFACES, AccessDenied, Board, Busy, DeviceGone
from .bridge import Bridge
from .rom import ControlStall, ControlTimeout, Rom, TransferNak

_ERRORS: dict[type[Exception], type[UsbError]] = {
    AccessDenied: AccessDeniedError,
    Busy: DeviceBusyError,
    DeviceGone: DeviceGoneError,
    ControlStall: StallError,
}


_CDC = (0x02, 0x0A)  # bInterfaceClass of the two halves of a serial port


@dataclass
class OtherDevice:
    """Another device of the vendor, without DFU: it has one vendor-specific interface."""

    known: OtherUsb
    path: str
    address: int

    @property
    def device_descriptor(self) -> bytes:
        """The 18 bytes that the device sends."""
        vid, pid = self.known.vid.to_bytes(2, "little"), self.known.pid.to_bytes(2, "little")
        return bytes.fromhex("120100020000 0040") + vid + pid + bytes.fromhex("0001 000000 01")

    @property
    def configuration_descriptor(self) -> bytes:
        """The 18 bytes that the device sends."""
        return bytes.fromhex("09021200010100c0fa 0904000000ff000000")

    def control(self, request_type: int, request: int, value: int, data: bytes, length: int) -> bytes:
        """Stall every request."""
        raise ControlStall


class SimulatedBackend:
    """A backend for pyusb that shows simulated boards; it has the methods of IBackend that pyusb calls for them.

    Args:
        boards: Boards, on different ports.
        clock: Clock of the boards.
        others: Devices without DFU, such as bridges.
    """

    def __init__(self, boards: Sequence[Board], clock: Clock, others: Sequence[OtherDevice | Bridge] = ()) -> None:
        self._boards = boards
        self._others = others
        self._clock = clock

    def enumerate_devices(self) -> Iterator[_Device]:
        """Yield the devices that are on the bus now."""
        for board in self._boards:
            board.update()
            if board.present:
                yield _Device(board, board.address)
        for other in self._others:
            if isinstance(other, Bridge) and not other.plugged:
                continue
            yield _Device(other, other.address)

    def get_device_descriptor(self, device: _Device) -> SimpleNamespace:
        """Return the device descriptor as pyusb's libusb backend does, with the device's position on the bus."""
        raw = _source(device.owner).device_descriptor
        bus, _, ports = device.owner.path.partition("-")
        numbers = tuple(int(port) for port in ports.split("."))
        return SimpleNamespace(
            **_fields(_DEVICE_FIELDS, raw),
            bus=int(bus),
            address=device.address,
            port_number=numbers[-1],
            port_numbers=numbers,
            speed=2,  # LIBUSB_SPEED_FULL
        )

    def get_configuration_descriptor(self, device: _Device, config: int) -> SimpleNamespace:
        """Return the only configuration descriptor."""
        return self._configuration(device, config)

    def get_interface_descriptor(self, device: _Device, intf: int, alt: int, config: int) -> SimpleNamespace:
        """Return an interface descriptor by its index; raise IndexError after the last, where pyusb stops."""
        interface: SimpleNamespace = self._configuration(device, config).interfaces[intf][alt]
        return interface

    def get_endpoint_descriptor(self, device: _Device, ep: int, intf: int, alt: int, config: int) -> SimpleNamespace:
        """Return an endpoint descriptor by its index."""
        endpoint: SimpleNamespace = self._configuration(device, config).interfaces[intf][alt].endpoints[ep]
        return endpoint

    def _configuration(self, device: _Device, config: int) -> SimpleNamespace:
        if config != 0:
            raise IndexError(config)
        return parse_configuration(device.configuration_descriptor)

    def open_device(self, device: _Device) -> _Device:
        """Open a device, unless a fault of the board prevents it."""
        board = self._present(device)
        if board is not None:
            self._try(board.open)
        return device

    def close_device(self, handle: _Device) -> None:
        """Close a handle; this releases what it has claimed."""
        if isinstance(handle.owner, Board):
            holders = handle.owner.holders
            for number in [number for number, holder in holders.items() if holder is handle]:
                del holders[number]

    def get_configuration(self, handle: _Device) -> int:
        """Return bConfigurationValue."""
        return 1

    def set_configuration(self, handle: _Device, value: int) -> None:
        """Do nothing: there is one configuration."""

    def claim_interface(self, handle: _Device, intf: int) -> None:
        """Claim the interface, unless another handle has it or a fault of the board prevents it."""
        board = self._present(handle)
        if board is None:
            return
        driven = self.is_kernel_driver_active(handle, intf)
        if driven or board.faults.busy or board.holders.get(intf, handle) is not handle:
            raise _usb_error(Busy())
        board.holders[intf] = handle

    def release_interface(self, handle: _Device, intf: int) -> None:
        """Release the interface."""
        if isinstance(handle.owner, Board) and handle.owner.holders.get(intf) is handle:
            del handle.owner.holders[intf]

    def is_kernel_driver_active(self, handle: _Device, intf: int) -> bool:
        """Return True for the CDC interface, to which Linux binds a driver; none binds to DFU."""
        board = self._present(handle)
        if board is None or not board.kernel_driver or intf not in SERIAL_INTERFACES:
            return False
        interfaces = parse_configuration(handle.configuration_descriptor).interfaces
        return any(setting[0].bInterfaceNumber == intf and setting[0].bInterfaceClass in _CDC for setting in interfaces)

    def detach_kernel_driver(self, handle: _Device, intf: int) -> None:
        """Detach the driver, which lets go of both halves of the CDC interface."""
        board = self._present(handle)
        if board is None or not self.is_kernel_driver_active(handle, intf):
            raise pyusb_error(DriverMissingError)
        board.kernel_driver = False

    def attach_kernel_driver(self, handle: _Device, intf: int) -> None:
        """Attach the driver again, unless a program has claimed the CDC interface."""
        board = self._present(handle)
        if board is None or intf not in SERIAL_INTERFACES:
            raise pyusb_error(DriverMissingError)
        if any(number in board.holders for number in SERIAL_INTERFACES):
            raise _usb_error(Busy())
        board.kernel_driver = True

    def ctrl_transfer(
        self,
        handle: _Device,
        request_type: int,
        request: int,
        value: int,
        index: int,
        data: Any,
        timeout: int,
    ) -> int:
        """Pass a control transfer to the board's ROM; return the number of bytes transferred."""
        self._present(handle)
        to_host = bool(request_type & 0x80)
        out = b"" if to_host else bytes(data)
        deadline = self._clock.monotonic() + timeout / 1000
        try:
            answer = handle.owner.control(request_type, request, value, out, len(data))
        except ControlTimeout:
            self._clock.sleep(timeout / 1000)
            raise pyusb_error(TransferTimeoutError) from None
        except tuple(_ERRORS) as error:
            raise _usb_error(error) from None
        if timeout and self._clock.monotonic() > deadline:
            raise pyusb_error(TransferTimeoutError)  # the chip did it all the same, but too late
        if not to_host:
            return len(out)
        data[: len(answer)] = array("B", answer)
        return len(answer)

    def bulk_write(self, handle: _Device, ep: int, intf: int, data: Any, timeout: int) -> int:
        """Send bytes to the board's serial port; return their number."""
        self._bulk(handle, timeout, lambda board: board.bulk_out(ep, bytes(data)))
        return len(data)

    def bulk_read(self, handle: _Device, ep: int, intf: int, data: Any, timeout: int) -> int:
        """Read a packet of the board's serial port; return the number of bytes."""
        answer: bytes = self._bulk(handle, timeout, lambda board: board.bulk_in(ep))
        data[: len(answer)] = array("B", answer)
        return len(answer)

    def intr_write(self, handle: _Device, ep: int, intf: int, data: Any, timeout: int) -> int:
        """Fail as a bulk transfer to an endpoint that does not exist; pyusb looks for this method."""
        return self.bulk_write(handle, ep, intf, data, timeout)

    iso_write = intr_write

    def intr_read(self, handle: _Device, ep: int, intf: int, data: Any, timeout: int) -> int:
        """Wait for a notification, which no ROM sends."""
        return self.bulk_read(handle, ep, intf, data, timeout)

    iso_read = intr_read

    def _bulk(self, handle: _Device, timeout: int, transfer: Callable[[Board], Any]) -> Any:
        board = self._present(handle)
        if board is None:
            raise _usb_error(ControlStall())
        try:
            return transfer(board)
        except TransferNak:
            self._clock.sleep(timeout / 1000)
            raise pyusb_error(TransferTimeoutError) from None
        except tuple(_ERRORS) as error:
            raise _usb_error(error) from None

    def reset_device(self, handle: _Device) -> None:
        """Reset the bus."""
        board = self._present(handle)
        if board is not None:
            self._try(board.reset_bus)

    def _present(self, device: _Device) -> Board | None:
        if not isinstance(device.owner, Board):
            return None
        device.owner.update()
        if not device.owner.present or device.owner.address != device.address:
            raise _usb_error(DeviceGone())
        return device.owner

    @staticmethod
    def _try(action: Any) -> None:
        try:
            action()
        except tuple(_ERRORS) as error:
            raise _usb_error(error) from None


class _Device:
    """A device as one enumeration saw it; like libusb, it reads the descriptors once."""

    def __init__(self, owner: Board | OtherDevice | Bridge, address: int) -> None:
        self.owner = owner
        self.address = address
        self.configuration_descriptor = _source(owner).configuration_descriptor


def _source(owner: Board | OtherDevice | Bridge) -> Rom | App | OtherDevice | Bridge:
    """Return what has the descriptors."""
    return owner.device if isinstance(owner, Board) else owner


def _usb_error(error: Exception) -> Exception:
    return pyusb_error(_ERRORS[type(error)])


# Field names and widths, USB 2.0 tables 9-8, 9-10, 9-12, 9-13.
_DEVICE_FIELDS = (
    "bLength:1 bDescriptorType:1 bcdUSB:2 bDeviceClass:1 bDeviceSubClass:1 bDeviceProtocol:1 "
    "bMaxPacketSize0:1 idVendor:2 idProduct:2 bcdDevice:2 iManufacturer:1 iProduct:1 iSerialNumber:1 "
    "bNumConfigurations:1"
)
_CONFIGURATION_FIELDS = (
    "bLength:1 bDescriptorType:1 wTotalLength:2 bNumInterfaces:1 bConfigurationValue:1 iConfiguration:1 "
    "bmAttributes:1 bMaxPower:1"
)
_INTERFACE_FIELDS = (
    "bLength:1 bDescriptorType:1 bInterfaceNumber:1 bAlternateSetting:1 bNumEndpoints:1 bInterfaceClass:1 "
    "bInterfaceSubClass:1 bInterfaceProtocol:1 iInterface:1"
)
_ENDPOINT_FIELDS = "bLength:1 bDescriptorType:1 bEndpointAddress:1 bmAttributes:1 wMaxPacketSize:2 bInterval:1"


def _fields(layout: str, raw: bytes) -> dict[str, int]:
    fields, position = {}, 0
    for item in layout.split():
        name, width = item.split(":")
        fields[name] = int.from_bytes(raw[position : position + int(width)], "little")
        position += int(width)
    return fields


def parse_configuration(raw: bytes) -> SimpleNamespace:
    """Parse a configuration descriptor, as libusb does for pyusb."""
    configuration = SimpleNamespace(**_fields(_CONFIGURATION_FIELDS, raw), extra_descriptors=[], interfaces=[])
    current: Any = configuration
    position = raw[0]
    while position < len(raw):
        body = raw[position : position + raw[position]]
        if body[1] == 4:
            current = SimpleNamespace(**_fields(_INTERFACE_FIELDS, body), extra_descriptors=[], endpoints=[])
            if current.bAlternateSetting == 0:
                configuration.interfaces.append([])
            configuration.interfaces[-1].append(current)
        elif body[1] == 5:
            endpoint = SimpleNamespace(
                **_fields(_ENDPOINT_FIELDS, body), bRefresh=0, bSynchAddress=0, extra_descriptors=[]
            )
            configuration.interfaces[-1][-1].endpoints.append(endpoint)
        else:
            current.extra_descriptors += list(body)
        position += len(body)
    return configuration
