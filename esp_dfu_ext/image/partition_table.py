"""The partition table in flash memory (ESP-IDF, components/partition_table/gen_esp32part.py)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from ..units import clean
from .format import md5

DEFAULT_OFFSET = 0x8000
LENGTH = 0xC00
SECTOR = 0x1000  # the table, and a signature behind it, fill one
_SEARCHED = 0x10000  # bytes from the start of flash memory; ESP-IDF wants the table before the apps
_ENTRY = struct.Struct("<2sBBII16sI")
_MAGIC, _MD5_MAGIC = b"\xaa\x50", b"\xeb\xeb" + b"\xff" * 14
_APP, _DATA, _BOOTLOADER, _TABLE = 0, 1, 2, 3
_OTADATA, _ENCRYPTED = 0, 1


class Partition(NamedTuple):
    """One entry; `offset` and `size` are in bytes."""

    name: str
    type: int
    subtype: int
    offset: int
    size: int
    encrypted: bool

    @property
    def end(self) -> int:
        """The first address after the partition."""
        return self.offset + self.size

    @property
    def is_app(self) -> bool:
        """Whether it is for an app."""
        return self.type == _APP

    @property
    def is_otadata(self) -> bool:
        """Whether it says which app starts."""
        return (self.type, self.subtype) == (_DATA, _OTADATA)

    @property
    def is_of_bootloader(self) -> bool:
        """Whether it is where a bootloader or the table itself lies; ESP-IDF can list these too."""
        return self.type in (_BOOTLOADER, _TABLE)


def read_partition_table(data: bytes | memoryview) -> tuple[Partition, ...]:
    """Return the partitions, by offset; none if the data is no intact table."""
    found: list[Partition] = []
    for start in range(0, min(len(data), LENGTH) - _ENTRY.size + 1, _ENTRY.size):
        row = bytes(data[start : start + _ENTRY.size])
        if row[:16] == _MD5_MAGIC:
            return _sorted(found) if row[16:] == md5(data[:start]).digest() else ()
        if row == b"\xff" * _ENTRY.size:
            return _sorted(found)
        magic, kind, subtype, offset, size, name, flags = _ENTRY.unpack(row)
        if magic != _MAGIC:
            return ()
        text = clean(name.partition(b"\0")[0].decode("utf-8", "replace"))
        found.append(Partition(text, kind, subtype, offset, size, bool(flags & _ENCRYPTED)))
    return ()


def _sorted(found: list[Partition]) -> tuple[Partition, ...]:
    return tuple(sorted(found, key=lambda partition: partition.offset))


def find_partition_table(data: bytes | memoryview, base: int = 0) -> int | None:
    """Return the flash address of the partition table, None if there is none in the first 64 KiB.

    Args:
        data: What is in flash memory from address `base` on.
        base: Where it starts, in bytes.
    """
    places = [DEFAULT_OFFSET, *(place for place in range(0, _SEARCHED + 1, SECTOR) if place != DEFAULT_OFFSET)]
    for place in places:
        if place >= base and read_partition_table(data[place - base : place - base + LENGTH]):
            return place
    return None


def partition_at(table: Sequence[Partition], address: int) -> Partition | None:
    """Return the partition that an address lies in, None if it lies in none."""
    return next((partition for partition in table if partition.offset <= address < partition.end), None)
