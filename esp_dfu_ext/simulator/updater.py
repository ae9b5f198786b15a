"""The ROM's updater: collect the stream, program the flash memory, compare the MD5s.

It trusts its input, keeps going after most mistakes, and reports an error only when the host asks. As read in the
ROMs' code and as all four did it when they were executed.
"""

from __future__ import annotations

import enum
import hashlib
import struct

from ..dfu.spec import Status
from ..image.format import ROM_BUFFER_SIZE
from ..target import Dfu
from .archive import ArchiveReader, Part, Piece, Result
from .spiflash import PARAMS_SIZE, SpiFlash

INDEX_NAME = b"dfuinfo0.dat"
FLAG_LOAD_RAM, FLAG_CALL, FLAG_PARAMS, FLAG_NO_ERASE, FLAG_IGNORE_MD5 = 1, 2, 4, 8, 16

_RECORD = struct.Struct("<II64s16s")
_NAME_OFFSET = 8
_PAGE = 4096  # bytes; the updater's own idea of a sector
_U32 = 0xFFFFFFFF


class _Kind(enum.Enum):
    UNKNOWN = "nothing processed yet"
    RAW = "programmed at address 0"
    ARCHIVE = "CPIO"


class Updater:
    """State of one download.

    Args:
        flash: Driver of the flash memory.
        limits: Limits of the chip's updater.

    Attributes:
        status: First error, or OK; it stays until DFU_CLRSTATUS or the next download.
    """

    def __init__(self, flash: SpiFlash, limits: Dfu) -> None:
        self.status = Status.OK
        self._flash = flash
        self._limits = limits
        self._kind = _Kind.UNKNOWN
        self._buffer = bytearray()
        self._raw_address = 0
        self._archive = ArchiveReader(self._receive)
        self._index = bytearray(limits.index_records * _RECORD.size)
        self._records = 0  # records in the index
        self._names: list[bytes] = []
        self._sizes: dict[int, int] = {}  # length of each member that was seen, by the number of its record

    def feed(self, data: bytes) -> None:
        """Accept a block; the ROM processes its buffer only when it is full, so that errors come late."""
        while data:
            room = ROM_BUFFER_SIZE - len(self._buffer)
            self._buffer += data[:room]
            data = data[room:]
            if len(self._buffer) == ROM_BUFFER_SIZE:
                self._process_buffer()
                self._buffer.clear()

    def finish(self) -> None:
        """End the stream: process the rest, and compare the MD5 of every file with the flash memory.

        What is left of a member that was cut is programmed after that.
        """
        if self._buffer:
            self._process_buffer()
        for number in range(self._records):
            address, flags, _, md5 = self._record(number)
            if flags & (FLAG_LOAD_RAM | FLAG_CALL | FLAG_IGNORE_MD5):
                continue
            if number not in self._sizes:
                self.status = Status.errTARGET
                break
            content = self._flash.read_file(address, self._sizes[number])
            if hashlib.md5(content, usedforsecurity=False).digest() != md5:
                self.status = Status.errFIRMWARE
                break
        self._archive.finish()

    def _process_buffer(self) -> None:
        if self.status is not Status.OK:
            return
        data = bytes(self._buffer)
        if self._kind is _Kind.UNKNOWN and len(data) < self._limits.raw_below:
            self._kind = _Kind.RAW
        if self._kind is not _Kind.RAW:
            result = self._archive.feed(data)
            if result is not Result.BAD:
                self._kind = _Kind.ARCHIVE
            elif self._kind is _Kind.UNKNOWN:
                self._kind = _Kind.RAW
            else:
                self.status = Status.errTARGET
        if self._kind is _Kind.RAW:
            self._program_raw(data)

    def _program_raw(self, data: bytes) -> None:
        if self._raw_address % _PAGE == 0:
            self._flash.erase(self._raw_address, _PAGE)
        self._flash.program(self._raw_address, data)
        self._raw_address += len(data)

    def _receive(self, piece: Piece) -> None:
        """Take a piece of a member: of the index, or of a file that the index names; others are skipped."""
        if self.status is not Status.OK:
            return
        if piece.name == INDEX_NAME:
            self._receive_index(piece)
            return
        if piece.name not in self._names:
            return
        number = self._names.index(piece.name)
        address, flags, _, _ = self._record(number)
        if piece.part in (Part.WHOLE, Part.FIRST) and not flags & (FLAG_LOAD_RAM | FLAG_CALL | FLAG_NO_ERASE):
            first = address // _PAGE * _PAGE
            end = (address + piece.size + _PAGE - 1) & _U32 & ~(_PAGE - 1)
            if first != end:
                self._flash.erase(first, (end - first) & _U32)
        if flags & (FLAG_LOAD_RAM | FLAG_CALL):
            pass  # the chip's RAM is not simulated
        elif flags & FLAG_PARAMS:
            if len(piece.data) >= PARAMS_SIZE:
                self._flash.configure(piece.data)
        else:
            self._flash.program((address + piece.offset) & _U32, piece.data)
        self._sizes[number] = piece.size

    def _receive_index(self, piece: Piece) -> None:
        if piece.size > len(self._index):
            self.status = Status.errFILE
            return
        room = len(self._index) - piece.offset
        self._index[piece.offset : piece.offset + len(piece.data)] = piece.data[:room]
        if piece.part in (Part.WHOLE, Part.LAST):
            self._records = piece.size // _RECORD.size
        # A C string: a name of 64 bytes runs on into the MD5 and the next record.
        starts = (number * _RECORD.size + _NAME_OFFSET for number in range(self._records))
        self._names = [bytes(self._index[start:]).partition(b"\0")[0] for start in starts]

    def _record(self, number: int) -> tuple[int, int, bytes, bytes]:
        address, flags, name, md5 = _RECORD.unpack_from(self._index, number * _RECORD.size)
        return address, flags, name, md5
