"""From flash files to the parts of an image: names, part size, and what the ROM would get wrong.

Everything that is refused here would end, on the chip, in lost data or in an error after minutes.
"""

from __future__ import annotations

import itertools
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..errors import InputMissingError, LayoutError, UsageError
from ..events import Notice
from ..target import Target
from ..units import format_size
from .cpio import TRAILER
from .format import FLASH_PARAMS_NAME, INDEX_NAME
from .writer import Part, split


@dataclass(frozen=True)
class FlashFile:
    """A file of the build and the flash address it goes to.

    Attributes:
        address: in bytes from the start of the flash.
        path: where it lies.
        section: its name in flasher_args.json (``app``, ``bootloader``, ...), empty if it has none there.
        encrypted: the build marks it to be encrypted.
    """

    address: int
    path: Path
    section: str = ""
    encrypted: bool = False


class Region(NamedTuple):
    """A stretch of flash and the file that fills it."""

    address: int
    size: int
    name: str

    @property
    def end(self) -> int:
        """The first address after it."""
        return self.address + self.size

    def __str__(self) -> str:
        return f"{self.name} ({self.address:#x} to {self.end:#x})"


@dataclass(frozen=True)
class Layout:
    """What goes where, ready to be written.

    Attributes:
        files: the flash files with their size in bytes, by address.
        parts: the members to be, by address.
        part_size: the size the files were cut to, in bytes.
        notices: what was changed on the way, for the user.
    """

    files: tuple[tuple[FlashFile, int], ...]
    parts: tuple[Part, ...]
    part_size: int
    notices: tuple[Notice, ...]


def check_regions(regions: Sequence[Region], chip_size: int, target: Target) -> list[str]:
    """Say what the ROM would flash wrongly of these regions; one sentence each, nothing when all is well.

    Args:
        regions: in any order.
        chip_size: what the image will tell the ROM, in bytes.
        target: the chip.
    """
    problems = []
    sector = target.flash.sector
    end = min(chip_size, target.flash.limit)
    ordered = sorted(regions)
    for region in ordered:
        if region.size == 0:
            problems.append(f"{region.name} for {region.address:#x} is empty.")
        if region.address % 4:
            problems.append(f"{region} does not start at a multiple of 4; the ROM cannot write there.")
        if region.end > end:
            what = "the chip's flash" if chip_size <= target.flash.limit else "what the ROM can address"
            problems.append(f"{region} goes beyond {what}, which ends at {end:#x} ({format_size(end)}).")
    for before, after in zip(ordered, ordered[1:]):
        if before.end > after.address:
            problems.append(f"{before} and {after} overlap.")
        elif before.size and (before.end - 1) // sector == after.address // sector:
            problems.append(
                f"{before} and {after} share the {sector}-byte sector at {after.address // sector * sector:#x}; "
                "erasing it for the second would lose the first."
            )
    return problems


def plan_layout(files: Sequence[FlashFile], chip_size: int, target: Target, part_size: int | None = None) -> Layout:
    """Decide names and parts; every check that concerns the ROM is made here, before a byte is written.

    Args:
        files: in any order; of two entries with one address and one file, one is enough.
        chip_size: bytes of flash on the board.
        target: the chip.
        part_size: bytes; None for the chip's default.

    Raises:
        UsageError: `part_size` cuts in the middle of a sector.
        InputMissingError: a file is not there.
        LayoutError: the ROM would lose data; `notes` has one line for each problem.
    """
    wanted = part_size if part_size is not None else target.dfu.part_size
    if wanted < target.flash.sector or wanted % target.flash.sector:
        raise UsageError(
            f"A part size of {wanted} bytes would cut files in the middle of a sector; "
            f"it must be a multiple of {target.flash.sector}."
        )
    unique = sorted(dict.fromkeys(files), key=lambda file: file.address)
    sized = tuple((file, _size(file)) for file in unique)
    regions = [Region(file.address, size, file.path.name) for file, size in sized]
    problems = check_regions(regions, chip_size, target)
    if not sized:
        problems.append("There is nothing to flash.")
    free_records = target.dfu.index_records - 1
    if len(sized) > free_records:
        problems.append(f"{len(sized)} files are more than the {free_records} that the ROM's index can hold.")
    _refuse(problems)

    notices = []
    actual = _part_size_that_fits([size for _, size in sized], wanted, free_records, target.flash.sector)
    if actual != wanted:
        notices.append(
            Notice(
                "part-size-raised",
                f"Part size raised from {format_size(wanted)} to {format_size(actual)}: "
                f"the ROM's index holds {free_records} parts.",
            )
        )
    parts: list[Part] = []
    taken = {INDEX_NAME, FLASH_PARAMS_NAME, TRAILER}
    for file, size in sized:
        name = _free_name(file, -(-size // actual), taken, target.dfu.name_length)
        if name != file.path.name:
            notices.append(Notice("renamed", f"{file.path} is called {name} in the image."))
        new = list(split(name, file.address, file.path, size, actual))
        taken.update(part.name for part in new)
        parts += new
    # A file that starts within a sector is cut within sectors.
    problems = check_regions([Region(part.address, part.size, part.name) for part in parts], chip_size, target)
    _refuse(problems)
    return Layout(sized, tuple(parts), actual, tuple(notices))


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise LayoutError("These files cannot be flashed over DFU.", notes=problems)


def _size(file: FlashFile) -> int:
    path = file.path
    where = f"{path} for {file.address:#x}"
    try:
        found = path.stat()
    except PermissionError as error:
        raise InputMissingError.of(error, path, "flash file") from error
    except (OSError, ValueError) as error:  # a name that is too long, or has a NUL in it, is not there either
        raise InputMissingError(f"{where} is not there.", path=path, role="flash file") from error
    if not stat.S_ISREG(found.st_mode):
        raise InputMissingError(f"{where} is no regular file.", path=path, role="flash file", reason="no-file")
    return found.st_size


def _part_size_that_fits(sizes: Sequence[int], wanted: int, parts: int, sector: int) -> int:
    """The smallest part size from `wanted` on, in whole sectors, that makes no more than `parts` parts."""
    low, high = wanted // sector, max(wanted, *sizes) // sector + 1
    while low < high:
        middle = (low + high) // 2
        if sum(-(-size // (middle * sector)) for size in sizes) <= parts:
            high = middle
        else:
            low = middle + 1
    return low * sector


def _free_name(file: FlashFile, part_count: int, taken: set[str], longest: int) -> str:
    """The file's own name where the ROM can tell it apart, else one with its address in it."""

    def names(first: str) -> set[str]:
        return {first} | {f"{first}.{number}" for number in range(1, part_count)}

    def fits(first: str) -> bool:
        return names(first).isdisjoint(taken) and all(len(n.encode("utf-8")) <= longest for n in names(first))

    name = file.path.name
    if fits(name):
        return name
    suffix = file.path.suffix if len(file.path.suffix.encode("utf-8")) <= 8 else ""
    ending = f"@{file.address:#x}{suffix}"
    room = longest - len(ending.encode("utf-8")) - len(f".{part_count}")
    stem = file.path.stem.encode("utf-8")
    for number in itertools.count():
        mark = f"_{number}_" if number else ""
        candidate = mark + stem[: room - len(mark)].decode("utf-8", "ignore") + ending
        if fits(candidate):
            return candidate
    raise AssertionError
