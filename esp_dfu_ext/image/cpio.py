"""CPIO archives in the "newc" format (magic 070701), as far as the ROM reads them: cpio(5), FreeBSD.

A member is a header of 110 ASCII characters, the name with its NUL, and the data; header with name, and
data, are each padded with zeros to a multiple of four bytes. The member ``TRAILER!!!`` ends the archive.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..errors import ImageError

MAGIC = b"070701"
HEADER_LENGTH = 110
TRAILER = "TRAILER!!!"
MOST_MEMBERS = 1024  # far more than any ROM takes; keeps a hostile archive from filling memory and screen
LONGEST_NAME = 256  # the same, bytes
MODE_FILE = 0o0100644

# Which of the 13 fields of eight hexadecimal digits is which, from cpio(5).
_FIELD_COUNT = 13
_MODE, _NLINK, _FILESIZE, _NAMESIZE = 1, 4, 6, 11
_DIGITS = frozenset(b"0123456789abcdefABCDEF")


def padding(size: int, multiple: int = 4) -> int:
    """How many bytes are missing to the next multiple."""
    return -size % multiple


def header(name: str, size: int) -> bytes:
    """Header, name and padding of a file member of `size` bytes, or of the trailer."""
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
    """Where a member's data lie in the archive: at `offset`, `size` bytes."""

    name: str
    offset: int
    size: int

    @property
    def end(self) -> int:
        """The first byte after the member and its padding."""
        return self.offset + self.size + padding(self.size)


def members(archive: memoryview) -> Iterator[CpioMember]:
    """Walk through the archive, the trailer included.

    Raises:
        ImageError: at the first place that breaks the format; the message names the offset.
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
        raise ImageError(f"There is no CPIO header at offset {start:#x}.")
    size = _field(head, _FILESIZE, start)
    name_size = _field(head, _NAMESIZE, start)
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
        raise ImageError(f"{name!r} at offset {start:#x} is said to have {size} bytes; the file ends before.")
    return member


def _field(head: bytes, index: int, start: int) -> int:
    digits = head[len(MAGIC) + 8 * index :][:8]
    # int() alone would also take "+1", " 1" and "1_0".
    if not _DIGITS.issuperset(digits):
        raise ImageError(f"The CPIO header at offset {start:#x} is damaged.")
    return int(digits, 16)
