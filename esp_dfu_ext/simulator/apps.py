"""Apps with USB, which the chip runs when it is not in download mode, and how each hands the chip over to the ROM.

`ConsoleApp` follows ESP-IDF's components/esp_usb_cdc_rom_console; `DfuApp` follows apps with TinyUSB's DFU run-time
class, and `TouchApp` those with Arduino's CDC port. None of them has run here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ..dfu.spec import FunctionalDescriptor, Mode, Request
from .rom import EP0_SIZE, ControlStall, Rom

CONSOLE_DELAY = 0.05  # seconds until an app with the ROM's USB console restarts (its esp_timer)
TOUCH_BAUD_RATE = 1200
DTR, RTS = 1, 2  # bits of wValue of SET_CONTROL_LINE_STATE

SET_LINE_CODING, _GET_LINE_CODING, SET_CONTROL_LINE_STATE = 0x20, 0x21, 0x22  # bRequest of a CDC port
_GET_DESCRIPTOR = 0x06
_CDC = bytes.fromhex(  # interfaces 0 and 1, as TinyUSB describes them
    "080b000202020000 090400000102020000 0524002001 0524010001 04240206 0524060001 0705810308 0010"
    "090401000 20a000000 07050202400000 07058202400000".replace(" ", "")
)
_DFU_RUN_TIME = bytes.fromhex("09040200 00fe010100".replace(" ", ""))
_DFU_FUNCTIONAL = FunctionalDescriptor(attributes=0x0F, detach_timeout=1000, transfer_size=1024, bcd_dfu=0x0101)


@dataclass(frozen=True)
class Restart:
    """How an app restarts the chip.

    Attributes:
        download: It sets FORCE_DOWNLOAD_BOOT first, so that the ROM stays in download mode.
        mode: Mode in which the ROM then starts (USBDC_BOOT_DFU asks for DFU mode).
        delay: Seconds for which the app stays on the bus.
        keeps_usb: The device stays on the bus throughout (USBDC_PERSIST_ENA); the host notices nothing.
    """

    download: bool
    mode: Mode = Mode.RUN_TIME
    delay: float = 0.0
    keeps_usb: bool = False


class App:
    """An app with a CDC port; the subclasses say what makes it restart.

    Args:
        vid, pid: IDs of the device.
        serial: Its serial number.
        dfu: It has a DFU run-time interface.
    """

    mode = Mode.RUN_TIME

    def __init__(self, vid: int, pid: int, serial: str, *, dfu: bool = False) -> None:
        self._ids = vid, pid
        self._strings = {1: "Espressif", 2: "App", 3: serial}
        self._dfu = dfu
        self.restart: Restart | None = None
        self.baud_rate = 115200
        self.lines = 0
        self.start()

    def start(self) -> None:
        """Start afresh, as after a reset of the chip."""
        self.restart = None
        self.baud_rate = 115200
        self.lines = 0

    @property
    def device_descriptor(self) -> bytes:
        """The 18 bytes that the device sends."""
        return struct.pack("<BBHBBBBHHHBBBB", 18, 1, 0x0200, 0xEF, 2, 1, EP0_SIZE, *self._ids, 0x0100, 1, 2, 3, 1)

    @property
    def configuration_descriptor(self) -> bytes:
        """The configuration descriptor with the CDC port and, if there is one, the DFU interface."""
        interfaces = _CDC + (_DFU_RUN_TIME + _DFU_FUNCTIONAL.encode() if self._dfu else b"")
        count = 3 if self._dfu else 2
        return struct.pack("<BBHBBBBB", 9, 2, 9 + len(interfaces), count, 1, 0, 0x80, 50) + interfaces

    def control(self, request_type: int, request: int, value: int, data: bytes, length: int) -> bytes:
        """Answer a control request; see `Rom.control`. Afterwards `restart` says whether the app restarts."""
        kind = request_type & 0x60
        if kind == 0x00:
            return self._standard(request, value)[:length]
        if kind == 0x20 and request == SET_LINE_CODING:
            self.baud_rate = int.from_bytes(data[:4], "little")
            return b""
        if kind == 0x20 and request == _GET_LINE_CODING:
            return struct.pack("<IBBB", self.baud_rate, 0, 0, 8)[:length]
        if kind == 0x20 and request == SET_CONTROL_LINE_STATE:
            before, self.lines = self.lines, value & (DTR | RTS)
            self._lines_changed(before)
            return b""
        if kind == 0x20 and self._dfu and request == Request.DFU_DETACH:
            self._detach()
            return b""
        raise ControlStall

    def _standard(self, request: int, value: int) -> bytes:
        if request == _GET_DESCRIPTOR:
            kind, index = value >> 8, value & 0xFF
            if kind == 1:
                return self.device_descriptor
            if kind == 2 and index == 0:
                return self.configuration_descriptor
            if kind == 3 and index == 0:
                return bytes([4, 3, 0x09, 0x04])
            if kind == 3 and index in self._strings:
                text = self._strings[index].encode("utf-16-le")
                return bytes([len(text) + 2, 3]) + text
            raise ControlStall
        if request == 0x00:
            return b"\x00\x00"
        if request in (0x08, 0x0A):  # GET_CONFIGURATION, GET_INTERFACE
            return b"\x01" if request == 0x08 else b"\x00"
        if request in (0x09, 0x0B):  # SET_CONFIGURATION, SET_INTERFACE
            return b""
        raise ControlStall

    def _lines_changed(self, before: int) -> None:
        """React to DTR and RTS; `before` is what they were."""

    def _detach(self) -> None:
        """React to DFU_DETACH."""


class DfuApp(App):
    """An app with TinyUSB's DFU run-time interface, which restarts into the ROM upon DFU_DETACH.

    Args:
        vid, pid, serial: See App.
        mode: Mode in which the ROM starts: DFU mode if the app sets USBDC_BOOT_DFU and the chip has it.
    """

    def __init__(self, vid: int, pid: int, serial: str, mode: Mode = Mode.RUN_TIME) -> None:
        super().__init__(vid, pid, serial, dfu=True)
        self._into = mode

    def _detach(self) -> None:
        self.restart = Restart(download=True, mode=self._into)


class TouchApp(App):
    """An app with a CDC port that restarts into the ROM when the port is closed at 1200 baud."""

    def _lines_changed(self, before: int) -> None:
        if self.baud_rate == TOUCH_BAUD_RATE and not self.lines & DTR:
            self.restart = Restart(download=True)


class ConsoleApp(App):
    """An app with the ROM's USB console: the ROM's own descriptors, DFU_DETACH, and the lines as esptool moves them."""

    def __init__(self, rom: Rom) -> None:
        self._rom = rom
        super().__init__(rom.target.usb.vid, rom.target.usb.pid, rom.serial, dfu=True)

    @property
    def device_descriptor(self) -> bytes:
        """That of the ROM."""
        return self._rom.device_descriptor

    @property
    def configuration_descriptor(self) -> bytes:
        """That of the ROM, in run-time mode."""
        return self._rom.configuration_descriptor

    def control(self, request_type: int, request: int, value: int, data: bytes, length: int) -> bytes:
        """Answer a control request; the ROM's code answers all that has nothing to do with a restart."""
        kind = request_type & 0x60
        ours = (SET_LINE_CODING, _GET_LINE_CODING, SET_CONTROL_LINE_STATE, Request.DFU_DETACH)
        if kind == 0x00 or (kind == 0x20 and request not in ours):
            return self._rom.control(request_type, request, value, data, length)
        return super().control(request_type, request, value, data, length)

    def _lines_changed(self, before: int) -> None:
        if before & RTS and not self.lines & RTS:
            self.restart = Restart(download=bool(self.lines & DTR), delay=CONSOLE_DELAY, keeps_usb=True)

    def _detach(self) -> None:
        if self.restart is not None:
            raise ControlStall
        self.restart = Restart(download=True, mode=Mode.DFU, delay=CONSOLE_DELAY)
