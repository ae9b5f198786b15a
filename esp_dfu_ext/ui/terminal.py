"""A terminal: coloured lines, drawn by rich. Loaded only where there is one."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from .text import fold


class Terminal(Console):
    """A Stream on a terminal, and the rich console on which bars are drawn.

    Args:
        stream: The terminal.
        log: It is a log for which colours are forced; nothing is redrawn there.
        settings: Settings of rich's Console.
    """

    def __init__(self, stream: TextIO, *, log: bool = False, **settings: Any) -> None:
        self._log = log
        self._output = _UntilReaderLeaves(stream)
        file: Any = self._output
        super().__init__(file=file, highlight=False, markup=False, emoji=False, **settings)

    @property
    def lost(self) -> OSError | None:
        """Why lines could not be written; see Stream."""
        return self._output.lost

    @property
    def live(self) -> bool:
        """Whether it can redraw what it showed."""
        return self.is_terminal and not self.is_dumb_terminal and not self._log

    @property
    def folds(self) -> bool:
        """Whether it breaks lines that are longer than `width`."""
        return self.live  # rich takes a dumb terminal for 80 columns wide; it breaks its lines itself

    @property
    def blocks(self) -> bool:
        """Whether it can draw block characters: code pages other than UTF-8 lack them, or some of them."""
        return self.live and not self.legacy_windows and self.encoding.startswith("utf")

    def put(self, *parts: str, wrap: bool = True, hang: int = 0) -> None:
        """Print a line, broken between words if `wrap`; see Stream."""
        text = Text.assemble(*((str(part), getattr(part, "style", "")) for part in parts))
        if wrap and self.folds and text.cell_len > self.width:
            head, rest = text.divide([hang]) if hang else (Text(), text)
            lines = rest.divide(list(accumulate(map(len, fold(rest.plain, max(1, self.width - hang)))))[:-1])
            for line in lines:
                line.rstrip()
            text = head + Text("\n" + " " * hang).join(lines)
        self.print(text, soft_wrap=True)


class _UntilReaderLeaves:
    """A text stream that goes mute when its reader has left.

    Catching errors around our own lines would not do: the thread that draws the bars writes whenever it wants to.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._mute = False
        self.lost: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if not self._mute:
            with self._going_mute():
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        if not self._mute:
            with self._going_mute():
                self._stream.flush()

    @contextmanager
    def _going_mute(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._mute = True
            closed = self._is_terminal and error.errno == errno.EIO
            if not isinstance(error, BrokenPipeError) and not closed:
                self.lost = error
