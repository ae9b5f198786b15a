"""A device that lies: some descriptors, strings and answers come from a fuzzer's bytes, the others are true."""

from __future__ import annotations

import errno
from array import array
from types import SimpleNamespace
from typing import Any

import usb.core

from esp_dfu_ext.clock import VirtualClock
from esp_dfu_ext.simulator.board import Board
from esp_dfu_ext.simulator.bus import SimulatedBackend

REQUEST_TIME = 0.05  # seconds; long, so that few requests pass until a deadline
MOST_REQUESTS = 50_000  # enough for a device that is busy for 30 s after each of 60 blocks

# All results of a failed transfer: libusb's error code (libusb.h) with the errno that pyusb adds.
_FAILURES = (
    (-1, errno.EIO), (-3, errno.EACCES), (-4, errno.ENODEV), (-6, errno.EBUSY), (-7, errno.ETIMEDOUT),
    (-8, errno.EOVERFLOW), (-9, errno.EPIPE), (-10, errno.EINTR), (-11, errno.ENOMEM), (-99, None),
)  # fmt: skip


class Endless(BaseException):
    """The host keeps sending requests."""


class Tape:
    """A fuzzer's bytes, read in order; then zeros, or the bytes again if `endless`."""

    def __init__(self, data: bytes, *, endless: bool = False) -> None:
        self._data = data
        self._endless = endless and bool(data)
        self._position = 0

    @property
    def used_up(self) -> bool:
        """True if only zeros follow."""
        return not self._endless and self._position >= len(self._data)

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        if self._endless:
            start = self._position % len(self._data)
            times = (start + count) // len(self._data) + 1
            taken = (self._data * times)[start : start + count]
        else:
            taken = self._data[self._position : self._position + count].ljust(count, b"\0")
        self._position += count
        return taken

    def number(self, width: int = 1) -> int:
        """Return the next bytes as a little-endian number."""
        return int.from_bytes(self.take(width), "little")


class LyingBackend(SimulatedBackend):
    """A bus with one board about which the tape lies; for 0, and after the end of the tape, the truth is told."""

    def __init__(self, board: Board, clock: VirtualClock, tape: Tape) -> None:
        super().__init__([board], clock)
        self._virtual = clock
        self._tape = tape
        self.requests = 0

    def get_device_descriptor(self, device: Any) -> SimpleNamespace:
        descriptor = super().get_device_descriptor(device)
        if self._tape.number() & 1:
            descriptor.bcdDevice = self._tape.number(2)
            descriptor.iSerialNumber = self._tape.number()
            descriptor.bNumConfigurations = self._tape.number() % 9  # libusb accepts at most 8
        return descriptor

    def _configuration(self, device: Any, config: int) -> SimpleNamespace:
        honest = super()._configuration(device, 0)
        lie = device.__dict__.setdefault("lies", {}).get(config)
        if lie is None:
            lie = device.lies[config] = self._lie_about(honest) if self._tape.number() & 1 else honest
        return lie  # type: ignore[no-any-return]

    def _lie_about(self, configuration: SimpleNamespace) -> SimpleNamespace:
        tape = self._tape
        configuration.bConfigurationValue = tape.number()
        kept = configuration.interfaces[-1][0]
        configuration.interfaces = [
            [self._lying_interface(kept, number, alternate) for alternate in range(1 + tape.number() % 4)]
            for number in range(tape.number() % 5)
        ]
        configuration.bNumInterfaces = len(configuration.interfaces)  # libusb counts them itself
        return configuration

    def _lying_interface(self, honest: SimpleNamespace, number: int, alternate: int) -> SimpleNamespace:
        tape = self._tape
        interface = SimpleNamespace(**vars(honest))
        interface.bInterfaceNumber, interface.bAlternateSetting = number, alternate
        kind = tape.number()
        if kind & 1:
            interface.bInterfaceNumber = tape.number()
        if kind & 2:
            interface.bInterfaceClass, interface.bInterfaceSubClass = tape.take(2)
        if kind & 4:
            interface.bInterfaceProtocol = tape.number()
        if kind & 8:
            interface.iInterface = tape.number()
        if kind & 16:
            interface.extra_descriptors = list(tape.take(tape.number()))
        return interface

    def open_device(self, device: Any) -> Any:
        self._maybe_fail()
        return super().open_device(device)

    def claim_interface(self, handle: Any, intf: int) -> None:
        self._maybe_fail()
        super().claim_interface(handle, intf)

    def reset_device(self, handle: Any) -> None:
        self._maybe_fail()
        super().reset_device(handle)

    def _maybe_fail(self) -> None:
        word = self._tape.number()
        if word >= 128:
            self._fail(word, 0)

    def _fail(self, word: int, timeout: int) -> None:
        code, number = _FAILURES[word % len(_FAILURES)]
        if code == -7:
            self._virtual.sleep(timeout / 1000)
            raise usb.core.USBTimeoutError("\x1b[31mtimed out", code, number)
        raise usb.core.USBError("\x1b[31mfailed", code, number)

    def ctrl_transfer(
        self, handle: Any, request_type: int, request: int, value: int, index: int, data: Any, timeout: int
    ) -> int:
        self.requests += 1
        self._virtual.sleep(REQUEST_TIME)
        if self.requests > MOST_REQUESTS:
            raise Endless(f"more than {MOST_REQUESTS} requests")
        word = self._tape.number()
        if word >= 192:
            self._fail(word, timeout)
        if word < 64:
            return super().ctrl_transfer(handle, request_type, request, value, index, data, timeout)
        if not request_type & 0x80:
            return len(data)  # acknowledged and dropped
        answer = self._tape.take(self._tape.number() % (len(data) + 1))  # libusb passes no more
        data[: len(answer)] = array("B", answer)
        return len(answer)
