"""A trace of everything that goes over USB: control transfers, scans, opens, claims, resets, re-enumerations.

`Bus` wraps its backends in `tracing_backend.TracingBackend` when it has a `Trace`; without one, transfers
do not pass through this module. Every entry also goes to the logger ``esp_dfu_ext.usb.trace`` at level DEBUG.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, NamedTuple, Union

from ..clock import Clock, SystemClock
from ..errors import EspDfuError, UsbError
from ..units import usb_id
from .descriptors import CONFIGURATION, DEVICE, STRING, port_path

LOGGER = logging.getLogger(__name__)
logging.getLogger("esp_dfu_ext").addHandler(logging.NullHandler())

GET_DESCRIPTOR = 6  # bRequest, USB 2.0 table 9-4
_DESCRIPTORS = {DEVICE: "DEVICE", CONFIGURATION: "CONFIG", STRING: "STRING"}
_SHOWN = 16  # bytes of data in a line of text


class Transfer(NamedTuple):
    """A control transfer that has ended.

    Attributes:
        when: Start time, in seconds since 1970.
        seconds: Duration.
        path: Port of the device, ``bus-port.port``.
        address: Number of the device on its bus.
        request_type: bmRequestType.
        request: bRequest; a member of an enum of requests carries its name.
        w_value: Often a descriptor's type and index, or a block's number.
        w_index: Often an interface's number.
        w_length: Bytes to send, or the most to receive.
        data: Sent, or received.
        error: Kind of the error that ended it, None if it succeeded.
        cached: Nothing went over the bus: libusb read this descriptor when the device appeared.
    """

    when: float
    seconds: float
    path: str
    address: int
    request_type: int
    request: int
    w_value: int
    w_index: int
    w_length: int
    data: bytes
    error: type[UsbError] | None = None
    cached: bool = False

    @property
    def name(self) -> str:
        """The request's name, or its number."""
        if isinstance(self.request, Enum):
            return self.request.name
        if (self.request_type, self.request) == (0x80, GET_DESCRIPTOR):
            return f"GET_{_DESCRIPTORS.get(self.w_value >> 8, '')}_DESCRIPTOR".replace("__", "_")
        return f"request {self.request_type:02x}/{self.request:02x}"

    def __str__(self) -> str:
        arrow = "<-" if self.request_type & 0x80 else "->"
        result = _result(self.data, self.w_length, self.error)
        source = "  (from libusb's cache)" if self.cached else ""
        head = f"{self.path:7} {self.name:21} {self.w_value:#06x} {self.w_length:5} {arrow}"
        return f"{head} {result}{source}".rstrip()


class BulkTransfer(NamedTuple):
    """A bulk transfer that has ended; attributes as for `Transfer`.

    Attributes:
        endpoint: bEndpointAddress.
        length: Bytes to send, or the most to receive.
    """

    when: float
    seconds: float
    path: str
    address: int
    endpoint: int
    length: int
    data: bytes
    error: type[UsbError] | None = None

    @property
    def is_in(self) -> bool:
        """True if it goes to the host."""
        return bool(self.endpoint & 0x80)

    def __str__(self) -> str:
        name = f"bulk {'IN' if self.is_in else 'OUT'} {self.endpoint:#04x}"
        result = _result(self.data, self.length if not self.is_in else len(self.data), self.error)
        return f"{self.path:7} {name:21} {'':6} {self.length:5} {'<-' if self.is_in else '->'} {result}".rstrip()


class SerialTransfer(NamedTuple):
    """What went over a serial port of the operating system; attributes as for `Transfer`.

    Attributes:
        path: USB port of its device, empty if that is not known.
        is_in: True if it came from the device.
    """

    when: float
    seconds: float
    path: str
    is_in: bool
    data: bytes
    error: type[EspDfuError] | None = None

    def __str__(self) -> str:
        name, length = f"serial {'IN' if self.is_in else 'OUT'}", len(self.data)
        result = _result(self.data, length, self.error)
        return f"{self.path:7} {name:21} {'':6} {length:5} {'<-' if self.is_in else '->'} {result}".rstrip()


