"""A serial port of the operating system, where it does not lend its interfaces to programs: Windows and macOS."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress

import serial

from ..clock import Clock, Deadline
from ..errors import DeviceGoneError, TransferTimeoutError, UsbError
from ..usb.bus import UsbDevice
from ..usb.serial_ports import LIST_INTERVAL, SerialPort, of_device
from ..usb.system_port import PORT_ERRORS, first_line, has_left, open_serial_port
from ..usb.trace import Trace
from .port import LoaderPort

_SLICE = 0.02  # seconds for which the system waits for a byte before the time is looked at
_WRITE_TIMEOUT = 0.25  # seconds for one write; the system's driver has a buffer


class SystemSerialPort(LoaderPort):
    """A port that the operating system has made of the same interfaces, where it does not lend them.

    Args:
        port: The port.
        path: USB port of the device.
        clock: Time; the system waits in real time.
        trace: Takes what goes over the port.

    Raises:
        SerialPortError: The port cannot be opened.
    """

    def __init__(self, port: SerialPort, path: str, clock: Clock, trace: Trace | None = None) -> None:
        # Time-outs are set once: each change would set the port's line settings again.
        self._system = open_serial_port(port.name, timeout=_SLICE, write_timeout=_WRITE_TIMEOUT, path=path, trace=trace)
        self.port_name = port.name
        super().__init__(path, clock)

    def _receive(self, timeout: float) -> bytes:
        try:
            return bytes(self._system.read(self._system.in_waiting or 1))
        except PORT_ERRORS as error:
            raise self._failed(error) from error

    def write(self, data: bytes) -> int:
        """Send all of `data`; raises UsbError, TransferTimeoutError if the system does not take it in time."""
        try:
            self._system.write(data)
        except serial.SerialTimeoutException as error:
            message = f"Port {self._path}: the serial port {self.port_name} takes no data."
            raise TransferTimeoutError(message, path=self._path) from error
        except PORT_ERRORS as error:
            raise self._failed(error) from error
        return len(data)

    def reset_input_buffer(self) -> None:
        """Forget what was received."""
        super().reset_input_buffer()
        try:
            self._system.reset_input_buffer()
        except PORT_ERRORS as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> UsbError:
        """Return our error for one of pyserial, of the system, or of termios."""
        if has_left(self.port_name):
            return DeviceGoneError(f"Port {self._path}: the device left the bus.", path=self._path)
        message = f"Port {self._path}: the serial port {self.port_name} failed: {first_line(error)}"
        return UsbError(message, path=self._path)

    def release(self) -> None:
        """Close the port."""
        with suppress(Exception):  # a port that left the bus cannot be closed in order
            self._system.close()


def find_system_port(
    list_ports: Callable[[], Sequence[SerialPort]],
    device: UsbDevice,
    clock: Clock,
    *,
    serial_number: str | None = None,
    patience: float = 0.0,
    same_buses: bool = os.name == "posix",
) -> SerialPort | None:
    """Return the serial port that the system has made of a device, or None.

    Args:
        list_ports: Lists the system's serial ports.
        device: The device.
        clock: Time.
        serial_number: Its serial number, if that belongs to it alone.
        patience: Seconds to wait for a port that the system is still making.
        same_buses: The system numbers USB buses for serial ports as libusb does.

    Raises:
        UsbError: The ports cannot be listed.
    """
    deadline = Deadline(clock, patience)
    while True:
        found = of_device(
            list_ports(), device.vid, device.pid, device.path, same_buses=same_buses, serial=serial_number
        )
        if found is not None or not deadline.sleep(LIST_INTERVAL):
            return found
