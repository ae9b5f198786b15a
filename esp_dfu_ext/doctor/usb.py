"""Checks of pyusb, libusb, the bus, and every device of the chips' vendors on it."""

from __future__ import annotations

import ctypes
import importlib.metadata
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..clock import VirtualClock
from ..dfu.discovery import Selector, describe, is_app, not_found_kind, select
from ..errors import (
    AccessDeniedError,
    DeviceNotFoundError,
    DriverMissingError,
    SeveralDevicesError,
    UsbError,
    UsbUnavailableError,
)
from ..linux.machine import Machine
from ..operations.list import ListedDevice, list_devices
from ..target import Target
from ..usb.bus import Bus
from ..usb.libusb import libusb_backend
from .findings import Finding, not_applicable, ok, problem, raised
from .permission import held, node_of, refused, serial_port


def library(machine: Machine) -> list[Finding]:
    """Check the packages and the library that every scan needs, and report their versions."""
    try:
        backend = libusb_backend()
    except UsbUnavailableError as error:
        if error.missing == "pyusb":
            return [raised("pyusb", error)]
        return [_pyusb(), raised("libusb", error)]
    except UsbError as error:
        return [_pyusb(), raised("libusb", error)]
    file, version = _file(machine, backend.lib), _libusb_version(backend.lib)
    return [_pyusb(), ok("libusb", f"{version}, {file}", version=version, file=file)]


def _pyusb() -> Finding:
    try:
        return ok("pyusb", importlib.metadata.version("pyusb"))
    except importlib.metadata.PackageNotFoundError:
        return ok("pyusb", "unknown version")


class _LibusbVersion(ctypes.Structure):
    """struct libusb_version of libusb.h."""

    _fields_ = (
        *((name, ctypes.c_uint16) for name in ("major", "minor", "micro", "nano")),
        ("rc", ctypes.c_char_p),
        ("describe", ctypes.c_char_p),
    )


def _libusb_version(loaded: Any) -> str:
    try:
        function = ctypes.CDLL(loaded._name, handle=loaded._handle).libusb_get_version
    except AttributeError:
        return "older than 1.0.10"  # the first with this function
    function.restype = ctypes.POINTER(_LibusbVersion)
    version = function().contents
    return f"{version.major}.{version.minor}.{version.micro}"


def _file(machine: Machine, loaded: Any) -> str:
    """Return the path of a loaded library; for a bare name, search the files mapped into this process."""
    name = str(loaded._name)
    if Path(name).is_absolute():
        return name
    mapped = re.search(rf"\S*/{re.escape(name)}\S*$", machine.read("/proc/self/maps"), re.MULTILINE)
    return mapped[0] if mapped else name


def devices(
    machine: Machine, targets: Sequence[Target], wanted: Target | None, bus: Bus, *, simulated: bool
) -> list[Finding]:
    """Check the bus and what is connected to it.

    Args:
        machine: The machine, for what the kernel says about the devices.
        targets: All known chips.
        wanted: The project's chip, or None without a project.
        bus: Where to look for boards.
        simulated: The boards are simulated, so the kernel does not know them.
    """
    try:
        everything = bus.scan()
        listed = list_devices(bus, targets)
    except (UsbUnavailableError, UsbError) as error:
        return [raised("bus", error)]
    if not everything and not simulated:
        return [problem("bus", "no-usb", "libusb sees no USB devices, not even a hub")]
    word = "simulated devices" if simulated else "USB devices, including hubs"
    findings = [ok("bus", f"{word}: {len(everything)}", devices=len(everything))]
    for device in listed:
        findings += _device(machine, device, describe(device.device, targets, wanted), targets, simulated=simulated)
    return [*findings, *_board(bus, targets, wanted, listed)]


def _is_app(listed: ListedDevice, targets: Sequence[Target]) -> bool:
    """Return whether a flash asks this app, which is of a chip's vendor, to hand over to the ROM."""
    return is_app(listed.device, targets) and listed.device.vid in {target.usb.vid for target in targets}


