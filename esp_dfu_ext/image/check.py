"""What the ROM would get wrong of an image that somebody made, before it gets a byte of it.

Each check stands for a stream that was run on Espressif's ROM code; tests/kit/streams.py has them, and the tests
hold this module and the simulated ROM against each other.
"""

from __future__ import annotations

from collections import Counter

from ..target import Target
from .format import FLAG_PARAMS, FLASH_PARAMS_FLAGS, INDEX_NAME, DfuImage, md5
from .layout import Region, check_regions


def check_image(image: DfuImage, target: Target) -> list[str]:
    """Say what is wrong with the image; one sentence each, nothing when the ROM would flash it as meant."""
    limits = target.dfu
    problems = []
    if len(image.stream) < limits.raw_below:
        problems.append(
            f"The stream has {len(image.stream)} bytes; below {limits.raw_below} the ROM takes it for raw data "
            "and programs it at flash address 0."
        )
    if not image.records:
        problems.append("There is no index, or an empty one: the ROM would report success and write nothing.")
    elif not image.index_first:
        problems.append("The index is not the first member: the ROM would lose the members before it.")
    if len(image.records) > limits.index_records:
        problems.append(
            f"The index has {len(image.records)} records; more than {limits.index_records} end with errFILE."
        )
    problems += _name_problems(image, limits.name_length)
    problems += _content_problems(image)
    params = image.flash_params
    chip_size = params.chip_size if params is not None else target.flash.assumed_size
    regions = [
        Region(member.record.address, len(member.data), member.name)
        for member in image.flash_members
        if member.record is not None
    ]
    return problems + check_regions(regions, chip_size, target)


def _name_problems(image: DfuImage, longest: int) -> list[str]:
    problems = []
    for kind, names in (
        ("member", [m.name for m in image.members]),
        ("record", [r.name for r in image.records]),
    ):
        for name, count in Counter(names).items():
            if count > 1:
                problems.append(f"{count} {kind}s are called {name}: the ROM would write all to the first's address.")
    if INDEX_NAME in (m.name for m in image.members):
        problems.append(f"There is more than one {INDEX_NAME}: the ROM would take the last for its index.")
    present = {m.name for m in image.members}
    for record in image.records:
        if len(record.name.encode("utf-8")) > longest:
            problems.append(f"The name {record.name} has more than {longest} bytes: the ROM would never find it.")
        elif record.name not in present:
            problems.append(f"{record.name} is in the index, but not in the archive.")
    for member in image.members:
        if member.record is None:
            problems.append(f"{member.name} is in the archive, but not in the index: the ROM would skip it.")
    return problems


def _content_problems(image: DfuImage) -> list[str]:
    problems = []
    params = [n for n, m in enumerate(image.members) if m.record is not None and m.record.flags & FLAG_PARAMS]
    if params and params[0] > 0:
        problems.append("The flash parameters come after other members, for which the ROM would not know them.")
    if len(params) > 1:
        problems.append(f"{len(params)} members hold flash parameters: the ROM would believe the last.")
    for member in image.members:
        record = member.record
        if record is None:
            continue
        if record.flags not in (0, FLASH_PARAMS_FLAGS):
            problems.append(f"{member.name} has the flags {record.flags:#x}, which no flash file has.")
        elif not record.flags & FLAG_PARAMS and md5(member.data).digest() != record.md5:
            problems.append(f"{member.name} does not have the MD5 that the index says.")
    return problems
