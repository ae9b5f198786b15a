"""`info`: show everything that is known of the connected boards."""

from __future__ import annotations

from collections.abc import Sequence

from ..dfu.spec import Mode
from ..errors import DeviceNotFoundError, OtherPathError
from ..loader.rom_loader import Identity
from ..operations.info import BoardInfo, board_infos
from ..ui import documents
from ..units import format_size
from .flash_run import check_path
from .session import Session


def info(session: Session, paths: Sequence[str], *, as_json: bool = False) -> int:
    """Ask each board, or those on `paths`, who it is, and return the exit code of the first that cannot be asked.

    Args:
        session: State of this invocation.
        paths: Ports of the boards; all if empty.
        as_json: Print a JSON document instead.
    """
    for path in paths:
        check_path(path)
    targets = session.targets()
    bus = session.open_bus(session.make_simulation(targets))
    boards = list(board_infos(bus, targets, session.clock, paths))
    missing = [path for path in paths if path not in {board.path for board in boards}]
    if missing:
        raise OtherPathError(f"No board with DFU on port {missing[0]}.")
    if as_json:
        document = documents.BoardList(boards=[board_document(board) for board in boards])
        session.console.data(documents.to_json(document))
    elif not boards:
        raise DeviceNotFoundError(f"No board with DFU found ({', '.join(target.chip for target in targets)}).")
    else:
        for board in boards:
            session.console.table([f"Port {board.path}", board.target.chip], _rows(board))
    problems = [(board, board.problem) for board in boards if board.problem is not None]
    for board, problem in problems:
        session.target = board.target
        session.fail(problem)
    return problems[0][1].exit_code if problems else 0


def _rows(board: BoardInfo) -> list[tuple[str, str]]:
    rows = [("Mode", str(board.mode)), ("Serial number", board.serial or "none")]
    if board.identity is None:
        return rows
    who, security = board.identity, board.identity.security
    manufacturer, device = _jedec(who.flash_id)
    on = {True: "enabled", False: "disabled"}
    return [
        *rows,
        ("MAC address", who.mac),
        ("Revision", revision_of(board) or "unknown"),
        ("Flash memory", f"{flash_size_of(who)}, manufacturer {manufacturer}, device {device}"),
        ("Secure Boot", on[security.secure_boot]),
        ("Flash encryption", on[security.flash_encryption]),
    ]


def revision_of(board: BoardInfo) -> str | None:
    """Return the chip revision as ESP-IDF writes it, None if it is unknown."""
    return f"v{board.revision // 100}.{board.revision % 100}" if board.revision is not None else None


def flash_size_of(who: Identity) -> str:
    """Return the size of a board's flash memory, for people."""
    return format_size(who.flash_size) if who.flash_size is not None else "unknown size"


def _jedec(flash_id: int) -> tuple[str, str]:
    """Return manufacturer and device of a JEDEC ID in hexadecimal, as esptool prints them."""
    low, middle, high = flash_id.to_bytes(4, "little")[:3]
    return f"{low:02x}", f"{middle:02x}{high:02x}"


def board_document(board: BoardInfo) -> documents.KnownBoard:
    """Return what is known of a board as a part of a JSON document."""
    who, problem = board.identity, board.problem
    return documents.KnownBoard(
        path=board.path,
        target=board.target.name,
        mode="dfu" if board.mode is Mode.DFU else "run-time",
        serial=board.serial,
        mac=who.mac if who is not None else None,
        revision=revision_of(board),
        flash_manufacturer=_jedec(who.flash_id)[0] if who is not None else None,
        flash_device=_jedec(who.flash_id)[1] if who is not None else None,
        flash_size=who.flash_size if who is not None else None,
        secure_boot=who.security.secure_boot if who is not None else None,
        flash_encryption=who.security.flash_encryption if who is not None else None,
        problem=documents.Problem(code=problem.code, message=problem.message) if problem is not None else None,
    )
