"""Simulate chips: the ROM's DFU device, its flash memory, and boards that connect to a bus and leave it.

The rest of the package uses `simulate_text` and `simulate_boards` (boards under the real pyusb), `rom_status` (the
status that the ROM reports for an image, without a bus), and `sample` (a project to flash). The model answers as
Espressif's ROM code did when it was executed (tests/test_conformance.py). It has never been compared with a real chip.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..clock import Clock, SystemClock
from ..dfu.spec import REQUEST_TYPE_IN, REQUEST_TYPE_OUT, STATUS_LENGTH, Mode, Request, Status, StatusResponse
from ..errors import SimulationError, UsageError
from ..image.format import DfuImage, read_image
from ..target import OtherUsb, Target
from ..units import usb_id
from ..usb.bus import Bus
from .apps import App, ConsoleApp, DfuApp, TouchApp
from .board import Board, Fault, Faults, bus_reset, error_status, hang, stall, vanish
from .bridge import Bridge
from .nor import NorFlash
from .ports import SimulatedPorts
from .rom import ControlTimeout, Rom


@dataclass(frozen=True)
class Simulation:
    """Simulated boards on their bus."""

    bus: Bus
    boards: tuple[Board, ...]
    bridges: tuple[Bridge, ...] = ()

    def compare(self, image: DfuImage, path: str) -> int:
        """Compare a board's flash memory with the image that was sent to it.

        Returns:
            Number of bytes compared.

        Raises:
            SimulationError: They differ; the message names the file and the address.
        """
        board = next(board for board in self.boards if board.path == path)
        for member in image.flash_members:
            if member.record is None:
                continue
            address = member.record.address
            if board.rom.flash.read(address, len(member.data)) != member.data:
                raise SimulationError(f"The simulated flash memory differs from {member.name} at {address:#x}.")
        return image.payload_size


def simulate(
    boards: Sequence[Board], clock: Clock, others: Sequence[tuple[str, OtherUsb]] = (), bridges: Sequence[Bridge] = ()
) -> Simulation:
    """Put boards, other devices with their paths, and USB-UART bridges on a simulated bus."""

    def backend() -> object:
        # Imported here: pyusb may be missing, and the ROM on its own does not need it.
        from .bus import OtherDevice, SimulatedBackend

        devices = [OtherDevice(known, path, 100 + n) for n, (path, known) in enumerate(others)]
        return SimulatedBackend(boards, clock, [*devices, *bridges])

    addresses = [1]
    for board in boards:
        board.share_addresses(addresses)
    ports = SimulatedPorts(boards, bridges)
    return Simulation(Bus(backend, serial=ports), tuple(boards), tuple(bridges))


def simulate_text(text: str, targets: Sequence[Target], clock: Clock | None = None) -> Simulation:
    """Return boards from a list such as ``CHIP,CHIP+busy,vvvv:pppp``, on ports 1-1, 1-2, 1-3.

    Options follow the chip's name, each after a ``+``: ``dfu`` (already in DFU mode), ``app`` (runs an app with the
    ROM's USB console), ``app=vvvv:pppp`` (an app with a DFU run-time interface and these IDs), ``touch=vvvv:pppp`` (an
    app with a serial port that restarts into the ROM after 1200 baud), ``held`` (BOOT is held down, so that a reset
    leads back to download mode; else it starts an app), ``slow`` (takes the chip's own time), ``strict`` (demands
    DFU_GETSTATUS after each block), ``holds=FILE`` (flash memory holds this dfu.bin), burned eFuses (``secure-boot``,
    ``flash-encryption``, or ``no-usb`` for those that keep the ROM off USB), or a fault: ``no-access``, ``busy``,
    ``no-return``, and, once at block N, ``vanish@N``, ``stall@N``, ``hang@N``, ``error@N`` and ``reset@N`` (another
    program resets the bus). ``bridge=vvvv:pppp`` in place of a chip is a USB-UART bridge (CP210x, CH34x) whose DTR and
    RTS move the pins of the board before it, but not the strapping pin of one with ``no-strap``.

    Raises:
        UsageError: The list names an unknown chip, option or fault.
        InputMissingError, ImageError: The image of ``holds`` cannot be read.
    """
    clock = clock or SystemClock()
    boards: list[Board] = []
    others: list[tuple[str, OtherUsb]] = []
    bridges: list[Bridge] = []
    by_name = {target.name: target for target in targets}
    known = {usb_id(other.vid, other.pid): other for target in targets for other in target.other_usb}
    for number, item in enumerate(text.split(",")):
        name, *options = item.strip().split("+")
        path = f"1-{number + 1}"
        if name.startswith("bridge="):
            if options or not boards:
                raise UsageError(f"Cannot simulate {item.strip()!r}; a bridge takes no options and follows its board.")
            bridges.append(Bridge(boards[-1], path, 200 + number, *_usb_ids(name)))
        elif name in known and not options:
            others.append((path, known[name]))
        elif name in by_name:
            board = Board.make(by_name[name], path, clock, number=number + 1)
            board.boots_app = True  # its buttons are released by now
            for option in options:
                _apply(board, option)
            if "held" in options:
                board.boots_app = False
            boards.append(board)
        else:
            names = ", ".join([*by_name, *known, "bridge=vvvv:pppp"])
            raise UsageError(f"Cannot simulate {name!r}; expected one of {names}.")
    return simulate(boards, clock, others, bridges)


def simulate_boards(
    target: Target, clock: Clock | None = None, paths: Sequence[str] = (), serial: str | None = None
) -> Simulation:
    """Return boards of one chip on the ports `paths` (by default 1-1); the first has the serial number `serial`."""
    clock = clock or SystemClock()
    boards = [Board.make(target, path, clock, number=n + 1) for n, path in enumerate(dict.fromkeys(paths or ["1-1"]))]
    if serial is not None:
        boards[0].rom.serial = serial
    return simulate(boards, clock)


_AT_BLOCK = {
    "vanish": vanish,
    "stall": stall,
    "hang": hang,
    "error": error_status(Status.errTARGET),
    "reset": bus_reset,
}
_AT_BLOCK_NAMES = ", ".join(f"{word}@N" for word in _AT_BLOCK)


_APPS: dict[str, type[App]] = {"app": DfuApp, "touch": TouchApp}


def _usb_ids(word: str) -> tuple[int, int]:
    """Return VID and PID of a word such as ``app=vvvv:pppp``."""
    found = re.fullmatch("[a-z]+=([0-9a-f]{4}):([0-9a-f]{4})", word, re.IGNORECASE | re.ASCII)
    if found is None:
        raise UsageError(
            f"Cannot simulate {word!r}; expected IDs in hexadecimal, such as {word.partition('=')[0]}=vvvv:pppp."
        )
    return int(found[1], 16), int(found[2], 16)


_EFUSES = ("secure-boot", "flash-encryption")


def _burn(board: Board, word: str) -> None:
    """Burn the eFuses of Secure Boot or flash encryption, which the serial loader tells."""
    loader, data = board.rom.loader, board.target.serial_loader
    if loader is None or data is None:
        raise UsageError(f"Cannot simulate {word!r}: {board.target.source} has no serial_loader section.")
    loader.registers.burn(data.secure_boot if word == "secure-boot" else data.flash_encryption)


def program(board: Board, image: DfuImage) -> None:
    """Let a board's flash memory hold an image, as after a flash."""
    for member in image.flash_members:
        if member.record is not None:
            board.rom.flash.erase(member.record.address, len(member.data))
            board.rom.flash.program(member.record.address, bytes(member.data))


