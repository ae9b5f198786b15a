"""udev rules for the chips: the one to install, and those in effect on this machine.

See udev(7) for the syntax and the order of the folders. ``TAG+="uaccess"`` only works in a file that sorts before
73-seat-late.rules, which gives the tagged nodes to the user at the seat.
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
# A file replaces files of the same name in later folders.
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
_DFU_RUN_TIME = ":fe0101:"  # a DFU interface in run-time mode, as udev's usb_id writes it into ID_USB_INTERFACES

_TERM = re.compile(r'([A-Z_]+(?:\{[^}]*\})?)\s*(==|!=|\+=|-=|:=|=)\s*[ei]?"((?:[^"\\]|\\.)*)"')


def rule(targets: Sequence[Target]) -> str:
    """Return the rule: access for the user at the seat, and for a group where nobody sits at the machine.

    The first line is for the ROMs. It also keeps ModemManager away, which sends AT commands to new serial ports; the
    ROM's is one. It covers all product IDs of the vendor that share their first byte with a chip, so new chips need no
    new rule. The second line is for the vendor's apps that DFU_DETACH takes into the ROM.
    """
    kinds = sorted({(f"{target.usb.vid:04x}", f"{target.usb.pid >> 8:02x}??") for target in targets})
    access = f'MODE="{MODE:04o}", GROUP="{GROUP}", TAG+="uaccess"'
    roms = [
        f'SUBSYSTEM=="usb", ATTR{{idVendor}}=="{vendor}", ATTR{{idProduct}}=="{product}", {access}, '
        f'ENV{{ID_MM_DEVICE_IGNORE}}="1"\n'
        for vendor, product in kinds
    ]
    apps = [
        f'SUBSYSTEM=="usb", ATTR{{idVendor}}=="{vendor}", ENV{{ID_USB_INTERFACES}}=="*{_DFU_RUN_TIME}*", {access}\n'
        for vendor in sorted({vendor for vendor, _ in kinds})
    ]
    return "".join([*roms, *apps])


def covers(targets: Sequence[Target], vid: int, pid: int) -> bool:
    """Return whether `rule` is for a device with these IDs."""
    return any((vid, pid >> 8) == (target.usb.vid, target.usb.pid >> 8) for target in targets)


@dataclass(frozen=True)
class Rule:
    """A udev rule that gives access to a device.

    Attributes:
        file: The file it is in.
        line: Number of its (last) line.
        group: The group it assigns, or None.
        mode: The mode it assigns, or None.
        uaccess: It gives access to the user at the seat.
    """

    file: str
    line: int
    group: str | None
    mode: int | None
    uaccess: bool

    @property
    def too_late(self) -> bool:
        """Its ``uaccess`` tag is set too late to take effect."""
        return self.uaccess and Path(self.file).name > _SEAT_RULES

    def __str__(self) -> str:
        gives = [f"group {self.group}"] if self.group else []
        gives += [f"mode {self.mode:04o}"] if self.mode is not None else []
        gives += ["the user at the seat"] if self.uaccess else []
        return f"{self.file}, line {self.line}: {', '.join(gives)}"


def files(machine: Machine) -> list[str]:
    """Return the rule files in effect, in udev's order."""
    by_name: dict[str, str] = {}
    for folder in FOLDERS:
        with suppress(OSError):
            for path in machine.file(folder).iterdir():
                if path.suffix == ".rules":
                    by_name.setdefault(path.name, f"{folder}/{path.name}")
    return [by_name[name] for name in sorted(by_name)]


def rules_for(machine: Machine, vid: int, pid: int, *, is_app: bool = False) -> list[Rule]:
    """Return the rules that match a device's IDs (or all of USB) and give access, in udev's order.

    A rule that tests more than IDs, subsystem and kind of event is left out, because whether it matches is unknown; one
    for devices with a DFU run-time interface matches an app (`is_app`).
    """
    interfaces = _DFU_RUN_TIME if is_app else ""
    return [
        found
        for file in files(machine)
        for number, text in _lines(machine.read(file))
        if (found := _read(file, number, text, f"{vid:04x}", f"{pid:04x}", interfaces)) is not None
    ]


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield each rule with the number of its last line; a backslash at the end continues a line."""
    whole = ""
    for number, line in enumerate(text.splitlines(), 1):
        if not whole and line.lstrip().startswith("#"):
            continue
        whole += line
        if not line.rstrip().endswith("\\"):
            yield number, whole
            whole = ""


def _read(file: str, number: int, text: str, vid: str, pid: str, interfaces: str) -> Rule | None:
    values = {"SUBSYSTEM": "usb", "ACTION": "add", "ENV{DEVTYPE}": "usb_device"}
    values |= {"ATTR{idVendor}": vid, "ATTR{idProduct}": pid, "ENV{ID_VENDOR_ID}": vid, "ENV{ID_MODEL_ID}": pid}
    values |= {"ENV{ID_USB_INTERFACES}": interfaces} if interfaces else {}
    group, mode, uaccess, about_usb = None, None, False, False
    for key, operator, value in _TERM.findall(text):
        if operator in ("==", "!="):
            actual = values.get(re.sub(r"^(SUBSYSTEM|ATTR)S", r"\1", key))
            fits = actual is not None and any(fnmatchcase(actual, pattern) for pattern in value.split("|"))
            if actual is None or fits is not (operator == "=="):
                return None
            about_usb = about_usb or (operator == "==" and key != "ACTION")
        elif key == "GROUP":
            group = value
        elif key == "MODE":
            with suppress(ValueError):
                mode = int(value, 8)
        elif key == "TAG" and operator != "-=" and value == "uaccess":
            uaccess = True
    gives_access = uaccess or (group is not None and group != "root") or (mode is not None and mode & 0o006 == 0o006)
    return Rule(file, number, group, mode, uaccess) if about_usb and gives_access else None


def group_of(rules: Sequence[Rule]) -> str | None:
    """Return the group that these rules assign, the last of which wins; None if they assign no group."""
    rule = _group_rule(rules)
    return rule.group if rule is not None else None


def _group_rule(rules: Sequence[Rule]) -> Rule | None:
    return next((rule for rule in reversed(rules) if rule.group), None)


def why_refused(machine: Machine, rules: Sequence[Rule], access: Access) -> tuple[str, str]:
    """Return why the user cannot open a node that these rules are for: a stable code, and what was seen.

    Codes: ``no-udev``, ``no-rule``, ``rule-not-applied``, ``no-group``, ``not-in-group``, ``old-session``,
    ``no-seat``.
    """
    if not machine.udev_running:
        return "no-udev", "udev is not running, so no rule takes effect"
    if not rules:
        return "no-rule", "no udev rule matches this device"
    by = _group_rule(rules)
    if by is None:
        in_time = next((rule for rule in reversed(rules) if not rule.too_late), rules[-1])
        late = f", but too late: it sorts after {_SEAT_RULES}" if in_time.too_late else ""
        return "no-seat", f"{in_time.file} gives access to the user at the seat{late}; {machine.user} got none"
    group, members = by.group, machine.members(str(by.group))
    if members is None:
        return "no-group", f"{by.file} gives access to the group {group}, which does not exist on this machine"
    if access.group != group or group in machine.groups():
        return "rule-not-applied", f"{by.file} assigns it to the group {group}, but the node is {access}"
    if machine.user in members:
        return "old-session", f"{machine.user} is in the group {group}, but this session does not have it yet"
    return "not-in-group", f"{machine.user} is not in the group {group}, named in {by.file}"
