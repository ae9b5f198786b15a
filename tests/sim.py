"""Simulated boards for tests: an archive writer of its own, a bus that keeps a log, a host without any sense."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from esp_dfu_ext import flash
from esp_dfu_ext.clock import VirtualClock
from esp_dfu_ext.dfu.discovery import Selector
from esp_dfu_ext.dfu.spec import Mode
from esp_dfu_ext.events import Event, Notice, PhaseStarted
from esp_dfu_ext.image.format import DfuImage, parse_image
from esp_dfu_ext.operations.flash import FlashResult
from esp_dfu_ext.simulator import Board, Rom, Simulation, rehearse, simulate, simulate_text
from esp_dfu_ext.simulator.board import AccessDenied, Busy, DeviceGone
from esp_dfu_ext.simulator.bus import OtherDevice, SimulatedBackend
from esp_dfu_ext.simulator.nor import NorFlash
from esp_dfu_ext.simulator.rom import ControlStall, ControlTimeout
from esp_dfu_ext.target import Target, load_target, load_targets
from esp_dfu_ext.usb.bus import Bus

KIB, MIB = 1 << 10, 1 << 20
NAMES = ("esp32s2", "esp32s3", "esp32p4", "esp32s31")

# bRequest and bState, written out: the tests do not take them from what they test.
DETACH, DNLOAD, UPLOAD, GETSTATUS, CLRSTATUS, GETSTATE, ABORT = range(7)
APP_IDLE, APP_DETACH, IDLE, DNLOAD_SYNC, DNBUSY, DNLOAD_IDLE, MANIFEST_SYNC = range(7)
MANIFEST, WAIT_RESET, UPLOAD_IDLE, ERROR = range(7, 11)
OK, ERR_TARGET, ERR_FILE, ERR_FIRMWARE, ERR_UNKNOWN, ERR_STALLED = 0, 1, 2, 10, 14, 15

PARAMS_FLAGS = 4 | 8 | 16


@cache
def chip(name: str = "esp32s3") -> Target:
    """A chip of ours."""
    return load_target(name)


@cache
def chips() -> tuple[Target, ...]:
    """All of them."""
    return tuple(load_targets())


def content(size: int, seed: int = 0) -> bytes:
    """Bytes that look like nothing else and are the same each time."""
    out = b"".join(hashlib.sha256(struct.pack("<II", seed, number)).digest() for number in range(-(-size // 32)))
    return out[:size]


# --- archives ---------------------------------------------------------------------------------------------


def fill(data: bytes, multiple: int = 4) -> bytes:
    """`data` with zeros up to a multiple."""
    return data + b"\0" * (-len(data) % multiple)


def member(name: str | bytes, data: bytes, size: int | None = None) -> bytes:
    """A member of a "newc" archive; `size` is the one its header tells."""
    raw = name.encode() if isinstance(name, str) else name
    told = len(data) if size is None else size
    head = "07070100000000000081a400000000000000000000000000000000"
    head += f"{told:08x}" + "00000000" * 4 + f"{len(raw) + 1:08x}" + "00000000"
    return fill(head.encode() + raw + b"\0") + fill(data)


def trailer() -> bytes:
    """The member that ends an archive: no mode, one link."""
    head = "0707010000000000000000000000000000000000000001"
    head += "00000000" * 6 + "0000000b" + "00000000"
    return fill(head.encode() + b"TRAILER!!!\0")


def record(address: int, name: str | bytes, data: bytes, flags: int = 0) -> bytes:
    """A record of the index; names longer than its 64 bytes are cut, as every writer does."""
    raw = name.encode() if isinstance(name, str) else name
    return struct.pack("<II64s16s", address, flags, raw, hashlib.md5(data, usedforsecurity=False).digest())


def params(chip_size: int) -> bytes:
    """The contents of flash_params.dat."""
    return struct.pack("<8I", 0, 0, 0, chip_size, 65536, 4096, 256, 0xFFFF)


@dataclass(frozen=True)
class File:
    """Something to be flashed."""

    address: int
    name: str
    data: bytes


def archive(files: Sequence[File], chip_size: int | None = 4 * MIB) -> bytes:
    """A good archive, up to and with its trailer; no flash_params.dat if `chip_size` is None."""
    index, body = b"", b""
    if chip_size is not None:
        index += record(0, "flash_params.dat", params(chip_size), PARAMS_FLAGS)
        body += member("flash_params.dat", params(chip_size))
    for file in files:
        index += record(file.address, file.name, file.data)
        body += member(file.name, file.data)
    return member("dfuinfo0.dat", index) + body + trailer()


def dfu_file(stream: bytes, target: Target) -> bytes:
    """A whole dfu.bin around an archive: padding and suffix."""
    data = fill(stream, 10240)
    data += struct.pack("<HHHH3sB", 0xFFFF, target.usb.pid, target.usb.vid, 0x0100, b"UFD", 16)
    return data + struct.pack("<I", zlib.crc32(data) ^ 0xFFFFFFFF)


def image_of(files: Sequence[File], target: Target, chip_size: int = 4 * MIB) -> DfuImage:
    """A good image."""
    return parse_image(dfu_file(archive(files, chip_size), target))


# Small, so that hundreds of flashes cost little; the app is longer than one status interval of 32 blocks.
FILES = (
    File(0x1000, "bootloader.bin", content(1500, 1)),
    File(0x8000, "partition-table.bin", content(300, 2)),
    File(0x10000, "app.bin", content(5003, 3)),
)
CHIP_SIZE = MIB


@cache
def small_image(name: str = "esp32s3") -> DfuImage:
    """Three files, about 130 blocks."""
    return image_of(FILES, chip(name), CHIP_SIZE)


# --- a host that talks to the ROM without a bus -----------------------------------------------------------


def new_rom(name: str = "esp32s3", *, flash_size: int = 4 * MIB, mode: Mode = Mode.DFU) -> Rom:
    """A ROM with an empty flash."""
    rom = Rom(chip(name), NorFlash(flash_size), "7c:df:a1:00:00:01")
    rom.restart(mode)
    return rom


def dnload(rom: Rom, data: bytes, block: int = 0) -> None:
    """DFU_DNLOAD."""
    rom.control(0x21, DNLOAD, block, data, 0)


def get_status(rom: Rom) -> tuple[int, int, int]:
    """DFU_GETSTATUS: bStatus, bwPollTimeout in milliseconds, bState."""
    answer = rom.control(0xA1, GETSTATUS, 0, b"", 6)
    assert len(answer) == 6
    return answer[0], int.from_bytes(answer[1:4], "little"), answer[4]


def get_state(rom: Rom) -> int:
    """DFU_GETSTATE."""
    (state,) = rom.control(0xA1, GETSTATE, 0, b"", 1)
    return state


def send(rom: Rom, stream: bytes) -> int:
    """A whole download, stopped at the first stall; returns bStatus of the DFU_GETSTATUS after it."""
    try:
        for position in range(0, len(stream), 64):
            dnload(rom, stream[position : position + 64])
        dnload(rom, b"")
    except ControlStall:
        pass
    return get_status(rom)[0]


# --- boards on a bus --------------------------------------------------------------------------------------


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
        """A class request to an interface."""
        return self.request_type in (0x21, 0xA1)


Hook = Callable[[Transfer], None]


@dataclass
class Bench:
    """Boards, their bus and their time, and a log of what went over.

    Attributes:
        before: called before a transfer reaches the board; may raise.
        after: called when the board has answered; may raise.
        resets: paths of the ports that were reset.
        scans: how many backends were made.
        handles: how many are open.
    """

    boards: tuple[Board, ...]
    clock: VirtualClock
    others: tuple[OtherDevice, ...] = ()
    log: list[Transfer] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    resets: list[str] = field(default_factory=list)
    scans: int = 0
    handles: int = 0
    before: Hook | None = None
    after: Hook | None = None
    on_event: Callable[[Event], None] | None = None

    def __post_init__(self) -> None:
        self.bus = Bus(self.backend)
        self.simulation = Simulation(self.bus, self.boards)

    def backend(self) -> Any:
        """A pyusb backend that shows these boards."""
        self.scans += 1
        return _LoggingBackend(self)

    @property
    def board(self) -> Board:
        """The only one."""
        (board,) = self.boards
        return board

    def handle(self, event: Event) -> None:
        """The sink of the jobs' events."""
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
        reset: bool = False,
    ) -> FlashResult:
        """The flash job on this bench."""
        target = target or self.boards[0].target
        return flash(
            image or small_image(target.name),
            target,
            bus=self.bus,
            selector=Selector(path=path, serial=serial),
            targets=chips(),
            wait=wait,
            strict=strict,
            reset=reset,
            clock=self.clock,
            on_event=self.handle,
        )

    def dfu(self, request: int) -> list[Transfer]:
        """Those DFU requests that were sent, in their order."""
        return [t for t in self.log if t.is_dfu and t.request == request]

    def notices(self) -> list[str]:
        """Codes of the notices."""
        return [e.code for e in self.events if isinstance(e, Notice)]

    def phases(self) -> list[str]:
        """Names of the phases that were begun."""
        return [e.phase.value for e in self.events if isinstance(e, PhaseStarted)]

    def assert_flashed(self, image: DfuImage | None = None, board: Board | None = None) -> None:
        """The flash holds what the image says."""
        board = board or self.board
        image = image or small_image(board.target.name)
        assert self.simulation.compare(image, board.path) == image.flash_size > 0


