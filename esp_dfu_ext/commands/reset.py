"""`reset`: start the app of a board that was left in download mode."""

from __future__ import annotations

from ..errors import DfuError, UsageError
from ..operations.reset import choose, reset_board
from ..operations.restart import HARD_RESET
from ..ui import views
from .app_start import show_app_start
from .flash_run import check_path
from .session import Session


def reset(session: Session, *, path: str | None, serial: str | None, after: str | None) -> int:
    """Restart a board, and show what is on its port afterwards.

    Args:
        session: State of this invocation.
        path: Port of the board; None for the only one.
        serial: Its serial number; None for any.
        after: How, as in `FlashOptions.after`; None for the best way.

    Returns:
        0 if the chip restarted, whatever it starts then; else that of a DFU error.
    """
    if path is not None:
        check_path(path)
    if path is not None and serial is not None:
        raise UsageError("--path and --serial each select a board; use only one of them.")
    targets = session.targets()
    bus = session.open_bus(session.make_simulation(targets))
    board = choose(bus, targets, path, serial)
    session.target = target = board.target
    assert target is not None
    with views.flash_view(session.console, target.chip) as view:
        seen = reset_board(board, bus, targets, session.clock, after=after or HARD_RESET, on_event=view)
    if seen.came_back != "same":
        by = "its watchdog" if seen.by == "watchdog" else "a bus reset"
        session.console.result(f"Restarted the {target.chip} on port {board.device.path} by {by}.")
    show_app_start(session, board.device.path, seen, target)
    return DfuError.exit_code if seen.came_back == "same" else 0
