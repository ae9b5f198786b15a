"""Ask an app by DFU_DETACH to hand the chip over to its ROM, as apps with TinyUSB's DFU run-time class do."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from ..clock import Clock, Deadline
from ..errors import NoHandoverError, OtherChipError, UsbError
from ..target import Target, find_target_by_usb_id
from ..usb.bus import Bus, UsbDevice
from .detach import return_timeout, send_detach
from .discovery import SCAN_INTERVAL, DfuInterface, describe, describe_all, device_at, dfu_interfaces, has_rom_id


def hand_over(
    app: DfuInterface, bus: Bus, target: Target, *, clock: Clock, targets: Sequence[Target], patience: float
) -> DfuInterface:
    """Send DFU_DETACH to an app, and wait until the ROM of this chip is on its port.

    The ROM may come up in DFU mode or in run-time mode. Its serial number has nothing to do with the app's.

    Args:
        app: DFU run-time interface of an app, with any IDs.
        bus: Bus of the board.
        target: The chip that is expected.
        clock: Time.
        targets: All known chips.
        patience: Seconds to wait for access to the app.

    Returns:
        The DFU interface of the ROM, in either mode.

    Raises:
        UsbError: The app cannot be opened.
        OtherChipError: The ROM of another chip answered; nothing was sent to it.
        NoHandoverError: The ROM is not on the port after the time-out.
    """
    reaction = send_detach(app, clock, patience)
    known = [*targets, target]
    last: UsbDevice | None = None
    deadline = Deadline(clock, return_timeout(target))
    while deadline.sleep(SCAN_INTERVAL):
        try:
            last = device_at(bus, app.path)
        except UsbError:
            continue  # a scan may fail while devices come and go; the next one follows soon
        now = dfu_interfaces(last) if last is not None else []
        if last is None or not now or not has_rom_id(last, known):
            continue
        if not now[0].is_rom_of(target):
            raise _other_chip(app, last, target, known)
        return now[0]
    notes: list[str] = []
    with suppress(UsbError):
        notes = describe_all(bus.scan(frozenset([target.usb.vid])), known, target)
    raise _not_handed_over(app, target, last, known, reaction, notes)


def _other_chip(app: DfuInterface, rom: UsbDevice, target: Target, targets: Sequence[Target]) -> OtherChipError:
    found = find_target_by_usb_id(rom.vid, rom.pid, targets)
    chip = f"an {found.chip} ({rom.usb_id})" if found is not None else f"an unknown chip ({rom.usb_id})"
    return OtherChipError(
        f"The app {app.device.usb_id} on port {app.path} runs on {chip}, not on an {target.chip} ({target.usb_id}).",
        notes=["The board is in download mode now. Nothing was written."],
        handed_over=app.path,
    )


def _not_handed_over(
    app: DfuInterface,
    target: Target,
    last: UsbDevice | None,
    targets: Sequence[Target],
    reaction: str,
    notes: Sequence[str],
) -> NoHandoverError:
    """Return the error for an app after whose DFU_DETACH `last` is on the port; `reaction` was its response."""
    who, seconds = f"The app {app.device.usb_id} on port {app.path}", f"{return_timeout(target):g} s"
    if last is None:
        outcome, what = "nothing", f"left the bus after DFU_DETACH, and nothing came back on its port within {seconds}"
    elif last.address == app.device.address:
        outcome, what = "stayed", f"did not leave the bus within {seconds} after DFU_DETACH, and {reaction}"
    elif last.usb_id == app.device.usb_id:
        outcome = "restarted"
        what = f"restarted after DFU_DETACH, but {seconds} later the app is on the port again, not the ROM"
    else:
        outcome = "other"
        what = (
            f"left the bus after DFU_DETACH, but the ROM of an {target.chip} ({target.usb_id}) did not come back "
            f"within {seconds}. On the port now: {describe(last, targets, target)}"
        )
    return NoHandoverError(f"{who} {what}.", path=app.path, outcome=outcome, notes=notes)
