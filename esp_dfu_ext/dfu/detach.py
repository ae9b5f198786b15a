"""From run-time mode to DFU mode: DFU_DETACH, and waiting until the board is back (DFU 1.1, section 5)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress

from ..clock import Clock
from ..errors import (
    DeviceGoneError,
    NoDfuModeError,
    ReenumerationError,
    StallError,
    TransferTimeoutError,
    UsbError,
)
from ..events import EventSink, Notice, ignore
from ..target import Target
from ..usb.bus import Bus, UsbDevice
from .device import DfuDevice
from .discovery import SCAN_INTERVAL, DfuInterface, device_at, dfu_interfaces, sightings
from .opening import PERMISSION_DELAY, open_when_permitted
from .spec import Mode

# An app with the ROM's USB console comes back once in run-time mode and then restarts by itself;
# a second DFU_DETACH before that would hit the restart.
DETACH_INTERVAL = 3.0


def detach_and_wait(
    interface: DfuInterface,
    bus: Bus,
    target: Target,
    *,
    clock: Clock,
    targets: Sequence[Target],
    patience: float,
    on_event: EventSink = ignore,
) -> DfuInterface:
    """Send DFU_DETACH to a board in run-time mode, and wait until it is back on its port in DFU mode.

    The ROM leaves the bus inside the request, so that the request itself normally fails; that is success.
    `targets` are the chips that are known, to name what was seen instead.

    Raises:
        UsbError: the board cannot be opened.
        ReenumerationError: it did not come back in time; NoDfuModeError if something else did; the notes say what
            was seen.
    """
    took = _send_detach(interface, clock, patience)
    sent = clock.monotonic()
    asked_again = False
    last: UsbDevice | None = None
    while clock.monotonic() < sent + return_timeout(target):
        clock.sleep(SCAN_INTERVAL)
        try:
            last = device_at(bus, interface.path)
        except UsbError:
            continue  # while devices come and go a look may fail; the next one is soon
        now = _interface_of(last, target)
        if now is None:
            continue
        if now.mode is Mode.DFU:
            return now
        if not asked_again and clock.monotonic() - sent > DETACH_INTERVAL:
            message = f"Port {now.path}: still in run-time mode; asking once more."
            on_event(Notice("detach-again", message, now.path))
            with suppress(DeviceGoneError):  # it was just leaving
                took = _send_detach(now, clock, PERMISSION_DELAY)
                asked_again = True
    notes: list[str] = []
    with suppress(UsbError):
        notes = sightings(bus.scan(frozenset([target.usb.vid])), [*targets, target])
    raise _not_back(interface, target, last, took, notes)


def _interface_of(device: UsbDevice | None, target: Target) -> DfuInterface | None:
    """The DFU interface of a device if it is this chip's."""
    if device is None or device.usb_id != target.usb_id:
        return None
    return next(iter(dfu_interfaces(device)), None)


def _not_back(
    interface: DfuInterface, target: Target, last: UsbDevice | None, took: str, notes: Sequence[str]
) -> ReenumerationError:
    """What was on the port at the end, and how the board had taken the request."""
    message = (
        f"The board on port {interface.path} did not come back in DFU mode within {return_timeout(target):g} s "
        f"after DFU_DETACH; "
    )
    if last is None:
        return ReenumerationError(f"{message}nothing is on its port now.", notes=notes)
    if _interface_of(last, target) is None:
        return NoDfuModeError(f"{message}{last.usb_id} is on its port now.", seen=last.usb_id, notes=notes)
    stayed = last.address == interface.device.address
    what = f"it never left the bus, and {took}" if stayed else "it came back in run-time mode"
    return NoDfuModeError(f"{message}{what}.", seen="run-time", notes=notes)


def return_timeout(target: Target) -> float:
    """Seconds to wait for a board that left the bus; Windows looks for drivers first."""
    return target.dfu.return_timeout_windows if sys.platform == "win32" else target.dfu.return_timeout


def _send_detach(interface: DfuInterface, clock: Clock, patience: float) -> str:
    """Send DFU_DETACH; returns how the board took it, for the case that nothing came of it."""
    functional = interface.functional
    with open_when_permitted(interface, clock=clock, patience=patience) as handle:
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
            # Section 5.1: without bitWillDetach the host makes the change with a bus reset.
            with suppress(UsbError):
                device.reset_bus()
        return "took the request"
