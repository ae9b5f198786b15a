"""`dfu-list`: list connected devices."""

from __future__ import annotations

from collections.abc import Sequence

from ..dfu.spec import Mode
from ..errors import DeviceNotFoundError
from ..operations import list as operation
from ..operations.list import ListedDevice
from ..ui import documents
from ..ui.console import Console
from .session import Explained, Session


def list_devices(session: Session, *, as_json: bool = False) -> int:
    """Print dfu-util's lines to stdout, and everything else that people need to know to stderr."""
    targets = session.targets()
    found = operation.list_devices(session.open_bus(session.make_simulation(targets)), targets)
    if as_json:
        session.console.data(documents.to_json(_document(found)))
        return 0
    for listed in found:
        for number in range(len(listed.interfaces)):
            session.console.data(dfu_util_line(listed, number))
    console = session.console.on_stderr()
    for listed in found:
        if not listed.interfaces:
            console.info(f"Port {listed.device.path}: {listed.description}.")
        if listed.problem is not None:
            console.info(listed.problem.message)
    for listed in found:
        if listed.problem is not None:
            _explain(console, session.explained(listed.problem, listed.target))
    if not any(listed.interfaces for listed in found):
        missing = DeviceNotFoundError(f"No board with DFU found ({', '.join(t.chip for t in targets)}).")
        console.info(missing.message)
        _explain(console, session.explained(missing, None, targets))
    return 0


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
        target=listed.target.name if listed.target is not None and listed.interfaces else None,
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
