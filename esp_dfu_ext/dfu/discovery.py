"""Find the DFU interfaces on a bus, choose one, and describe what else was found."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ..clock import Clock, Deadline
from ..errors import (
    AppRunningError,
    DeviceNotFoundError,
    OtherChipError,
    OtherPathError,
    OtherSerialError,
    OtherUsbError,
    SeveralDevicesError,
    UnreadableDeviceError,
    UsageError,
    UsbError,
)
from ..events import EventSink, Waiting, ignore
from ..target import OtherUsb, Target, find_target_by_usb_id
from ..usb.bus import Bus, UsbDevice
from ..usb.descriptors import InterfaceDescriptor
from .spec import INTERFACE_CLASS, INTERFACE_SUBCLASS, FunctionalDescriptor, Mode

SCAN_INTERVAL = 0.05  # seconds between two scans


@dataclass(frozen=True)
class DfuInterface:
    """A DFU interface of a device.

    Attributes:
        device: Device as the scan found it.
        descriptor: Interface descriptor.
        mode: Run-time or DFU.
        functional: DFU functional descriptor; None if it is missing, although DFU 1.1 requires it.
    """

    device: UsbDevice
    descriptor: InterfaceDescriptor
    mode: Mode
    functional: FunctionalDescriptor | None

    @property
    def path(self) -> str:
        """Port of its device, ``bus-port.port``."""
        return self.device.path

    def is_rom_of(self, target: Target) -> bool:
        """Return whether it has the ROM's IDs of this chip, which an app with the ROM's USB console has, too."""
        return self.device.usb_id == target.usb_id

    def read_serial(self) -> str | None:
        """Return the device's serial number, or None if it has none; errors are those of UsbDevice.read_serial."""
        return self.device.read_serial()


def is_same_serial(one: str, other: str) -> bool:
    """Return whether two serial numbers are the same: in either case, and a MAC address with or without separators."""
    return _comparable(one) == _comparable(other)


def _comparable(serial: str) -> str:
    digits = re.sub("[:-]", "", serial)
    return (digits if re.fullmatch("[0-9A-Fa-f]{12}", digits) else serial).lower()


def dfu_interfaces(device: UsbDevice) -> list[DfuInterface]:
    """Return the device's DFU interfaces, one for each alternate setting."""
    return [
        DfuInterface(device, interface, Mode(interface.protocol), FunctionalDescriptor.find(interface.extra))
        for interface in device.interfaces
        if interface.class_ == INTERFACE_CLASS
        and interface.subclass == INTERFACE_SUBCLASS
        and interface.protocol in Mode.__members__.values()
    ]


def find(bus: Bus, target: Target) -> list[DfuInterface]:
    """Return one DFU interface of each connected board with this chip."""
    return [
        interfaces[0]
        for device in bus.scan(frozenset([target.usb.vid]))
        if device.pid == target.usb.pid and (interfaces := dfu_interfaces(device))
    ]


def is_app(device: UsbDevice, targets: Sequence[Target]) -> bool:
    """Return whether a device is an app with a DFU run-time interface, and not the ROM of a chip, known or not.

    An app whose console is the ROM's USB device looks like that ROM.
    """
    interfaces = dfu_interfaces(device)
    return bool(interfaces) and interfaces[0].mode is Mode.RUN_TIME and not has_rom_id(device, targets)


def has_rom_id(device: UsbDevice, targets: Sequence[Target]) -> bool:
    """Return whether a device has IDs as the ROMs of the chips have; an unknown one may be that of a newer chip."""
    return (device.vid, device.pid >> 8) in {(target.usb.vid, target.usb.pid >> 8) for target in targets}


def find_boards(
    bus: Bus, target: Target, targets: Sequence[Target], *, apps: bool, paths: Collection[str] = ()
) -> list[DfuInterface]:
    """Return one DFU interface of each connected board that has this chip, or may have it.

    Args:
        bus: Bus to scan.
        target: The chip.
        targets: All known chips.
        apps: Include apps of the chip's vendor with a DFU run-time interface; which chip runs them is unknown.
        paths: Ports on which such apps of other vendors are included, too.
    """
    known = [*targets, target]
    vids = None if apps and paths else frozenset([target.usb.vid])
    return [
        interfaces[0]
        for device in bus.scan(vids)
        if (interfaces := dfu_interfaces(device))
        and (
            interfaces[0].is_rom_of(target)
            or (apps and is_app(device, known) and (device.vid == target.usb.vid or device.path in paths))
        )
    ]


