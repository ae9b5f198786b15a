"""Bring the board behind a serial port that the user named into download mode, and find it on the bus.

Which USB port belongs to which serial port is never guessed: the board is the one that appears after the reset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from ..clock import Deadline
from ..dfu.access import ACCESS_DELAY, until_accessible
from ..dfu.detach import return_timeout
from ..dfu.discovery import SCAN_INTERVAL, DfuInterface, Selector, dfu_interfaces, is_same_serial, other_usb
from ..errors import (
    DeviceGoneError,
    InterruptedByUserError,
    NoSerialPortError,
    OtherSerialError,
    OtherUsbError,
    SerialPortError,
    SeveralDevicesError,
    UsageError,
)
from ..events import Phase, Waiting
from ..loader.lines import BAUD_RATE, RESET_DELAYS, TOUCH_BAUD_RATE, SerialLines
from ..usb.bus import UsbDevice
from ..usb.serial_ports import LIST_INTERVAL, SerialPort
from .appearances import Appearances
from .flash_setup import FlashSetup
from .phases import timed
from .restart import NO_RESET, Bridge

BUSY_TIME = 3.0  # seconds to wait for a port that another program has open: ModemManager looks at new ones
FIRST_TRY = 3.0  # seconds until a board that did not appear is reset once more: the ROM needs 0.3 to 0.6
SETTLING_TIME = 0.3  # seconds in which a second board may appear
_CDC = 0x02  # bInterfaceClass of a serial port that needs no driver of its own


@dataclass(frozen=True)
class Entered:
    """Which board to flash, and the bridge that restarts it; None if the port is no bridge of its."""

    selector: Selector
    bridge: Bridge | None = None


@dataclass(frozen=True)
class _Way:
    """A way into download mode.

    Attributes:
        move: What is done with the lines.
        baud_rate: Bits per second of the port.
        listens: The chip says on this port how it booted.
        may_leave: The port may be that of an app, which leaves as soon as it is asked.
    """

    move: Callable[[SerialLines], None]
    baud_rate: int = BAUD_RATE
    listens: bool = True
    may_leave: bool = False


def enter_download_mode(setup: FlashSetup, selector: Selector, name: str) -> Entered:
    """Bring a board into download mode through a serial port, unless its DFU interface can do that by itself.

    Args:
        setup: What will be flashed, and how; its options say whether to reset the board.
        selector: Which board the user wants.
        name: Name of the serial port.

    Raises:
        NoSerialPortError: There is no such port.
        SerialPortError: It cannot be used.
        UsageError: It is that of another board than `selector` says.
        NoDownloadModeError: No board of the chip appeared.
        SeveralDevicesError: Several did.
        DeviceNotFoundError: Another board than the one that `selector` says appeared; the subclass says which.
        InterruptedByUserError: Ctrl-C, SIGTERM or SIGHUP.
    """
    try:
        return _Entry(setup, selector, _port_named(setup, name)).run()
    except KeyboardInterrupt as stop:
        where = f" while the board on serial port {name} was being reset; nothing was written"
        raise InterruptedByUserError.by(stop, where) from None


def _port_named(setup: FlashSetup, name: str) -> SerialPort:
    """Return the serial port with a name, waiting for it as long as the options say."""
    deadline = Deadline(setup.clock, setup.options.wait)
    while True:
        left = deadline.left
        port = setup.bus.serial.find(name)
        if port is not None:
            return port
        if left <= 0:
            raise NoSerialPortError(f"No serial port {name} found.", port=name, notes=listed(setup.bus.serial.list()))
        setup.on_event(Waiting(left))
        deadline.sleep(LIST_INTERVAL)


def listed(ports: Sequence[SerialPort]) -> list[str]:
    """Return a sentence for each serial port."""
    return [f"Found serial port {port.name}{f' of {port.usb_id}' if port.usb_id else ''}." for port in ports]


class _Entry:
    """The way of one board into download mode."""

    def __init__(self, setup: FlashSetup, selector: Selector, port: SerialPort) -> None:
        self._setup = setup
        self._selector = selector
        self._port = port
        self._target = setup.image.target
        self._clock = setup.clock
        self._seen = Appearances(setup.bus, self._target, setup.targets)

    def run(self) -> Entered:
        bridge = Bridge(self._setup.bus.serial, self._port, self._setup.bus.trace)
        device = self._seen.device_of(self._port, same_buses=self._setup.bus.serial.same_buses)
        if device is not None and dfu_interfaces(device):
            self._refuse_other_path(device)
            return Entered(replace(self._selector, path=device.path))
        if self._setup.options.before == NO_RESET:
            return Entered(self._selector, bridge if self._is_of_bridge(device) else None)
        with timed(Phase.ENTER, self._port.name, self._clock, self._setup.on_event):
            board = self._board(device)
        stays = device is None or device.path != board.path
        return Entered(
            replace(self._selector, path=board.path), bridge if stays and self._is_of_bridge(device) else None
        )

    def _is_of_bridge(self, device: UsbDevice | None) -> bool:
        return device is None or other_usb(device, self._setup.targets) is None

    def _refuse_other_path(self, device: UsbDevice) -> None:
        if self._selector.path not in (None, device.path):
            raise UsageError(
                f"The serial port {self._port.name} is that of the device on port {device.path}, "
                f"not of one on port {self._selector.path}."
            )

    def _board(self, device: UsbDevice | None) -> DfuInterface:
        """Reset the board in one way after the other until it appears."""
        ways = self._ways(device)
        boot_mode: str | None = None
        started = self._clock.monotonic()
        for number, way in enumerate(ways, 1):
            time = return_timeout(self._target) if number == len(ways) else FIRST_TRY
            found, boot_mode = self._try(way, time)
            if found:
                return self._only(found)
        waited = self._clock.monotonic() - started
        raise self._seen.nothing(self._port.name, boot_mode, waited, listens=ways[-1].listens)

    def _ways(self, device: UsbDevice | None) -> list[_Way]:
        """Return the ways of a port, which depend on its device; None for a port without one that is known."""
        known = None if device is None else other_usb(device, self._setup.targets)
        if known is not None and device is not None:
            mine = other_usb(device, [self._target])
            if mine is None or not mine.own_pins:
                raise OtherUsbError(
                    f"The serial port {self._port.name} is that of {device.usb_id}, {known.name}, "
                    f"through which an {self._target.chip} does not get to DFU."
                )
            return [_Way(SerialLines.enter_by_jtag, listens=False)]
        resets = [_Way(partial(_reset, delay=delay)) for delay in RESET_DELAYS]
        if device is not None and any(interface.class_ == _CDC for interface in device.interfaces):
            # A bridge, or an app of its own: each ignores what is meant for the other.
            touch = _Way(SerialLines.touch, TOUCH_BAUD_RATE, listens=False, may_leave=True)
            return [replace(resets[0], may_leave=True), touch]
        return resets

    def _try(self, way: _Way, seconds: float) -> tuple[list[DfuInterface], str | None]:
        """Reset the board in one way; return the boards that appear, and how the chip says that it booted."""
        lines = self._opened(way.baud_rate)
        with lines:
            try:
                way.move(lines)
            except SerialPortError as error:
                if error.reason != "gone" or not way.may_leave:
                    raise
            if way.listens:
                return self._wait(seconds, lines)
        return self._wait(seconds, None)

    def _opened(self, baud_rate: int) -> SerialLines:
        bus, deadline = self._setup.bus, Deadline(self._clock, BUSY_TIME)
        while True:
            try:
                return SerialLines(bus.serial, self._port, trace=bus.trace, baud_rate=baud_rate)
            except SerialPortError as error:
                if error.reason != "busy" or not deadline.sleep(LIST_INTERVAL):
                    raise

    def _wait(self, seconds: float, lines: SerialLines | None) -> tuple[list[DfuInterface], str | None]:
        boot_mode: str | None = None
        for found in self._looks(seconds):
            if found:
                return found, boot_mode
            if lines is not None:
                boot_mode = lines.boot_mode() or boot_mode
            if boot_mode not in (None, "download"):
                break
        return [], boot_mode

    def _looks(self, seconds: float) -> Iterator[list[DfuInterface]]:
        """Yield the boards that have appeared where the user wants one; a second one has a moment to appear, too."""
        deadline = Deadline(self._clock, seconds)
        settling: Deadline | None = None
        while True:
            found = [board for board in self._seen.boards() if self._selector.path in (None, board.path)]
            if not found:
                settling = None
            elif settling is None:
                settling = Deadline(self._clock, SETTLING_TIME)
            yield found if settling is not None and settling.left <= 0 else []
            if settling is None and deadline.left <= 0:
                return
            self._clock.sleep(SCAN_INTERVAL)

    def _only(self, found: Sequence[DfuInterface]) -> DfuInterface:
        """Return the board that has appeared, if it is one, and the one that the user wants."""
        serial, through = self._selector.serial, f"after the reset through {self._port.name}"
        if serial is not None:
            numbers = [self._serial_of(board) for board in found]
            fitting = [board for board, number in zip(found, numbers) if number and is_same_serial(number, serial)]
            if not fitting:
                seen = ", ".join(f"{board.path} ({number or 'unknown'})" for board, number in zip(found, numbers))
                raise OtherSerialError(
                    f"No {self._target.chip} with serial number {serial} appeared {through}; those that did: {seen}."
                )
            found = fitting
        if len(found) > 1:
            paths = [board.path for board in found]
            message = f"{len(paths)} {self._target.chip} boards appeared {through}: {', '.join(paths)}."
            raise SeveralDevicesError(message, paths=paths)
        return found[0]

    def _serial_of(self, board: DfuInterface) -> str | None:
        with suppress(DeviceGoneError):
            return until_accessible(board.read_serial, clock=self._clock, patience=ACCESS_DELAY)
        return None


def _reset(lines: SerialLines, delay: float) -> None:
    lines.enter_download_mode(delay)
