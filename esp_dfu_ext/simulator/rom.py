"""The DFU device in the chip's ROM: descriptors, control requests, the state machine.

It answers as Espressif's ROM code did when it was executed, oddities included. `board` connects it to a bus.
"""

from __future__ import annotations

import struct

from ..dfu.spec import Mode, Request, State, Status, StatusResponse
from ..target import Target
from .nor import NorFlash
from .serial_loader import SerialLoader
from .spiflash import RomDied, SpiFlash
from .updater import Updater

EP0_SIZE = 64
POLL_TIMEOUT = 0.256  # seconds, in every state
UPLOAD_DEFAULT_MIB = 4

# Standard requests, USB 2.0 table 9-4
_GET_STATUS, _CLEAR_FEATURE, _SET_FEATURE, _SET_ADDRESS = 0x00, 0x01, 0x03, 0x05
_GET_DESCRIPTOR, _GET_CONFIGURATION, _SET_CONFIGURATION = 0x06, 0x08, 0x09
_GET_INTERFACE, _SET_INTERFACE = 0x0A, 0x0B
_SET_LINE_CODING, _GET_LINE_CODING, _SET_CONTROL_LINE_STATE = 0x20, 0x21, 0x22  # CDC PSTN, table 13
# By recipient (0 device, 1 interface, 2 endpoint) and bRequest; every other standard request stalls.
_STANDARD_ANSWERS = {
    (0, _GET_STATUS): b"\1\0",  # self-powered
    (1, _GET_STATUS): b"\0\0",
    (2, _GET_STATUS): b"\0\0",
    (0, _GET_CONFIGURATION): b"\1",
    (1, _GET_INTERFACE): b"\0",
}
_STANDARD_WITHOUT_ANSWER = {
    (0, _CLEAR_FEATURE),
    (0, _SET_ADDRESS),
    (0, _SET_CONFIGURATION),
    (2, _CLEAR_FEATURE),
    (2, _SET_FEATURE),
}
_MANUFACTURER, _PRODUCT, _SERIAL = 1, 2, 3

SERIAL_OUT, SERIAL_IN = 0x03, 0x84  # bulk endpoints of the CDC interface; the notification endpoint never answers
MAC = "7c:df:a1:00:00:00"

_CONFIGURATION = bytes.fromhex(
    "09025d00030100c0fa"
    "080b000202020000"
    "0904000001020200000524001001042402020524060001052401030107058503400001"
    "09040100020a0200000705030240000107058402400001"
    "09040200 00fe01 00 00 0921 0f bc02 4000 1001".replace(" ", "")
)
_PROTOCOL_OFFSET = len(_CONFIGURATION) - 9 - 2


class ControlStall(Exception):
    """The device stalls a control request."""


class ControlTimeout(Exception):
    """The device never answers a control request."""


class TransferNak(Exception):
    """The endpoint has nothing to send, or does not exist: the transfer waits until the host gives up."""


