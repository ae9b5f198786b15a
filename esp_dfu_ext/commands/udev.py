"""`esp-dfu udev`: print the udev rule, or install it and check that it took effect."""

from __future__ import annotations

from ..linux import install as operation
from ..linux import udev as rules
from ..linux.install import Change
from ..target import load_targets
from .session import Session


def udev(session: Session, *, install: bool = False, force: bool = False) -> int:
    """Print the rule, or install it.

    Chips of the current folder do not count: root installs the rule, and the folder may be anybody's.
    """
    targets = load_targets()
    if not install:
        session.console.data(rules.rule(targets).rstrip("\n"))
        return 0
    result = operation.install(targets, force=force, machine=session.machine)
    console = session.console
    done = {Change.NEW: "Wrote", Change.REPLACED: "Replaced", Change.NONE: "No change needed in"}
    console.result(f"{done[result.change]} {result.path}.")
    console.info("udev has reloaded its rules.")
    for node in result.nodes:
        seat = ", tagged uaccess" if node.uaccess else ""
        console.info(f"Port {node.path}: {node.device_file} is now {node.access}{seat}.")
    if not result.nodes:
        console.info("No board is connected to check the rule with. Plug one in, then run", command="esp-dfu doctor")
    if not result.group_exists:
        console.warn(f"This machine has no group {rules.GROUP}: the rule gives access only to the user at the seat.")
    return 0
