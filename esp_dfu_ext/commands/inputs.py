"""What `build`, `flash` and `inspect` take: the words that name an input, and the options about it."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import UsageError
from ..operations.build import ImageOptions
from ..units import parse_size
from .session import Session


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


def name_input(session: Session, verb: str, what: Sequence[Path]) -> None:
    """Use this input in the commands of advice; `verb` is the command that was typed."""
    words = shlex.join(map(str, what))
    session.names = replace(session.names, this=f"esp-dfu {verb} {words}", build=f"esp-dfu build {words}")
