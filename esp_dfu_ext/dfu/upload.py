"""Read from a device with DFU_UPLOAD (DFU 1.1, section 6.2)."""

from __future__ import annotations

from typing import Callable

from ..clock import Clock
from ..errors import DfuError, DfuStateError, DfuStatusError, StallError
from .device import DfuDevice
from .recovery import recover
from .spec import State, Status

_LONGEST = 64 << 20  # bytes; a device that sends more than any flash memory holds will not end


def upload(
    device: DfuDevice,
    *,
    transfer_size: int,
    path: str,
    clock: Clock,
    size: int | None = None,
    on_progress: Callable[[int], object] = lambda done: None,
) -> bytes:
    """Bring the device to dfuIDLE, and read blocks until one is short, or until there are `size` bytes.

    Espressif's ROM answers a block that it does not expect with arbitrary bytes, and stalls only the next one
    (executed). So the bytes count only after DFU_GETSTATUS.

    Args:
        device: Open device in DFU mode.
        transfer_size: Bytes per block.
        path: Port of the device, for errors.
        clock: Time.
        size: Bytes to read; None for all that the device has.
        on_progress: Called with the number of bytes so far.

    Returns:
        The bytes that were read.

    Raises:
        DfuError: The device reports an error, is in a wrong state, ends before `size` bytes, or does not end.
        UsbError: A transfer failed.
    """
    recover(device, clock)
    data = _read_blocks(device, transfer_size, path, size, on_progress)
    if size is None:
        return data
    recover(device, clock)  # it expects further blocks
    if len(data) < size:
        raise DfuError(f"Port {path}: the device ended the upload after {len(data)} of {size} bytes.")
    return data[:size]


def _read_blocks(
    device: DfuDevice, transfer_size: int, path: str, size: int | None, on_progress: Callable[[int], object]
) -> bytes:
    data, block, ended = bytearray(), 0, False
    while not ended and (size is None or len(data) < size):
        try:
            chunk = device.upload(block, transfer_size)
        except StallError as error:
            _check(device, path, len(data))
            raise StallError(f"Port {path}: the device refused to send the block at offset {len(data):#x}.") from error
        data += chunk
        block += 1
        ended = len(chunk) < transfer_size
        if len(data) > _LONGEST:
            raise DfuError(f"Port {path}: the device has sent more than {_LONGEST} bytes, and does not end.")
        on_progress(len(data))
    _check(device, path, len(data))
    return bytes(data)


def _check(device: DfuDevice, path: str, offset: int) -> None:
    """Raise the error that the device reports, if it reports one."""
    answer = device.get_status()
    if answer.status != Status.OK:
        raise DfuStatusError(
            f"Port {path}: the device reported {answer.status} in state {answer.state} by offset {offset:#x} of the "
            "upload.",
            status=str(answer.status),
            state=str(answer.state),
        )
    if answer.state not in (State.dfuUPLOAD_IDLE, State.dfuIDLE):
        message = f"Port {path}: the device reported state {answer.state} during the upload."
        raise DfuStateError(message, state=str(answer.state))