class Rom:
    """The ROM of one chip with its flash memory.

    Args:
        target: Data of the chip.
        flash: Flash memory of the chip.
        serial: Serial number of the device.
        wants_status: Demand DFU_GETSTATUS after each block. DFU 1.1 allows it; the executed ROMs do not do it.
        mac: MAC address in the chip's eFuses.

    Attributes:
        spi_flash: Driver of the flash memory, with the geometry that the ROM believes in.
        loader: Serial loader on the CDC interface; None if the chip's data do not describe it.
        must_reset: The chip resets itself now.
        dead: The processor has stopped, and only RESET helps.
    """

    will_detach = True  # leaves the bus inside DFU_DETACH, without a bus reset

    def __init__(
        self, target: Target, flash: NorFlash, serial: str, *, wants_status: bool = False, mac: str = MAC
    ) -> None:
        self.target = target
        self.flash = flash
        self.serial = serial
        self.wants_status = wants_status
        self.spi_flash = SpiFlash(flash, target.flash.assumed_size)
        data = target.serial_loader
        self.loader = SerialLoader(target, data, self.spi_flash, mac) if data is not None else None
        self._force_download = False
        self.reset_chip()
        self.restart(Mode.RUN_TIME)

    def mode_after_reset(self) -> Mode | None:
        """Return the mode after a bus reset, which restarts the chip in DFU mode; None if nothing changes."""
        return Mode.RUN_TIME if self.mode is Mode.DFU else None

    @property
    def force_download(self) -> bool:
        """FORCE_DOWNLOAD_BOOT, which the next reset finds."""
        return self._force_download if self.loader is None else self.loader.registers.force_download

    @force_download.setter
    def force_download(self, value: bool) -> None:
        self._force_download = value
        if self.loader is not None:
            self.loader.registers.force_download = value

    def reset_chip(self) -> None:
        """Reset the chip, which takes the serial loader back to its beginning."""
        self.must_reset = self.dead = False
        self.spi_flash.reset()
        if self.loader is not None:
            self.loader.restart()

    def restart(self, mode: Mode) -> None:
        """Restart in a mode; the flash memory keeps its content."""
        if self.loader is not None:
            self.loader.bus_reset()
        self.mode = mode
        self.state = State.appIDLE if mode is Mode.RUN_TIME else State.dfuIDLE
        self.status: int = Status.OK
        self._updater = Updater(self.spi_flash, self.target.dfu)
        self._alternate = 0  # wValue of the last SET_INTERFACE: the range of the next upload
        self._upload_address = self._upload_left = self._upload_block = 0
        self._uploaded = bytearray(self.target.usb.transfer_size)
        self._buffer = bytearray(self.target.usb.transfer_size)

    @property
    def serial_loader_active(self) -> bool:
        """A SYNC has taken the ROM from its first loop to the serial loader, which serves DFU without its waits."""
        return self.loader is not None and self.loader.active

    @property
    def transfer_size(self) -> int:
        """Largest number of bytes of a control request's data stage."""
        return self.target.usb.transfer_size

    # Descriptors

    @property
    def device_descriptor(self) -> bytes:
        """The 18 bytes that the ROM sends."""
        usb = self.target.usb
        return struct.pack(
            "<BBHBBBBHHHBBBB",
            18, 1, 0x0200, 0xEF, 2, 1, EP0_SIZE, usb.vid, usb.pid, usb.bcd_device,
            _MANUFACTURER, _PRODUCT, _SERIAL, 1,
        )  # fmt: skip

    @property
    def configuration_descriptor(self) -> bytes:
        """The 93 bytes that the ROM sends; one of them distinguishes run-time from DFU mode."""
        data = bytearray(_CONFIGURATION)
        data[_PROTOCOL_OFFSET] = self.mode
        return bytes(data)

    def _string_descriptor(self, index: int) -> bytes:
        if index == 0:
            return bytes([4, 3, 0x09, 0x04])
        strings = {_MANUFACTURER: "Espressif", _PRODUCT: self.target.chip, _SERIAL: self.serial}
        if index not in strings:
            raise ControlStall
        text = strings[index].encode("utf-16-le")
        return bytes([len(text) + 2, 3]) + text

    # Control requests

    def control(self, request_type: int, request: int, value: int, data: bytes, length: int) -> bytes:
        """Answer a control request; the ROM ignores wIndex, and the recipient of a class request.

        Args:
            request_type: bmRequestType.
            request: bRequest.
            value: wValue.
            data: Data stage to the device.
            length: wLength of a data stage from the device.

        Raises:
            ControlStall: The device stalls the request.
            ControlTimeout: The device never answers.
        """
        if self.dead or self._has_left or len(data) > self.transfer_size:
            raise ControlTimeout
        self._buffer[: len(data)] = data
        try:
            answer = self._answer(request_type, request, value, data, length)
        except RomDied:
            self.dead = True
            raise ControlTimeout from None
        return answer[:length] if request_type & 0x80 else b""

    def _answer(self, request_type: int, request: int, value: int, data: bytes, length: int) -> bytes:
        kind, recipient = request_type & 0x60, request_type & 0x1F
        if kind == 0x00:
            return self._standard(recipient, request, value, length)
        if kind != 0x20:
            raise ControlStall
        if request in Request.__members__.values():
            out = bytes(self._buffer[:length]) if request_type & 0x80 else data
            return self._dfu(Request(request), value, out, length)
        return self._cdc(request, value, data, length)

    def _stale(self, length: int) -> bytes:
        """Return what is left in the buffer for control data: the ROM's answer where it sets none."""
        return bytes(self._buffer[:length]).ljust(length, b"\0")

    def _put(self, answer: bytes) -> bytes:
        self._buffer[: len(answer)] = answer
        return answer

    def _standard(self, recipient: int, request: int, value: int, length: int) -> bytes:
        if recipient == 0 and request == _GET_DESCRIPTOR:
            return self._descriptor(value >> 8, value & 0xFF)
        if recipient == 1 and request == _SET_INTERFACE:
            self._alternate = value
            return b""
        answer = _STANDARD_ANSWERS.get((recipient, request))
        if answer is not None:
            return self._put(answer)
        if (recipient, request) not in _STANDARD_WITHOUT_ANSWER:
            raise ControlStall
        return self._stale(length)

    def _descriptor(self, kind: int, index: int) -> bytes:
        if kind == 1:
            return self.device_descriptor
        if kind == 2 and index == 0:
            return self.configuration_descriptor
        if kind == 3:
            return self._string_descriptor(index)
        raise ControlStall

    def _cdc(self, request: int, value: int, data: bytes, length: int) -> bytes:
        coding = bytearray(7) if self.loader is None else self.loader.line_coding
        if request == _GET_LINE_CODING:
            return bytes(coding)
        if request == _SET_LINE_CODING:
            coding[: len(data)] = data[: len(coding)]
        elif request != _SET_CONTROL_LINE_STATE:
            raise ControlStall
        elif self.loader is not None and self.loader.set_line_state(value):
            self.must_reset = True
        return self._stale(length)

    # The serial port

    @property
    def _has_left(self) -> bool:
        return self.loader is not None and self.loader.commands.left

    def bulk_out(self, endpoint: int, data: bytes, now: float) -> None:
        """Take a bulk transfer to the device at the time `now`.

        Raises:
            TransferNak: The ROM does not take it.
        """
        if self.loader is None or self.dead or self._has_left or endpoint != SERIAL_OUT:
            raise TransferNak
        try:
            self.loader.receive(data, now)
        except RomDied:
            self.dead = True
        self.must_reset |= self.loader.commands.reboots

    def bulk_in(self, endpoint: int, now: float) -> bytes:
        """Return the next packet for the host, a single byte.

        Raises:
            TransferNak: There is nothing to send.
        """
        packet = self.loader.take(now) if self.loader is not None and endpoint == SERIAL_IN else b""
        if not packet:
            raise TransferNak
        return packet

    def _dfu(self, request: Request, value: int, data: bytes, length: int) -> bytes:
        if request is Request.DFU_GETSTATUS:
            return self._put(self._get_status())
        if request is Request.DFU_GETSTATE:
            self._show_updater_error()
            return self._put(bytes([self.state]))
        if request is Request.DFU_DETACH:
            return self._detach()
        if self.state in (State.appIDLE, State.appDETACH):
            self.state = State.appIDLE
            raise ControlStall
        if request is Request.DFU_DNLOAD:
            self._download(data)
        elif request is Request.DFU_UPLOAD:
            return self._upload(value, length)
        else:
            self.state, self.status = State.dfuIDLE, Status.OK
            if request is Request.DFU_CLRSTATUS:  # DFU_ABORT leaves the updater's error, which then shows again
                self._updater.status = Status.OK
        return self._stale(length)

    def _detach(self) -> bytes:
        if self.state not in (State.appIDLE, State.appDETACH):
            self.state = State.appIDLE
            raise ControlStall
        self.state = State.appDETACH
        return b""  # Board then removes the device from the bus

    def _get_status(self) -> bytes:
        if self.state is State.dfuMANIFEST_SYNC:
            self.state = State.dfuIDLE
        elif self.state is State.dfuDNLOAD_SYNC:
            self.state = State.dfuDNLOAD_IDLE
        self._show_updater_error()
        return StatusResponse(self.status, POLL_TIMEOUT, self.state).encode()

    def _show_updater_error(self) -> None:
        """Enter dfuERROR if the updater failed: only DFU_GETSTATUS and DFU_GETSTATE look at it."""
        if self._updater.status is not Status.OK and self.state not in (State.appIDLE, State.appDETACH):
            self._fail(self._updater.status)

    def fail(self, status: Status) -> None:
        """Enter dfuERROR with this status, as if the updater had failed and the host had asked for its status."""
        self._updater.status = status
        self._fail(status)

    def _fail(self, status: int) -> None:
        self.state, self.status = State.dfuERROR, status

    def _misuse(self) -> None:
        self._fail(Status.errUNKNOWN)
        raise ControlStall

    def _download(self, data: bytes) -> None:
        if self.state is State.dfuIDLE:
            self._updater = Updater(self.spi_flash, self.target.dfu)
        elif self.state is not State.dfuDNLOAD_IDLE:
            self._misuse()
        if data:
            self._updater.feed(data)
            self.state = State.dfuDNLOAD_SYNC if self.wants_status else State.dfuDNLOAD_IDLE
        else:
            self.state = State.dfuMANIFEST_SYNC
            self._updater.finish()

    def _upload(self, block: int, length: int) -> bytes:
        if self.state is State.dfuIDLE:
            self._upload_address = self._alternate >> 8 << 20
            self._upload_left = (self._alternate & 0xFF or UPLOAD_DEFAULT_MIB) << 20
            self._upload_block = 0
        elif self.state is not State.dfuUPLOAD_IDLE:
            self._misuse()
        if not length or block != self._upload_block & 0xFFFF:
            self._fail(Status.errUNKNOWN)  # without a stall: only DFU_GETSTATUS reports it
            return self._stale(length)
        size = min(length, self._upload_left)
        content = self.spi_flash.read(self._upload_address, size)
        if content is not None:  # beyond the chip size the buffer keeps what the last read left
            self._uploaded[:size] = content
            self._overwrite(content)
        self._upload_address += size
        self._upload_left -= size
        self._upload_block += 1
        self.state = State.dfuIDLE if size < length else State.dfuUPLOAD_IDLE
        return bytes(self._uploaded[:size])

    def _overwrite(self, content: bytes) -> None:
        """Overwrite what lies behind the buffer in the chip's memory, if the host asks for more than fits.

        These are the state (which the request then sets), the status, the block number, and in the end the pointers of
        the USB driver.
        """
        if len(content) > self.target.dfu.upload_limit:
            raise RomDied
        end = self.transfer_size
        behind = content[end:]
        if behind:  # the answer carries the state and the next block number, as the request sets them
            self._uploaded[end : end + 4] = bytes([State.dfuUPLOAD_IDLE, 0, 0, 0])
        if len(behind) > 4:
            self.status = behind[4]
        if len(behind) > 8:
            self._upload_block = int.from_bytes(behind[8:10], "little")
            self._uploaded[end + 8 : end + 10] = (self._upload_block + 1 & 0xFFFF).to_bytes(2, "little")
