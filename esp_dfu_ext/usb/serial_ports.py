"""The serial ports of USB devices, as pyserial lists them; esptool brings pyserial along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..units import usb_id


@dataclass(frozen=True)
class SerialPort:
    """A serial port.

    Attributes:
        name: What programs open, such as ``COM5`` or ``/dev/ttyACM0``.
        vid: Vendor ID of its USB device, None if it has none.
        pid: Product ID of its USB device, None if it has none.
        serial: Serial number of its USB device, None if it is not known.
        path: USB port of its device, ``bus-port.port``, None if it is not known. Windows numbers buses in its own way.
    """

    name: str
    vid: int | None = None
    pid: int | None = None
    serial: str | None = None
    path: str | None = None

    @property
    def usb_id(self) -> str:
        """``vvvv:pppp`` of its USB device, empty if it has none."""
        return "" if self.vid is None or self.pid is None else usb_id(self.vid, self.pid)

    def is_at(self, path: str, *, same_buses: bool = True) -> bool:
        """Return whether its device is on this USB port; without `same_buses` the number of the bus does not count."""
        if self.path is None:
            return False
        return self.path == path or (not same_buses and _ports(self.path) == _ports(path))


def serial_ports() -> list[SerialPort]:
    """Return the serial ports of this computer, by name."""
    from serial.tools.list_ports import comports

    ports = [
        SerialPort(port.device, port.vid, port.pid, port.serial_number or None, _path(port.location))
        for port in comports()
    ]
    return sorted(ports, key=lambda port: port.name)


def of_device(ports: Sequence[SerialPort], vid: int, pid: int, path: str, *, same_buses: bool) -> SerialPort | None:
    """Return the serial port of the device with these IDs on a USB port; None if none or more than one fits."""
    fitting = [p for p in ports if (p.vid, p.pid) == (vid, pid) and p.is_at(path, same_buses=same_buses)]
    return fitting[0] if len(fitting) == 1 else None


def _path(location: str | None) -> str | None:
    """Return the USB port in a location such as ``1-2.3:1.0``, to which pyserial adds the interface."""
    return location.partition(":")[0] if location else None


def _ports(path: str) -> str:
    return path.partition("-")[2]
