"""What is checked on idf.py's command line before any action runs, as a build takes minutes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputMissingError, NoTargetError, ProjectError
from ..files import read_small
from ..inputs.esp_idf import read_project
from ..target import load_target, target_names
from .session import Session

_LONGEST = 8 << 20  # bytes of a project's text files
_SET_TARGET = re.compile(r'^CONFIG_IDF_TARGET="([^"]+)"$', re.MULTILINE)
_NAMES_TARGET = ("CMakeLists.txt", "CMakePresets.json", "CMakeUserPresets.json")  # files that may set IDF_TARGET


def refuse_wrong_chip(session: Session, build_dir: Path, definitions: Sequence[str] = ()) -> int:
    """Check that the chip of the build, or the one that idf.py would configure it for, can be flashed over USB.

    Args:
        session: The command; its project folder is the one that idf.py names.
        build_dir: The build folder, which need not exist.
        definitions: What idf.py's ``-D`` sets, ``NAME=VALUE`` or ``NAME:TYPE=VALUE``.

    Raises:
        NoTargetError: The project is not configured, and nothing says for which chip.
        TargetNotSupportedError: The chip has no USB DFU, or no file describes it.
        TargetFileError: The file of the chip cannot be used.
    """
    project_dir = session.project_dir
    target: str | None
    try:
        target = read_project(build_dir, project_dir).target
    except (InputMissingError, NoTargetError):
        if not os.path.isfile(project_dir / "CMakeLists.txt"):  # noqa: PTH113 (Path raises without permission)
            return 0  # idf.py says it better
        target = _future_target(project_dir, definitions)
        if target is None and _may_set_target(project_dir):
            return 0
        if target is None:
            message = f"The project {project_dir} has no target chip yet; idf.py would build it for ESP-IDF's default."
            notes = [f"Chips with USB DFU: {', '.join(target_names(project_dir))}."]
            raise NoTargetError(message, notes=notes) from None
    except ProjectError:
        return 0  # the build writes the file again
    load_target(target, project_dir)
    return 0


def port_without_effect(ctx: Any, args: Any, tasks: Sequence[Any]) -> str | None:
    """Return the serial port of ``idf.py -p PORT dfu-flash``, or None if none was typed or an action uses it.

    ESPPORT alone does not count: it is set once, for all commands.
    """
    port = getattr(args, "port", None)
    flashes = [task for task in tasks if task.name == "dfu-flash"]
    if not port or not flashes or any(task.action_args.get("over") == "serial" for task in flashes):
        return None
    if ctx.get_parameter_source("port").name != "COMMANDLINE":
        return None
    commands = (ctx.command.get_command(ctx, task.name) for task in tasks if task not in flashes)
    if any(option.name == "port" for command in commands for option in command.params):
        return None
    return str(port)


def _future_target(project_dir: Path, definitions: Sequence[str]) -> str | None:
    """Return the chip that idf.py would configure the project for; None stands for ESP-IDF's default.

    The order is that of ESP-IDF, tools/cmake/targets.cmake, __target_init.
    """
    variables: dict[str, str] = {}
    for definition in definitions:
        name, _, value = definition.partition("=")
        variables[name.partition(":")[0]] = value
    target = os.environ.get("IDF_TARGET") or variables.get("IDF_TARGET")
    if target:
        return target
    for file in _configuration_files(project_dir, variables):
        found = _SET_TARGET.search(_text(file))
        if found:
            return found[1]
    return None


def _configuration_files(project_dir: Path, variables: dict[str, str]) -> Iterator[Path]:
    if "SDKCONFIG" in variables:
        yield project_dir / variables["SDKCONFIG"]
    yield project_dir / "sdkconfig"
    defaults = variables.get("SDKCONFIG_DEFAULTS") or os.environ.get("SDKCONFIG_DEFAULTS") or "sdkconfig.defaults"
    for name in defaults.split(";"):
        yield project_dir / name


def _may_set_target(project_dir: Path) -> bool:
    return any("IDF_TARGET" in _text(project_dir / name) for name in _NAMES_TARGET)


def _text(file: Path) -> str:
    try:
        return read_small(file, _LONGEST).decode("utf-8", errors="replace")
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return ""
