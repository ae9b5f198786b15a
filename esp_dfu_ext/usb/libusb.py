"""Load libusb for pyusb, and map pyusb's errors to ours."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
import threading
from array import array
from collections.abc import Callable
from functools import cache
from typing import Any

from ..errors import (
    AccessDeniedError,
    DeviceBusyError,
    DeviceGoneError,
    DriverMissingError,
    StallError,
    TransferTimeoutError,
    UsbError,
    UsbUnavailableError,
)
from .serial_ports import serial_ports

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
# Backends other than libusb report only an errno.
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
    DriverMissingError: "the system has no driver that lets programs open it",
    UsbError: "the transfer failed",
}

_NO_LOG = logging.NullHandler()
_LOADING = threading.Lock()


def libusb_backend() -> Any:
    """Return a pyusb backend with a libusb context of its own; libusb-package's library, or else the system's.

    Raises:
        UsbUnavailableError: libusb is not installed, or cannot start.
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
    # pyusb logs a traceback where we raise an error; without a handler, Python would print it.
    logging.getLogger("usb").addHandler(_NO_LOG)
    with _LOADING:
        shared = libusb1.get_backend(find_library=find_library)
        if shared is None and find_library is not None:
            shared = libusb1.get_backend()
    if shared is None:
        if libusb1._lib is not None:
            raise UsbUnavailableError("libusb is installed, but cannot start. Does this computer have USB?")
        raise UsbUnavailableError("libusb is not installed.", missing="libusb")
    # get_backend() always returns the same backend; its class makes another one with a context of its own.
    with mapped("libusb"):
        return _backend_class()(shared.lib)


@cache
def _backend_class() -> Any:
    """Return pyusb's libusb backend with a control transfer that costs little more than libusb's own."""
    import ctypes

    import usb.backend.libusb1 as libusb1

    pointer, check = ctypes.c_void_p, libusb1._check

    class Backend(libusb1._LibUSB):  # type: ignore[misc]
        # macOS would let root take them, but resets the device for it, upon which the ROM leaves DFU mode.
        lends_interfaces = sys.platform not in ("win32", "cygwin", "darwin")
        serial_ports = staticmethod(serial_ports)

        def __init__(self, lib: Any) -> None:
            super().__init__(lib)
            # Looking it up by item gives a function of our own, without pyusb's types, which convert every argument.
            self._control_transfer = lib["libusb_control_transfer"]

        def ctrl_transfer(
            self, handle: Any, request_type: int, request: int, value: int, index: int, data: array[int], timeout: int
        ) -> int:
            # pyusb's method casts a pointer and looks for a wrapped result at each call.
            address, length = data.buffer_info()
            count: int = self._control_transfer(
                handle.handle, request_type, request, value, index, pointer(address), length, timeout
            )
            return count if count >= 0 else int(check(count))

    return Backend


class mapped:
    """A context that turns pyusb's errors into ours.

    It is a class because a generator's frame would keep pyusb's error, and the error its frames, in a cycle; the libusb
    context would stay open until the garbage collector runs.

    Args:
        where: Beginning of the message.
        path: Port of the device; None if the error is not about one.
    """

    def __init__(self, where: str, path: str | None = None) -> None:
        self._where, self._path = where, path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception):
            raise_mapped(self._where, error, self._path)


def raise_mapped(where: str, error: Exception, path: str | None = None) -> None:
    """Raise our error for one of pyusb's; return if `error` is not one of them."""
    kind = kind_of(error)
    if kind is not None:
        detail = f" ({getattr(error, 'strerror', None) or error})" if kind is UsbError else ""
        raise kind(f"{where}: {_TEXTS[kind]}{detail}.", path=path) from error


def kind_of(error: Exception) -> type[UsbError] | None:
    """Return the class of ours for an error of pyusb's, or None if `error` is not one of them."""
    import usb.core

    if isinstance(error, NotImplementedError):
        # pyusb raises it for LIBUSB_ERROR_NOT_SUPPORTED: on Windows, a device without WinUSB.
        return DriverMissingError
    if not isinstance(error, usb.core.USBError):
        return None
    code = error.backend_error_code
    if code in _BY_CODE:
        return _BY_CODE[code]
    if sys.platform == "win32" and code == _NOT_FOUND:
        return DriverMissingError  # LIBUSB_ERROR_NOT_FOUND at open: no driver is bound
    return _BY_ERRNO.get(error.errno, UsbError)


def pyusb_error(kind: type[UsbError]) -> Exception:
    """Return the error that pyusb would raise for `kind`, for backends that are not libusb."""
    import usb.core

    code = next(code for code, of in _BY_CODE.items() if of is kind)
    number = next(number for number, of in _BY_ERRNO.items() if of is kind)
    raised = usb.core.USBTimeoutError if kind is TransferTimeoutError else usb.core.USBError
    error: Exception = raised(os.strerror(number), code, number)
    return error
