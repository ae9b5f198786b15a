"""An ESP-IDF project: its chip, its flash memory, and which file goes to which address.

Reads build/project_description.json, sdkconfig and build/flasher_args.json as ESP-IDF 5.0 to 6.x write them (ESP-IDF,
tools/cmake/project_description.json.in; components/esptool_py/flasher_args.json.in).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from .errors import BuildFileError, EspDfuError, InputMissingError, NoTargetError, ProjectError
from .files import read_small
from .image.plan import FlashFile, FlashPlan
from .units import format_size, parse_size

FLASHER_ARGS = "flasher_args.json"
DESCRIPTION = "project_description.json"
DFU_BIN = "dfu.bin"

MOST_FILES = 1024  # far more than any ROM's index holds
LONGEST_FILE = 8 << 20  # bytes, eight times what large projects need; Python objects take 25 times as much

_CMAKE_TARGET = re.compile(r"^IDF_TARGET:\w+=(\S+)\s*$", re.MULTILINE)
_SDKCONFIG_KEY = re.compile(r"CONFIG_\w+")


@dataclass(frozen=True)
class Project:
    """A configured project.

    Attributes:
        project_dir: The project folder.
        build_dir: The build folder.
        name: The project's name, empty if unknown.
        target: The chip, as `idf.py set-target` names it.
        sdkconfig: The options that are set, without quotes.
        sources: The folders whose files may go into an image.
    """

    project_dir: Path
    build_dir: Path
    name: str
    target: str
    sdkconfig: dict[str, str]
    sources: tuple[Path, ...] = ()

    @property
    def secure_boot(self) -> bool:
        """Whether this project's bootloader enables Secure Boot."""
        return self.sdkconfig.get("CONFIG_SECURE_BOOT") == "y"

    @property
    def flash_encryption(self) -> bool:
        """Whether this project's bootloader enables flash encryption."""
        return self.sdkconfig.get("CONFIG_SECURE_FLASH_ENC_ENABLED") == "y"


@dataclass(frozen=True)
class FlasherArgs:
    """The part of build/flasher_args.json that DFU needs.

    Attributes:
        files: The flash files, by address.
        chip_size: Flash size from flash_settings in bytes, None if it is "detect" or "keep".
    """

    files: tuple[FlashFile, ...]
    chip_size: int | None


def read_project(build_dir: Path, project_dir: Path | None = None) -> Project:
    """Read a configured project.

    Args:
        build_dir: The build folder.
        project_dir: The project folder, None to find it from the build folder. That may come from a stranger, so a
            project folder found this way is one of the `sources` only if the build folder lies in it.

    Raises:
        InputMissingError: The build folder does not exist or cannot be read.
        NoTargetError: No target is set.
        BuildFileError: project_description.json is damaged.
        ProjectError: Another file cannot be read.
    """
    if not _exists_as(stat.S_ISDIR, build_dir, "build folder"):
        raise InputMissingError(f"The build folder {build_dir} does not exist.", path=build_dir, role="build folder")
    description = _read_description(build_dir)
    trusted = project_dir is not None
    if project_dir is None:
        project_dir = _find_project_dir(description, build_dir)
        trusted = _is_project_around(project_dir, build_dir)
    sources = (build_dir, project_dir) if trusted else (build_dir,)
    config_file = _local_path(description.get("config_file"), build_dir)
    if config_file is None or not os.path.isfile(config_file):  # noqa: PTH113
        config_file = project_dir / "sdkconfig"
    sdkconfig = _read_sdkconfig(config_file)
    target = description.get("target") or sdkconfig.get("CONFIG_IDF_TARGET") or _cmake_target(build_dir)
    if not isinstance(target, str) or not target:
        raise NoTargetError(f"{build_dir} does not name its target chip.")
    name = description.get("project_name")
    return Project(project_dir, build_dir, name if isinstance(name, str) else "", target, sdkconfig, sources)


