"""An ESP-IDF project: for which chip, with which flash, and what goes where.

Reads build/project_description.json, sdkconfig and build/flasher_args.json as ESP-IDF 5.0 to 6.x write
them (ESP-IDF, tools/cmake/project_description.json.in; components/esptool_py/flasher_args.json.in).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from .errors import (
    BuildFileError,
    EspDfuError,
    InputMissingError,
    NoTargetError,
    ProjectError,
    UsageError,
)
from .files import read_small
from .image.layout import FlashFile
from .units import format_size, parse_size

FLASHER_ARGS = "flasher_args.json"
DESCRIPTION = "project_description.json"
DFU_BIN = "dfu.bin"

MOST_FILES = 1024  # far more than any ROM's index holds
LONGEST_FILE = 8 << 20  # bytes, eight times what large projects have; as Python objects 25 times as much

_CMAKE_TARGET = re.compile(r"^IDF_TARGET:\w+=(\S+)\s*$", re.MULTILINE)
_SDKCONFIG_KEY = re.compile(r"CONFIG_\w+")


@dataclass(frozen=True)
class Project:
    """What a configured project says of itself.

    Attributes:
        project_dir: its folder.
        build_dir: its build folder.
        name: of the project, empty if it does not say.
        target: as `idf.py set-target` knows it.
        sdkconfig: the options that are set, without quotes.
        sources: the folders whose files may go into an image.
    """

    project_dir: Path
    build_dir: Path
    name: str
    target: str
    sdkconfig: dict[str, str]
    sources: tuple[Path, ...] = ()

    @property
    def secure_boot(self) -> bool:
        """The bootloader of this project switches Secure Boot on."""
        return self.sdkconfig.get("CONFIG_SECURE_BOOT") == "y"

    @property
    def flash_encryption(self) -> bool:
        """The bootloader of this project switches flash encryption on."""
        return self.sdkconfig.get("CONFIG_SECURE_FLASH_ENC_ENABLED") == "y"


@dataclass(frozen=True)
class FlasherArgs:
    """build/flasher_args.json, as far as DFU needs it.

    Attributes:
        files: what goes where, by address.
        chip_size: from flash_settings, in bytes; None where it says "detect" or "keep".
    """

    files: tuple[FlashFile, ...]
    chip_size: int | None


def read_project(build_dir: Path, project_dir: Path | None = None) -> Project:
    """Read a configured project.

    Args:
        build_dir: its build folder.
        project_dir: its folder; None where the build folder must tell. That may come from a stranger: then only
            a project around the build folder is one of the `sources`.

    Raises:
        InputMissingError: there is no build folder, or it may not be read.
        NoTargetError: no target is set.
        BuildFileError: project_description.json is damaged.
        ProjectError: its files cannot be read.
    """
    if not _is(stat.S_ISDIR, build_dir, "build folder"):
        raise InputMissingError(f"There is no build folder {build_dir}.", path=build_dir, role="build folder")
    description = _description(build_dir)
    trusted = project_dir is not None
    if project_dir is None:
        project_dir = _project_dir(description, build_dir)
        trusted = _is_around(project_dir, build_dir)
    sources = (build_dir, project_dir) if trusted else (build_dir,)
    said = _said_path(description.get("config_file"), build_dir)
    config_file = said if said is not None and os.path.isfile(said) else project_dir / "sdkconfig"  # noqa: PTH113
    sdkconfig = _read_sdkconfig(config_file)
    target = description.get("target") or sdkconfig.get("CONFIG_IDF_TARGET") or _cmake_target(build_dir)
    if not isinstance(target, str) or not target:
        raise NoTargetError(f"{build_dir} does not say which chip it is for.")
    name = description.get("project_name")
    return Project(project_dir, build_dir, name if isinstance(name, str) else "", target, sdkconfig, sources)


def project_of(build_dir: Path) -> Path:
    """The folder of the project that a build folder is of, as `read_project` finds it; never fails."""
    with suppress(EspDfuError, OSError):
        return _project_dir(_description(build_dir), build_dir)
    return _parent(build_dir)


def project_of_image(dfu_bin: Path) -> Path:
    """The same for the build folder that a dfu.bin lies in; never fails."""
    return project_of(Path(os.path.realpath(dfu_bin)).parent)


def read_flasher_args(build_dir: Path) -> FlasherArgs:
    """Read what the build wants in the flash.

    Raises:
        InputMissingError: the file is not there: nothing was built.
        BuildFileError: the file is damaged; the message names the key.
        ProjectError: it cannot be read.
    """
    path = build_dir / FLASHER_ARGS
    if not _is(stat.S_ISREG, path, FLASHER_ARGS):
        raise InputMissingError(f"There is no {path}: the project is not built.", path=path, role=FLASHER_ARGS)
    data = _read_json(path)
    sections = {
        (_address(path, f"{name}.offset", value["offset"]), value["file"]): (name, value.get("encrypted"))
        for name, value in data.items()
        if isinstance(value, dict) and isinstance(value.get("file"), str) and isinstance(value.get("offset"), str)
    }
    flash_files = data.get("flash_files", {})
    if not isinstance(flash_files, dict) or not all(isinstance(file, str) for file in flash_files.values()):
        raise BuildFileError(f'{path}: flash_files: must be an object such as {{"0x10000": "app.bin"}}')
    if len(flash_files) > MOST_FILES:
        raise BuildFileError(f"{path}: flash_files: has {len(flash_files)} files; more than {MOST_FILES} are not read")
    files = {}
    for offset, file in flash_files.items():
        address = _address(path, "flash_files", offset)
        section, encrypted = sections.get((address, file), ("", None))
        files[address, file] = FlashFile(address, build_dir / file, section, encrypted in (True, "true"))
    settings = data.get("flash_settings")
    size = settings.get("flash_size") if isinstance(settings, dict) else None
    return FlasherArgs(tuple(files[key] for key in sorted(files)), _size_or_none(size))


def chip_size(project: Project, args: FlasherArgs) -> int:
    """Bytes of flash on the board, as the project is configured.

    sdkconfig comes first: ``flash_settings.flash_size`` may be "detect" or "keep".

    Raises:
        ProjectError: neither of them says.
    """
    size = _size_or_none(project.sdkconfig.get("CONFIG_ESPTOOLPY_FLASHSIZE")) or args.chip_size
    if size is not None and size > 0xFFFFFFFF:
        raise ProjectError(f"The project says that the flash has {format_size(size)}; no chip has that much.")
    if not size:
        raise ProjectError(
            f"The project does not say how large the flash is (CONFIG_ESPTOOLPY_FLASHSIZE in {project.project_dir})."
        )
    return size


def inside(path: Path, project: Project) -> bool:
    """Whether a path lies in one of the project's `sources`, before and after symbolic links are followed.

    ESP-IDF writes paths relative to the build folder, with ``..`` for a file that the project itself brings along
    (ESP-IDF, components/esptool_py/project_include.cmake).
    """
    sources = [*project.sources, *(folder.resolve() for folder in project.sources)]
    with suppress(ValueError):  # what is not below it is as it is
        path = project.build_dir.resolve() / path.relative_to(project.build_dir)
    try:
        return _is_below(path, sources) and _is_below(Path(os.path.realpath(path)), sources)
    except ValueError:
        return True  # a name that no file system takes leads nowhere


def only(files: Collection[FlashFile], sections: Collection[str]) -> list[FlashFile]:
    """The files of some sections of flasher_args.json; all of them if no section is named.

    Raises:
        UsageError: there is no such section; the message names those that are there.
    """
    if not sections:
        return list(files)
    known = sorted({file.section for file in files if file.section})
    for section in sections:
        if section not in known:
            raise UsageError(
                f"There is no section {section!r} in {FLASHER_ARGS}; there are {', '.join(known) or 'none'}."
            )
    return [file for file in files if file.section in sections]


def _is(kind: Callable[[int], bool], path: Path, role: str) -> bool:
    """Whether a file of this kind is there; False if there is none.

    Raises:
        InputMissingError: that cannot be told, or it is of another kind.
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
        raise InputMissingError(f"{path} is no {what}.", path=path, role=role, reason="no-file")
    return True