class Step(NamedTuple):
    """Anything else that happens to a bus or a device.

    Attributes:
        when: Start time, in seconds since 1970.
        seconds: Duration.
        path: Port of the device; empty if it concerns the whole bus.
        name: ``scan``, ``re-enumeration``, ``open``, ``claim``, ``release``, ``close``, ``reset``,
            ``open serial port`` or ``close serial port``.
        text: What it found, or did.
        error: Kind of the error that ended it, None if it succeeded.
    """

    when: float
    seconds: float
    path: str
    name: str
    text: str
    error: type[EspDfuError] | None = None

    def __str__(self) -> str:
        failed = f" failed: {self.error.code}" if self.error is not None else ""
        return f"{self.path:7} {self.name:21} {self.text}{failed}".rstrip()


def _result(data: bytes, length: int, error: type[EspDfuError] | None) -> str:
    """Return what came of a transfer: its first bytes, and how many there were if that was not `length`."""
    if error is not None:
        return f"failed: {error.code}"
    more = " .." if len(data) > _SHOWN else ""
    short = f"  ({len(data)} bytes)" if len(data) != length else ""
    return f"{data[:_SHOWN].hex(' ')}{more}{short}"


TraceEntry = Union[Transfer, BulkTransfer, SerialTransfer, Step]


class Trace:
    """Passes each entry to `write` and to the log; may be used by many threads.

    Args:
        write: Called with one entry at a time, None for nothing but the log.
        clock: Source of the entries' times; None for the system's clock.

    Attributes:
        write: The same. If it raises OSError, it is not called again.
        error: That OSError; None while all is well.
    """

    def __init__(self, write: Callable[[TraceEntry], None] | None = None, clock: Clock | None = None) -> None:
        self.write = write
        self.error: OSError | None = None
        self._clock = clock or SystemClock()
        self._epoch = time.time() - self._clock.monotonic()
        self._lock = threading.RLock()  # the garbage collector may close a device, and so come here, at any time
        self._addresses: dict[str, int] = {}
        self._scans: dict[str, tuple[str, int]] = {}

    def now(self) -> float:
        """Return the time in seconds since 1970."""
        return self._epoch + self._clock.monotonic()

    def add(self, *entries: TraceEntry) -> None:
        """Pass entries on; never fails."""
        with self._lock:
            for entry in entries:
                LOGGER.debug("%s", entry)
                try:
                    if self.write is not None:
                        self.write(entry)
                except OSError as error:
                    self.write, self.error = None, error

    def add_scan(self, begun: float, path: str, scope: str, devices: Iterable[Any]) -> None:
        """Pass a scan on, unless the last one of this port or scope had the same result.

        Args:
            begun: Time at which the scan began, see `now`.
            path: Port that was looked at; empty for all.
            scope: Which devices it looked for.
            devices: Those it found, as pyusb's devices.
        """
        seconds = self.now() - begun
        found = []
        with self._lock:
            for device in devices:
                port, address = port_path(device), device.address
                name = f"{usb_id(device.idVendor, device.idProduct)} (device {address})"
                found.append(name if path else f"{port} {name}")
                before = self._addresses.get(port, address)
                self._addresses[port] = address
                if before != address:
                    text = f"device {before} is now device {address}"
                    self.add(Step(begun, 0.0, port, "re-enumeration", text))
            text = ("" if path else f"{scope}: ") + (", ".join(sorted(found)) or "nothing")
            last, repeated = self._scans.get(path or scope, ("", 0))
            if text == last:
                self._scans[path or scope] = last, repeated + 1
                return
            self._scans[path or scope] = text, 0
            more = f"  (after {repeated} more scans with the same result as before)" if repeated else ""
            self.add(Step(begun, seconds, path, "scan", f"{text}{more}"))
