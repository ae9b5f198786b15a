"""Text in a narrow terminal: where to break it, and what is left where it may not be broken."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence


def shorten(text: str, width: int) -> str:
    """The beginning of a text that is too long; ``..`` says so, which every code page has."""
    return text if len(text) <= width else f"{text[: width - 2]}.."


def fold(text: str, width: int) -> list[str]:
    """Cut a text into lines of `width`, the spaces at their ends aside.

    Between words; a word that is too long itself behind a slash, and where that does not do, anywhere.
    """
    from rich.cells import cell_len

    lines = [""]
    for part in _parts(text, width, (" ", "/", "_-")):
        if lines[-1] and cell_len((lines[-1] + part).rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return lines


def _parts(text: str, width: int, ends: Sequence[str]) -> Iterator[str]:
    from rich.cells import cell_len

    if not ends:
        yield from text
        return
    for part in re.findall(f"[^{ends[0]}]*[{ends[0]}]|[^{ends[0]}]+", text):
        if cell_len(part.rstrip()) <= width:
            yield part
        else:
            yield from _parts(part, width, ends[1:])
