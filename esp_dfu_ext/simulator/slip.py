"""SLIP, the framing of the serial loader (RFC 1055), as the ROM reads and writes it."""

from __future__ import annotations

END, ESCAPE = 0xC0, 0xDB
_ESCAPED = {0xDC: END, 0xDD: ESCAPE}
LONGEST_FRAME = 2502  # bytes; the ROM drops longer ones (executed)


def encode(payload: bytes) -> bytes:
    """Return the frame of a payload."""
    return b"\xc0" + payload.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc") + b"\xc0"


class Decoder:
    """Collects frames from bytes that arrive in pieces of any size."""

    def __init__(self) -> None:
        self._frame: bytearray | None = None  # None between frames
        self._escaped = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the payloads of the frames that end in `data`; the ROM ignores what lies between frames."""
        return [frame for frame in map(self._take, data) if frame is not None]

    def _take(self, byte: int) -> bytes | None:
        if self._frame is None:
            if byte == END:
                self._frame = bytearray()
                self._escaped = False
        elif byte == END:
            if self._frame:
                frame, self._frame = bytes(self._frame), None
                return frame
        elif self._escaped:
            self._escaped = False
            self._append(_ESCAPED.get(byte, byte))  # an unknown escape stands for its second byte (executed)
        elif byte == ESCAPE:
            self._escaped = True
        else:
            self._append(byte)
        return None

    def _append(self, byte: int) -> None:
        assert self._frame is not None
        self._frame.append(byte)
        if len(self._frame) > LONGEST_FRAME:
            self._frame = None
