"""From a built project to dfu.bin."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import (
    FirmwareError,
    InputMissingError,
    OutputError,
    OutsideProjectError,
    ProjectError,
)
from ..events import EventSink, Notice, ignore
from ..image.esp_image import AppDescription, FirmwareReport, read_firmware
from ..image.format import FlashParams
from ..image.layout import FlashFile, Layout, plan_layout
from ..image.suffix import LENGTH, SIGNATURE, Suffix
from ..image.writer import write_image
from ..project import (
    DFU_BIN,
    FLASHER_ARGS,
    FlasherArgs,
    Project,
    chip_size,
    inside,
    only,
    read_flasher_args,
    read_project,
)
from ..target import Target, load_target
from ..units import format_size, parse_size


@dataclass(frozen=True)
class BuildResult:
    """A dfu.bin that was written.

    Attributes:
        path: of dfu.bin.
        size: of dfu.bin in bytes.
        project: it was made from.
        target: the chip.
        chip_size: bytes of flash on the board.
        layout: what goes where.
        app: what the app says of itself, None if it says nothing.
    """

    path: Path
    size: int
    project: Project
    target: Target
    chip_size: int
    layout: Layout
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
        build_dir: the project's build folder.
        project_dir: the project's folder; None where the build folder must tell.
        output: where to write; None for dfu.bin in the build folder.
        part_size: bytes into which larger files are cut; None for the chip's default.
        sections: of flasher_args.json that are flashed; all if empty.
        force: take images that the host believes to be for another chip, or damaged, and files from anywhere.
        on_event: gets notices.

    Raises:
        InputMissingError: nothing was built, or a file is missing.
        ProjectError, TargetNotSupportedError, TargetFileError: of the project or the chip; also when a build that
            runs at the same time changes its files.
        OutsideProjectError: a file lies neither in the build folder nor in the project, unless `force`.
        UsageError: an impossible part size or section.
        LayoutError: the ROM would lose data.
        FirmwareError: an image for another chip, or a damaged one, unless `force`.
        OutputError: dfu.bin cannot be written.
    """
    build_dir = Path(build_dir)
    project_dir = Path(project_dir) if project_dir is not None else None
    output = Path(output) if output is not None else None
    project = read_project(build_dir, project_dir)
    target = load_target(project.target, project.project_dir)
    before = _fingerprint(build_dir / FLASHER_ARGS)
    args = read_flasher_args(build_dir)
    files = only(args.files, sections)
    # From here to the end they must stay as they are: sizes, checks and contents are read one after the other.
    inputs = {build_dir / FLASHER_ARGS: before, **{file.path: _fingerprint(file.path) for file in files}}
    size = _chip_size(project, args, target)
    _check_inside(files, project, force, on_event)
    layout = plan_layout(files, size, target, part_size)
    for notice in layout.notices:
        on_event(notice)
    app = _check_firmware([file for file, _ in layout.files], target, force, on_event)
    _warn_of_security(project, layout, on_event)
    path = _output_path(output, project, args)
    flash = target.flash
    params = FlashParams(size, flash.block, flash.sector, flash.page, flash.status_mask)
    dfu_suffix = Suffix(target.usb.vid, target.usb.pid)
    written = write_image(path, layout.parts, params, dfu_suffix, lambda: _refuse_changed(inputs))
    return BuildResult(path, written, project, target, size, layout, app)


def _output_path(output: Path | None, project: Project, args: FlasherArgs) -> Path:
    """Where dfu.bin is written; nothing but a dfu.bin is ever replaced there."""
    path = output if output is not None else project.build_dir / DFU_BIN
    if path.is_symlink():
        if output is None and not inside(path, project):
            raise OutputError(f"{path} is a symbolic link that leads out of the project; it will not be followed.")
        path = path.resolve()
    if not path.exists():
        return path
    if not path.is_file():
        raise OutputError(f"{path} is no regular file; dfu.bin cannot be written there.")
    if any(file.path.exists() and path.samefile(file.path) for file in args.files):
        raise OutputError(f"{path} is one of the files to be flashed; it will not be overwritten.")
    if output is not None and not _may_be_replaced(path):
        raise OutputError(f"{path} is there already and is no DFU image; it will not be overwritten.")
    return path


