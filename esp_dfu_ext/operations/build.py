"""Make dfu.bin from a build, or from firmware files."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import FirmwareError, OutputError, OutsideProjectError, ProjectError, TargetFileError
from ..events import EventSink, Notice, ignore
from ..image import suffix
from ..image.esp_image import AppDescription, EspImage, app_of_chip, read_esp_image
from ..image.firmware import file_problems, missing_parts
from ..image.format import FlashParams
from ..image.layout import Layout, flash_end, plan_layout
from ..image.partition_table import partition_at
from ..image.plan import FlashFile, FlashPlan, LoadedFile, load_files
from ..image.suffix import Suffix
from ..image.writer import encode_image, write_image
from ..inputs.build_files import is_inside
from ..inputs.esp_idf import DFU_BIN
from ..inputs.identify import plan_chip, plan_size
from ..inputs.read import InputOptions, Words, name_sections, read_input
from ..target import Target, load_target, load_targets
from ..units import format_size, parse_size
from .inspect import own_chip_notices


@dataclass(frozen=True)
class BuildResult:
    """A dfu.bin that was written.

    Attributes:
        path: Path of dfu.bin.
        size: Size of dfu.bin in bytes.
        plan: What it was made from, with the name of the project.
        target: The chip it is for.
        chip_size: Bytes of flash memory on the board.
        files: The flash files in it with their sizes in bytes, by address.
        app: What the app says about itself, None if it says nothing.
        is_new: No dfu.bin was there before.
    """

    path: Path
    size: int
    plan: FlashPlan
    target: Target
    chip_size: int
    files: tuple[tuple[FlashFile, int], ...]
    app: AppDescription | None
    is_new: bool = True


@dataclass(frozen=True)
class ImageOptions(InputOptions):
    """What goes into an image, besides what `InputOptions` says about the input.

    Attributes:
        part_size: Bytes that larger files are cut to, None for the chip's default.
        sections: Sections or partitions to take, all if empty; files of `add` are always taken.
        allow_outside: Accept files outside the project and its build folder.
    """

    part_size: int | None = None
    sections: Collection[str] = ()
    allow_outside: bool = False


@dataclass(frozen=True)
class PreparedImage:
    """An image that has passed all checks and is not written yet.

    Attributes:
        plan: What it is made from.
        target: The chip it is for.
        chip_size: Bytes of flash memory on the board.
        layout: Its parts.
        files: The flash files in it with their sizes in bytes, by address.
        app: What the app says about itself, None if it says nothing.
    """

    plan: FlashPlan
    target: Target
    chip_size: int
    layout: Layout
    files: tuple[tuple[FlashFile, int], ...]
    app: AppDescription | None

    @property
    def params(self) -> FlashParams:
        """Size and geometry of the flash memory."""
        flash = self.target.flash
        return FlashParams(self.chip_size, flash.block, flash.sector, flash.page, flash.status_mask)

    @property
    def suffix(self) -> Suffix:
        """The chip that it is for."""
        return Suffix(self.target.usb.vid, self.target.usb.pid)

    def encode(self) -> bytes:
        """Return the bytes of dfu.bin."""
        return b"".join(encode_image(self.layout.parts, self.params, self.suffix))


def build(
    what: str | os.PathLike[str] | Words,
    *,
    project_dir: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None,
    part_size: int | None = None,
    sections: Collection[str] = (),
    force: bool = False,
    options: ImageOptions | None = None,
    on_event: EventSink = ignore,
) -> BuildResult:
    """Make dfu.bin from a build or from firmware files; everything is checked before a byte is written.

    Args:
        what: The folder of a build or of its project (ESP-IDF, Arduino, PlatformIO, Zephyr); a merged image, as .bin or
            .hex; a file of esptool's arguments (flash_args); or a list of addresses and files,
            ``["0x0", "bootloader.bin", "0x10000", "app.bin"]``.
        project_dir: Folder of an ESP-IDF project, None to find it from the build folder.
        output: Where to write, None for dfu.bin in the folder, or in the folder of the file.
        part_size: Bytes that larger files are cut to, None for the chip's default.
        sections: Sections or partitions to take, all if empty.
        force: Accept images that look damaged or are for another chip.
        options: All options at once; `part_size`, `sections` and `force` are not used then.
        on_event: Receives notices.

    Raises:
        InputMissingError: Nothing was built, or a file is missing.
        WrongInputError: The file is something else than firmware with its addresses.
        ProjectError: The build's files cannot be used. Its classes: NoBuildError (the folder has no build),
            NoTargetError, NoFlashSizeError (nothing names the chip or the size), OutsideProjectError (a file lies
            neither in the build folder nor in the project, unless `allow_outside`).
        TargetNotSupportedError, TargetFileError: The chip has no USB DFU, or its YAML file is broken.
        UsageError: An option is invalid, or contradicts the input.
        LayoutError: The ROM would lose data.
        FirmwareError: An image is damaged or for another chip, unless `force`.
        OutputError: dfu.bin cannot be written.
    """
    chosen = options or ImageOptions(part_size=part_size, sections=sections, force=force)
    prepared = prepare(what, chosen, project_dir=project_dir, on_event=on_event)
    path = _output_path(None if output is None else Path(output), prepared.plan)
    is_new = not path.exists()
    size = write_image(path, prepared.layout.parts, prepared.params, prepared.suffix)
    return BuildResult(
        path, size, prepared.plan, prepared.target, prepared.chip_size, prepared.files, prepared.app, is_new
    )


def prepare(
    what: str | os.PathLike[str] | Words,
    options: ImageOptions,
    *,
    project_dir: str | os.PathLike[str] | None = None,
    on_event: EventSink = ignore,
) -> PreparedImage:
    """Read an input and check all of it, without writing anything.

    Args:
        what: As for `build`.
        options: What goes into the image.
        project_dir: As for `build`; whoever names it takes responsibility for all files that the project lists.
        on_event: Receives notices.

    Raises:
        EspDfuError: As `build`.
    """
    words = [what] if isinstance(what, (str, os.PathLike)) else what
    owner = None if project_dir is None else Path(project_dir)
    plan = read_input(words, load_targets(owner, on_broken=_leave_out), options, owner)
    known = load_targets(plan.project_dir, on_broken=_leave_out)
    target = load_target(plan_chip(plan, options.target, known, force=options.force), plan.project_dir)
    plan = name_sections(plan, target)
    chip_size = plan_size(plan, options.flash_size, force=options.force)
    _check_chip_size(chip_size, target)
    for notice in (*plan.notices, *own_chip_notices(target)):
        on_event(notice)
    files = _selected(plan, options)
    _check_inside(files, plan, options.allow_outside, owner is not None, on_event)
    loaded = load_files(files, flash_end(chip_size, target))
    layout = plan_layout(loaded, chip_size, target, options.part_size)
    for notice in layout.notices:
        on_event(notice)
    app = _check_esp_images(loaded, plan, target, options.force, on_event)
    _warn_of_security(plan, files, on_event)
    _warn_of_missing(plan, files, target, on_event)
    return PreparedImage(plan, target, chip_size, layout, tuple((each.file, each.size) for each in loaded), app)


def _leave_out(error: TargetFileError) -> None:
    """Leave out a chip whose file cannot be used, while others may be meant."""


def _selected(plan: FlashPlan, options: ImageOptions) -> tuple[FlashFile, ...]:
    if not options.sections:
        return plan.files
    added = {path for _, path in options.add}
    kept = plan.select(options.sections)
    return tuple(file for file in plan.files if file in kept or file.path in added)


def _check_chip_size(size: int, target: Target) -> None:
    if size not in map(parse_size, target.flash.sizes):
        allowed = ", ".join(target.flash.sizes)
        raise ProjectError(f"The flash size is set to {format_size(size)}; {target.chip} can have {allowed}.")


def _check_inside(
    files: Sequence[FlashFile], plan: FlashPlan, allowed: bool, own_project: bool, on_event: EventSink
) -> None:
    """Refuse files from elsewhere: a build folder may come from a stranger, and everyone can read a dfu.bin."""
    if plan.sources is None:
        return  # the user named each file
    outside = [
        f"{file} is outside the project." for file in files if not is_inside(file.path, plan.folder, plan.sources)
    ]
    if outside and not (allowed or own_project):
        message = f"The {plan.kind} in {plan.folder} lists files outside the build folder and the project."
        raise OutsideProjectError(message, notes=outside)
    for problem in outside:
        on_event(Notice("outside-project", problem))


def _check_esp_images(
    loaded: Iterable[LoadedFile], plan: FlashPlan, target: Target, force: bool, on_event: EventSink
) -> AppDescription | None:
    """Check bootloader and apps, and return the description of the first app by address."""
    problems = []
    apps = (app_of_chip(each.data, target.firmware.chip_id) for each in loaded)
    app = next(filter(None, apps), None)
    for each in loaded:
        if not _may_be_firmware(each.file, plan):
            continue
        image = read_esp_image(each.data)
        problems += [f"{each.file} {problem}." for problem in _problems(each.file, image, target)]
    if problems and not force:
        raise FirmwareError(f"These images are damaged or not for {target.chip}.", notes=problems)
    for problem in problems:
        on_event(Notice("forced", problem))
    return app


def _may_be_firmware(file: FlashFile, plan: FlashPlan) -> bool:
    """Return whether a file is firmware of this chip; data may hold another chip's, such as that of a co-processor."""
    if file.section in ("app", "bootloader"):
        return True
    partition = partition_at(plan.table, file.address)
    return not file.section if partition is None else partition.is_app or partition.is_of_bootloader


