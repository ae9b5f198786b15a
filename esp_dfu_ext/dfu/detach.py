"""Change a board from run-time mode to DFU mode with DFU_DETACH (DFU 1.1, section 5)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress

from ..clock import Clock, Deadline
from ..errors import (
    DeviceGoneError,
    NoDfuModeError,
    OtherBoardError,
    ReenumerationError,
    StallError,
    TransferTimeoutError,
    UsbError,
)
from ..events import EventSink, Notice, ignore
from ..target import Target
from ..usb.bus import Bus, UsbDevice
from .access import ACCESS_DELAY, open_interface, until_accessible
from .device import DfuDevice
from .discovery import SCAN_INTERVAL, DfuInterface, describe_all, device_at, dfu_interfaces, is_same_serial
from .spec import Mode

# Seconds until DFU_DETACH is sent once more. An app with the ROM's USB console stays in run-time mode for a moment and
# then restarts by itself; a second DFU_DETACH before that would hit the restart.
DETACH_INTERVAL = 3.0


def detach_and_wait(
    interface: DfuInterface,
    bus: Bus,
    target: Target,
    *,
    clock: Clock,
    targets: Sequence[Target],
    patience: float,
    serial: str | None = None,
    on_event: EventSink = ignore,
) -> DfuInterface:
    """Send DFU_DETACH to a board in run-time mode, and wait until it is back on its port in DFU mode.

    The ROM leaves the bus during the request, so the request itself normally fails; that is success.

    Args:
        interface: DFU interface of the board.
        bus: Bus of the board.
        target: Its chip.
        clock: Time.
        targets: All known chips, to describe other devices in errors.
        patience: Seconds to wait for access to the board.
        serial: Serial number of the board, which is read again once a board is back; None not to compare it.
        on_event: Receives a notice when DFU_DETACH is sent once more.

    Returns:
        The DFU interface of the board in DFU mode.

    Raises:
        UsbError: The board cannot be opened.
        OtherBoardError: A board with another serial number is on the port; nothing was sent to it.
        NoDfuModeError: The board, or another device on its port, is not in DFU mode after the time-out.
        ReenumerationError: Nothing is on the port after the time-out. The notes list the devices found.
    """
    reaction = send_detach(interface, clock, patience)
    deadline, first_try = Deadline(clock, return_timeout(target)), Deadline(clock, DETACH_INTERVAL)
    sent_again = unread = False
    last: UsbDevice | None = None
    while deadline.sleep(SCAN_INTERVAL):
        try:
            last = device_at(bus, interface.path)
        except UsbError:
            continue  # a scan may fail while devices come and go; the next one follows soon
        now = _interface_of(last, target)
        if now is None or (now.mode is Mode.RUN_TIME and (sent_again or first_try.left >= 0)):
            continue
        if serial is not None and now.device.address != interface.device.address:
            unread = True
            with suppress(DeviceGoneError):  # the next scan shows what comes after it
                unread = not _is_same_board(now, serial, clock)
            if unread:
                continue
        if now.mode is Mode.DFU:
            return now
        message = f"Port {now.path}: still in run-time mode; sending DFU_DETACH once more."
        on_event(Notice("detach-again", message, now.path))
        with suppress(DeviceGoneError):  # it was just leaving
            reaction = send_detach(now, clock, ACCESS_DELAY)
            sent_again = True
    if unread and serial is not None and last is not None:
        raise OtherBoardError(interface.path, before=serial, now=None)
    notes: list[str] = []
    with suppress(UsbError):
        notes = describe_all(bus.scan(frozenset([target.usb.vid])), [*targets, target])
    raise _not_back(interface, target, last, reaction, notes)


def _is_same_board(now: DfuInterface, serial: str, clock: Clock) -> bool:
    """Return whether the board has this serial number; False if it cannot be read at the moment.

    Raises:
        OtherBoardError: It has another one.
    """
    found = until_accessible(now.read_serial, clock=clock, patience=ACCESS_DELAY)
    if found is not None and not is_same_serial(found, serial):
        raise OtherBoardError(now.path, before=serial, now=found)
    return found is not None


def _interface_of(device: UsbDevice | None, target: Target) -> DfuInterface | None:
    """Return the DFU interface of a device if it has this chip."""
    if device is None or device.usb_id != target.usb_id:
        return None
    return next(iter(dfu_interfaces(device)), None)


def _not_back(
    interface: DfuInterface, target: Target, last: UsbDevice | None, reaction: str, notes: Sequence[str]
) -> ReenumerationError:
    """Return the error for a board that is not in DFU mode: `last` is on its port, `reaction` its response."""
    message = (
        f"The board on port {interface.path} did not come back in DFU mode within {return_timeout(target):g} s "
        f"after DFU_DETACH; "
    )
    if last is None:
        return ReenumerationError(f"{message}no device is on its port now.", notes=notes)
    if _interface_of(last, target) is None:
        return NoDfuModeError(f"{message}{last.usb_id} is on its port now.", seen=last.usb_id, notes=notes)
    stayed = last.address == interface.device.address
    what = f"it never left the bus, and {reaction}" if stayed else "it came back in run-time mode"
    return NoDfuModeError(f"{message}{what}.", seen="run-time", notes=notes)


def return_timeout(target: Target) -> float:
    """Return the seconds to wait for a board that left the bus; longer on Windows, which looks for a driver first."""
    return target.dfu.return_timeout_windows if sys.platform == "win32" else target.dfu.return_timeout


def send_detach(interface: DfuInterface, clock: Clock, patience: float) -> str:
    """Send DFU_DETACH; return how the board reacted, in case it does not change to DFU mode.

    Raises:
        UsbError: The board cannot be opened.
    """
    functional = interface.functional
    with open_interface(interface, clock=clock, patience=patience) as handle:
        device = DfuDevice(handle)
        try:
            device.detach(functional.detach_timeout if functional is not None else 1000)
        except StallError:
            return "refused the request"
        except TransferTimeoutError:
            return "did not answer the request"
        except UsbError as error:
            return f"the request failed: {error.message.rstrip('.')}"
        if functional is not None and not functional.will_detach:
            # Section 5.1: without bitWillDetach, the host triggers the change with a bus reset.
            with suppress(UsbError):
                device.reset_bus()
        return "accepted the request"
