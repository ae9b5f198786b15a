"""An ESP-IDF project: its chip, its flash memory, and which file goes to which address.

Reads build/project_description.json, build/config/sdkconfig.json, sdkconfig and build/flasher_args.json as ESP-IDF 5.0
to 6.x write them (ESP-IDF, tools/cmake/project_description.json.in; components/esptool_py/flasher_args.json.in). A
build folder that was copied from another machine may have only the last one, and the images.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BuildFileError, EspDfuError, InputMissingError, NoTargetError
from ..image.plan import FlashFile, FlashPlan
from ..image.security import Security
from . import build_files as files
from .sdkconfig import read_built_options, read_sdkconfig

FLASHER_ARGS = "flasher_args.json"
DESCRIPTION = "project_description.json"
DFU_BIN = "dfu.bin"

_CMAKE_TARGET = re.compile(r"^IDF_TARGET:\w+=(\S+)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class FlasherArgs:
    """The part of build/flasher_args.json that DFU needs.

    Attributes:
        files: The flash files, by address.
        chip_size: Flash size from flash_settings in bytes, None if it is "detect" or "keep".
        chip: The chip that esptool is called for, empty if the file does not say.
        before: How esptool is told to reset the chip before a flash, with hyphens; empty if the file does not say.
        after: The same for after a flash.
    """

    files: tuple[FlashFile, ...]
    chip_size: int | None
    chip: str = ""
    before: str = ""
    after: str = ""


@dataclass(frozen=True)
class Project:
    """A configured project.

    Attributes:
        project_dir: The project folder.
        build_dir: The build folder.
        name: The project's name, empty if unknown.
        target: The chip, as `idf.py set-target` names it; empty if no file names it.
        sdkconfig: The options that are set, as in sdkconfig, without quotes. Empty if neither sdkconfig nor
            build/config/sdkconfig.json exists: then nothing is known about Secure Boot and flash encryption.
        sources: The folders whose files may go into an image.
        flasher_args: What build/flasher_args.json says, None if it was not needed to find the chip.
    """

    project_dir: Path
    build_dir: Path
    name: str
    target: str
    sdkconfig: dict[str, str]
    sources: tuple[Path, ...] = ()
    flasher_args: FlasherArgs | None = None

    @property
    def security(self) -> Security:
        """The security features that this project enables."""
        return Security.of(self.sdkconfig)


def read_project(build_dir: Path, project_dir: Path | None = None) -> Project:
    """Read a configured project.

    Args:
        build_dir: The build folder.
        project_dir: The project folder, None to find it from the build folder. That may come from a stranger, so a
            project folder found this way is one of the `sources` only if the build folder lies in it.

    Raises:
        InputMissingError: The build folder does not exist or cannot be read.
        NoTargetError: No file names the chip.
        BuildFileError: A file of the build folder is damaged.
        ProjectError: Another file cannot be read.
    """
    project = find_project(build_dir, project_dir)
    if not project.target:
        raise NoTargetError(f"{build_dir} does not name its target chip.", path=build_dir)
    return project


def find_project(build_dir: Path, project_dir: Path | None = None) -> Project:
    """Read a project as `read_project` does, even if no file names its chip."""
    if not files.is_folder(build_dir, "build folder"):
        raise InputMissingError(f"The build folder {build_dir} does not exist.", path=build_dir, role="build folder")
    description = _read_description(build_dir)
    trusted = project_dir is not None
    if project_dir is None:
        project_dir = _find_project_dir(description, build_dir)
        trusted = _is_project_around(project_dir, build_dir)
    sources = (build_dir, project_dir) if trusted else (build_dir,)
    built = read_built_options(build_dir)
    target, args = _own_target(description, built, build_dir)
    sdkconfig = _sdkconfig_of(description, build_dir, project_dir, target)
    target = target or sdkconfig.get("CONFIG_IDF_TARGET") or _cmake_target(build_dir)
    name = description.get("project_name")
    options = {**built, **sdkconfig}
    return Project(project_dir, build_dir, name if isinstance(name, str) else "", target, options, sources, args)


def _own_target(description: dict[str, Any], built: dict[str, str], build_dir: Path) -> tuple[str, FlasherArgs | None]:
    """Return the chip that the build folder itself names, empty if it names none, and flasher_args.json if needed."""
    target = description.get("target") or built.get("CONFIG_IDF_TARGET")
    if isinstance(target, str) and target:
        return target, None
    try:
        args = read_flasher_args(build_dir)
    except InputMissingError:
        return "", None
    return args.chip, args


def _sdkconfig_of(description: dict[str, Any], build_dir: Path, project_dir: Path, target: str) -> dict[str, str]:
    """Return the options of the project's sdkconfig; none if it is for another chip, and so not of this build."""
    path = files.local_path(description.get("config_file"), build_dir)
    if path is None or not os.path.isfile(path):  # noqa: PTH113
        path = project_dir / "sdkconfig"
    sdkconfig = read_sdkconfig(path)
    return sdkconfig if sdkconfig.get("CONFIG_IDF_TARGET", target) in (target, "") or not target else {}


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
    if not files.is_regular_file(path, FLASHER_ARGS):
        raise InputMissingError(f"{path} does not exist: the project has not been built.", path=path, role=FLASHER_ARGS)
    data = files.read_json(path)
    sections = {
        (files.address(path, f"{name}.offset", value["offset"]), value["file"]): (name, value.get("encrypted"))
        for name, value in data.items()
        if isinstance(value, dict) and isinstance(value.get("file"), str) and isinstance(value.get("offset"), str)
    }
    flash_files = data.get("flash_files", {})
    if not isinstance(flash_files, dict) or not all(isinstance(file, str) for file in flash_files.values()):
        raise BuildFileError(f'{path}: flash_files: expected an object such as {{"0x10000": "app.bin"}}')
    if len(flash_files) > files.MOST_FILES:
        raise BuildFileError(
            f"{path}: flash_files: expected at most {files.MOST_FILES} files, found {len(flash_files)}"
        )
    found = {}
    for offset, file in flash_files.items():
        at = files.address(path, "flash_files", offset)
        section, encrypted = sections.get((at, file), ("", None))
        found[at, file] = FlashFile(at, build_dir / file, section, encrypted in (True, "true"))
    settings, extra = data.get("flash_settings"), data.get("extra_esptool_args")
    size = settings.get("flash_size") if isinstance(settings, dict) else None
    chip, before, after = _texts(extra, "chip", "before", "after")
    listed = tuple(found[key] for key in sorted(found))
    return FlasherArgs(
        listed,
        files.size_or_none(size),
        chip if chip != "auto" else "",
        before.replace("_", "-"),  # ESP-IDF before 6.0 writes esptool's older words
        after.replace("_", "-"),
    )


