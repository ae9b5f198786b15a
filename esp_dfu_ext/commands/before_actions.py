"""What is checked on idf.py's command line before any action runs, as a build takes minutes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputMissingError, NoTargetError, ProjectError
from ..files import read_small
from ..inputs.esp_idf import read_project
from ..target import load_target, target_names
from ..usb.system_port import SerialSystem
from .session import SIMULATE_VARIABLE, Session

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


def board_port(ctx: Any, args: Any, chosen: Mapping[str, Any]) -> str | None:
    """Return the serial port of ``idf.py -p PORT dfu-flash``, or of ESPPORT, if it is that of the board to flash.

    ESPPORT is set once, for all commands and boards: it is left out if it names no port of this computer, or if several
    boards are to be flashed.

    Args:
        ctx: idf.py's context.
        args: idf.py's own options.
        chosen: Options of dfu-flash.
    """
    port = chosen.get("port") or getattr(args, "port", None)
    if not port or chosen.get("port") or chosen.get("over") == "serial":
        return port
    if _needs_no_port(chosen):
        return None
    if not _typed(ctx, port) and (os.environ.get(SIMULATE_VARIABLE) or SerialSystem().has_left(port)):
        return None
    return str(port)


def port_without_effect(ctx: Any, args: Any, tasks: Sequence[Any]) -> str | None:
    """Return the serial port of ``idf.py -p PORT dfu-flash`` if it was typed and no action uses it, else None."""
    port = getattr(args, "port", None)
    flashes = [task for task in tasks if task.name == "dfu-flash"]
    if not port or not flashes or not all(_needs_no_port(task.action_args) for task in flashes):
        return None
    if not _typed(ctx, port):
        return None
    commands = (ctx.command.get_command(ctx, task.name) for task in tasks if task not in flashes)
    if any(option.name == "port" for command in commands for option in command.params):
        return None
    return str(port)


def _typed(ctx: Any, port: str) -> bool:
    """Return whether the port was typed: ESPPORT alone does not count."""
    return bool(ctx.get_parameter_source("port").name == "COMMANDLINE" or port != os.environ.get("ESPPORT"))


def _needs_no_port(chosen: Mapping[str, Any]) -> bool:
    """Return whether dfu-flash flashes several boards, or none that is real."""
    several = chosen.get("all") or chosen.get("watch") or len(set(chosen.get("path") or ())) > 1
    return chosen.get("over") != "serial" and bool(several or chosen.get("simulate"))


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
