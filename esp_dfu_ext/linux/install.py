"""Install the udev rule that lets users open the chips, and check that it took effect."""

from __future__ import annotations

import difflib
import enum
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import NeedsRootError, OutputError, UdevError, UsageError
from ..files import replace_file
from ..target import Target
from . import udev
from .machine import Access, Machine, UsbNode

_TIMEOUT = 30  # seconds for one udevadm command


class Change(enum.Enum):
    """What happened to the rules file."""

    NEW = "new"
    REPLACED = "replaced"
    NONE = "none"


@dataclass(frozen=True)
class NodeAccess:
    """Who may open a board's device node.

    Attributes:
        path: Port of the board, as ``bus-port.port``.
        device_file: Path of the device node.
        access: Its owner, group and mode.
        uaccess: The user at the seat has access too.
    """

    path: str
    device_file: str
    access: Access
    uaccess: bool


@dataclass(frozen=True)
class InstallResult:
    """What was done, and what was seen afterwards.

    Attributes:
        path: The rules file.
        change: What happened to it.
        nodes: The connected boards; the rule took effect on all of them.
        group_exists: The machine has the rule's group.
    """

    path: str
    change: Change
    nodes: tuple[NodeAccess, ...]
    group_exists: bool


def install(targets: Sequence[Target], *, force: bool = False, machine: Machine | None = None) -> InstallResult:
    """Write the rule, make udev read it, and check the connected boards.

    Args:
        targets: The chips it is for.
        force: Replace a rules file that esp-dfu did not write.
        machine: Where to install it, or None for this machine.

    Raises:
        UsageError: This is not Linux.
        NeedsRootError: The user is not root.
        OutputError: The rules file is not ours, or cannot be written.
        UdevError: udev is missing, refused the rule, or the rule had no effect on a board.
    """
    machine = machine or Machine()
    if not machine.linux:
        raise UsageError("udev rules can be installed on Linux only.")
    if not machine.is_root:
        raise NeedsRootError(f"Only root can write {udev.RULES_FILE} and reload udev's rules.")
    change = _write(machine, f"{udev.MARK}\n{udev.rule(targets)}", force=force)
    _udevadm("control", "--reload")
    # Only this vendor's devices: without a match, udev would set up every USB device again.
    vendors = sorted({f"{target.usb.vid:04x}" for target in targets})
    _udevadm("trigger", "--subsystem-match=usb", *(f"--attr-match=idVendor={vendor}" for vendor in vendors))
    _udevadm("settle", "--timeout=20")
    group_exists = machine.members(udev.GROUP) is not None
    present = [node for node in machine.usb() if udev.covers(targets, node.vid, node.pid)]
    nodes = [_check(machine, node, group_exists) for node in present]
    return InstallResult(udev.RULES_FILE, change, tuple(node for node in nodes if node is not None), group_exists)


def _write(machine: Machine, text: str, *, force: bool) -> Change:
    """Write the rules file as a whole, so that udev never reads half a rule."""
    path = machine.file(udev.RULES_FILE)
    try:
        before = path.read_text(encoding="utf-8", errors="replace") if path.exists() else None
        if before == text:
            return Change.NONE
        if before is not None and not force and not before.startswith(udev.MARK):
            lines = difflib.unified_diff(before.splitlines(), text.splitlines(), "installed", "new", n=0, lineterm="")
            message = f"{udev.RULES_FILE} was not written by esp-dfu; to replace it, use --force."
            raise OutputError(message, notes=list(lines))
        path.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(path, 0o644) as file:
            file.write(text.encode())
    except OSError as error:
        raise OutputError(f"{udev.RULES_FILE} cannot be written: {error.strerror or error}.") from error
    return Change.NEW if before is None else Change.REPLACED


def _check(machine: Machine, node: UsbNode, group_exists: bool) -> NodeAccess | None:
    """Return who may open a board now; None if it has left. Raise UdevError if the rule had no effect on it."""
    access = machine.access(node.device_file)
    if access is None:
        return None
    properties = _udevadm("info", "--query=property", f"--name={node.device_file}").splitlines()
    tags = next((line.partition("=")[2].split(":") for line in properties if line.startswith("TAGS=")), [])
    if (group_exists and access.group != udev.GROUP) or access.mode != udev.MODE:
        rules = udev.rules_for(machine, node.vid, node.pid)
        raise UdevError(
            f"{udev.RULES_FILE} is installed, but has no effect on port {node.path}: {node.device_file} is {access}.",
            notes=[f"Rules for {node.usb_id}; the last one wins:", *(f"  {rule}" for rule in rules)],
        )
    return NodeAccess(node.path, node.device_file, access, "uaccess" in tags)


def _udevadm(*arguments: str) -> str:
    command = ["udevadm", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, errors="replace")
    except FileNotFoundError:
        raise UdevError(f"{udev.RULES_FILE} was written, but this machine has no udevadm.") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UdevError(f"{' '.join(command)}: {error}.") from error
    if done.returncode:
        said = done.stderr.strip() or f"exit code {done.returncode}"
        raise UdevError(f"{udev.RULES_FILE} was written, but udev refused it: {' '.join(command[:2])}: {said}.")
    return done.stdout


__all__ = ["Change", "InstallResult", "NodeAccess", "install"]
