"""Ask every board in download mode who it is; nothing is written, and each stays in the mode that it is in."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ..clock import Clock, Deadline
from ..dfu.access import open_interface
from ..dfu.discovery import SCAN_INTERVAL, DfuInterface, find_boards, is_same_serial
from ..dfu.spec import Mode
from ..errors import EspDfuError, OtherMacError, UsbError
from ..events import EventSink, Waiting, ignore
from ..loader.rom_loader import Identity
from ..target import Target
from ..usb.bus import Bus
from .acquaint import BoardLoader, known_mac
from .list import ListedDevice, list_devices
from .verify import ready


@dataclass(frozen=True)
class BoardInfo:
    """What is known of a board.

    Attributes:
        path: Port of the board.
        target: Its chip, by its USB ID.
        mode: Mode that it is in.
        serial: Serial number, None if the board has none or it could not be read.
        identity: What its serial loader says; None if that cannot be asked.
        revision: Chip revision, major * 100 + minor; None if that is unknown.
        problem: Why the board or its serial loader cannot be asked; None if it was.
    """

    path: str
    target: Target
    mode: Mode
    serial: str | None
    identity: Identity | None = None
    revision: int | None = None
    problem: EspDfuError | None = None


def board_infos(bus: Bus, targets: Sequence[Target], clock: Clock, paths: Collection[str] = ()) -> Iterator[BoardInfo]:
    """Yield what is known of each board, one after the other; about half a second for each.

    Args:
        bus: Where the boards are.
        targets: Known chips.
        clock: Time.
        paths: Ports of the boards to ask; all if empty.

    Raises:
        UsbUnavailableError: USB cannot be used on this machine.
    """
    for listed in list_devices(bus, targets):
        if listed.is_chip and (not paths or listed.device.path in paths):
            yield ask_board(listed, clock)


def port_of_mac(
    bus: Bus,
    target: Target,
    mac: str,
    *,
    clock: Clock,
    wait: float = 0.0,
    on_event: EventSink = ignore,
    apps: bool = False,
) -> str:
    """Return the port of the board with this MAC address, waiting up to `wait` seconds for it.

    An app, which is included with `apps`, has it if its serial number is the MAC address, with or without colons.

    Raises:
        OtherMacError: No board has it; the notes name those that could not be asked.
        UsbUnavailableError: USB cannot be used on this machine.
    """
    deadline = Deadline(clock, wait)
    while True:
        left, problems, seen = deadline.left, [], []
        for board in board_infos(bus, [target], clock):
            found = known_mac(target, board.serial, board.identity)
            if found is not None and found.lower() == mac.lower():
                return board.path
            seen.append(f"Seen on port {board.path}: {target.chip}, {f'MAC {found}' if found else 'MAC unknown'}.")
            if found is None and board.problem is not None:
                problems.append(board.problem.message)
        for app in _apps(bus, target) if apps else ():
            with suppress(UsbError):
                serial = app.read_serial()
                if serial is not None and is_same_serial(serial, mac):
                    return app.path
            seen.append(f"Seen on port {app.path}: the app {app.device.usb_id}, MAC unknown.")
        if deadline.left <= 0:
            raise OtherMacError(f"No {target.chip} with the MAC address {mac} found.", notes=[*seen, *problems])
        on_event(Waiting(left))
        deadline.sleep(SCAN_INTERVAL)


def _apps(bus: Bus, target: Target) -> list[DfuInterface]:
    """Return the apps that a flash may ask to hand over to the ROM."""
    return [found for found in find_boards(bus, target, [target], apps=True) if not found.is_rom_of(target)]


def ask_board(listed: ListedDevice, clock: Clock) -> BoardInfo:
    """Return what is known of a chip with DFU; an error is its `problem`."""
    interface, target = listed.interfaces[0], listed.target
    assert target is not None  # by `is_chip`
    identity = revision = problem = None
    loader = BoardLoader(interface.device, target, clock, ignore, serial=listed.serial, required=True)
    try:
        with open_interface(interface, clock=clock, patience=0.0) as handle:
            try:
                loader.greet(handle)
                identity = loader.identity
                revision = ready(loader).revision()
            finally:
                loader.close()
    except EspDfuError as error:
        problem = error
    return BoardInfo(interface.path, target, interface.mode, listed.serial, identity, revision, problem)
