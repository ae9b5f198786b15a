"""The devices on a bus, found through pyusb.

The rest of the package uses `Bus`, `UsbDevice` and `UsbHandle`, which raise the errors of `errors`, never pyusb's.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
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
from ..units import clean, usb_id
from .descriptors import InterfaceDescriptor, interfaces, path_key, port_path
from .handle import UsbHandle, on_port
from .libusb import BackendFactory, libusb_backend, mapped
from .system_port import SerialSystem
from .trace import LOGGER, Step, Trace
from .tracing_backend import TracingBackend


@dataclass(frozen=True)
class UsbDevice:
    """A device as one scan found it; it is not open.

    Attributes:
        path: Port it is plugged into, ``bus-port.port``; it stays the same across re-enumerations.
        address: Number on its bus; every re-enumeration assigns a new one.
        serial_index: Index of the string descriptor with the serial number, 0 if it has none.
        interfaces: Every alternate setting; empty if the configuration could not be read.
        ep0_size: bMaxPacketSize0, in bytes.
        product_index: Index of the string descriptor with the product's name, 0 if it has none.
    """

    vid: int
    pid: int
    bcd_device: int
    path: str
    address: int
    serial_index: int
    interfaces: tuple[InterfaceDescriptor, ...]
    ep0_size: int = 64
    product_index: int = 0
    _device: Any = field(repr=False, compare=False, default=None)

    @property
    def usb_id(self) -> str:
        """``vvvv:pppp``, as lsusb prints it."""
        return usb_id(self.vid, self.pid)

    def open(self, interface: int) -> UsbHandle:
        """Open the device and claim one interface.

        Raises:
            UsbError: It cannot be opened; the subclass says why.
        """
        handle = UsbHandle(self._device, interface, self.path)
        try:
            handle.claim()
        except BaseException:
            handle.close()
            raise
        return handle

    def read_serial(self) -> str | None:
        """Return the serial number, or None if the device has none; an empty or a blank one identifies nothing.

        Raises:
            UsbError: As `read_string`.
        """
        serial = self.read_string(self.serial_index)
        return serial if serial is not None and serial.strip(" ?") else None

    def read_string(self, index: int) -> str | None:
        """Read a string descriptor without claiming an interface; control characters become ``?``.

        Returns:
            The text, or None if the device has no such string.

        Raises:
            AccessDeniedError, DriverMissingError, DeviceBusyError, DeviceGoneError: The device cannot be opened.
        """
        import usb.control
        import usb.util

        if index == 0:
            return None
        try:
            with on_port(self.path):
                # get_string() would read the languages itself, but takes "no permission" for "no languages".
                languages = usb.control.get_descriptor(self._device, 254, usb.util.DESC_TYPE_STRING, 0)
                language = int.from_bytes(bytes(languages[2:4]), "little")
                text = usb.util.get_string(self._device, index, language)
        except (AccessDeniedError, DriverMissingError, DeviceBusyError, DeviceGoneError):
            raise
        except (UsbError, ValueError, IndexError):
            return None  # the device opened; a missing string is no reason to hide it
        finally:
            usb.util.dispose_resources(self._device)
        return clean(text)


class Bus:
    """All USB devices of this machine, or those that another backend shows.

    Args:
        backend_factory: Makes a pyusb backend, None for libusb. Each scan uses a new one, because a libusb context on
            Windows keeps the descriptors that it read first, those of run-time mode.
        trace: Receives everything that happens on the bus.
        serial: The serial ports of the same machine, None for those of this computer.

    Attributes:
        trace: The same; a change takes effect at the next scan.
        serial: The same.
    """

    def __init__(
        self,
        backend_factory: BackendFactory | None = None,
        trace: Trace | None = None,
        serial: SerialSystem | None = None,
    ) -> None:
        self._backend_factory = backend_factory or libusb_backend
        self.trace = trace
        self.serial = serial or SerialSystem()

    def scan(self, vids: frozenset[int] | None = None, *, path: str | None = None) -> list[UsbDevice]:
        """Return the connected devices, sorted by port.

        Args:
            vids: Only devices of these vendors.
            path: Only the device on this port.

        Raises:
            UsbUnavailableError: pyusb or libusb is missing, or libusb cannot start.
            UsbError: The scan failed.
        """
        scope = f"vendor {', '.join(f'{vid:04x}' for vid in sorted(vids))}" if vids else "all devices"

        def wanted(device: Any) -> bool:
            return (vids is None or device.idVendor in vids) and (path is None or port_path(device) == path)

        found = [_snapshot(device) for device in self._find(path or "", scope, wanted)]
        return sorted(found, key=lambda device: path_key(device.path))

    def ports(self) -> frozenset[str]:
        """Return the ports of all connected devices; faster than `scan`, and raises the same errors."""
        return frozenset(port_path(device) for device in self._find("", "all ports", lambda _: True))

    def _find(self, path: str, scope: str, wanted: Callable[[Any], bool]) -> list[Any]:
        try:
            import usb.core
        except ImportError as error:
            raise UsbUnavailableError(f"pyusb is not installed: {error}.", missing="pyusb") from error
        backend, trace = self._backend_factory(), self._tracing()
        if trace is None:
            return _all_of(usb.core.find, backend, wanted)
        begun = trace.now()
        try:
            devices = _all_of(usb.core.find, TracingBackend(backend, trace), wanted)
        except UsbError as error:
            trace.add(Step(begun, trace.now() - begun, path, "scan", scope, type(error)))
            raise
        trace.add_scan(begun, path, scope, devices)
        return devices

    def _tracing(self) -> Trace | None:
        if self.trace is None and LOGGER.isEnabledFor(logging.DEBUG):
            self.trace = Trace()
        return self.trace


def _all_of(find: Any, backend: Any, wanted: Callable[[Any], bool]) -> list[Any]:
    devices = []
    with mapped("USB scan"):
        for device in find(find_all=True, backend=backend, custom_match=wanted):
            # libusb devices must be released before their context, or the process may crash. pyusb drops its backend
            # first; this attribute, added last, keeps the backend alive until then.
            device._outlived_by = backend
            devices.append(device)
    return devices


def _snapshot(device: Any) -> UsbDevice:
    # A device that leaves during the scan, or one without a driver on Windows, has no readable configuration.
    read: list[InterfaceDescriptor] = []
    with contextlib.suppress(UsbError), mapped("configuration descriptor"):
        read = list(interfaces(device))
    return UsbDevice(
        vid=device.idVendor,
        pid=device.idProduct,
        bcd_device=device.bcdDevice,
        path=port_path(device),
        address=device.address,
        serial_index=device.iSerialNumber,
        product_index=device.iProduct,
        interfaces=tuple(read),
        ep0_size=device.bMaxPacketSize0,
        _device=device,
    )