def _device(
    machine: Machine, listed: ListedDevice, text: str, targets: Sequence[Target], *, simulated: bool
) -> list[Finding]:
    flashable = listed.is_chip or _is_app(listed, targets)
    topic = f"port {listed.device.path}"
    data: dict[str, Any] = {"usb_id": listed.device.usb_id, "serial": listed.serial}
    if listed.is_chip:
        data |= {"target": listed.target and listed.target.name, "mode": str(listed.interfaces[0].mode)}
    problems: list[Finding] = []
    node = None if simulated else node_of(machine, listed.device.path)
    if node is not None:
        drivers = sorted(node.drivers.items())
        data |= {"node": node.device_file, "drivers": {str(number): name for number, name in drivers}}
        access = machine.access(node.device_file)
        text += f"; {node.device_file}{f' is {access}' if access is not None else ''}"
        text += "".join(f", interface {number}: {name}" for number, name in drivers)
        if flashable:
            problems = refused(machine, node) or held(machine, node, listed.interfaces[0].descriptor.number)
    if listed.is_chip:
        text += _windows_driver(machine, listed, data)
    if flashable and listed.problem is not None and not problems:
        problems = [raised(topic, listed.problem)]
    if not flashable:
        return [not_applicable(topic, text, **data)]
    if not simulated and isinstance(listed.problem, (AccessDeniedError, DriverMissingError)):
        problems += serial_port(machine, [listed.target] if listed.target is not None else [], listed.device.path)
    return [(not_applicable if problems else ok)(topic, text, **data), *problems]


_SHORT = ("libusbK", "libusb0")  # drivers of libusbK's project, whose control transfers end after 5 s (its issue 47)


def _windows_driver(machine: Machine, listed: ListedDevice, data: dict[str, Any]) -> str:
    """Return which driver Windows has for the DFU interface, and add it to the finding's data; empty elsewhere."""
    number = listed.interfaces[0].descriptor.number
    names = machine.usb_services(listed.device.vid, listed.device.pid, number)
    if not names:
        return ""
    data["drivers"] = {str(number): " or ".join(names)}
    slow = ", which is said to end transfers after 5 s, too soon for a long erase" if set(names) & set(_SHORT) else ""
    return f"; interface {number}: {' or '.join(names)}{slow}"


def _board(bus: Bus, targets: Sequence[Target], wanted: Target | None, listed: Sequence[ListedDevice]) -> list[Finding]:
    """Check that a flash would find its board."""
    if wanted is None:
        paths = [device.device.path for device in listed if device.is_chip or _is_app(device, targets)]
        if paths:
            return [ok("board", _found_on(paths), paths=paths)]
        vids = {target.usb.vid for target in targets}
        of_vendor = [device.device for device in listed if device.device.vid in vids]
        code = (not_found_kind(of_vendor, targets) if of_vendor else DeviceNotFoundError).code
        return [problem("board", code, f"none found in download mode ({', '.join(target.chip for target in targets)})")]
    try:
        board = select(bus, wanted, Selector(), targets, clock=VirtualClock(), apps=True)
    except DeviceNotFoundError as error:
        others = [note for note in error.notes if not note.startswith("Found on port")]  # these have findings already
        return [problem("board", error.code, " ".join([error.message, *others]))]
    except SeveralDevicesError as error:
        return [ok("board", _found_on(error.paths), paths=list(error.paths))]
    path = board.path
    what = f"the only {wanted.chip}" if board.is_rom_of(wanted) else "an app; the flash sees which chip runs it"
    return [ok("board", f"{_found_on([path])}, {what}", paths=[path])]


def _found_on(paths: Sequence[str]) -> str:
    return f"found on port{'s' if len(paths) > 1 else ''} {', '.join(paths)}"
