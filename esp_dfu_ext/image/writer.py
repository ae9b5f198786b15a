"""Write dfu.bin: byte for byte as ESP-IDF's tools/mkdfu.py writes it, and either whole or not at all."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import OutputError
from ..files import replace_file
from . import cpio, suffix
from .format import FLASH_PARAMS_FLAGS, FLASH_PARAMS_NAME, INDEX_NAME, Buffer, FlashParams, IndexRecord, md5
from .layout import Part
from .suffix import Suffix

ARCHIVE_MULTIPLE = 10240


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
    filler = bytes(cpio.padding(size, ARCHIVE_MULTIPLE))
    yield filler
    yield suffix.encode(dfu_suffix, zlib.crc32(filler, crc32))


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
