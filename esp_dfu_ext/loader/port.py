"""A serial port made of bulk transfers, for esptool's loader classes.

On Linux the kernel's driver makes /dev/ttyACM* of the same interfaces, but that node belongs to another group, is
opened by ModemManager, and lowers RTS when it is closed, upon which the ROM restarts the chip. Bulk transfers on the
device that is open anyway have none of that, and never set a line state.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import serial

from ..clock import Clock, Deadline
from ..errors import TransferTimeoutError
from ..usb.bus import UsbDevice
from ..usb.handle import UsbHandle

# bInterfaceClass, USB class definitions for communications devices 1.2, tables 14 and 18.
_COMMUNICATIONS, _DATA = 0x02, 0x0A
_WRITE_TIMEOUT = 1.0  # seconds for one write, if nobody set another
_SLICE = 0.25  # seconds of one transfer, after which Ctrl-C is looked at: an MD5 may take a minute, or never end


@dataclass(frozen=True)
class SerialInterfaces:
    """The two interfaces of a CDC serial port.

    Attributes:
        control: Number of the interface for line states and notifications.
        data: Number of the interface with the data.
        bulk_out: Address of the end point to the device.
        bulk_in: Address of the end point to the host.
        packet: wMaxPacketSize of `bulk_in`, in bytes.
    """

    control: int
    data: int
    bulk_out: int
    bulk_in: int
    packet: int


def serial_interfaces(device: UsbDevice) -> SerialInterfaces | None:
    """Return the CDC serial port of a device, or None if it has none or more than one."""
    controls = [each for each in device.interfaces if each.class_ == _COMMUNICATIONS]
    datas = [each for each in device.interfaces if each.class_ == _DATA]
    if len(controls) != 1 or len(datas) != 1:
        return None
    outs = [end_point for end_point in datas[0].bulk if not end_point.is_in]
    ins = [end_point for end_point in datas[0].bulk if end_point.is_in]
    if len(outs) != 1 or len(ins) != 1:
        return None
    return SerialInterfaces(controls[0].number, datas[0].number, outs[0].address, ins[0].address, ins[0].max_packet)


class LoaderPort(serial.SerialBase):  # type: ignore[misc]
    """A port object as esptool expects one; its settings, such as the baud rate, mean nothing to the ROM's USB.

    Args:
        path: USB port of the device.
        clock: Time.
    """

    def __init__(self, path: str, clock: Clock) -> None:
        self._path, self._clock = path, clock
        self._received = bytearray()
        self._limit: Deadline | None = None
        super().__init__(timeout=1.0, write_timeout=_WRITE_TIMEOUT)
        self.is_open = True

    @property
    def path(self) -> str:
        """USB port of the device."""
        return self._path

    def limit(self, seconds: float) -> None:
        """Let everything from now on take `seconds` in all, whatever time-outs are set; esptool's add up to more."""
        self._limit = Deadline(self._clock, seconds)

    def _deadline(self, seconds: float) -> Deadline:
        return Deadline(self._clock, seconds if self._limit is None else min(seconds, self._limit.left))

    def _reconfigure_port(self, force_update: bool = False) -> None:
        """Accept any setting; pyserial calls this after each change."""

    def _update_rts_state(self) -> None:
        """Send nothing: the ROM restarts the chip when RTS falls."""

    def _update_dtr_state(self) -> None:
        """Send nothing."""

    @property
    def in_waiting(self) -> int:
        """Number of bytes that have been received and not read."""
        return len(self._received)

    def read(self, size: int = 1) -> bytes:
        """Return `size` bytes, or fewer after `timeout` seconds; raises UsbError."""
        deadline = self._deadline(self.timeout if self.timeout is not None else 3600.0)
        while len(self._received) < size:
            left = deadline.left
            if left <= 0:
                break
            self._received += self._receive(min(left, _SLICE))
            self._clock.sleep(0.0)  # the flashes of several boards are stopped here
        data = bytes(self._received[:size])
        del self._received[:size]
        return data

    def _receive(self, timeout: float) -> bytes:
        """Return what comes next, or nothing after at most `timeout` seconds."""
        raise NotImplementedError

    def reset_input_buffer(self) -> None:
        """Forget what was received."""
        self._received.clear()

    def flush(self) -> None:
        """Do nothing: `write` returns when everything is sent."""

    def close(self) -> None:
        """Do nothing, so that esptool cannot close it: `release` does it at the end."""

    def release(self) -> None:
        """Let go of the port."""


class BulkSerialPort(LoaderPort):
    """A port made of bulk transfers.

    Args:
        handle: Open device; both interfaces are borrowed from the kernel's driver until the handle is closed.
        interfaces: Its serial port.
        clock: Time.

    Raises:
        UsbError: The interfaces cannot be claimed.
    """

    def __init__(self, handle: UsbHandle, interfaces: SerialInterfaces, clock: Clock) -> None:
        self._usb, self._interfaces = handle, interfaces
        handle.borrow(interfaces.control, interfaces.data)
        super().__init__(handle.path, clock)

    def _receive(self, timeout: float) -> bytes:
        ports = self._interfaces
        with suppress(TransferTimeoutError):
            return self._usb.bulk_in(ports.data, ports.bulk_in, ports.packet, timeout)
        return b""

    def write(self, data: bytes) -> int:
        """Send all of `data`; raises UsbError, TransferTimeoutError after `write_timeout` seconds."""
        ports, data = self._interfaces, bytes(data)
        deadline = self._deadline(self.write_timeout or _WRITE_TIMEOUT)
        sent = 0
        while sent < len(data):
            sent += self._usb.bulk_out(ports.data, ports.bulk_out, data[sent:], max(deadline.left, 0.001))
        return sent
