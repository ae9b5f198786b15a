"""USB. The only module that knows pyusb: finding a backend, scanning, control transfers, errors.

Everything above works with `Bus`, `UsbDevice` and `UsbHandle`, and meets the errors of `errors`.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import sys
import threading
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NoReturn

from .errors import (
    AccessDeniedError,
    DeviceBusyError,
    DeviceGoneError,
    DriverMissingError,
    StallError,
    TransferTimeoutError,
    UsbError,
    UsbUnavailableError,
)
from .units import clean

BackendFactory = Callable[[], Any]

# libusb's error codes, libusb.h; pyusb passes them on as USBError.backend_error_code.
_ACCESS, _NO_DEVICE, _NOT_FOUND, _BUSY = -3, -4, -5, -6
_TIMEOUT, _PIPE, _NOT_SUPPORTED = -7, -9, -12

_BY_CODE: dict[int, type[UsbError]] = {
    _ACCESS: AccessDeniedError,
    _NO_DEVICE: DeviceGoneError,
    _BUSY: DeviceBusyError,
    _TIMEOUT: TransferTimeoutError,
    _PIPE: StallError,
    _NOT_SUPPORTED: DriverMissingError,
}
# A backend that is not libusb has only the errno.
_BY_ERRNO: dict[int, type[UsbError]] = {
    errno.EACCES: AccessDeniedError,
    errno.EPERM: AccessDeniedError,
    errno.ENODEV: DeviceGoneError,
    errno.ENOENT: DeviceGoneError,
    errno.EBUSY: DeviceBusyError,
    errno.ETIMEDOUT: TransferTimeoutError,
    errno.EPIPE: StallError,
    errno.ENOSYS: DriverMissingError,
}
_TEXTS: dict[type[UsbError], str] = {
    AccessDeniedError: "no permission to open the device",
    DeviceGoneError: "the device left the bus",
    DeviceBusyError: "another program holds the device",
    TransferTimeoutError: "no answer in time",
    StallError: "the device refused the request",
    DriverMissingError: "the system has no driver for it that lets programs in",
    UsbError: "the transfer failed",
}


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
        handle = UsbHandle(self._device, interface, f"Port {self.path}")
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
            with mapped(f"Port {self.path}"):
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

    def __init__(self, device: Any, interface: int, where: str) -> None:
        self._device = device
        self._interface = interface
        self._where = where
        self._backend: Any = None
        self._handle: Any = None

    def __enter__(self) -> UsbHandle:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def claim(self) -> None:
        """Open the device and claim the interface."""
        import usb.util

        with mapped(self._where):
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
            raise UsbError(f"{self._where}: the device is closed.")
        # libusb takes an unsigned int, of which 0 means for ever.
        milliseconds = min(int(timeout * 1000), 0xFFFFFFFF) or 1
        try:
            count: int = self._backend.ctrl_transfer(
                handle, request_type, request, value, self._interface, buffer, milliseconds
            )
        except Exception as error:
            _raise_mapped(self._where, error)
            raise
        return count

    def reset(self) -> None:
        """Reset the port.

        Raises:
            UsbError: a kind of it; DeviceGoneError when the device did not come back the same.
        """
        self._handle = None  # pyusb closes the device after it
        with mapped(self._where):
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


def path_key(path: str) -> list[int]:
    """Sorts ``1-2`` before ``1-10``."""
    return [int(number) if number.isdigit() else -1 for number in path.replace("-", ".").split(".")]


_NO_LOG = logging.NullHandler()
_LOADING = threading.Lock()


def libusb_backend() -> Any:
    """A pyusb backend with a libusb context of its own: libusb-package's library, else the system's.

    Raises:
        UsbUnavailableError: there is no libusb, or it does not start.
    """
    try:
        import usb.backend.libusb1 as libusb1
    except ImportError as error:
        raise UsbUnavailableError(f"pyusb is not installed: {error}.", missing="pyusb") from error
    find_library = None
    with contextlib.suppress(ImportError):
        import libusb_package

        if libusb_package.get_library_path() is not None:
            find_library = libusb_package.find_library
    # pyusb logs a traceback where we raise an error; without a handler Python would print it.
    logging.getLogger("usb").addHandler(_NO_LOG)
    with _LOADING:
        shared = libusb1.get_backend(find_library=find_library)
        if shared is None and find_library is not None:
            shared = libusb1.get_backend()
    if shared is None:
        if libusb1._lib is not None:
            raise UsbUnavailableError("libusb is there, but does not start; is there USB on this machine?")
        raise UsbUnavailableError("libusb is not installed.", missing="libusb")
    # get_backend() returns the same one for the whole process; its class makes another with its own context.
    with mapped("libusb"):
        return _backend_class()(shared.lib)


@cache
def _backend_class() -> Any:
    """pyusb's libusb backend with a control transfer that costs little more than libusb's own."""
    import ctypes

    import usb.backend.libusb1 as libusb1

    pointer, check = ctypes.c_void_p, libusb1._check

    class Backend(libusb1._LibUSB):  # type: ignore[misc]
        def __init__(self, lib: Any) -> None:
            super().__init__(lib)
            # Looked up by item it is a function of our own, without pyusb's types, which convert each argument.
            self._control_transfer = lib["libusb_control_transfer"]

        def ctrl_transfer(
            self, handle: Any, request_type: int, request: int, value: int, index: int, data: array[int], timeout: int
        ) -> int:
            # pyusb's own casts a pointer and looks for a wrapped result at each call.
            address, length = data.buffer_info()
            count: int = self._control_transfer(
                handle.handle, request_type, request, value, index, pointer(address), length, timeout
            )
            return count if count >= 0 else int(check(count))

    return Backend


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


class mapped:
    """A context that turns pyusb's errors into ours; `where` is how the message begins.

    A class and not a generator: contextlib's frame would keep pyusb's error, and that its frames, in a cycle; until
    the collector runs the libusb context would stay open.
    """

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception):
            _raise_mapped(self._where, error)


def _raise_mapped(where: str, error: Exception) -> None:
    """Raise our error for one of pyusb's; return if it is none."""
    import usb.core

    if isinstance(error, usb.core.USBError):
        _raise(where, error)
    if isinstance(error, NotImplementedError):
        # pyusb raises it for LIBUSB_ERROR_NOT_SUPPORTED: on Windows, a device without WinUSB.
        raise DriverMissingError(f"{where}: {_TEXTS[DriverMissingError]}.") from error


def _raise(what: str, error: Any) -> NoReturn:
    kind: type[UsbError] | None = None
    code = getattr(error, "backend_error_code", None)
    if isinstance(code, int):
        kind = _BY_CODE.get(code)
    if kind is None and sys.platform == "win32" and code == _NOT_FOUND:
        kind = DriverMissingError  # LIBUSB_ERROR_NOT_FOUND at open: no driver is bound
    if kind is None:
        kind = _BY_ERRNO.get(error.errno, UsbError)
    detail = "" if kind is not UsbError else f" ({error.strerror or error})"
    raise kind(f"{what}: {_TEXTS[kind]}{detail}.") from error


__all__ = [
    "Bus",
    "InterfaceDescriptor",
    "UsbDevice",
    "UsbHandle",
    "libusb_backend",
    "mapped",
    "path_key",
]
