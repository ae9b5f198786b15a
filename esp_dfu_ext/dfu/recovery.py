"""Bring a device back to dfuIDLE after a failure, so that a download can start."""

from __future__ import annotations

from ..clock import Clock, Deadline
from ..errors import DfuError, DfuStateError, StallError, TransferTimeoutError, UsbError
from .device import SHORTEST_POLL, TIMEOUT, DfuDevice
from .spec import State, Status

# Maximum number of DFU_ABORT and DFU_CLRSTATUS requests; in figure A.1 no way to dfuIDLE needs more than two.
_STEPS = 8
_NO_ANSWER, _NO_WAY = "no longer answers", "can no longer be reached"
SILENT = (_NO_ANSWER, _NO_WAY)  # what `back_to_idle` returns of a device whose DFU interface is dead
_WORKING_STATES = (State.dfuDNBUSY, State.dfuMANIFEST, State.dfuMANIFEST_SYNC)
_UNRECOVERABLE_STATES = (State.appIDLE, State.appDETACH, State.dfuMANIFEST_WAIT_RESET)


def recover(device: DfuDevice, clock: Clock) -> bool:
    """Bring a device in DFU mode to dfuIDLE, whatever it was doing (DFU 1.1, figure A.1).

    A busy device gets at most `device.TIMEOUT` seconds to finish.

    Returns:
        False if it was in dfuIDLE already.

    Raises:
        DfuStateError: It cannot be brought to dfuIDLE without a reset.
        DfuAnswerError: Its answer is malformed.
        UsbError: A transfer failed.
    """
    steps, changed, deadline = 0, False, Deadline(clock, TIMEOUT)
    answer = device.get_status()
    while answer.state not in _UNRECOVERABLE_STATES:
        if answer.state == State.dfuIDLE and answer.status == Status.OK:
            return changed
        busy = answer.state in _WORKING_STATES and answer.status == Status.OK
        if steps == _STEPS:
            break
        if busy:
            if not deadline.sleep(max(answer.poll_timeout, SHORTEST_POLL)):
                break
        elif answer.state == State.dfuERROR or answer.status != Status.OK:
            device.clear_status()
        else:
            device.abort()
        steps, changed = steps + (not busy), True
        answer = device.get_status()
    raise DfuStateError(
        f"The device is in state {answer.state} ({answer.status}) and cannot be brought to dfuIDLE without a reset.",
        state=str(answer.state),
    )


def back_to_idle(device: DfuDevice, clock: Clock) -> str:
    """After a failure, try to bring the device to dfuIDLE; return how it is now, to end a sentence. Never fails."""
    try:
        recover(device, clock)
    except StallError:
        return "refuses to return to dfuIDLE"
    except TransferTimeoutError:
        return _NO_ANSWER
    except UsbError:
        return _NO_WAY
    except DfuStateError as error:
        return f"stays in state {error.state}"
    except DfuError:
        return "gives malformed answers"
    return "is in dfuIDLE and ready for another download"


def is_idle_again(device: DfuDevice, clock: Clock) -> bool:
    """Try to bring the device to dfuIDLE, and tell whether that worked."""
    try:
        recover(device, clock)
    except (UsbError, DfuError):
        return False
    return True
