"""SYNC: the command that takes the ROM into its fast loop.

In download mode the ROM first runs a loop that looks for a host on every port it has, and on most chips it waits two
milliseconds in each round. The first SYNC on the CDC port ends that loop for good: the serial loader, which serves DFU
just as well, waits for nothing. Executed ROM code: a block of 64 bytes costs 4.1 ms before and 0.13 ms after it.
"""

from __future__ import annotations

import logging

from ..clock import Clock, Deadline
from ..errors import TransferTimeoutError
from .port import LoaderPort

LOGGER = logging.getLogger(__name__)

# Command 0x08 with 36 bytes of data and no checksum, between two SLIP delimiters (esptool documentation, Serial
# Protocol, Commands).
REQUEST = bytes.fromhex("c0 00 08 24 00 00 00 00 00 07 07 12 20") + b"\x55" * 32 + b"\xc0"
ANSWERS = 8
_ANSWER_HEAD = b"\xc0\x01\x08"  # a SLIP delimiter, "response", the command
ANSWER_SIZE = 14  # bytes with both delimiters

# Seconds to wait for the first byte of an answer, for each SYNC in turn. The ROM sends it within a few milliseconds,
# and one byte in each after it; one of the ROMs hears only half of the SYNCs. A SYNC too many takes it 112 ms.
FIRST_BYTE = (0.06, 0.06, 0.12, 0.25, 0.25, 0.25)
NEXT_BYTE = 0.25  # seconds after which no other byte comes
TIMEOUT = 2.0  # seconds for everything, whatever else the device sends


def synchronize(port: LoaderPort, clock: Clock, timeout: float = TIMEOUT) -> bool:
    """Send SYNC until the ROM answers, and read all of its answers.

    An unread answer would hold the next DFU request for up to 100 ms.

    Args:
        port: Serial port of a chip in download mode.
        clock: Time.
        timeout: Seconds for everything.

    Returns:
        False if nothing that looks like an answer came: after 1 s of silence, or `timeout`.

    Raises:
        DeviceGoneError: The board left the bus.
    """
    end = Deadline(clock, timeout)
    port.limit(timeout)
    for silence in FIRST_BYTE:
        if end.left <= 0:
            break
        try:
            port.write(REQUEST)
        except TransferTimeoutError:
            continue
        answers = _read_answers(port, end, silence)
        if _ANSWER_HEAD in answers:
            return True
        if answers:
            LOGGER.debug("SYNC: %d bytes that are no answer: %s", len(answers), answers[:64].hex(" "))
    return False


def _read_answers(port: LoaderPort, end: Deadline, silence: float) -> bytes:
    """Read the answers to one SYNC, until all have come or the port is silent."""
    received = b""
    while len(received) < ANSWERS * ANSWER_SIZE and end.left > 0:
        port.timeout = min(NEXT_BYTE if received else silence, end.left)
        more = port.read(1)
        if not more:
            break
        received += more
    return received
