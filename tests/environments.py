"""Install the package into environments like those of ESP-IDF, and show that no installed package changes.

    .venv/bin/python -m tests.environments [WHEEL]

Needs uv (`pip install -e '.[check]'`), PyPI, and Python 3.9 to 3.13. idf.py does not start with a package outside its
pins, so that a version that changes here is a defect. The pins are those of ESP-IDF's constraint files
(espidf.constraints.vX.Y.txt) and requirements.core.txt that concern a package of ours.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parent.parent
_EVERYWHERE = ("setuptools>=21,<71.0.1", "packaging", "pyserial>=3.3", "pyelftools", "cryptography>=2.1.4,<45")


class Environment(NamedTuple):
    """An ESP-IDF version with a Python version and the packages that its installer adds."""

    esp_idf: str
    python: str
    requirements: tuple[str, ...]


_OLD = ("click>=7.0,<8.1", "esptool==4.12.*", "idf-component-manager~=1.5", "esp-coredump~=1.4")
_MIDDLE = ("click>=7.0,<8.2", "esptool==4.12.*", "idf-component-manager~=2.1", "esp-idf-monitor>=1.6.2,<2", "urllib3<2")
_NEW = ("click>=7.0,<8.2", "esptool~=5.0", "idf-component-manager~=3.0", "esp-idf-monitor", "rich", "pyparsing>=3.1,<4")

ENVIRONMENTS = (
    Environment("5.0", "3.9", (*_OLD, "pyparsing>=2.0.3,<2.4.0", "kconfiglib==13.7.1")),
    Environment("5.1", "3.10", (*_OLD, "pyparsing>=3.0.3,<3.1", "esp-idf-kconfig>=1.1,<2", "esp-idf-monitor~=1.1")),
    Environment("5.2", "3.11", (*_MIDDLE, "esp-idf-kconfig>=1.4.2,<2", "pyparsing>=3.1.0,<4")),
    Environment("5.3", "3.12", (*_MIDDLE, "esp-idf-kconfig>=2.0.2,<3", "pyparsing>=3.1.0,<4")),
    Environment("5.4", "3.12", (*_MIDDLE, "esp-idf-kconfig>=2.5,<3", "pyparsing>=3.1.0,<4", "rich")),
    Environment("5.5", "3.9", (*_MIDDLE, "esp-idf-kconfig>=2.5,<3", "pyparsing>=3.1.0,<4", "rich")),
    Environment("5.5", "3.13", (*_MIDDLE, "esp-idf-kconfig>=2.5,<3", "pyparsing>=3.1.0,<4", "rich")),
    Environment("6.0", "3.10", (*_NEW, "esp-idf-kconfig>=3,<4")),
    Environment("6.0", "3.13", (*_NEW, "esp-idf-kconfig>=3,<4")),
)


def interpreter(version: str) -> str:
    """Return a Python of this version, from PATH or pyenv."""
    found = shutil.which(f"python{version}")
    candidates = [found] if found else []
    candidates += [str(path) for path in Path.home().glob(f".pyenv/versions/{version}.*/bin/python")]
    for candidate in candidates:
        if subprocess.run([candidate, "-c", ""], capture_output=True).returncode == 0:
            return candidate
    sys.exit(f"Python {version} not found on PATH or in ~/.pyenv.")


def uv(*arguments: str) -> str:
    """Run uv and return its stdout."""
    done = subprocess.run([sys.executable, "-m", "uv", "--quiet", *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"uv {' '.join(arguments)} failed:\n{done.stderr}")
    return done.stdout


def packages(python: str) -> dict[str, str]:
    """Return the installed packages, name to version."""
    return {p["name"]: p["version"] for p in json.loads(uv("pip", "list", "--format", "json", "--python", python))}


def install_into(environment: Environment, what: str, folder: Path) -> list[str]:
    """Create the environment, install `what`, and run the demo.

    Returns:
        The packages that were added, as ``name version``.
    """
    uv("venv", "--no-project", "--python", interpreter(environment.python), str(folder))
    python = str(folder / "bin" / "python")
    uv("pip", "install", "--python", python, *_EVERYWHERE, *environment.requirements)
    before = packages(python)
    uv("pip", "install", "--python", python, what)
    after = packages(python)
    moved = [f"{name} {version} -> {after.get(name)}" for name, version in before.items() if after.get(name) != version]
    if moved:
        sys.exit(f"ESP-IDF {environment.esp_idf}: {', '.join(moved)}")
    uv("pip", "check", "--python", python)
    home = {**os.environ, "PYTHONPATH": ""}
    demo = subprocess.run(
        [str(folder / "bin" / "esp-dfu"), "demo"], capture_output=True, text=True, env=home, cwd=folder
    )
    if demo.returncode or "matches the image" not in demo.stdout:
        sys.exit(f"ESP-IDF {environment.esp_idf}: the demo failed:\n{demo.stdout}{demo.stderr}")
    return [f"{name} {version}" for name, version in after.items() if name not in before]


def main() -> None:
    """Print a row for each environment; exit with a message at the first problem."""
    what = sys.argv[1] if len(sys.argv) > 1 else str(REPOSITORY)
    print("| ESP-IDF | Python | click | esptool | rich | added |")
    print("|---|---|---|---|---|---|")
    with TemporaryDirectory() as scratch:
        for number, environment in enumerate(ENVIRONMENTS):
            folder = Path(scratch, str(number))
            added = install_into(environment, what, folder)
            there = packages(str(folder / "bin" / "python"))
            versions = " | ".join(there[name] for name in ("click", "esptool", "rich"))
            print(f"| {environment.esp_idf} | {environment.python} | {versions} | {', '.join(added)} |", flush=True)


if __name__ == "__main__":
    main()
