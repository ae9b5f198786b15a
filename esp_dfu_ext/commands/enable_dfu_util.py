"""`enable --dfu-util` and `disable --dfu-util`: a program called `dfu-util` for everything that calls dfu-util."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import UsageError
from ..launcher import is_launcher, launcher_folder, on_path, path_folders, remove_launcher, write_launcher
from .session import Session

_PYTHON_OF_IDF = "IDF_PYTHON_ENV_PATH"


def enable(session: Session, *, force: bool, vscode: bool) -> int:
    """Write the launcher and print the shell command that puts it on PATH; for ``eval``, so alone on stdout.

    Args:
        session: State of this invocation.
        force: Put it before a dfu-util that is installed.
        vscode: Write it into ESP-IDF's Python environment instead, which VS Code's extension puts on PATH.

    Raises:
        UsageError: ESP-IDF's Python environment is not known.
        OutputError: The launcher cannot be written.
    """
    console = session.console.on_stderr()
    if vscode:
        folder = _environment_of_idf()
        _must_not_hide(folder, force=force)
        console.result(f"Wrote {write_launcher(folder)}.")
        console.info("ESP-IDF's export script and its extension for VS Code put this folder on PATH.")
        return 0
    folder = launcher_folder()
    write_launcher(folder)
    others = [name for name in path_folders() if name != str(folder)]
    installed = [program for program in on_path(others) if not is_launcher(program)]
    session.console.data(_assignment([str(folder), *others] if force or not installed else [*others, str(folder)]))
    if installed and not force:
        console.warn(f"{installed[0]} still comes first. To have esp-dfu answer in its place, add --force.")
    if sys.stdout.isatty():
        console.info(f'Wrote {folder}. The line above puts it on PATH: eval "$(esp-dfu enable --dfu-util)"')
    return 0


def disable(session: Session) -> int:
    """Remove the launchers, and print the shell command that takes the folder off PATH.

    Raises:
        OutputError: A launcher cannot be removed.
    """
    folder = launcher_folder()
    folders = [folder, *filter(None, [_python_of_idf()])]
    removed = [program for place in folders for program in remove_launcher(place)]
    session.console.data(_assignment([name for name in path_folders() if name != str(folder)]))
    console = session.console.on_stderr()
    for program in removed:
        console.result(f"Removed {program}.")
    if not removed:
        console.result("There was no dfu-util of esp-dfu's.")
    return 0


def _must_not_hide(folder: Path, *, force: bool) -> None:
    installed = [program for program in on_path(path_folders()) if not is_launcher(program)]
    if installed and not force:
        raise UsageError(
            f"{installed[0]} is installed, and {folder} comes before it in ESP-IDF's shells. Add --force to hide it."
        )


def _environment_of_idf() -> Path:
    folder = _python_of_idf()
    if folder is None:
        raise UsageError(
            f"ESP-IDF's Python environment is not known: {_PYTHON_OF_IDF} is not set. Run its export script."
        )
    return folder


def _python_of_idf() -> Path | None:
    """Return the folder of programs of ESP-IDF's Python environment, if this shell names one."""
    named = os.environ.get(_PYTHON_OF_IDF)
    return Path(named) / ("Scripts" if sys.platform == "win32" else "bin") if named else None


def _assignment(folders: Sequence[str]) -> str:
    """Return a command that sets PATH, in PowerShell on Windows, in fish or a POSIX shell elsewhere."""
    if sys.platform == "win32":
        value = os.pathsep.join(folders).replace("'", "''")
        return f"$env:PATH = '{value}'"
    if Path(os.environ.get("SHELL", "")).name == "fish":
        return f"set -gx PATH {' '.join(map(shlex.quote, folders))}"
    return f"export PATH={shlex.quote(os.pathsep.join(folders))}"