def project_dir_of(build_dir: Path) -> Path:
    """Return the project folder of a build folder, as `read_project` finds it; never fails."""
    with suppress(EspDfuError, OSError):
        return _find_project_dir(_read_description(build_dir), build_dir)
    return _parent(build_dir)


def project_dir_of_image(dfu_bin: Path) -> Path:
    """Return the project folder of the build folder that contains a dfu.bin; never fails."""
    return project_dir_of(Path(os.path.realpath(dfu_bin)).parent)


def read_flasher_args(build_dir: Path) -> FlasherArgs:
    """Read build/flasher_args.json.

    Raises:
        InputMissingError: The file does not exist: nothing was built.
        BuildFileError: The file is damaged; the message names the key.
        ProjectError: The file cannot be read.
    """
    path = build_dir / FLASHER_ARGS
    if not _exists_as(stat.S_ISREG, path, FLASHER_ARGS):
        raise InputMissingError(f"{path} does not exist: the project has not been built.", path=path, role=FLASHER_ARGS)
    data = _read_json(path)
    sections = {
        (_address(path, f"{name}.offset", value["offset"]), value["file"]): (name, value.get("encrypted"))
        for name, value in data.items()
        if isinstance(value, dict) and isinstance(value.get("file"), str) and isinstance(value.get("offset"), str)
    }
    flash_files = data.get("flash_files", {})
    if not isinstance(flash_files, dict) or not all(isinstance(file, str) for file in flash_files.values()):
        raise BuildFileError(f'{path}: flash_files: expected an object such as {{"0x10000": "app.bin"}}')
    if len(flash_files) > MOST_FILES:
        raise BuildFileError(f"{path}: flash_files: expected at most {MOST_FILES} files, found {len(flash_files)}")
    files = {}
    for offset, file in flash_files.items():
        address = _address(path, "flash_files", offset)
        section, encrypted = sections.get((address, file), ("", None))
        files[address, file] = FlashFile(address, build_dir / file, section, encrypted in (True, "true"))
    settings = data.get("flash_settings")
    size = settings.get("flash_size") if isinstance(settings, dict) else None
    return FlasherArgs(tuple(files[key] for key in sorted(files)), _size_or_none(size))


def read_plan(project: Project) -> FlashPlan:
    """Read what the build wants in flash memory.

    Raises:
        InputMissingError, BuildFileError: As `read_flasher_args`.
        ProjectError: The flash size is not set or impossible, or a file cannot be read.
    """
    args = read_flasher_args(project.build_dir)
    return FlashPlan(_chip_size(project, args), args.files, project.secure_boot, project.flash_encryption)


def _chip_size(project: Project, args: FlasherArgs) -> int:
    # sdkconfig comes first: flash_settings.flash_size may be "detect" or "keep".
    size = _size_or_none(project.sdkconfig.get("CONFIG_ESPTOOLPY_FLASHSIZE")) or args.chip_size
    if not size:
        raise ProjectError(f"No flash size is set (CONFIG_ESPTOOLPY_FLASHSIZE in {project.project_dir}).")
    if size > 0xFFFFFFFF:
        raise ProjectError(f"The project sets a flash size of {format_size(size)}; no chip has that much.")
    return size


def is_inside(path: Path, project: Project) -> bool:
    """Return whether a path lies in one of the project's `sources`, before and after following symbolic links.

    ESP-IDF writes paths relative to the build folder, with ``..`` for a file from the project's own sources
    (ESP-IDF, components/esptool_py/project_include.cmake).
    """
    sources = [*project.sources, *(folder.resolve() for folder in project.sources)]
    with suppress(ValueError):  # a path that is not below the build folder stays as it is
        path = project.build_dir.resolve() / path.relative_to(project.build_dir)
    try:
        return _is_below(path, sources) and _is_below(Path(os.path.realpath(path)), sources)
    except ValueError:
        return True  # no file system accepts this name, so it leads nowhere


