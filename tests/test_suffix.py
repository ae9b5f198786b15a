"""The DFU suffix: written, read, and refused when damaged."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from esp_dfu_ext.errors import ImageError
from esp_dfu_ext.image import suffix
from esp_dfu_ext.image.format import parse_image, read_image
from esp_dfu_ext.image.suffix import Suffix

from .kit.archives import TRAILER, File, cpio_member, dfu_file, dfu_image, index_record
from .kit.files import write_file

SMALL = dfu_image([File(0x1000, "a.bin", b"abcdefg"), File(0x2000, "b.bin", b"xyz")])
ONE = cpio_member("dfuinfo0.dat", index_record(0, "a.bin", b"abc")) + cpio_member("a.bin", b"abc")


def test_suffix_crc_follows_dfu_specification() -> None:
    data = b"any bytes" * 9
    data += suffix.encode(Suffix(0x303A, 0x12), zlib.crc32(data))
    crc = 0xFFFFFFFF
    for byte in data[:-4]:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0xEDB88320 if crc & 1 else 0)
    assert data[-16:-4] == b"\xff\xff\x12\x00\x3a\x30\x00\x01UFD\x10"
    assert data[-4:] == crc.to_bytes(4, "little")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"", "only 0 bytes"),
        (lambda data: data + bytes(16), "not end with a DFU suffix"),
        (lambda data: data[:-8] + b"DFU" + data[-5:], "not end with a DFU suffix"),
        (lambda data: data[:-5] + b"\x11" + data[-4:], "not end with a DFU suffix"),
        (lambda data: data[:-4] + bytes(4), "DFU suffix has CRC 00000000"),
    ],
)
def test_missing_or_damaged_suffix_is_refused(change: Any, message: str, tmp_path: Path) -> None:
    path = write_file(tmp_path / "dfu.bin", change(SMALL))
    with pytest.raises(ImageError, match=message) as caught:
        read_image(path)
    assert str(path) in caught.value.message


def test_every_suffix_field_is_read() -> None:
    data = ONE + TRAILER + struct.pack("<HHHH3sB", 0x0203, 0x0009, 0x303A, 0x011A, b"UFD", 16)
    crc = zlib.crc32(data) ^ 0xFFFFFFFF
    assert parse_image(data + struct.pack("<I", crc)).suffix == (0x303A, 0x0009, 0x0203, 0x011A)
    with pytest.raises(ImageError, match=f"DFU suffix has CRC 12345678, but the file's CRC is {crc:08x}"):
        parse_image(data + struct.pack("<I", 0x12345678))


def test_suffix_alone_is_not_image() -> None:
    with pytest.raises(ImageError, match="archive ends at offset 0x0"):
        parse_image(dfu_file(b"", multiple=1))


def test_encode_is_inverse_of_decode() -> None:
    fields = Suffix(0x303A, 0x0009, 0x0203, 0x011A)
    assert suffix.decode(memoryview(b"data" + suffix.encode(fields, zlib.crc32(b"data")))) == fields


@pytest.mark.parametrize("at", range(14))
def test_suffix_is_found_by_its_signature_in_right_place(at: int) -> None:
    assert suffix.has_suffix(bytes(at) + b"UFD\x10" + bytes(14 - at)) is (at == 10)
    assert not suffix.has_suffix(b"UFD\x10" + bytes(4))
