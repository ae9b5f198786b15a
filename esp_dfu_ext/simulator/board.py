"""A board on a port: how the device connects and leaves, and the faults that a test or a user plans."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from ..clock import Clock
from ..dfu.spec import Mode, Request, Status
from ..target import Target, Timing
from .apps import App
from .nor import NorFlash
from .registers import ArmedWatchdog
from .rom import ControlStall, ControlTimeout, Rom, TransferNak
from .timing import ChipTime, request_time, work_time

DFU_INTERFACE = 2
SERIAL_INTERFACES = (0, 1)  # the CDC interface's control and data half; Linux binds cdc_acm to both
_GET_STRING = (0x80, 0x06, 0x03)  # bmRequestType, bRequest, high byte of wValue
DETACH_TIME = 0.4  # seconds for which the device is off the bus after DFU_DETACH or a reset of the chip
EN_RISE_TIME = 0.005  # seconds from the end of a low level on EN to the reset's end, when the straps are sampled
# What a ROM prints when it starts; the numbers depend on the chip and the reset.
_DOWNLOAD = b"\r\nrst:0x1 (POWERON),boot:0x0 (DOWNLOAD(USB/UART0))\r\nwaiting for download\r\n"
_APP = b"\r\nrst:0x1 (POWERON),boot:0x8 (SPI_FAST_FLASH_BOOT)\r\n"


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
    SERIAL_OUT = "bytes arrive on the serial port"
    SERIAL_IN = "a packet of the serial port is read"


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
        timing: The chip takes this much time; None for none.
        app: App with USB that is in flash memory; None for one without USB.
        boots_app: BOOT is not held down: a reset starts the app, unless something else asks for download mode.
        boot_low: A USB-UART bridge pulls the strapping pin low, as BOOT does.
        strap_wired: A bridge can do so.
        enabled: EN is high; a low level holds the chip in reset.
        usb_disabled: eFuses (such as Secure Download Mode or DIS_USB) keep the ROM off USB: only an app appears.
        deaf: The chip does not answer on USB until it is reset.
        uart: What the ROM has printed on UART0 and nobody has read.
        device: What USB sees of the board: the ROM or the app.
        present: The device is on the bus.
        address: Address on the bus.
        blocks: Number of blocks received since the board appeared.
        appeared: Time at which the board appeared.
        holders: Open handle that has claimed an interface, by its number; the operating system allows no second one.
        kernel_driver: The operating system's serial driver is bound to the CDC interface.
    """

    target: Target
    path: str
    clock: Clock
    rom: Rom
    faults: Faults = field(default_factory=Faults)
    timing: Timing | None = None
    app: App | None = None
    boots_app: bool = False
    boot_low: bool = False
    strap_wired: bool = True
    enabled: bool = True
    usb_disabled: bool = False
    deaf: bool = False
    uart: bytearray = field(default_factory=bytearray)
    present: bool = True
    address: int = 1
    blocks: int = 0
    appeared: float = 0.0
    holders: dict[int, object] = field(default_factory=dict)
    kernel_driver: bool = True
    # The watchdog that a command of the serial loader armed, and when it resets the chip.
    _watchdog: tuple[ArmedWatchdog, float] | None = None
    # Future events, in order: time, and what happens then.
    _schedule: list[tuple[float, Callable[[], object]]] = field(default_factory=list)
    _bus_addresses: list[int] = field(default_factory=lambda: [0])
    _event_time: float | None = None
    _kept_usb: bool = False  # the ROM took the bus over from an app without a new enumeration

    def __post_init__(self) -> None:
        self.device: Rom | App = self.rom
        self._time = ChipTime(self.clock)

    @classmethod
    def make(cls, target: Target, path: str, clock: Clock, *, number: int = 0, flash_size: int | None = None) -> Board:
        """Return a new board: in download mode, with erased flash memory."""
        mac = f"7c:df:a1:00:{number >> 8:02x}:{number & 0xFF:02x}"
        serial = "0" if target.usb.serial == "fixed" else mac
        flash = NorFlash(flash_size or target.flash.limit, target.flash.sector)
        return cls(target, path, clock, Rom(target, flash, serial, mac=mac))

    def share_addresses(self, counter: list[int]) -> None:
        """Take addresses from the counter of a bus, as the host does at each enumeration."""
        self._bus_addresses = counter
        self._appear(self.device, self.rom.mode)

    def start_app(self, app: App) -> None:
        """Run an app with USB from now on; a reset starts it again."""
        self.app = app
        self.boots_app = True
        self._appear(app, Mode.RUN_TIME)

    def plug(self, mode: Mode = Mode.RUN_TIME, *, after: float = 0.0) -> None:
        """Plug the board in with BOOT held down, now or `after` seconds from now: the ROM starts."""
        self._reset_rom(rtc=True)
        self._schedule[:] = [(self.clock.monotonic() + after, partial(self._appear, self.rom, mode))]
        self.update()

    def unplug(self) -> None:
        """Unplug the board now."""
        self._schedule.clear()
        self.present = False

    def update(self) -> None:
        """Carry out everything that is due."""
        if self._watchdog is not None and self._watchdog[1] <= self.clock.monotonic():
            armed, self._event_time = self._watchdog
            self.reset(rtc=armed.resets_rtc)
        while self._schedule and self._schedule[0][0] <= self.clock.monotonic():
            self._event_time, action = self._schedule.pop(0)
            action()
        self._event_time = None

    def _now(self) -> float:
        """Return the time; within a future event, the time for which it was planned."""
        return self.clock.monotonic() if self._event_time is None else self._event_time

    def _appear(self, device: Rom | App, mode: Mode) -> None:
        self.device = device
        self.rom.restart(mode)
        if self.app is not None:
            self.app.start()
        self.present = device is not self.rom or not self.usb_disabled
        self.deaf = self._kept_usb = False
        self.appeared = self.clock.monotonic()
        self._bus_addresses[0] += 1
        self.address = self._bus_addresses[0]
        self.blocks = 0
        self.holders.clear()
        self.kernel_driver = True

    def set_pins(self, *, enabled: bool, boot_low: bool) -> None:
        """Set the levels that a USB-UART bridge gives EN and the strapping pin; EN resets the chip."""
        self.update()
        self.boot_low = boot_low and self.strap_wired
        if self.enabled and not enabled:
            self.unplug()
        elif enabled and not self.enabled:
            self._schedule = [(self._now() + EN_RISE_TIME, partial(self.reset, rtc=True))]
        self.enabled = enabled

    def reset(self, *, rtc: bool, mode: Mode = Mode.RUN_TIME) -> None:
        """Reset the chip: it leaves the bus, and the ROM's download mode or the app starts.

        Args:
            rtc: The reset includes the RTC, and so clears FORCE_DOWNLOAD_BOOT: EN, power, or the RTC watchdog's last
                stage. A reset of the system or the processor keeps it.
            mode: Mode of the ROM in download mode.
        """
        self._reset_rom(rtc=rtc)
        self.present = False
        back = self._now() + DETACH_TIME
        download = self.rom.force_download or self.boot_low or not self.boots_app
        self.uart += _DOWNLOAD if download else _APP
        if download:
            self._schedule = [(back, partial(self._appear, self.rom, mode))]
        else:
            self._schedule = [(back, partial(self._appear, self.app, Mode.RUN_TIME))] if self.app else []

    def _reset_rom(self, *, rtc: bool) -> None:
        self._watchdog = None
        self.rom.force_download = self.rom.force_download and not rtc
        self.rom.reset_chip()

    def disable_usb(self) -> None:
        """Burn eFuses that keep the ROM off USB; the device leaves for good."""
        self.usb_disabled = True
        self.unplug()

    @property
    def holder(self) -> object | None:
        """An open handle that has claimed an interface, or None; set it to claim the DFU interface."""
        return next(iter(self.holders.values()), None)

    @holder.setter
    def holder(self, handle: object) -> None:
        self.holders[DFU_INTERFACE] = handle

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
        self._check_present()
        if self.deaf:
            raise ControlTimeout

        def answer() -> bytes:
            self._time.begin()
            answered = self.device.control(request_type, request, value, data, length)
            self._spend_request(download=is_dfu and request == Request.DFU_DNLOAD)
            if isinstance(self.device, App):
                self._restart_app(self.device)
            elif is_dfu and request == Request.DFU_DETACH and self.rom.will_detach:
                self._detach()
            return answered

        is_dfu = request_type & 0x60 == 0x20
        at: Request | Moment | None = None
        if is_dfu and request in Request.__members__.values():
            at = Request(request)
        elif (request_type, request, value >> 8) == _GET_STRING:
            at = Moment.STRING
        answered = answer() if at is None else self._answer(at, answer)
        self._obey_rom()
        return answered if request_type & 0x80 else b""

    def bulk_out(self, endpoint: int, data: bytes) -> None:
        """Carry out a bulk transfer to the device.

        Raises:
            TransferNak: The device does not take it.
            DeviceGone: The device is not on the bus.
        """
        rom = self._listening_rom()

        def answer() -> bytes:
            self._time.begin()
            rom.bulk_out(endpoint, data, self.clock.monotonic())
            self._spend(0.0)
            if rom.loader is not None:
                rom.loader.finish(self.clock.monotonic())
            return b""

        self._answer(Moment.SERIAL_OUT, answer)
        self._obey_rom()

    def bulk_in(self, endpoint: int) -> bytes:
        """Carry out a bulk transfer from the device; return its bytes.

        Raises:
            TransferNak: The device has nothing to send.
            DeviceGone: The device is not on the bus.
        """
        rom = self._listening_rom()

        def answer() -> bytes:
            self._time.begin()
            packet = rom.bulk_in(endpoint, self.clock.monotonic())
            self._spend(self.timing.serial_byte if self.timing else 0.0)
            return packet

        return self._answer(Moment.SERIAL_IN, answer)

    def _listening_rom(self) -> Rom:
        """Return the ROM; an app's serial port takes nothing and says nothing."""
        self._check_present()
        if self.device is not self.rom or self.deaf:
            raise TransferNak
        return self.rom

    def _check_present(self) -> None:
        self.update()
        if not self.present:
            raise DeviceGone

    def _obey_rom(self) -> None:
        """Carry out what a command or the line state asked for: a watchdog to watch, or a reset."""
        if self.rom.loader is None:
            return
        armed = self.rom.loader.registers.watchdog
        if armed is None:
            self._watchdog = None
        elif self._watchdog is None or self._watchdog[0] is not armed:
            self._watchdog = (armed, self._now() + armed.seconds)
        if self.rom.must_reset:
            self.reset(rtc=False)

    def _spend_request(self, *, download: bool) -> None:
        """Let the time pass that the ROM takes for a control request; an app takes none."""
        if self.timing is not None and self.device is self.rom:
            fast = self.rom.serial_loader_active
            self._spend(request_time(self.timing, download=download, serial_loader=fast))

    def _spend(self, seconds: float) -> None:
        """Let time pass, and the time that the flash memory takes for its work."""
        work = self.rom.spi_flash.take_work()
        if self.timing is not None:
            self._time.spend(seconds + work_time(self.timing, work))

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
        return fault.at is at and fault.block <= self.blocks and fault.mode in (None, self.device.mode)

    def _detach(self) -> None:
        """Leave the bus during the request and return later."""
        if self._kept_usb:
            self.deaf = True
            raise ControlTimeout
        self.present = False
        if not self.faults.no_return:
            back = self._now() + DETACH_TIME
            self._schedule = [(back, partial(self._appear, self.rom, self.faults.return_mode))]
        raise DeviceGone

    def _restart_app(self, app: App) -> None:
        """Restart the chip if the app has asked for it."""
        how = app.restart
        if how is None or self._schedule:
            return
        self.rom.force_download = self.rom.force_download or how.download
        mode = how.mode if self.faults.return_mode is Mode.DFU else self.faults.return_mode
        action = self._take_over if how.keeps_usb else partial(self.reset, rtc=False, mode=mode)
        if self.faults.no_return:
            action = self.unplug
        self._schedule = [(self._now() + how.delay, action)]
        self.update()

    def _take_over(self) -> None:
        """Restart the chip while its USB device stays on the bus."""
        assert self.app is not None
        download = self.rom.force_download or self.boot_low
        self._reset_rom(rtc=False)
        self.rom.restart(Mode.RUN_TIME)
        self.app.start()
        self.device = self.rom if download else self.app
        self._kept_usb = download

    def reset_bus(self) -> None:
        """Reset the bus; in DFU mode this restarts the ROM, even in the middle of a download."""
        self._check_present()
        self._answer(Moment.RESET, self._reset)

    def _reset(self) -> bytes:
        if self.rom.dead:  # the host cannot enumerate it again
            self.unplug()
            raise DeviceGone
        mode = self.rom.mode_after_reset() if self.device is self.rom else None
        if mode is Mode.RUN_TIME:
            self.reset(rtc=False)
        elif mode is Mode.DFU:
            self.present = False
            self._schedule = [(self._now() + DETACH_TIME, partial(self._appear, self.rom, mode))]
        else:
            if self.rom.loader is not None:
                self.rom.loader.bus_reset()
            return b""
        raise DeviceGone
