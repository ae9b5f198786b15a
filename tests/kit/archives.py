"""Write dfu.bin by hand: CPIO archives, their index and the DFU suffix, without the package's own image code."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from esp_dfu_ext import CheckedImage
from esp_dfu_ext.image.format import DfuImage, parse_image
from esp_dfu_ext.target import Target

from .chips import chip

KIB, MIB = 1 << 10, 1 << 20
PARAMS_FLAGS = 4 | 8 | 16


def content(size: int, seed: int = 0) -> bytes:
    """Return `size` bytes that differ everywhere; the same seed gives the same bytes."""
    out = b"".join(hashlib.sha256(struct.pack("<II", seed, number)).digest() for number in range(-(-size // 32)))
    return out[:size]


def pattern(size: int, step: int) -> bytes:
    """Return `size` bytes that differ from page to page; the golden images are made of them."""
    return bytes((i * step + (i >> 8)) % 251 for i in range(size))


def fill(data: bytes, multiple: int = 4) -> bytes:
    """Pad `data` with zeros to a multiple."""
    return data + bytes(-len(data) % multiple)


def cpio_member(
    name: str | bytes, data: bytes, size: int | None = None, *, mode: int = 0o100644, links: int = 0
) -> bytes:
    """Return one member of a "newc" archive, written down from cpio(5); `size` overrides the header's length."""
    raw = (name.encode() if isinstance(name, str) else name) + b"\0"
    length = len(data) if size is None else size
    head = b"070701" + b"%08x" * 13 % (0, mode, 0, 0, links, 0, length, 0, 0, 0, 0, len(raw), 0)
    return fill(head + raw) + fill(data)


TRAILER = cpio_member("TRAILER!!!", b"", mode=0, links=1)


def index_record(address: int, name: str | bytes, data: bytes, flags: int = 0) -> bytes:
    """Return one record of dfuinfo0.dat: address, flags, name, MD5; names are cut to 64 bytes, as every writer does."""
    raw = name.encode() if isinstance(name, str) else name
    return struct.pack("<II64s16s", address, flags, raw, hashlib.md5(data, usedforsecurity=False).digest())


def flash_params(chip_size: int = 4 * MIB) -> bytes:
    """Return the content of flash_params.dat, eight words."""
    return struct.pack("<8I", 0, 0, 0, chip_size, 65536, 4096, 256, 0xFFFF)


@dataclass(frozen=True)
class File:
    """A file to be flashed."""

    address: int
    name: str
    data: bytes
    flags: int = 0

    @property
    def record(self) -> bytes:
        """The file's record in the index."""
        return index_record(self.address, self.name, self.data, self.flags)

    @property
    def member(self) -> bytes:
        """The file in the archive."""
        return cpio_member(self.name, self.data)


def params(chip_size: int = 4 * MIB, name: str = "flash_params.dat") -> File:
    """Return flash_params.dat."""
    return File(0, name, flash_params(chip_size), PARAMS_FLAGS)


def index(*files: File) -> bytes:
    """Return dfuinfo0.dat."""
    return cpio_member("dfuinfo0.dat", b"".join(file.record for file in files))


def archive_of(records: Iterable[File], members: Iterable[File]) -> bytes:
    """Return an archive with these records and these members, trailer included."""
    return index(*records) + b"".join(file.member for file in members) + TRAILER


def archive(files: Sequence[File], chip_size: int | None = 4 * MIB) -> bytes:
    """Return a sound archive, trailer included; without flash_params.dat if `chip_size` is None."""
    files = files if chip_size is None else [params(chip_size), *files]
    return archive_of(files, files)


def dfu_file(stream: bytes, pid: int = 9, vid: int = 0x303A, multiple: int = 10240) -> bytes:
    """Return a dfu.bin around a stream: padding and the DFU suffix."""
    data = fill(stream, multiple) + struct.pack("<HHHH3sB", 0xFFFF, pid, vid, 0x0100, b"UFD", 16)
    return data + struct.pack("<I", zlib.crc32(data) ^ 0xFFFFFFFF)


def dfu_image(files: Sequence[File], pid: int = 9, vid: int = 0x303A, chip_size: int = 4 * MIB) -> bytes:
    """Return a sound dfu.bin."""
    return dfu_file(archive(files, chip_size), pid, vid)


def image_of(files: Sequence[File], target: Target, chip_size: int = 4 * MIB) -> DfuImage:
    """Return a sound image, parsed."""
    return parse_image(dfu_image(files, target.usb.pid, chip_size=chip_size))


# Small, so that hundreds of flashes cost little; the app is longer than one status interval of 32 blocks.
FILES = (
    File(0x1000, "bootloader.bin", content(1500, 1)),
    File(0x8000, "partition-table.bin", content(300, 2)),
    File(0x10000, "app.bin", content(5003, 3)),
)
CHIP_SIZE = MIB


@cache
def small_image(name: str = "esp32s3") -> DfuImage:
    """Return an image of three files, about 130 blocks."""
    return image_of(FILES, chip(name), CHIP_SIZE)


def checked(image: DfuImage | None = None, target: Target | None = None) -> CheckedImage:
    """Return an image as `load_image` does; the small one by default."""
    target = target or chip()
    return CheckedImage(Path("dfu.bin"), image or small_image(target.name), target)
