"""DTR and RTS of a serial port that the user named: into download mode by them, and out of it.

A USB-UART bridge gives them to the chip's EN and its strapping pin; the sequences are esptool's. **Not one byte is
sent**: after a SYNC on UART0 the ROM listens to that UART only, and its USB is deaf.
"""

from __future__ import annotations

import inspect
import os
import re
from contextlib import suppress
from types import TracebackType
from typing import Any

from ..errors import SerialLoaderError, SerialPortError
from ..image.esp_image import own_configuration
from ..units import clean
from ..usb.serial_ports import SerialPort
from ..usb.system_port import PORT_ERRORS, SerialSystem, first_line
from ..usb.trace import Step, Trace

BAUD_RATE = 115200  # of what the ROM prints on UART0
TOUCH_BAUD_RATE = 1200  # of a port that is opened and closed to ask an app for download mode
RESET_DELAYS = (0.05, 0.55)  # seconds that the strapping pin stays low; esptool's, the second for a slow EN
# How the chip has booted, and what its ROM prints of it on UART0; the first that fits counts.
_BOOT_MODES = (
    ("secure", re.compile(rb"wait uart download\(secure mode\)")),
    ("disabled", re.compile(rb"Download boot modes disabled")),
    ("download", re.compile(rb"boot:0x[0-9a-fA-F]+ \(DOWNLOAD.*waiting for download", re.DOTALL)),
    ("app", re.compile(rb"boot:0x[0-9a-fA-F]+ \((?!DOWNLOAD)[^\n]*\n")),
)


class SerialLines:
    """An open serial port of which only the lines are used; a context manager that closes it.

    Args:
        system: Serial ports of the machine.
        port: The port.
        trace: Takes what is done with it.
        baud_rate: Bits per second.

    Raises:
        SerialPortError: The port cannot be opened, or has no such lines.
    """

    def __init__(
        self, system: SerialSystem, port: SerialPort, *, trace: Trace | None = None, baud_rate: int = BAUD_RATE
    ) -> None:
        self._system = system
        self._port = port
        self._trace = trace
        self._heard = b""
        self._moved_by_bridge = False
        self._open = system.open(port.name, baud_rate=baud_rate, path=port.path or "", trace=trace)
        try:
            self._check_lines()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> SerialLines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the port."""
        self.close()

    def close(self) -> None:
        """Close the port with both lines released, also in the middle of a sequence.

        Lines that the bridge itself moves stay as esptool's sequence left them.
        """
        if not self._moved_by_bridge:
            with suppress(Exception):  # a port that left the bus
                # In this order: EN is low while only RTS is set.
                self._open.rts = False
                self._open.dtr = False
        with suppress(Exception):
            self._open.close()

    def enter_download_mode(self, delay: float) -> None:
        """Reset the chip with its strapping pin low, which stays so for `delay` seconds after the end of the reset.

        Raises:
            SerialPortError: The port failed.
            SerialLoaderError: esptool cannot be imported.
        """
        self._run(self._bootloader_reset(), reset_delay=delay)

    def enter_by_jtag(self) -> None:
        """Do the same with a chip's USB-Serial/JTAG, whose lines are not pins; raises the same errors."""
        self._run("USBJTAGSerialReset")

    def touch(self) -> None:
        """Ask an app for download mode, as it takes a port that was opened at 1200 baud and is closed.

        Raises:
            SerialPortError: The port failed.
        """
        self._step("DTR off at 1200 baud")
        try:
            self._open.dtr = True
            self._open.dtr = False
        except PORT_ERRORS as error:
            raise self._failed(error) from error

    def restart(self) -> None:
        """Reset the chip with its strapping pin high; raises the same errors as `enter_download_mode`."""
        try:
            self._open.dtr = False
        except PORT_ERRORS as error:
            raise self._failed(error) from error
        self._run("HardReset")

    def boot_mode(self) -> str | None:
        """Return how the chip says on UART0 that it has booted.

        Returns:
            ``download``; ``secure``, download mode with the eFuse that leaves little of it; ``disabled``, an eFuse
            forbids it; ``app``; None if it has said nothing.
        """
        with suppress(Exception):  # a port that left the bus, or one that cannot be read
            self._heard = (self._heard + bytes(self._open.read(4096)))[-4096:]
        return next((mode for mode, text in _BOOT_MODES if text.search(self._heard)), None)

    def _check_lines(self) -> None:
        try:
            _ = self._open.cts  # reads all lines of the port
        except PORT_ERRORS as error:
            if self._system.has_left(self._port.name):
                raise self._failed(error) from error
            message = f"The serial port {clean(self._port.name)} has no DTR and RTS."
            raise SerialPortError(message, port=self._port.name, reason="no-lines") from error

    def _bootloader_reset(self) -> str:
        """Return the name of the sequence that esptool begins with: on POSIX it moves both lines at the same time."""
        tight = os.name == "posix" and hasattr(self._open, "fileno")
        return "UnixTightReset" if tight else "ClassicReset"

    def _run(self, name: str, **settings: Any) -> None:
        """Run one of esptool's sequences."""
        try:
            with own_configuration():
                import esptool.loader
                import esptool.reset
        except ImportError as error:
            raise SerialLoaderError(f"esptool cannot be imported: {error}.", reason="esptool") from error
        kind = getattr(esptool.reset, name)
        if "flow_control" in inspect.signature(kind).parameters:  # of bridges that move RTS themselves; from 5.6 on
            known = getattr(esptool.loader, "uses_hardware_flow_control", lambda ids: False)
            settings["flow_control"] = self._moved_by_bridge = known((self._port.vid, self._port.pid))
        sequence = kind(self._open, **settings)
        self._step(name)
        try:
            # esptool's own call would try again, print, and leave out what the port refuses.
            getattr(sequence, "reset", sequence)()
        except PORT_ERRORS as error:
            raise self._failed(error) from error

    def _step(self, what: str) -> None:
        if self._trace is not None:
            self._trace.add(Step(self._trace.now(), 0.0, self._port.path or "", "move DTR and RTS", what))

    def _failed(self, error: Exception) -> SerialPortError:
        name = clean(self._port.name)
        if self._system.has_left(self._port.name):
            message = f"The serial port {name} left while DTR and RTS were moved."
            return SerialPortError(message, port=self._port.name, reason="gone")
        message = f"The serial port {name} does not take DTR and RTS: {first_line(error)}"
        return SerialPortError(message, port=self._port.name, reason="failed")
