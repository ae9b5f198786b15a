"""Make dfu.bin from a built project."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import FirmwareError, OutputError, OutsideProjectError, ProjectError
from ..events import EventSink, Notice, ignore
from ..image import suffix
from ..image.esp_image import AppDescription, EspImage, read_esp_image
from ..image.format import FlashParams
from ..image.layout import flash_end, plan_layout
from ..image.plan import FlashFile, FlashPlan, LoadedFile, load_files
from ..image.suffix import Suffix
from ..image.writer import write_image
from ..inputs.build_files import is_inside
from ..inputs.esp_idf import DFU_BIN, FLASHER_ARGS, Project, read_plan, read_project
from ..target import Target, load_target
from ..units import format_size, parse_size


@dataclass(frozen=True)
class BuildResult:
    """A dfu.bin that was written.

    Attributes:
        path: Path of dfu.bin.
        size: Size of dfu.bin in bytes.
        project: The project it was made from.
        target: The chip it is for.
        chip_size: Bytes of flash memory on the board.
        files: The flash files in it with their sizes in bytes, by address.
        app: What the app says about itself, None if it says nothing.
    """

    path: Path
    size: int
    project: Project
    target: Target
    chip_size: int
    files: tuple[tuple[FlashFile, int], ...]
    app: AppDescription | None


def build(
    build_dir: str | os.PathLike[str],
    *,
    project_dir: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None,
    part_size: int | None = None,
    sections: Collection[str] = (),
    force: bool = False,
    on_event: EventSink = ignore,
) -> BuildResult:
    """Make dfu.bin from a built ESP-IDF project; everything is checked before a byte is written.

    Args:
        build_dir: The project's build folder.
        project_dir: The project folder, None to find it from the build folder.
        output: Where to write, None for dfu.bin in the build folder.
        part_size: Bytes that larger files are cut to, None for the chip's default.
        sections: Sections of flasher_args.json to take, all if empty.
        force: Accept images that look damaged or are for another chip, and files outside the project.
        on_event: Receives notices.

    Raises:
        InputMissingError: Nothing was built, or a file is missing.
        ProjectError: The project's files cannot be used.
        TargetNotSupportedError, TargetFileError: The chip has no USB DFU, or its YAML file is broken.
        OutsideProjectError: A file lies neither in the build folder nor in the project, unless `force`.
        UsageError: The part size or a section is invalid.
        LayoutError: The ROM would lose data.
        FirmwareError: An image is damaged or for another chip, unless `force`.
        OutputError: dfu.bin cannot be written.
    """
    project = read_project(Path(build_dir), None if project_dir is None else Path(project_dir))
    target = load_target(project.target, project.project_dir)
    plan = read_plan(project)
    files = plan.select(sections)
    _check_chip_size(plan.chip_size, target)
    _check_inside(files, project, force, on_event)
    loaded = load_files(files, flash_end(plan.chip_size, target))
    layout = plan_layout(loaded, plan.chip_size, target, part_size)
    for notice in layout.notices:
        on_event(notice)
    app = _check_esp_images(loaded, target, force, on_event)
    _warn_of_security(plan, files, on_event)
    path = _output_path(None if output is None else Path(output), project, plan)
    flash = target.flash
    params = FlashParams(plan.chip_size, flash.block, flash.sector, flash.page, flash.status_mask)
    size = write_image(path, layout.parts, params, Suffix(target.usb.vid, target.usb.pid))
    sizes = tuple((each.file, each.size) for each in loaded)
    return BuildResult(path, size, project, target, plan.chip_size, sizes, app)


def _check_chip_size(size: int, target: Target) -> None:
    if size not in map(parse_size, target.flash.sizes):
        allowed = ", ".join(target.flash.sizes)
        raise ProjectError(f"The project sets a flash size of {format_size(size)}; {target.chip} can have {allowed}.")


def _check_inside(files: Sequence[FlashFile], project: Project, force: bool, on_event: EventSink) -> None:
    """Refuse files from elsewhere: a build folder may come from a stranger, and everyone can read a dfu.bin."""
    outside = [
        f"{file} is outside the project."
        for file in files
        if not is_inside(file.path, project.build_dir, project.sources)
    ]
    if outside and not force:
        message = f"{project.build_dir / FLASHER_ARGS} lists files outside the build folder and the project."
        raise OutsideProjectError(message, notes=outside)
    for problem in outside:
        on_event(Notice("forced", problem))


def _check_esp_images(
    loaded: Iterable[LoadedFile], target: Target, force: bool, on_event: EventSink
) -> AppDescription | None:
    """Check each ESP image, and return the description of the first app by address."""
    problems = []
    app = None
    for each in loaded:
        image = read_esp_image(each.data)
        app = app or (image.app if image is not None else None)
        problems += [f"{each.file} {problem}." for problem in _problems(each.file, image, target)]
    if problems and not force:
        raise FirmwareError(f"These images are damaged or not for {target.chip}.", notes=problems)
    for problem in problems:
        on_event(Notice("forced", problem))
    return app


def _problems(file: FlashFile, image: EspImage | None, target: Target) -> list[str]:
    firmware = target.firmware
    must_be_image = file.section in ("app", "bootloader")
    if image is None:
        return [f"is the {file.section} but not an ESP image"] if must_be_image else []
    if not must_be_image and image.app is None:
        return []  # data may start with any byte
    problems = []
    if image.chip_id is not None and image.chip_id != firmware.chip_id:
        problems.append(f"is for chip ID {image.chip_id}, but {target.chip} is chip ID {firmware.chip_id}")
    if image.problem:
        problems.append(f"is damaged: {image.problem}")
    if file.section == "bootloader" and file.address != firmware.bootloader_offset:
        problems.append(f"is the bootloader, but {target.chip} expects it at {firmware.bootloader_offset:#x}")
    return problems


def _warn_of_security(plan: FlashPlan, files: Iterable[FlashFile], on_event: EventSink) -> None:
    security = plan.security.encrypted() if any(file.encrypted for file in files) else plan.security
    codes = {"secure-boot": "Secure Boot", "encryption": "flash encryption"}
    shown = [(code, name) for code, name in codes.items() if name in security.features]
    for number, (code, name) in enumerate(shown, 1):
        consequence = f" {security.consequence}" if number == len(shown) else ""
        on_event(Notice(code, f"The project uses {name}.{consequence}"))


def _output_path(output: Path | None, project: Project, plan: FlashPlan) -> Path:
    """Return where to write dfu.bin, which may only replace another dfu.bin."""
    path = output if output is not None else project.build_dir / DFU_BIN
    if path.is_symlink():
        if output is None and not is_inside(path, project.build_dir, project.sources):
            raise OutputError(f"{path} is a symbolic link that leads out of the project; it is not followed.")
        path = path.resolve()
    if not path.exists():
        return path
    if output is not None and path.is_dir():
        raise OutputError(f"{path} is a folder; expected the file to write, such as {path / DFU_BIN}.")
    if not path.is_file():
        raise OutputError(f"{path} is not a regular file; dfu.bin cannot be written there.")
    if any(file.path.exists() and path.samefile(file.path) for file in plan.files):
        raise OutputError(f"{path} is one of the files to flash; it will not be overwritten.")
    if output is not None and not _may_be_replaced(path):
        raise OutputError(f"{path} already exists and is not a DFU image; it will not be overwritten.")
    return path


def _may_be_replaced(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - suffix.LENGTH))
            return size == 0 or suffix.has_suffix(file.read())
    except OSError as error:
        raise OutputError(f"{path} cannot be read: {error.strerror or error}.") from error
