"""Numbers, names and structures of DFU 1.1, under the names of the specification."""

from __future__ import annotations

import enum
import struct
from functools import lru_cache
from typing import NamedTuple

INTERFACE_CLASS = 0xFE  # Application Specific, section 4.2.1
INTERFACE_SUBCLASS = 0x01  # Device Firmware Upgrade
DESCRIPTOR_TYPE_FUNCTIONAL = 0x21  # section 4.1.3

REQUEST_TYPE_OUT = 0x21  # host to device, class, interface
REQUEST_TYPE_IN = 0xA1  # device to host, class, interface


class Mode(enum.IntEnum):
    """bInterfaceProtocol of the DFU interface, sections 4.1.2 and 4.2.3."""

    RUN_TIME = 1
    DFU = 2

    def __str__(self) -> str:
        return "run-time" if self is Mode.RUN_TIME else "DFU"


class Request(enum.IntEnum):
    """bRequest, table 3.2."""

    DFU_DETACH = 0
    DFU_DNLOAD = 1
    DFU_UPLOAD = 2
    DFU_GETSTATUS = 3
    DFU_CLRSTATUS = 4
    DFU_GETSTATE = 5
    DFU_ABORT = 6


class State(enum.IntEnum):
    """bState, section 6.1.2."""

    appIDLE = 0
    appDETACH = 1
    dfuIDLE = 2
    dfuDNLOAD_SYNC = 3
    dfuDNBUSY = 4
    dfuDNLOAD_IDLE = 5
    dfuMANIFEST_SYNC = 6
    dfuMANIFEST = 7
    dfuMANIFEST_WAIT_RESET = 8
    dfuUPLOAD_IDLE = 9
    dfuERROR = 10

    def __str__(self) -> str:
        return self.name.replace("_", "-")


class Status(enum.IntEnum):
    """bStatus, section 6.1.2."""

    OK = 0x00
    errTARGET = 0x01
    errFILE = 0x02
    errWRITE = 0x03
    errERASE = 0x04
    errCHECK_ERASED = 0x05
    errPROG = 0x06
    errVERIFY = 0x07
    errADDRESS = 0x08
    errNOTDONE = 0x09
    errFIRMWARE = 0x0A
    errVENDOR = 0x0B
    errUSBR = 0x0C
    errPOR = 0x0D
    errUNKNOWN = 0x0E
    errSTALLEDPKT = 0x0F

    def __str__(self) -> str:
        return self.name


_STATES: dict[int, int] = {state.value: state for state in State}
_STATUSES: dict[int, int] = {status.value: status for status in Status}


STATUS_LENGTH = 6  # bytes


class StatusResponse(NamedTuple):
    """The answer to DFU_GETSTATUS, section 6.1.2.

    Attributes:
        status: Status, or a plain number that DFU 1.1 does not define.
        poll_timeout: bwPollTimeout in seconds.
        state: State, or a plain number that DFU 1.1 does not define.
    """

    status: int
    poll_timeout: float
    state: int

    @classmethod
    @lru_cache(maxsize=64)  # a download receives the same few answers thousands of times
    def decode(cls, data: bytes) -> StatusResponse:
        """Decode an answer; raise ValueError if it is not six bytes long."""
        if len(data) != STATUS_LENGTH:
            raise ValueError(f"{len(data)} bytes instead of {STATUS_LENGTH}")
        status, state = data[0], data[4]
        poll_timeout = int.from_bytes(data[1:4], "little") / 1000
        return cls(
            _STATUSES.get(status, status),
            poll_timeout,
            _STATES.get(state, state),
        )

    def encode(self) -> bytes:
        """Return the six bytes that a device sends."""
        milliseconds = round(self.poll_timeout * 1000)
        return bytes([self.status]) + milliseconds.to_bytes(3, "little") + bytes([self.state, 0])


_FUNCTIONAL = struct.Struct("<BBBHHH")


class FunctionalDescriptor(NamedTuple):
    """The DFU functional descriptor, table 4.2; `detach_timeout` is in milliseconds, `transfer_size` in bytes."""

    attributes: int
    detach_timeout: int
    transfer_size: int
    bcd_dfu: int

    @property
    def can_download(self) -> bool:
        """bitCanDnload."""
        return bool(self.attributes & 0x01)

    @property
    def can_upload(self) -> bool:
        """bitCanUpload."""
        return bool(self.attributes & 0x02)

    @property
    def manifestation_tolerant(self) -> bool:
        """bitManifestationTolerant: the device still answers after the download."""
        return bool(self.attributes & 0x04)

    @property
    def will_detach(self) -> bool:
        """bitWillDetach: the device leaves the bus by itself after DFU_DETACH, without a bus reset."""
        return bool(self.attributes & 0x08)

    @classmethod
    def find(cls, descriptors: bytes) -> FunctionalDescriptor | None:
        """Return the functional descriptor found among an interface's class-specific descriptors, or None.

        In DFU 1.0 it lacks the last two bytes; it then counts as version 1.00.
        """
        position = 0
        while position + 2 <= len(descriptors):
            length, kind = descriptors[position], descriptors[position + 1]
            if length < 2:
                return None
            body = descriptors[position : position + length]
            if kind == DESCRIPTOR_TYPE_FUNCTIONAL and len(body) >= _FUNCTIONAL.size - 2:
                if len(body) < _FUNCTIONAL.size:
                    body = body[: _FUNCTIONAL.size - 2] + b"\x00\x01"
                return cls(*_FUNCTIONAL.unpack(body[: _FUNCTIONAL.size])[2:])
            position += length
        return None

    def encode(self) -> bytes:
        """Return the nine bytes that a device sends."""
        return _FUNCTIONAL.pack(
            _FUNCTIONAL.size,
            DESCRIPTOR_TYPE_FUNCTIONAL,
            self.attributes,
            self.detach_timeout,
            self.transfer_size,
            self.bcd_dfu,
        )
