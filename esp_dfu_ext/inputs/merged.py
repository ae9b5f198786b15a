"""A merged image: bootloader, partition table, apps and data in one file, as they lie in flash memory.

esptool's and ESP-IDF's merge-bin, Arduino, pioarduino, ESPHome (firmware.factory.bin), espflash, CircuitPython and
MicroPython make such files. Some begin at flash address 0, some at the bootloader's; some are padded with FF to the
size of the flash memory. They are cut at their partition table: a partition in which they hold nothing is left alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import UsageError
from ..events import Notice
from ..image.esp_image import image_length, read_header
from ..image.partition_table import LENGTH, SECTOR, Partition, find_partition_table, read_partition_table
from ..image.plan import FlashFile, FlashPlan
from ..target import Target

_ERASED = b"\xff"


class Stretch(NamedTuple):
    """What a file has for flash memory from address `base` on."""

    base: int
    data: bytes


def read_merged(path: Path, stretches: Sequence[Stretch], target: Target, include: Collection[str] = ()) -> FlashPlan:
    """Cut a merged image.

    Args:
        path: Path of the file.
        stretches: Its contents by address; a .bin has one, an Intel HEX file several.
        target: The chip that it is for.
        include: Names of partitions to take although they hold nothing but FF.

    Raises:
        UsageError: `include` names a partition that the image does not have.
    """
    bootloader = target.firmware.bootloader_offset
    images = [_Merged(path, stretch) for stretch in stretches]
    headers = (read_header(image.between(bootloader, image.end)) for image in images if image.base <= bootloader)
    size = next((header.flash_size for header in headers if header is not None), None)
    place, table = _table(images)
    _check_names(include, table, path)
    files: list[FlashFile] = []
    text = f"{path} has no partition table: all that follows the bootloader is one block."
    notices = () if table else (Notice("no-partition-table", text),)
    for image in images:
        files += image.by_table(bootloader, place, table, include) if table else image.without_table(bootloader)
    for name in include:
        if name not in {file.partition for file in files}:
            end = images[-1].end
            raise UsageError(f"--include {name}: {path} has nothing for that partition; it ends at {end:#x}.")
    ordered = tuple(sorted(files, key=lambda file: file.address))
    return FlashPlan(path, target.name, size, ordered, kind="merged image", table=table, notices=notices)


def _table(images: Sequence[_Merged]) -> tuple[int, tuple[Partition, ...]]:
    """Return the partition table and its address; none at 0 if there is none."""
    for image in images:
        place = find_partition_table(image.data, image.base)
        if place is not None:
            return place, read_partition_table(image.between(place, place + LENGTH))
    return 0, ()


def _check_names(include: Collection[str], table: Sequence[Partition], path: Path) -> None:
    names = [partition.name for partition in table]
    for name in include:
        if name not in names:
            listed = f"it has {', '.join(names)}" if names else "it has no partition table"
            raise UsageError(f"--include {name}: {path} has no such partition; {listed}.")


class _Merged:
    """A stretch of flash memory in a file."""

    def __init__(self, path: Path, stretch: Stretch) -> None:
        self.path = path
        self.base, self.data = stretch
        self.end = self.base + len(self.data)

    def between(self, start: int, end: int) -> bytes:
        """Return what the file has for these flash addresses, which may be less."""
        return self.data[max(0, start - self.base) : max(0, end - self.base)]

    def without_table(self, bootloader: int) -> list[FlashFile]:
        """Return the bootloader, and all that follows it as one block."""
        length = image_length(self.between(bootloader, self.end)) or 0
        behind = -(-(bootloader + length) // SECTOR) * SECTOR
        files = [*self._trimmed(bootloader, behind, "bootloader"), *self._trimmed(behind, self.end, "")]
        return [*self._trimmed(self.base, bootloader, ""), *files]

    def by_table(
        self, bootloader: int, place: int, table: Sequence[Partition], include: Collection[str]
    ) -> list[FlashFile]:
        """Return each partition that holds something, and what lies outside of all of them."""
        files = [*self._trimmed(bootloader, place, "bootloader")]
        files += self._trimmed(place, place + SECTOR, "partition-table")
        taken = [(bootloader, place), (place, place + SECTOR)]
        for partition in table:
            if any(start < partition.end and partition.offset < end for start, end in taken):
                continue  # the bootloader's and the table's own entries
            files += self._partition(partition, wanted=partition.name in include)
            taken.append((partition.offset, partition.end))
        start = self.base
        for begin, end in [*sorted(taken), (self.end, self.end)]:
            files += self._trimmed(start, begin, "")
            start = max(start, end)
        return files

    def _partition(self, partition: Partition, *, wanted: bool) -> Iterator[FlashFile]:
        """Yield what goes to a partition.

        FF in data that holds something belongs to it: what a board had there before would be taken for new data. The
        partition that selects the app is always taken: else an app of an older firmware could start.
        """
        name = partition.name
        if partition.is_app and not wanted:
            yield from self._trimmed(partition.offset, partition.end, "app", name)
            return
        data = self.between(partition.offset, partition.end)
        whole = wanted or partition.is_otadata or data.strip(_ERASED)
        if data and whole:
            section = "app" if partition.is_app else "otadata" if partition.is_otadata else ""
            yield self._stretch(max(self.base, partition.offset), data, section, name)

    def _trimmed(self, start: int, end: int, section: str, partition: str = "") -> Iterator[FlashFile]:
        """Yield a stretch without the erased sectors at its start and at its end; nothing if all of them are erased."""
        start = max(start, self.base)
        data = self.between(start, end)
        used = len(data.rstrip(_ERASED))
        if not used:
            return
        skipped = (len(data) - len(data.lstrip(_ERASED))) // SECTOR * SECTOR
        yield self._stretch(start + skipped, data[skipped : -(-used // SECTOR) * SECTOR], section, partition)

    def _stretch(self, start: int, data: bytes, section: str, partition: str) -> FlashFile:
        return FlashFile(start, self.path, section, partition=partition, data=data, is_stretch=True)
