"""`enable` and `disable` the actions of idf.py; up to ESP-IDF 5.5, idf.py finds no installed extension by itself."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import OutputError, ProjectError
from ..files import read_small, replace_file
from ..paths import EXTRA_ACTIONS, extra_actions_folders, extra_actions_path
from ..units import quoted
from .session import Session

FILE_NAME = "idf_ext.py"
_BEGIN = "# esp-dfu enable: idf.py dfu, dfu-list, dfu-flash and dfu-doctor without dfu-util"
_END = "# esp-dfu enable: end; `esp-dfu disable` removes these lines"
# For the end of any idf_ext.py, or alone. It works without the package, too, and keeps the actions above it.
BLOCK = f"""\
{_BEGIN}
def action_extensions(base_actions, project_path, own=globals().get("action_extensions")):  # noqa: F811
    try:
        from esp_dfu_ext import action_extensions as dfu

        dfu(base_actions, project_path)
    except Exception:  # idf.py must work for those who have not installed it

        def before_actions(ctx, args, tasks):
            if any(getattr(task, "name", "").startswith("dfu") for task in tasks):
                import sys

                text = "idf.py uses dfu-util, as esp-dfu-ext is not installed. To install it: pip install esp-dfu-ext"
                print(text, file=sys.stderr)

        base_actions.setdefault("global_action_callbacks", []).append(before_actions)
    return own(base_actions, project_path) if own else {{"version": "1"}}


{_END}
"""
_SPACE = "\n\n"  # before the block, as PEP 8 has it
_OURS = re.compile(rf"(?:(?:\r?\n){{2}})?{re.escape(_BEGIN)}\r?\n.*?{re.escape(_END)}(?:\r?\n)?", re.DOTALL)
# What earlier versions wrote, alone in a file: a comment that names the command to undo it, and an import.
_EARLIER = re.compile(
    r"#[^\n]*`esp-dfu disable`[^\n]*\n"
    r"(?:from esp_dfu_ext import action_extensions\n"
    r"|try:\n    from esp_dfu_ext import action_extensions\nexcept Exception:.*print\(text, file=sys\.stderr\)\n\n"
    r'        return \{"version": "1", "global_action_callbacks": \[before_actions\]\}\n)',
    re.DOTALL,
)
_LONGEST = 1 << 20  # bytes; an idf_ext.py has a few thousand


def enable(session: Session, project_dir: Path) -> int:
    """Write the project's idf_ext.py, or add to the end of an existing one.

    Raises:
        ProjectError: The folder is not an ESP-IDF project.
        OutputError: The file cannot be written.
    """
    _must_be_project(project_dir)
    file, console = project_dir / FILE_NAME, session.console
    text = _read(file)
    own = "" if text is None or _EARLIER.fullmatch(text) else text
    if "esp_dfu_ext" in own:
        console.result(f"{file} already has the dfu actions.")
        return 0
    end = "\r\n" if "\r\n" in own else "\n"
    before = "" if own.endswith("\n") else "\n"
    _write(file, own + f"{before}{_SPACE}{BLOCK}".replace("\n", end) if own else BLOCK)
    if own:
        console.result(f"Added the dfu actions to the end of {file}; your own actions stay.")
    else:
        console.result(f"Wrote {file}.")
    console.info("ESP-IDF 6.0 and later do not need this file, but it does no harm.")
    here = project_dir.resolve() == Path.cwd()
    console.info("Try it", command=quoted(["idf.py", *([] if here else ["-C", str(project_dir)]), "dfu-list"]))
    return 0


def disable(session: Session, project_dir: Path) -> int:
    """Remove what `enable` wrote, and the file if nothing else is in it.

    Raises:
        OutputError: The file cannot be changed or removed.
    """
    file, console = project_dir / FILE_NAME, session.console
    text = _read(file)
    if text is None or "esp_dfu_ext" not in text:
        console.result(f"{_named(project_dir)} contains nothing that `esp-dfu enable` wrote.")
        return 0
    left = "" if _EARLIER.fullmatch(text) else _OURS.sub("", text)
    if "esp_dfu_ext" in left:
        console.result(f"{file} contains more than `esp-dfu enable` wrote, and was not changed.", good=False)
        console.info("Remove the lines that name esp_dfu_ext.")
        return ProjectError.exit_code
    if left:
        _write(file, left)
        console.result(f"Removed the dfu actions from {file}.")
        return 0
    try:
        file.unlink()
    except OSError as error:
        raise OutputError(f"{file} cannot be removed: {error.strerror or error}.") from error
    console.result(f"Removed {file}.")
    return 0


def enable_shell(session: Session) -> int:
    """Print the shell command that enables all projects in a shell; for ``eval``, so alone on stdout."""
    folders, ours = extra_actions_folders(), extra_actions_path()
    session.console.data(_assignment(folders if ours in folders else [*folders, ours]))
    if sys.stdout is not None and sys.stdout.isatty():
        session.console.on_stderr().info(
            "To enable it in every new shell, add this line to its startup file, after ESP-IDF's export script."
        )
    return 0


def disable_shell(session: Session) -> int:
    """Print the shell command that undoes `enable_shell`."""
    session.console.data(_assignment([folder for folder in extra_actions_folders() if folder != extra_actions_path()]))
    return 0


def _assignment(folders: Sequence[str]) -> str:
    """Return a command that sets the variable, in PowerShell on Windows, in fish or a POSIX shell elsewhere."""
    value = ";".join(folders)
    if sys.platform == "win32":
        quoted = value.replace("'", "''")
        return f"$env:{EXTRA_ACTIONS} = '{quoted}'"
    if Path(os.environ.get("SHELL", "")).name == "fish":
        return f"set -gx {EXTRA_ACTIONS} {shlex.quote(value)}"
    return f"export {EXTRA_ACTIONS}={shlex.quote(value)}"


def _must_be_project(folder: Path) -> None:
    if not folder.exists():
        raise ProjectError(f"The folder {folder} does not exist.")
    if not (folder / "CMakeLists.txt").is_file():
        raise ProjectError(f"{_named(folder)} is not an ESP-IDF project: it has no CMakeLists.txt.")


def _named(folder: Path) -> str:
    return "This folder" if folder == Path() else str(folder)


def _write(file: Path, text: str) -> None:
    try:
        with replace_file(file.resolve()) as new:  # a link stays one
            new.write(text.encode())
    except OSError as error:
        raise OutputError(f"{file} cannot be written: {error.strerror or error}.") from error


def _read(file: Path) -> str | None:
    try:
        return read_small(file, _LONGEST).decode("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ProjectError(f"{file} cannot be read: {reason}.") from error
