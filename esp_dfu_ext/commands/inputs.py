"""What `build`, `flash` and `inspect` take: the words that name an input, and the options about it."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputMissingError, UsageError
from ..image.format import DfuImage, parse_image
from ..image.plan import FlashPlan
from ..inputs.folders import FILES_OF_BUILDS
from ..inputs.recognise import read_firmware_file, recognise
from ..operations.build import ImageOptions, prepare
from ..target import Target, load_targets
from ..units import parse_size, quoted
from .session import Session, near


def image_options(
    *,
    part_size: str | None = None,
    only: Collection[str] = (),
    target: str | None = None,
    flash_size: str | None = None,
    include: Collection[str] = (),
    add: Sequence[tuple[str, str]] = (),
    at: str | None = None,
    force: bool = False,
    allow_outside: bool = False,
) -> ImageOptions:
    """Return the options of the command line as `operations.build` takes them.

    Raises:
        UsageError: A size is invalid.
    """
    return ImageOptions(
        target=target,
        flash_size=_size("--flash-size", flash_size),
        include=include,
        add=[(where, Path(file)) for where, file in add],
        at=at,
        force=force,
        part_size=_size("--part-size", part_size),
        sections=only,
        allow_outside=allow_outside,
    )


def _size(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_size(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}.") from None


class BuiltImage(NamedTuple):
    """An image that was made in memory.

    Attributes:
        image: The image.
        target: Its chip.
        plan: What it was made from.
    """

    image: DfuImage
    target: Target
    plan: FlashPlan

    @property
    def kind(self) -> str:
        """What it was made from, such as ``merged image``."""
        return self.plan.kind


def build_in_memory(session: Session, verb: str, what: Sequence[Path], chosen: Mapping[str, Any]) -> BuiltImage | None:
    """Return the image that `build` would write, without writing it; None for a dfu.bin.

    Args:
        session: State of this invocation.
        verb: The command that was typed.
        what: Words that name the input.
        chosen: Options, as `image_options` takes them.

    Raises:
        UsageError: Options for `build` came with a dfu.bin.
        EspDfuError: As `operations.build.build`.
    """
    if len(what) == 1 and not os.path.isdir(what[0]) and _is_dfu_image(what[0]):  # noqa: PTH112 (it never raises)
        given = [f"--{name.replace('_', '-')}" for name, value in chosen.items() if value and name != "force"]
        if given:
            raise UsageError(f"{what[0]} is a dfu.bin already; {' and '.join(given)} cannot change it.")
        return None
    name_input(session, verb, what)
    prepared = prepare([near(what[0]), *what[1:]], image_options(**chosen), on_event=session.notice)
    return BuiltImage(parse_image(prepared.encode()), prepared.target, prepared.plan)


def _is_dfu_image(path: Path) -> bool:
    """Return whether a file is a dfu.bin, or nothing that is known, which a damaged dfu.bin may be."""
    try:
        data = read_firmware_file(path)
    except InputMissingError:
        return True  # and will be missed as such
    found = recognise(data, load_targets(on_broken=lambda _: None)).kind
    return found == "dfu" or (found == "unknown" and path.name not in FILES_OF_BUILDS)


def name_input(session: Session, verb: str, what: Sequence[Path]) -> None:
    """Use this input in the commands of advice; `verb` is the command that was typed."""
    words = quoted(list(map(str, what)))
    if len(what) == 1:
        session.name_project(what[0])
    this = session.names.again or session.names.this or f"esp-dfu {verb} {words}"
    flash = this if verb == "flash" else session.names.flash
    session.names = replace(session.names, this=this, build=f"esp-dfu build {words}", flash=flash)
