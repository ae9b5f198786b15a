"""Text with a style, shortened or folded to fit, and tables made of it."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence

from ..units import clean

_LONGEST_LINE = 8000  # characters; more than two of the longest paths
_LEAST = 8  # columns that a cell keeps when it is cut


class Styled(str):
    """A part of a line in one style, named as rich names styles; the text must be clean already."""

    __slots__ = ("style",)
    style: str

    def __new__(cls, text: str, style: str = "") -> Styled:
        """Return `text` with `style`."""
        made = super().__new__(cls, text)
        made.style = style
        return made


def printable(text: str) -> str:
    """Return the text without control characters, cut where it is absurdly long."""
    rest = len(text) - _LONGEST_LINE
    return clean(text if rest <= 0 else f"{text[:_LONGEST_LINE]} ... and {rest} more characters")


def at_most(lines: Sequence[str], limit: int = 20) -> list[str]:
    """Return the first `limit` lines, and one that counts the others."""
    rest = len(lines) - limit
    return [*lines[:limit], f"... and {rest} more."] if rest > 0 else list(lines)


def shorten(text: str, width: int) -> str:
    """Cut a text that is too long; it then ends with ``..``, which every code page has."""
    return text if len(text) <= width else f"{text[: width - 2]}.."


def fold(text: str, width: int) -> list[str]:
    """Split a text into lines of at most `width` columns, not counting the spaces at their ends.

    Lines break between words. A word that is too long breaks after a slash, else after ``_`` or ``-``, else anywhere.
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


def table_lines(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[list[Styled]]:
    """Lay out a table that is at most `width` columns wide.

    Args:
        columns: Headings. ``>`` before one aligns its column to the right. ``~`` marks the column that is cut first
            where the table is too wide; after that the last column is folded.
        rows: Cells, which keep their style if they are `Styled`.
        width: Columns of the terminal.

    Returns:
        The lines, each as the parts to print; where nothing helps, they are wider than `width`.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    names = [name.lstrip(">~") for name in columns]
    widths = _column_widths(columns, [names, *rows], width)
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    for name, column in zip(names, columns):
        table.add_column(name, justify="right" if column.startswith(">") else "left", no_wrap=True, overflow="crop")
    for row in rows:
        cells = [shorten(cell, width) for cell, width in zip(row, widths[:-1])]
        cells.append("\n".join(line.rstrip() for line in fold(row[-1], widths[-1])))
        table.add_row(*(Text(cell, getattr(whole, "style", "")) for cell, whole in zip(cells, row)))
    lines = []
    room = max(width, sum(widths) + 2 * len(widths) - 2)  # rich would drop what does not fit
    for segments in Console(file=io.StringIO(), width=room).render_lines(table, pad=False):
        parts = [Styled(segment.text, str(segment.style or "")) for segment in segments]
        while parts and not parts[-1].strip():
            parts.pop()
        if parts:
            parts[-1] = Styled(parts[-1].rstrip(), parts[-1].style)
        lines.append(parts)
    return lines


def _column_widths(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[int]:
    from rich.cells import cell_len

    widths = [max(map(cell_len, cells)) for cells in zip(*rows)]
    excess = max(0, sum(widths) + 2 * len(widths) - 2 - width)
    for number, name in enumerate(columns):
        if name.startswith("~"):
            cut = min(excess, max(0, widths[number] - _LEAST))
            widths[number] -= cut
            excess -= cut
    widths[-1] = max(_LEAST, widths[-1] - excess)
    return widths