def _texts(values: Any, *keys: str) -> list[str]:
    """Return the values of some keys, empty where there is no text."""
    found = [values.get(key) if isinstance(values, dict) else None for key in keys]
    return [value if isinstance(value, str) else "" for value in found]


def read_plan(project: Project) -> FlashPlan:
    """Read what the build wants in flash memory.

    Raises:
        InputMissingError, BuildFileError: As `read_flasher_args`.
        ProjectError: A file cannot be read.
    """
    args = project.flasher_args or read_flasher_args(project.build_dir)
    # The options come first: flash_settings.flash_size may be "detect" or "keep".
    size = files.size_or_none(project.sdkconfig.get("CONFIG_ESPTOOLPY_FLASHSIZE")) or args.chip_size or None
    return FlashPlan(
        project.build_dir,
        project.target,
        size,
        args.files,
        name=project.name,
        kind="ESP-IDF build",
        sources=project.sources,
        project_dir=project.project_dir,
        security=project.security,
        before=args.before,
        after=args.after,
    )


def _read_description(build_dir: Path) -> dict[str, Any]:
    path = build_dir / DESCRIPTION
    return files.read_json(path) if files.is_regular_file(path, DESCRIPTION) else {}


def _find_project_dir(description: dict[str, Any], build_dir: Path) -> Path:
    path = files.local_path(description.get("project_path"), build_dir)
    return path if path is not None and os.path.isdir(path) else _parent(build_dir)  # noqa: PTH112


def _parent(build_dir: Path) -> Path:
    """Return the folder that contains the build folder, even if that is given as ``.`` or ``..``."""
    return build_dir.parent if build_dir.name not in ("", "..") else build_dir.resolve().parent


def _is_project_around(project_dir: Path, build_dir: Path) -> bool:
    """Return whether a folder is a project around the build folder; a downloaded one may lie in any folder."""
    around = files.is_below(build_dir.absolute(), [project_dir, project_dir.resolve()])
    return around and os.path.isfile(project_dir / "CMakeLists.txt")  # noqa: PTH113


def _cmake_target(build_dir: Path) -> str:
    with suppress(OSError):
        match = _CMAKE_TARGET.search(files.read_text(build_dir / "CMakeCache.txt"))
        return match[1] if match else ""
    return ""
