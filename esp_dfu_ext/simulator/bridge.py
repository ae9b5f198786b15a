"""A USB-UART bridge on the board: a second USB device, whose DTR and RTS move EN and the strapping pin.

It answers the vendor requests with which Linux' drivers cp210x and ch341 open a port and set its lines; which of them
takes it, its IDs decide. The circuit is the one of most boards: two transistors, so that EN is low while RTS is set
and DTR is not, and the strapping pin is low while DTR is set and RTS is not.
"""

from __future__ import annotations

import struct

from .board import Board
from .rom import EP0_SIZE, ControlStall

BULK_IN, BULK_OUT = 0x81, 0x02
SYNC = b"\xc0\x00\x08"  # how a SYNC command of the serial loader begins

# bmRequestType of vendor requests: to a device (CH34x) or an interface (CP210x).
_DEVICE_OUT, _DEVICE_IN, _INTERFACE_OUT = 0x40, 0xC0, 0x41
_CP210X_SET_FLOW, _CP210X_SET_MHS = 0x13, 0x07
_CP210X_VENDOR_SPECIFIC, _CP210X_GET_PARTNUM, _CP2102 = 0xFF, 0x370B, 0x02
_CH341_MODEM_CTRL, _CH341_READ_VERSION, _CH341_VERSION = 0xA4, 0x5F, 0x31
_CH341_DTR, _CH341_RTS = 1 << 5, 1 << 6  # 0 if the line is set


class Bridge:
    """A bridge whose UART is the chip's UART0.

    Args:
        board: Board that it is on.
        path: Its own USB port path.
        address: Its address on the bus.
        vid, pid: Its IDs.

    Attributes:
        dtr, rts: The lines, True if set (low at the pin).
        ids: VID and PID.
        plugged: It is on the bus.
    """

    def __init__(self, board: Board, path: str, address: int, vid: int, pid: int) -> None:
        self.board = board
        self.path = path
        self.address = address
        self.dtr = self.rts = False
        self.ids = vid, pid
        self.plugged = True
        self._sent = b""

    @property
    def device_descriptor(self) -> bytes:
        """The 18 bytes that the device sends."""
        return struct.pack("<BBHBBBBHHHBBBB", 18, 1, 0x0110, 0, 0, 0, EP0_SIZE, *self.ids, 0x0100, 0, 0, 0, 1)

    @property
    def configuration_descriptor(self) -> bytes:
        """One vendor-specific interface: bulk in, bulk out, interrupt in."""
        return bytes.fromhex("09022700010100802f 0904000003ff000000 07058102400000 07050202400000 07058303080001")

    def control(self, request_type: int, request: int, value: int, data: bytes, length: int) -> bytes:
        """Answer a control request; see `Rom.control`. Raises ControlStall for those that neither bridge has."""
        kind = request_type & 0x60
        if kind == 0x00:
            return self._standard(request, value)[:length]
        if kind == 0x20:
            raise ControlStall
        if request_type & 0x80:
            if (request, value) == (_CP210X_VENDOR_SPECIFIC, _CP210X_GET_PARTNUM):
                return bytes([_CP2102])
            if (request_type, request) == (_DEVICE_IN, _CH341_READ_VERSION):
                return bytes([_CH341_VERSION, 0])[:length]
            return bytes(length)
        if (request_type, request) == (_INTERFACE_OUT, _CP210X_SET_MHS):
            # Bits 8 and 9 say which of bits 0 and 1 count.
            dtr = bool(value & 1) if value & 0x100 else self.dtr
            self.set_lines(dtr, bool(value & 2) if value & 0x200 else self.rts)
        elif (request_type, request) == (_INTERFACE_OUT, _CP210X_SET_FLOW) and len(data) == 16:
            handshake, replace = struct.unpack("<II", data[:8])
            self.set_lines(bool(handshake & 1), bool(replace & 0x40))
        elif (request_type, request) == (_DEVICE_OUT, _CH341_MODEM_CTRL):
            self.set_lines(not value & _CH341_DTR, not value & _CH341_RTS)
        return b""

    def _standard(self, request: int, value: int) -> bytes:
        if request == 0x06 and value >> 8 in (1, 2):
            return self.device_descriptor if value >> 8 == 1 else self.configuration_descriptor
        if request in (0x00, 0x01, 0x09, 0x0B):  # GET_STATUS, CLEAR_FEATURE, SET_CONFIGURATION, SET_INTERFACE
            return b"" if request else b"\x00\x00"
        raise ControlStall

    def set_lines(self, dtr: bool, rts: bool) -> None:
        """Set both lines at the same time."""
        self.dtr, self.rts = dtr, rts
        self.board.set_pins(enabled=not (rts and not dtr), boot_low=dtr and not rts)

    def write(self, data: bytes) -> None:
        """Send bytes to UART0; a SYNC makes a ROM in download mode poll that UART only."""
        self.board.update()
        self._sent = (self._sent + data)[-1024:]
        if SYNC in self._sent:
            self._sent = b""
            if self.board.device is self.board.rom and self.board.enabled:
                self.board.deaf = True
