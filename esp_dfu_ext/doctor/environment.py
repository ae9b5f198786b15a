"""Python, ESP-IDF, how the plugin was loaded, and what kind of machine this is."""

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
from .facts import Fact, not_applicable, ok, problem

# Distribution -> the module it is imported by; those of pyproject.toml. USB has facts of its own.
PACKAGES = {"PyYAML": "yaml", "msgspec": "msgspec", "esptool": "esptool", "rich": "rich", "click": "click"}
_FOLDER = str(Path(__file__).resolve().parents[1])
_VERSION = re.compile(r"set\(IDF_VERSION_(?:MAJOR|MINOR|PATCH)\s+(\d+)\)")


@dataclass(frozen=True)
class Plugin:
    """How idf.py got the actions.

    Attributes:
        doors: the ways that idf.py took, the one whose actions it has first; as `idf_actions` notes them.
        kept: by name of the action, whether idf.py runs ours; without those of which it does not say.
        extra_path: the folder for IDF_EXTRA_ACTIONS_PATH.
    """

    doors: Sequence[str]
    kept: Mapping[str, bool] = field(default_factory=dict)
    extra_path: str = ""


def ourselves() -> list[Fact]:
    """Our own version, and where it was loaded from."""
    return [ok("version", f"esp-dfu-ext {__version__}, {_FOLDER}", version=__version__, path=_FOLDER)]


def python() -> list[Fact]:
    """The interpreter and the packages that are needed beside pyusb."""
    text = f"{platform.python_version()}, {sys.executable}"
    missing = [name for name, module in PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        return [problem("Python", "no-package", f"{text}; missing: {', '.join(missing)}", missing=missing)]
    return [ok("Python", text, version=platform.python_version(), executable=sys.executable)]


def esp_idf(machine: Machine) -> list[Fact]:
    """ESP-IDF, as its environment variables say."""
    folder = machine.environ.get("IDF_PATH", "")
    if not folder:
        return [not_applicable("ESP-IDF", "IDF_PATH is not set: this shell has no ESP-IDF")]
    path = Path(folder)
    if not (path / "tools" / "idf.py").is_file():
        return [problem("ESP-IDF", "no-esp-idf", f"IDF_PATH is {folder}, where there is no tools/idf.py")]
    version = "of unknown version"
    with suppress(OSError):
        numbers = _VERSION.findall((path / "tools" / "cmake" / "version.cmake").read_text(encoding="utf-8"))
        version = ".".join(numbers) or version
    return [ok("ESP-IDF", f"{version}, {folder}", version=version, path=folder)]


def plugin(machine: Machine, found: Plugin | None) -> list[Fact]:
    """The way the actions came into idf.py, and whether it runs them."""
    if found is None:
        return [not_applicable("plugin", "esp-dfu runs by itself, without idf.py")]
    ways = list(dict.fromkeys(_way(door, machine) for door in found.doors))
    refused = [name for name, ours in found.kept.items() if not ours]
    facts = [ok("plugin", f"loaded by {', and by '.join(ways)}", doors=list(found.doors))]
    if refused:
        text = f"idf.py runs its own {', '.join(refused)}"
        facts.append(problem("actions", "actions-refused", text, refused=refused, extra_path=found.extra_path))
    elif found.kept:
        facts.append(ok("actions", f"idf.py runs ours: {', '.join(found.kept)}"))
    else:
        facts.append(not_applicable("actions", "this idf.py does not say which actions it runs"))
    return facts


_PACKAGE = __name__.partition(".")[0]


def _way(door: str, machine: Machine) -> str:
    """For people: `door` is what was known while idf.py loaded, now there is time to look."""
    if door != "package":
        return door
    for name, module in list(sys.modules.items()):
        with suppress(Exception):  # somebody else's module may do anything when it is asked
            function = vars(module).get("action_extensions") if name.startswith("idf_ext") else None
            if function is not None and function.__module__.startswith("esp_dfu_ext."):
                return f"{module.__file__}, which imports the installed package"
    package = Path(_FOLDER).parent
    for folder in extra_actions_folders(machine.environ):
        # idf.py asks for a package of this name, and gets the installed one if there is one.
        if (Path(folder) / _PACKAGE).is_dir():
            return f"{EXTRA_ACTIONS}, {Path(folder).resolve()}"
    with suppress(importlib.metadata.PackageNotFoundError):
        return f"the entry point of esp-dfu-ext {importlib.metadata.version('esp-dfu-ext')} in {package}"
    return f"a way that left no trace, from {package}"


def system(machine: Machine, *, simulated: bool = False) -> list[Fact]:
    """What kind of machine it is, and whether USB is passed on to it, where that matters."""
    name = {"win32": "Windows", "darwin": "macOS"}.get(machine.platform, platform.system() or machine.platform)
    where = f"{name} {platform.release()}, {platform.machine()}"
    if machine.platform == "darwin":
        return [ok("system", where), not_applicable("driver", "macOS asks for none")]
    if not machine.linux or simulated:
        return [ok("system", where)]
    wsl, container, present = machine.wsl, machine.container, machine.usb()
    facts = []
    if wsl and not present:
        facts.append(problem("WSL", "wsl", f"no USB device is passed on to it ({wsl})"))
    elif wsl:
        facts.append(ok("WSL", f"{len(present)} USB devices are passed on to it ({wsl})"))
    if container and not machine.has_usb:
        facts.append(problem("container", "container", f"/dev/bus/usb is not passed on to it ({container} is there)"))
    elif container:
        facts.append(ok("container", f"/dev/bus/usb is passed on to it ({container} is there)"))
    return [ok("system", where), *facts]
