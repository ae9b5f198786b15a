"""What the ROM would get wrong about an image, found before a byte is sent.

Each check stands for a stream that was run on Espressif's ROM code; tests/kit/streams.py has the streams, and the tests
compare this module with the simulated ROM.
"""

from __future__ import annotations

from collections import Counter

from ..target import Target
from .format import FLAG_PARAMS, FLASH_PARAMS_FLAGS, INDEX_NAME, DfuImage, md5
from .layout import Region, check_regions


def check_image(image: DfuImage, target: Target) -> list[str]:
    """Return what the ROM would get wrong, one sentence for each problem; empty if the image is good."""
    limits = target.dfu
    problems = []
    if len(image.stream) < limits.raw_below:
        problems.append(
            f"The stream has {len(image.stream)} bytes; the ROM treats fewer than {limits.raw_below} as raw data "
            "and writes them to flash address 0."
        )
    if not image.records:
        problems.append(f"{INDEX_NAME} is missing or empty: the ROM would report success and write nothing.")
    elif not image.index_first:
        problems.append(f"{INDEX_NAME} is not the first member: the ROM would drop the members before it.")
    if len(image.records) > limits.index_records:
        problems.append(
            f"The index has {len(image.records)} records; with more than {limits.index_records} the ROM fails with "
            "errFILE."
        )
    if image.records and not image.flash_members:
        problems.append("The image has no flash file: the ROM would report success and write nothing.")
    problems += _name_problems(image, limits.name_length)
    problems += _content_problems(image)
    regions = [
        Region(member.record.address, len(member.data), member.name)
        for member in image.flash_members
        if member.record is not None
    ]
    return problems + check_regions(regions, chip_size(image, target), target)


def chip_size(image: DfuImage, target: Target) -> int:
    """Return the size of the flash memory that the ROM takes an image for, in bytes."""
    params = image.flash_params
    return params.chip_size if params is not None else target.flash.assumed_size


def _name_problems(image: DfuImage, longest: int) -> list[str]:
    problems = []
    for kind, names in (
        ("member", [m.name for m in image.members]),
        ("record", [r.name for r in image.records]),
    ):
        for name, count in Counter(names).items():
            if count > 1:
                problems.append(
                    f"{count} {kind}s are named {name}: the ROM would write all of them to the address of the first."
                )
    if INDEX_NAME in (m.name for m in image.members):
        problems.append(f"There are several members named {INDEX_NAME}: the ROM would use the last as its index.")
    present = {m.name for m in image.members}
    for record in image.records:
        if len(record.name.encode("utf-8")) > longest:
            problems.append(f"The name {record.name} is longer than {longest} bytes: the ROM would not find the file.")
        elif record.name not in present:
            problems.append(f"{record.name} is in the index but not in the archive.")
    for member in image.members:
        if member.record is None:
            problems.append(f"{member.name} is in the archive but not in the index: the ROM would skip it.")
    return problems


def _content_problems(image: DfuImage) -> list[str]:
    problems = []
    params = [n for n, m in enumerate(image.members) if m.record is not None and m.record.flags & FLAG_PARAMS]
    if params and params[0] > 0:
        problems.append("The flash parameters come after other members: the ROM would apply its defaults to those.")
    if len(params) > 1:
        problems.append(f"{len(params)} members hold flash parameters: the ROM would use the last.")
    for member in image.members:
        record = member.record
        if record is None:
            continue
        if record.flags not in (0, FLASH_PARAMS_FLAGS):
            problems.append(f"{member.name} has flags {record.flags:#x} in the index; a flash file has 0x0.")
        elif not record.flags & FLAG_PARAMS and md5(member.data).digest() != record.md5:
            problems.append(f"{member.name} does not match its MD5 in the index.")
    return problems
