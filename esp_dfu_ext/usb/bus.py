"""USB, through pyusb: scanning, opening, control transfers.

Everything above works with `Bus`, `UsbDevice` and `UsbHandle`, and meets the errors of `errors`.
"""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..errors import (
    AccessDeniedError,
    DeviceBusyError,
    DeviceGoneError,
    DriverMissingError,
    UsbError,
    UsbUnavailableError,
)
from ..units import clean
from .libusb import BackendFactory, libusb_backend, mapped, raise_mapped


@dataclass(frozen=True)
class InterfaceDescriptor:
    """One alternate setting of an interface; `extra` are the class-specific descriptors behind it."""

    configuration: int
    number: int
    alternate: int
    class_: int
    subclass: int
    protocol: int
    name_index: int
    extra: bytes = b""


@dataclass(frozen=True)
class UsbDevice:
    """A device as one scan saw it, not opened.

    Attributes:
        path: ``bus-port.port``, the place it is plugged in; stays the same when it re-enumerates.
        address: the number on its bus, a new one at each re-enumeration.
        serial_index: of the string descriptor, 0 if it has no serial number.
        interfaces: empty if its configuration could not be read.
    """

    vid: int
    pid: int
    bcd_device: int
    path: str
    address: int
    serial_index: int
    interfaces: tuple[InterfaceDescriptor, ...]
    _device: Any = field(repr=False, compare=False, default=None)

    @property
    def usb_id(self) -> str:
        """``vvvv:pppp``, as lsusb writes it."""
        return f"{self.vid:04x}:{self.pid:04x}"

    def open(self, interface: int) -> UsbHandle:
        """Open the device and claim one interface.

        Raises:
            UsbError: a kind of it that says why not.
        """
        handle = UsbHandle(self._device, interface, self.path)
        try:
            handle.claim()
        except BaseException:
            handle.close()
            raise
        return handle

    def read_string(self, index: int) -> str | None:
        """Read a string descriptor, without claiming anything; control characters become ``?``.

        Raises:
            AccessDeniedError, DriverMissingError, DeviceBusyError, DeviceGoneError: it cannot be opened.
        """
        import usb.control
        import usb.util

        if index == 0:
            return None
        try:
            with _on_port(self.path):
                # Not left to get_string(), which takes "no permission" for "no languages".
                languages = usb.control.get_descriptor(self._device, 254, usb.util.DESC_TYPE_STRING, 0)
                language = int.from_bytes(bytes(languages[2:4]), "little")
                text = usb.util.get_string(self._device, index, language)
        except (AccessDeniedError, DriverMissingError, DeviceBusyError, DeviceGoneError):
            raise
        except (UsbError, ValueError, IndexError):
            return None  # it opened, but has no such string: no reason to hide the device
        finally:
            usb.util.dispose_resources(self._device)
        return clean(text)


class UsbHandle:
    """An open device with one claimed interface; a context manager that gives both back."""

    def __init__(self, device: Any, interface: int, path: str) -> None:
        self._device = device
        self._interface = interface
        self._path = path
        self._backend: Any = None
        self._handle: Any = None

    def __enter__(self) -> UsbHandle:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def claim(self) -> None:
        """Open the device and claim the interface."""
        import usb.util

        with _on_port(self._path):
            usb.util.claim_interface(self._device, self._interface)
        # Transfers go to pyusb's backend: its device claims the interface and takes three locks again for each.
        self._backend, self._handle = self._device.backend, self._device._ctx.handle

    def close(self) -> None:
        """Release and close; never fails, because there is nothing left to do about it."""
        import usb.util

        self._handle = None
        with contextlib.suppress(Exception):
            usb.util.dispose_resources(self._device)

    def control_out(self, request_type: int, request: int, value: int, data: bytes, timeout: float) -> int:
        """A control transfer to the interface; `timeout` in seconds. Returns the bytes sent.

        Raises:
            UsbError: a kind of it.
        """
        return self._transfer(request_type, request, value, array("B", data), timeout)

    def control_in(self, request_type: int, request: int, value: int, length: int, timeout: float) -> bytes:
        """A control transfer from the interface; `timeout` in seconds. Returns what came, at most `length`.

        Raises:
            UsbError: a kind of it.
        """
        buffer = array("B", bytes(length))
        count = self._transfer(request_type, request, value, buffer, timeout)
        return buffer.tobytes()[:count]

    def _transfer(self, request_type: int, request: int, value: int, buffer: array[int], timeout: float) -> int:
        handle = self._handle
        if handle is None:
            raise UsbError(f"Port {self._path}: the device is closed.", path=self._path)
        # libusb takes an unsigned int, of which 0 means for ever.
        milliseconds = min(int(timeout * 1000), 0xFFFFFFFF) or 1
        try:
            count: int = self._backend.ctrl_transfer(
                handle, request_type, request, value, self._interface, buffer, milliseconds
            )
        except Exception as error:
            raise_mapped(f"Port {self._path}", error, self._path)
            raise
        return count

    def reset(self) -> None:
        """Reset the port.

        Raises:
            UsbError: a kind of it; DeviceGoneError when the device did not come back the same.
        """
        self._handle = None  # pyusb closes the device after it
        with _on_port(self._path):
            self._device.reset()


