"""esptool from PyPI, run as users run it, on the serial port of a simulated board: the judge of the serial loader."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from esptool.targets import CHIP_DEFS

from esp_dfu_ext.clock import SystemClock
from esp_dfu_ext.dfu.spec import Mode
from esp_dfu_ext.simulator import Board

from .kit.archives import small_image
from .kit.boards import Rig, open_board
from .kit.chips import NAMES, chip
from .kit.files import write_file
from .kit.serial_port import OLD_ESPTOOL, esptool, finish, serial_port, start_esptool

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")

MIB = 1 << 20


def make_board(name: str, number: int = 1, flash_size: int = 4 * MIB) -> Board:
    return Board.make(chip(name), f"1-{number}", SystemClock(), number=number, flash_size=flash_size)


def test_reads_mac_and_flash_size_of_every_chip() -> None:
    names = [name for name in NAMES if name in CHIP_DEFS]  # version 4.7 does not know them all
    boards = [make_board(name, number, MIB << number) for number, name in enumerate(names, 1)]
    with ExitStack() as stack:
        ports = [stack.enter_context(serial_port(board)) for board in boards]
        started = [start_esptool(port, "flash-id") for port in ports]
        for number, (board, process) in enumerate(zip(boards, started), 1):
            out = finish(process)
            for text in (board.target.chip, f"7c:df:a1:00:00:0{number}", f"Detected flash size: {1 << number}MB"):
                assert text in out


def test_reads_security_info() -> None:
    board = make_board("esp32s3")
    assert board.rom.loader is not None
    assert board.target.serial_loader is not None
    board.rom.loader.registers.burn(board.target.serial_loader.flash_encryption, 1 << 18)
    with serial_port(board) as port:
        out = esptool(port, "get-security-info")
    assert "Flags: 0x00000000" in out
    assert "SPI_BOOT_CRYPT_CNT" in out or "Flash_Crypt_Cnt: 0x1" in out
    assert "Chip ID: 9" in out


def test_verifies_what_dfu_flashed_and_starts_the_app(tmp_path: Path) -> None:
    rig = Rig([make_board("esp32s3")], SystemClock())
    board = rig.board
    board.rom.restart(Mode.DFU)
    board.boots_app = True
    image = small_image("esp32s3")
    rig.flash(image)
    files = []
    for member in image.flash_members:
        assert member.record is not None
        files += [hex(member.record.address), str(write_file(tmp_path / member.name, bytes(member.data)))]
    with serial_port(board) as port:
        out = esptool(port, "verify-flash", *files, after="no-reset" if OLD_ESPTOOL else "watchdog-reset")
        assert out.count("digest matched") == len(image.flash_members)
        if not OLD_ESPTOOL:
            board.update()
            assert not board.present  # the app has no USB


def test_writes_what_dfu_reads(tmp_path: Path) -> None:
    rig = Rig([make_board("esp32s2")], SystemClock())
    board = rig.board
    content = bytes(range(256)) * 20
    path = write_file(tmp_path / "app.bin", content)
    with serial_port(board) as port:
        out = esptool(port, "write-flash", "0x10000", str(path))
    assert "Hash of data verified" in out
    board.rom.restart(Mode.DFU)
    device = open_board(rig)
    blocks = [device.upload(number, 64) for number in range((0x10000 + len(content)) // 64)]
    assert b"".join(blocks)[0x10000:] == content
