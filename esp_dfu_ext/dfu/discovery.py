"""DFU interfaces among the devices of a bus: finding and choosing one, and saying what is there instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..clock import Clock
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

SCAN_INTERVAL = 0.05  # seconds between two looks at the bus


@dataclass(frozen=True)
class DfuInterface:
    """A DFU interface of a device.

    Attributes:
        device: as the scan saw it.
        descriptor: of the interface.
        mode: run-time or DFU.
        functional: its DFU functional descriptor, None if it has none (the standard demands one).
    """

    device: UsbDevice
    descriptor: InterfaceDescriptor
    mode: Mode
    functional: FunctionalDescriptor | None

    @property
    def path(self) -> str:
        """``bus-port.port`` of its device."""
        return self.device.path

    def read_serial(self) -> str | None:
        """The device's serial number, None if it has none; errors of UsbDevice.read_string."""
        return self.device.read_string(self.device.serial_index)


def dfu_interfaces(device: UsbDevice) -> list[DfuInterface]:
    """The device's DFU interfaces, one for each alternate setting."""
    return [
        DfuInterface(device, interface, Mode(interface.protocol), FunctionalDescriptor.find(interface.extra))
        for interface in device.interfaces
        if interface.class_ == INTERFACE_CLASS
        and interface.subclass == INTERFACE_SUBCLASS
        and interface.protocol in Mode.__members__.values()
    ]


def find(bus: Bus, target: Target) -> list[DfuInterface]:
    """One DFU interface for each board of this chip that is there now."""
    return [
        interfaces[0]
        for device in bus.scan(frozenset([target.usb.vid]))
        if device.pid == target.usb.pid and (interfaces := dfu_interfaces(device))
    ]


@dataclass(frozen=True)
class Selector:
    """Which board is meant: that on `path`, or that with `serial`, or the only one there is."""

    path: str | None = None
    serial: str | None = None


def select(
    bus: Bus,
    target: Target,
    selector: Selector,
    targets: Sequence[Target],
    *,
    clock: Clock,
    wait: float = 0.0,
    on_event: EventSink = ignore,
) -> DfuInterface:
    """Choose the one board that is meant, waiting up to `wait` seconds until it is there.

    Args:
        bus: where to look.
        target: the chip it must be.
        selector: which of them.
        targets: all chips that are known, to name what was seen instead.
        clock: time.
        wait: seconds.
        on_event: gets `Waiting` while nothing is there.

    Raises:
        DeviceNotFoundError: none fits; its class and `notes` say what was seen.
        SeveralDevicesError: more than one fits.
        UsageError: a serial number that several boards have.
    """
    deadline = clock.monotonic() + wait
    while True:
        try:
            return _select_now(bus, target, selector, targets)
        except DeviceNotFoundError:
            left = deadline - clock.monotonic()
            if left <= 0:
                raise
            on_event(Waiting(left))
            clock.sleep(min(SCAN_INTERVAL, left))


def _select_now(bus: Bus, target: Target, selector: Selector, targets: Sequence[Target]) -> DfuInterface:
    found = find(bus, target)
    if selector.path is not None:
        chosen = [interface for interface in found if interface.path == selector.path]
    elif selector.serial is not None:
        chosen = _with_serial(found, selector.serial)
        if len(chosen) > 1:
            raise UsageError(
                f"{len(chosen)} boards have the serial number {selector.serial!r}: "
                f"{', '.join(interface.path for interface in chosen)}. Only the path tells them apart."
            )
    else:
        chosen = found
    if len(chosen) == 1:
        return chosen[0]
    if chosen:
        paths = [interface.path for interface in chosen]
        message = f"{len(paths)} {target.chip} boards are there: {', '.join(paths)}."
        raise SeveralDevicesError(message, paths=paths)
    raise not_found(bus, target, selector, targets, found)


