"""Write dfu.bin: byte for byte what ESP-IDF's tools/mkdfu.py writes, and never half of it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import OutputError
from ..files import replace_file
from . import cpio, suffix
from .format import FLASH_PARAMS_FLAGS, FLASH_PARAMS_NAME, INDEX_NAME, Buffer, FlashParams, IndexRecord, md5
from .suffix import Suffix

ARCHIVE_MULTIPLE = 10240


@dataclass(frozen=True)
class Part:
    """A flash file, or a stretch of one, that becomes one member of the archive.

    Attributes:
        name: Name of the member.
        address: Bytes from the start of flash memory.
        data: Its contents.
    """

    name: str
    address: int
    data: memoryview = field(repr=False)


def split(name: str, address: int, data: bytes, part_size: int) -> Iterator[Part]:
    """Cut a file into parts of `part_size` bytes: ``name``, ``name.1``, ``name.2``, ...

    The ROM erases a member's whole range when its first bytes arrive; small parts keep that time short.
    """
    view = memoryview(data)
    for number, offset in enumerate(range(0, len(data), part_size)):
        part_name = name if number == 0 else f"{name}.{number}"
        yield Part(part_name, address + offset, view[offset : offset + part_size])


def write_image(path: Path, parts: Sequence[Part], params: FlashParams, dfu_suffix: Suffix) -> int:
    """Write dfu.bin to a temporary file, which replaces `path` once it is complete.

    Args:
        path: Path of dfu.bin.
        parts: Written in this order; ESP-IDF sorts them by address.
        params: Size and geometry of flash memory.
        dfu_suffix: The chip the image is for.

    Returns:
        Size of dfu.bin in bytes.

    Raises:
        OutputError: `path` cannot be written; an existing file stays as it was.
    """
    try:
        with replace_file(path) as file:
            for chunk in encode_image(parts, params, dfu_suffix):
                file.write(chunk)
            return file.tell()
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}.") from error


def encode_image(parts: Sequence[Part], params: FlashParams, dfu_suffix: Suffix) -> Iterator[Buffer]:
    """Yield the bytes of dfu.bin, from the first member's header to the CRC; `parse_image` is the inverse."""
    size = crc32 = 0
    for chunk in _archive(parts, params):
        size += len(chunk)
        crc32 = zlib.crc32(chunk, crc32)
        yield chunk
    end = bytes(cpio.padding(size, ARCHIVE_MULTIPLE)) + suffix.encode(dfu_suffix)
    yield end
    yield suffix.crc(zlib.crc32(end, crc32))


def _archive(parts: Sequence[Part], params: FlashParams) -> Iterator[Buffer]:
    geometry = params.encode()
    records = [IndexRecord(0, FLASH_PARAMS_FLAGS, FLASH_PARAMS_NAME, md5(geometry).digest())]
    records += [IndexRecord(part.address, 0, part.name, md5(part.data).digest()) for part in parts]
    index = b"".join(record.encode() for record in records)
    members = [(INDEX_NAME, memoryview(index)), (FLASH_PARAMS_NAME, memoryview(geometry))]
    members += [(part.name, part.data) for part in parts]
    for name, data in members:
        yield cpio.header(name, len(data))
        yield data
        yield bytes(cpio.padding(len(data)))
    yield cpio.header(cpio.TRAILER, 0)
