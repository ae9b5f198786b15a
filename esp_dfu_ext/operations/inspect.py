"""Read a dfu.bin back: what it contains, and whether it may be flashed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import EspDfuError, FirmwareError, ImageError, WrongTargetError
from ..events import EventSink, Notice, ignore
from ..files import read_small
from ..image.check import check_image
from ..image.esp_image import AppDescription
from ..image.firmware import ImageFile, app_of, firmware_problems, image_files
from ..image.format import DfuImage, read_image
from ..inputs.esp_idf import read_flasher_args
from ..target import Target, find_target_by_usb_id, load_targets, replaced_builtins


@dataclass(frozen=True)
class InspectResult:
    """Contents of a dfu.bin, and what is wrong with it.

    Attributes:
        path: Path of dfu.bin.
        image: Contents of dfu.bin.
        target: Chip that the image is for, None if it is unknown.
        app: Description that the app carries, None if there is none.
        problems: What the ROM would flash wrongly, one sentence each; empty if nothing.
        firmware_problems: What the chip could not run, one sentence for each file; empty if nothing.
    """

    path: Path
    image: DfuImage
    target: Target | None
    app: AppDescription | None
    problems: tuple[str, ...]
    firmware_problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckedImage:
    """A dfu.bin that has passed all checks, ready to be flashed.

    Attributes:
        path: Path of dfu.bin.
        image: Contents of dfu.bin.
        target: Chip that the image is for.
        app: Description that the app carries, None if there is none.
    """

    path: Path
    image: DfuImage
    target: Target
    app: AppDescription | None = None


def inspect(
    path: str | os.PathLike[str], targets: Sequence[Target] | None = None, *, image: DfuImage | None = None
) -> InspectResult:
    """Read a dfu.bin and list what the ROM would flash wrongly.

    Args:
        path: Path of dfu.bin.
        targets: Known chips; None for all.
        image: Its contents, if they are in memory; `path` is where they come from, then.

    Raises:
        InputMissingError: The file does not exist or cannot be read.
        ImageError: Suffix, CRC or archive are damaged.
        TargetFileError: A chip's YAML file is broken.
    """
    path = Path(path)
    image = read_image(path) if image is None else image
    known = load_targets() if targets is None else targets
    target = find_target_by_usb_id(image.suffix.vid, image.suffix.pid, known)
    files = image_files(image)
    app = app_of(files, target)
    if target is None:
        return InspectResult(path, image, None, app, (f"No known chip has the USB ID {image.suffix.usb_id}.",))
    # A chip's file from the image's own folder may come from the same stranger: it cannot lift a limit of the ROM.
    chips = [target, *replaced_builtins(target)]
    problems = dict.fromkeys(problem for chip in chips for problem in check_image(image, chip))
    firmware = dict.fromkeys(problem for chip in chips for problem in firmware_problems(files, chip))
    return InspectResult(path, image, target, app, tuple(problems), tuple(firmware))


def own_chip_notices(target: Target) -> list[Notice]:
    """Return what the user should know about a chip that is not the built-in one, although it looks like it."""
    return [
        Notice("own-chip", f"{target.source} describes the chip, in place of the built-in {chip.name} ({chip.usb_id}).")
        for chip in replaced_builtins(target)
    ]


def load_image(
    path: str | os.PathLike[str],
    target: Target | None = None,
    targets: Sequence[Target] | None = None,
    *,
    image: DfuImage | None = None,
    force: bool = False,
    on_event: EventSink = ignore,
) -> CheckedImage:
    """Read and check a dfu.bin that is to be flashed.

    Args:
        path: Path of dfu.bin.
        target: Chip that it must be for; None for the chip that it names.
        targets: Known chips; None for all.
        image: As for `inspect`.
        force: Accept firmware that looks damaged or is for another chip.
        on_event: Receives a notice for each such file.

    Raises:
        InputMissingError: The file does not exist or cannot be read.
        WrongTargetError: The image is for another chip than `target`.
        ImageError: The image is damaged, or the ROM would flash it wrongly; `notes` has one line for each problem.
        FirmwareError: Its bootloader or app is damaged or for another chip, unless `force`.
        TargetFileError: A chip's YAML file is broken.
    """
    known = load_targets() if targets is None else list(targets)
    result = inspect(path, known if target is None else [target, *known], image=image)
    if target is not None and result.target != target:
        name = result.target.name if result.target is not None else result.image.suffix.usb_id
        raise WrongTargetError(str(path), image_target=name, target=target.name)
    if result.target is None or result.problems:
        raise ImageError(f"{path} cannot be flashed.", notes=result.problems)
    if result.firmware_problems and not force:
        message = f"{path} contains images that are damaged or not for {result.target.chip}."
        raise FirmwareError(message, notes=result.firmware_problems)
    for problem in result.firmware_problems:
        on_event(Notice("forced", problem))
    return CheckedImage(result.path, result.image, result.target, result.app)


def outdated_files(image: DfuImage, build_dir: Path) -> list[Path]:
    """Return the flash files of a build that an image holds in another version; modification times do not count.

    Files that the image does not hold at all are left out: it may be meant to hold a part of the build only.
    """
    held = {file.address: file for file in image_files(image)}
    with suppress(EspDfuError, OSError):
        return [
            file.path
            for file in read_flasher_args(build_dir).files
            if file.address in held and not _is_same(file.path, held[file.address])
        ]
    return []


def _is_same(path: Path, file: ImageFile) -> bool:
    """Return whether a file has the contents of one in an image; True if it cannot be read."""
    try:
        return path.stat().st_size == file.size and read_small(path, file.size) == file.data
    except OSError:
        return True
