"""The ROM's updater: read the stream, program the flash memory, compare the MD5s.

The updater trusts its input. For bad streams (raw mode, lost members, wrapped addresses, late errors) it does what
Espressif's ROM code did when it was executed; tests/kit/streams.py has the table.
"""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass

from ..dfu.spec import Status
from ..image.format import ROM_BUFFER_SIZE
from .nor import NorFlash

INDEX_NAME = b"dfuinfo0.dat"
TRAILER = b"TRAILER!!!"
MAGIC = b"070701"
HEADER_LENGTH = 110
# Only the fields c_filesize and c_namesize count. int() alone would also accept "-1" and "1_0".
_HEADER = re.compile(MAGIC + rb".{48}[0-9A-Fa-f]{8}.{32}[0-9A-Fa-f]{8}", re.DOTALL)

FLAG_LOAD_RAM, FLAG_PARAMS, FLAG_NO_ERASE, FLAG_IGNORE_MD5 = 1, 4, 8, 16

_RECORD = struct.Struct("<II64s16s")


@dataclass
class _Record:
    address: int
    flags: int
    name: bytes
    md5: bytes
    size: int | None = None  # of the member, once it has been received


class Updater:
    """State of one download.

    Args:
        flash: Flash memory to program.
        index_limit: Number of records that fit into the index.
        raw_below: Length in bytes below which the ROM takes a stream for raw data.
        assumed_size: Size of flash memory in bytes that the ROM assumes until a flash_params.dat arrives.
    """

    def __init__(self, flash: NorFlash, index_limit: int, raw_below: int, assumed_size: int) -> None:
        self.status = Status.OK
        self._flash = flash
        self._index_limit = index_limit
        self._raw_below = raw_below
        self.chip_size = assumed_size
        self._buffer = bytearray()
        self._raw_address: int | None = None
        self._started = False
        self._trailer_seen = False
        self._records: list[_Record] = []
        # The member being received: its record (None: skip the member), bytes done and left, padding.
        self._in_member = False
        self._member: _Record | None = None
        self._is_index = False
        self._collected = bytearray()
        self._done = 0
        self._left = 0
        self._padding = 0

    def feed(self, data: bytes) -> None:
        """Accept a block; errors come late, because the ROM processes its buffer only when it is full."""
        if self.status is not Status.OK or self._trailer_seen:
            return
        self._buffer += data
        if len(self._buffer) >= ROM_BUFFER_SIZE:
            self._process_buffer()

    def finish(self) -> Status:
        """End the stream: process the rest, then check the MD5 of every file in the flash memory."""
        if self.status is Status.OK and not self._trailer_seen:
            self._process_buffer()
        if self.status is Status.OK and self._raw_address is None:
            if self._in_member or not self._trailer_seen:
                self.status = Status.errTARGET
            else:
                self.status = self._check()
        return self.status

    def _process_buffer(self) -> None:
        if not self._started:
            self._started = True
            if len(self._buffer) < self._raw_below or not self._buffer.startswith(MAGIC):
                self._raw_address = 0
        if self._raw_address is not None:
            sector = self._flash.sector
            end = self._raw_address + len(self._buffer)
            first_new = -(-self._raw_address // sector) * sector  # the previous buffer erased up to here
            if first_new < end:
                self._flash.erase(first_new, end - first_new)
            self._flash.program(self._raw_address, bytes(self._buffer))
            self._raw_address = end
            self._buffer.clear()
            return
        while self.status is Status.OK and not self._trailer_seen:
            if not (self._read_data() if self._in_member else self._read_header()):
                return
        self._buffer.clear()

    def _read_header(self) -> bool:
        """Start the next member; return False until the buffer holds its whole header."""
        buffer = self._buffer
        if len(buffer) < HEADER_LENGTH:
            return False
        try:
            if not _HEADER.match(buffer):
                raise ValueError
            size, name_size = int(buffer[54:62], 16), int(buffer[94:102], 16)
        except ValueError:
            self.status = Status.errTARGET
            return True
        length = HEADER_LENGTH + name_size
        length += -length % 4
        if length > ROM_BUFFER_SIZE:
            self.status = Status.errTARGET
            return True
        if len(buffer) < length:
            return False
        name = bytes(buffer[HEADER_LENGTH : HEADER_LENGTH + name_size]).partition(b"\0")[0]
        del buffer[:length]
        if name == TRAILER:
            self._trailer_seen = True
            return True
        self._start_member(name, size)
        return True

    def _start_member(self, name: bytes, size: int) -> None:
        self._in_member = True
        self._is_index = name == INDEX_NAME
        self._member = next((record for record in self._records if record.name == name), None)
        self._collected.clear()
        self._done, self._left, self._padding = 0, size, -size % 4
        if self._is_index and size > self._index_limit * _RECORD.size:
            self.status = Status.errFILE

    def _read_data(self) -> bool:
        """Consume the member's bytes in the buffer; return False if more must come."""
        if self._left:
            data = bytes(self._buffer[: self._left])
            if not data:
                return False
            if self._done == 0 and self._member is not None:
                self._erase(self._member)
            self._consume(data)
            self._done += len(data)
            self._left -= len(data)
            del self._buffer[: len(data)]
            if self._left:
                return False
        if len(self._buffer) < self._padding:
            return False
        del self._buffer[: self._padding]
        self._end_member()
        return True

    def _erase(self, record: _Record) -> None:
        """Erase the member's whole range at its first bytes, up to the chip size that the ROM assumes."""
        if not record.flags & (FLAG_LOAD_RAM | FLAG_NO_ERASE | FLAG_PARAMS):
            room = self.chip_size - record.address
            if room > 0:
                self._flash.erase(record.address, min(self._left, room))

    def _consume(self, data: bytes) -> None:
        record = self._member
        if self._is_index or (record is not None and record.flags & FLAG_PARAMS):
            self._collected += data
        elif record is not None and not record.flags & FLAG_LOAD_RAM:
            address = record.address + self._done
            # The SPI driver rejects other writes with an error that the ROM ignores; the MD5 check finds them.
            if address % 4 == 0 and address + len(data) <= self.chip_size:
                self._flash.program(address, data)

    def _end_member(self) -> None:
        self._in_member = False
        if self._is_index:
            whole = len(self._collected) // _RECORD.size * _RECORD.size
            self._records = [
                _Record(address, flags, (name + md5).partition(b"\0")[0], md5)  # a C string
                for address, flags, name, md5 in _RECORD.iter_unpack(bytes(self._collected[:whole]))
            ]
        elif self._member is not None:
            self._member.size = self._done
            if self._member.flags & FLAG_PARAMS and len(self._collected) >= 16:
                (self.chip_size,) = struct.unpack_from("<I", self._collected, 12)

    def _check(self) -> Status:
        for record in self._records:
            if record.flags & (FLAG_IGNORE_MD5 | FLAG_LOAD_RAM):
                continue
            if record.size is None:
                return Status.errTARGET
            in_reach = record.address + record.size <= self.chip_size
            content = self._flash.read(record.address, record.size) if in_reach else b""
            if hashlib.md5(content, usedforsecurity=False).digest() != record.md5:
                return Status.errFIRMWARE
        return Status.OK
