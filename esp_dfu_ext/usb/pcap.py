"""Control and bulk transfers as a capture of Linux usbmon, in pcapng or pcap, for Wireshark.

Formats: LINKTYPE_USB_LINUX_MMAPPED of https://www.tcpdump.org/linktypes.html, whose header is struct mon_bin_hdr of
Documentation/usb/usbmon.rst in Linux; pcap and pcapng as defined in draft-ietf-opsawg-pcap and -pcapng.
All fields are little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ..errors import AccessDeniedError, DeviceBusyError, DeviceGoneError, StallError, TransferTimeoutError, UsbError
from .trace import BulkTransfer, TraceEntry, Transfer

LINKTYPE_USB_LINUX_MMAPPED = 220
# The longest packet of a control transfer. Other programs write rounder numbers, so together with the link type it
# distinguishes our captures from theirs.
_SNAPLEN = 64 + 0xFFFF

PCAP_HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, _SNAPLEN, LINKTYPE_USB_LINUX_MMAPPED)


def _block(kind: int, body: bytes) -> bytes:
    """Return a pcapng block: its length is at both ends, and its body is padded to 32 bits."""
    body += bytes(-len(body) % 4)
    length = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + length + body + length


_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
PCAPNG_HEADER = _block(_SECTION, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)) + _block(
    _INTERFACE, struct.pack("<HHI", LINKTYPE_USB_LINUX_MMAPPED, 0, _SNAPLEN)
)

# struct mon_bin_hdr, 64 bytes: id, type, transfer type, endpoint, device, bus, setup flag, data flag, seconds,
# microseconds, status, length, captured length, setup packet, and four fields that control transfers leave at 0.
_HEADER = struct.Struct("<QBBBBHBBqiiII8sIIII")
_CONTROL, _BULK = 2, 3
_PRESENT = 0  # as a flag; any other value, usbmon's are ASCII, says that the part is absent
# Linux's errno numbers, on whatever system this runs.
_IN_PROGRESS, _PROTOCOL_ERROR = -115, -71
_STATUS: dict[type[UsbError], int] = {
    StallError: -32,
    DeviceGoneError: -19,
    TransferTimeoutError: -110,
    AccessDeniedError: -13,
    DeviceBusyError: -16,
}


class UsbmonWriter:
    """Writes entries in one of the two formats; those that are not transfers are left out.

    Args:
        write: Takes the bytes of one URB at a time.
        pcapng: False for pcap.
    """

    def __init__(self, write: Callable[[bytes], object], *, pcapng: bool) -> None:
        self._write = write
        self._frame = _pcapng_frame if pcapng else _pcap_frame
        self._number = 0
        write(PCAPNG_HEADER if pcapng else PCAP_HEADER)

    def __call__(self, entry: TraceEntry) -> None:
        """Write the two packets of a transfer, its submission and its completion."""
        if isinstance(entry, (Transfer, BulkTransfer)):
            self._number += 1
            self._write(b"".join(self._frame(*urb) for urb in _urbs(entry, self._number)))


class _Kind(NamedTuple):
    """What the header says of a transfer's kind: its type, end point, setup packet, and whether that is present."""

    transfer_type: int
    end_point: int
    is_in: bool
    length: int
    setup: bytes
    setup_flag: int


def _kind(transfer: Transfer | BulkTransfer) -> _Kind:
    if isinstance(transfer, BulkTransfer):
        return _Kind(_BULK, transfer.endpoint, transfer.is_in, transfer.length, bytes(8), ord("-"))
    is_in = bool(transfer.request_type & 0x80)
    setup = struct.pack(
        "<BBHHH", transfer.request_type, transfer.request, transfer.w_value, transfer.w_index, transfer.w_length
    )
    return _Kind(_CONTROL, 0x80 if is_in else 0, is_in, transfer.w_length, setup, _PRESENT)


def _urbs(transfer: Transfer | BulkTransfer, number: int) -> Iterator[tuple[int, bytes]]:
    """Yield microseconds since 1970 and packet of a transfer's submission, then those of its completion."""
    transfer_type, end_point, is_in, asked, setup, setup_flag = _kind(transfer)
    bus = int(transfer.path.partition("-")[0])
    status = 0 if transfer.error is None else _STATUS.get(transfer.error, _PROTOCOL_ERROR)
    if is_in:
        submitted, completed, done = b"", transfer.data, len(transfer.data)
    else:
        submitted, completed, done = transfer.data, b"", 0 if status else len(transfer.data)
    for kind, when, code, length, data in (
        (b"S", transfer.when, _IN_PROGRESS, asked, submitted),
        (b"C", transfer.when + transfer.seconds, status, done, completed),
    ):
        microseconds = round(when * 1_000_000)
        absent = b"<" if is_in else b">"
        header = _HEADER.pack(
            number,
            kind[0],
            transfer_type,
            end_point,
            transfer.address & 0xFF,
            bus & 0xFFFF,
            setup_flag if kind == b"S" else ord("-"),
            _PRESENT if data else absent[0],
            microseconds // 1_000_000,
            microseconds % 1_000_000,
            code,
            length,
            len(data),
            setup if kind == b"S" else bytes(8),
            *(0, 0, 0, 0),
        )
        yield microseconds, header + data


def _pcap_frame(microseconds: int, packet: bytes) -> bytes:
    seconds, rest = divmod(microseconds, 1_000_000)
    return struct.pack("<IIII", seconds, rest, len(packet), len(packet)) + packet


def _pcapng_frame(microseconds: int, packet: bytes) -> bytes:
    high, low = microseconds >> 32, microseconds & 0xFFFFFFFF
    return _block(_PACKET, struct.pack("<IIIII", 0, high, low, len(packet), len(packet)) + packet)
