"""Open a device that has just appeared: the system may need a moment to give its user access."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ..clock import Clock, Deadline
from ..errors import AccessDeniedError, DriverMissingError
from ..usb.handle import UsbHandle
from .discovery import SCAN_INTERVAL, DfuInterface

# Seconds that udev may need to give a user access to a device that has just appeared.
ACCESS_DELAY = 2.0

T = TypeVar("T")


def open_interface(interface: DfuInterface, *, clock: Clock, patience: float) -> UsbHandle:
    """Open a DFU interface, trying again for `patience` seconds while access is denied or a driver is missing.

    Raises:
        UsbError: It cannot be opened; the subclass says why.
    """
    number = interface.descriptor.number
    return until_accessible(lambda: interface.device.open(number), clock=clock, patience=patience)


def until_accessible(action: Callable[[], T], *, clock: Clock, patience: float) -> T:
    """Call `action`, which opens a device, trying again for `patience` seconds, and return its result."""
    deadline = Deadline(clock, patience)
    while True:
        try:
            return action()
        except (AccessDeniedError, DriverMissingError):
            if not deadline.sleep(SCAN_INTERVAL):
                raise
