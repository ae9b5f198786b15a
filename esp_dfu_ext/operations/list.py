"""Which boards are there?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..dfu.discovery import DfuInterface, describe, dfu_interfaces
from ..errors import UsbError
from ..target import Target, find_target_by_usb_id, load_targets
from ..usb.bus import Bus, UsbDevice


@dataclass(frozen=True)
class ListedDevice:
    """A device of Espressif, or of another vendor that a target names.

    Attributes:
        device: as the scan saw it.
        interfaces: its DFU interfaces, empty if it has none.
        target: the chip, None if its IDs are no chip's.
        serial: its serial number, None if it has none or cannot be opened.
        names: of its DFU interfaces, in their order; None where there is none.
        problem: why it cannot be opened, None if it can.
        description: what it is, in a few words.
    """

    device: UsbDevice
    interfaces: tuple[DfuInterface, ...]
    target: Target | None
    serial: str | None
    names: tuple[str | None, ...]
    problem: UsbError | None
    description: str


def list_devices(bus: Bus | None = None, targets: Sequence[Target] | None = None) -> list[ListedDevice]:
    """All devices of the chips' vendors, by path; also those that cannot be opened or have no DFU.

    Raises:
        UsbUnavailableError: USB cannot be used at all.
        TargetFileError: a chip's file is broken.
    """
    known = load_targets() if targets is None else targets
    vids = frozenset(target.usb.vid for target in known)
    return [_listed(device, known) for device in (bus or Bus()).scan(vids)]


def _listed(device: UsbDevice, targets: Sequence[Target]) -> ListedDevice:
    interfaces = tuple(dfu_interfaces(device))
    serial: str | None = None
    names: list[str | None] = [None] * len(interfaces)
    problem: UsbError | None = None
    try:
        if interfaces:
            serial = device.read_string(device.serial_index)
            names = [device.read_string(interface.descriptor.name_index) for interface in interfaces]
    except UsbError as error:
        problem = error
    target = find_target_by_usb_id(device.vid, device.pid, targets)
    return ListedDevice(device, interfaces, target, serial, tuple(names), problem, describe(device, targets))