@dataclass(frozen=True)
class Selector:
    """Which board to use: the one on port `path`, the one with serial number `serial`, or the only one.

    `mac` is its MAC address; only the chip's serial loader knows it, so `select` does not look at it.
    """

    path: str | None = None
    serial: str | None = None
    mac: str | None = None


def select(
    bus: Bus,
    target: Target,
    selector: Selector,
    targets: Sequence[Target],
    *,
    clock: Clock,
    wait: float = 0.0,
    on_event: EventSink = ignore,
    apps: bool = False,
) -> DfuInterface:
    """Choose the one board that fits, waiting up to `wait` seconds for it.

    A board that shows the ROM goes before all apps, unless the selector names an app.

    Args:
        bus: Bus to scan.
        target: Chip that the board must have.
        selector: Which of these boards.
        targets: All known chips, to describe other devices in errors.
        clock: Time.
        wait: Seconds.
        on_event: Receives `Waiting` while no board fits.
        apps: Include apps, as in `find_boards`; those of other vendors only by their port.

    Raises:
        DeviceNotFoundError: No board fits; the subclass and the notes say what was found instead.
        SeveralDevicesError: More than one board fits.
        UsageError: Several boards have this serial number.
    """
    deadline = Deadline(clock, wait)
    while True:
        left = deadline.left  # before the scan, so that the first event says the whole of `wait`
        try:
            return _select_now(bus, target, selector, targets, apps=apps)
        except DeviceNotFoundError:
            if deadline.left <= 0:
                raise
            on_event(Waiting(left))
            deadline.sleep(SCAN_INTERVAL)


def _select_now(bus: Bus, target: Target, selector: Selector, targets: Sequence[Target], *, apps: bool) -> DfuInterface:
    named = () if selector.path is None else (selector.path,)
    found = find_boards(bus, target, targets, apps=apps, paths=named)
    if selector.path is not None:
        chosen = [interface for interface in found if interface.path == selector.path]
    elif selector.serial is not None:
        chosen = _with_serial(found, selector.serial)
        if len(chosen) > 1:
            raise UsageError(
                f"{len(chosen)} boards have the serial number {selector.serial!r}: "
                f"{', '.join(interface.path for interface in chosen)}. Choose one by its port: --path {chosen[0].path}"
            )
    else:
        chosen = [interface for interface in found if interface.is_rom_of(target)] or found
    if len(chosen) == 1:
        return chosen[0]
    if chosen:
        paths = [interface.path for interface in chosen]
        message = f"Found {len(paths)} {target.chip} boards: {', '.join(paths)}."
        if not chosen[0].is_rom_of(target):
            ids = ", ".join(f"{interface.path} ({interface.device.usb_id})" for interface in chosen)
            message = f"Found {len(paths)} apps that may run on an {target.chip}: {ids}."
        raise SeveralDevicesError(message, paths=paths)
    raise not_found(bus, target, selector, targets, found, apps=apps and selector == Selector())


def _with_serial(found: Sequence[DfuInterface], serial: str) -> list[DfuInterface]:
    """Return the boards with this serial number; if none has it, raise the error of one that could not be read."""
    chosen: list[DfuInterface] = []
    problem: UsbError | None = None
    for interface in found:
        try:
            found_serial = interface.read_serial()
        except UsbError as error:
            problem = error
        else:
            if found_serial is not None and is_same_serial(found_serial, serial):
                chosen.append(interface)
    if not chosen and problem is not None:
        problem.notes += (f"Its serial number could not be read, so it may be the board with {serial}.",)
        raise problem
    return chosen


