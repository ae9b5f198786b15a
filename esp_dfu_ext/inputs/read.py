"""Read whatever the user named: a folder of a build, a file, or addresses with files; and find out what goes where."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import UsageError, WrongInputError
from ..events import Notice
from ..image.partition_table import (
    DEFAULT_OFFSET,
    LENGTH,
    SECTOR,
    Partition,
    find_partition_table,
    partition_at,
    read_partition_table,
)
from ..image.plan import FlashFile, FlashPlan
from ..target import Target
from ..units import format_size
from .build_files import is_inside
from .esptool_args import is_address, read_flash_args, read_pairs
from .folders import FILES_OF_BUILDS, read_folder
from .identify import plan_target
from .intel_hex import read_intel_hex
from .merged import Stretch, read_merged
from .recognise import read_firmware_file, recognise

Words = Sequence["str | os.PathLike[str]"]

_TABLES = ("partitions.bin", "partition-table.bin", "partition_table/partition-table.bin")  # beside an app


@dataclass(frozen=True)
class InputOptions:
    """What the user says about an input.

    Attributes:
        target: The chip, None for the one that the input names.
        flash_size: Bytes of flash memory, None for what the input says.
        include: Partitions of a merged image to take although they hold nothing but FF.
        add: Further files, each with its address or partition.
        at: Address or partition of a file that does not say where it goes, such as an app alone.
        force: Take `target` and `flash_size` even if the input contradicts them.
    """

    target: str | None = None
    flash_size: int | None = None
    include: Collection[str] = ()
    add: Sequence[tuple[str, Path]] = field(default=())
    at: str | None = None
    force: bool = False


def read_input(
    what: Words, targets: Sequence[Target], options: InputOptions, project_dir: Path | None = None
) -> FlashPlan:
    """Return what an input wants in flash memory, with the names of its parts.

    Args:
        what: A folder, a file, or pairs of address and file.
        targets: Known chips.
        options: What the user says about it.
        project_dir: Folder of an ESP-IDF project, None to find it from the build folder.

    Raises:
        InputMissingError: A file or folder does not exist or cannot be read.
        NoBuildError: The folder has no build that can be read.
        WrongInputError: The file is something else than firmware with its addresses.
        ProjectError: A file of the build cannot be used.
        NoTargetError, TargetNotSupportedError: The chip is unknown or has no USB DFU.
        UsageError: An option contradicts the input.
    """
    words = [os.fspath(word) for word in what]
    first = Path(words[0])
    if options.at is not None and (len(words) > 1 or os.path.isdir(first)):  # noqa: PTH112
        raise UsageError("--at is for one file that does not say where it goes.")
    if len(words) > 1:
        plan = _pairs(words, targets, options)
    elif os.path.isdir(first) or not (first.suffix or os.path.exists(first)):  # noqa: PTH110, PTH112 (they never raise)
        plan = read_folder(first, targets, options.target, project_dir)
    elif first.name in FILES_OF_BUILDS:
        plan = read_folder(first.parents[FILES_OF_BUILDS[first.name]], targets, options.target, project_dir)
    else:
        plan = _file(first, targets, options)
    if options.include and plan.kind != "merged image":
        raise UsageError(f"--include is for merged images; of this input ({plan.kind}) nothing is left out.")
    return _with_added(_with_table(plan), options.add)


def name_sections(plan: FlashPlan, target: Target) -> FlashPlan:
    """Return the plan with a section for each file whose address or partition tells it."""
    return replace(plan, files=tuple(_with_section(plan, file, target) for file in plan.files))


def _with_section(plan: FlashPlan, file: FlashFile, target: Target) -> FlashFile:
    if file.section:
        return file
    partition = partition_at(plan.table, file.address)
    if file.address == target.firmware.bootloader_offset:
        return replace(file, section="bootloader")
    if partition is not None and partition.offset == file.address:
        if partition.is_app:
            return replace(file, section="app")
        if partition.is_otadata:
            return replace(file, section="otadata")
    return file


# --- files ------------------------------------------------------------------------------------------------


def _file(path: Path, targets: Sequence[Target], options: InputOptions) -> FlashPlan:
    data = read_firmware_file(path)
    found = recognise(data, targets)
    if options.at is not None:
        return _placed(path, data, found.chip, options)
    if found.kind == "flash_args":
        return read_flash_args(path)
    if found.kind in ("merged", "hex"):
        stretches = read_intel_hex(path, data) if found.kind == "hex" else [Stretch(found.base, data)]
        return _merged(path, stretches, found.chip, targets, options)
    places = [partition.name for partition in _table_beside(path, options) if partition.is_app]
    places = places if found.kind == "app" else []
    raise WrongInputError(f"{path} is {found.text}.", path=path, kind=found.kind, places=places)


def _merged(
    path: Path, stretches: Sequence[Stretch], chip: str, targets: Sequence[Target], options: InputOptions
) -> FlashPlan:
    files = tuple(FlashFile(stretch.base, path, data=stretch.data) for stretch in stretches)
    target = plan_target(FlashPlan(path, chip, None, files), options.target, targets, force=options.force)
    return read_merged(path, stretches, target, options.include)


def _placed(path: Path, data: bytes, chip: str, options: InputOptions) -> FlashPlan:
    """Return the plan for one file that the user said the place of."""
    assert options.at is not None
    table = _table_beside(path, options)
    address = _address_of(options.at, table, "--at", len(data))
    notice = Notice(
        "app-alone", f"Only {path.name} is in the image: the bootloader and the partition table on the board stay."
    )
    file = FlashFile(address, path, data=data)
    return FlashPlan(path, chip, None, (file,), kind="file", table=table, notices=(notice,))


def _table_beside(path: Path, options: InputOptions) -> tuple[Partition, ...]:
    """Return the partition table that belongs to an app, none if there is none beside it."""
    sketch = path.name[: -len(".bin")] + ".partitions.bin" if path.name.endswith(".ino.bin") else ""
    for file in [path for _, path in options.add] + [path.parent / name for name in (sketch, *_TABLES) if name]:
        with suppress(OSError, ValueError):
            if file.is_file():
                with file.open("rb") as stream:
                    table = read_partition_table(stream.read(LENGTH))
                if table:
                    return table
    return ()


def _pairs(words: Sequence[str], targets: Sequence[Target], options: InputOptions) -> FlashPlan:
    """Return the plan of addresses and files; a merged image among them is cut."""
    pairs = read_pairs(words)
    plan = FlashPlan(pairs[0][1], "", None, (), kind="list of addresses and files")
    files: list[FlashFile] = []
    for address, path in pairs:
        data = read_firmware_file(path)
        found = recognise(data, targets)
        if found.kind in ("elf", "uf2", "dfu", "hex"):
            raise WrongInputError(f"{path} is {found.text}.", path=path, kind=found.kind)
        if found.kind == "merged" and find_partition_table(data, address) is not None:
            cut = _merged(path, [Stretch(address, data)], found.chip, targets, options)
            files += cut.files
            plan = replace(plan, kind=cut.kind, chip_size=plan.chip_size or cut.chip_size, table=cut.table)
        else:
            files.append(FlashFile(address, path, data=data))
    return replace(plan, files=tuple(sorted(files, key=lambda file: file.address)))


# --- names ------------------------------------------------------------------------------------------------


def _with_table(plan: FlashPlan) -> FlashPlan:
    """Return the plan with its partition table, if one of its files holds one, and the partitions of its files."""
    files, table = list(plan.files), plan.table
    known = [number for number, file in enumerate(files) if file.section == "partition-table"]
    perhaps = [number for number, file in enumerate(files) if not file.section]
    for number in [] if table else known or sorted(perhaps, key=lambda n: files[n].address != DEFAULT_OFFSET):
        data = _small(plan, files[number])
        files[number] = replace(files[number], data=data or files[number].data)
        table = read_partition_table(data)
        if table:
            files[number] = replace(files[number], section="partition-table")
            break
    named = (replace(file, partition=file.partition or _partition_name(table, file)) for file in files)
    return replace(plan, files=tuple(named), table=table)


def _partition_name(table: Iterable[Partition], file: FlashFile) -> str:
    partition = partition_at(tuple(table), file.address)
    return partition.name if partition is not None else ""


def _small(plan: FlashPlan, file: FlashFile) -> bytes:
    """Return a file that is small enough to be a partition table, else nothing; it is not read again later."""
    if file.data is not None:
        return file.data if len(file.data) <= SECTOR else b""
    if plan.sources is not None and not is_inside(file.path, plan.folder, plan.sources):
        return b""
    with suppress(OSError, ValueError):
        if file.path.is_file() and file.path.stat().st_size <= SECTOR:
            return file.path.read_bytes()
    return b""


def _with_added(plan: FlashPlan, add: Iterable[tuple[str, Path]]) -> FlashPlan:
    files = list(plan.files)
    for where, path in add:
        data = read_firmware_file(path)
        address = _address_of(where, plan.table, "--add", len(data))
        files.append(
            FlashFile(address, path, data=data, partition=_partition_name(plan.table, FlashFile(address, path)))
        )
    return replace(plan, files=tuple(sorted(files, key=lambda file: file.address)))


def _address_of(where: str, table: Sequence[Partition], option: str, size: int) -> int:
    """Return the address that the user gave, or that of the partition that he named, if the file fits there."""
    if is_address(where):
        return int(where, 16 if where[:2] in ("0x", "0X") else 10)
    for partition in table:
        if partition.name == where:
            if size > partition.size:
                raise UsageError(
                    f"{option} {where}: the file has {format_size(size)}, the partition {format_size(partition.size)}."
                )
            return partition.offset
    names = ", ".join(partition.name for partition in table)
    listed = f"the partitions are {names}" if names else "there is no partition table; give an address such as 0x10000"
    raise UsageError(f"{option} {where}: there is no such partition; {listed}.")