class _LoggingBackend(SimulatedBackend):
    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.boards, bench.clock, bench.others)
        self._bench = bench

    def ctrl_transfer(
        self, handle: Any, request_type: int, request: int, value: int, index: int, data: Any, timeout: int
    ) -> int:
        bench = self._bench
        out = b"" if request_type & 0x80 else bytes(data)
        path, now = handle.owner.path, bench.clock.monotonic()
        transfer = Transfer(path, request_type, request, value, index, out, timeout / 1000, now)
        bench.log.append(transfer)
        if bench.before is not None:
            bench.before(transfer)
        answer = super().ctrl_transfer(handle, request_type, request, value, index, data, timeout)
        if bench.after is not None:
            bench.after(transfer)
        return answer

    def open_device(self, device: Any) -> Any:
        handle = super().open_device(device)
        self._bench.handles += 1
        return handle

    def close_device(self, handle: Any) -> None:
        self._bench.handles -= 1
        super().close_device(handle)

    def reset_device(self, handle: Any) -> None:
        self._bench.resets.append(handle.owner.path)
        super().reset_device(handle)


def bench(*names: str, mode: Mode = Mode.RUN_TIME, others: Sequence[OtherDevice] = (), start: float = 100.0) -> Bench:
    """Boards on ports 1-1, 1-2, ...; they have been there for `start` seconds."""
    clock = VirtualClock()
    boards = tuple(
        Board.make(chip(name), f"1-{number}", clock, number=number, flash_size=CHIP_SIZE)
        for number, name in enumerate(names or ("esp32s3",), 1)
    )
    addresses = [1]
    for board in boards:
        board.rom.mode = mode
        board.share_addresses(addresses)
    clock.sleep(start)
    return Bench(boards, clock, tuple(others))


def serial_jtag(path: str = "1-9") -> OtherDevice:
    """303a:1001."""
    known = next(o for target in chips() for o in target.other_usb if (o.vid, o.pid) == (0x303A, 0x1001))
    return OtherDevice(known, path, 99)


__all__ = [
    "AccessDenied",
    "Board",
    "Busy",
    "ControlStall",
    "ControlTimeout",
    "DeviceGone",
    "NorFlash",
    "Rom",
    "rehearse",
    "simulate",
    "simulate_text",
]
