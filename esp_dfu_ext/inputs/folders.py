"""Whose build a folder has, and where in it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..errors import EspDfuError, InputMissingError, NoBuildError
from ..image.plan import FlashPlan
from ..target import Target
from . import arduino, zephyr
from .build_files import has_file, is_folder, is_regular_file
from .esp_idf import DESCRIPTION, FLASHER_ARGS, find_project, read_plan
from .esptool_args import FLASH_ARGS, read_flash_args

# Files that a user may name in place of their build folder, and how many folders up that is.
FILES_OF_BUILDS = {FLASHER_ARGS: 0, DESCRIPTION: 0, arduino.IDEDATA: 0, "runners.yaml": 1, "domains.yaml": 0}
FILES_OF_BUILDS |= {"platformio.ini": 0, "CMakeLists.txt": 0}

_MOST_FOLDERS = 1000  # looked into, where a project may have several build folders


def read_folder(
    folder: Path, targets: Sequence[Target], wanted: str | None = None, project_dir: Path | None = None
) -> FlashPlan:
    """Read the build in a folder: the folder of a build, or of a project that has one.

    Args:
        folder: The folder.
        targets: Known chips.
        wanted: The chip that the user named, None if he named none.
        project_dir: Folder of an ESP-IDF project, None to find it from the build folder.

    Raises:
        InputMissingError: The folder does not exist or cannot be read.
        NoBuildError: It has no build that can be read, or several.
        ProjectError: A file of the build cannot be used.
    """
    if not is_folder(folder, "build folder"):
        raise InputMissingError(f"The build folder {folder} does not exist.", path=folder, role="build folder")
    plan = _read_build(folder, targets, wanted, project_dir)
    if plan is not None:
        return plan
    tool, builds = _builds_in(folder)
    if len(builds) == 1:
        plan = _read_build(builds[0], targets, wanted, project_dir)
        if plan is not None:
            return plan
    if builds:
        listed = ", ".join(str(build) for build in builds)
        raise NoBuildError(f"{folder} has {len(builds)} builds: {listed}.", path=folder, tool=tool, builds=builds)
    if has_file(folder / DESCRIPTION) or tool == "esp-idf":
        missing = folder if has_file(folder / DESCRIPTION) else folder / "build"
        text = f"{missing / FLASHER_ARGS} does not exist: the project has not been built."
        raise InputMissingError(text, path=missing / FLASHER_ARGS, role=FLASHER_ARGS)
    what = {"platformio": "a PlatformIO project", "arduino": "an Arduino sketch"}.get(tool)
    if what is not None:
        text = f"{folder} is {what} that has not been built, or was built elsewhere."
        raise NoBuildError(text, path=folder, tool=tool)
    raise NoBuildError(f"{folder} has no build of ESP-IDF, Arduino, PlatformIO or Zephyr.", path=folder)


def has_build(folder: Path) -> bool:
    """Return whether a folder looks like a build that `read_folder` reads; never fails."""
    with suppress(EspDfuError, OSError):
        return (
            any(has_file(folder / name) for name in (FLASHER_ARGS, FLASH_ARGS))
            or arduino.has_build(folder)
            or zephyr.has_build(folder)
        )
    return False


def _read_build(
    folder: Path, targets: Sequence[Target], wanted: str | None, project_dir: Path | None
) -> FlashPlan | None:
    """Return the plan of a build folder, None if it is none."""
    if project_dir is not None or is_regular_file(folder / FLASHER_ARGS, FLASHER_ARGS):
        return read_plan(find_project(folder, project_dir))
    if has_file(folder / FLASH_ARGS):
        return read_flash_args(folder / FLASH_ARGS)
    if arduino.has_build(folder):
        return arduino.read_arduino(folder, targets, wanted)
    if zephyr.has_build(folder):
        return zephyr.read_zephyr(folder)
    if folder.name == zephyr.RUNNERS.parent.name and has_file(folder / zephyr.RUNNERS.name):
        return zephyr.read_zephyr(folder.parent)
    return None


def _builds_in(folder: Path) -> tuple[str, list[Path]]:
    """Return the build tool of a project, and the build folders that it has; ``build`` alone if that is one."""
    if has_file(folder / "platformio.ini"):
        environments = _folders(folder / ".pio" / "build")
        return "platformio", [each for each in environments if arduino.has_build(each)]
    if any(folder.glob("*.ino")):
        return "arduino", [each for each in _folders(folder / "build") if arduino.has_build(each)]
    if zephyr.has_build(folder / "build"):
        return "zephyr", [folder / "build"]
    tool = "esp-idf" if has_file(folder / "CMakeLists.txt") or has_file(folder / "sdkconfig") else ""
    if has_file(folder / "build" / FLASHER_ARGS):
        return "esp-idf", [folder / "build"]
    return tool, [each for each in _folders(folder) if has_file(each / FLASHER_ARGS)] if tool else []


def _folders(folder: Path) -> list[Path]:
    """Return the folders in a folder, by name; none if it cannot be read."""
    try:
        return sorted(each for _, each in zip(range(_MOST_FOLDERS), folder.iterdir()) if each.is_dir())
    except OSError:
        return []
