"""The chip and the flash size of a plan: what the build says, or the headers of its images, or the user."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from ..errors import NoFlashSizeError, NoTargetError, TargetNotSupportedError, UsageError
from ..image.esp_image import EspHeader, read_header
from ..image.partition_table import partition_at
from ..image.plan import FlashFile, FlashPlan
from ..target import Target
from ..units import format_size
from .build_files import is_inside

_HEAD = 64  # bytes, more than an image header


def chip_name(chip_id: int, targets: Sequence[Target]) -> str:
    """Return the name of the chip with this ID in its images, also of one without USB DFU; empty if it is unknown."""
    for target in targets:
        if target.firmware.chip_id == chip_id:
            return target.name
    from esptool.targets import CHIP_DEFS  # takes a third of a second

    return next((name for name, chip in CHIP_DEFS.items() if getattr(chip, "IMAGE_CHIP_ID", None) == chip_id), "")


def find_chip(name: str, names: Collection[str]) -> str:
    """Return the chip that the user named, in any spelling: upper case, with hyphens.

    Args:
        name: What the user wrote.
        names: Names of the known chips.

    Raises:
        TargetNotSupportedError: There is no such chip.
    """
    wanted = re.sub(r"[^a-z0-9]", "", name.lower())
    if name in names or wanted in names:
        return name if name in names else wanted
    from esptool.targets import CHIP_DEFS

    similar = difflib.get_close_matches(wanted, names, 1) if wanted not in CHIP_DEFS else []
    raise TargetNotSupportedError(name, supported=sorted(names), meant="".join(similar))


def plan_chip(plan: FlashPlan, wanted: str | None, targets: Sequence[Target], *, force: bool = False) -> str:
    """Return the name of the chip that a plan is for.

    Args:
        plan: The plan.
        wanted: The chip that the user named, None if he named none.
        targets: Known chips.
        force: Take the user's chip even if the build names another one.

    Raises:
        NoTargetError: Nothing names the chip.
        TargetNotSupportedError: The user named one that is not known.
        UsageError: The user named another one than the build.
    """
    chip = plan.chip or next((name for head in _headers(plan) if (name := chip_name(head.chip_id, targets))), "")
    if wanted is not None:
        name = find_chip(wanted, [target.name for target in targets])
        if chip and chip != name and not force:
            raise UsageError(f"--target {wanted} contradicts {plan.origin}, which is for {chip}.")
        return name
    if not chip:
        raise NoTargetError(f"{plan.origin} does not name its target chip.", path=plan.origin)
    return chip


def plan_target(plan: FlashPlan, wanted: str | None, targets: Sequence[Target], *, force: bool = False) -> Target:
    """Return the chip that a plan is for; see `plan_chip`.

    Raises:
        NoTargetError, UsageError: As `plan_chip`.
        TargetNotSupportedError: The chip has no USB DFU in its ROM.
    """
    chip = plan_chip(plan, wanted, targets, force=force)
    for target in targets:
        if target.name == chip:
            return target
    raise TargetNotSupportedError(chip, supported=[target.name for target in targets])


def plan_size(plan: FlashPlan, wanted: int | None, *, force: bool = False) -> int:
    """Return the bytes of flash memory that a plan is for.

    Args:
        plan: The plan.
        wanted: The size that the user named, None if he named none.
        force: Take the user's size even if the build names another one.

    Raises:
        NoFlashSizeError: Nothing names the size.
        UsageError: The user named another one than the build.
    """
    size = plan.chip_size or next((head.flash_size for head in _headers(plan) if head.flash_size), None)
    if wanted is None:
        if not size:
            raise NoFlashSizeError(f"{plan.origin} does not say how large the flash memory is.")
        return size
    if size and size != wanted and not force:
        raise UsageError(
            f"--flash-size {format_size(wanted)} contradicts {plan.origin}, which is built for {format_size(size)}."
        )
    return wanted


def _headers(plan: FlashPlan) -> Iterator[EspHeader]:
    """Yield the headers of the bootloader, of the apps, and of what may be one of these; not those of data."""
    ranks = {"bootloader": 0, "app": 1, "": 2}
    for file in sorted(plan.files, key=lambda file: ranks.get(file.section, 3)):
        if file.section in ranks and not _is_data(plan, file):
            header = read_header(_head(plan, file))
            if header is not None:
                yield header


def _is_data(plan: FlashPlan, file: FlashFile) -> bool:
    partition = partition_at(plan.table, file.address)
    return partition is not None and not partition.is_app and not partition.is_of_bootloader


def _head(plan: FlashPlan, file: FlashFile) -> bytes:
    """Return the first bytes of a file, none if it cannot be read; the file is read as a whole later."""
    if file.data is not None:
        return file.data[:_HEAD]
    if plan.sources is None or is_inside(file.path, plan.folder, plan.sources):
        with suppress(OSError, ValueError):
            if Path(file.path).is_file():
                with file.path.open("rb") as stream:
                    return stream.read(_HEAD)
    return b""
