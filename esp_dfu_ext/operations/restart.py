"""Restart a chip so that it starts its app, and see what is on its port afterwards.

Which way leads into the app depends on the pins that the reset samples, so nothing is claimed but what the bus showed.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from ..dfu.device import DfuDevice
from ..errors import EspDfuError, UsbError
from ..events import CameBack, EventSink, Notice
from ..loader.lines import SerialLines
from ..target import Target
from ..usb.handle import UsbHandle
from ..usb.serial_ports import SerialPort
from ..usb.system_port import SerialSystem
from ..usb.trace import Trace
from .acquaint import BoardLoader
from .board_port import RETURN_TIME, BoardPort

DEFAULT_RESET = "default-reset"  # esptool, --before
EN_PULSE = "en-pulse"  # the way of a bridge, in reports
HARD_RESET, WATCHDOG_RESET, NO_RESET = "hard-reset", "watchdog-reset", "no-reset"  # esptool, --after
BUS_RESET = "bus-reset"  # the way out of DFU mode that DFU 1.1 has, and dfu-util's


@dataclass(frozen=True)
class Restarted:
    """What became of a chip that was to restart.

    Attributes:
        by: What restarted it: ``en-pulse``, ``watchdog`` or ``bus-reset``.
        came_back: What is on its port: ``nothing``, as with an app without USB; ``app``, another device than the ROM's;
            ``rom``, a device like the ROM's: download mode again, or an app whose console is the ROM's; ``same``, the
            device that was there before: it did not restart.
        seen: The device on the port, in a few words.
    """

    by: str
    came_back: CameBack
    seen: str


@dataclass(frozen=True)
class Bridge:
    """A USB-UART bridge, or another serial port, whose DTR and RTS move the pins of a board.

    Attributes:
        system: Serial ports of the machine.
        port: Its serial port.
        trace: Takes what is done with it.
    """

    system: SerialSystem
    port: SerialPort
    trace: Trace | None = None

    def restart(self) -> None:
        """Reset the chip so that it starts its app; raises the errors of `SerialLines.restart`."""
        with SerialLines(self.system, self.port, trace=self.trace) as lines:
            lines.restart()


def pulse_en(bridge: Bridge | None, handle: UsbHandle, port: BoardPort, on_event: EventSink) -> bool:
    """Restart a chip by its EN pin; return whether it left the bus.

    Args:
        bridge: What gives EN a pulse; None for nothing.
        handle: The open board.
        port: Port of the board.
        on_event: Receives a notice if the bridge cannot be used.
    """
    if bridge is None:
        return False
    try:
        bridge.restart()
    except EspDfuError as error:
        on_event(Notice("no-en-pulse", f"{error.message} The chip is restarted without it.", port.path))
        return False
    return port.has_lost_it(handle)


def restart(handle: UsbHandle, loader: BoardLoader | None, port: BoardPort, after: str) -> str | None:
    """Restart a chip by the best way that `after` allows, without its pins.

    Args:
        handle: The open board.
        loader: Its serial loader; None to do without.
        port: Its port.
        after: ``hard-reset`` for the watchdog, or a bus reset if that has no effect; ``watchdog-reset`` or
            ``bus-reset`` for one of them alone.

    Returns:
        What should restart it, as in `Restarted`; None if the watchdog cannot be reached and nothing else may be used.
    """
    if after != BUS_RESET and loader is not None and loader.restart():
        loader.close()
        if after == WATCHDOG_RESET or port.has_lost_it(handle):
            return "watchdog"
    if after == WATCHDOG_RESET:
        return None
    if loader is not None:
        loader.close()  # an open port of the system would outlive its device
    with suppress(UsbError):
        DfuDevice(handle).reset_bus()  # the chip restarts during it, so an error here means nothing
    return BUS_RESET


def what_came_back(port: BoardPort, target: Target, by: str, seconds: float = RETURN_TIME) -> Restarted:
    """Wait until a new device is on the port, for `seconds` at most, and return what was seen."""
    now = port.wait_for_other(seconds)
    if now is None:
        return Restarted(by, "nothing", "nothing")
    seen = f"{port.describe(now)} (device {now.address})"
    if not port.is_other(now):
        return Restarted(by, "same", f"still the same, {seen}: the reset did not restart it")
    return Restarted(by, "rom" if now.usb_id == target.usb_id else "app", seen)
