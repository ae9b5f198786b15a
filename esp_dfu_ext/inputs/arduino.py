"""Build folders of Arduino and PlatformIO: files with known names.

PlatformIO (.pio/build/ENV) names them bootloader.bin, partitions.bin and firmware.bin; idedata.json has the addresses,
but exists only if an editor asked for it (PlatformIO, platform-espressif32, builder/main.py). Arduino names them
SKETCH.ino.bootloader.bin, SKETCH.ino.partitions.bin, SKETCH.ino.bin and boot_app0.bin; from arduino-esp32 3.x on,
flash_args has the addresses. Without such a list the chip and the partition table say where each file goes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import BuildFileError
from ..files import read_small
from ..image.partition_table import DEFAULT_OFFSET, LENGTH, Partition, read_partition_table
from ..image.plan import FlashFile, FlashPlan
from ..target import Target
from . import build_files as files
from .build_files import has_file
from .identify import plan_target

IDEDATA = "idedata.json"
_CORE_VARIABLES = ("PLATFORMIO_CORE_DIR", "PLATFORMIO_HOME_DIR")
_APP_OFFSET, _OTADATA_OFFSET = 0x10000, 0xE000  # without a readable table; arduino-esp32, platform.txt


class _Names(NamedTuple):
    """File names of a build tool; ``*`` is the sketch."""

    tool: str
    bootloader: str
    table: str
    app: str


_TOOLS = (
    _Names("PlatformIO build", "bootloader.bin", "partitions.bin", "firmware.bin"),
    _Names("Arduino build", "*.ino.bootloader.bin", "*.ino.partitions.bin", "*.ino.bin"),
)


def has_build(folder: Path) -> bool:
    """Return whether a folder has files with the names that Arduino or PlatformIO give them."""
    return has_file(folder / IDEDATA) or _names_of(folder) is not None


def _names_of(folder: Path) -> _Names | None:
    return next((names for names in _TOOLS if _only(folder, names.app) and _only(folder, names.bootloader)), None)


def _only(folder: Path, pattern: str) -> Path | None:
    """Return the only file of this name, None if there is none or several."""
    found = [folder / pattern] if "*" not in pattern else sorted(folder.glob(pattern))[:2]
    return found[0] if len(found) == 1 and has_file(found[0]) else None


def read_arduino(folder: Path, targets: Sequence[Target], wanted: str | None = None) -> FlashPlan:
    """Read the build folder of Arduino or PlatformIO.

    Args:
        folder: The folder.
        targets: Known chips.
        wanted: The chip that the user named, None if he named none.

    Raises:
        BuildFileError: idedata.json is damaged.
        ProjectError: A file cannot be read.
        NoTargetError, TargetNotSupportedError: The chip is unknown or has no USB DFU.
    """
    names = _names_of(folder)
    if has_file(folder / IDEDATA):
        return _from_idedata(folder, targets)
    assert names is not None  # has_build
    bootloader, app = _only(folder, names.bootloader), _only(folder, names.app)
    assert bootloader is not None and app is not None
    table_file, boot_app0 = _only(folder, names.table), _only(folder, "boot_app0.bin")
    plan = FlashPlan(
        folder, "", None, (FlashFile(0, bootloader, "bootloader"), FlashFile(0, app, "app")), sources=(folder,)
    )
    target = plan_target(plan, wanted, targets)
    table = read_partition_table(read_small(table_file, LENGTH * 2)) if table_file is not None else ()
    placed = [FlashFile(target.firmware.bootloader_offset, bootloader, "bootloader")]
    if table_file is not None:
        placed.append(FlashFile(DEFAULT_OFFSET, table_file, "partition-table"))
    if boot_app0 is not None:
        otadata = next((partition.offset for partition in table if partition.is_otadata), _OTADATA_OFFSET)
        placed.append(FlashFile(otadata, boot_app0, "otadata"))
    placed.append(FlashFile(first_app(table), app, "app"))
    return FlashPlan(folder, target.name, None, tuple(placed), name=_sketch(app), kind=names.tool, sources=(folder,))


def first_app(table: Sequence[Partition]) -> int:
    """Return the address of the partition that an app goes to: the factory partition, else the first one for apps."""
    apps = [partition for partition in table if partition.is_app]
    return min(apps, key=lambda app: (app.subtype, app.offset)).offset if apps else _APP_OFFSET


def _sketch(app: Path) -> str:
    return app.name[: -len(".ino.bin")] if app.name.endswith(".ino.bin") else ""


def _from_idedata(folder: Path, targets: Sequence[Target]) -> FlashPlan:
    path = folder / IDEDATA
    data = files.read_json(path)
    extra, program = data.get("extra"), data.get("prog_path")
    images = extra.get("flash_images") if isinstance(extra, dict) else None
    offset = extra.get("application_offset") if isinstance(extra, dict) else None
    if not isinstance(images, list) or not isinstance(program, str) or len(images) > files.MOST_FILES:
        raise BuildFileError(f"{path}: expected prog_path and extra.flash_images, a list of offset and path")
    found = [_entry(path, folder, entry) for entry in images]
    at = files.address(path, "extra.application_offset", offset if isinstance(offset, str) else hex(_APP_OFFSET))
    found.append(FlashFile(at, _moved(str(Path(program).with_suffix(".bin")), folder), "app"))
    project = _project_of(folder)
    sources = (folder, *([project] if project is not None else []), *_packages())
    ordered = tuple(sorted(found, key=lambda file: file.address))
    return FlashPlan(folder, "", None, ordered, kind="PlatformIO build", sources=sources, project_dir=project)


def _entry(path: Path, folder: Path, entry: Any) -> FlashFile:
    offset, file = (entry.get("offset"), entry.get("path")) if isinstance(entry, dict) else (None, None)
    if not isinstance(offset, str) or not isinstance(file, str):
        raise BuildFileError(f'{path}: extra.flash_images: expected {{"offset": "0x1000", "path": "bootloader.bin"}}')
    return FlashFile(files.address(path, "extra.flash_images", offset), _moved(file, folder))


def _moved(text: str, folder: Path) -> Path:
    """Return a path that idedata.json names: a file of this name in the folder, if that was built elsewhere."""
    name = text.replace("\\", "/").rpartition("/")[2]
    here = folder / name
    return here if name and has_file(here) else folder / text


def _project_of(folder: Path) -> Path | None:
    """Return the project of .pio/build/ENV, None if the folder lies elsewhere."""
    parents = folder.absolute().parents
    project = parents[2] if len(parents) > 2 and folder.absolute().parent.name == "build" else None
    return project if project is not None and has_file(project / "platformio.ini") else None


def _packages() -> Iterator[Path]:
    """Yield PlatformIO's folder of packages: boot_app0.bin of the Arduino framework is used from there."""
    named = next((os.environ[name] for name in _CORE_VARIABLES if os.environ.get(name)), "~/.platformio")
    folder = Path(os.path.expanduser(named)) / "packages"  # noqa: PTH111 (Path.expanduser raises without a home)
    if folder.is_absolute():
        yield folder
