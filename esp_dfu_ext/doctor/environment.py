"""Checks of Python, ESP-IDF, the way idf.py loaded the actions, and the kind of machine."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..linux.machine import Machine
from ..paths import EXTRA_ACTIONS, extra_actions_folders
from ..versions import __version__
from .findings import Finding, not_applicable, ok, problem

# Distribution of pyproject.toml -> the module it is imported as. Those for USB have checks of their own.
PACKAGES = {
    "pyserial": "serial",
    "PyYAML": "yaml",
    "msgspec": "msgspec",
    "esptool": "esptool",
    "rich": "rich",
    "click": "click",
}
_FOLDER = str(Path(__file__).resolve().parents[1])
_VERSION = re.compile(r"set\(IDF_VERSION_(?:MAJOR|MINOR|PATCH)\s+(\d+)\)")


@dataclass(frozen=True)
class Plugin:
    """How idf.py loaded the actions.

    Attributes:
        routes: The ways idf.py loaded them, as `idf_actions` notes them; the first one is in use.
        ours: Whether idf.py runs our action, by the action's name; empty if this idf.py does not report it.
        extra_path: The folder for IDF_EXTRA_ACTIONS_PATH.
    """

    routes: Sequence[str]
    ours: Mapping[str, bool] = field(default_factory=dict)
    extra_path: str = ""


def ourselves() -> list[Finding]:
    """Report our own version and where it was loaded from."""
    return [ok("version", f"esp-dfu-ext {__version__}, {_FOLDER}", version=__version__, path=_FOLDER)]


def python() -> list[Finding]:
    """Check the interpreter and the packages it needs, apart from those for USB."""
    text = f"{platform.python_version()}, {sys.executable}"
    missing = [name for name, module in PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        return [problem("Python", "no-package", f"{text}; missing: {', '.join(missing)}", missing=missing)]
    return [ok("Python", text, version=platform.python_version(), executable=sys.executable)]


def esp_idf(machine: Machine) -> list[Finding]:
    """Check the ESP-IDF that the environment variables name."""
    folder = machine.environ.get("IDF_PATH", "")
    if not folder:
        return [not_applicable("ESP-IDF", "not set up in this shell: IDF_PATH is not set")]
    path = Path(folder)
    if not (path / "tools" / "idf.py").is_file():
        return [problem("ESP-IDF", "no-esp-idf", f"IDF_PATH is {folder}, which has no tools/idf.py")]
    version = "unknown version"
    with suppress(OSError):
        numbers = _VERSION.findall((path / "tools" / "cmake" / "version.cmake").read_text(encoding="utf-8"))
        version = ".".join(numbers) or version
    return [ok("ESP-IDF", f"{version}, {folder}", version=version, path=folder)]


def plugin(machine: Machine, found: Plugin | None) -> list[Finding]:
    """Report how idf.py loaded the actions, and check that it runs them."""
    if found is None:
        return [not_applicable("plugin", "not used: esp-dfu runs without idf.py")]
    ways = list(dict.fromkeys(_way(route, machine) for route in found.routes))
    refused = [name for name, ours in found.ours.items() if not ours]
    findings = [ok("plugin", f"loaded by {', and by '.join(ways)}", doors=list(found.routes))]  # as JSON calls them
    if refused:
        text = f"idf.py runs its own {', '.join(refused)}"
        findings.append(problem("actions", "actions-refused", text, refused=refused, extra_path=found.extra_path))
    elif found.ours:
        findings.append(ok("actions", f"idf.py runs {', '.join(found.ours)} of esp-dfu-ext"))
    else:
        findings.append(not_applicable("actions", "this idf.py does not report which actions it runs"))
    return findings


_PACKAGE = __name__.partition(".")[0]


def _way(route: str, machine: Machine) -> str:
    """Return the route in words; ``package`` could not be told apart while idf.py was loading."""
    if route != "package":
        return route
    for name, module in list(sys.modules.items()):
        with suppress(Exception):  # a module of another program may raise anything
            function = vars(module).get("action_extensions") if name.startswith("idf_ext") else None
            if function is not None and function.__module__.startswith("esp_dfu_ext."):
                return f"{module.__file__}, which imports the installed package"
    package = Path(_FOLDER).parent
    for folder in extra_actions_folders(machine.environ):
        # idf.py imports a package of this name; an installed one takes precedence.
        if (Path(folder) / _PACKAGE).is_dir():
            return f"{EXTRA_ACTIONS}, {Path(folder).resolve()}"
    with suppress(importlib.metadata.PackageNotFoundError):
        return f"the entry point of esp-dfu-ext {importlib.metadata.version('esp-dfu-ext')} in {package}"
    return f"an unknown way, from {package}"


def system(machine: Machine, *, simulated: bool = False) -> list[Finding]:
    """Report the kind of machine, and check that USB is passed through to WSL or a container."""
    name = {"win32": "Windows", "darwin": "macOS"}.get(machine.platform, platform.system() or machine.platform)
    where = f"{name} {platform.release()}, {platform.machine()}"
    if machine.platform == "darwin":
        return [ok("system", where), not_applicable("driver", "macOS needs none")]
    if not machine.linux or simulated:
        return [ok("system", where)]
    wsl, container, present = machine.wsl, machine.container, machine.usb()
    findings = []
    if wsl and not present:
        findings.append(problem("WSL", "wsl", f"no USB device is attached to WSL ({wsl})"))
    elif wsl:
        findings.append(ok("WSL", f"USB devices attached: {len(present)} ({wsl})"))
    if container and not machine.has_usb:
        text = f"this is a container ({container} exists), and /dev/bus/usb is not passed into it"
        findings.append(problem("container", "container", text))
    elif container:
        findings.append(ok("container", f"/dev/bus/usb is passed into it ({container} exists)"))
    return [ok("system", where), *findings]
