"""The part of an image that flash memory does not hold yet, as an image of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..target import Target
from .format import DfuImage, Member, parse_image
from .layout import Part, free_name
from .plan import FlashFile
from .writer import encode_image

Holds = Callable[[int, memoryview], bool]  # flash memory holds these bytes at this address


@dataclass
class _Stretch:
    """Bytes `start` to `end` of a member, which flash memory does not hold."""

    member: Member
    address: int
    start: int
    end: int


def changed_image(image: DfuImage, target: Target, holds: Holds) -> DfuImage | None:
    """Return an image with what flash memory does not hold of another one.

    A member that differs is compared once more in erase blocks of the flash memory, and only the blocks that differ
    are kept. Smaller pieces would not pay: to ask for an MD5 costs about as much as to send a sector.

    Args:
        image: Image that has passed its checks.
        target: Its chip.
        holds: Tells what flash memory holds.

    Returns:
        None if flash memory holds everything. `image` itself if it holds nothing of it, or cannot be cut.
    """
    params = image.flash_params
    stretches = [stretch for member in image.flash_members for stretch in _differing(member, target, holds)]
    if not stretches:
        return None
    if params is None or sum(each.end - each.start for each in stretches) == image.payload_size:
        return image
    _join(stretches, target.dfu.index_records - 1)
    taken = {member.name for member in image.members}
    parts = []
    for each in stretches:
        address, name = each.address + each.start, each.member.name
        if each.start:
            name = free_name(FlashFile(address, Path(name)), 1, taken, target.dfu.name_length)
            taken.add(name)
        parts.append(Part(name, address, each.member.data[each.start : each.end]))
    return parse_image(b"".join(encode_image(parts, params, image.suffix)))


def _differing(member: Member, target: Target, holds: Holds) -> list[_Stretch]:
    assert member.record is not None
    address, size = member.record.address, len(member.data)
    if holds(address, member.data):
        return []
    block = target.flash.block
    cuts = [0, *range(block - address % block, size, block), size]
    found: list[_Stretch] = []
    for start, end in zip(cuts, cuts[1:]):
        if len(cuts) > 2 and holds(address + start, member.data[start:end]):
            continue
        if found and found[-1].end == start:
            found[-1].end = end
        else:
            found.append(_Stretch(member, address, start, end))
    return found or [_Stretch(member, address, 0, size)]


def _join(stretches: list[_Stretch], most: int) -> None:
    """Close the narrowest gaps within members until there are at most as many stretches as the ROM's index takes."""
    while len(stretches) > most:
        gaps = [
            (after.start - before.end, number)
            for number, (before, after) in enumerate(zip(stretches, stretches[1:]))
            if before.member is after.member
        ]
        _, number = min(gaps)
        stretches[number].end = stretches.pop(number + 1).end
