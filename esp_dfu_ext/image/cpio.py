"""CPIO archives in the "newc" format (magic 070701), as far as the ROM reads them: cpio(5), FreeBSD.

A member is a header of 110 ASCII characters, the name with a NUL at its end, and the data. Header and name together,
and the data, are each padded with zeros to a multiple of four bytes. The member ``TRAILER!!!`` ends the archive.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..errors import ImageError

MAGIC = b"070701"
HEADER_LENGTH = 110
TRAILER = "TRAILER!!!"
MOST_MEMBERS = 1024  # far more than any ROM accepts; keeps a hostile archive from filling memory and screen
LONGEST_NAME = 256  # bytes, for the same reason
MODE_FILE = 0o0100644

# A header has 13 fields of eight hexadecimal digits, cpio(5); these are the indexes of those we use.
_FIELD_COUNT = 13
_MODE, _NLINK, _FILESIZE, _NAMESIZE = 1, 4, 6, 11
_DIGITS = frozenset(b"0123456789abcdefABCDEF")


def padding(size: int, multiple: int = 4) -> int:
    """Return how many bytes are missing up to the next multiple."""
    return -size % multiple


def header(name: str, size: int) -> bytes:
    """Return header, name and padding of a file member of `size` bytes, or of the trailer."""
    is_trailer = name == TRAILER
    encoded = name.encode("utf-8") + b"\0"
    fields = [0] * _FIELD_COUNT
    fields[_MODE] = 0 if is_trailer else MODE_FILE
    fields[_NLINK] = 1 if is_trailer else 0
    fields[_FILESIZE] = size
    fields[_NAMESIZE] = len(encoded)
    head = MAGIC + b"".join(b"%08x" % field for field in fields) + encoded
    return head + bytes(padding(len(head)))


class CpioMember(NamedTuple):
    """A member whose data are `size` bytes at `offset` in the archive."""

    name: str
    offset: int
    size: int

    @property
    def end(self) -> int:
        """The first byte after the member and its padding."""
        return self.offset + self.size + padding(self.size)


def members(archive: memoryview) -> Iterator[CpioMember]:
    """Yield each member of the archive, including the trailer.

    Raises:
        ImageError: The archive is damaged; the message names the first offset that breaks the format.
    """
    position = 0
    for _ in range(MOST_MEMBERS):
        member = _member(archive, position)
        yield member
        if member.name == TRAILER:
            return
        position = member.end
    raise ImageError(f"The archive has more than {MOST_MEMBERS} members.")


def _member(archive: memoryview, start: int) -> CpioMember:
    head = bytes(archive[start : start + HEADER_LENGTH])
    if len(head) < HEADER_LENGTH:
        raise ImageError(f"The archive ends at offset {start:#x} without a {TRAILER} member.")
    if not head.startswith(MAGIC):
        raise ImageError(f"No CPIO header found at offset {start:#x}.")
    # The ROM uses two of the fields and rejects the archive if any of them is damaged. int() alone would also accept
    # "+1", " 1" and "1_0".
    if not _DIGITS.issuperset(head[len(MAGIC) :]):
        raise ImageError(f"The CPIO header at offset {start:#x} is damaged.")
    size, name_size = _field(head, _FILESIZE), _field(head, _NAMESIZE)
    name_start = start + HEADER_LENGTH
    name_end = name_start + name_size
    if not 1 <= name_size <= LONGEST_NAME or name_end > len(archive) or archive[name_end - 1] != 0:
        raise ImageError(f"The name in the CPIO header at offset {start:#x} is damaged.")
    try:
        name = bytes(archive[name_start : name_end - 1]).decode("utf-8")
    except UnicodeDecodeError:
        raise ImageError(f"The name in the CPIO header at offset {start:#x} is not UTF-8.") from None
    offset = name_end + padding(HEADER_LENGTH + name_size)
    member = CpioMember(name, offset, size)
    if member.end > len(archive):
        raise ImageError(f"{name!r} at offset {start:#x} should have {size} bytes, but the file ends before that.")
    return member


def _field(head: bytes, index: int) -> int:
    return int(head[len(MAGIC) + 8 * index :][:8], 16)
