"""A DFU 1.1 device that is not a chip of ours: two memories as alternate settings, uploads, other IDs in DFU mode."""

from __future__ import annotations

import msgspec

from esp_dfu_ext.clock import Clock
from esp_dfu_ext.dfu.spec import FunctionalDescriptor, Mode, Request, State, Status, StatusResponse
from esp_dfu_ext.simulator import Board
from esp_dfu_ext.simulator.apps import App
from esp_dfu_ext.simulator.nor import NorFlash
from esp_dfu_ext.simulator.rom import ControlStall, Rom

from .chips import chip

VID, RUN_TIME_PID, DFU_PID = 0x1209, 0x0001, 0x0002  # pid.codes, for tests
NAMES = ("internal", "external")
SERIAL = "plain"
BLOCK = 1024


class PlainDevice(Rom):
    """A device with one DFU interface, two alternate settings and a memory behind each.

    Args:
        bcd_dfu: bcdDFUVersion; 0x011a for DfuSe.
    """

    def __init__(self, *, bcd_dfu: int = 0x0110) -> None:
        usb = msgspec.structs.replace(chip("esp32s3").usb, vid=VID, pid=RUN_TIME_PID, bcd_device=0x0200)
        target = msgspec.structs.replace(chip("esp32s3"), usb=usb)
        super().__init__(target, NorFlash(target.flash.sector, target.flash.sector), SERIAL)
        self._functional = FunctionalDescriptor(0x0F, 1000, BLOCK, bcd_dfu)
        self.memories = [b"", b""]
        self.alternate = 0
        self._received = bytearray()
        self._position = 0

    @property
    def device_descriptor(self) -> bytes:
        """The ROM's descriptor, with another PID in DFU mode."""
        pid = DFU_PID if self.mode is Mode.DFU else RUN_TIME_PID
        descriptor = super().device_descriptor
        return descriptor[:10] + pid.to_bytes(2, "little") + descriptor[12:]

    @property
    def configuration_descriptor(self) -> bytes:
        """One configuration; two alternate settings in DFU mode, one in run-time mode."""
        settings = range(2 if self.mode is Mode.DFU else 1)
        body = b"".join(bytes([9, 4, 0, number, 0, 0xFE, 1, self.mode, 4 + number]) for number in settings)
        body += self._functional.encode()
        return bytes([9, 2, 9 + len(body), 0, 1, 1, 0, 0xC0, 50]) + body

    def _string_descriptor(self, index: int) -> bytes:
        if index in (4, 5):
            text = NAMES[index - 4].encode("utf-16-le")
            return bytes([len(text) + 2, 3]) + text
        return super()._string_descriptor(index)

    @property
    def transfer_size(self) -> int:
        """As the functional descriptor says."""
        return BLOCK

    def _standard(self, recipient: int, request: int, value: int, length: int) -> bytes:
        if request == 0x0B:
            if value > 1:
                raise ControlStall
            self.alternate = value
            return b""
        return super()._standard(recipient, request, value, length)

    def _dfu(self, request: Request, value: int, data: bytes, length: int) -> bytes:
        if request is Request.DFU_GETSTATUS:
            if self.state is State.dfuDNLOAD_SYNC:
                self.state = State.dfuDNLOAD_IDLE
            elif self.state is State.dfuMANIFEST_SYNC:
                self.state = State.dfuIDLE
            return StatusResponse(self.status, 0.0, self.state).encode()
        if self.mode is Mode.RUN_TIME:
            if request is not Request.DFU_DETACH:
                raise ControlStall
        elif request is Request.DFU_DNLOAD and len(data) <= BLOCK:
            if self.state is State.dfuIDLE:
                self._received.clear()
            self._received += data
            if not data:
                self.memories[self.alternate] = bytes(self._received)
            self.state = State.dfuDNLOAD_SYNC if data else State.dfuMANIFEST_SYNC
        elif request is Request.DFU_UPLOAD:
            if self.state is State.dfuIDLE:
                self._position = 0
            chunk = self.memories[self.alternate][self._position : self._position + length]
            self._position += len(chunk)
            self.state = State.dfuUPLOAD_IDLE if len(chunk) == length else State.dfuIDLE
            return chunk
        elif request in (Request.DFU_ABORT, Request.DFU_CLRSTATUS):
            self.state, self.status = State.dfuIDLE, Status.OK
        else:
            self.fail(Status.errSTALLEDPKT)
            raise ControlStall
        return b""


class PlainBoard(Board):
    """A board whose interface 0 is DFU, so that no serial driver has it."""

    def _appear(self, device: Rom | App, mode: Mode) -> None:
        super()._appear(device, mode)
        self.kernel_driver = False


def plain_board(path: str, clock: Clock, mode: Mode = Mode.RUN_TIME, *, bcd_dfu: int = 0x0110) -> Board:
    """Return a board with such a device."""
    device = PlainDevice(bcd_dfu=bcd_dfu)
    device.restart(mode)
    return PlainBoard(device.target, path, clock, device)
