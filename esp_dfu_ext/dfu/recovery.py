"""Back to dfuIDLE, whatever a device in DFU mode was doing (DFU 1.1, figure A.1)."""

from __future__ import annotations

from ..clock import Clock
from ..errors import DfuError, DfuStateError, StallError, TransferTimeoutError, UsbError
from .device import TIMEOUT, DfuDevice
from .spec import State, Status

_STEPS = 8


def recover(device: DfuDevice, clock: Clock) -> bool:
    """Bring a device in DFU mode to dfuIDLE, whatever it was doing (figure A.1).

    Returns:
        False if it was there already.

    Raises:
        DfuStateError, DfuAnswerError: it cannot be brought there without a reset, or its answer is malformed.
        UsbError: a transfer failed.
    """
    answer = device.get_status()
    for step in range(_STEPS):
        if answer.state == State.dfuIDLE and answer.status == Status.OK:
            return step > 0
        if answer.state in (State.appIDLE, State.appDETACH, State.dfuMANIFEST_WAIT_RESET):
            break
        if answer.state == State.dfuERROR or answer.status != Status.OK:
            device.clear_status()
        elif answer.state in (State.dfuDNBUSY, State.dfuMANIFEST, State.dfuMANIFEST_SYNC):
            clock.sleep(min(answer.poll_timeout, TIMEOUT))
        else:
            device.abort()
        answer = device.get_status()
    raise DfuStateError(
        f"The device is in state {answer.state} ({answer.status}) and cannot be brought to dfuIDLE without a reset.",
        state=str(answer.state),
    )


def leave_idle(device: DfuDevice, clock: Clock) -> str:
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
    """Bring it there if it answers; False if it does not, or cannot."""
    try:
        recover(device, clock)
    except (UsbError, DfuError):
        return False
    return True
