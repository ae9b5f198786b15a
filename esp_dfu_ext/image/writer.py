"""Write dfu.bin; byte for byte what ESP-IDF's tools/mkdfu.py writes, but streamed and all or nothing."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..errors import InputMissingError, OutputError, ProjectError
from . import cpio, suffix
from .format import (
    FLASH_PARAMS_FLAGS,
    FLASH_PARAMS_NAME,
    INDEX_NAME,
    FlashParams,
    IndexRecord,
    md5,
)
from .suffix import Suffix

ARCHIVE_MULTIPLE = 10240
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Part:
    """A piece of a file that becomes one member: `size` bytes from `offset` of `path`, to flash `address`."""

    name: str
    address: int
    path: Path
    offset: int
    size: int


def split(name: str, address: int, path: Path, size: int, part_size: int) -> Iterator[Part]:
    """Cut a file into parts of `part_size` bytes: ``name``, ``name.1``, ``name.2``, ...

    The ROM erases a member's whole range at its first bytes; parts keep that time short.
    """
    for number, offset in enumerate(range(0, size, part_size)):
        part_name = name if number == 0 else f"{name}.{number}"
        yield Part(part_name, address + offset, path, offset, min(part_size, size - offset))


def write_image(
    path: Path,
    parts: Sequence[Part],
    params: FlashParams,
    dfu_suffix: Suffix,
    confirm: Callable[[], None] = lambda: None,
) -> int:
    """Write dfu.bin, through a temporary file beside it that takes its place only when it is complete.

    Memory does not grow with the image. `parts` are written in the order given; ESP-IDF's is by address. `confirm`
    is called when all is written; what it raises keeps the old file.

    Returns:
        The size of the file in bytes.

    Raises:
        InputMissingError: a part's file cannot be read.
        ProjectError: a part's file changed while it was read.
        OutputError: `path` cannot be written; what was there before is still there.
    """
    import tempfile  # a flash does not need it, and it costs as much as this whole module

    records = [IndexRecord(0, FLASH_PARAMS_FLAGS, FLASH_PARAMS_NAME, md5(params.encode()).digest())]
    records += [IndexRecord(part.address, 0, part.name, _md5(part)) for part in parts]
    temporary: Path | None = None
    try:
        # Hidden and beside the target, so that the rename stays inside one file system.
        handle, temporary_name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        temporary = Path(temporary_name)
        with os.fdopen(handle, "wb") as file:
            size = _write(file, records, parts, params, dfu_suffix)
            file.flush()
            os.fsync(file.fileno())
        confirm()
        temporary.chmod(_mode_of(path))
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink()
    return size


def _mode_of(path: Path) -> int:
    """The permissions of the file that is replaced, else those of any new file."""
    try:
        return path.stat().st_mode & 0o777
    except OSError:
        umask = os.umask(0o022)
        os.umask(umask)
        return 0o666 & ~umask


def _write(
    file: BinaryIO,
    records: Sequence[IndexRecord],
    parts: Sequence[Part],
    params: FlashParams,
    dfu_suffix: Suffix,
) -> int:
    out = _CrcWriter(file)
    index = b"".join(record.encode() for record in records)
    for name, data in ((INDEX_NAME, index), (FLASH_PARAMS_NAME, params.encode())):
        out.write(cpio.header(name, len(data)))
        out.write(data + bytes(cpio.padding(len(data))))
    for part, record in zip(parts, records[1:]):
        out.write(cpio.header(part.name, part.size))
        digest = md5()
        for chunk in _chunks(part):
            digest.update(chunk)
            out.write(chunk)
        if digest.digest() != record.md5:
            raise ProjectError(f"{part.path} changed while it was read; is a build running?")
        out.write(bytes(cpio.padding(part.size)))
    out.write(cpio.header(cpio.TRAILER, 0))
    out.write(bytes(cpio.padding(out.size, ARCHIVE_MULTIPLE)))
    out.write(suffix.encode(dfu_suffix))
    out.write(suffix.crc(out.crc32))
    return out.size


class _CrcWriter:
    """Counts what it writes, and keeps its CRC-32."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = 0
        self.crc32 = 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self.size += len(data)
        self.crc32 = zlib.crc32(data, self.crc32)


def _chunks(part: Part) -> Iterator[bytes]:
    try:
        with part.path.open("rb") as file:
            file.seek(part.offset)
            left = part.size
            while left:
                chunk = file.read(min(left, _CHUNK))
                if not chunk:
                    raise ProjectError(f"{part.path} became shorter while it was read; is a build running?")
                left -= len(chunk)
                yield chunk
    except OSError as error:
        raise InputMissingError.of(error, part.path, "flash file") from error


def _md5(part: Part) -> bytes:
    digest = md5()
    for chunk in _chunks(part):
        digest.update(chunk)
    return digest.digest()
