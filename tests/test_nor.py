"""Simulated flash memory: erasing sets bits, programming clears bits, addresses wrap."""

from __future__ import annotations

import pytest

from esp_dfu_ext.simulator.nor import NorFlash

from .kit.archives import KIB, MIB, content


def test_new_flash_is_erased() -> None:
    flash = NorFlash(64 * KIB)
    assert flash.read(0, 64 * KIB) == b"\xff" * 64 * KIB


def test_programming_only_clears_bits() -> None:
    flash = NorFlash(64 * KIB)
    flash.program(0x1000, b"\xf0\x0f\xaa")
    flash.program(0x1000, b"\x3c\xff\x55")
    assert flash.read(0x0FFF, 5) == b"\xff\x30\x0f\x00\xff"


def test_programming_erased_flash_stores_bytes() -> None:
    flash = NorFlash(64 * KIB)
    data = content(5000)
    flash.program(0x1234, data)
    assert flash.read(0x1234, 5000) == data
    assert flash.read(0, 0x1234) == b"\xff" * 0x1234


@pytest.mark.parametrize(
    ("address", "size", "first", "last"),
    [
        (0x2000, 0x1000, 0x2000, 0x3000),
        (0x2000, 1, 0x2000, 0x3000),
        (0x2FFF, 1, 0x2000, 0x3000),
        (0x2FFF, 2, 0x2000, 0x4000),
        (0x2004, 0x1000, 0x2000, 0x4000),
        (0x0, 0x8000, 0x0, 0x8000),
        (0x0, 0x20000, 0x0, 0x8000),
    ],
)
def test_erase_covers_whole_sectors_only(address: int, size: int, first: int, last: int) -> None:
    flash = NorFlash(32 * KIB)
    flash.program(0, bytes(32 * KIB))
    flash.erase(address, size)
    assert flash.read(0, 32 * KIB) == bytes(first) + b"\xff" * (last - first) + bytes(32 * KIB - last)


def test_sector_size() -> None:
    flash = NorFlash(4 * KIB, sector=KIB)
    flash.program(0, bytes(4 * KIB))
    flash.erase(KIB, 1)
    assert flash.read(0, 4 * KIB) == bytes(KIB) + b"\xff" * KIB + bytes(2 * KIB)


def test_addresses_wrap_at_end_of_flash() -> None:
    flash = NorFlash(MIB)
    flash.program(MIB - 4, b"12345678")
    assert flash.read(0, 4) == b"5678"
    assert flash.read(MIB - 4, 8) == b"12345678"
    assert flash.read(3 * MIB - 4, 8) == b"12345678"
    flash.erase(2 * MIB, 4)
    assert flash.read(MIB - 4, 8) == b"1234" + b"\xff" * 4


def test_addresses_wrap_at_24_bits() -> None:
    flash = NorFlash(32 * MIB)
    flash.program(16 * MIB - 2, b"abcd")
    assert flash.read(0, 2) == b"cd"
    assert flash.read(16 * MIB - 2, 4) == b"abcd"
    assert flash.read(16 * MIB, 2) == b"cd"
    flash.erase(16 * MIB, 1)
    assert flash.read(16 * MIB - 2, 4) == b"ab\xff\xff"
