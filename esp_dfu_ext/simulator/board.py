"""A board on a port: how the device connects and leaves, and the faults that a test or a user plans."""

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
DETACH_TIME = 0.4  # seconds for which the device is off the bus after DFU_DETACH
CONSOLE_APP_TIME = 0.05  # seconds that an app with the ROM's USB console stays on the bus before it restarts


class DeviceGone(Exception):
    """The device is not on the bus."""


class AccessDenied(Exception):
    """The operating system does not allow the device to be opened."""


class Busy(Exception):
    """Another program has claimed the interface."""


class Moment(enum.Enum):
    """A point at which a fault can strike, other than a DFU request."""

    OPEN = "a program opens it"
    STRING = "a string descriptor is read"
    RESET = "the bus is reset"


Answer = Callable[[], bytes]
Effect = Callable[["Board", Answer], bytes]


@dataclass(frozen=True)
class Fault:
    """A fault that strikes once.

    Attributes:
        effect: What happens. It receives the board and a function that returns the ROM's answer; it returns an
            answer or raises what `Board.control` raises.
        block: Number of blocks received since the board appeared before the fault can strike; the zero-length block
            counts.
        at: Request or moment at which it then strikes.
        mode: Mode in which it strikes; None for both.
    """

    effect: Effect
    block: int = 0
    at: Request | Moment = Request.DFU_DNLOAD
    mode: Mode | None = None


def stall(board: Board, answer: Answer) -> bytes:
    """Effect: the device stalls the request."""
    raise ControlStall


def hang(board: Board, answer: Answer) -> bytes:
    """Effect: the request is lost and never answered."""
    raise ControlTimeout


def vanish(board: Board, answer: Answer) -> bytes:
    """Effect: the board is unplugged."""
    board.unplug()
    raise DeviceGone


def bus_reset(board: Board, answer: Answer) -> bytes:
    """Effect: another program resets the bus, which restarts a ROM in DFU mode."""
    board.reset_bus()
    return answer()


def error_status(status: Status) -> Effect:
    """Return an effect: the device accepts the request and is in dfuERROR with this status afterwards."""

    def effect(board: Board, answer: Answer) -> bytes:
        answered = answer()
        board.rom.fail(status)
        return answered

    return effect


@dataclass
class Faults:
    """Faults of one board.

    Attributes:
        no_access: Opening fails.
        access_after: Seconds after the board appears from which opening succeeds despite `no_access`.
        busy: Claiming fails.
        no_return: The board never returns after DFU_DETACH.
        return_mode: Mode in which the board returns after DFU_DETACH.
        block_time: Seconds per block.
        planned: Faults that strike once each.
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
        """Plan a fault that strikes once; see Fault."""
        self.planned.append(Fault(effect, block, at, mode))


@dataclass
class Board:
    """A simulated board.

    Attributes:
        target: Data of the chip.
        path: USB port path, ``bus-port.port``.
        clock: Clock by which the board connects and leaves.
        rom: The chip's ROM with its flash memory.
        faults: Faults of the board.
        console_app: In run-time mode an app with the ROM's USB console is running.
        boots_app: The strapping pins let the app start after a reset; the app has no USB.
        present: The device is on the bus.
        address: Address on the bus.
        blocks: Number of blocks received since the board appeared.
        appeared: Time at which the board appeared.
        holder: Open handle that has claimed the DFU interface; the operating system allows no second one.
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
    # Future events: (time, mode to appear in, or None to leave).
    _schedule: list[tuple[float, Mode | None]] = field(default_factory=list)
    _bus_addresses: list[int] = field(default_factory=lambda: [0])

    @classmethod
    def make(cls, target: Target, path: str, clock: Clock, *, number: int = 0, flash_size: int | None = None) -> Board:
        """Return a new board: in download mode, with erased flash memory."""
        fixed = target.usb.serial == "fixed"
        serial = "0" if fixed else f"7c:df:a1:00:{number >> 8:02x}:{number & 0xFF:02x}"
        flash = NorFlash(flash_size or target.flash.limit, target.flash.sector)
        return cls(target, path, clock, Rom(target, flash, serial))

    def share_addresses(self, counter: list[int]) -> None:
        """Take addresses from the counter of a bus, as the host does at each enumeration."""
        self._bus_addresses = counter
        self._appear(self.rom.mode)

    def plug(self, mode: Mode = Mode.RUN_TIME, *, after: float = 0.0) -> None:
        """Plug the board in, now or `after` seconds from now."""
        self._schedule[:] = [(self.clock.monotonic() + after, mode)]
        self.update()

    def unplug(self) -> None:
        """Unplug the board now."""
        self._schedule.clear()
        self.present = False

    def update(self) -> None:
        """Carry out everything that is due."""
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
        """Open the device; raise AccessDenied, or what a fault raises."""
        self.check_access()
        self._answer(Moment.OPEN, bytes)

    def check_access(self) -> None:
        """Raise AccessDenied while the operating system does not allow the device to be opened."""
        after = self.faults.access_after
        waited = self.clock.monotonic() - self.appeared
        if self.faults.no_access and (after is None or waited < after):
            raise AccessDenied

    def control(self, request_type: int, request: int, value: int, data: bytes, length: int) -> bytes:
        """Carry out a control transfer; see `Rom.control` for the arguments.

        Raises:
            ControlStall, ControlTimeout: The ROM or a fault raises it.
            DeviceGone: The device is not on the bus, or leaves because of this request.
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
            return self._answer(Request(request), answer)
        if (request_type, request, value >> 8) == _GET_STRING:
            return self._answer(Moment.STRING, answer)
        return answer()

    def _answer(self, at: Request | Moment, answer: Answer) -> bytes:
        """Return the ROM's answer, changed by the first fault that is due."""
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
        """Leave the bus during the request and return later."""
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
        """Reset the bus; in DFU mode this restarts the ROM, even in the middle of a download."""
        self.update()
        if not self.present:
            raise DeviceGone
        self._answer(Moment.RESET, self._reset)

    def _reset(self) -> bytes:
        mode = self.rom.mode_after_reset()
        if mode is None:
            return b""
        self.present = False
        if mode is Mode.DFU or not self.boots_app:
            self._schedule = [(self.clock.monotonic() + DETACH_TIME, mode)]
        raise DeviceGone
