"""The requests of DFU 1.1 (section 3, table 3.2) to an open DFU interface."""

from __future__ import annotations

from ..errors import DfuAnswerError, StallError, TransferTimeoutError, UsbError
from ..usb.handle import UsbHandle
from .spec import REQUEST_TYPE_IN, REQUEST_TYPE_OUT, STATUS_LENGTH, Request, StatusResponse

SET_INTERFACE = (0x01, 0x0B)  # bmRequestType and bRequest
# Seconds; generous for requests that the device answers at once. pyusb's default is one second.
TIMEOUT = 5.0
SHORTEST_POLL = 0.001  # seconds between two requests to a busy device that reports bwPollTimeout 0


class DfuDevice:
    """An open DFU interface.

    Every method raises UsbError when the transfer fails; its subclass StallError means that the device refused it.

    Args:
        handle: Open device whose DFU interface is claimed.
        timeout: Seconds that each request may take, where the method does not take a time-out of its own.
    """

    def __init__(self, handle: UsbHandle, timeout: float = TIMEOUT) -> None:
        self._handle = handle
        self._timeout = timeout

    def detach(self, milliseconds: int) -> None:
        """Send DFU_DETACH: change to DFU mode, waiting at most `milliseconds` for a bus reset (section 5.1)."""
        self._out(Request.DFU_DETACH, milliseconds)

    def download(self, block: int, data: bytes | memoryview, timeout: float | None = None) -> None:
        """Send one block with DFU_DNLOAD; an empty block ends the download (section 6.1.1)."""
        self._handle.control_out(
            REQUEST_TYPE_OUT,
            Request.DFU_DNLOAD,
            block & 0xFFFF,  # wBlockNum wraps after 65536 blocks
            bytes(data),
            self._timeout if timeout is None else timeout,
        )

    def upload(self, block: int, length: int) -> bytes:
        """Read one block with DFU_UPLOAD; a short block is the last one (section 6.2)."""
        return self._in(Request.DFU_UPLOAD, length, block & 0xFFFF)

    def get_status(self) -> StatusResponse:
        """Send DFU_GETSTATUS and return the answer (section 6.1.2).

        Raises:
            DfuAnswerError: The answer is not six bytes long.
        """
        data = self._in(Request.DFU_GETSTATUS, STATUS_LENGTH)
        try:
            return StatusResponse.decode(data)
        except ValueError as error:
            raise DfuAnswerError(f"The answer to DFU_GETSTATUS is malformed: {error}.") from error

    def clear_status(self) -> None:
        """Send DFU_CLRSTATUS: change from dfuERROR to dfuIDLE (section 6.1.3)."""
        self._out(Request.DFU_CLRSTATUS)

    def abort(self) -> None:
        """Send DFU_ABORT: end the transfer and change to dfuIDLE (section 6.1.4)."""
        self._out(Request.DFU_ABORT)

    def select_alternate(self, setting: int) -> None:
        """Select an alternate setting of the interface with SET_INTERFACE (USB 2.0, section 9.4.10).

        It is sent as it is, because Linux refuses settings that no descriptor lists; the ROM takes any.
        """
        self._handle.control_out(*SET_INTERFACE, setting, b"", self._timeout)

    def reset_bus(self) -> None:
        """Reset the port: not a DFU request, but the way out of DFU mode (section 7)."""
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
