"""Linux: let users open the chips, by a rule for udev, and see that it took effect."""

from __future__ import annotations

import difflib
import enum
import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from ..errors import NeedsRootError, OutputError, UdevError, UsageError
from ..target import Target
from . import udev
from .machine import Access, Machine, UsbNode

_TIMEOUT = 30  # seconds that udevadm may take


class Change(enum.Enum):
    """What became of the file."""

    NEW = "new"
    REPLACED = "replaced"
    NONE = "none"


@dataclass(frozen=True)
class Board:
    """A board's device node after the rule was installed; `uaccess`: it is also for the user at the seat."""

    path: str
    node: str
    access: Access
    uaccess: bool


@dataclass(frozen=True)
class InstallResult:
    """What was done, and what was seen afterwards.

    Attributes:
        path: of the file.
        change: what became of it.
        boards: that are there; the rule is in force on all of them.
        group_exists: the machine has the rule's group.
    """

    path: str
    change: Change
    boards: tuple[Board, ...]
    group_exists: bool


def install(targets: Sequence[Target], *, force: bool = False, machine: Machine | None = None) -> InstallResult:
    """Write the rule, make udev read it, and look at the boards that are there.

    Args:
        targets: the chips it is for.
        force: replace a file there that somebody else wrote.
        machine: where; None for this one.

    Raises:
        UsageError: this is not Linux.
        NeedsRootError: the user is not root.
        OutputError: another file is there, or it cannot be written.
        UdevError: udev is not there, or does not do what the rule says.
    """
    machine = machine or Machine()
    if not machine.linux:
        raise UsageError("udev is there on Linux only.")
    if not machine.is_root:
        raise NeedsRootError(f"Only root may write {udev.RULES_FILE} and make udev read it.")
    change = _write(machine, f"{udev.MARK}\n{udev.rule(targets)}", force=force)
    _udevadm("control", "--reload")
    # Only this vendor's devices: every other one would be set up again too.
    vendors = sorted({f"{target.usb.vid:04x}" for target in targets})
    _udevadm("trigger", "--subsystem-match=usb", *(f"--attr-match=idVendor={vendor}" for vendor in vendors))
    _udevadm("settle", "--timeout=20")
    group_exists = machine.members(udev.GROUP) is not None
    present = [node for node in machine.usb() if udev.covers(targets, node.vid, node.pid)]
    boards = [_look(machine, node, group_exists) for node in present]
    return InstallResult(udev.RULES_FILE, change, tuple(board for board in boards if board is not None), group_exists)


def _write(machine: Machine, text: str, *, force: bool) -> Change:
    """Beside it and renamed, so that udev never reads half of it."""
    path = machine.file(udev.RULES_FILE)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        before = path.read_text(encoding="utf-8", errors="replace") if path.exists() else None
        if before == text:
            return Change.NONE
        if before is not None and not force and not before.startswith(udev.MARK):
            lines = difflib.unified_diff(before.splitlines(), text.splitlines(), "there", "new", n=0, lineterm="")
            raise OutputError(f"{udev.RULES_FILE} is somebody else's; it was left as it is.", notes=list(lines))
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{udev.RULES_FILE} cannot be written: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return Change.NEW if before is None else Change.REPLACED


def _look(machine: Machine, node: UsbNode, group_exists: bool) -> Board | None:
    """A board after udev dealt with it; None if it has left."""
    access = machine.access(node.node)
    if access is None:
        return None
    properties = _udevadm("info", "--query=property", f"--name={node.node}").splitlines()
    tags = next((line.partition("=")[2].split(":") for line in properties if line.startswith("TAGS=")), [])
    if (group_exists and access.group != udev.GROUP) or access.mode != udev.MODE:
        rules = udev.rules_for(machine, node.vid, node.pid)
        raise UdevError(
            f"{udev.RULES_FILE} is in force, but port {node.path} does not show it: {node.node} is {access}.",
            notes=[f"Rules for {node.usb_id}, the last one wins:", *(f"  {rule}" for rule in rules)],
        )
    return Board(node.path, node.node, access, "uaccess" in tags)


def _udevadm(*arguments: str) -> str:
    command = ["udevadm", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, errors="replace")
    except FileNotFoundError:
        raise UdevError(f"{udev.RULES_FILE} is written, but there is no udevadm on this machine.") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UdevError(f"{' '.join(command)}: {error}.") from error
    if done.returncode:
        said = done.stderr.strip() or f"exit code {done.returncode}"
        raise UdevError(f"{udev.RULES_FILE} is written, but udev did not take it: {' '.join(command[:2])}: {said}.")
    return done.stdout


__all__ = ["Board", "Change", "InstallResult", "install"]
