"""The findings that explain one error; they are shown below it."""

from __future__ import annotations

from collections.abc import Sequence

from ..dfu.spec import INTERFACE_CLASS, INTERFACE_SUBCLASS
from ..errors import (
    AccessDeniedError,
    DeviceBusyError,
    DeviceNotFoundError,
    DriverMissingError,
    EspDfuError,
    NoSerialPortError,
    OtherPathError,
    OtherSerialError,
    ReenumerationError,
    SerialPortError,
    UdevError,
    UsbError,
    UsbUnavailableError,
)
from ..linux.machine import Machine
from ..target import Target
from . import environment, permission
from .findings import Finding, Level


def explain(error: EspDfuError, targets: Sequence[Target], machine: Machine | None = None) -> list[Finding]:
    """Return what this machine shows about an error; outside Linux, that is at most the board's serial port.

    Args:
        error: The error to explain.
        targets: The chips it may be about.
        machine: The machine, or None for this one.
    """
    machine = machine or Machine()
    try:
        found = _explain(error, targets, machine) if machine.linux else []
        if isinstance(error, (AccessDeniedError, DriverMissingError)) and error.path is not None:
            found += permission.serial_port(machine, targets, error.path)
        return found
    except OSError:
        return []  # the error itself must still be shown


def _explain(error: EspDfuError, targets: Sequence[Target], machine: Machine) -> list[Finding]:
    # Of several boards, only the one that failed explains the error.
    port = error.path if isinstance(error, UsbError) else None
    boards = [node for node in permission.boards(machine, targets) if port in (None, node.path)]
    if isinstance(error, SerialPortError):
        return permission.port_held(machine, error.port) if error.reason == "busy" else []
    if isinstance(error, UdevError):
        return permission.without_udev(machine)
    if isinstance(error, AccessDeniedError):
        return [finding for node in boards for finding in permission.refused(machine, node)]
    if isinstance(error, DeviceBusyError):
        dfu = (INTERFACE_CLASS, INTERFACE_SUBCLASS)
        interfaces = [(node, number) for node in boards for number, kind in node.classes.items() if kind == dfu]
        return [finding for node, number in interfaces for finding in permission.held(machine, node, number)]
    if isinstance(error, (OtherPathError, OtherSerialError, NoSerialPortError)):
        return []
    if isinstance(error, DeviceNotFoundError):
        return [*_system(machine), *permission.bridges(machine, targets)]
    if isinstance(error, UsbUnavailableError) and error.missing:
        return []
    return _system(machine) if isinstance(error, (UsbUnavailableError, ReenumerationError)) else []


def _system(machine: Machine) -> list[Finding]:
    return [finding for finding in environment.system(machine) if finding.level is Level.PROBLEM]
