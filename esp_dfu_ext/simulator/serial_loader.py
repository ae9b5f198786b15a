"""The serial port of the ROM's USB device: the bulk endpoints of its CDC interface, and the line state.

The ROM looks at it in every mode. The first SYNC takes the ROM out of its first loop and into the command loop of
`loader_commands`, which serves DFU just as well.
"""

from __future__ import annotations

from ..target import SerialLoader as LoaderData
from ..target import Target
from .loader_commands import CHANGE_BAUDRATE, SYNC, Commands
from .registers import Registers
from .slip import END, Decoder, encode
from .spiflash import SpiFlash

GIVE_UP_TIME = 0.1  # seconds that the ROM waits for the host to take the next byte of an answer (executed)
_RTS = 2  # bit of SET_CONTROL_LINE_STATE


class SerialLoader:
    """The loader of one chip.

    Args:
        target: Data of the chip.
        data: Its `serial_loader`.
        flash: Driver of the chip's flash memory, which DFU uses, too.
        mac: MAC address of the chip.

    Attributes:
        registers: Memory of the chip.
        commands: The command loop.
        active: A SYNC arrived, and the ROM has left its first loop for good.
        line_coding: What SET_LINE_CODING sent last.
    """

    def __init__(self, target: Target, data: LoaderData, flash: SpiFlash, mac: str) -> None:
        self._target = target
        self._data = data
        self._flash = flash
        self.registers = Registers(data, flash.nor, mac)
        self._seen = 0  # transfers in the first loop
        self.restart()

    def restart(self) -> None:
        """Reset the chip: the ROM is in its first loop again, and its RAM is empty."""
        self.registers.restart()
        self.commands = Commands(self._target, self._flash, self.registers)
        self.active = False
        self.line_coding = bytearray(7)
        self._rts = False
        self._decoder = Decoder()
        self._answers = bytearray()
        self._since = 0.0  # when the ROM began to wait for the host
        self._is_new = False  # and it may still be working for that answer

    def set_line_state(self, state: int) -> bool:
        """Take SET_CONTROL_LINE_STATE; return True if the ROM resets the chip now.

        It does so when RTS falls, but not in its first loop.
        """
        falls = self._rts and not state & _RTS
        self._rts = bool(state & _RTS)
        if falls and self.active:
            self.registers.force_download = False
            return True
        return False

    def bus_reset(self) -> None:
        """Forget RTS, as the ROM does at a bus reset."""
        self._rts = False

    def receive(self, data: bytes, now: float) -> None:
        """Take a bulk OUT transfer at the time `now`, and carry out the commands that it completes."""
        if not self.active and self._is_lost():
            return
        for frame in self._decoder.feed(data):
            if self.active:
                ends = self._data.baud_rate_ends if frame[:2] == bytes([0, CHANGE_BAUDRATE]) else 0
                self._send(self.commands.execute(frame), now, bytes([END]) * ends)
            elif frame[:2] == bytes([0, SYNC]):
                self.active = True
                self._send(self.commands.sync(frame), now)
            if self.commands.left:
                return

    def finish(self, now: float) -> None:
        """Offer the answer at the time `now`, at which the work for it is done."""
        if self._is_new:
            self._since, self._is_new = now, False

    def _is_lost(self) -> bool:
        """Return True for the share of transfers that the first loop of some ROMs throws away; the first is lost."""
        self._seen += 1
        share = self._data.sync_answered
        return int(self._seen * share + 1e-9) == int((self._seen - 1) * share + 1e-9)

    def take(self, now: float) -> bytes:
        """Return the next byte of an answer, or nothing; each bulk IN transfer brings a single byte."""
        self._drop_unread(now)
        self._since = now
        byte = bytes(self._answers[:1])
        del self._answers[:1]
        return byte

    def _send(self, answers: list[bytes], now: float, tail: bytes = b"") -> None:
        if self._drop_unread(now):
            return  # the ROM does not wait a second time
        if not self._answers:
            self._since = now
            self._is_new = True
        self._answers += b"".join(map(encode, answers)) + tail

    def _drop_unread(self, now: float) -> bool:
        """Drop what the host did not take in time, except for the byte in the endpoint; return True if it did not."""
        given_up = bool(self._answers) and now - self._since > GIVE_UP_TIME
        if given_up:
            del self._answers[1:]
        return given_up