def not_found(
    bus: Bus,
    target: Target,
    selector: Selector,
    targets: Sequence[Target],
    found: Sequence[DfuInterface],
    *,
    apps: bool = False,
) -> DeviceNotFoundError:
    """Return the error for a board that was not found; its class and notes say which devices were found instead.

    Args:
        bus: Bus that was scanned.
        target: Chip that the board must have.
        selector: Which of these boards.
        targets: All known chips, to describe other devices.
        found: Connected boards with this chip.
        apps: An app of another vendor would be asked if its port were named.
    """
    where = ""
    if selector.path is not None:
        where = f" on port {selector.path}"
    elif selector.serial is not None:
        where = f" with serial number {selector.serial}"
    vids = frozenset(t.usb.vid for t in targets) | {target.usb.vid}
    everything = bus.scan()
    of_vendor = [device for device in everything if device.vid in vids]
    foreign_dfu = [device for device in everything if device.vid not in vids and dfu_interfaces(device)]
    notes = describe_all([*of_vendor, *foreign_dfu], targets, target)
    in_place = [device for device in of_vendor if selector.path in (None, device.path)]
    if selector.serial is not None and found:
        kind: type[DeviceNotFoundError] = OtherSerialError
    elif in_place:
        kind = not_found_kind(in_place, targets, target)
    elif of_vendor:
        kind = OtherPathError
    else:
        kind = DeviceNotFoundError
        count, plural = len(everything), "" if len(everything) == 1 else "s"
        counted = f"Found {count} other USB device{plural} (including hubs), none of them from the chip's vendor."
        notes = [counted, *notes]
        if not everything:
            notes = ["libusb sees no USB devices, not even a hub."]
    error = kind(f"No {target.chip} ({target.usb_id}) found{where}.", notes=notes)
    error.apps = [device.path for device in foreign_dfu if apps and is_app(device, targets)]
    return error


def not_found_kind(
    devices: Sequence[UsbDevice], targets: Sequence[Target], wanted: Target | None = None
) -> type[DeviceNotFoundError]:
    """Return the error class that says most about devices that are not the ROM of the right chip, `wanted`."""
    if any(dfu_interfaces(d) and find_target_by_usb_id(d.vid, d.pid, targets) for d in devices):
        return OtherChipError
    unknown = [device for device in devices if other_usb(device, targets) is None]
    if any(device.interfaces for device in unknown):
        return AppRunningError
    if unknown:
        return UnreadableDeviceError
    return OtherUsbError if any(_may_show(device, wanted) for device in devices) else OtherChipError


def other_usb(device: UsbDevice, targets: Sequence[Target]) -> OtherUsb | None:
    """Return what a chip's YAML file says about a device that is not its ROM, or None."""
    others = (other for target in targets for other in target.other_usb)
    return next((other for other in others if (device.vid, device.pid) == (other.vid, other.pid)), None)


def _may_show(device: UsbDevice, wanted: Target | None) -> bool:
    """Return whether a chip may show this device, which is one of the chips' other USB devices."""
    return wanted is None or other_usb(device, [wanted]) is not None


def describe(device: UsbDevice, targets: Sequence[Target], wanted: Target | None = None) -> str:
    """Return a few words on a device, from its IDs and interfaces alone; `wanted` is the chip that is looked for."""
    interfaces = dfu_interfaces(device)
    if interfaces:
        return f"{device.usb_id}, {_describe_dfu(device, interfaces[0].mode, targets)}"
    other = other_usb(device, targets)
    if other is not None and wanted is not None and not _may_show(device, wanted):
        return f"{device.usb_id}, {other.name}: another chip, because an {wanted.chip} has none"
    if other is not None:
        return f"{device.usb_id}, {other.name}: {other.meaning}"
    if not device.interfaces:
        return f"{device.usb_id}, its descriptors could not be read"
    return f"{device.usb_id}, no DFU interface: an app that uses USB for something else"


def _describe_dfu(device: UsbDevice, mode: Mode, targets: Sequence[Target]) -> str:
    target = find_target_by_usb_id(device.vid, device.pid, targets)
    if target is not None:
        return f"{target.chip} with DFU in {mode} mode"
    if has_rom_id(device, targets):
        return f"an unknown chip with DFU in {mode} mode"
    ours = any(device.vid == target.usb.vid for target in targets)
    what = "an app" if ours else "an app or device of another vendor"
    if mode is Mode.DFU:
        return f"{what} with DFU of its own in DFU mode: it takes app .bin files at most, not dfu.bin"
    condition = "" if ours else ", if --path names it"
    return f"{what} with DFU in run-time mode: a flash asks it to enter download mode{condition}"


def describe_all(devices: Sequence[UsbDevice], targets: Sequence[Target], wanted: Target | None = None) -> list[str]:
    """Return a line for each device: its port and what it is; `wanted` is the chip that is looked for."""
    return [f"Found on port {device.path}: {describe(device, targets, wanted)}." for device in devices]


def device_at(bus: Bus, path: str) -> UsbDevice | None:
    """Return the device that is on a port now, or None; errors are those of Bus.scan."""
    return next(iter(bus.scan(path=path)), None)