class Bus:
    """All USB devices of this machine, or those that another backend shows.

    Args:
        backend_factory: makes a pyusb backend; each scan takes a new one, because a libusb context on
            Windows goes on showing the descriptors it read first, those of run-time mode. None for libusb.
    """

    def __init__(self, backend_factory: BackendFactory | None = None) -> None:
        self._backend_factory = backend_factory or libusb_backend

    def scan(self, vids: frozenset[int] | None = None, *, path: str | None = None) -> list[UsbDevice]:
        """All devices that are there now, by path; of some vendors only, or on one port only, if asked for so.

        Raises:
            UsbUnavailableError: pyusb or libusb is missing or does not start.
            UsbError: the scan failed.
        """
        backend, find = self._backend()
        with mapped("USB scan"):
            found = find(
                find_all=True,
                backend=backend,
                custom_match=lambda device: (
                    (vids is None or device.idVendor in vids) and (path is None or _path(device) == path)
                ),
            )
            return sorted((_snapshot(device, backend) for device in found), key=lambda d: path_key(d.path))

    def ports(self) -> frozenset[str]:
        """Paths of all devices that are there now; errors of `scan`, and quicker."""
        backend, find = self._backend()
        with mapped("USB scan"):
            paths = []
            for device in find(find_all=True, backend=backend):
                device._outlived_by = backend  # as in _snapshot
                paths.append(_path(device))
            return frozenset(paths)

    def _backend(self) -> tuple[Any, Any]:
        """A new backend, and pyusb's way to look through it."""
        try:
            import usb.core
        except ImportError as error:
            raise UsbUnavailableError(f"pyusb is not installed: {error}.", missing="pyusb") from error
        return self._backend_factory(), usb.core.find


def _on_port(path: str) -> mapped:
    return mapped(f"Port {path}", path)


def path_key(path: str) -> list[int]:
    """Sorts ``1-2`` before ``1-10``."""
    return [int(number) if number.isdigit() else -1 for number in path.replace("-", ".").split(".")]


def _snapshot(device: Any, backend: Any) -> UsbDevice:
    # libusb wants its devices back before their context, or the process may crash. pyusb's object lets go of its
    # backend first; with this reference, its youngest, the backend outlives it, whoever is the last to hold it.
    device._outlived_by = backend
    # A device that leaves in mid-scan, or one without a driver on Windows, has no readable configuration.
    interfaces: list[InterfaceDescriptor] = []
    with contextlib.suppress(UsbError), mapped("configuration descriptor"):
        interfaces = list(_interfaces(device))
    return UsbDevice(
        vid=device.idVendor,
        pid=device.idProduct,
        bcd_device=device.bcdDevice,
        path=_path(device),
        address=device.address,
        serial_index=device.iSerialNumber,
        interfaces=tuple(interfaces),
        _device=device,
    )


def _path(device: Any) -> str:
    ports = device.port_numbers or ()
    return f"{device.bus}-{'.'.join(map(str, ports))}" if ports else f"{device.bus}-0"


def _interfaces(device: Any) -> Iterator[InterfaceDescriptor]:
    for configuration in device:
        for interface in configuration:
            yield InterfaceDescriptor(
                configuration.bConfigurationValue,
                interface.bInterfaceNumber,
                interface.bAlternateSetting,
                interface.bInterfaceClass,
                interface.bInterfaceSubClass,
                interface.bInterfaceProtocol,
                interface.iInterface,
                bytes(interface.extra_descriptors),
            )
