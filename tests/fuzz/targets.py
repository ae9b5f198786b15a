"""The fuzz targets: functions that put bytes where a stranger could, and run the real commands on them.

`guard` checks what must hold; any exception fails the target.
"""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Callable
from unittest import mock

from esp_dfu_ext import load_image
from esp_dfu_ext.clock import VirtualClock
from esp_dfu_ext.commands import build as building
from esp_dfu_ext.commands import flash as flashing
from esp_dfu_ext.commands import inspect as inspecting
from esp_dfu_ext.commands import list as listing
from esp_dfu_ext.commands.flash_run import FlashArguments
from esp_dfu_ext.dfu.spec import Mode, Request
from esp_dfu_ext.errors import EspDfuError
from esp_dfu_ext.image.format import parse_image
from esp_dfu_ext.loader.sync import ANSWER_SIZE, ANSWERS
from esp_dfu_ext.operations.restart import HARD_RESET, NO_RESET
from esp_dfu_ext.simulator import Board, rom_status
from esp_dfu_ext.simulator.board import DeviceGone
from esp_dfu_ext.simulator.bus import SimulatedBackend
from esp_dfu_ext.simulator.rom import ControlStall, ControlTimeout, TransferNak
from esp_dfu_ext.target import read_target
from esp_dfu_ext.usb import bus

from ..kit.archives import (
    CHIP_SIZE,
    FILES,
    MIB,
    TRAILER,
    File,
    archive,
    content,
    cpio_member,
    dfu_file,
    index_record,
    params,
)
from ..kit.boards import holds
from ..kit.chips import chip
from ..kit.files import write_file
from ..kit.host import OK, new_rom, send
from ..kit.loader import ask, sync
from ..kit.projects import esp_image, make_project
from .guard import cpu_limit, only_inside, run
from .lying import LyingBackend, Tape

SECRET = b"nobody else's business " * 30


@cache
def _base() -> Path:
    """Return a folder of this process, in memory where possible."""
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="esp-dfu-fuzz-", dir=place))
    write_file(folder / "outside" / "secret.bin", SECRET)
    return folder


# --- dfu.bin ----------------------------------------------------------------------------------------------


def image(data: bytes) -> None:
    """Use the bytes as a dfu.bin, and as the archive in one."""
    for text in (data, dfu_file(data)):
        _inspect_and_flash(text)


def image_parts(data: bytes) -> None:
    """Build a dfu.bin like a good one with a few defects, so that the checks are reached, not only the parser."""
    tape = Tape(data)
    names = ("a", "b.bin", "n" * 63, "n" * 64, "\x1b[2J", "\u202ebin.a", "flash_params.dat", "dfuinfo0.dat", "a")
    chip_size = CHIP_SIZE if not tape.number() & 1 else tape.number(4)
    records, members = [params(chip_size).record], [params(chip_size).member]
    while not tape.used_up and len(members) < 80:
        slips = tape.number()
        name = names[tape.number() % len(names)] if slips & 1 else f"file{len(members)}"
        address = tape.number(4) if slips & 2 else tape.number() << 12
        size = tape.number(2) % 9000
        body = content(size, len(members))
        flags = tape.number() if slips & 4 else 0
        claim = tape.number(4) if slips & 8 else None
        if not slips & 16:
            records.append(index_record(address, name, body if not slips & 32 else b"", flags))
        if not slips & 64:
            members.insert(len(members) if not slips & 128 else 0, cpio_member(name, body, claim))
    index = cpio_member("dfuinfo0.dat", b"".join(records))
    _inspect_and_flash(dfu_file(index + b"".join(members) + TRAILER))


def _inspect_and_flash(text: bytes) -> None:
    path = write_file(_base() / "image" / "dfu.bin", text)
    with cpu_limit(), only_inside(path.parent):
        code = run(lambda session: inspecting.inspect(session, path))
        flashed = run(lambda session: flashing.flash(session, path, FlashArguments(simulate=True)))
        assert (code == 0) == (flashed == 0), (code, flashed)
        try:
            loaded = load_image(path, chip()).image
        except EspDfuError:
            return
        rom = new_rom(flash_size=16 * MIB)
        assert send(rom, bytes(loaded.stream)) == OK
        for part in loaded.flash_members:
            assert part.record is not None
            assert rom.flash.read(part.record.address, len(part.data)) == part.data


