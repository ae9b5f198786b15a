"""Read a dfu.bin back: what it contains, and whether it may be flashed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import EspDfuError, ImageError, WrongTargetError
from ..image.check import check_image
from ..image.esp_image import AppDescription, app_description, app_of_chip
from ..image.format import DfuImage, read_image
from ..inputs.esp_idf import read_flasher_args
from ..target import Target, find_target_by_usb_id, load_targets


@dataclass(frozen=True)
class InspectResult:
    """Contents of a dfu.bin, and what is wrong with it.

    Attributes:
        path: Path of dfu.bin.
        image: Contents of dfu.bin.
        target: Chip that the image is for, None if it is unknown.
        app: Description that the app carries, None if there is none.
        problems: What the ROM would flash wrongly, one sentence each; empty if nothing.
    """

    path: Path
    image: DfuImage
    target: Target | None
    app: AppDescription | None
    problems: tuple[str, ...]


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
    apps = (app_description(member.data) for member in image.flash_members)
    if target is not None:
        apps = (app_of_chip(member.data, target.firmware.chip_id) for member in image.flash_members)
    app = next(filter(None, apps), None)
    if target is None:
        return InspectResult(path, image, None, app, (f"No known chip has the USB ID {image.suffix.usb_id}.",))
    return InspectResult(path, image, target, app, tuple(check_image(image, target)))


def load_image(
    path: str | os.PathLike[str],
    target: Target | None = None,
    targets: Sequence[Target] | None = None,
    *,
    image: DfuImage | None = None,
) -> CheckedImage:
    """Read and check a dfu.bin that is to be flashed.

    Args:
        path: Path of dfu.bin.
        target: Chip that it must be for; None for the chip that it names.
        targets: Known chips; None for all.
        image: As for `inspect`.

    Raises:
        InputMissingError: The file does not exist or cannot be read.
        WrongTargetError: The image is for another chip than `target`.
        ImageError: The image is damaged, or the ROM would flash it wrongly; `notes` has one line for each problem.
        TargetFileError: A chip's YAML file is broken.
    """
    known = load_targets() if targets is None else list(targets)
    result = inspect(path, known if target is None else [target, *known], image=image)
    if target is not None and result.target != target:
        name = result.target.name if result.target is not None else result.image.suffix.usb_id
        raise WrongTargetError(str(path), image_target=name, target=target.name)
    if result.target is None or result.problems:
        raise ImageError(f"{path} cannot be flashed.", notes=result.problems)
    return CheckedImage(result.path, result.image, result.target, result.app)


def newer_inputs(dfu_bin: Path, build_dir: Path) -> list[Path]:
    """Return the flash files of a build that are newer than dfu.bin, which then holds an older build."""
    with suppress(EspDfuError, OSError):
        made = dfu_bin.stat().st_mtime
        files = [file.path for file in read_flasher_args(build_dir).files]
        return [path for path in files if path.is_file() and path.stat().st_mtime > made]
    return []
