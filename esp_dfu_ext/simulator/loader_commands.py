"""The commands of the ROM's serial loader, which are esptool's, answered as Espressif's ROM code answered them.

Oddities that were executed are kept: the value, the reason and the last bytes of an answer are left over from earlier
answers, and a frame that is too short is completed by the previous one.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable
from functools import reduce
from operator import xor

from ..target import Target
from .nor import ADDRESS_SPACE
from .registers import Registers
from .spiflash import RomDied, SpiFlash

SYNC, CHANGE_BAUDRATE = 0x08, 0x0F
SYNC_ANSWERS = 8

# Reasons of a failure, the second status byte.
INVALID, FLASH_FAILED, CHECKSUM, READ_FAILED, TOO_LONG, INFLATE_FAILED = 0x05, 0x06, 0x07, 0x09, 0x0A, 0x0B

_HEADER = struct.Struct("<BBHI")  # direction, command, length, checksum (of a command) or value (of an answer)
_CHECKSUM_SEED = 0xEF
_LONGEST_READ, _LONGEST_BLOCK = 64, 6000  # bytes (executed)
_MD5_TEXT, _BODY = 32, 68  # bytes


class _Refused(Exception):
    """A command fails with this reason."""


class _Range:
    """What one of the BEGIN commands opened: the blocks that follow, and where they go.

    Args:
        address: Where the first block goes.
        write: Called with data and their address.
        size: Number of bytes that compressed blocks expand to; None if they are not compressed.
    """

    def __init__(self, address: int, write: Callable[[int, bytes], None], size: int | None = None) -> None:
        self._address = address
        self._write = write
        self._size = size
        self.is_compressed = size is not None
        self._inflate = zlib.decompressobj()
        self._inflated = bytearray()
        self._sequence = 0

    @property
    def is_complete(self) -> bool:
        """False if compressed blocks are missing."""
        return self._size is None or len(self._inflated) == self._size

    def add(self, argument: bytes, checksum: int) -> None:
        """Take a DATA command; one with a wrong checksum uses up its number all the same."""
        size, sequence = struct.unpack_from("<II", argument.ljust(16, b"\0"))
        data = argument[16:]
        wrong_size = len(argument) < 16 or size != len(data)
        if wrong_size or sequence != self._sequence or (self._size is None and size % 4):
            raise _Refused(INVALID)
        self._sequence += 1
        if reduce(xor, data, _CHECKSUM_SEED) != checksum & 0xFF:
            raise _Refused(CHECKSUM)
        if self._size is None:
            self._write(self._address, data)
            self._address += len(data)
        else:
            self._expand(data, self._size)

    def _expand(self, data: bytes, size: int) -> None:
        """Decompress a block, and write everything once all has come; if it is more than was announced, nothing."""
        try:
            self._inflated += self._inflate.decompress(data, max(1, size + 1 - len(self._inflated)))
        except zlib.error:
            raise _Refused(INFLATE_FAILED) from None
        if len(self._inflated) == size:
            self._write(self._address, bytes(self._inflated))


class Commands:
    """The command loop of one chip.

    Args:
        target: Data of the chip, with `serial_loader`.
        flash: Driver of the chip's flash memory; what DFU sets there counts here, too.
        registers: The rest of its memory.

    Attributes:
        left: FLASH_END or MEM_END ended the loop; the ROM serves USB no more.
        reboots: FLASH_END demands a reset of the chip.
    """

    def __init__(self, target: Target, flash: SpiFlash, registers: Registers) -> None:
        assert target.serial_loader is not None
        self._target = target
        self._data = target.serial_loader
        self._flash = flash
        self._registers = registers
        self.left = self.reboots = False
        self._message = bytearray(_HEADER.size)
        self._op = self._value = self._reason = 0
        self._body = bytearray(_BODY)
        self._flash_range: _Range | None = None
        self._memory_range: _Range | None = None

    def sync(self, message: bytes) -> list[bytes]:
        """Return the answers to the SYNC that ends the ROM's first loop."""
        return [_HEADER.pack(1, SYNC, 4, _word(message[8:])) + bytes(4)] * SYNC_ANSWERS

    def execute(self, message: bytes) -> list[bytes]:
        """Carry out the command in a frame.

        Returns:
            The answers, without their framing.

        Raises:
            RomDied: The chip is busy with it for good.
        """
        self._message[: len(message)] = message
        direction, op, _, checksum = _HEADER.unpack_from(self._message)
        argument = bytes(self._message[_HEADER.size : max(len(message), _HEADER.size)])
        command = _COMMANDS.get(op) if direction == 0 else None
        size, failed = 0, False
        try:
            if direction == 0 and op in self._data.refused_commands:
                self._op = op
            if command is None:
                raise _Refused(INVALID)
            self._op = op
            size = self._answer_size(op)
            command(self, argument, checksum)
        except _Refused as refusal:
            failed, (self._reason,) = True, refusal.args
        self._body[size : size + 2] = bytes([failed, self._reason])
        answer = _HEADER.pack(1, self._op, size + 4, self._value) + bytes(self._body[: size + 4])
        return [answer] * (SYNC_ANSWERS if self._op == SYNC else 1)

    def _answer_size(self, op: int) -> int:
        if op == _GET_SECURITY_INFO:
            return len(self._security_info())
        return {_SPI_FLASH_MD5: _MD5_TEXT, _READ_FLASH: _LONGEST_READ}.get(op, 0)

    def _words(self, count: int) -> tuple[int, ...]:
        """Return the first words of the argument; those that the frame lacks are left over from the previous one."""
        raw = bytes(self._message[_HEADER.size : _HEADER.size + 4 * count])
        return struct.unpack(f"<{count}I", raw.ljust(4 * count, b"\0"))

    # Commands: each gets the argument that the frame really holds, and the checksum

    def _sync(self, argument: bytes, checksum: int) -> None:
        (self._value,) = self._words(1)

    def _read_register(self, argument: bytes, checksum: int) -> None:
        self._value = self._registers.read(self._words(1)[0])
        self._reason = 0

    def _write_register(self, argument: bytes, checksum: int) -> None:
        for address, value, mask, _delay in struct.iter_unpack("<4I", argument[: len(argument) // 16 * 16]):
            self._registers.write(address, value, mask)
        self._reason = 0

    def _attach_flash(self, argument: bytes, checksum: int) -> None:
        self._reason = 0

    def _set_flash_size(self, argument: bytes, checksum: int) -> None:
        _expect(argument, 24)
        self._flash.geometry.chip_size = self._words(2)[1]

    def _change_baud_rate(self, argument: bytes, checksum: int) -> None:
        """Do nothing: USB has no baud rate."""

    def _flash_md5(self, argument: bytes, checksum: int) -> None:
        address, size = self._words(2)
        digest = hashlib.md5(self._read_flash(address, size), usedforsecurity=False)
        self._flash.work.verified += size
        self._body[:_MD5_TEXT] = digest.hexdigest().encode()
        self._reason = 0

    def _read_flash_slowly(self, argument: bytes, checksum: int) -> None:
        address, size = self._words(2)
        if size > _LONGEST_READ:
            raise _Refused(TOO_LONG)
        content = self._read_flash(address, size + -size % 4)
        self._body[: len(content)] = content
        self._reason = 0

    def _read_flash(self, address: int, size: int) -> bytes:
        self._expect_in_time(address, size)
        content = self._flash.read(address, size)
        if content is None:
            raise _Refused(READ_FAILED)
        return content

    def _expect_in_time(self, address: int, size: int) -> None:
        """Raise RomDied for more than all flash memory: the ROM would go round it, for up to an hour."""
        if size > ADDRESS_SPACE and (address + size) & 0xFFFFFFFF <= self._flash.geometry.chip_size:
            raise RomDied

    def _flash_begin(self, argument: bytes, checksum: int) -> None:
        self._open_flash_range(argument, compressed=False)

    def _deflated_begin(self, argument: bytes, checksum: int) -> None:
        self._open_flash_range(argument, compressed=True)

    def _open_flash_range(self, argument: bytes, *, compressed: bool) -> None:
        """Erase a range and expect its blocks; if the range cannot be erased, the blocks are expected all the same."""
        _expect(argument, 20)
        size, _blocks, block_size, address, encrypted = self._words(5)
        if block_size > _LONGEST_BLOCK:
            raise _Refused(INVALID)
        write = self._drop if encrypted else self._program
        self._expect_in_time(address, size)
        fits = self._flash.erase(address, size)
        self._flash_range = _Range(address, write, (size if fits else 0) if compressed else None)
        if not fits:
            raise _Refused(FLASH_FAILED)

    def _drop(self, address: int, data: bytes) -> None:
        """Program nothing: no flash encryption key is burned (executed)."""

    def _program(self, address: int, data: bytes) -> None:
        self._flash.program(address, data)  # the ROM ignores that the driver may refuse it

    def _flash_data(self, argument: bytes, checksum: int) -> None:
        self._add_flash_data(argument, checksum, compressed=False)

    def _deflated_data(self, argument: bytes, checksum: int) -> None:
        self._add_flash_data(argument, checksum, compressed=True)

    def _add_flash_data(self, argument: bytes, checksum: int, *, compressed: bool) -> None:
        if self._flash_range is None or self._flash_range.is_compressed is not compressed:
            raise _Refused(INVALID)
        self._flash_range.add(argument, checksum)

    def _flash_end(self, argument: bytes, checksum: int) -> None:
        self.left = True
        self.reboots = _word(argument) == 0
        if self._flash_range is None and self._data.flash_end_needs_begin:
            raise _Refused(FLASH_FAILED)

    def _deflated_end(self, argument: bytes, checksum: int) -> None:
        self.left = self.reboots = _word(argument) == 0
        if self._flash_range is None or not self._flash_range.is_complete:
            raise _Refused(FLASH_FAILED)

    def _memory_begin(self, argument: bytes, checksum: int) -> None:
        _expect(argument, 16)
        self._memory_range = _Range(self._words(4)[3], self._registers.load)

    def _memory_data(self, argument: bytes, checksum: int) -> None:
        if self._memory_range is None:
            raise _Refused(INVALID)
        self._memory_range.add(argument, checksum)

    def _memory_end(self, argument: bytes, checksum: int) -> None:
        self.left = _word(argument) == 0  # the chip runs what was loaded, which the model cannot

    def _get_security_info(self, argument: bytes, checksum: int) -> None:
        info = self._security_info()
        self._body[: len(info)] = info

    def _security_info(self) -> bytes:
        data = self._data
        secure_boot = bool(self._registers.field(data.secure_boot))
        encryption = self._registers.field(data.flash_encryption)
        info = struct.pack("<IB", secure_boot, encryption) + bytes(data.security_info.key_purposes)
        version = data.security_info.api_version
        return info if version is None else info + struct.pack("<II", self._target.firmware.chip_id, version)


_GET_SECURITY_INFO, _SPI_FLASH_MD5, _READ_FLASH = 0x14, 0x13, 0x0E

_COMMANDS: dict[int, Callable[[Commands, bytes, int], None]] = {
    0x02: Commands._flash_begin,
    0x03: Commands._flash_data,
    0x04: Commands._flash_end,
    0x05: Commands._memory_begin,
    0x06: Commands._memory_end,
    0x07: Commands._memory_data,
    SYNC: Commands._sync,
    0x09: Commands._write_register,
    0x0A: Commands._read_register,
    0x0B: Commands._set_flash_size,
    0x0D: Commands._attach_flash,
    _READ_FLASH: Commands._read_flash_slowly,
    CHANGE_BAUDRATE: Commands._change_baud_rate,
    0x10: Commands._deflated_begin,
    0x11: Commands._deflated_data,
    0x12: Commands._deflated_end,
    _SPI_FLASH_MD5: Commands._flash_md5,
    _GET_SECURITY_INFO: Commands._get_security_info,
}


def _word(data: bytes) -> int:
    return int.from_bytes(data[:4], "little")


def _expect(argument: bytes, size: int) -> None:
    if len(argument) != size:
        raise _Refused(INVALID)