def _description(build_dir: Path) -> dict[str, Any]:
    path = build_dir / DESCRIPTION
    return _read_json(path) if _is(stat.S_ISREG, path, DESCRIPTION) else {}


def _project_dir(description: dict[str, Any], build_dir: Path) -> Path:
    said = _said_path(description.get("project_path"), build_dir)
    return said if said is not None and os.path.isdir(said) else _parent(build_dir)  # noqa: PTH112


def _parent(build_dir: Path) -> Path:
    """The folder around the build folder, also where that is named ``.`` or ``..``."""
    return build_dir.parent if build_dir.name not in ("", "..") else build_dir.resolve().parent


def _said_path(said: object, build_dir: Path) -> Path | None:
    """A path as ESP-IDF writes it: absolute, and on no foreign machine, to which Windows would send a login."""
    if not isinstance(said, str) or not os.path.isabs(said):  # noqa: PTH117
        return None
    drives = [os.path.splitdrive(path)[0].replace("/", "\\").lower() for path in (said, build_dir.absolute())]
    return None if drives[0].startswith("\\\\") and drives[0] != drives[1] else Path(said)


def _is_around(project_dir: Path, build_dir: Path) -> bool:
    """Whether it is a project and the build folder lies in it: around one that came alone lies anything."""
    around = _is_below(build_dir.absolute(), [project_dir, project_dir.resolve()])
    return around and os.path.isfile(project_dir / "CMakeLists.txt")  # noqa: PTH113


def _is_below(path: Path, folders: Iterable[Path]) -> bool:
    """Whether a path lies in one of the folders, by its text alone: nothing is touched, not even a network drive."""
    text = os.path.normcase(os.path.normpath(path))
    return any(text.startswith(os.path.normcase(os.path.join(folder.absolute(), ""))) for folder in folders)  # noqa: PTH118


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = msgspec.json.decode(read_small(path, LONGEST_FILE))
    except OSError as error:
        raise ProjectError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BuildFileError(f"{path} is no JSON: {error}.") from error
    if not isinstance(data, dict):
        raise BuildFileError(f"{path} is no JSON object.")
    return data


def _read_sdkconfig(path: Path) -> dict[str, str]:
    try:
        text = read_small(path, LONGEST_FILE).decode("utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    except OSError as error:
        # Not taken for "no options": that would hide Secure Boot and the size of the flash.
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
        raise BuildFileError(f"{path}: {key}: {text!r} is no flash address; it must be a number such as 0x10000")
    return address


def _size_or_none(text: object) -> int | None:
    try:
        return parse_size(text) if isinstance(text, str) else None
    except ValueError:
        return None
