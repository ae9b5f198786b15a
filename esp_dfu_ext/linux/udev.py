"""udev's rules for the chips: the one to install, and those that are in force.

udev(7) says what a rule is, and which folder wins. ``TAG+="uaccess"`` has an effect only in a file that sorts before
73-seat-late.rules, which hands the tagged nodes to the user at the seat.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from ..target import Target
from .machine import Access, Machine

RULES_FILE = "/etc/udev/rules.d/60-esp-dfu.rules"
# A file in an earlier folder takes the place of one with the same name in a later one.
FOLDERS = (
    "/etc/udev/rules.d",
    "/run/udev/rules.d",
    "/usr/local/lib/udev/rules.d",
    "/usr/lib/udev/rules.d",
    "/lib/udev/rules.d",
)
GROUP = "plugdev"
MODE = 0o660
MARK = "# Written by esp-dfu udev --install."
_SEAT_RULES = "73-seat-late.rules"

_TERM = re.compile(r'([A-Z_]+(?:\{[^}]*\})?)\s*(==|!=|\+=|-=|:=|=)\s*[ei]?"((?:[^"\\]|\\.)*)"')


def rule(targets: Sequence[Target]) -> str:
    """The text of the rule: for users at the seat, and where there is none for a group.

    It covers the chips and their sisters: of each vendor the product IDs with the same first byte.
    """
    kinds = sorted({(f"{target.usb.vid:04x}", f"{target.usb.pid >> 8:02x}??") for target in targets})
    return "".join(
        f'SUBSYSTEM=="usb", ATTR{{idVendor}}=="{vendor}", ATTR{{idProduct}}=="{product}", '
        f'MODE="{MODE:04o}", GROUP="{GROUP}", TAG+="uaccess"\n'
        for vendor, product in kinds
    )


def covers(targets: Sequence[Target], vid: int, pid: int) -> bool:
    """Whether `rule` is for such a device."""
    return any((vid, pid >> 8) == (target.usb.vid, target.usb.pid >> 8) for target in targets)


@dataclass(frozen=True)
class Rule:
    """A rule that lets somebody open a device.

    Attributes:
        file: where it stands.
        line: number of its (last) line.
        group, mode: that it gives, None if it does not say.
        uaccess: it lets in whoever sits at the machine.
    """

    file: str
    line: int
    group: str | None
    mode: int | None
    uaccess: bool

    @property
    def too_late(self) -> bool:
        """It gives a seat's user access where that has no effect any more."""
        return self.uaccess and Path(self.file).name > _SEAT_RULES

    def __str__(self) -> str:
        gives = [f"group {self.group}"] if self.group else []
        gives += [f"mode {self.mode:04o}"] if self.mode is not None else []
        gives += ["the user at the seat"] if self.uaccess else []
        return f"{self.file}, line {self.line}: {', '.join(gives)}"


def files(machine: Machine) -> list[str]:
    """The files of rules in force, in udev's order."""
    by_name: dict[str, str] = {}
    for folder in FOLDERS:
        with suppress(OSError):
            for path in machine.file(folder).iterdir():
                if path.suffix == ".rules":
                    by_name.setdefault(path.name, f"{folder}/{path.name}")
    return [by_name[name] for name in sorted(by_name)]


def rules_for(machine: Machine, vid: int, pid: int) -> list[Rule]:
    """The rules that name a device's IDs (or all of USB) and let somebody open it, in udev's order.

    A rule that asks for more than IDs, subsystem and kind of event is left out: what it would decide is not known.
    """
    return [
        found
        for file in files(machine)
        for number, text in _lines(machine.read(file))
        if (found := _read(file, number, text, f"{vid:04x}", f"{pid:04x}")) is not None
    ]


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """The rules, each with the number of its last line; those that end in a backslash go on."""
    whole = ""
    for number, line in enumerate(text.splitlines(), 1):
        if not whole and line.lstrip().startswith("#"):
            continue
        whole += line
        if not line.rstrip().endswith("\\"):
            yield number, whole
            whole = ""


def _read(file: str, number: int, text: str, vid: str, pid: str) -> Rule | None:
    facts = {"SUBSYSTEM": "usb", "ACTION": "add", "ENV{DEVTYPE}": "usb_device"}
    facts |= {"ATTR{idVendor}": vid, "ATTR{idProduct}": pid, "ENV{ID_VENDOR_ID}": vid, "ENV{ID_MODEL_ID}": pid}
    group, mode, uaccess, about_usb = None, None, False, False
    for key, operator, value in _TERM.findall(text):
        if operator in ("==", "!="):
            known = facts.get(re.sub(r"^(SUBSYSTEM|ATTR)S", r"\1", key))
            fits = known is not None and any(fnmatchcase(known, pattern) for pattern in value.split("|"))
            if known is None or fits is not (operator == "=="):
                return None
            about_usb = about_usb or (operator == "==" and key != "ACTION")
        elif key == "GROUP":
            group = value
        elif key == "MODE":
            with suppress(ValueError):
                mode = int(value, 8)
        elif key == "TAG" and operator != "-=" and value == "uaccess":
            uaccess = True
    lets_in = uaccess or (group is not None and group != "root") or (mode is not None and mode & 0o006 == 0o006)
    return Rule(file, number, group, mode, uaccess) if about_usb and lets_in else None


def why_refused(machine: Machine, rules: Sequence[Rule], access: Access) -> tuple[str, str]:
    """Why the user may not open a node that these rules are for: a stable code, and what was seen.

    The codes: ``no-udev``, ``no-rule``, ``rule-not-applied``, ``no-group``, ``not-in-group``, ``old-session``,
    ``no-seat``.
    """
    if not machine.file("/run/udev/control").exists():
        return "no-udev", "udev does not run here, so that no rule has any effect"
    if not rules:
        return "no-rule", f"none of the {len(files(machine))} files of udev rules has one for it"
    group = next((found.group for found in reversed(rules) if found.group), None)
    if group is None:
        late = ", but stands in a file behind 73-seat-late.rules, where that does nothing" if rules[-1].too_late else ""
        return "no-seat", f"{rules[-1].file} lets in the user at the seat{late}; {machine.user} got no access from it"
    members = machine.members(group)
    if members is None:
        return "no-group", f"{rules[-1].file} is for the group {group}, which this machine does not have"
    if access.group != group or group in machine.groups():
        return "rule-not-applied", f"{rules[-1].file} gives it to the group {group}, but the node is {access}"
    if machine.user in members:
        return "old-session", f"{machine.user} is in the group {group}, but not yet in this session"
    return "not-in-group", f"{machine.user} is not in the group {group} of {rules[-1].file}"
