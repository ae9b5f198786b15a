"""Simulated boards on a bus that logs every control transfer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from esp_dfu_ext import Flasher, FlashOptions, FlashResult
from esp_dfu_ext.clock import Clock, VirtualClock
from esp_dfu_ext.dfu.device import DfuDevice
from esp_dfu_ext.dfu.discovery import find
from esp_dfu_ext.dfu.spec import Mode
from esp_dfu_ext.events import Event, Notice, PhaseStarted
from esp_dfu_ext.image.format import DfuImage
from esp_dfu_ext.operations.restart import NO_RESET
from esp_dfu_ext.simulator import Board
from esp_dfu_ext.simulator.bus import OtherDevice, SimulatedBackend
from esp_dfu_ext.target import OtherUsb, Target
from esp_dfu_ext.usb.bus import Bus
from esp_dfu_ext.usb.serial_ports import SerialPort

from .archives import CHIP_SIZE, File, checked, small_image
from .chips import chip, chips


@dataclass(frozen=True)
class Transfer:
    """A control transfer as the host asked for it; `timeout` in seconds."""

    path: str
    request_type: int
    request: int
    value: int
    index: int
    data: bytes
    timeout: float
    when: float

    @property
    def is_dfu(self) -> bool:
        """True for a class request to an interface."""
        return self.request_type in (0x21, 0xA1)


Hook = Callable[[Transfer], None]


class Rig:
    """Boards on one bus, their clock, and a log of the control transfers.

    Attributes:
        log: control transfers in the order in which they were sent.
        events: events of `flash`.
        resets: paths of the ports that were reset.
        scans: number of backends made.
        handles: number of handles open now.
        before: called before a transfer reaches the board; may raise.
        after: called after the board has answered; may raise.
        on_event: called with each event of `flash`.
        system_ports: Serial ports that the system makes of the boards' interfaces, which it then lends to no program,
            as Windows and macOS; None for a system that lends them.
    """

    def __init__(self, boards: Iterable[Board] = (), clock: Clock | None = None, others: Iterable[OtherDevice] = ()):
        self.boards: list[Board] = []
        self.clock = clock or VirtualClock()
        self.others = tuple(others)
        self.log: list[Transfer] = []
        self.events: list[Event] = []
        self.resets: list[str] = []
        self.scans = 0
        self.handles = 0
        self.before: Hook | None = None
        self.after: Hook | None = None
        self.on_event: Callable[[Event], None] | None = None
        self.system_ports: list[SerialPort] | None = None
        self.bus = Bus(self.backend)
        self._addresses = [1]
        for board in boards:
            self.add(board)

    def add(self, board: Board) -> None:
        """Plug in a new board."""
        board.share_addresses(self._addresses)
        self.boards.append(board)

    def remove(self, board: Board) -> None:
        """Unplug a board for good."""
        board.unplug()
        self.boards.remove(board)

    def backend(self) -> Any:
        """Return a pyusb backend that shows these boards."""
        self.scans += 1
        return _LoggingBackend(self)

    @property
    def board(self) -> Board:
        """The only board."""
        (board,) = self.boards
        return board

    def handle(self, event: Event) -> None:
        """Record an event."""
        self.events.append(event)
        if self.on_event is not None:
            self.on_event(event)

    def flash(
        self,
        image: DfuImage | None = None,
        target: Target | None = None,
        *,
        path: str | None = None,
        serial: str | None = None,
        wait: float = 0.0,
        strict: bool = False,
        after: str = NO_RESET,
        no_loader: bool = False,
        force: bool = False,
        skip_flashed: bool = False,
        verify: bool = False,
    ) -> FlashResult:
        """Flash a board of this rig."""
        target = target or self.boards[0].target
        options = FlashOptions(
            wait=wait, strict=strict, after=after, no_loader=no_loader,
            force=force, skip_flashed=skip_flashed, verify=verify,
        )  # fmt: skip
        flasher = Flasher(options, bus=self.bus, targets=chips(), clock=self.clock, on_event=self.handle)
        return flasher.flash(checked(image, target), path=path, serial=serial)

    def dfu(self, request: int) -> list[Transfer]:
        """Return the DFU requests of one kind, in order."""
        return [t for t in self.log if t.is_dfu and t.request == request]

    def notices(self) -> list[str]:
        """Return the codes of the notices."""
        return [e.code for e in self.events if isinstance(e, Notice)]

    def phases(self) -> list[str]:
        """Return the names of the phases that started."""
        return [e.phase.value for e in self.events if isinstance(e, PhaseStarted)]

    def assert_flashed(self, image: DfuImage | None = None, board: Board | None = None) -> None:
        """Assert that the flash memory holds the image."""
        board = board or self.board
        image = image or small_image(board.target.name)
        assert_flashed(board.rom.flash.read, image)


Read = Callable[[int, int], bytes]  # flash memory, by address and size


def assert_flashed(read: Read, files: DfuImage | Sequence[File]) -> None:
    """Assert that flash memory holds the files, or those of an image."""
    if isinstance(files, DfuImage):
        files = [File(m.record.address, m.name, bytes(m.data)) for m in files.flash_members if m.record is not None]
    assert files
    assert [file.name for file in files if not holds(read, [file])] == []


def holds(read: Read, files: Sequence[File]) -> bool:
    """Return True if flash memory holds the files."""
    return all(read(file.address, len(file.data)) == file.data for file in files)


class _LoggingBackend(SimulatedBackend):
    def __init__(self, rig: Rig) -> None:
        super().__init__(rig.boards, rig.clock, rig.others)
        self._rig = rig

    @property
    def lends_interfaces(self) -> bool:
        return self._rig.system_ports is None

    def serial_ports(self) -> list[SerialPort]:
        return self._rig.system_ports or []

    def ctrl_transfer(
        self, handle: Any, request_type: int, request: int, value: int, index: int, data: Any, timeout: int
    ) -> int:
        rig = self._rig
        out = b"" if request_type & 0x80 else bytes(data)
        path, now = handle.owner.path, rig.clock.monotonic()
        transfer = Transfer(path, request_type, request, value, index, out, timeout / 1000, now)
        rig.log.append(transfer)
        if rig.before is not None:
            rig.before(transfer)
        answer = super().ctrl_transfer(handle, request_type, request, value, index, data, timeout)
        if rig.after is not None:
            rig.after(transfer)
        return answer

    def open_device(self, device: Any) -> Any:
        handle = super().open_device(device)
        self._rig.handles += 1
        return handle

    def close_device(self, handle: Any) -> None:
        self._rig.handles -= 1
        super().close_device(handle)

    def reset_device(self, handle: Any) -> None:
        self._rig.resets.append(handle.owner.path)
        super().reset_device(handle)


def make_rig(*names: str, mode: Mode = Mode.RUN_TIME, others: Sequence[OtherDevice] = (), start: float = 100.0) -> Rig:
    """Return boards on ports 1-1, 1-2, ... that were plugged in `start` seconds ago."""
    clock = VirtualClock()
    boards = [
        Board.make(chip(name), f"1-{number}", clock, number=number, flash_size=CHIP_SIZE)
        for number, name in enumerate(names or ("esp32s3",), 1)
    ]
    for board in boards:
        board.rom.mode = mode
    made = Rig(boards, clock, others)
    clock.sleep(start)
    return made


def serial_jtag(path: str = "1-9") -> OtherDevice:
    """Return the USB-Serial-JTAG device, 303a:1001."""
    known = next(o for target in chips() for o in target.other_usb if (o.vid, o.pid) == (0x303A, 0x1001))
    return OtherDevice(known, path, 99)


def stranger(vid: int, pid: int) -> OtherDevice:
    """Return a device that is not a board."""
    return OtherDevice(OtherUsb(vid=vid, pid=pid, name="x", meaning="x"), "1-8", 98)


class _AppWithDfu(OtherDevice):
    @property
    def configuration_descriptor(self) -> bytes:
        """One DFU interface in run-time mode, with its functional descriptor."""
        return bytes.fromhex("09021b00010100c0fa 0904000000fe010100 09210de80300101001".replace(" ", ""))


def app_with_dfu(vid: int, pid: int, path: str = "2-1") -> OtherDevice:
    """Return a device with a DFU interface that is not a ROM's."""
    return _AppWithDfu(OtherUsb(vid=vid, pid=pid, name="x", meaning="x"), path, 97)


def open_board(rig: Rig) -> DfuDevice:
    """Open the DFU interface of the only board."""
    (interface,) = find(rig.bus, rig.board.target)
    return DfuDevice(interface.device.open(interface.descriptor.number))