def _with_serial(found: Sequence[DfuInterface], serial: str) -> list[DfuInterface]:
    """Those that have this serial number; an error of one that could not be asked, if no other has it."""
    chosen: list[DfuInterface] = []
    problem: UsbError | None = None
    for interface in found:
        try:
            own = interface.read_serial()
        except UsbError as error:
            problem = error
        else:
            if own is not None and own.lower() == serial.lower():
                chosen.append(interface)
    if not chosen and problem is not None:
        problem.notes += (f"Whether it is the one with serial number {serial} cannot be read.",)
        raise problem
    return chosen


def not_found(
    bus: Bus, target: Target, selector: Selector, targets: Sequence[Target], found: Sequence[DfuInterface]
) -> DeviceNotFoundError:
    """The error that says what is there instead: its kind, and a line for each device that might explain it.

    Args:
        bus: where it was looked for.
        target: the chip it must be.
        selector: which of them.
        targets: all chips that are known, to name what is seen.
        found: the boards of this chip that are there.
    """
    wanted = f"{target.chip} ({target.usb_id})"
    if selector.path is not None:
        wanted += f" on port {selector.path}"
    elif selector.serial is not None:
        wanted += f" with serial number {selector.serial}"
    vids = frozenset(t.usb.vid for t in targets) | {target.usb.vid}
    everything = bus.scan()
    seen = [device for device in everything if device.vid in vids]
    notes = sightings(seen, targets)
    there = [device for device in seen if selector.path in (None, device.path)]
    if selector.serial is not None and found:
        kind: type[DeviceNotFoundError] = OtherSerialError
    elif there:
        kind = seen_instead(there, targets)
    elif seen:
        kind = OtherPathError
    else:
        kind = DeviceNotFoundError
        others = f"{len(everything)} other USB devices are" if len(everything) != 1 else "One other USB device is"
        notes = [f"{others} there, hubs included, and none of Espressif." if everything else "There is no USB device."]
    return kind(f"No {wanted} is there.", notes=notes)


def seen_instead(devices: Sequence[UsbDevice], targets: Sequence[Target]) -> type[DeviceNotFoundError]:
    """What devices that are not the right chip's ROM are; the one that says most comes first."""
    if any(dfu_interfaces(d) and find_target_by_usb_id(d.vid, d.pid, targets) for d in devices):
        return OtherChipError
    unknown = [device for device in devices if other_usb(device, targets) is None]
    if any(device.interfaces for device in unknown):
        return AppRunningError
    return UnreadableDeviceError if unknown else OtherUsbError


def other_usb(device: UsbDevice, targets: Sequence[Target]) -> OtherUsb | None:
    """What a chip's file says of a device that is not its ROM's; None if it says nothing."""
    known = (other for target in targets for other in target.other_usb)
    return next((other for other in known if (device.vid, device.pid) == (other.vid, other.pid)), None)


def describe(device: UsbDevice, targets: Sequence[Target]) -> str:
    """What a device is, in a few words, from its IDs and interfaces alone."""
    interfaces = dfu_interfaces(device)
    target = find_target_by_usb_id(device.vid, device.pid, targets)
    if interfaces:
        name = target.chip if target is not None else "an unknown chip"
        return f"{device.usb_id}, {name} with DFU in {interfaces[0].mode} mode"
    known = other_usb(device, targets)
    if known is not None:
        return f"{device.usb_id}, {known.name}: {known.meaning}"
    if not device.interfaces:
        return f"{device.usb_id}, its descriptors could not be read"
    return f"{device.usb_id}, no DFU interface: an app that uses USB for something else"


def sightings(devices: Sequence[UsbDevice], targets: Sequence[Target]) -> list[str]:
    """A line for each device: its port, and what it is."""
    return [f"Seen on port {device.path}: {describe(device, targets)}." for device in devices]


def device_at(bus: Bus, path: str) -> UsbDevice | None:
    """What is on a port now; None if nothing is. Errors of Bus.scan."""
    return next(iter(bus.scan(path=path)), None)
