"""Flash one board through its own serial port, for computers that have no driver for DFU.

In download mode the same USB device also has a serial port. The image is the same checked dfu.bin; esptool
writes its files, and the chip computes their MD5s from its flash memory, as it does over DFU.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from ..clock import Deadline
from ..dfu.discovery import Selector, is_same_serial
from ..errors import (
    EspDfuError,
    InterruptedByUserError,
    LayoutError,
    NoSerialPortError,
    SerialLoaderError,
    SerialPortError,
    SeveralPortsError,
    UsageError,
)
from ..events import CameBack, DeviceFound, Flashed, Phase, Progress, Waiting
from ..image.format import Member
from ..target import Target
from ..units import format_size
from ..usb.serial_ports import LIST_INTERVAL, SerialPort, serial_ports
from ..usb.system_port import has_left
from .board_port import LEAVING_TIME
from .enter import listed
from .esptool_chip import EsptoolChip
from .flash_setup import FlashSetup, Written
from .phases import timed
from .restart import NO_RESET
from .results import FlashResult

STATUS = "OK"  # of a flash whose MD5s match; there is no bState over serial
FindPorts = Callable[[], Sequence[SerialPort]]


def flash_over_serial(
    setup: FlashSetup, selector: Selector, ports: FindPorts = serial_ports, *, same_buses: bool = os.name == "posix"
) -> FlashResult:
    """Flash one board through its serial port.

    Args:
        setup: What to flash, and how; its options name the serial port, if the user did.
        selector: Which board, if its port was not named.
        ports: Lists the serial ports.
        same_buses: The system numbers USB buses for serial ports as libusb does.

    Returns:
        The result; its path is the name of the serial port, and it has no bState.

    Raises:
        NoSerialPortError: The board has no serial port here.
        SeveralPortsError: More than one board fits.
        UsageError: The port that was named is not that of a board with this chip.
        SerialPortError: The port cannot be opened, or it failed.
        SerialLoaderError: The chip did not answer, or refused a command.
        LayoutError: The image ends beyond the flash memory of the board.
        InterruptedByUserError: Ctrl-C, SIGTERM or SIGHUP.
    """
    flash = _SerialFlash(setup)
    try:
        return flash.run(flash.choose(selector, ports, same_buses=same_buses))
    except KeyboardInterrupt as stop:
        where = f" while flashing over {flash.port}" if flash.port else " while looking for a board"
        raise InterruptedByUserError.by(
            stop, f"{where}. {flash.written.value}", incomplete=flash.written.incomplete
        ) from None


class _SerialFlash:
    """One flash.

    Attributes:
        port: Name of the serial port, empty until it is chosen.
        written: What it has written so far.
    """

    def __init__(self, setup: FlashSetup) -> None:
        self._setup = setup
        self._image = setup.image.image
        self._target: Target = setup.image.target
        self._clock = setup.clock
        self._on_event = setup.on_event
        self.port = ""
        self.written = Written.NOTHING

    def choose(self, selector: Selector, ports: FindPorts, *, same_buses: bool) -> SerialPort:
        """Return the serial port of the board, waiting for it as long as the options say."""
        deadline = Deadline(self._clock, self._setup.options.wait)
        while True:
            left = deadline.left
            try:
                return self._choose_now(selector, ports(), same_buses=same_buses)
            except NoSerialPortError:
                if left <= 0:
                    raise
                self._on_event(Waiting(left))
                deadline.sleep(LIST_INTERVAL)

    def _choose_now(self, selector: Selector, ports: Sequence[SerialPort], *, same_buses: bool) -> SerialPort:
        chip, usb = f"{self._target.chip} ({self._target.usb_id})", self._target.usb
        named = self._setup.options.port
        if named is not None:
            port = next((port for port in ports if port.name == named), None)
            if port is None:
                if os.path.exists(named):  # noqa: PTH110 (a pseudo-terminal or a link, which no list has)
                    return SerialPort(named)
                raise NoSerialPortError(f"No serial port {named} found.", port=named, notes=listed(ports))
            if (port.vid, port.pid) != (usb.vid, usb.pid):
                what = f"is that of {port.usb_id}" if port.usb_id else "is not one of a USB device"
                raise UsageError(f"The serial port {named} {what}; expected that of an {chip} in download mode.")
            fitting = [port]
        else:
            fitting = [port for port in ports if (port.vid, port.pid) == (usb.vid, usb.pid)]
        where = ""
        if selector.path is not None:
            where = f" on port {selector.path}"
            fitting = [port for port in fitting if port.is_at(selector.path, same_buses=same_buses)]
        if selector.serial is not None:
            where = f" with serial number {selector.serial}"
            fitting = [p for p in fitting if p.serial is not None and is_same_serial(p.serial, selector.serial)]
        if not fitting:
            raise NoSerialPortError(f"No serial port of an {chip}{where} found.", notes=listed(ports))
        if len(fitting) > 1:
            names = [port.name for port in fitting]
            raise SeveralPortsError(f"Found {len(names)} serial ports of {chip}: {', '.join(names)}.", ports=names)
        return fitting[0]

    def run(self, port: SerialPort) -> FlashResult:
        """Flash the board on a serial port."""
        self.port = port.name
        started = self._clock.monotonic()
        self._on_event(DeviceFound(port.name, "serial", port.serial))
        try:
            with self._connect(port) as chip:
                if not self._setup.options.no_stub:
                    chip.start_stub()
                self._refuse_small_flash(chip)
                self._write(chip)
                self._compare(chip)
                seconds = self._clock.monotonic() - started
                came_back: CameBack | None = None
                if self._setup.options.after == NO_RESET:
                    chip.leave_stub()
                else:
                    came_back = self._restart(chip)
        except EspDfuError as error:
            error.notes += (self.written.value,)
            raise
        size = self._image.payload_size
        by = "watchdog" if came_back is not None else None
        seen = {"nothing": "nothing", "same": "still the same serial port: the watchdog did not restart it"}
        self._on_event(Flashed(port.name, size, seconds, STATUS, "", reset_by=by, came_back=came_back))
        after_reset = seen[came_back] if came_back is not None else None
        return FlashResult(
            port.name, port.serial, size, seconds, STATUS, "", after_reset, reset_by=by, came_back=came_back
        )

    def _connect(self, port: SerialPort) -> EsptoolChip:
        """Return the connected chip; one that opening the port has reset is connected again once it is back.

        A chip that has answered a SYNC is reset when RTS falls: another program may have left that to us.
        """
        node = _node(port.name)
        try:
            return self._connect_once(port)
        except (SerialPortError, SerialLoaderError):
            if not self._was_reset(port.name, node):
                raise
        deadline = Deadline(self._clock, self._target.dfu.return_timeout)
        while True:
            try:
                return self._connect_once(port)
            except SerialPortError:  # not there yet, or udev has not given access to it yet
                if not deadline.sleep(LIST_INTERVAL):
                    raise

    def _connect_once(self, port: SerialPort) -> EsptoolChip:
        chip = EsptoolChip(self._target, port.name, path=port.path or "", trace=self._setup.bus.trace)
        try:
            chip.connect()
        except BaseException:
            chip.close()
            raise
        return chip

    def _was_reset(self, port: str, node: tuple[int, int] | None) -> bool:
        """Return whether the port is gone or is a new one; the kernel needs a moment to notice."""
        deadline = Deadline(self._clock, LEAVING_TIME)
        while node is not None and _node(port) == node:
            if not deadline.sleep(LIST_INTERVAL):
                return False
        return node is not None

    def _refuse_small_flash(self, chip: EsptoolChip) -> None:
        end = max(_address(member) + len(member.data) for member in self._image.flash_members)
        size = chip.attach_flash(end)
        if size is not None and end > size:
            raise LayoutError(
                f"The image ends at {end:#x}, but the flash memory of the board on {self.port} has only "
                f"{format_size(size)}."
            )

    def _write(self, chip: EsptoolChip) -> None:
        total, done = self._image.payload_size, 0
        with self._phase(Phase.DOWNLOAD, total):
            for member in self._image.flash_members:
                self.written = Written.PART

                def report(count: int, name: str = member.name) -> None:
                    nonlocal done
                    done += count
                    self._on_event(Progress(self.port, Phase.DOWNLOAD, done, total, name))

                chip.write(_address(member), bytes(member.data), report)
            self._on_event(Progress(self.port, Phase.DOWNLOAD, total, total))

    def _compare(self, chip: EsptoolChip) -> None:
        with self._phase(Phase.VERIFY):
            for member in self._image.flash_members:
                assert member.record is not None
                there, sent = chip.md5(_address(member), len(member.data)), member.record.md5.hex()
                if there != sent:
                    raise SerialLoaderError(
                        f"{member.name} at {_address(member):#x} has MD5 {there} in flash memory; expected {sent}.",
                        reason="md5",
                    )
        self.written = Written.CONFIRMED

    def _restart(self, chip: EsptoolChip) -> CameBack:
        """Restart the chip, and return whether its serial port went away."""
        with self._phase(Phase.RESET):
            chip.restart()
            deadline = Deadline(self._clock, self._target.dfu.return_timeout / 3)
            while not has_left(self.port):
                if not deadline.sleep(LIST_INTERVAL):
                    return "same"
        return "nothing"

    def _phase(self, phase: Phase, total: int = 0) -> AbstractContextManager[None]:
        return timed(phase, self.port, self._clock, self._on_event, total)


def _node(port: str) -> tuple[int, int] | None:
    """Return what tells a device node from one of the same name that came later; None outside POSIX."""
    if os.name != "posix":
        return None
    try:
        state = os.stat(port)  # noqa: PTH116
    except OSError:
        return None
    return state.st_ino, state.st_ctime_ns


def _address(member: Member) -> int:
    assert member.record is not None
    return member.record.address
