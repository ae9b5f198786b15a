"""The DFU device in the chip's ROM: descriptors, control requests, the state machine.

It answers as Espressif's ROM code did when it was executed, oddities included. `board` connects it to a bus.
"""

from __future__ import annotations

import struct

from ..dfu.spec import Mode, Request, State, Status, StatusResponse
from ..target import Target
from .nor import NorFlash
from .serial_loader import SerialLoader
from .updater import Updater

EP0_SIZE = 64
POLL_TIMEOUT = 0.256  # seconds, in every state
UPLOAD_DEFAULT_MIB = 4

_GET_DESCRIPTOR, _GET_CONFIGURATION, _SET_CONFIGURATION = 0x06, 0x08, 0x09
_GET_INTERFACE, _SET_INTERFACE = 0x0A, 0x0B
_MANUFACTURER, _PRODUCT, _SERIAL = 1, 2, 3
_SET_LINE_CODING, _GET_LINE_CODING, _SET_CONTROL_LINE_STATE = 0x20, 0x21, 0x22

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
        loader: Serial loader on the CDC interface; None if the chip's data do not describe it.
        must_reset: The chip resets itself now.
    """

    will_detach = True  # leaves the bus inside DFU_DETACH, without a bus reset

    def __init__(
        self, target: Target, flash: NorFlash, serial: str, *, wants_status: bool = False, mac: str = MAC
    ) -> None:
        self.target = target
        self.flash = flash
        self.serial = serial
        self.wants_status = wants_status
        data = target.serial_loader
        self.loader = SerialLoader(target, data, flash, mac) if data is not None else None
        self.must_reset = False
        self._force_download = False
        self.mode = Mode.RUN_TIME
        self.state = State.appIDLE
        self.status = Status.OK
        self._updater = self._new_updater()
        self._flash_driver_ready = False
        self._chip_size = 0
        self._upload_start, self._upload_end = 0, UPLOAD_DEFAULT_MIB << 20
        self._upload_position = 0
        self._upload_block = 0

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
        self.must_reset = False
        if self.loader is not None:
            self.loader.restart()

    def restart(self, mode: Mode) -> None:
        """Restart in a mode; the flash memory keeps its content."""
        if self.loader is not None:
            self.loader.bus_reset()
        self.mode = mode
        self.state = State.appIDLE if mode is Mode.RUN_TIME else State.dfuIDLE
        self.status = Status.OK
        self._updater = self._new_updater()
        self._flash_driver_ready = False
        self._chip_size = 0
        self._set_upload_range(UPLOAD_DEFAULT_MIB)

    def _new_updater(self) -> Updater:
        limits = self.target.dfu
        return Updater(self.flash, limits.index_records, limits.raw_below, self.target.flash.assumed_size)

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
        """Answer a control request; the ROM ignores wIndex.

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
        if self._has_left:
            raise ControlTimeout
        kind = request_type & 0x60
        if kind == 0x00:
            return self._standard(request, value)[:length]
        if kind != 0x20:
            raise ControlStall
        if request not in Request.__members__.values():
            return self._cdc(request, value, data)[:length]
        return self._dfu(Request(request), value, data, length)[:length]

    def _standard(self, request: int, value: int) -> bytes:
        if request == _GET_DESCRIPTOR:
            kind, index = value >> 8, value & 0xFF
            if kind == 1:
                return self.device_descriptor
            if kind == 2 and index == 0:
                return self.configuration_descriptor
            if kind == 3:
                return self._string_descriptor(index)
            raise ControlStall
        if request == _SET_INTERFACE:
            if value:
                self._set_upload_range(value & 0xFF, value >> 8)
            return b""
        if request == _GET_CONFIGURATION:
            return b"\x01"
        if request == _GET_INTERFACE:
            return b"\x00"
        if request in (0x00, _SET_CONFIGURATION):
            return b"\x00\x00" if request == 0 else b""
        raise ControlStall

    def _cdc(self, request: int, value: int, data: bytes) -> bytes:
        coding = bytearray(7) if self.loader is None else self.loader.line_coding
        if request == _GET_LINE_CODING:
            return bytes(coding)
        if request == _SET_LINE_CODING:
            coding[: len(data)] = data[: len(coding)]
        elif request != _SET_CONTROL_LINE_STATE:
            raise ControlStall
        elif self.loader is not None and self.loader.set_line_state(value):
            self.must_reset = True
        return b""

    # The serial port

    @property
    def _has_left(self) -> bool:
        return self.loader is not None and self.loader.commands.left

    def bulk_out(self, endpoint: int, data: bytes, now: float) -> None:
        """Take a bulk transfer to the device at the time `now`.

        Raises:
            TransferNak: The ROM does not take it.
        """
        if self.loader is None or self._has_left or endpoint != SERIAL_OUT:
            raise TransferNak
        self.loader.receive(data, now)
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
            return self._get_status()
        if request is Request.DFU_GETSTATE:
            return bytes([self.state])
        if self.mode is Mode.RUN_TIME:
            if request is not Request.DFU_DETACH:
                raise ControlStall
            return b""  # Board then removes the device from the bus
        if request is Request.DFU_DETACH:
            self.state = State.appIDLE
            raise ControlStall
        if self.state is State.dfuERROR:
            if request is Request.DFU_CLRSTATUS:
                self._to_idle()
            elif request is not Request.DFU_ABORT:  # accepted, but the updater's error stays
                raise ControlStall
            return b""
        if request is Request.DFU_DNLOAD:
            self._download(data)
            return b""
        if request is Request.DFU_UPLOAD:
            return self._upload(value, length)
        if request is Request.DFU_ABORT and self.state is not State.appIDLE:
            self._to_idle()
            return b""
        self._misuse()
        return b""

    def _get_status(self) -> bytes:
        if self.state is State.dfuMANIFEST_SYNC:
            self.state = State.dfuIDLE
        elif self.state is State.dfuDNLOAD_SYNC:
            self.state = State.dfuDNLOAD_IDLE
        return StatusResponse(self.status, POLL_TIMEOUT, self.state).encode()

    def _to_idle(self) -> None:
        self.state, self.status = State.dfuIDLE, Status.OK
        self._updater = self._new_updater()
        self._upload_position, self._upload_block = self._upload_start, 0

    def fail(self, status: Status) -> None:
        """Enter dfuERROR with this status."""
        self.state, self.status = State.dfuERROR, status

    def _misuse(self) -> None:
        self.fail(Status.errUNKNOWN)
        raise ControlStall

    def _download(self, data: bytes) -> None:
        if len(data) > self.target.usb.transfer_size:
            raise ControlTimeout
        if self.state is State.dfuIDLE and data:
            self._updater = self._new_updater()
        elif self.state is not State.dfuDNLOAD_IDLE:
            self._misuse()  # an empty block in dfuIDLE: as DFU 1.1 says; what the ROM does is unknown
        self._flash_driver_ready = True
        if data:
            self._updater.feed(data)
            self.state = State.dfuDNLOAD_SYNC if self.wants_status else State.dfuDNLOAD_IDLE
        else:
            self._updater.finish()
            self.state = State.dfuMANIFEST_SYNC
        self._chip_size = self._updater.chip_size
        if self.loader is not None:
            self.loader.commands.chip_size = self._chip_size  # the ROM has one place for it
        if self._updater.status is not Status.OK:
            self.fail(self._updater.status)

    # Upload

    def _set_upload_range(self, length_mib: int, start_mib: int = 0) -> None:
        self._upload_start = start_mib << 20
        self._upload_end = self._upload_start + (length_mib << 20)
        self._upload_position, self._upload_block = self._upload_start, 0

    def _upload(self, block: int, length: int) -> bytes:
        if self.state not in (State.dfuIDLE, State.dfuUPLOAD_IDLE):
            self._misuse()
        if length > self.target.usb.transfer_size:
            raise ControlTimeout
        self.state = State.dfuUPLOAD_IDLE
        if block != self._upload_block & 0xFFFF:
            self.fail(Status.errUNKNOWN)  # without a stall: only DFU_GETSTATUS reports it
            return bytes(length)
        size = min(length, self._upload_end - self._upload_position)
        # A download sets up the flash driver; what an upload before one returns is unknown.
        # The driver does not read beyond the chip size of flash_params.dat.
        in_reach = self._upload_position + size <= self._chip_size
        content = self.flash.read(self._upload_position, size) if self._flash_driver_ready and in_reach else bytes(size)
        self._upload_position += size
        self._upload_block += 1
        if size < length:
            self.state = State.dfuIDLE
            self._upload_position, self._upload_block = self._upload_start, 0
        return content
