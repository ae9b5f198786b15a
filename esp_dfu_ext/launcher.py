"""A program called `dfu-util` that runs `esp-dfu dfu-util`, and which program of that name comes first on PATH."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from .errors import OutputError
from .files import replace_file

NAME = "dfu-util"
_MARK = b"`esp-dfu disable --dfu-util` removes this file"
# The current folder comes first on Python's path with -c, and may be a stranger's project.
_RUN = "import sys; sys.path[:] = filter(None, sys.path); from esp_dfu_ext.cli import main_dfu_util; main_dfu_util()"


def launcher_folder(environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """Return the folder for the launcher, which contains nothing else."""
    home = Path(environ.get("HOME") or environ.get("USERPROFILE") or Path.home())
    if platform == "win32":
        data = Path(environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif platform == "darwin":
        data = home / "Library" / "Application Support"
    else:
        data = Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    return data / "esp-dfu-ext" / "bin"


def path_folders(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the folders of PATH, without empty entries."""
    return [folder for folder in environ.get("PATH", "").split(os.pathsep) if folder]


def on_path(folders: Sequence[str], platform: str = sys.platform) -> list[Path]:
    """Return each program `dfu-util` in these folders; the first one is the one that runs."""
    names = [f"{NAME}{ending}" for ending in (".exe", ".cmd", ".bat")] if platform == "win32" else [NAME]
    files = (Path(folder, name) for folder in dict.fromkeys(folders) for name in names)
    return [file for file in files if file.is_file() and os.access(file, os.X_OK)]


def is_launcher(program: Path) -> bool:
    """Return whether a program is the launcher; it may be of another Python's esp-dfu."""
    with suppress(OSError), program.open("rb") as file:
        return _MARK in file.read(1024)
    return False


def write_launcher(folder: Path, python: str = sys.executable, platform: str = sys.platform) -> Path:
    """Write the launcher, which runs this Python's esp-dfu, and return its path.

    Raises:
        OutputError: It cannot be written, or another program is in its place.
    """
    windows = platform == "win32"
    program = folder / (f"{NAME}.cmd" if windows else NAME)
    if os.path.lexists(program) and not is_launcher(program):
        raise OutputError(f"{program} is another program; it was not replaced.")
    mark = _MARK.decode()
    if windows:
        text = f'@rem {mark}.\r\n@"{python}" -c "{_RUN}" %*\r\n'
    else:
        text = f'#!/bin/sh\n# {mark}.\nexec {shlex.quote(python)} -c {shlex.quote(_RUN)} "$@"\n'
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replace_file(program, 0o755) as file:
            file.write(text.encode())
    except OSError as error:
        raise OutputError(f"{program} cannot be written: {error.strerror or error}.") from error
    return program


def remove_launcher(folder: Path, platform: str = sys.platform) -> list[Path]:
    """Remove the launcher, and the folder if it is empty then; return what was removed.

    Raises:
        OutputError: It cannot be removed.
    """
    removed = [program for program in on_path([str(folder)], platform) if is_launcher(program)]
    try:
        for program in removed:
            program.unlink()
    except OSError as error:
        raise OutputError(f"{error.filename} cannot be removed: {error.strerror or error}.") from error
    with suppress(OSError):  # something else is in it
        if removed:
            folder.rmdir()
    return removed
