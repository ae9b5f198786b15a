"""From flash files to the parts of an image: their names, their size, and what the ROM would get wrong.

Everything refused here would end in lost data on the chip, or in an error after minutes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import NamedTuple

from ..errors import LayoutError, UsageError
from ..events import Notice
from ..target import Target
from ..units import format_size
from .cpio import TRAILER
from .format import FLASH_PARAMS_NAME, INDEX_NAME
from .plan import FlashFile, LoadedFile


class Region(NamedTuple):
    """A stretch of flash memory and the file that fills it."""

    address: int
    size: int
    name: str

    @property
    def end(self) -> int:
        """The first address after the region."""
        return self.address + self.size

    def __str__(self) -> str:
        return f"{self.name} ({self.address:#x} to {self.end:#x})"


@dataclass(frozen=True)
class Part:
    """A flash file, or a stretch of one, that becomes one member of the archive.

    Attributes:
        name: Name of the member.
        address: Bytes from the start of flash memory.
        data: Its contents.
    """

    name: str
    address: int
    data: memoryview = field(repr=False)


@dataclass(frozen=True)
class Layout:
    """The parts of an image, ready to be written.

    Attributes:
        parts: The parts, by address.
        part_size: Size that files were cut to, in bytes.
        notices: What was changed on the way, for the user.
    """

    parts: tuple[Part, ...]
    part_size: int
    notices: tuple[Notice, ...]


def flash_end(chip_size: int, target: Target) -> int:
    """Return the address where the flash memory that the ROM can write ends."""
    return min(chip_size, target.flash.limit)


def check_regions(regions: Sequence[Region], chip_size: int, target: Target) -> list[str]:
    """Return what the ROM would write wrongly, one sentence for each problem.

    Args:
        regions: In any order.
        chip_size: Bytes of flash memory, as the image will tell the ROM.
        target: The chip.
    """
    problems = []
    sector = target.flash.sector
    end = flash_end(chip_size, target)
    ordered = sorted(regions)
    for region in ordered:
        if region.size == 0:
            problems.append(f"{region.name} for {region.address:#x} is empty.")
        if region.address % 4:
            problems.append(f"{region} does not start at a multiple of 4: the ROM cannot write there.")
        if region.end > end:
            what = "the chip's flash memory" if chip_size <= target.flash.limit else "what the ROM can address"
            problems.append(f"{region} extends beyond {what}, which ends at {end:#x} ({format_size(end)}).")
    for before, after in zip(ordered, ordered[1:]):
        if before.end > after.address:
            problems.append(f"{before} and {after} overlap.")
        elif before.size and (before.end - 1) // sector == after.address // sector:
            problems.append(
                f"{before} and {after} share the {sector}-byte sector at {after.address // sector * sector:#x}: "
                "erasing it for the second file would destroy the end of the first."
            )
    return problems


def plan_layout(files: Sequence[LoadedFile], chip_size: int, target: Target, part_size: int | None = None) -> Layout:
    """Cut files into named parts, after every check that concerns the ROM.

    Args:
        files: The files, by address.
        chip_size: Bytes of flash memory on the board.
        target: The chip.
        part_size: Bytes, None for the chip's default.

    Raises:
        UsageError: `part_size` would cut files in the middle of a sector.
        LayoutError: The ROM would lose data; `notes` has one line for each problem.
    """
    sector = target.flash.sector
    wanted = part_size if part_size is not None else target.dfu.part_size
    if wanted < sector or wanted % sector:
        raise UsageError(f"Invalid part size {wanted}: it must be a multiple of {sector}, the sector size in bytes.")
    regions = [Region(loaded.file.address, loaded.size, loaded.file.name) for loaded in files]
    problems = check_regions(regions, chip_size, target)
    if not files:
        problems.append("The build has no files to flash.")
    free_records = target.dfu.index_records - 1
    if len(files) > free_records:
        problems.append(f"The build has {len(files)} files, but the ROM's index holds at most {free_records}.")
    _refuse(problems)

    notices = []
    actual = _part_size_that_fits([loaded.size for loaded in files], wanted, free_records, sector)
    if actual != wanted:
        notices.append(
            Notice(
                "part-size-raised",
                f"Part size raised from {format_size(wanted)} to {format_size(actual)}: "
                f"the ROM's index holds at most {free_records} parts.",
            )
        )
    parts: list[Part] = []
    taken = {INDEX_NAME, FLASH_PARAMS_NAME, TRAILER}
    for loaded in files:
        file = loaded.file
        name = free_name(file, -(-loaded.size // actual), taken, target.dfu.name_length)
        if name != file.name:
            notices.append(Notice("renamed", f"{file.path} is named {name} in the image."))
        new = list(split(name, file.address, loaded.data, actual))
        taken.update(part.name for part in new)
        parts += new
    # A file that starts in the middle of a sector is cut in the middle of sectors.
    _refuse(check_regions([Region(part.address, len(part.data), part.name) for part in parts], chip_size, target))
    return Layout(tuple(parts), actual, tuple(notices))


def split(name: str, address: int, data: bytes, part_size: int) -> Iterator[Part]:
    """Cut a file into parts of `part_size` bytes: ``name``, ``name.1``, ``name.2``, ...

    The ROM erases a member's whole range when its first bytes arrive; small parts keep that time short.
    """
    view = memoryview(data)
    for number, offset in enumerate(range(0, len(data), part_size)):
        part_name = name if number == 0 else f"{name}.{number}"
        yield Part(part_name, address + offset, view[offset : offset + part_size])


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise LayoutError("These files cannot be flashed over DFU.", notes=problems)


def _part_size_that_fits(sizes: Sequence[int], wanted: int, parts: int, sector: int) -> int:
    """Return the smallest part size from `wanted` on, in whole sectors, that makes at most `parts` parts."""
    low, high = wanted // sector, max(wanted, *sizes) // sector + 1
    while low < high:
        middle = (low + high) // 2
        if sum(-(-size // (middle * sector)) for size in sizes) <= parts:
            high = middle
        else:
            low = middle + 1
    return low * sector


def free_name(file: FlashFile, part_count: int, taken: set[str], longest: int) -> str:
    """Return the file's own name if the ROM can tell it apart, or one with the address in it.

    Args:
        file: The file.
        part_count: Number of members that it is cut into.
        taken: Names of other members.
        longest: Bytes of a name that the ROM can hold.
    """

    def names(first: str) -> set[str]:
        return {first} | {f"{first}.{number}" for number in range(1, part_count)}

    def fits(first: str) -> bool:
        return names(first).isdisjoint(taken) and all(len(n.encode("utf-8")) <= longest for n in names(first))

    name = file.name
    if fits(name):
        return name
    pure = PurePath(name)
    suffix = pure.suffix if len(pure.suffix.encode("utf-8")) <= 8 else ""
    ending = f"@{file.address:#x}{suffix}"
    room = longest - len(ending.encode("utf-8")) - len(f".{part_count}")
    stem = pure.stem.encode("utf-8")
    for number in itertools.count():
        mark = f"_{number}_" if number else ""
        candidate = mark + stem[: room - len(mark)].decode("utf-8", "ignore") + ending
        if fits(candidate):
            return candidate
    raise AssertionError
