"""The DFU suffix: the last 16 bytes of a DFU file, DFU 1.1 appendix B. The device never sees it."""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from ..errors import ImageError

LENGTH = 16
SIGNATURE = b"UFD"
BCD_DFU = 0x0100
_STRUCT = struct.Struct("<HHHH3sB")


class Suffix(NamedTuple):
    """The suffix without its fixed parts; ``0xFFFF`` in `bcd_device` fits every device release."""

    vid: int
    pid: int
    bcd_device: int = 0xFFFF
    bcd_dfu: int = BCD_DFU


def encode(suffix: Suffix) -> bytes:
    """The 12 bytes before the CRC."""
    return _STRUCT.pack(suffix.bcd_device, suffix.pid, suffix.vid, suffix.bcd_dfu, SIGNATURE, LENGTH)


def crc(crc32: int) -> bytes:
    """The last four bytes, from zlib's CRC-32 of all bytes before them.

    The DFU file's CRC is the common CRC-32 without its final inversion (DFU 1.1 appendix B, table B.1).
    """
    return struct.pack("<I", crc32 ^ 0xFFFFFFFF)


def decode(data: memoryview) -> Suffix:
    """Read and check the suffix at the end of a whole DFU file.

    Raises:
        ImageError: there is none, or its CRC does not fit the file.
    """
    if len(data) < LENGTH:
        raise ImageError(f"The file has {len(data)} bytes, less than a DFU suffix.")
    bcd_device, pid, vid, bcd_dfu, signature, length = _STRUCT.unpack(data[-LENGTH:-4])
    if signature != SIGNATURE or length != LENGTH:
        raise ImageError("There is no DFU suffix at the end of the file.")
    found, expected = bytes(data[-4:]), crc(zlib.crc32(data[:-4]))
    if found != expected:
        raise ImageError(f"The CRC in the DFU suffix is {found[::-1].hex()}, the file's is {expected[::-1].hex()}.")
    return Suffix(vid, pid, bcd_device, bcd_dfu)
