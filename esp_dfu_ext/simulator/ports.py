"""The serial ports of simulated boards: those of their USB-UART bridges, and those of their own USB devices.

A port here has lines and no end for data: whoever opens it sets DTR and RTS, as Linux does, and clears them at the
close. What the chip prints on UART0 can be read from a bridge.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

from ..errors import SerialPortError
from ..usb.serial_ports import SerialPort
from ..usb.system_port import SerialSystem
from ..usb.trace import Trace
from .apps import DTR, RTS, SET_CONTROL_LINE_STATE, SET_LINE_CODING
from .board import Board, DeviceGone
from .bridge import Bridge
from .rom import ControlStall, ControlTimeout

_TO_INTERFACE = 0x21  # bmRequestType: class, to an interface


class SimulatedPorts(SerialSystem):
    """The serial ports of simulated boards, named after the USB port that they are on, such as ``tty1-2``.

    Args:
        boards: The boards.
        bridges: The bridges.

    Attributes:
        faults: Why a port cannot be opened, by its name: a `SerialPortError.reason`.
        hangs_up: The system clears both lines at the close; a user can turn that off.
    """

    same_buses = True

    def __init__(self, boards: Sequence[Board], bridges: Sequence[Bridge]) -> None:
        self._boards = boards
        self._bridges = bridges
        self.faults: dict[str, str] = {}
        self.hangs_up = True

    def list(self) -> list[SerialPort]:
        """See SerialSystem."""
        found = []
        for board in self._boards:
            board.update()
            if board.present:
                ids = int.from_bytes(board.device.device_descriptor[8:10], "little"), _pid(board)
                found.append(SerialPort(f"tty{board.path}", *ids, None, board.path))
        found += [SerialPort(f"tty{b.path}", *b.ids, None, b.path) for b in self._bridges if b.plugged]
        return sorted(found, key=lambda port: port.name)

    def find(self, name: str) -> SerialPort | None:
        """See SerialSystem."""
        return next((port for port in self.list() if port.name == name), None)

    def has_left(self, name: str) -> bool:
        """See SerialSystem."""
        return self.find(name) is None

    def open(self, name: str, *, baud_rate: int, path: str = "", trace: Trace | None = None) -> SimulatedPort:
        """See SerialSystem."""
        reason = self.faults.get(name, "missing" if self.has_left(name) else "")
        if reason:
            raise SerialPortError(f"The serial port {name} cannot be opened ({reason}).", port=name, reason=reason)
        owners: Sequence[Bridge | Board] = [*self._bridges, *self._boards]
        owner = next(owner for owner in owners if f"tty{owner.path}" == name)
        return SimulatedPort(owner, baud_rate, hangs_up=self.hangs_up)


def _pid(board: Board) -> int:
    return int.from_bytes(board.device.device_descriptor[10:12], "little")


class SimulatedPort:
    """An open port, with what `loader.lines` uses of one of pyserial's; it has no file for a tight reset.

    Args:
        owner: Whose port it is.
        baud_rate: Bits per second.
        hangs_up: `close` clears both lines.
    """

    cts = False

    def __init__(self, owner: Bridge | Board, baud_rate: int, *, hangs_up: bool = True) -> None:
        self._owner = owner
        self._hangs_up = hangs_up
        self._address = owner.address
        self._dtr = self._rts = True
        if isinstance(owner, Board):
            self._control(SET_LINE_CODING, 0, baud_rate.to_bytes(4, "little") + b"\0\0\x08")
        else:
            owner.board.uart.clear()
        self._set()

    @property
    def dtr(self) -> bool:
        """DTR, True if it is set."""
        return self._dtr

    @dtr.setter
    def dtr(self, value: bool) -> None:
        self._dtr = value
        self._set()

    @property
    def rts(self) -> bool:
        """RTS, True if it is set."""
        return self._rts

    @rts.setter
    def rts(self, value: bool) -> None:
        self._rts = value
        self._set()

    def setDTR(self, value: bool) -> None:
        """Set DTR."""
        self.dtr = value

    def setRTS(self, value: bool) -> None:
        """Set RTS."""
        self.rts = value

    def read(self, size: int) -> bytes:
        """Return what was received, without waiting."""
        if isinstance(self._owner, Board):
            return b""
        uart = self._owner.board.uart
        self._owner.board.update()
        data = bytes(uart[:size])
        del uart[:size]
        return data

    def close(self) -> None:
        """Close the port."""
        if self._hangs_up:
            with suppress(OSError):
                self._dtr = self._rts = False
                self._set()

    def _set(self) -> None:
        if isinstance(self._owner, Bridge):
            if not self._owner.plugged:
                raise OSError(5, os.strerror(5))
            self._owner.set_lines(self._dtr, self._rts)
        else:
            self._control(SET_CONTROL_LINE_STATE, DTR * self._dtr | RTS * self._rts)

    def _control(self, request: int, value: int, data: bytes = b"") -> None:
        board = self._owner
        assert isinstance(board, Board)
        board.update()
        if board.address != self._address:
            raise OSError(5, os.strerror(5))
        with suppress(ControlStall, ControlTimeout):
            try:
                board.control(_TO_INTERFACE, request, value, data, 0)
            except DeviceGone:
                raise OSError(5, os.strerror(5)) from None
