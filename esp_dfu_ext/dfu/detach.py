"""From run-time mode to DFU mode: DFU_DETACH, and waiting until the board is back (DFU 1.1, section 5)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress

from ..bus import Bus
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
from .device import DfuDevice
from .discovery import SCAN_INTERVAL, DfuInterface, device_at, dfu_interfaces, sightings
from .opening import open_when_permitted
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
    detach = _send_detach(interface, clock, patience)
    sent = clock.monotonic()
    patience_for_return = return_timeout(target)
    deadline = sent + patience_for_return
    detached_again = False
    address = interface.device.address
    seen = "nothing"
    while clock.monotonic() < deadline:
        clock.sleep(SCAN_INTERVAL)
        device = device_at(bus, interface.path)
        if device is None:
            seen = "nothing"
            continue
        now = next(iter(dfu_interfaces(device)), None)
        if now is not None and device.usb_id == target.usb_id:
            if now.mode is Mode.DFU:
                return now
            seen = "run-time"
            address = device.address
            if not detached_again and clock.monotonic() - sent > DETACH_INTERVAL:
                on_event(Notice("detach-again", "Still in run-time mode; asking once more.", interface.path))
                try:
                    detach = _send_detach(now, clock, 0.0)
                except DeviceGoneError:
                    continue  # it was just leaving
                detached_again = True
        elif device.interfaces:
            seen = device.usb_id
    message = (
        f"The board on port {interface.path} did not come back in DFU mode within "
        f"{patience_for_return:g} s after DFU_DETACH; "
    )
    notes = sightings(bus.scan(frozenset([target.usb.vid])), [*targets, target])
    if seen == "nothing":
        raise ReenumerationError(f"{message}nothing is on its port now.", notes=notes)
    stayed = address == interface.device.address
    run_time = f"it never left the bus, and {detach}" if stayed else "it came back in run-time mode"
    what = run_time if seen == "run-time" else f"{seen} is on its port now"
    raise NoDfuModeError(f"{message}{what}.", seen=seen, notes=notes)


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
