"""The format of dfu.bin, and how to read one; `writer` writes it.

The stream sent to the ROM is a CPIO archive: ``dfuinfo0.dat`` (the index, one record per file), ``flash_params.dat``
(size and geometry of flash memory), the flash files, and the trailer. On disk the archive is padded with zeros to a
multiple of 10240 bytes and followed by the DFU suffix. The format is that of ESP-IDF's tools/mkdfu.py; tests compare
the bytes.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Union

from ..errors import ImageError, InputMissingError
from . import cpio, suffix
from .esp_image import ESP_IMAGE_MAGIC
from .suffix import Suffix

INDEX_NAME = "dfuinfo0.dat"
FLASH_PARAMS_NAME = "flash_params.dat"

# Flags of an index record, as the ROM reads them.
FLAG_PARAMS, FLAG_NO_ERASE, FLAG_IGNORE_MD5 = 4, 8, 16
FLASH_PARAMS_FLAGS = FLAG_PARAMS | FLAG_NO_ERASE | FLAG_IGNORE_MD5

# Bytes of the stream that the ROM collects before it processes them: in every chip's ROM (executed).
ROM_BUFFER_SIZE = 256

_RECORD = struct.Struct("<II64s16s")
RECORD_LENGTH = _RECORD.size
_PARAMS = struct.Struct("<8I")
Buffer = Union[bytes, memoryview]


class FlashParams(NamedTuple):
    """The contents of flash_params.dat: size and geometry of flash memory, in bytes."""

    chip_size: int
    block: int
    sector: int
    page: int
    status_mask: int

    def encode(self) -> bytes:
        """Return eight 32-bit words; the ROM does not use the first three."""
        return _PARAMS.pack(0, 0, 0, *self)

    @classmethod
    def decode(cls, data: bytes) -> FlashParams:
        """Read flash_params.dat.

        Raises:
            ImageError: `data` has another length.
        """
        if len(data) != _PARAMS.size:
            raise ImageError(f"{FLASH_PARAMS_NAME} has {len(data)} bytes instead of {_PARAMS.size}.")
        return cls(*_PARAMS.unpack(data)[3:])


class IndexRecord(NamedTuple):
    """One record of dfuinfo0.dat: the flash address of the member `name`, and its MD5."""

    address: int
    flags: int
    name: str
    md5: bytes

    def encode(self) -> bytes:
        """Return the record's 88 bytes, little endian."""
        return _RECORD.pack(self.address, self.flags, self.name.encode("utf-8"), self.md5)


@dataclass(frozen=True)
class Member:
    """A file in the archive; `record` is its index record, None if the index has none."""

    name: str
    offset: int
    data: memoryview = field(repr=False)
    record: IndexRecord | None


@dataclass(frozen=True)
class DfuImage:
    """A dfu.bin whose structure is intact; `check` decides whether the ROM would flash it correctly.

    Attributes:
        suffix: The DFU suffix.
        stream: What is sent to the device: the archive including its trailer, without padding.
        records: The index, in its order.
        members: The files of the archive in their order, without index and trailer.
        index_first: Whether the index is the first member.
        file: The whole file, including padding and suffix.
    """

    suffix: Suffix
    stream: memoryview = field(repr=False)
    records: tuple[IndexRecord, ...]
    members: tuple[Member, ...]
    index_first: bool
    file: memoryview = field(repr=False)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file in hexadecimal, as sha256sum prints it."""
        return hashlib.sha256(self.file).hexdigest()

    @property
    def flash_params(self) -> FlashParams | None:
        """The image's flash parameters, None if it has none."""
        for member in self.members:
            if member.record is not None and member.record.flags & FLAG_PARAMS:
                return FlashParams.decode(bytes(member.data))
        return None

    @property
    def flash_members(self) -> list[Member]:
        """The members that are written to flash memory, in stream order."""
        return [m for m in self.members if m.record is not None and not m.record.flags & FLAG_PARAMS]

    @property
    def payload_size(self) -> int:
        """How many bytes are written to flash memory."""
        return sum(len(m.data) for m in self.flash_members)


def md5(data: Buffer = b"") -> hashlib._Hash:
    """Return an MD5 object, allowed even where policy forbids MD5 for security: here it is the ROM's checksum."""
    return hashlib.md5(data, usedforsecurity=False)


def parse_image(data: Buffer) -> DfuImage:
    """Read the bytes of a dfu.bin, without copying them.

    Raises:
        ImageError: The suffix, its CRC, the archive or the index is damaged.
    """
    view = memoryview(data)
    dfu_suffix = suffix.decode(view)
    archive = view[: -suffix.LENGTH]
    found = list(cpio.members(archive))
    stream = archive[: found[-1].end]
    if any(archive[len(stream) :]):
        raise ImageError(f"Data follows the {cpio.TRAILER} member, at offset {len(stream):#x}.")
    files = found[:-1]
    index = next((m for m in files if m.name == INDEX_NAME), None)
    records = _records(archive[index.offset : index.offset + index.size]) if index else ()
    by_name: dict[str, IndexRecord] = {}
    for record in records:
        # The ROM uses the first record with a name.
        by_name.setdefault(record.name, record)
    members = tuple(
        Member(m.name, m.offset, archive[m.offset : m.offset + m.size], by_name.get(m.name))
        for m in files
        if m is not index
    )
    return DfuImage(dfu_suffix, stream, records, members, index is not None and index is files[0], view)


def _records(data: memoryview) -> tuple[IndexRecord, ...]:
    if len(data) % RECORD_LENGTH:
        raise ImageError(f"{INDEX_NAME} has {len(data)} bytes, which is not a multiple of {RECORD_LENGTH}.")
    if len(data) > cpio.MOST_MEMBERS * RECORD_LENGTH:
        raise ImageError(f"{INDEX_NAME} has more than {cpio.MOST_MEMBERS} records.")
    records = []
    for address, flags, name, md5 in _RECORD.iter_unpack(data):
        text, _, _ = name.partition(b"\0")
        try:
            records.append(IndexRecord(address, flags, text.decode("utf-8"), md5))
        except UnicodeDecodeError:
            raise ImageError(f"A name in {INDEX_NAME} is not UTF-8: {text!r}.") from None
    return tuple(records)


# Far above any real image (16 MiB of flash files plus headers), so that a wrong file is not read into memory.
MAX_FILE_SIZE = 64 << 20


def read_image(path: Path) -> DfuImage:
    """Read dfu.bin once, whole: what is checked is what is sent, whatever happens to the file.

    Raises:
        InputMissingError: The file does not exist or cannot be read.
        ImageError: The file is damaged or not a DFU image; the message names it.
    """
    try:
        if path.exists() and not path.is_file():
            what = "a folder" if path.is_dir() else "not a regular file"
            raise InputMissingError(f"{path} is {what}.", path=path, role="dfu.bin", reason="no-file")
        with path.open("rb") as file:
            data = file.read(MAX_FILE_SIZE + 1)
        if len(data) > MAX_FILE_SIZE:
            raise ImageError(f"{path} has more than {MAX_FILE_SIZE} bytes; no DFU image is that large.")
    except OSError as error:
        raise InputMissingError.of(error, path, "dfu.bin") from error
    if data[:1] == bytes([ESP_IMAGE_MAGIC]):
        other = ImageError(f"{path} is an ESP app or bootloader image, not a DFU image.")
        other.esp_image = True
        raise other
    try:
        image = parse_image(data)
        _ = image.flash_params  # raises if its length is wrong
        return image
    except ImageError as error:
        raise ImageError(f"{path} is damaged or not a DFU image. {error.message}") from error
