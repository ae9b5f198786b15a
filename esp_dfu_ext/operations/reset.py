"""Restart a board that was left in download mode, so that it starts its app."""

from __future__ import annotations

from collections.abc import Sequence

from ..clock import Clock
from ..dfu.access import open_interface
from ..dfu.discovery import DfuInterface, is_same_serial
from ..dfu.spec import Mode
from ..errors import (
    DeviceNotFoundError,
    OtherPathError,
    OtherSerialError,
    SerialLoaderError,
    SeveralDevicesError,
)
from ..events import EventSink, Phase, ignore
from ..loader.rom_loader import preloading
from ..target import Target
from ..usb.bus import Bus
from .acquaint import BoardLoader
from .board_port import BoardPort
from .list import ListedDevice, list_devices
from .phases import timed
from .restart import BUS_RESET, HARD_RESET, WATCHDOG_RESET, Restarted, restart, what_came_back


def choose(bus: Bus, targets: Sequence[Target], path: str | None, serial: str | None) -> ListedDevice:
    """Return the board on a port, with a serial number, or the only one; any chip will do.

    Raises:
        DeviceNotFoundError: No board fits.
        SeveralDevicesError: More than one does.
        UsbUnavailableError: USB cannot be used on this machine.
    """
    boards = [listed for listed in list_devices(bus, targets) if listed.is_chip]
    fitting, kind, which = boards, DeviceNotFoundError, ""
    if path is not None:
        fitting, kind, which = [b for b in boards if b.device.path == path], OtherPathError, f" on port {path}"
    elif serial is not None:
        fitting = [b for b in boards if b.serial is not None and is_same_serial(b.serial, serial)]
        kind, which = OtherSerialError, f" with serial number {serial}"
    if not fitting:
        notes = [f"Found on port {board.device.path}: {board.description}." for board in boards]
        raise kind(f"No board with DFU{which} found.", notes=notes)
    if len(fitting) > 1:
        paths = [board.device.path for board in fitting]
        raise SeveralDevicesError(f"Found {len(paths)} boards: {', '.join(paths)}.", paths=paths)
    return fitting[0]


def reset_board(
    board: ListedDevice,
    bus: Bus,
    targets: Sequence[Target],
    clock: Clock,
    *,
    after: str = HARD_RESET,
    on_event: EventSink = ignore,
) -> Restarted:
    """Restart a board.

    Args:
        board: The board.
        bus: Where it is.
        targets: Known chips.
        clock: Time.
        after: ``hard-reset`` or ``watchdog-reset``, as in `restart.restart`.
        on_event: Receives the phase.

    Raises:
        SerialLoaderError: Its serial loader does not answer, and nothing else restarts it.
        UsbError: It cannot be opened.
    """
    interface, target = board.interfaces[0], board.target
    assert target is not None  # by `is_chip`
    port = BoardPort(bus, interface.device, targets, clock)
    with timed(Phase.RESET, interface.path, clock, on_event):
        with preloading():
            by = _restart(interface, target, port, clock, after)
        return what_came_back(port, target, by)


def _restart(interface: DfuInterface, target: Target, port: BoardPort, clock: Clock, after: str) -> str:
    loader = BoardLoader(interface.device, target, clock, ignore, required=True)
    with open_interface(interface, clock=clock, patience=0.0) as handle:
        try:
            loader.greet(handle, identify=False)
            if loader.rom is None and (after == WATCHDOG_RESET or interface.mode is Mode.RUN_TIME):
                # In run-time mode the ROM takes no notice of a bus reset.
                raise SerialLoaderError(f"{loader.problem.message} The chip was not restarted.", reason="connect")
            by = restart(handle, loader, port, after)
        finally:
            loader.close()
    return by or BUS_RESET
