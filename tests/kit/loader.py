"""The host's side of the serial loader: frames, and what comes back."""

from __future__ import annotations

import struct
from functools import reduce
from operator import xor

from esp_dfu_ext.simulator import Board
from esp_dfu_ext.simulator.rom import SERIAL_IN, SERIAL_OUT, TransferNak

FLASH_BEGIN, FLASH_DATA, FLASH_END, MEM_BEGIN, MEM_END, MEM_DATA, SYNC = range(2, 9)
WRITE_REG, READ_REG, SPI_SET_PARAMS, SPI_ATTACH, READ_FLASH = 0x09, 0x0A, 0x0B, 0x0D, 0x0E
DEFL_BEGIN, DEFL_DATA, DEFL_END, SPI_FLASH_MD5, GET_SECURITY_INFO = 0x10, 0x11, 0x12, 0x13, 0x14
SYNC_ANSWER = "c0010804000707122000000000c0"


def words(*values: int) -> bytes:
    """Return 32-bit words, little endian."""
    return struct.pack(f"<{len(values)}I", *values)


def frame(op: int, argument: bytes = b"", checksum: int = 0, direction: int = 0) -> bytes:
    """Return a command as it goes over the wire."""
    payload = struct.pack("<BBHI", direction, op, len(argument) & 0xFFFF, checksum) + argument
    return b"\xc0" + payload.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc") + b"\xc0"


def block(op: int, sequence: int, data: bytes, *, size: int | None = None, checksum: int | None = None) -> bytes:
    """Return a DATA command."""
    head = words(len(data) if size is None else size, sequence, 0, 0)
    return frame(op, head + data, reduce(xor, data, 0xEF) if checksum is None else checksum)


SYNC_FRAME = frame(SYNC, b"\x07\x07\x12\x20" + 32 * b"\x55")


def ask(board: Board, wire: bytes) -> str:
    """Send bytes in packets as USB does; return everything that comes back, in hexadecimal."""
    for start in range(0, len(wire), 64):
        board.bulk_out(SERIAL_OUT, wire[start : start + 64])
    return receive(board)


def receive(board: Board) -> str:
    """Return everything that the board has to send, in hexadecimal."""
    answer = b""
    while True:
        try:
            answer += board.bulk_in(SERIAL_IN)
        except TransferNak:
            return answer.hex()


def sync(board: Board) -> int:
    """Send SYNC until it is answered; return how often it took."""
    for attempt in range(1, 7):
        if ask(board, SYNC_FRAME):
            return attempt
    raise AssertionError("no answer to six SYNCs")


def value(answer: str) -> int:
    """Return the value of an answer to READ_REG."""
    raw = bytes.fromhex(answer)[1:-1].replace(b"\xdb\xdc", b"\xc0").replace(b"\xdb\xdd", b"\xdb")
    return int.from_bytes(raw[4:8], "little")
