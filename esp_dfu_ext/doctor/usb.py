"""pyusb, libusb, the bus, and every device of the chips' vendors on it."""

from __future__ import annotations

import ctypes
import importlib.metadata
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..clock import VirtualClock
from ..dfu.discovery import Selector, seen_instead, select
from ..errors import DeviceNotFoundError, SeveralDevicesError, UsbError, UsbUnavailableError
from ..linux.machine import Machine
from ..operations.list import ListedDevice, list_devices
from ..target import Target
from ..usb.bus import Bus
from ..usb.libusb import libusb_backend
from .facts import Fact, not_applicable, ok, problem
from .permission import held, node_of, refused


def library(machine: Machine) -> list[Fact]:
    """The packages and the library that every scan needs; which file, which version."""
    try:
        backend = libusb_backend()
    except UsbUnavailableError as error:
        known = [ok("pyusb", _version("pyusb"))] if error.missing != "pyusb" else []
        topic = error.missing or "libusb"
        return [*known, problem(topic, error.code, error.message, missing=error.missing)]
    except UsbError as error:
        return [ok("pyusb", _version("pyusb")), problem("libusb", error.code, error.message)]
    file, version = _file(machine, backend.lib), _libusb_version(backend.lib)
    return [ok("pyusb", _version("pyusb")), ok("libusb", f"{version}, {file}", version=version, file=file)]


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


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
        return "older than 1.0.10"  # the first that has it
    function.restype = ctypes.POINTER(_LibusbVersion)
    version = function().contents
    return f"{version.major}.{version.minor}.{version.micro}"


def _file(machine: Machine, loaded: Any) -> str:
    """Where a loaded library lies; a bare name is looked up among the files this process has mapped."""
    name = str(loaded._name)
    if Path(name).is_absolute():
        return name
    mapped = re.search(rf"\S*/{re.escape(name)}\S*$", machine.read("/proc/self/maps"), re.MULTILINE)
    return mapped[0] if mapped else name


def bus(machine: Machine, targets: Sequence[Target], wanted: Target | None, on: Bus, *, simulated: bool) -> list[Fact]:
    """The bus and what is on it.

    Args:
        machine: this one.
        targets: all chips that are known.
        wanted: the project's chip, None without a project.
        on: the bus.
        simulated: its boards are, so that the machine knows nothing of them.
    """
    try:
        everything = on.scan()
        listed = list_devices(on, targets)
    except (UsbUnavailableError, UsbError) as error:
        return [problem("bus", error.code, error.message, missing=getattr(error, "missing", ""))]
    if not everything and not simulated:
        return [problem("bus", "no-usb", "there is not one USB device on this machine, not even a hub")]
    word = "simulated devices" if simulated else "USB devices, hubs included"
    facts = [ok("bus", f"{word}: {len(everything)}", devices=len(everything))]
    for device in listed:
        facts += _device(machine, device, simulated=simulated)
    return [*facts, *_board(on, targets, wanted, listed)]


def _device(machine: Machine, listed: ListedDevice, *, simulated: bool) -> list[Fact]:
    topic = f"port {listed.device.path}"
    data: dict[str, Any] = {"usb_id": listed.device.usb_id, "serial": listed.serial}
    is_chip = listed.target is not None and bool(listed.interfaces)
    if is_chip:
        data |= {"target": listed.target and listed.target.name, "mode": str(listed.interfaces[0].mode)}
    problems: list[Fact] = []
    node = None if simulated else node_of(machine, listed.device.path)
    text = listed.description
    if node is not None:
        data |= {"node": node.node, "drivers": {str(number): name for number, name in sorted(node.drivers.items())}}
        access = machine.access(node.node)
        text += f"; {node.node}{f' is {access}' if access is not None else ''}"
        text += "".join(f", interface {number}: {name}" for number, name in sorted(node.drivers.items()))
        if is_chip:
            problems = refused(machine, node) or held(machine, node, listed.interfaces[0].descriptor.number)
    if listed.problem is not None and not problems:
        problems = [problem(topic, listed.problem.code, listed.problem.message)]
    if not is_chip:
        return [not_applicable(topic, text, **data)]
    return [(not_applicable if problems else ok)(topic, text, **data), *problems]


def _board(on: Bus, targets: Sequence[Target], wanted: Target | None, listed: Sequence[ListedDevice]) -> list[Fact]:
    """Whether a flash would find its board."""
    if wanted is None:
        paths = [device.device.path for device in listed if device.target is not None and device.interfaces]
        if paths:
            return [ok("board", f"found on port {', '.join(paths)}", paths=paths)]
        code = (seen_instead([device.device for device in listed], targets) if listed else DeviceNotFoundError).code
        return [problem("board", code, f"none in download mode ({', '.join(target.chip for target in targets)})")]
    try:
        path = select(on, wanted, Selector(), targets, clock=VirtualClock()).path
    except DeviceNotFoundError as error:
        return [problem("board", error.code, " ".join([error.message, *error.notes]))]
    except SeveralDevicesError as error:
        return [ok("board", error.message.rstrip("."), paths=list(error.paths))]
    return [ok("board", f"found on port {path}, the only {wanted.chip}", paths=[path])]