def _apply(board: Board, option: str) -> None:
    word, _, block = option.partition("@")
    faults = board.faults
    app, _, ids = option.partition("=")
    if app == "holds" and ids:
        program(board, read_image(Path(ids)))
        return
    if ids and app in _APPS:
        board.start_app(_APPS[app](*_usb_ids(option), board.rom.serial))
        return
    if word in _AT_BLOCK and block.isdecimal() and block.isascii():
        faults.plan(_AT_BLOCK[word], int(block))
    elif block:
        raise UsageError(f"Unknown fault {option!r}; expected one of {_AT_BLOCK_NAMES}.")
    elif word == "dfu":
        board.rom.mode = Mode.DFU
    elif word == "app":
        board.start_app(ConsoleApp(board.rom))
    elif word == "held":
        pass  # done last, because an app also sets it
    elif word == "strict":
        board.rom.wants_status = True
    elif word in _EFUSES:
        _burn(board, word)
    elif word == "no-usb":
        board.disable_usb()
    elif word == "no-strap":
        board.strap_wired = False
    elif word == "no-access":
        faults.no_access = True
    elif word == "busy":
        faults.busy = True
    elif word == "no-return":
        faults.no_return = True
    elif word == "slow":
        if board.target.timing is None:
            raise UsageError(f"Cannot simulate a slow {board.target.name}: {board.target.source} has no timing.")
        board.timing = board.target.timing
    else:
        raise UsageError(
            f"Unknown option {word!r} of a simulated board; expected one of dfu, app, app=vvvv:pppp, touch=vvvv:pppp, "
            f"held, strict, slow, holds=FILE, secure-boot, flash-encryption, no-usb, no-access, busy, no-return, "
            f"no-strap, {_AT_BLOCK_NAMES}."
        )


def rom_status(stream: bytes | memoryview, target: Target) -> Status | None:
    """Return the status that the ROM reports for a stream, or None if it stops answering.

    The flash memory is erased, and as large as the ROM can address. The host asks once, at the end.
    """
    rom = Rom(target, NorFlash(target.flash.limit, target.flash.sector), serial="0")
    rom.restart(Mode.DFU)
    size = target.usb.transfer_size
    try:
        for position in range(0, len(stream), size):
            rom.control(REQUEST_TYPE_OUT, Request.DFU_DNLOAD, 0, bytes(stream[position : position + size]), 0)
        rom.control(REQUEST_TYPE_OUT, Request.DFU_DNLOAD, 0, b"", 0)
        answer = rom.control(REQUEST_TYPE_IN, Request.DFU_GETSTATUS, 0, b"", STATUS_LENGTH)
    except ControlTimeout:
        return None
    return Status(StatusResponse.decode(answer).status)


__all__ = [
    "Board",
    "Fault",
    "Faults",
    "Rom",
    "Simulation",
    "rom_status",
    "simulate",
    "simulate_boards",
    "simulate_text",
]
