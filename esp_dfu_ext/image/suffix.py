"""The DFU suffix: the last 16 bytes of a DFU file, DFU 1.1 appendix B. It is not sent to the device."""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from ..errors import ImageError
from ..units import usb_id

LENGTH = 16
SIGNATURE = b"UFD"
BCD_DFU = 0x0100
_STRUCT = struct.Struct("<HHHH3sB")


class Suffix(NamedTuple):
    """The variable fields of a suffix; ``0xFFFF`` in `bcd_device` matches every device release."""

    vid: int
    pid: int
    bcd_device: int = 0xFFFF
    bcd_dfu: int = BCD_DFU

    @property
    def usb_id(self) -> str:
        """VID and PID as ``vvvv:pppp``, the format of lsusb."""
        return usb_id(self.vid, self.pid)


def encode(suffix: Suffix, crc32: int) -> bytes:
    """Return the suffix of a file, given zlib's CRC-32 of all bytes before the suffix; `decode` is the inverse."""
    fields = _STRUCT.pack(suffix.bcd_device, suffix.pid, suffix.vid, suffix.bcd_dfu, SIGNATURE, LENGTH)
    return fields + _crc(zlib.crc32(fields, crc32))


def _crc(crc32: int) -> bytes:
    """Return a suffix's last four bytes, given zlib's CRC-32 of all bytes before them.

    The DFU file's CRC is the common CRC-32 without its final inversion (DFU 1.1 appendix B, table B.1).
    """
    return struct.pack("<I", crc32 ^ 0xFFFFFFFF)


def has_suffix(end: bytes | memoryview) -> bool:
    """Return whether a file that ends with these bytes has a DFU suffix, intact or not."""
    return len(end) >= LENGTH and bytes(end[-8:-4]) == SIGNATURE + bytes([LENGTH])


def decode(data: memoryview) -> Suffix:
    """Read and check the suffix at the end of a whole DFU file.

    Raises:
        ImageError: The file has no suffix, or its CRC does not match the file.
    """
    if len(data) < LENGTH:
        raise ImageError(f"The file has only {len(data)} bytes, fewer than the {LENGTH} of a DFU suffix.")
    if not has_suffix(data):
        raise ImageError("The file does not end with a DFU suffix.")
    bcd_device, pid, vid, bcd_dfu, _, _ = _STRUCT.unpack(data[-LENGTH:-4])
    found, expected = bytes(data[-4:]), _crc(zlib.crc32(data[:-4]))
    if found != expected:
        raise ImageError(f"The DFU suffix has CRC {found[::-1].hex()}, but the file's CRC is {expected[::-1].hex()}.")
    return Suffix(vid, pid, bcd_device, bcd_dfu)
