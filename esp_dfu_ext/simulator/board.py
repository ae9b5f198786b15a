"""A board on a port: how the chip comes and goes on the bus, and what goes wrong on request."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field

from ..clock import Clock
from ..dfu.spec import Mode, Request, Status
from ..target import Target
from .nor import NorFlash
from .rom import ControlStall, ControlTimeout, Rom

_GET_STRING = (0x80, 0x06, 0x03)  # bmRequestType, bRequest, high byte of wValue
DETACH_TIME = 0.4  # seconds off the bus after DFU_DETACH
CONSOLE_APP_TIME = 0.05  # how long an app with the ROM's USB console is back before it restarts


class DeviceGone(Exception):
    """The device is not on the bus (any more)."""


class AccessDenied(Exception):
    """The host's system does not let us open it."""


class Busy(Exception):
    """Another program holds the interface."""


class Moment(enum.Enum):
    """When something can go wrong, besides at a DFU request."""

    OPEN = "a program opens it"
    STRING = "a string descriptor is read"
    RESET = "the bus is reset"


Answer = Callable[[], bytes]
Effect = Callable[["Board", Answer], bytes]


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong once.

    Attributes:
        effect: what happens. It gets the board and the ROM, which it may ask for its own answer; it returns an
            answer, or raises what `Board.control` raises.
        block: not before so many blocks have come since the board appeared; the zero-length one counts.
        at: the first of these then.
        mode: only in this mode; None for either.
    """

    effect: Effect
    block: int = 0
    at: Request | Moment = Request.DFU_DNLOAD
    mode: Mode | None = None


def stall(board: Board, answer: Answer) -> bytes:
    """An effect: the device refuses the request."""
    raise ControlStall


def hang(board: Board, answer: Answer) -> bytes:
    """An effect: the request is lost, and never answered."""
    raise ControlTimeout


def vanish(board: Board, answer: Answer) -> bytes:
    """An effect: the device is pulled out."""
    board.unplug()
    raise DeviceGone


def bus_reset(board: Board, answer: Answer) -> bytes:
    """An effect: somebody else resets the bus, which restarts the ROM in DFU mode."""
    board.reset_bus()
    return answer()


def report(status: Status) -> Effect:
    """An effect: the device takes the request, and is in dfuERROR with this status afterwards."""

    def effect(board: Board, answer: Answer) -> bytes:
        answered = answer()
        board.rom.fail(status)
        return answered

    return effect


@dataclass
class Faults:
    """What shall go wrong.

    Attributes:
        planned: what shall go wrong once each.
        no_access: opening is refused; `access_after` seconds after it appears it no longer is.
        busy: claiming is refused.
        no_return: after DFU_DETACH it never comes back.
        return_mode: what it comes back as after DFU_DETACH.
        block_time: seconds that each block takes.
    """

    no_access: bool = False
    access_after: float | None = None
    busy: bool = False
    no_return: bool = False
    return_mode: Mode = Mode.DFU
    block_time: float = 0.0
    planned: list[Fault] = field(default_factory=list)

    def plan(
        self,
        effect: Effect,
        block: int = 0,
        at: Request | Moment = Request.DFU_DNLOAD,
        mode: Mode | None = None,
    ) -> None:
        """Let something go wrong once; see Fault."""
        self.planned.append(Fault(effect, block, at, mode))


@dataclass
class Board:
    """One simulated board.

    Attributes:
        target: the chip.
        path: ``bus-port.port``.
        clock: the time that its comings and goings follow.
        rom: the chip's ROM, with its flash.
        faults: what shall go wrong.
        console_app: in run-time mode it is an app with the ROM's USB console.
        boots_app: the straps let the app start after a reset, and it has no USB.
        blocks: that have come since it appeared.
        holder: the open handle that has claimed its DFU interface; the host's system lets no other in.
    """

    target: Target
    path: str
    clock: Clock
    rom: Rom
    faults: Faults = field(default_factory=Faults)
    console_app: bool = False
    boots_app: bool = False
    present: bool = True
    address: int = 1
    blocks: int = 0
    appeared: float = 0.0
    holder: object | None = None
    # What comes: (time, mode to appear in or None to leave).
    _schedule: list[tuple[float, Mode | None]] = field(default_factory=list)
    _bus_addresses: list[int] = field(default_factory=lambda: [0])

    @classmethod
    def make(cls, target: Target, path: str, clock: Clock, *, number: int = 0, flash_size: int | None = None) -> Board:
        """A board as it comes out of the bag: download mode, empty flash."""
        fixed = target.usb.serial == "fixed"
        serial = "0" if fixed else f"7c:df:a1:00:{number >> 8:02x}:{number & 0xFF:02x}"
        flash = NorFlash(flash_size or target.flash.limit, target.flash.sector)
        return cls(target, path, clock, Rom(target, flash, serial))

    def share_addresses(self, counter: list[int]) -> None:
        """Draw addresses from a bus's counter, as the host does at each enumeration."""
        self._bus_addresses = counter
        self._appear(self.rom.mode)

    def plug(self, mode: Mode = Mode.RUN_TIME, *, after: float = 0.0) -> None:
        """Plug it in (again), now or in so many seconds."""
        self._schedule[:] = [(self.clock.monotonic() + after, mode)]
        self.update()

    def unplug(self) -> None:
        """Pull it out, now."""
        self._schedule.clear()
        self.present = False

    def update(self) -> None:
        """Let everything happen that is due."""
        while self._schedule and self._schedule[0][0] <= self.clock.monotonic():
            _, mode = self._schedule.pop(0)
            if mode is None:
                self.present = False
            else:
                self._appear(mode)

    def _appear(self, mode: Mode) -> None:
        self.rom.restart(mode)
        self.present = True
        self.appeared = self.clock.monotonic()
        self._bus_addresses[0] += 1
        self.address = self._bus_addresses[0]
        self.blocks = 0
        self.holder = None

    def open(self) -> None:
        """A program opens it; raises AccessDenied, or what a fault wants."""
        self.check_access()
        self._meet(Moment.OPEN, bytes)

    def check_access(self) -> None:
        """Raises AccessDenied as long as the host's system would not let us open it."""
        after = self.faults.access_after
        waited = self.clock.monotonic() - self.appeared
        if self.faults.no_access and (after is None or waited < after):
            raise AccessDenied

    def control(self, request_type: int, request: int, value: int, data: bytes, length: int) -> bytes:
        """A control transfer.

        Raises:
            ControlStall, ControlTimeout: as the ROM does, or as a fault wants it.
            DeviceGone: it is not there, or leaves because of this request.
        """
        self.update()
        if not self.present:
            raise DeviceGone

        def answer() -> bytes:
            answered = self.rom.control(request_type, request, value, data, length)
            if is_dfu and request == Request.DFU_DETACH and self.rom.will_detach:
                self._detach()
                raise DeviceGone
            return answered

        is_dfu = request_type & 0x60 == 0x20
        if is_dfu and request in Request.__members__.values():
            return self._meet(Request(request), answer)
        if (request_type, request, value >> 8) == _GET_STRING:
            return self._meet(Moment.STRING, answer)
        return answer()

    def _meet(self, at: Request | Moment, answer: Answer) -> bytes:
        """The ROM's answer, or what the first fault makes of it that is planned for now."""
        if at is Request.DFU_DNLOAD and self.faults.block_time:
            self.clock.sleep(self.faults.block_time)
        due = next((fault for fault in self.faults.planned if self._is_due(fault, at)), None)
        if at is Request.DFU_DNLOAD:
            self.blocks += 1
        if due is None:
            return answer()
        self.faults.planned.remove(due)
        return due.effect(self, answer)

    def _is_due(self, fault: Fault, at: Request | Moment) -> bool:
        return fault.at is at and fault.block <= self.blocks and fault.mode in (None, self.rom.mode)

    def _detach(self) -> None:
        """Leave the bus inside the request, and come back a little later."""
        self.present = False
        if self.faults.no_return:
            return
        back = self.clock.monotonic() + DETACH_TIME
        if self.console_app:
            restart = back + CONSOLE_APP_TIME
            self._schedule = [(back, Mode.RUN_TIME), (restart, None), (restart + DETACH_TIME, Mode.DFU)]
        else:
            self._schedule = [(back, self.faults.return_mode)]

    def reset_bus(self) -> None:
        """A bus reset; the chip's ROM restarts upon one in DFU mode, also in the middle of a download."""
        self.update()
        if not self.present:
            raise DeviceGone
        self._meet(Moment.RESET, self._reset)

    def _reset(self) -> bytes:
        mode = self.rom.mode_after_reset()
        if mode is None:
            return b""
        self.present = False
        if mode is Mode.DFU or not self.boots_app:
            self._schedule = [(self.clock.monotonic() + DETACH_TIME, mode)]
        raise DeviceGone
