"""What an operation reports while it runs.

Operations call an event sink and never print. The events of one flashed board come in this order::

    Waiting*  DeviceFound?  (PhaseStarted Progress* PhaseFinished)*  (Flashed | Failed)  BoardLeft?

A second `DeviceFound` comes within the phase ``detach`` if the board ran an app (`DeviceFound.app`): it is the ROM's.
With a serial port that the user named, the phase ``enter`` comes before `DeviceFound`, because only then the board is
known; its path is the name of that port. `BoardIdentified` comes between two phases, before the download, from boards
whose serial loader answers, and `PartsSkipped` after the comparison, if flash memory holds something of the image.
Phases come in the order of `Phase`; phases that are not needed are left out. A ``restart`` or ``strict-restart`` notice
ends the phase that is running, and the download phase starts again. Any other notice may come at any point. An
operation on one board raises its error; an operation on several boards reports each error as `Failed`. Only a watch
reports `BoardLeft`, and `AlreadyFlashed` instead of all the other events, or after `BoardIdentified` if only the MAC
address tells which board it is. A `Failed` without `DeviceFound` means that the board left, or USB could not be
scanned, before esp-dfu contacted it.

Each event has a tag, its name in the JSON lines of `esp-dfu flash --json`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Literal, Optional, Union

import msgspec

CameBack = Literal["nothing", "app", "rom", "same"]  # what was on a port after a restart; see `Flashed`


class Phase(enum.Enum):
    """The steps of a flash, in order; in the first one the path is the name of a serial port."""

    ENTER = "enter"
    DETACH = "detach"
    COMPARE = "compare"
    RECOVER = "recover"
    DOWNLOAD = "download"
    VERIFY = "verify"
    CHECK = "check"
    RESET = "reset"


class Waiting(msgspec.Struct, frozen=True, tag_field="event", tag="waiting"):
    """No matching board is connected yet.

    Attributes:
        seconds: Time left until esp-dfu gives up.
    """

    seconds: float


class DeviceFound(msgspec.Struct, frozen=True, tag_field="event", tag="device-found"):
    """A board was chosen.

    An app that will be asked to hand over to the ROM is reported first, and the ROM follows, as a second event.

    Attributes:
        path: Its USB port, ``bus-port.port``; over serial, the name of its serial port, in all events.
        mode: ``run-time`` or ``DFU``, as DFU 1.1 names the two modes; ``serial`` over the serial port.
        serial: Its serial number; None if it has none or could not be read.
        app: VID and PID of the app, ``vvvv:pppp``; None if it is the ROM, or an app with the ROM's USB console.
    """

    path: str
    mode: Literal["run-time", "DFU", "serial"]
    serial: Optional[str]
    app: Optional[str] = None


class BoardIdentified(msgspec.Struct, frozen=True, tag_field="event", tag="board-identified"):
    """The board's serial loader has said who it is.

    Attributes:
        path: The board's USB port.
        mac: Its MAC address, ``aa:bb:cc:dd:ee:ff``.
        flash_size: Size of its flash memory in bytes by the JEDEC ID; None if the ID is unknown.
        secure_boot: Secure Boot is enabled on it.
        flash_encryption: Flash encryption is enabled on it.
    """

    path: str
    mac: str
    flash_size: Optional[int]
    secure_boot: bool
    flash_encryption: bool


class PartsSkipped(msgspec.Struct, frozen=True, tag_field="event", tag="parts-skipped"):
    """Flash memory holds parts of the image already; they are not sent.

    Attributes:
        path: The board's USB port.
        skipped: Their size in bytes.
        size: Size of all parts in bytes; equal to `skipped` if nothing is sent.
    """

    path: str
    skipped: int
    size: int


class PhaseStarted(msgspec.Struct, frozen=True, tag_field="event", tag="phase-started"):
    """A phase starts.

    Attributes:
        path: The board's USB port.
        phase: The phase.
        total: Size of the phase in bytes; 0 if it transfers nothing.
    """

    path: str
    phase: Phase
    total: int = 0


class Progress(msgspec.Struct, frozen=True, tag_field="event", tag="progress"):
    """A part of a phase is done.

    Attributes:
        path: The board's USB port.
        phase: The phase.
        done: Bytes sent so far.
        total: Bytes to send in this phase.
        name: File being sent; empty between files.
    """

    path: str
    phase: Phase
    done: int
    total: int
    name: str = ""


class PhaseFinished(msgspec.Struct, frozen=True, tag_field="event", tag="phase-finished"):
    """A phase is complete.

    Attributes:
        path: The board's USB port.
        phase: The phase.
        seconds: How long it took.
    """

    path: str
    phase: Phase
    seconds: float


class Notice(msgspec.Struct, frozen=True, tag_field="event", tag="notice"):
    """Something that users should know, although nothing failed.

    Attributes:
        code: Stable name of the notice: ``restart``, ``strict-restart``, ``part-size-raised``, ``renamed``,
            ``encryption``, ``secure-boot``, ``missing-parts``, ``forced``, ``detach-again``, ``no-loader``,
            ``flash-size``, ``no-restart``, ``no-en-pulse`` or ``report``.
        message: The notice, for people.
        path: USB port of the board it is about; empty if it is not about a board.
    """

    code: str
    message: str
    path: str = ""


class Flashed(msgspec.Struct, frozen=True, tag_field="event", tag="flashed"):
    """A board was flashed, and the chip confirmed it.

    Attributes:
        path: The board's USB port.
        size: Bytes written to flash memory.
        seconds: Time from the first contact to the last answer.
        status: Last bStatus, such as ``OK``.
        state: Last bState, such as ``dfuIDLE``; empty over serial.
        skipped: Bytes of the image that flash memory held already, so that they were not sent.
        reset_by: What restarted the chip afterwards: ``en-pulse``, ``watchdog`` or ``bus-reset``; None if nothing did.
        came_back: What was on the port then: ``nothing``, as with an app that does not use USB; ``app``, another device
            than the ROM's; ``rom``, a device like the ROM's, which is download mode, or an app with the ROM's console;
            ``same``, the chip did not restart. None if nothing restarted it.
    """

    path: str
    size: int
    seconds: float
    status: str
    state: str
    skipped: int = 0
    reset_by: Optional[str] = None
    came_back: Optional[CameBack] = None


class Failed(msgspec.Struct, frozen=True, tag_field="event", tag="failed"):
    """One of several boards could not be flashed.

    Attributes:
        path: The board's USB port.
        code: Code of the error, as in docs/errors.md.
        message: Message of the error.
    """

    path: str
    code: str
    message: str


class AlreadyFlashed(msgspec.Struct, frozen=True, tag_field="event", tag="already-flashed"):
    """A board that this watch has flashed was connected again; it is not flashed a second time.

    Attributes:
        path: The board's USB port.
        serial: Its serial number, by which it was recognized; None if it was recognized by `mac`.
        mac: Its MAC address, by which it was recognized; None if that was not asked for.
    """

    path: str
    serial: Optional[str]
    mac: Optional[str] = None


class BoardLeft(msgspec.Struct, frozen=True, tag_field="event", tag="board-left"):
    """A finished board was unplugged; its port is free for the next board.

    Attributes:
        path: The USB port.
    """

    path: str


Event = Union[
    Waiting,
    DeviceFound,
    BoardIdentified,
    PartsSkipped,
    PhaseStarted,
    Progress,
    PhaseFinished,
    Notice,
    Flashed,
    Failed,
    AlreadyFlashed,
    BoardLeft,
]
EventSink = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Drop the event; the default sink."""
