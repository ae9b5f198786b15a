"""Reading a dfu.bin back: what is in it, and may it be flashed?"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import EspDfuError, ImageError, WrongTargetError
from ..image.check import check_image
from ..image.esp_image import AppDescription, app_description
from ..image.format import DfuImage, read_image
from ..project import read_flasher_args
from ..target import Target, find_target_by_usb_id, load_targets


@dataclass(frozen=True)
class InspectResult:
    """A dfu.bin, read.

    Attributes:
        path: of the file.
        image: its contents.
        target: the chip it was made for, None if nobody described it.
        app: what the app in it says of itself, None if there is none.
        problems: what the ROM would get wrong, one sentence each; empty if all is well.
    """

    path: Path
    image: DfuImage
    target: Target | None
    app: AppDescription | None
    problems: tuple[str, ...]


def inspect(path: Path, targets: Sequence[Target] | None = None) -> InspectResult:
    """Read a dfu.bin and say what the ROM would get wrong.

    Raises:
        InputMissingError: it is not there.
        ImageError: suffix, CRC or archive is damaged.
        TargetFileError: a chip's file is broken.
    """
    image = read_image(path)
    known = load_targets() if targets is None else targets
    target = find_target_by_usb_id(image.suffix.vid, image.suffix.pid, known)
    app = next(filter(None, (app_description(member.data) for member in image.flash_members)), None)
    if target is None:
        usb_id = f"{image.suffix.vid:04x}:{image.suffix.pid:04x}"
        return InspectResult(path, image, None, app, (f"No chip with the USB ID {usb_id} is known.",))
    return InspectResult(path, image, target, app, tuple(check_image(image, target)))


def load_image(path: Path, target: Target | None = None, targets: Sequence[Target] | None = None) -> InspectResult:
    """Read a dfu.bin that is to be flashed; only a faultless one is returned.

    Args:
        path: of the file.
        target: the chip it must be for; None to take the one that it says.
        targets: the chips that are known; None for all.

    Raises:
        InputMissingError: it is not there.
        WrongTargetError: it is for another chip.
        ImageError: it is damaged, or the ROM would get something wrong; `notes` has one line for each.
    """
    known = load_targets() if targets is None else list(targets)
    result = inspect(path, known if target is None else [target, *known])
    if target is not None and result.target != target:
        suffix = result.image.suffix
        name = result.target.name if result.target is not None else f"{suffix.vid:04x}:{suffix.pid:04x}"
        raise WrongTargetError(str(path), image_target=name, target=target.name)
    if result.problems:
        raise ImageError(f"{path} cannot be flashed as it is.", notes=result.problems)
    return result


def newer_inputs(dfu_bin: Path, build_dir: Path) -> list[Path]:
    """The flash files of the build that are newer than dfu.bin: it does not hold what was built last."""
    with suppress(EspDfuError, OSError):
        made = dfu_bin.stat().st_mtime
        files = [file.path for file in read_flasher_args(build_dir).files]
        return [path for path in files if path.is_file() and path.stat().st_mtime > made]
    return []
