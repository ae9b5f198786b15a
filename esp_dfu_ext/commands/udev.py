"""`esp-dfu udev`: print the rule for udev, or install it and see what became of it."""

from __future__ import annotations

from ..linux import install as operation
from ..linux import udev
from ..linux.install import Change
from .session import Session


def show(session: Session, *, install: bool = False, force: bool = False) -> int:
    """Print the rule, or install it."""
    targets = session.targets()
    if not install:
        session.console.data(udev.rule(targets).rstrip("\n"))
        return 0
    result = operation.install(targets, force=force, machine=session.machine)
    console = session.console
    done = {
        Change.NEW: "Wrote",
        Change.REPLACED: "Replaced",
        Change.NONE: "Already there, unchanged:",
    }
    console.result(f"{done[result.change]} {result.path}.")
    console.info("udev has read its rules again.")
    for board in result.boards:
        seat = ", and tagged uaccess" if board.uaccess else ""
        console.info(f"Port {board.path}: {board.node} is {board.access} now{seat}.")
    if not result.boards:
        console.info("No board is there to try it on; plug one in and look: esp-dfu doctor")
    if not result.group_exists:
        console.warn(f"This machine has no group {udev.GROUP}: the rule lets in the user at the seat alone.")
    return 0