def rom(data: bytes) -> None:
    """Send a random stream and random requests to the simulated ROM."""
    with cpu_limit():
        rom_status(data, chip())
        board = Board.make(chip(), "1-1", VirtualClock(), flash_size=MIB)
        tape = Tape(data)
        while not tape.used_up:
            request_type, request = tape.take(2)
            length = tape.number(2)
            out = b"" if request_type & 0x80 else tape.take(length % 100)
            try:
                answer = board.control(request_type, request, tape.number(2), out, length)
            except (ControlStall, ControlTimeout, DeviceGone):
                board.clock.sleep(1.0)
            else:
                assert len(answer) <= length


# --- a build folder ---------------------------------------------------------------------------------------


@cache
def _project() -> Path:
    folder = _base() / "project"
    make_project(folder)
    write_file(folder / "CMakeLists.txt", b"project(hello)\n")
    write_file(folder / "assets.bin", content(500))
    (folder / "build" / "link.bin").symlink_to(_base() / "outside" / "secret.bin")
    return folder


def _build_with(name: str, data: bytes, *, trusted: bool = True) -> None:
    """Build a project with one hostile file, as esp-dfu does and, if `trusted`, as idf.py does; then restore the file.

    The image must never contain files from elsewhere.
    """
    path = _project() / name
    good = path.read_bytes()
    dfu_bin = _project() / "build" / "dfu.bin"
    path.write_bytes(data)
    try:
        for folder in (None, _project()) if trusted else (None,):
            # idf.py works on the user's own project, whose files may lie anywhere.
            with cpu_limit(), only_inside(_project(), reads=trusted and folder is None):
                code = run(lambda session, folder=folder: building.build(  # type: ignore[misc]
                    session, [_project() / "build"], project_dir=folder
                ))  # fmt: skip
                if code == 0:
                    made = dfu_bin.read_bytes()
                    assert folder is not None or SECRET[:500] not in made
                    parse_image(made)
    finally:
        path.write_bytes(good)
        dfu_bin.unlink(missing_ok=True)


def flasher_args(data: bytes) -> None:
    """Build with this build/flasher_args.json."""
    _build_with("build/flasher_args.json", data)


def description(data: bytes) -> None:
    """Build with this build/project_description.json, which can name the project and its sdkconfig."""
    _build_with("build/project_description.json", data, trusted=False)


def sdkconfig(data: bytes) -> None:
    """Build with this sdkconfig."""
    _build_with("sdkconfig", data)


def firmware(data: bytes) -> None:
    """Build with this app."""
    _build_with("build/hello.bin", data)


def target_yaml(data: bytes) -> None:
    """Build, inspect, flash and list with this chip's YAML file in the project."""
    build = _project() / "build"
    path = write_file(_project() / "dfu_targets" / "esp32s3.yaml", data)
    read_target.cache_clear()
    try:
        with cpu_limit(), only_inside(_project()):
            code = run(lambda session: building.build(session, [build]))
            if code == 0:
                dfu_bin = build / "dfu.bin"
                run(lambda session: inspecting.inspect(session, dfu_bin), project_dir=_project())
                run(
                    lambda session: flashing.flash(session, dfu_bin, FlashArguments(simulate=True)),
                    project_dir=_project(),
                )
                with mock.patch.dict(os.environ, ESP_DFU_SIMULATE="esp32s3"):
                    run(listing.list_devices, project_dir=_project())
    finally:
        path.unlink()
        (build / "dfu.bin").unlink(missing_ok=True)
        read_target.cache_clear()


# --- other builds, and files ------------------------------------------------------------------------------

_MERGED = ((0, 0x400), (0x8000, 0xC00), (0x10000, 0x1000))  # where stretches of the input go, and their longest


def firmware_file(data: bytes) -> None:
    """Build and inspect these bytes as a file: as they are, and spread over a merged image."""
    image = bytearray(b"\xff" * 0x20000)
    rest = data
    for address, longest in _MERGED:
        image[address : address + len(rest[:longest])] = rest[:longest]
        rest = rest[longest:]
    for text in (data, bytes(image)):
        path = write_file(_base() / "file" / "firmware.bin", text)
        with cpu_limit(), only_inside(path.parent):
            built = run(lambda session, path=path: building.build(session, [path]))  # type: ignore[misc]
            if built == 0:
                parse_image((path.parent / "dfu.bin").read_bytes())
                (path.parent / "dfu.bin").unlink()


_LISTS = ("flash_args", "idedata.json", "zephyr/runners.yaml", "domains.yaml")


def build_list(data: bytes) -> None:
    """Build a folder with this list of files; the first byte says whose list it is."""
    folder = _base() / "list" / "build"
    write_file(folder / "bootloader.bin", esp_image(9))
    write_file(folder / "firmware.bin", esp_image(9, app=content(256)))
    if not (folder / "link.bin").is_symlink():
        (folder / "link.bin").symlink_to(_base() / "outside" / "secret.bin")
    name = _LISTS[data[0] % len(_LISTS)] if data else _LISTS[0]
    path = write_file(folder / name, data[1:])
    try:
        with cpu_limit(), only_inside(folder):
            if run(lambda session: building.build(session, [folder])) == 0:
                made = (folder / "dfu.bin").read_bytes()
                assert SECRET[:500] not in made
                parse_image(made)
    finally:
        path.unlink()
        (folder / "dfu.bin").unlink(missing_ok=True)


