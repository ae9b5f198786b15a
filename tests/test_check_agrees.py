"""check_image and the simulated ROM agree: what the host accepts, the ROM flashes correctly."""

from __future__ import annotations

import random
from dataclasses import replace

import msgspec
import pytest

from esp_dfu_ext.errors import ImageError
from esp_dfu_ext.image.check import check_image
from esp_dfu_ext.image.format import parse_image
from esp_dfu_ext.simulator import rom_status

from .kit.archives import (
    KIB,
    MIB,
    TRAILER,
    File,
    archive,
    archive_of,
    content,
    cpio_member,
    dfu_file,
    params,
)
from .kit.chips import NAMES, chip
from .kit.host import OK, new_rom, send
from .kit.streams import GOOD_STREAMS, BadStream, bad_streams


def _refused(stream: bytes, name: str = "esp32s3") -> list[str]:
    """Return why the host refuses a stream; empty if it accepts it."""
    target = chip(name)
    try:
        return check_image(parse_image(dfu_file(stream, target.usb.pid)), target)
    except ImageError as error:
        return [error.message]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", [c for c in bad_streams() if c.host_can_know], ids=lambda case: case.name)
def test_bad_stream_is_refused(case: BadStream, name: str) -> None:
    assert _refused(case.stream, name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("files", "chip_size"), GOOD_STREAMS.values(), ids=GOOD_STREAMS)
def test_good_stream_is_accepted(files: tuple[File, ...], chip_size: int, name: str) -> None:
    assert _refused(archive(files, chip_size), name) == []


@pytest.mark.parametrize(
    ("stream", "detail"),
    [
        (archive([File(0x1002, "odd.bin", content(10))]), "odd.bin"),
        (archive([File(0x1000, "a.bin", content(10)), File(0x1C00, "b.bin", content(10))]), "0x1000"),
        (archive([File(0x210000, "far.bin", content(10))], None), "far.bin"),
        (archive([File(0x1000, "n" * 64, content(10))]), "n" * 64),
        (archive([File(0x1000, "twin.bin", b"1"), File(0x2000, "twin.bin", b"2")]), "twin.bin"),
        (archive([File(16 * MIB, "high.bin", content(10))], 32 * MIB), "high.bin"),
    ],
)
def test_refusal_names_what_it_is_about(stream: bytes, detail: str) -> None:
    assert any(detail in problem for problem in _refused(stream))


def _is_flashed_correctly(stream: bytes, files: dict[int, bytes]) -> bool:
    rom = new_rom(flash_size=4 * MIB)
    rom.flash.program(0, content(256 * KIB, 1234))
    if send(rom, stream) != OK:
        return False
    return all(rom.flash.read(address, len(data)) == data for address, data in files.items())


_SIZES = (0, 1, 3, 4, 40, 4095, 4096, 4097, 9000)
_ADDRESSES = (0, 2, 0x1000, 0x1004, 0x2000, 0x3000, 0x8000, 2 * MIB - 4096, 2 * MIB, 4 * MIB - 4096)
_NAMES = ("a", "b.bin", "c" * 63, "d" * 64, "b.bin.1")
_CHIP_SIZES = (None, 64 * KIB, MIB, 2 * MIB, 4 * MIB)


def _random_stream(dice: random.Random) -> tuple[bytes, dict[int, bytes]]:
    """Return an archive with a mistake or two, and what flash memory should hold after it."""
    names = dice.sample(_NAMES, dice.randrange(1, 4))
    if dice.random() < 0.1:
        names.append(names[0])
    addresses = [dice.choice(_ADDRESSES) for _ in names]
    if dice.random() < 0.5:
        addresses = dice.sample([a for a in _ADDRESSES if a % 4096 == 0], len(names))
    files = [
        File(address, name, content(dice.choice(_SIZES), number))
        for number, (address, name) in enumerate(zip(addresses, names))
    ]
    chip_size = dice.choice(_CHIP_SIZES)
    records = [replace(file, flags=dice.choice((0,) * 12 + (8, 16, 1, 28))).record for file in files]
    members = [file.member for file in files]
    if chip_size is not None:
        # Usually where it belongs; after the files it comes too late for the ROM.
        place = dice.choice((0, 0, 0, len(members)))
        members.insert(place, params(chip_size).member)
        records.insert(0, params(chip_size).record)
    if dice.random() < 0.05:
        records.pop()
    if dice.random() < 0.05:
        members.pop()
    if dice.random() < 0.2:
        dice.shuffle(records)
    stream = [cpio_member("dfuinfo0.dat", b"".join(records)), *members]
    if dice.random() < 0.05:
        stream.insert(dice.randrange(len(stream)), stream.pop(0))
    return b"".join(stream) + TRAILER, {f.address: f.data for f in files}


@pytest.mark.parametrize("seed", range(4))
def test_accepted_image_is_flashed_correctly_by_rom(seed: int) -> None:
    dice = random.Random(seed)
    accepted = 0
    for _ in range(150):
        stream, files = _random_stream(dice)
        if not _refused(stream):
            accepted += 1
            assert _is_flashed_correctly(stream, files), files.keys()
    assert accepted > 10


def test_name_twice_in_index_and_once_in_archive_is_refused() -> None:
    twin = File(0x1000, "twin.bin", content(100))
    stream = archive_of([params(), twin, replace(twin, address=0x8000)], [params(), twin])
    assert send(new_rom(), stream) != OK
    assert any("twin.bin" in problem for problem in _refused(stream))


def test_flash_params_after_files_are_refused() -> None:
    """The ROM assumes 2 MiB until they arrive."""
    far = File(3 * MIB, "far.bin", content(100))
    stream = archive_of([params(), far], [far, params()])
    assert send(new_rom(), stream) != OK
    assert _refused(stream)


def test_second_flash_params_are_refused() -> None:
    """The ROM uses the last it received."""
    far = File(3 * MIB, "far.bin", content(100))
    files = [params(), params(MIB, "more.dat"), far]
    stream = archive_of(files, files)
    assert send(new_rom(), stream) != OK
    assert _refused(stream)


@pytest.mark.parametrize("assumed_size", [2 * MIB, 16 * MIB])
def test_size_without_flash_params_is_that_of_chip(assumed_size: int) -> None:
    flash = msgspec.structs.replace(chip().flash, assumed_size=assumed_size)
    target = msgspec.structs.replace(chip(), flash=flash)
    image = parse_image(dfu_file(archive([File(4 * MIB, "far.bin", content(100))], None)))
    assert (check_image(image, target) == []) is (rom_status(image.stream, target) == OK) is (assumed_size > 4 * MIB)
