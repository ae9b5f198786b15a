"""Say what became of a chip that was restarted to start its app."""

from __future__ import annotations

from ..doctor.advice_board import app_start
from ..operations.restart import Restarted
from ..operations.results import FlashResult
from ..target import Target
from .session import Session

# For a table and a verdict: one board among several.
_SHORT = {"nothing": "", "app": "app is on USB", "rom": "in download mode", "same": "not restarted"}


def show_app_start(session: Session, path: str, restarted: Restarted | None, target: Target) -> None:
    """Show what was on the port after the restart, and what to do if that is not an app.

    Args:
        session: State of this invocation.
        path: Port of the board; over serial, the name of its serial port.
        restarted: What became of the chip; None if nothing restarted it.
        target: The chip.
    """
    console, below = session.console, session.console.on_stdout()  # a flash that went well has nothing on stderr
    came_back = restarted.came_back if restarted is not None else None
    if restarted is None:
        console.info("The chip stays in download mode.")
    elif came_back == "nothing":
        console.info(f"Nothing is on port {path} after the reset, as with an app that does not use USB.")
    elif came_back == "app" or (came_back == "rom" and target.usb.rom_console):
        console.info(f"Seen on port {path} after the reset: {restarted.seen}.")
    else:
        console.warn(f"Seen on port {path} after the reset: {restarted.seen}.")
        below = console
    if not console.quiet:
        for line in app_start(target, came_back, restarted.by if restarted is not None else None):
            below.advice(line)


def in_short(result: FlashResult, target: Target) -> str:
    """Return the same for a board among several, after what else is said of it; empty if nothing stands out."""
    text = _SHORT[result.came_back] if result.came_back is not None else ""
    if result.came_back == "rom" and target.usb.rom_console:
        text += " or console of the app"
    return f"; {text}" if text else ""


def restarted_of(result: FlashResult) -> Restarted | None:
    """Return what became of a flashed chip, None if nothing restarted it."""
    if result.came_back is None:
        return None
    return Restarted(result.reset_by or "", result.came_back, result.after_reset or "")
