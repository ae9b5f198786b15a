"""Opening a device that just appeared: the system may take a moment until its user may."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ..clock import Clock
from ..errors import AccessDeniedError, DriverMissingError
from ..usb.bus import UsbHandle
from .discovery import SCAN_INTERVAL, DfuInterface

# Seconds. udev may need a moment to hand a device that just appeared to its user.
PERMISSION_DELAY = 2.0

T = TypeVar("T")


def open_when_permitted(interface: DfuInterface, *, clock: Clock, patience: float) -> UsbHandle:
    """Open the interface; for `patience` seconds take "no permission" and "no driver" for "not yet".

    Raises:
        UsbError: a kind of it that says why not.
    """
    number = interface.descriptor.number
    return when_permitted(lambda: interface.device.open(number), clock=clock, patience=patience)


def when_permitted(action: Callable[[], T], *, clock: Clock, patience: float) -> T:
    """Do something that opens a device, with the same patience."""
    deadline = clock.monotonic() + patience
    while True:
        try:
            return action()
        except (AccessDeniedError, DriverMissingError):
            if clock.monotonic() >= deadline:
                raise
            clock.sleep(SCAN_INTERVAL)
