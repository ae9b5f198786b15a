"""NOR flash memory: erasing sets all bits of a sector, programming can only clear bits."""

from __future__ import annotations

ADDRESS_SPACE = 1 << 24  # the ROM sends 24-bit addresses


class NorFlash:
    """SPI flash memory whose addresses wrap, first at 24 bits and then at the real size.

    Args:
        size: Size in bytes, a multiple of the sector.
        sector: Number of bytes erased together.
    """

    def __init__(self, size: int, sector: int = 4096) -> None:
        self.size = min(size, ADDRESS_SPACE)  # no address reaches what lies beyond
        self.sector = sector
        self._cells = bytearray(b"\xff" * self.size)

    def fill(self, value: int) -> None:
        """Set every byte to a value, as content from before."""
        self._cells[:] = bytes([value]) * self.size

    def read(self, address: int, size: int) -> bytes:
        """Return `size` bytes, wrapping at the end."""
        return b"".join(bytes(self._cells[start:end]) for start, end in self._ranges(address, size))

    def erase(self, address: int, size: int) -> None:
        """Erase every sector that a range touches."""
        if size == 0:
            return
        first = address // self.sector * self.sector
        last = -(-(address + size) // self.sector) * self.sector
        for start, end in self._ranges(first, min(last - first, self.size)):
            self._cells[start:end] = b"\xff" * (end - start)

    def program(self, address: int, data: bytes) -> None:
        """Clear the bits that are 0 in `data`; never set one."""
        done = 0
        for start, end in self._ranges(address, len(data)):
            length = end - start
            old, new = self._cells[start:end], data[done : done + length]
            if old.count(0xFF) != length:
                both = int.from_bytes(old, "little") & int.from_bytes(new, "little")
                new = both.to_bytes(length, "little")
            self._cells[start:end] = new
            done += length

    def _ranges(self, address: int, size: int) -> list[tuple[int, int]]:
        """Split a range where addresses wrap."""
        ranges = []
        while size > 0:
            start = address % ADDRESS_SPACE % self.size
            length = min(size, self.size - start, ADDRESS_SPACE - address % ADDRESS_SPACE)
            ranges.append((start, start + length))
            address += length
            size -= length
        return ranges
