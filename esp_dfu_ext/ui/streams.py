"""The two kinds of stream: a terminal, which has colours, and a log, for which rich need not be loaded.

A stream whose reader has left, or whose disk is full, goes mute, because a flash must not depend on its log. What else
than a reader that left made it mute is kept: the command then ends with an error.

Colours only repeat what the words say. They are red, magenta, green and cyan, because yellow cannot be read on white
and blue cannot be read on black.
"""

from __future__ import annotations

import contextlib
import io
import os
from typing import Protocol, TextIO

LOG_WIDTH = 200  # a log has no width; 80 columns would fold tables that people grep


class Stream(Protocol):
    """Prints lines."""

    @property
    def lost(self) -> OSError | None:
        """Why lines could not be written; None if all were, or if only the reader left."""

    @property
    def width(self) -> int:
        """Columns."""

    @property
    def live(self) -> bool:
        """Whether it can redraw what it showed."""

    @property
    def folds(self) -> bool:
        """Whether it breaks lines that are longer than `width`."""

    @property
    def blocks(self) -> bool:
        """Whether it can draw block characters, such as ``█``."""

    def put(self, *parts: str, wrap: bool = True, hang: int = 0) -> None:
        """Print a line.

        Args:
            parts: Parts of the line, which may be `Styled`.
            wrap: A terminal may break the line between words; a log never does.
            hang: Columns that stay free at the beginning of the second line and those after it.
        """


class Log:
    """A file or a pipe; `stream` is None where the program was started without one."""

    width = LOG_WIDTH
    live = False
    folds = False
    blocks = False

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.lost: OSError | None = None

    def put(self, *parts: str, wrap: bool = True, hang: int = 0) -> None:
        """Print a line as it is."""
        if self._stream is None:
            return
        try:
            self._stream.write("".join(parts) + "\n")
            self._stream.flush()
        except (OSError, ValueError) as error:  # ValueError: the stream was closed
            self._stream = None
            if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
                self.lost = error


def drop_unread(stream: TextIO | None) -> None:
    """Discard what could not be written (the reader left, the disk is full).

    Otherwise Python would fail to flush it at exit.
    """
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def open_stream(stream: TextIO | None) -> Stream:
    """Return a Terminal if `stream` is one or colours are forced, else a Log."""
    if isinstance(stream, io.TextIOWrapper):
        # A file name may not exist in the terminal's code page; a "?" is better than a traceback.
        with contextlib.suppress(OSError, ValueError):
            stream.reconfigure(errors="replace")
    if stream is not None and (stream.isatty() or os.environ.get("FORCE_COLOR")):
        from .terminal import Terminal

        if stream.isatty():
            return Terminal(stream)
        return Terminal(stream, log=True, force_terminal=True, width=LOG_WIDTH)
    return Log(stream)
