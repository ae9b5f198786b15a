"""What to do about what this machine shows: the next command for each problem that does not depend on a chip.

`hints` adds what depends on the chip, on the project, and on who asks.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .facts import Fact


def own_command(arguments: str, *, root: bool = False) -> str:
    """Our own command, with the Python that runs now: root and another shell may know no `esp-dfu`."""
    import sysconfig

    home = Path(__file__).resolve().parent.parent.parent
    words = [sys.executable or "python3", "-m", "esp_dfu_ext"]
    if home not in {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}:
        words = ["env", f"PYTHONPATH={home}", *words]
    return f"{'sudo ' if root else ''}{shlex.join(words)} {arguments}"


def let_in() -> str:
    """How to get a udev rule."""
    return f"Let yourself in, once: {own_command('udev --install', root=True)}"


def cures(facts: Sequence[Fact]) -> list[str]:
    """What to do about what this machine shows; empty if nothing follows from it."""
    return list(dict.fromkeys(line for fact in facts for line in _cure(fact)))


def _cure(fact: Fact) -> list[str]:
    data = fact.data
    if fact.code in ("no-rule", "no-seat"):
        return [let_in()]
    if fact.code == "no-udev":
        return _without_udev(data["where"])
    if fact.code == "rule-not-applied":
        return ["Plug the board in again, or: sudo udevadm control --reload && sudo udevadm trigger"]
    if fact.code in ("no-group", "not-in-group"):
        add = f"sudo usermod -aG {data['rule_group']} {shlex.quote(data['user'])}"
        create = f"sudo groupadd --system {data['rule_group']} && " if fact.code == "no-group" else ""
        return [f"{create}{add}", "Then log out and in again."]
    if fact.code == "old-session":
        return [f"Log out and in again; in this shell alone: newgrp {data['rule_group']}"]
    if fact.code == "device-busy" and data.get("holders"):
        names = ", ".join(f"{held['name']} (process {held['process']})" for held in data["holders"])
        return [f"Close {names}, then try again."]
    if fact.code == "kernel-driver":
        return [
            f"Take it off the driver: echo {data['interface']} | sudo tee /sys/bus/usb/drivers/{data['driver']}/unbind"
        ]
    if fact.code == "wsl":
        return [
            "In Windows, find the board: usbipd list",
            "Once, as administrator: usbipd bind --busid BUSID",
            "And each time: usbipd attach --wsl --auto-attach --busid BUSID",
        ]
    if fact.code == "container":
        return ["Start it with: docker run -v /dev/bus/usb:/dev/bus/usb --device-cgroup-rule='c 189:* rmw' IMAGE"]
    if fact.code == "no-package":
        return [f"Install: {shlex.quote(sys.executable or 'python')} -m pip install {' '.join(data['missing'])}"]
    if fact.code == "no-esp-idf":
        return ["Run the export script of your ESP-IDF in this shell."]
    if fact.code == "actions-refused":
        return [f"export IDF_EXTRA_ACTIONS_PATH={shlex.quote(data['extra_path'])}"]
    return []


def _without_udev(where: str) -> list[str]:
    if where == "container":
        return ["The node belongs to the host; there, not in the container: esp-dfu udev --install"]
    if where == "wsl":
        return [
            "Switch systemd on, and udev with it: printf '[boot]\\nsystemd=true\\n' | sudo tee -a /etc/wsl.conf",
            "Then, in Windows: wsl --shutdown",
        ]
    return ["Start udev: sudo /lib/systemd/systemd-udevd --daemon", let_in()]
