"""Open a serial port of the operating system, for a chip whose ROM listens to its line state."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from functools import cache
from typing import Any

from ..errors import SerialPortError
from ..units import clean
from .serial_ports import SerialPort, serial_ports
from .trace import SerialTransfer, Step, Trace

# What a port of pyserial's raises: its own errors are OSErrors, but those of termios are not.
PORT_ERRORS: tuple[type[Exception], ...] = (OSError,)
with suppress(ImportError):
    import termios

    PORT_ERRORS = (OSError, termios.error)
# pyserial raises ValueError for a setting that the port does not have.
_OPEN_ERRORS: tuple[type[Exception], ...] = (*PORT_ERRORS, ValueError)


def open_serial_port(
    name: str,
    *,
    timeout: float,
    write_timeout: float | None = None,
    path: str = "",
    trace: Trace | None = None,
    keeps_lines: bool = os.name == "posix",
    baud_rate: int = 9600,
    hangs_up: bool = False,
) -> Any:
    """Open a serial port so that the ROM does not restart the chip; return it as an object of pyserial's.

    After a SYNC, the ROM restarts the chip when RTS falls. Windows lowers RTS when a port is closed, so RTS stays low
    from the start. Linux raises it when a port is opened, so it stays high, and for good: it is not lowered at the
    close either.

    Args:
        name: Name of the port, such as ``COM5`` or ``/dev/ttyACM0``.
        timeout: Seconds that a read waits.
        write_timeout: Seconds that a write waits; None for no limit.
        path: USB port of its device, for the trace; empty if that is not known.
        trace: Takes what goes over the port.
        keeps_lines: The system raises RTS when a port is opened, and can be told to leave it so.
        baud_rate: Bits per second, which only a bridge takes notice of.
        hangs_up: The system may lower the lines at the close, as its user has set the port up.

    Raises:
        SerialPortError: The port cannot be opened; `reason` says why.
    """
    begun = trace.now() if trace is not None else 0.0
    failed: type[SerialPortError] | None = None
    try:
        port = _class()()
        port.trace, port.usb_path = trace, path
        port.port, port.exclusive, port.baudrate = name, True, baud_rate
        port.timeout, port.write_timeout = timeout, write_timeout
        if not keeps_lines:
            port.rts = port.dtr = False
        port.open()
    except _OPEN_ERRORS as error:
        failed = SerialPortError
        raise _cannot_open(name, error) from error
    finally:
        if trace is not None:
            trace.add(Step(begun, trace.now() - begun, path, "open serial port", clean(name), failed))
    if keeps_lines and not hangs_up:
        _keep_lines(port)
    return port


class SerialSystem:
    """The serial ports of this computer; simulated boards have their own.

    Attributes:
        same_buses: The system numbers USB buses for serial ports as libusb does.
    """

    same_buses = os.name == "posix"

    def list(self) -> list[SerialPort]:
        """Return all serial ports, by name.

        Raises:
            SerialPortError: The system does not list them.
        """
        try:
            return serial_ports()
        except PORT_ERRORS as error:
            message = f"The serial ports cannot be listed: {first_line(error)}"
            raise SerialPortError(message, port="", reason="failed") from error

    def find(self, name: str) -> SerialPort | None:
        """Return the port with this name; the name may be a link, or that of a port which no list has."""
        listed = self.list()
        real = os.path.realpath(name) if os.name == "posix" else name
        port = next((port for port in listed if port.name in (name, real)), None)
        if port is None and os.name == "posix" and os.path.exists(name):  # noqa: PTH110 (any name will do)
            return SerialPort(name)
        return port

    def has_left(self, name: str) -> bool:
        """Return whether a port that was there is gone."""
        return has_left(name)

    def open(self, name: str, *, baud_rate: int, path: str = "", trace: Trace | None = None) -> Any:
        """Open a port for its lines; see `open_serial_port` for what is returned, and for errors."""
        return open_serial_port(
            name, timeout=0, write_timeout=0, path=path, trace=trace, baud_rate=baud_rate, hangs_up=True
        )


def has_left(name: str) -> bool:
    """Return whether a serial port that was there is gone."""
    if os.name == "posix":
        return not os.path.exists(name)  # noqa: PTH110 (any name will do)
    with suppress(Exception):
        return all(port.name != name for port in serial_ports())
    return False


@cache
def _class() -> Any:
    """Return the class of the system's serial ports, with a trace."""
    import serial

    class Port(serial.Serial):  # type: ignore[misc]
        trace: Trace | None = None
        usb_path = ""

        def read(self, size: int = 1) -> bytes:
            return self._traced(super().read, size, is_in=True)

        def write(self, data: bytes) -> int:
            self._traced(super().write, data, is_in=False)
            return len(data)

        def _traced(self, call: Any, argument: Any, *, is_in: bool) -> bytes:
            trace = self.trace
            if trace is None:
                return call(argument)  # type: ignore[no-any-return]
            begun, failed, data = trace.now(), None, b"" if is_in else bytes(argument)
            try:
                result = call(argument)
                data = bytes(result) if is_in else data
                return data
            except Exception:
                failed = SerialPortError
                raise
            finally:
                if data or failed:
                    trace.add(SerialTransfer(begun, trace.now() - begun, self.usb_path, is_in, data, failed))

        def close(self) -> None:
            if self.is_open and self.trace is not None:
                self.trace.add(Step(self.trace.now(), 0.0, self.usb_path, "close serial port", clean(str(self.name))))
            super().close()

    return Port


def _keep_lines(port: Any) -> None:
    """Have the system leave RTS as it is when it closes the port."""
    with suppress(*PORT_ERRORS):
        attributes = termios.tcgetattr(port.fileno())
        attributes[2] &= ~termios.HUPCL
        termios.tcsetattr(port.fileno(), termios.TCSANOW, attributes)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text as a sentence."""
    text = clean((str(error).strip().splitlines() or [type(error).__name__])[0].strip())
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _cannot_open(name: str, error: Exception) -> SerialPortError:
    """Return the error for a port that cannot be opened; on Windows, pyserial quotes the system's error."""
    number, text = getattr(error, "errno", None), str(error)
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO) or "FileNotFoundError" in text:
        reason, what = "missing", "does not exist"
    elif number in (errno.EBUSY, errno.EAGAIN) or "PermissionError" in text or "exclusively lock" in text:
        reason, what = "busy", "is used by another program"
    elif number in (errno.EACCES, errno.EPERM):
        reason, what = "permission", "may not be opened by this user"
    else:
        reason, what = "failed", f"cannot be opened: {first_line(error).rstrip('.')}"
    group = _group_of(name) if reason == "permission" else ""
    return SerialPortError(f"The serial port {clean(name)} {what}.", port=name, reason=reason, group=group)


def _group_of(name: str) -> str:
    with suppress(ImportError, OSError, KeyError):
        import grp

        return grp.getgrgid(os.stat(name).st_gid).gr_name  # noqa: PTH116
    return ""