def _exists_as(kind: Callable[[int], bool], path: Path, role: str) -> bool:
    """Return whether a file of this kind exists.

    Raises:
        InputMissingError: The path is of another kind, or cannot be looked at.
    """
    try:
        found = kind(path.stat().st_mode)
    except OSError as error:
        missing = InputMissingError.of(error, path, role)
        if missing.reason == "missing":
            return False
        raise missing from error
    if not found:
        what = "folder" if kind is stat.S_ISDIR else "regular file"
        raise InputMissingError(f"{path} is not a {what}.", path=path, role=role, reason="no-file")
    return True


def _read_description(build_dir: Path) -> dict[str, Any]:
    path = build_dir / DESCRIPTION
    return _read_json(path) if _exists_as(stat.S_ISREG, path, DESCRIPTION) else {}


def _find_project_dir(description: dict[str, Any], build_dir: Path) -> Path:
    path = _local_path(description.get("project_path"), build_dir)
    return path if path is not None and os.path.isdir(path) else _parent(build_dir)  # noqa: PTH112


def _parent(build_dir: Path) -> Path:
    """Return the folder that contains the build folder, even if that is given as ``.`` or ``..``."""
    return build_dir.parent if build_dir.name not in ("", "..") else build_dir.resolve().parent


def _local_path(text: object, build_dir: Path) -> Path | None:
    """Return a path from project_description.json if it is absolute and not on another machine, or None.

    Windows would log in to another machine, and so send it the user's name and a hash of the password.
    """
    if not isinstance(text, str) or not os.path.isabs(text):  # noqa: PTH117
        return None
    drives = [os.path.splitdrive(path)[0].replace("/", "\\").lower() for path in (text, build_dir.absolute())]
    return None if drives[0].startswith("\\\\") and drives[0] != drives[1] else Path(text)


def _is_project_around(project_dir: Path, build_dir: Path) -> bool:
    """Return whether a folder is a project around the build folder; a downloaded one may lie in any folder."""
    around = _is_below(build_dir.absolute(), [project_dir, project_dir.resolve()])
    return around and os.path.isfile(project_dir / "CMakeLists.txt")  # noqa: PTH113


def _is_below(path: Path, folders: Iterable[Path]) -> bool:
    """Return whether a path lies in one of the folders, by its text alone: a network drive is not accessed."""
    text = os.path.normcase(os.path.normpath(path))
    return any(text.startswith(os.path.normcase(os.path.join(folder.absolute(), ""))) for folder in folders)  # noqa: PTH118


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = msgspec.json.decode(read_small(path, LONGEST_FILE))
    except OSError as error:
        raise ProjectError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BuildFileError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(data, dict):
        raise BuildFileError(f"{path} is not a JSON object.")
    return data


def _read_sdkconfig(path: Path) -> dict[str, str]:
    try:
        text = read_small(path, LONGEST_FILE).decode("utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    except OSError as error:
        # Not the same as no options: that would hide Secure Boot and the flash size.
        raise ProjectError(f"{path} cannot be read: {error.strerror or error}.") from error
    options = {}
    for line in text.split("\n"):
        key, _, value = line.partition("=")
        value = value.strip()
        if _SDKCONFIG_KEY.fullmatch(key):
            options[key] = value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value
    return options


def _cmake_target(build_dir: Path) -> str | None:
    try:
        text = read_small(build_dir / "CMakeCache.txt", LONGEST_FILE).decode("utf-8", errors="replace")
    except OSError:
        return None
    match = _CMAKE_TARGET.search(text)
    return match[1] if match else None


def _address(path: Path, key: str, text: str) -> int:
    try:
        address = int(text, 0)
    except ValueError:
        address = -1
    if not 0 <= address <= 0xFFFFFFFF:
        raise BuildFileError(f"{path}: {key}: invalid flash address {text!r}; expected a number such as 0x10000")
    return address


def _size_or_none(text: object) -> int | None:
    try:
        return parse_size(text) if isinstance(text, str) else None
    except ValueError:
        return None
