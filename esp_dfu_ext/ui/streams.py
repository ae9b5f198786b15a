"""Where lines are printed: a terminal in colour, or a log as plain text, for which rich need not be loaded.

A stream whose reader has left goes mute, because a flash must not depend on its log.

Colours only repeat what the words say, and are red, magenta, green and cyan: on white nobody reads yellow, on black
nobody reads blue.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Sequence
from typing import Protocol, TextIO

from .text import fold, shorten

LOG_WIDTH = 200  # a log has no width; 80 columns would fold tables that somebody greps


class Piece(str):
    """A part of a line in one style, as rich names styles; the text must be `clean`."""

    __slots__ = ("style",)
    style: str

    def __new__(cls, text: str, style: str = "") -> Piece:
        """The text with its style."""
        made = super().__new__(cls, text)
        made.style = style
        return made


class Stream(Protocol):
    """Prints lines."""

    @property
    def width(self) -> int:
        """Columns."""

    @property
    def live(self) -> bool:
        """Can it redraw what it showed?"""

    @property
    def folds(self) -> bool:
        """Are lines that are longer than `width` broken?"""

    def put(self, *pieces: str, wrap: bool = True, hang: int = 0) -> None:
        """Print a line.

        Args:
            pieces: of the line.
            wrap: a terminal may break it between words; a log never does.
            hang: how many columns at its beginning stay free in the lines after the first.
        """


class Log:
    """A file or a pipe; `stream` is None where the program was started without one."""

    width = LOG_WIDTH
    live = False
    folds = False

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def put(self, *pieces: str, wrap: bool = True, hang: int = 0) -> None:
        """Print a line as it is."""
        if self._stream is None:
            return
        try:
            self._stream.write("".join(pieces) + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # ValueError: somebody closed it
            self._stream = None


def drop_unread(stream: TextIO | None) -> None:
    """What could not be written (a reader left, a full disk) must not fail once more when Python flushes it at exit."""
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def open_stream(stream: TextIO | None) -> Stream:
    """The right one for this standard stream."""
    if isinstance(stream, io.TextIOWrapper):
        # A file name need not exist in the terminal's code page; better a "?" than a traceback.
        with contextlib.suppress(OSError, ValueError):
            stream.reconfigure(errors="replace")
    if stream is not None and (stream.isatty() or os.environ.get("FORCE_COLOR")):
        from .terminal import Terminal

        return Terminal(stream, width=None if stream.isatty() else LOG_WIDTH)
    return Log(stream)


_LEAST = 10  # columns that a cell keeps when it is cut


def table_lines(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[list[Piece]]:
    """A table in lines of pieces.

    A column whose name begins with ``>`` is aligned to the right. Where the width is short, the one with ``~`` is cut
    first, then the last one is folded.
    """
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    names = [name.lstrip(">~") for name in columns]
    widths = [max(map(cell_len, cells)) for cells in zip(names, *rows)]
    excess = max(0, sum(widths) + 2 * len(widths) - 2 - width)
    for number, name in enumerate(columns):
        if name.startswith("~"):
            cut = min(excess, max(0, widths[number] - _LEAST))
            widths[number] -= cut
            excess -= cut
    widths[-1] = max(_LEAST, widths[-1] - excess)
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    for number, name in enumerate(columns):
        table.add_column(
            names[number], justify="right" if name.startswith(">") else "left", no_wrap=True, overflow="crop"
        )
    for row in rows:
        cells = [shorten(cell, width) for cell, width in zip(row, widths[:-1])]
        cells.append("\n".join(line.rstrip() for line in fold(row[-1], widths[-1])))
        table.add_row(*(Text(cell, getattr(told, "style", "")) for cell, told in zip(cells, row)))
    lines = []
    for segments in Console(file=io.StringIO(), width=width).render_lines(table, pad=False):
        pieces = [Piece(segment.text, str(segment.style or "")) for segment in segments]
        while pieces and not pieces[-1].strip():
            pieces.pop()
        if pieces:
            pieces[-1] = Piece(pieces[-1].rstrip(), pieces[-1].style)
        lines.append(pieces)
    return lines
