"""Bring a board that was found into DFU mode: from its app, or from the ROM's run-time mode."""

from __future__ import annotations

from ..dfu.access import ACCESS_DELAY, until_accessible
from ..dfu.detach import detach_and_wait
from ..dfu.discovery import DfuInterface
from ..dfu.handover import hand_over
from ..dfu.spec import Mode
from ..errors import DeviceGoneError, DfuError, UsbError
from ..events import DeviceFound
from .board_port import BoardPort
from .flash_setup import FlashSetup


def enter_dfu_mode(
    interface: DfuInterface, serial: str | None, setup: FlashSetup, patience: float
) -> tuple[DfuInterface, str | None]:
    """Return the DFU interface of the board's ROM in DFU mode, and the ROM's serial number.

    Args:
        interface: Interface in run-time mode, of the ROM or of an app.
        serial: Its serial number.
        setup: What else is known.
        patience: Seconds to wait for access to it.

    Raises:
        OtherChipError, NoHandoverError: See `handover.hand_over`.
        DfuError, UsbError: See `detach.detach_and_wait`.
    """
    bus, target, clock, targets = setup.bus, setup.image.target, setup.clock, setup.targets
    if not interface.is_rom_of(target):
        interface = hand_over(interface, bus, target, clock=clock, targets=targets, patience=patience)
        patience = ACCESS_DELAY
        serial = read_serial(interface, setup, patience)
        setup.on_event(found(interface, serial, setup))
        refuse_no_download(interface)
    if interface.mode is Mode.RUN_TIME:
        interface = detach_and_wait(
            interface,
            bus,
            target,
            clock=clock,
            targets=targets,
            patience=patience,
            serial=serial,
            on_event=setup.on_event,
        )
    return interface, serial


def found(interface: DfuInterface, serial: str | None, setup: FlashSetup) -> DeviceFound:
    """Return the event for an interface that was chosen, or that an app handed over to."""
    app = None if interface.is_rom_of(setup.image.target) else interface.device.usb_id
    return DeviceFound(interface.path, "DFU" if interface.mode is Mode.DFU else "run-time", serial, app)


def refuse_no_download(interface: DfuInterface) -> None:
    """Raise DfuError if a device says that it takes no downloads; what an app says of itself does not matter."""
    if interface.functional is not None and not interface.functional.can_download:
        raise DfuError(f"The device on port {interface.path} does not accept downloads (bitCanDnload is 0).")


def read_serial(interface: DfuInterface, setup: FlashSetup, patience: float) -> str | None:
    """Return a device's serial number, None if it cannot be read.

    Raises:
        DeviceGoneError: The device left the bus.
    """
    try:
        return until_accessible(interface.read_serial, clock=setup.clock, patience=patience)
    except UsbError as error:
        # libusb also reports a device as gone that is on the bus but has no node, as in some containers.
        port = BoardPort(setup.bus, interface.device, setup.targets, setup.clock)
        if isinstance(error, DeviceGoneError) and port.has_lost_it():
            raise
        return None
