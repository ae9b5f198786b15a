"""Detach, download and upload as DFU 1.1 describes them, for a chip's ROM and for any other DFU device.

dfu-util's command line needs these. `operations.flash` has the better way to flash a chip.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import msgspec

from ..clock import Clock, Deadline
from ..dfu.access import ACCESS_DELAY, open_interface
from ..dfu.detach import detach_and_wait, send_detach
from ..dfu.device import DfuDevice
from ..dfu.discovery import SCAN_INTERVAL, DfuInterface, describe_all, device_at, dfu_interfaces
from ..dfu.download import RESET_STATES, download
from ..dfu.recovery import back_to_idle
from ..dfu.spec import FunctionalDescriptor, Mode, StatusResponse
from ..dfu.upload import upload
from ..errors import DfuError, ReenumerationError, UsageError, UsbError
from ..events import EventSink
from ..image.format import DfuImage, FlashParams, parse_image
from ..image.suffix import Suffix
from ..image.writer import encode_image
from ..target import Dfu, Target
from ..units import MIB
from ..usb.bus import Bus

BCD_DFUSE = 0x011A  # bcdDFU of ST's extension, which has the same requests with another meaning
UPLOAD_RANGE = 4 * MIB  # what the ROM offers for an upload unless SET_INTERFACE selects another range (executed)
_LARGEST_TRANSFER = 4096  # bytes of a control transfer on Linux, libusb's os/linux_usbfs.h

# For a device about which nothing is known: the status after each block, and time for a slow erase.
_ANY_DEVICE = Dfu(
    part_size=MIB,
    index_records=1,
    name_length=32,
    raw_below=0,
    status_interval=1,
    erase_timeout=120.0,
    verify_timeout=60.0,
    verify_timeout_per_mib=1.0,
    return_timeout=15.0,
    return_timeout_windows=30.0,
)


@dataclass(frozen=True)
class DfuContext:
    """What an operation on a DFU device needs besides the device.

    Attributes:
        bus: Where the device is.
        targets: Known chips.
        clock: Time.
        on_event: Called with progress and notices.
        detach_delay: Seconds to wait for a device after DFU_DETACH; None for what the chip's YAML file says.
        transfer_size: Bytes per block; None for what the device says.
    """

    bus: Bus
    targets: Sequence[Target]
    clock: Clock
    on_event: EventSink
    detach_delay: float | None = None
    transfer_size: int | None = None


def functional_of(interface: DfuInterface) -> FunctionalDescriptor | None:
    """Return the functional descriptor of an interface; a device may attach it to only one alternate setting."""
    if interface.functional is not None:
        return interface.functional
    number = interface.descriptor.number
    others = (other for other in dfu_interfaces(interface.device) if other.descriptor.number == number)
    return next((other.functional for other in others if other.functional is not None), None)


def with_detach_delay(target: Target, seconds: float | None) -> Target:
    """Return the chip with another time-out for the return from DFU_DETACH; None changes nothing."""
    if seconds is None:
        return target
    limits = msgspec.structs.replace(target.dfu, return_timeout=seconds, return_timeout_windows=seconds)
    return msgspec.structs.replace(target, dfu=limits)


def detach(interface: DfuInterface, context: DfuContext) -> str:
    """Ask a device in run-time mode to change to DFU mode, without waiting for it.

    Returns:
        What went wrong, as a verb: ``refused`` or ``did not answer``. Empty if nothing did; a device that leaves the
        bus at once is what the request is for.

    Raises:
        UsbError: The device cannot be opened.
    """
    reaction = send_detach(interface, context.clock, 0.0)
    return reaction.removesuffix(" the request") if reaction.startswith(("refused", "did not answer")) else ""


def in_dfu_mode(interface: DfuInterface, target: Target | None, context: DfuContext) -> DfuInterface:
    """Return the device's DFU interface in DFU mode, after DFU_DETACH if the device is not yet in it.

    Args:
        interface: Interface that was chosen.
        target: Chip of the device; None if it is not known. Then any DFU device may come back on its port, because
            devices may change their IDs with their mode.
        context: What else is needed.

    Raises:
        UsbError: The device cannot be opened.
        ReenumerationError: It did not come back in DFU mode.
    """
    if interface.mode is Mode.DFU:
        return interface
    if target is not None:
        return detach_and_wait(
            interface,
            context.bus,
            with_detach_delay(target, context.detach_delay),
            clock=context.clock,
            targets=context.targets,
            patience=0.0,
            on_event=context.on_event,
        )
    refusal = detach(interface, context)
    limit = _ANY_DEVICE.return_timeout_windows if sys.platform == "win32" else _ANY_DEVICE.return_timeout
    seconds = limit if context.detach_delay is None else context.detach_delay
    deadline = Deadline(context.clock, seconds)
    while deadline.sleep(SCAN_INTERVAL):
        with suppress(UsbError):
            device = device_at(context.bus, interface.path)
            for now in dfu_interfaces(device) if device is not None else ():
                if now.mode is Mode.DFU:
                    return now
    notes: list[str] = []
    with suppress(UsbError):
        notes = describe_all(context.bus.scan(path=interface.path), context.targets)
    raise ReenumerationError(
        f"The device on port {interface.path} {refusal or 'accepted'} DFU_DETACH, and was not in DFU mode "
        f"{seconds:g} s later.",
        notes=notes,
    )


def write_file(interface: DfuInterface, data: memoryview, context: DfuContext, *, reset: bool) -> StatusResponse:
    """Send a file to a device in DFU mode that is not a known chip: what it means, only the device knows.

    Args:
        interface: Interface in DFU mode.
        data: The file without its DFU suffix.
        context: What else is needed.
        reset: Reset the bus afterwards.

    Returns:
        The device's last answer.

    Raises:
        UsageError: The device does not say how large a block may be, and `context` does not either.
        DfuError: The device refused the file.
        UsbError: A transfer failed.
    """
    functional = functional_of(interface)
    if functional is not None and not functional.can_download:
        raise DfuError(f"The device on port {interface.path} does not accept downloads (bitCanDnload is 0).")
    size = _transfer_size(interface, None, context.transfer_size)
    image = DfuImage(Suffix(0xFFFF, 0xFFFF), data, (), (), index_first=False, file=data)
    with _opened(interface, context) as device:
        answer = download(
            device,
            image,
            _ANY_DEVICE,
            transfer_size=size,
            path=interface.path,
            clock=context.clock,
            strict=True,
            tolerant=functional is None or functional.manifestation_tolerant,
            retries=0,  # only of Espressif's ROM is it known that a second download is harmless
            on_event=context.on_event,
        )
        if reset or answer.state in RESET_STATES:
            device.reset_bus()
    return answer


def read_device(
    interface: DfuInterface,
    target: Target | None,
    context: DfuContext,
    *,
    size: int | None,
    reset: bool,
    on_progress: Callable[[int, int | None], object],
) -> bytes:
    """Read the memory of a device in DFU mode.

    Args:
        interface: Interface in DFU mode.
        target: Chip of the device; None if it is not known.
        context: What else is needed.
        size: Bytes to read from a chip's ROM, from address 0 on; None for all that the device has.
        reset: Reset the bus afterwards.
        on_progress: Called with the number of bytes so far, and the number to read if that is known.

    Raises:
        UsageError: The chip's ROM cannot read that much, or the size of a block is unknown.
        DfuError: The device does not support uploads, reported an error, or ended too early.
        UsbError: A transfer failed.
    """
    functional = functional_of(interface)
    if functional is not None and not functional.can_upload:
        raise DfuError(f"The device on port {interface.path} does not support uploads (bitCanUpload is 0).")
    if target is not None:
        size = size or UPLOAD_RANGE
        if size > target.flash.limit:
            raise UsageError(f"The ROM of {target.chip} reads at most {target.flash.limit} bytes, not {size}.")
    block = _transfer_size(interface, target, context.transfer_size)
    with _opened(interface, context) as device:
        if target is not None and size is not None:
            _prepare_rom(device, interface, target, context, size, block)
        data = upload(
            device,
            transfer_size=block,
            path=interface.path,
            clock=context.clock,
            size=size if target is not None else None,
            on_progress=lambda done: on_progress(done, size),
        )
        if reset:
            with suppress(UsbError):  # the chip restarts during it
                device.reset_bus()
    return data


def _prepare_rom(
    device: DfuDevice, interface: DfuInterface, target: Target, context: DfuContext, size: int, block: int
) -> None:
    """Make the ROM read `size` bytes correctly.

    Beyond the size of flash memory that it assumes (2 MiB, or that of the last download), it sends arbitrary bytes
    and reports no error. An archive that contains nothing but flash_params.dat sets this size, and neither erases nor
    writes anything (executed on all chips).
    """
    flash = target.flash
    params = FlashParams(size + -size % flash.block, flash.block, flash.sector, flash.page, flash.status_mask)
    usb = target.usb
    image = parse_image(b"".join(encode_image([], params, Suffix(usb.vid, usb.pid))))
    download(
        device,
        image,
        target.dfu,
        transfer_size=block,
        path=interface.path,
        clock=context.clock,
        strict=True,
        tolerant=True,
    )
    if size > UPLOAD_RANGE:
        device.select_alternate(-(-size // MIB))  # first MiB in the upper byte, number of MiB in the lower one


def reset(interface: DfuInterface, context: DfuContext) -> None:
    """Reset the bus of a device.

    Raises:
        UsbError: The device cannot be opened.
    """
    with _opened(interface, context) as device, suppress(UsbError):  # the device restarts during it
        device.reset_bus()


@contextmanager
def _opened(interface: DfuInterface, context: DfuContext) -> Iterator[DfuDevice]:
    """Open an interface that may have appeared just now, with its alternate setting."""
    with open_interface(interface, clock=context.clock, patience=ACCESS_DELAY) as handle:
        device = DfuDevice(handle)
        alternates = {i.descriptor.alternate for i in dfu_interfaces(interface.device)}
        if len(alternates) > 1:
            device.select_alternate(interface.descriptor.alternate)
        try:
            yield device
        except (DfuError, UsbError) as error:
            error.notes += (f"The device on port {interface.path} {back_to_idle(device, context.clock)}.",)
            raise
        except KeyboardInterrupt:
            back_to_idle(device, context.clock)
            raise


def _transfer_size(interface: DfuInterface, target: Target | None, wanted: int | None) -> int:
    """Return the bytes of a block: what is `wanted`, but not more than the device can take."""
    functional = functional_of(interface)
    own = functional.transfer_size if functional is not None else 0
    if target is not None:
        return min(own, target.usb.transfer_size) if own else target.usb.transfer_size
    if not own and wanted is None:
        raise UsageError(f"The device on port {interface.path} does not say how large a block may be.")
    size = min(own or _LARGEST_TRANSFER, wanted or own, _LARGEST_TRANSFER)
    return max(size, min(interface.device.ep0_size, own or size))
