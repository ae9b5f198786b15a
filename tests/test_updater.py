"""The simulated updater handles good and bad streams as the executed ROM code did."""

from __future__ import annotations

from dataclasses import replace

import pytest

from esp_dfu_ext.simulator import Rom, rom_status
from esp_dfu_ext.simulator.rom import ControlStall, ControlTimeout

from .kit.archives import FILES, MIB, TRAILER, File, archive, archive_of, content, fill
from .kit.chips import NAMES, chip
from .kit.host import ERR_FIRMWARE, ERR_TARGET, OK, blocks, dnload, get_status, new_rom, send
from .kit.streams import GOOD_STREAMS, BadStream, bad_streams


def _holds(rom: Rom, address: int, data: bytes) -> bool:
    return rom.flash.read(address, len(data)) == data


def _assert_left(rom: Rom, case: BadStream) -> None:
    for file in case.present:
        assert _holds(rom, file.address, file.data), file
    for file in case.absent:
        assert not _holds(rom, file.address, file.data), file
    for address, size in case.erased:
        assert _holds(rom, address, b"\xff" * size), hex(address)


@pytest.mark.parametrize("case", bad_streams(), ids=lambda case: case.name)
def test_bad_stream_is_refused(case: BadStream) -> None:
    rom = new_rom(flash_size=case.flash_size)
    early = OK
    try:
        for block in blocks(case.stream):
            dnload(rom, block)
            early = early or get_status(rom)[0]
        if case.only_at_end:
            assert early == OK
        dnload(rom, b"")
    except ControlStall:
        assert early != OK
    except ControlTimeout:
        assert case.status is None
    else:
        assert get_status(rom)[0] == case.status
    _assert_left(rom, case)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("files", "chip_size"), GOOD_STREAMS.values(), ids=GOOD_STREAMS)
def test_good_stream_is_flashed(name: str, files: tuple[File, ...], chip_size: int) -> None:
    rom = new_rom(name)
    rom.flash.program(0, content(65536, 99))
    assert send(rom, archive(files, chip_size)) == OK
    for file in files:
        assert _holds(rom, file.address, file.data), file.name


@pytest.mark.parametrize("size", range(1, 600, 37))
def test_every_file_length_is_flashed(size: int) -> None:
    """Covers all alignments of the 256-byte buffer, the padding and the headers."""
    files = [File(0x1000, "a", content(size)), File(0x2000, "bb", content(size + 1, 1)), File(0x3000, "c", b"c")]
    rom = new_rom()
    assert send(rom, archive(files)) == OK
    assert all(_holds(rom, file.address, file.data) for file in files)


def test_files_below_2_mib_need_no_flash_params() -> None:
    file = File(2 * MIB - 4096, "a.bin", content(4096))
    rom = new_rom()
    assert send(rom, archive([file], None)) == OK
    assert _holds(rom, file.address, file.data)


@pytest.mark.parametrize("extra", [b"\0" * 9000, content(9000), content(1)], ids=["zeros", "rubbish", "one byte"])
def test_data_after_trailer_is_ignored(extra: bytes) -> None:
    rom = new_rom()
    assert send(rom, archive(FILES) + extra) == OK
    assert all(_holds(rom, file.address, file.data) for file in FILES)
    assert _holds(rom, MIB, b"\xff" * MIB)


def test_shortest_archive_has_232_bytes() -> None:
    stream = fill(TRAILER, 232)
    rom = new_rom()
    assert send(rom, stream[:232]) == OK
    assert _holds(rom, 0, b"\xff" * 4096)
    assert send(rom, stream[:231]) == OK
    assert _holds(rom, 0, stream[:231])


def test_flag_8_skips_erase() -> None:
    old, new = content(4096, 1), content(1000, 2)
    mixed = bytes(a & b for a, b in zip(old, new))
    rom = new_rom()
    rom.flash.program(0x1000, old)
    assert send(rom, archive_of([File(0x1000, "a", mixed, 8)], [File(0x1000, "a", new)])) == OK
    assert _holds(rom, 0x1000, mixed + old[1000:])


@pytest.mark.parametrize(("flags", "status"), [(0, ERR_FIRMWARE), (16, OK)])
def test_flag_16_ignores_md5(flags: int, status: int) -> None:
    rom = new_rom()
    record, file = File(0x1000, "a", b"something else", flags), File(0x1000, "a", content(1000))
    assert send(rom, archive_of([record], [file])) == status
    assert _holds(rom, 0x1000, content(1000))


def test_flag_1_loads_to_ram() -> None:
    rom = new_rom()
    assert send(rom, archive([File(0x1000, "a", content(1000), 1)], None)) == OK
    assert _holds(rom, 0, b"\xff" * MIB)


def test_flash_params_are_not_flashed() -> None:
    rom = new_rom()
    assert send(rom, archive([File(0x8000, "a", content(10))])) == OK
    assert _holds(rom, 0, b"\xff" * 0x8000)


def test_dead_flash_is_reported_at_end() -> None:
    rom = new_rom()
    rom.flash.program(0x10000, bytes(4096))
    rom.flash.erase = lambda address, size: None  # type: ignore[method-assign]
    stream = archive(FILES)
    for block in blocks(stream):
        dnload(rom, block)
        assert get_status(rom)[0] == OK
    dnload(rom, b"")
    assert get_status(rom)[0] == ERR_FIRMWARE


def test_every_md5_is_checked() -> None:
    files = [File(0x1000 * (n + 1), f"f{n}", content(500 + n, n)) for n in range(3)]
    for wrong in range(3):
        records = [replace(file, data=b"wrong") if n == wrong else file for n, file in enumerate(files)]
        assert send(new_rom(), archive_of(records, files)) == ERR_FIRMWARE


@pytest.mark.parametrize("place", [0, 5, 54, 94], ids=["magic", "magic's end", "filesize", "namesize"])
def test_damaged_header_is_errtarget(place: int) -> None:
    stream = bytearray(archive(FILES))
    header = bytes(stream).index(b"070701", bytes(stream).index(FILES[0].data))
    stream[header + place : header + place + 1] = b"x"
    assert send(new_rom(), bytes(stream)) == ERR_TARGET


def test_chip_size_is_forgotten_before_next_download() -> None:
    far = File(3 * MIB, "far.bin", content(100))
    rom = new_rom()
    assert send(rom, archive([far])) == OK
    assert send(rom, archive([File(0x1000, "a", content(100))], None)) == OK
    assert send(rom, archive([far], MIB)) == ERR_FIRMWARE


@pytest.mark.parametrize("name", NAMES)
def test_rehearsal_of_good_stream(name: str) -> None:
    assert rom_status(archive(FILES), chip(name)) == OK


@pytest.mark.parametrize("case", [c for c in bad_streams() if c.flash_size == 4 * MIB], ids=lambda case: case.name)
def test_rehearsal_agrees_with_rom(case: BadStream) -> None:
    assert rom_status(memoryview(case.stream), chip()) == case.status


def test_rom_does_not_mind_an_empty_stream() -> None:
    assert rom_status(b"", chip()) == OK
