"""List connected devices."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from ..dfu.discovery import DfuInterface, describe, dfu_interfaces, other_usb
from ..errors import UsbError
from ..target import Target, find_target_by_usb_id, load_targets
from ..usb.bus import Bus, UsbDevice


@dataclass(frozen=True)
class ListedDevice:
    """A USB device that has DFU, or is of a vendor that a chip's YAML file names.

    Attributes:
        device: The device, as the scan found it.
        interfaces: Its DFU interfaces; empty if it has none.
        target: The chip; None if no chip has the device's VID and PID.
        serial: Its serial number; None if it has none or cannot be opened.
        names: String descriptor of each DFU interface; None for an interface without one.
        problem: Why it cannot be opened; None if it can.
        description: What it is, in a few words.
        product: Its product string; None for the ROM of a chip, and if it has none or cannot be opened.
    """

    device: UsbDevice
    interfaces: tuple[DfuInterface, ...]
    target: Target | None
    serial: str | None
    names: tuple[str | None, ...]
    problem: UsbError | None
    description: str
    product: str | None = None

    @property
    def is_chip(self) -> bool:
        """It is one of the chips, with DFU."""
        return self.target is not None and bool(self.interfaces)


def list_devices(bus: Bus | None = None, targets: Sequence[Target] | None = None) -> list[ListedDevice]:
    """Return all devices that have DFU or are of the chips' vendors, by path, including those that cannot be opened.

    Args:
        bus: Bus to scan; None for this machine's USB.
        targets: Chips to look for; None for all.

    Raises:
        UsbUnavailableError: USB cannot be used on this machine.
        TargetFileError: A chip's file cannot be used.
    """
    chips = load_targets() if targets is None else targets
    vids = frozenset(target.usb.vid for target in chips)
    return [_listed(device, chips) for device in (bus or Bus()).scan() if device.vid in vids or dfu_interfaces(device)]


def _listed(device: UsbDevice, targets: Sequence[Target]) -> ListedDevice:
    interfaces = tuple(dfu_interfaces(device))
    serial: str | None = None
    names: list[str | None] = [None] * len(interfaces)
    problem: UsbError | None = None
    target = find_target_by_usb_id(device.vid, device.pid, targets)
    product: str | None = None
    if target is None and other_usb(device, targets) is None:
        with suppress(UsbError):  # it may belong to someone else
            product = device.read_string(device.product_index)
    try:
        if interfaces:
            serial = device.read_string(device.serial_index)
            names = [device.read_string(interface.descriptor.name_index) for interface in interfaces]
    except UsbError as error:
        problem = error
    return ListedDevice(device, interfaces, target, serial, tuple(names), problem, describe(device, targets), product)
