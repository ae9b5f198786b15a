"""Advice about this machine: its udev rules and groups, WSL and containers, Python packages."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

_TIMEOUT = 30  # seconds to start Python
_DOCKER = "docker run -v /dev/bus/usb:/dev/bus/usb --device-cgroup-rule='c 189:* rmw' IMAGE"


_NEEDED = ("esp_dfu_ext", "click", "msgspec", "yaml", "rich")  # what `esp-dfu udev` imports


def own_command(arguments: str, *, root: bool = False) -> str:
    """Return a command of ours for the running Python, because root and other shells may not find `esp-dfu`.

    It imports nothing from the current folder, as ``python -m`` would: root may run it, and the folder is anybody's.
    """
    python, folders = sys.executable or "python3", _private_folders()
    script = _script()
    if script is not None and not folders:
        words = [script]
    else:
        run = f"import sys; sys.path += {folders}; from esp_dfu_ext.cli import main; main()"
        words = [python, "-I", "-c", run]
    return f"{'sudo ' if root else ''}{shlex.join(words)} {arguments}"


def _script() -> str | None:
    """Return the console script of the running Python, if there is one."""
    import sysconfig

    path = Path(sysconfig.get_path("scripts")) / "esp-dfu"
    return str(path) if path.is_file() else None


def _private_folders() -> list[str]:
    """Return the folders with our packages if only this user's Python searches them: a checkout, or ~/.local."""
    import importlib.util
    import subprocess

    with suppress(OSError, subprocess.SubprocessError):
        test = [sys.executable, "-I", "-c", f"import {', '.join(_NEEDED)}"]  # as root's Python would
        if subprocess.run(test, cwd="/", stderr=subprocess.DEVNULL, timeout=_TIMEOUT, check=False).returncode == 0:
            return []
    found = [spec.origin for name in _NEEDED if (spec := importlib.util.find_spec(name)) and spec.origin]
    return list(dict.fromkeys(str(Path(origin).resolve().parent.parent) for origin in found))


def install_rule() -> str:
    """Return how to install the udev rule."""
    return f"Give yourself access (once): {own_command('udev --install', root=True)}"


def access() -> list[str]:
    """Return what to do about a board that may not be opened, if the reason is not known."""
    if sys.platform.startswith("linux"):
        return [install_rule()]
    return ["Close other programs that may use the board, or run this command with administrator rights."]


def join_group(group: str, user: str, *, create: bool = False) -> list[str]:
    """Return how to make `user` a member of `group`, which is to be created first with `create`."""
    first = f"sudo groupadd --system {group} && " if create else ""
    return [f"{first}sudo usermod -aG {group} {shlex.quote(user)}", "Then log out and log in again."]


def start_udev(where: str) -> list[str]:
    """Return how to get a running udev in a ``container``, in ``wsl``, or on a plain Linux."""
    if where == "container":
        return ["The device node belongs to the host. Run there, not in the container: esp-dfu udev --install"]
    if where == "wsl":
        return [
            "Enable systemd, which runs udev: printf '[boot]\\nsystemd=true\\n' | sudo tee -a /etc/wsl.conf",
            "Then, in Windows: wsl --shutdown",
        ]
    return ["Start udev: sudo /lib/systemd/systemd-udevd --daemon", install_rule()]


def attach_to_wsl() -> list[str]:
    """Return how to attach a board to WSL."""
    return [
        "Find the board, in Windows: usbipd list",
        "Share it (once, as administrator): usbipd bind --busid BUSID",
        "Attach it (each time): usbipd attach --wsl --auto-attach --busid BUSID",
    ]


def start_container() -> list[str]:
    """Return how to start a container that has USB."""
    return [f"Start the container with: {_DOCKER}"]


def missing_node(where: str) -> list[str]:
    """Return what to do about a device that the kernel knows but /dev does not show."""
    return start_container() if where == "container" else ["Unplug the board and plug it in again."]


def pip_install(packages: Sequence[str]) -> str:
    """Return how to install packages for the running Python."""
    return f"Install: {shlex.quote(sys.executable or 'python')} -m pip install {' '.join(packages)}"


def usb_library(missing: str) -> list[str]:
    """Return how to get USB working; `missing` is ``pyusb``, ``libusb``, or empty if both are installed."""
    if missing:
        return [pip_install(["pyusb", "libusb-package"] if missing == "pyusb" else ["libusb-package"])]
    return ["In a container or virtual machine, pass the USB bus through (/dev/bus/usb)."]


def free_serial_port(facts: Mapping[str, Any]) -> list[str]:
    """Return what to do about a serial port that may not be used; nothing if that is not the reason."""
    if facts.get("reason") == "busy":
        return ["Close the program that uses it, such as a serial monitor, then try again."]
    if facts.get("reason") == "no-lines":
        return ["Name the serial port of the board's USB-UART bridge, or do without: use no --port."]
    if facts.get("reason") != "permission":
        return []
    group = facts.get("group")
    if not group:
        return ["Run this command as a user who may open the serial port."]
    return [f"sudo usermod -aG {shlex.quote(group)} $USER", "Then log out and log in again."]


def close_users_of_port(holders: Sequence[dict[str, object]]) -> list[str]:
    """Return what to do about the programs that have a serial port open, as for `close_programs`."""
    if any(held["name"] == "ModemManager" for held in holders):
        look = "ModemManager looks at each new serial port for up to half a minute: try again then"
        return [f"{look}, or stop it: sudo systemctl stop ModemManager"]
    return close_programs(holders)


def close_programs(holders: Sequence[dict[str, object]]) -> list[str]:
    """Return which programs to close; `holders` has the ``name`` and ``process`` number of each, if they are known."""
    names = ", ".join(f"{held['name']} (process {held['process']})" for held in holders)
    return [f"Close {names or 'the program that uses the board (another flash, a virtual machine)'}, then try again."]
