"""Compare flash memory with an image by the serial loader's MD5s, which are independent of DFU's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..clock import Clock
from ..dfu.access import ACCESS_DELAY, open_interface
from ..dfu.discovery import DfuInterface, Selector, select
from ..dfu.spec import Mode
from ..errors import FlashDiffersError, UsbError
from ..events import DeviceFound, EventSink, Phase
from ..image.check import chip_size
from ..image.format import DfuImage, md5
from ..loader.rom_loader import Identity, RomLoader
from ..target import Target
from ..usb.bus import Bus
from .acquaint import BoardLoader, known_mac, refuse_other_board
from .inspect import CheckedImage
from .phases import timed


@dataclass(frozen=True)
class VerifyResult:
    """A board whose flash memory was compared with an image.

    Attributes:
        path: Port of the board.
        serial: Serial number, None if the board has none or it could not be read.
        identity: What the board says of itself.
        size: Bytes that were compared.
        difference: What flash memory does not hold; None if it holds everything.
    """

    path: str
    serial: str | None
    identity: Identity
    size: int
    difference: FlashDiffersError | None = None


def verify_board(
    image: CheckedImage,
    selector: Selector,
    bus: Bus,
    targets: Sequence[Target],
    clock: Clock,
    on_event: EventSink,
    wait: float = 0.0,
) -> VerifyResult:
    """Compare the flash memory of one board with an image; the board stays in the mode that it is in.

    Raises:
        SerialLoaderError: The chip's serial loader cannot be asked.
        OtherMacError: The board on the port has another MAC address than `selector` names.
        DeviceNotFoundError, SeveralDevicesError, UsageError: No single board fits.
        UsbError: The board cannot be opened, or a transfer failed.
    """
    target = image.target
    interface = select(bus, target, selector, targets, clock=clock, wait=wait, on_event=on_event)
    path, serial = interface.path, _serial_of(interface)
    on_event(DeviceFound(path, "DFU" if interface.mode is Mode.DFU else "run-time", serial))
    with open_interface(interface, clock=clock, patience=ACCESS_DELAY if wait else 0.0) as handle:
        loader = BoardLoader(interface.device, target, clock, on_event, serial=serial, required=True)
        try:
            loader.greet(handle)
            rom = ready(loader)
            assert loader.identity is not None
            refuse_other_board(selector.mac, known_mac(target, serial, loader.identity), path)
            result = VerifyResult(path, serial, loader.identity, image.image.payload_size)
            encrypted = loader.identity.security.flash_encryption
            try:
                with timed(Phase.CHECK, path, clock, on_event):
                    check_flash(rom, image.image, target, path, encrypted=encrypted)
            except FlashDiffersError as difference:
                return replace(result, difference=difference)
            return result
        finally:
            loader.close()


def ready(loader: BoardLoader, so_far: str = "") -> RomLoader:
    """Return the loader to be asked, or fail, and say what was done `so_far`.

    Raises:
        SerialLoaderError: It cannot be asked.
        DeviceBusyError: Another program uses the board's serial port.
        UsbError: Its serial port failed in another way.
    """
    if loader.rom is None:
        loader.problem.notes += (so_far,) if so_far else ()
        raise loader.problem
    return loader.rom


def check_flash(rom: RomLoader, image: DfuImage, target: Target, path: str, *, encrypted: bool) -> None:
    """Compare flash memory with an image.

    Args:
        rom: The board's serial loader.
        image: What flash memory should hold.
        target: Its chip.
        path: The board's port.
        encrypted: Flash encryption is enabled, so the MD5 is that of encrypted data.

    Raises:
        FlashDiffersError: It holds something else.
        SerialLoaderError: An answer did not come, or is malformed.
        DeviceGoneError: The board left the bus.
    """
    rom.set_flash_size(chip_size(image, target))
    notes, names = [], []
    for member in image.flash_members:
        assert member.record is not None
        address, expected = member.record.address, md5(member.data).digest()
        found = rom.md5(address, len(member.data))
        if found != expected:
            names.append(member.name)
            notes.append(f"{member.name} at {address:#x} has MD5 {found.hex()}; expected {expected.hex()}.")
    if names:
        if encrypted:
            notes.append("Flash encryption is enabled on the board: an image that is not encrypted always differs.")
        all_of_it = len(names) == len(image.flash_members)
        what = "the image" if all_of_it else ", ".join(names[:3]) + (" and more" if len(names) > 3 else "")
        raise FlashDiffersError(f"Port {path}: the flash memory does not hold {what}.", files=names, notes=notes)


def _serial_of(interface: DfuInterface) -> str | None:
    try:
        return interface.read_serial()
    except UsbError:
        return None
