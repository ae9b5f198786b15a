"""The ROM's reader of CPIO archives: a state machine that is fed with buffers of any length.

It moves on only while there are bytes left: a header, a name or an empty member that ends with a buffer takes effect
when the next one arrives. As read in the ROMs' code and as all four did it when they were executed.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from typing import NamedTuple

from ..image.format import ROM_BUFFER_SIZE
from .spiflash import RomDied

HEADER_LENGTH = 110
LONGEST_NAME = 5685  # bytes with NUL and padding; longer names do not fit into the chips' memory
TRAILER = b"TRAILER!!!"

_MAGIC = re.compile(rb"07070[12]")
_HEX = re.compile(rb"[0-9A-Fa-f]{104}")  # 13 fields of 8 digits, of which the ROM uses two
_FILESIZE, _NAMESIZE = slice(54, 62), slice(94, 102)
_U32 = 0xFFFFFFFF
_NEGATIVE = 0x80000000  # the ROM counts lengths in signed words


class Result(enum.Enum):
    """What feeding a buffer comes to."""

    MORE = "wants more"
    END = "the trailer was seen"
    BAD = "not an archive"


class Part(enum.Enum):
    """Where in its member a piece of data lies."""

    WHOLE = 0
    FIRST = 1
    MIDDLE = 2
    LAST = 3


class Piece(NamedTuple):
    """Up to 256 bytes of a member.

    Attributes:
        part: Where in the member they lie.
        name: Name of the member.
        size: Length of the member in bytes.
        offset: Position of the bytes in the member.
        data: The bytes.
    """

    part: Part
    name: bytes
    size: int
    offset: int
    data: bytes


class _Step(enum.Enum):
    HEADER = enum.auto()
    NAME = enum.auto()
    DATA = enum.auto()
    PADDING = enum.auto()
    END = enum.auto()
    BAD = enum.auto()


class ArchiveReader:
    """State of one archive.

    Args:
        receive: Called with each piece of each member but the trailer.
    """

    def __init__(self, receive: Callable[[Piece], None]) -> None:
        self._receive = receive
        self._step = _Step.HEADER
        self._collected = bytearray()  # of the header, the name, or the piece of data
        self._name = b""
        self._name_length = 0  # with NUL and padding
        self._size = 0
        self._position = 0  # in the member and its padding
        self._steps = {
            _Step.HEADER: self._header,
            _Step.NAME: self._read_name,
            _Step.DATA: self._data,
            _Step.PADDING: self._pad,
        }

    def feed(self, data: bytes) -> Result:
        """Take the next bytes.

        Raises:
            RomDied: A member claims 2 GiB or more.
        """
        done = 0
        while done < len(data):
            if self._step is _Step.END:
                return Result.END
            if self._step is _Step.BAD:
                return Result.BAD
            done += self._steps[self._step](data[done:])
        return Result.MORE

    def finish(self) -> None:
        """Hand over what was collected of a member that was cut, at the position where it ends: the ROM's mistake."""
        if self._step is _Step.DATA and self._collected:
            self._hand_over(Part.LAST, self._position)

    def _collect(self, data: bytes, length: int) -> int:
        taken = min(length - len(self._collected), len(data))
        self._collected += data[:taken]
        return taken

    def _header(self, data: bytes) -> int:
        if len(self._collected) < HEADER_LENGTH:
            return self._collect(data, HEADER_LENGTH)
        header = bytes(self._collected)
        self._collected.clear()
        self._step = _Step.BAD
        if _MAGIC.match(header) and _HEX.fullmatch(header, 6):
            self._size = int(header[_FILESIZE], 16)
            self._name_length = _padded(int(header[_NAMESIZE], 16))
            if self._name_length <= LONGEST_NAME:
                self._step = _Step.NAME
        return 0

    def _read_name(self, data: bytes) -> int:
        if len(self._collected) < self._name_length:
            return self._collect(data, self._name_length)
        self._name = bytes(self._collected).partition(b"\0")[0]
        self._collected.clear()
        self._position = 0
        self._step = _Step.END if self._size == 0 and self._name == TRAILER else _Step.DATA
        return 0

    def _data(self, data: bytes) -> int:
        left = self._size - self._position
        if left >= _NEGATIVE:
            raise RomDied
        start = len(self._collected)
        taken = min(ROM_BUFFER_SIZE - start, left, len(data))
        self._collected += data[:taken]
        first = self._position < ROM_BUFFER_SIZE
        begin = self._position - start
        self._position += taken
        if self._position == self._size:
            self._hand_over(Part.WHOLE if first else Part.LAST, begin)
            self._step = _Step.PADDING
        elif len(self._collected) == ROM_BUFFER_SIZE:
            self._hand_over(Part.FIRST if first else Part.MIDDLE, begin)
        return taken

    def _hand_over(self, part: Part, offset: int) -> None:
        piece = Piece(part, self._name, self._size, offset, bytes(self._collected))
        self._collected.clear()
        self._receive(piece)

    def _pad(self, data: bytes) -> int:
        taken = min(-self._position % 4, len(data))
        self._position += taken
        if self._position % 4 == 0:
            self._step = _Step.HEADER
        return taken


def _padded(length: int) -> int:
    """Return a name's length with its padding: header and name together are padded to 4 bytes, in 32-bit arithmetic."""
    return (((length + HEADER_LENGTH + 3) & _U32 & ~3) - HEADER_LENGTH) & _U32
