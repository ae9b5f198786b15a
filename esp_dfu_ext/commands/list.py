"""`dfu-list`: list connected devices."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from ..dfu.spec import Mode
from ..errors import DeviceNotFoundError, EspDfuError
from ..operations import list as operation
from ..operations.acquaint import known_mac
from ..operations.info import BoardInfo, ask_board
from ..operations.list import ListedDevice
from ..ui import documents
from ..ui.console import Console
from .info import board_document, flash_size_of, revision_of
from .session import Explained, Session


def list_devices(session: Session, *, as_json: bool = False, style: str | None = None, probe: bool = False) -> int:
    """List boards on stdout, and print everything else that people need to know to stderr.

    Args:
        session: State of this invocation.
        as_json: Print a JSON document instead.
        style: ``table`` for people, ``dfu-util`` for programs; None for a table in a terminal, else dfu-util's lines.
        probe: Ask each board that can be opened who it is; it stays in the mode that it is in.
    """
    targets = session.targets()
    found = operation.list_devices(session.open_bus(session.make_simulation(targets)), targets)
    boards = [listed for listed in found if listed.is_chip]
    asked = {listed.device.path: ask_board(listed, session.clock) for listed in boards} if probe else {}
    if as_json:
        session.console.data(documents.to_json(_document(found, asked)))
        return 0
    console = session.console.on_stderr()
    in_table = (style or ("table" if _in_terminal() else "dfu-util")) == "table"
    if in_table:
        _table(session.console, boards, asked)
    else:
        for listed in found:
            for number in range(len(listed.interfaces)):
                session.console.data(dfu_util_line(listed, number))
    problems = {listed.device.path: listed.problem or _problem(asked, listed) for listed in boards}
    for listed in found:
        problem = problems.get(listed.device.path)
        if not listed.is_chip:
            console.info(f"Port {listed.device.path}: {listed.description}{_name(listed)}.")
        elif problem is not None:
            console.info(problem.message)
        elif probe and not in_table:
            console.info(_identity(asked[listed.device.path]))
    for listed in boards:
        problem = problems[listed.device.path]
        if problem is not None:
            _explain(console, session.explained(problem, listed.target))
    if not boards:
        missing = DeviceNotFoundError(f"No board with DFU found ({', '.join(t.chip for t in targets)}).")
        console.info(missing.message)
        _explain(console, session.explained(missing, None, targets))
    return 0


def _in_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def _problem(asked: Mapping[str, BoardInfo], listed: ListedDevice) -> EspDfuError | None:
    return asked[listed.device.path].problem if listed.device.path in asked else None


def _identity(board: BoardInfo) -> str:
    assert board.identity is not None  # without a problem
    who = board.identity
    return (
        f"Port {board.path}: {board.target.chip} {revision_of(board)}, MAC {who.mac}, "
        f"{flash_size_of(who)} of flash memory."
    )


def _table(console: Console, boards: Sequence[ListedDevice], asked: Mapping[str, BoardInfo]) -> None:
    if asked:
        rows = [_probed_row(board) for board in asked.values()]
        console.table(["Port", "Chip", "Mode", "MAC address", "Flash"], rows)
        return
    rows = [
        (listed.device.path, listed.target.chip, str(listed.interfaces[0].mode), _serial(listed))
        for listed in boards
        if listed.target is not None
    ]
    if rows:
        console.table(["Port", "Chip", "Mode", "Serial number"], rows)


def _probed_row(board: BoardInfo) -> tuple[str, ...]:
    chip = " ".join(filter(None, (board.target.chip, revision_of(board))))
    mac = known_mac(board.target, board.serial, board.identity) or "unknown"
    size = flash_size_of(board.identity) if board.identity is not None else "unknown"
    return board.path, chip, str(board.mode), mac, size


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


def _document(found: Sequence[ListedDevice], asked: Mapping[str, BoardInfo]) -> documents.DeviceList:
    return documents.DeviceList(devices=[_document_device(listed, asked) for listed in found])


def _document_device(listed: ListedDevice, asked: Mapping[str, BoardInfo]) -> documents.Device:
    device, problem, board = listed.device, listed.problem, asked.get(listed.device.path)
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
        board=board_document(board) if board is not None else None,
    )
