"""The part of a diagnosis that belongs to one error: what a command that failed ends with."""

from __future__ import annotations

from collections.abc import Sequence

from ..dfu.spec import INTERFACE_CLASS, INTERFACE_SUBCLASS
from ..errors import (
    AccessDeniedError,
    DeviceBusyError,
    DeviceNotFoundError,
    EspDfuError,
    OtherPathError,
    OtherSerialError,
    ReenumerationError,
    UdevError,
    UsbError,
    UsbUnavailableError,
)
from ..linux.machine import Machine
from ..target import Target
from . import environment, permission
from .facts import Fact, State


def explain(error: EspDfuError, targets: Sequence[Target], machine: Machine | None = None) -> list[Fact]:
    """What this machine shows about an error; nothing where nothing is seen, and outside Linux."""
    machine = machine or Machine()
    if not machine.linux:
        return []
    try:
        return _explain(error, targets, machine)
    except OSError:
        return []  # the error itself still has to be shown


def _explain(error: EspDfuError, targets: Sequence[Target], machine: Machine) -> list[Fact]:
    # Of several boards only the one that failed explains the error.
    port = error.path if isinstance(error, UsbError) else None
    boards = [node for node in permission.boards(machine, targets) if port in (None, node.path)]
    if isinstance(error, UdevError):
        return permission.without_udev(machine)
    if isinstance(error, AccessDeniedError):
        return [fact for node in boards for fact in permission.refused(machine, node)]
    if isinstance(error, DeviceBusyError):
        dfu = (INTERFACE_CLASS, INTERFACE_SUBCLASS)
        interfaces = [(node, number) for node in boards for number, kind in node.classes.items() if kind == dfu]
        return [fact for node, number in interfaces for fact in permission.held(machine, node, number)]
    if isinstance(error, (OtherPathError, OtherSerialError)):
        return []
    if isinstance(error, DeviceNotFoundError):
        return [*_system(machine), *permission.bridges(machine, targets)]
    if isinstance(error, UsbUnavailableError) and error.missing:
        return []
    return _system(machine) if isinstance(error, (UsbUnavailableError, ReenumerationError)) else []


def _system(machine: Machine) -> list[Fact]:
    return [fact for fact in environment.system(machine) if fact.state is State.PROBLEM]
