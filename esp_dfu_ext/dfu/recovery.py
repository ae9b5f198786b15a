"""After something went wrong: is the device still well, and back to where a download can begin?"""

from __future__ import annotations

from ..clock import Clock
from ..errors import DfuError, DfuStateError, StallError, TransferTimeoutError, UsbError
from .device import SHORTEST_POLL, TIMEOUT, DfuDevice
from .spec import State, Status

# DFU_ABORT and DFU_CLRSTATUS that are tried; figure A.1 has no way to dfuIDLE that is longer than two.
_STEPS = 8
_BUSY_STATES = (State.dfuDNBUSY, State.dfuMANIFEST, State.dfuMANIFEST_SYNC)
_RESET_STATES = (State.appIDLE, State.appDETACH, State.dfuMANIFEST_WAIT_RESET)


def recover(device: DfuDevice, clock: Clock) -> bool:
    """Bring a device in DFU mode to dfuIDLE, whatever it was doing (DFU 1.1, figure A.1).

    One that is busy is waited for, `device.TIMEOUT` seconds at most.

    Returns:
        False if it was there already.

    Raises:
        DfuStateError, DfuAnswerError: it cannot be brought there without a reset, or its answer is malformed.
        UsbError: a transfer failed.
    """
    steps, changed, deadline = 0, False, clock.monotonic() + TIMEOUT
    answer = device.get_status()
    while answer.state not in _RESET_STATES:
        if answer.state == State.dfuIDLE and answer.status == Status.OK:
            return changed
        left = deadline - clock.monotonic()
        busy = answer.state in _BUSY_STATES and answer.status == Status.OK
        if steps == _STEPS or (busy and left <= 0):
            break
        if busy:
            clock.sleep(min(max(answer.poll_timeout, SHORTEST_POLL), left))
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
    """After a failure: bring the device to dfuIDLE if it still answers, and say what state it is in.

    Never fails; this is what is done when something else already did.
    """
    try:
        recover(device, clock)
    except StallError:
        return "it refuses to go back to dfuIDLE"
    except TransferTimeoutError:
        return "it does not answer any more"
    except UsbError:
        return "it cannot be reached any more"
    except DfuStateError as error:
        return f"it stays in state {error.state}"
    except DfuError:
        return "its answers are malformed"
    return "it is in dfuIDLE and takes a new download"


def idle_again(device: DfuDevice, clock: Clock) -> bool:
    """`recover`, where a failure is an answer: is the device in dfuIDLE?"""
    try:
        recover(device, clock)
    except (UsbError, DfuError):
        return False
    return True
