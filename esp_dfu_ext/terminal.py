"""A terminal: lines in colour by rich. Loaded only where there is one."""

from __future__ import annotations

import io
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text


class Terminal(Console):
    """A Stream on a terminal, and the console that rich's bars draw on.

    Args:
        stream: the terminal.
        settings: of rich's Console.
    """

    def __init__(self, stream: TextIO, **settings: Any) -> None:
        super().__init__(file=stream, highlight=False, markup=False, emoji=False, **settings)

    @property
    def live(self) -> bool:
        """Can it redraw what it showed?"""
        return self.is_terminal and not self.is_dumb_terminal

    def put(self, *pieces: str, wrap: bool = True) -> None:
        """Print a line, broken between words if `wrap`."""
        text = Text.assemble(*((str(piece), getattr(piece, "style", "")) for piece in pieces))
        try:
            self.print(text, soft_wrap=not (wrap and self.is_terminal))
        except OSError:
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """What rich does when the reader has left; by itself it would end the program."""
        self.file = io.StringIO()
        self.quiet = True