# --- a device ---------------------------------------------------------------------------------------------


_DEVICE_FILES = (*FILES[1:2], File(0x10000, "app.bin", content(2500)))


def _device_image() -> Path:
    """Return a small dfu.bin."""
    dfu_bin = _base() / "device" / "dfu.bin"
    if not dfu_bin.exists():
        write_file(dfu_bin, dfu_file(archive(list(_DEVICE_FILES), CHIP_SIZE)))
    return dfu_bin


def device(data: bytes) -> None:
    """List and flash a device that lies."""
    dfu_bin = _device_image()
    settings, lies = (data[0], data[1:]) if data else (0, b"")
    options = FlashArguments(
        strict=bool(settings & 1),
        after=HARD_RESET if settings & 2 else NO_RESET,
        all=bool(settings & 4),
        serial="7c:df:a1:00:00:00" if settings & 12 == 8 else None,
        wait=1.0 if settings & 16 else 0.0,
    )
    clock = VirtualClock()
    board = Board.make(chip(), "1-1", clock, flash_size=MIB)
    tape = Tape(lies, endless=bool(settings & 32))
    with cpu_limit(), mock.patch.object(bus, "libusb_backend", lambda: LyingBackend(board, clock, tape)):
        run(lambda session: listing.list_devices(session, as_json=bool(settings & 64)), clock)
        run(lambda session: flashing.flash(session, dfu_bin, options), clock)


# --- the simulated chip's serial port ---------------------------------------------------------------------


def serial_port(data: bytes) -> None:
    """Send the bytes to the serial loader of a board in DFU mode, which must neither stop nor grow, and serve DFU on.

    The first byte says how long the packets are, and whether a SYNC comes first.
    """
    settings, wire = (data[0], data[1:]) if data else (0, b"")
    size = settings % 64 + 1
    board = Board.make(chip(), "1-1", VirtualClock(), number=1, flash_size=MIB)
    board.rom.restart(Mode.DFU)
    with cpu_limit():
        if settings & 64:
            sync(board)
        for start in range(0, len(wire), size):
            try:
                ask(board, wire[start : start + size])
            except (TransferNak, DeviceGone):
                break
        if board.present and settings & 128:
            board.clock.sleep(3600)  # a watchdog that the bytes armed
            board.update()
        if board.present:
            try:
                assert len(board.control(0xA1, Request.DFU_GETSTATUS, 0, b"", 6)) == 6
            except ControlTimeout:
                assert board.rom.loader is not None
                assert board.rom.dead or board.rom.loader.commands.left


def loader(data: bytes) -> None:
    """Flash a board whose serial port answers with these bytes, after true answers to SYNC if the first one says so.

    The flash must succeed as without a serial port, or refuse the image because of what the bytes say.
    """
    settings, wire = (data[0], data[1:]) if data else (0, b"")
    clock = VirtualClock()
    board = Board.make(chip(), "1-1", clock, number=1, flash_size=CHIP_SIZE)
    board.rom.restart(Mode.DFU)
    answer, packet, sent = board.bulk_in, settings % 64 + 1, [0]
    true = ANSWERS * ANSWER_SIZE if settings & 64 else 0

    def bulk_in(endpoint: int) -> bytes:
        sent[0] += 1
        if sent[0] <= true:
            return answer(endpoint)
        clock.sleep(0.001)
        start = (sent[0] - true - 1) * packet
        if start >= len(wire):
            raise TransferNak
        return wire[start : start + packet]

    board.bulk_in = bulk_in  # type: ignore[method-assign]
    dfu_bin = _device_image()
    with cpu_limit(), mock.patch.object(bus, "libusb_backend", lambda: SimulatedBackend([board], clock)):
        before = clock.monotonic()
        code = run(lambda session: flashing.flash(session, dfu_bin, FlashArguments(strict=settings > 127)), clock)
        assert clock.monotonic() - before < 8.0
        assert code in (0, 65)
        assert holds(board.rom.flash.read, _DEVICE_FILES) == (code == 0)


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        image,
        image_parts,
        rom,
        flasher_args,
        description,
        sdkconfig,
        firmware,
        target_yaml,
        firmware_file,
        build_list,
        device,
        serial_port,
        loader,
    )
}
