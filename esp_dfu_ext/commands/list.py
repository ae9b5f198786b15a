"""`dfu-list`: list connected devices."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..dfu.spec import Mode
from ..errors import DeviceNotFoundError
from ..operations import list as operation
from ..operations.list import ListedDevice
from ..ui import documents
from ..ui.console import Console
from .session import Explained, Session


def list_devices(session: Session, *, as_json: bool = False, style: str | None = None) -> int:
    """List boards on stdout, and print everything else that people need to know to stderr.

    Args:
        session: State of this invocation.
        as_json: Print a JSON document instead.
        style: ``table`` for people, ``dfu-util`` for programs; None for a table in a terminal, else dfu-util's lines.
    """
    targets = session.targets()
    found = operation.list_devices(session.open_bus(session.make_simulation(targets)), targets)
    if as_json:
        session.console.data(documents.to_json(_document(found)))
        return 0
    console = session.console.on_stderr()
    if (style or ("table" if _in_terminal() else "dfu-util")) == "table":
        _table(session.console, [listed for listed in found if listed.is_chip])
    else:
        for listed in found:
            for number in range(len(listed.interfaces)):
                session.console.data(dfu_util_line(listed, number))
    for listed in found:
        if not listed.is_chip:
            console.info(f"Port {listed.device.path}: {listed.description}{_name(listed)}.")
        elif listed.problem is not None:
            console.info(listed.problem.message)
    for listed in found:
        if listed.is_chip and listed.problem is not None:
            _explain(console, session.explained(listed.problem, listed.target))
    if not any(listed.is_chip for listed in found):
        missing = DeviceNotFoundError(f"No board with DFU found ({', '.join(t.chip for t in targets)}).")
        console.info(missing.message)
        _explain(console, session.explained(missing, None, targets))
    return 0


def _in_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def _table(console: Console, boards: Sequence[ListedDevice]) -> None:
    rows = [
        (listed.device.path, listed.target.chip, str(listed.interfaces[0].mode), _serial(listed))
        for listed in boards
        if listed.target is not None
    ]
    if rows:
        console.table(["Port", "Chip", "Mode", "Serial number"], rows)


def _serial(listed: ListedDevice) -> str:
    serial = listed.serial or ("cannot be read" if listed.problem is not None else "none")
    shared = listed.target is not None and listed.target.usb.serial == "fixed" and listed.serial is not None
    return f"{serial} (the same on every board; use the port)" if shared else serial


def _name(listed: ListedDevice) -> str:
    """Return the name that a device gives itself; it may be anything."""
    return f" (it calls itself {listed.product!r})" if listed.product else ""


def _explain(console: Console, below: Explained) -> None:
    for note in below.notes:
        console.info(f"  {note}")
    for line in below.advice:
        console.advice(line)


def dfu_util_line(listed: ListedDevice, number: int) -> str:
    """Return the line that dfu-util 0.11 prints for an interface."""
    interface, device = listed.interfaces[number], listed.device
    found = "DFU" if interface.mode is Mode.DFU else "Runtime"
    descriptor = interface.descriptor
    return (
        f"Found {found}: [{device.usb_id}] ver={device.bcd_device:04x}, devnum={device.address}, "
        f"cfg={descriptor.configuration}, intf={descriptor.number}, "
        f'path="{device.path}", alt={descriptor.alternate}, '
        f'name="{_quotable(listed.names[number])}", serial="{_quotable(listed.serial)}"'
    )


def _quotable(text: str | None) -> str:
    """Return a string descriptor without quotes, which could forge the rest of the line."""
    return (text or "UNKNOWN").replace('"', "?")


def _document(found: Sequence[ListedDevice]) -> documents.DeviceList:
    return documents.DeviceList(devices=[_document_device(listed) for listed in found])


def _document_device(listed: ListedDevice) -> documents.Device:
    device, problem = listed.device, listed.problem
    return documents.Device(
        path=device.path,
        vid=f"{device.vid:04x}",
        pid=f"{device.pid:04x}",
        bcd_device=f"{device.bcd_device:04x}",
        devnum=device.address,
        serial=listed.serial,
        product=listed.product,
        target=listed.target.name if listed.target is not None and listed.is_chip else None,
        description=listed.description,
        problem=documents.Problem(code=problem.code, message=problem.message) if problem is not None else None,
        interfaces=[
            documents.Interface(
                mode="dfu" if interface.mode is Mode.DFU else "run-time",
                configuration=interface.descriptor.configuration,
                interface=interface.descriptor.number,
                alternate=interface.descriptor.alternate,
                name=name,
            )
            for interface, name in zip(listed.interfaces, listed.names)
        ],
    )