def _may_be_replaced(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LENGTH))
            return size == 0 or SIGNATURE in file.read()
    except OSError as error:
        raise OutputError(f"{path} cannot be read: {error.strerror or error}.") from error


def _fingerprint(path: Path) -> tuple[int, ...]:
    """Another one after each change of the file; empty if it is not there."""
    try:
        found = path.stat()
    except (OSError, ValueError):  # a name with a NUL in it is refused elsewhere
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _refuse_changed(inputs: Mapping[Path, tuple[int, ...]]) -> None:
    for path, before in inputs.items():
        if _fingerprint(path) != before:
            raise ProjectError(f"{path} changed while it was read; is a build running?")


def _chip_size(project: Project, args: FlasherArgs, target: Target) -> int:
    size = chip_size(project, args)
    if size not in map(parse_size, target.flash.sizes):
        allowed = ", ".join(target.flash.sizes)
        raise ProjectError(f"The project says {format_size(size)} of flash; {target.chip} can have {allowed}.")
    return size


def _check_inside(files: Sequence[FlashFile], project: Project, force: bool, on_event: EventSink) -> None:
    """A build folder may come from a stranger; what its dfu.bin holds is public."""
    strays = [f"{file.path} for {file.address:#x} lies outside." for file in files if not inside(file.path, project)]
    if strays and not force:
        message = f"{project.build_dir / FLASHER_ARGS} names files outside of the build folder and the project."
        raise OutsideProjectError(message, notes=strays)
    for stray in strays:
        on_event(Notice("forced", stray))


def _check_firmware(
    files: Sequence[FlashFile], target: Target, force: bool, on_event: EventSink
) -> AppDescription | None:
    """Read each ESP image with esptool; what it finds is an opinion of the host, which `force` overrules."""
    problems = []
    app = None
    for file in files:
        try:
            report = read_firmware(file.path)
        except OSError as error:
            raise InputMissingError.of(error, file.path, "flash file") from error
        app = app or report.app  # the first by address, as whoever reads dfu.bin sees it
        where = f"{file.path} for {file.address:#x}"
        problems += [f"{where} {problem}." for problem in _firmware_problems(file, report, target)]
    if problems and not force:
        raise FirmwareError(f"These images are not right for {target.chip}.", notes=problems)
    for problem in problems:
        on_event(Notice("forced", problem))
    return app


def _firmware_problems(file: FlashFile, report: FirmwareReport, target: Target) -> list[str]:
    wanted = target.firmware
    should_be_one = file.section in ("app", "bootloader")
    if not report.is_esp_image:
        return [f"is the {file.section}, but no ESP image"] if should_be_one else []
    if not should_be_one and report.app is None:
        return []  # data may begin with any byte
    problems = []
    if report.chip_id is not None and report.chip_id != wanted.chip_id:
        problems.append(f"is for chip id {report.chip_id}, {target.chip} has {wanted.chip_id}")
    if report.problem:
        problems.append(f"is damaged: {report.problem}")
    if file.section == "bootloader" and file.address != wanted.bootloader_offset:
        problems.append(f"is the bootloader, which {target.chip} looks for at {wanted.bootloader_offset:#x}")
    return problems


def _warn_of_security(project: Project, layout: Layout, on_event: EventSink) -> None:
    door = "A virgin chip takes this first plaintext flash; once the app has booted, USB DFU is closed for good."
    if project.flash_encryption or any(file.encrypted for file, _ in layout.files):
        on_event(Notice("encryption", f"The project uses flash encryption. {door}"))
    if project.secure_boot:
        on_event(Notice("secure-boot", f"The project uses Secure Boot. {door}"))
