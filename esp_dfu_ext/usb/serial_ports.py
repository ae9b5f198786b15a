"""The serial ports of USB devices, as pyserial lists them; esptool brings pyserial along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..units import usb_id

LIST_INTERVAL = 0.2  # seconds between two lists of the ports while waiting for one


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


def of_device(
    ports: Sequence[SerialPort], vid: int, pid: int, path: str, *, same_buses: bool, serial: str | None = None
) -> SerialPort | None:
    """Return the serial port of a device.

    Args:
        ports: All serial ports.
        vid: The device's vendor ID.
        pid: Its product ID.
        path: Its USB port.
        same_buses: The number of the bus in `path` counts.
        serial: Its serial number, if that belongs to it alone. It decides where the system does not tell the USB port,
            and a port with another serial number does not fit.

    Returns:
        None if none or more than one fits.
    """

    def fits(port: SerialPort) -> bool:
        if (port.vid, port.pid) != (vid, pid):
            return False
        known = serial is not None and port.serial is not None
        if known and str(port.serial).lower() != str(serial).lower():
            return False
        return port.is_at(path, same_buses=same_buses) or (known and port.path is None)

    fitting = [port for port in ports if fits(port)]
    return fitting[0] if len(fitting) == 1 else None


def _path(location: str | None) -> str | None:
    """Return the USB port in a location such as ``1-2.3:1.0``, to which pyserial adds the interface."""
    return location.partition(":")[0] if location else None


def _ports(path: str) -> str:
    return path.partition("-")[2]
