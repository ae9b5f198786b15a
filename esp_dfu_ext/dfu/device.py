"""The seven requests of DFU 1.1 (section 3, table 3.2) on an open DFU interface."""

from __future__ import annotations

from ..errors import DfuAnswerError, StallError, TransferTimeoutError, UsbError
from ..usb.bus import UsbHandle
from .spec import REQUEST_TYPE_IN, REQUEST_TYPE_OUT, STATUS_LENGTH, Request, StatusResponse

# Seconds. Generous for a request that the device answers at once; pyusb's own default is one second.
TIMEOUT = 5.0
SHORTEST_POLL = 0.001  # seconds to wait for a device that is busy, and says bwPollTimeout 0


class DfuDevice:
    """An open DFU interface.

    Every method raises a kind of UsbError when the transfer fails; StallError when the device refuses it.

    Args:
        handle: the open device with its DFU interface claimed.
        timeout: of each request, in seconds, where the method takes none.
    """

    def __init__(self, handle: UsbHandle, timeout: float = TIMEOUT) -> None:
        self._handle = handle
        self._timeout = timeout

    def detach(self, milliseconds: int) -> None:
        """DFU_DETACH: go over to DFU mode, waiting at most `milliseconds` for a bus reset (section 5.1)."""
        self._out(Request.DFU_DETACH, milliseconds)

    def download(self, block: int, data: bytes | memoryview, timeout: float | None = None) -> None:
        """DFU_DNLOAD of one block; an empty one ends the download (section 6.1.1)."""
        self._handle.control_out(
            REQUEST_TYPE_OUT,
            Request.DFU_DNLOAD,
            block & 0xFFFF,  # wBlockNum wraps after 65536 blocks
            bytes(data),
            self._timeout if timeout is None else timeout,
        )

    def upload(self, block: int, length: int) -> bytes:
        """DFU_UPLOAD of one block; a short one is the last (section 6.2)."""
        return self._in(Request.DFU_UPLOAD, length, block & 0xFFFF)

    def get_status(self) -> StatusResponse:
        """DFU_GETSTATUS (section 6.1.2).

        Raises:
            DfuAnswerError: the answer is not six bytes long.
        """
        data = self._in(Request.DFU_GETSTATUS, STATUS_LENGTH)
        try:
            return StatusResponse.decode(data)
        except ValueError as error:
            raise DfuAnswerError(f"The answer to DFU_GETSTATUS is malformed: {error}.") from error

    def clear_status(self) -> None:
        """DFU_CLRSTATUS: from dfuERROR to dfuIDLE (section 6.1.3)."""
        self._out(Request.DFU_CLRSTATUS)

    def get_state(self) -> int:
        """DFU_GETSTATE: bState, without the side effects of DFU_GETSTATUS (section 6.1.5).

        Raises:
            DfuAnswerError: the answer is not one byte long.
        """
        data = self._in(Request.DFU_GETSTATE, 1)
        if len(data) != 1:
            raise DfuAnswerError(f"The answer to DFU_GETSTATE has {len(data)} bytes instead of 1.")
        return data[0]

    def abort(self) -> None:
        """DFU_ABORT: give up a transfer, back to dfuIDLE (section 6.1.4)."""
        self._out(Request.DFU_ABORT)

    def reset_bus(self) -> None:
        """Reset the port: no DFU request, but how DFU mode ends (section 7)."""
        self._handle.reset()

    def _out(self, request: Request, value: int = 0) -> None:
        try:
            self._handle.control_out(REQUEST_TYPE_OUT, request, value, b"", self._timeout)
        except (StallError, TransferTimeoutError) as error:
            raise _naming(request, error) from error

    def _in(self, request: Request, length: int, value: int = 0) -> bytes:
        try:
            return self._handle.control_in(REQUEST_TYPE_IN, request, value, length, self._timeout)
        except (StallError, TransferTimeoutError) as error:
            raise _naming(request, error) from error


def _naming(request: Request, error: UsbError) -> UsbError:
    return type(error)(f"{error.message.rstrip('.')} ({request.name}).")
