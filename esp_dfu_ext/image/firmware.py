"""The firmware in an image: the files that its parts were cut from, which app it is, and whether the chip can run it.

A build knows which file is its bootloader and which its app. A dfu.bin knows addresses only: the chip expects its
bootloader at one address, and an app describes itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..target import Target
from .esp_image import AppDescription, EspImage, app_description, app_of_chip, read_esp_image
from .format import DfuImage
from .partition_table import read_partition_table


@dataclass(frozen=True)
class ImageFile:
    """A flash file, put together again from its parts in an image; `address` in bytes."""

    name: str
    address: int
    chunks: tuple[memoryview, ...]

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return sum(map(len, self.chunks))

    @cached_property
    def data(self) -> bytes:
        """Its contents."""
        return b"".join(self.chunks)

    def __str__(self) -> str:
        return f"{self.name} for {self.address:#x}"


def image_files(image: DfuImage) -> list[ImageFile]:
    """Return the flash files of an image, by address; `image.layout.split` named the parts of large ones."""
    members = sorted(
        ((m.record.address, m.name, m.data) for m in image.flash_members if m.record is not None),
        key=lambda each: each[:2],
    )
    files: list[ImageFile] = []
    for address, name, data in members:
        last = files[-1] if files else None
        if last and name == f"{last.name}.{len(last.chunks)}" and address == last.address + last.size:
            files[-1] = ImageFile(last.name, last.address, (*last.chunks, data))
        else:
            files.append(ImageFile(name, address, (data,)))
    return files


def app_of(files: Sequence[ImageFile], target: Target | None) -> AppDescription | None:
    """Return the description of the first app by address, of one for this chip if that is known."""
    heads = (file.chunks[0] for file in files)
    if target is None:
        return next(filter(None, map(app_description, heads)), None)
    return next(filter(None, (app_of_chip(head, target.firmware.chip_id) for head in heads)), None)


def firmware_problems(files: Sequence[ImageFile], target: Target) -> list[str]:
    """Return why the chip cannot run the bootloader or an app, one sentence for each file.

    Other chips' apps are data if there is one for this chip, too: the firmware of a co-processor, for example.
    """
    chip_id, bootloader = target.firmware.chip_id, target.firmware.bootloader_offset
    apps = [file for file in files if app_description(file.chunks[0]) is not None]
    ours = [file for file in apps if app_of_chip(file.chunks[0], chip_id) is not None]
    problems = []
    for file in files:
        section = "bootloader" if file.address == bootloader else "app" if file in (ours or apps) else ""
        if section:
            found = file_problems(section, file.address, read_esp_image(file.data), target)
            problems += [f"{file} {problem}." for problem in found]
    return problems


def missing_parts(names: Iterable[str]) -> str:
    """Return what a board does with an image that lacks parts which an app needs, in sentences; empty if none are.

    Args:
        names: The parts that the image lacks: ``bootloader``, ``partition-table``, ``otadata``.
    """
    lacks = [name for name in ("bootloader", "partition-table", "otadata") if name in names]
    if not lacks:
        return ""
    words = [f"no {name.replace('-', ' ')}" for name in lacks]
    text = f"The image has {' and '.join([', '.join(words[:-1]), words[-1]] if words[1:] else words)}: "
    if lacks == ["otadata"]:
        return f"{text}if a board was updated over the air, its own may start another app than this one."
    text += "the board keeps what its flash memory holds there, and a new board does not start."
    return text if "otadata" not in lacks else f"{text} Its own otadata, if it has any, may start another app."


def missing_names(files: Sequence[ImageFile], target: Target) -> list[str]:
    """Return which of the parts that `missing_parts` takes an image with an app lacks."""
    if app_of(files, target) is None:
        return []
    held = {file.address for file in files}
    table = next(filter(None, (read_partition_table(file.chunks[0]) for file in files)), ())
    missing = [] if target.firmware.bootloader_offset in held else ["bootloader"]
    if not table:
        only_apps = all(app_description(file.chunks[0]) is not None for file in files)
        return [*missing, "partition-table", *(["otadata"] if only_apps else [])]
    return missing + ["otadata" for partition in table if partition.is_otadata and partition.offset not in held]


def file_problems(section: str, address: int, image: EspImage | None, target: Target) -> Iterator[str]:
    """Yield what is wrong with one file, each to complete a sentence about it.

    Args:
        section: ``app`` or ``bootloader``.
        address: Where it goes, in bytes.
        image: What it contains, None if it is not an ESP image.
        target: The chip.
    """
    firmware = target.firmware
    if image is None:
        yield f"is the {section} but not an ESP image"
        return
    if image.chip_id is not None and image.chip_id != firmware.chip_id:
        yield f"is for chip ID {image.chip_id}, but {target.chip} is chip ID {firmware.chip_id}"
    if image.problem:
        yield f"is damaged: {image.problem}"
    if section == "bootloader" and address != firmware.bootloader_offset:
        yield f"is the bootloader, but {target.chip} expects it at {firmware.bootloader_offset:#x}"
