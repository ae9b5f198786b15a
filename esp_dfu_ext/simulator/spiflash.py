"""The ROM's driver of SPI flash memory: what it erases, programs and reads, and what it refuses.

The driver trusts the geometry that flash_params.dat states, and every caller ignores its errors; the MD5 check at the
end of a download finds them. As read in the ROMs' code and as all four did it when they were executed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from .nor import NorFlash
from .timing import Work

PROGRAM_SIZE = 32  # bytes that one program command carries
PAGE = 256  # bytes; a program command wraps inside the page, whatever flash_params.dat says
SECTOR_ERASE, BLOCK_ERASE = 4096, 65536  # bytes that the erase commands 0x20 and 0xD8 erase
READ_SIZE = 64  # bytes that the ROM reads at a time
PARAMS_SIZE = 32

_U32 = 0xFFFFFFFF


class RomDied(Exception):
    """The processor stopped in an exception or an endless loop; only RESET brings the chip back."""


@dataclass
class Geometry:
    """What the driver believes about the flash memory, in bytes."""

    chip_size: int
    block: int = 65536
    sector: int = 4096
    page: int = 256


class SpiFlash:
    """The driver.

    Args:
        nor: Flash memory.
        assumed_size: Size in bytes that the ROM assumes until a flash_params.dat arrives.

    Attributes:
        geometry: What the driver believes; the chip keeps it until it restarts.
        work: What the flash memory did since the last `take_work`.
    """

    def __init__(self, nor: NorFlash, assumed_size: int) -> None:
        self.nor = nor
        self.work = Work()
        self._assumed_size = assumed_size
        self.reset()

    def reset(self) -> None:
        """Forget the geometry, as the chip does when it restarts."""
        self.geometry = Geometry(self._assumed_size)

    def take_work(self) -> Work:
        """Return what the flash memory did since the last call."""
        work, self.work = self.work, Work()
        return work

    def configure(self, params: bytes) -> None:
        """Take the geometry of flash_params.dat: chip size, block, sector and page are words 3 to 6."""
        self.geometry = Geometry(*struct.unpack_from("<4I", params, 12))

    def erase(self, address: int, size: int) -> bool:
        """Erase whole sectors, with block commands after the first block; return False if the driver refuses.

        It refuses ranges that end beyond the chip size or begin inside a sector, and then erases nothing.
        """
        geometry = self.geometry
        if (address + size) & _U32 > geometry.chip_size or _divide(address, geometry.sector)[1]:
            return False
        sector = address // geometry.sector
        left = -(-size // geometry.sector)
        per_block = geometry.block // geometry.sector
        first = min(left, per_block - _divide(sector, per_block)[1])
        steps = [1] * first
        left -= first
        while left > per_block:
            steps.append(per_block)
            left -= per_block
        for step in steps + [1] * left:
            if not self._erase_step(sector, step, per_block):
                return False
            sector += step
        return True

    def _erase_step(self, sector: int, step: int, per_block: int) -> bool:
        geometry = self.geometry
        if step == 1:
            if sector >= geometry.chip_size // geometry.sector:
                return False
            self.nor.erase(sector * geometry.sector // SECTOR_ERASE * SECTOR_ERASE, SECTOR_ERASE)
            self.work.sectors += 1
        else:
            block = sector // per_block
            if block >= geometry.chip_size // geometry.block:
                return False
            self.nor.erase(block * geometry.block // BLOCK_ERASE * BLOCK_ERASE, BLOCK_ERASE)
            self.work.blocks += 1
        return True

    def program(self, address: int, data: bytes) -> None:
        """Program words, and then the last one to three bytes as one more word filled up with 0xFF."""
        words = len(data) & ~3
        self._write(address, data[:words])
        if words < len(data):
            self._write((address + words) & _U32, data[words:].ljust(4, b"\xff"))

    def _write(self, address: int, data: bytes) -> bool:
        page = self.geometry.page
        if (address + len(data)) & _U32 > self.geometry.chip_size:
            return False
        end = page - _divide(address, page)[1]
        start = 0
        while end <= len(data):
            if not self._program_page(address + start, data[start:end]):
                return False
            start, end = end, end + page
        return self._program_page(address + start, data[start:])

    def _program_page(self, address: int, data: bytes) -> bool:
        if len(data) % 4:
            return False
        for start in range(0, len(data), PROGRAM_SIZE):
            self._program(address + start, data[start : start + PROGRAM_SIZE])
        return True

    def _program(self, address: int, data: bytes) -> None:
        self.work.programs += 1
        room = PAGE - address % PAGE
        self.nor.program(address, data[:room])
        if len(data) > room:
            self.nor.program(address // PAGE * PAGE, data[room:])

    def read(self, address: int, size: int) -> bytes | None:
        """Return `size` bytes, or None if the range ends beyond the chip size."""
        if (address + size) & _U32 > self.geometry.chip_size:
            return None
        return self.nor.read(address, size)

    def read_file(self, address: int, size: int) -> bytes:
        """Return what the ROM takes for a file's content: it reads in steps, and a refused one repeats the last."""
        self.work.verified += size
        whole = -(-size // READ_SIZE) * READ_SIZE
        if address + whole <= min(self.geometry.chip_size, _U32):
            return self.nor.read(address, size)
        content, step = bytearray(), bytes(READ_SIZE)
        for start in range(0, size, READ_SIZE):
            step = self.read((address + start) & _U32, READ_SIZE) or step
            content += step
        return bytes(content[:size])


def _divide(value: int, by: int) -> tuple[int, int]:
    if by == 0:
        raise RomDied
    return divmod(value, by)