def _problems(file: FlashFile, image: EspImage | None, target: Target) -> list[str]:
    must_be_image = file.section in ("app", "bootloader")
    if not must_be_image and (image is None or image.app is None):
        return []  # data may start with any byte
    return list(file_problems(file.section if must_be_image else "app", file.address, image, target))


def _warn_of_security(plan: FlashPlan, files: Iterable[FlashFile], on_event: EventSink) -> None:
    security = plan.security.encrypted() if any(file.encrypted for file in files) else plan.security
    codes = {"secure-boot": "Secure Boot", "encryption": "flash encryption"}
    shown = [(code, name) for code, name in codes.items() if name in security.features]
    for number, (code, name) in enumerate(shown, 1):
        consequence = f" {security.consequence}" if number == len(shown) else ""
        on_event(Notice(code, f"The project uses {name}.{consequence}"))


def _warn_of_missing(plan: FlashPlan, files: Collection[FlashFile], target: Target, on_event: EventSink) -> None:
    """Warn of parts that the build leaves out, as ESP-IDF does with the bootloader under Secure Boot, or the user."""
    held = {file.section for file in files}
    if "app" not in held:
        return
    missing = {"bootloader"} - held
    missing |= {"partition-table", "otadata"} & {file.section for file in plan.files} - held
    text = missing_parts(missing)
    bootloader = plan.folder / "bootloader" / "bootloader.bin"
    if "bootloader" in missing and bootloader.is_file():
        place = f"{target.firmware.bootloader_offset:#x}"
        text += f" The build has a bootloader, which goes to {place}: {bootloader}"
    if text:
        on_event(Notice("missing-parts", text))


def _output_path(output: Path | None, plan: FlashPlan) -> Path:
    """Return where to write dfu.bin, which may only replace another dfu.bin."""
    path = output if output is not None else plan.folder / DFU_BIN
    if path.is_symlink():
        sources = plan.sources if plan.sources is not None else (plan.folder,)
        if output is None and not is_inside(path, plan.folder, sources):
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
    in_build_folder = output is None and plan.origin.is_dir()
    if not in_build_folder and not _may_be_replaced(path):
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
