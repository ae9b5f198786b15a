"""What holds for every hostile input: documented exit codes, clean output, bounded time, no files outside a folder."""

from __future__ import annotations

import io
import os
import signal
import sys
import sysconfig
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Callable

import esp_dfu_ext
from esp_dfu_ext.clock import Clock, VirtualClock
from esp_dfu_ext.commands.host import Host
from esp_dfu_ext.commands.session import Session
from esp_dfu_ext.doctor.advice import ESP_DFU
from esp_dfu_ext.ui.console import Console

# The exit codes of the README, without 1 (an unforeseen error) and 130 (Ctrl-C).
EXIT_CODES = frozenset({0, 64, 65, 66, 69, 73, 74, 75, 77, 78})
CPU_SECONDS = 10.0
LONGEST_OUTPUT = 1 << 18  # bytes, about a thousand full lines


class TooSlow(BaseException):
    """The input took too long. Not an Exception, so that the package does not handle it."""


@contextmanager
def cpu_limit(seconds: float = CPU_SECONDS) -> Iterator[None]:
    """Interrupt the block after this much CPU time of the process, however busy the machine is."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise TooSlow(f"more than {seconds:g} s of CPU time")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def run(job: Callable[[Session], int], clock: Clock | None = None, project_dir: Path = Path()) -> int:
    """Run a command as `esp-dfu` does, and return its exit code.

    Raises:
        AssertionError: The exit code is not documented, or the output contains control characters.
    """
    raw = io.BytesIO()
    text = io.TextIOWrapper(raw, encoding="utf-8")
    with redirect_stdout(text), redirect_stderr(text):
        code = Session(Console(), ESP_DFU, project_dir, host=Host(clock or VirtualClock())).run(job)
        text.flush()
    check_output(raw.getvalue())
    assert code in EXIT_CODES, f"exit code {code}: {raw.getvalue()[:2000]!r}"
    return code


def check_output(output: bytes) -> None:
    """Assert that the output has only printable characters and line ends, by Unicode's categories."""
    assert len(output) <= LONGEST_OUTPUT, f"{len(output)} bytes were printed"
    for character in set(output.decode("utf-8")) - {"\n"}:
        # Control (C0, C1), format (bidi, zero width), surrogate, private, unassigned; line and paragraph separators.
        category = unicodedata.category(character)
        assert not category.startswith("C"), f"{character!r} ({category}) was printed"
        assert category not in ("Zl", "Zp"), f"{character!r} ({category}) was printed"


# --- files ------------------------------------------------------------------------------------------------

_CODE = tuple(
    os.path.realpath(folder)
    for folder in (
        Path(esp_dfu_ext.__file__).parent,
        Path(esp_dfu_ext.__file__).parent.parent / "targets",
        sysconfig.get_path("stdlib"),
        sysconfig.get_path("purelib"),
        sysconfig.get_path("platlib"),
    )
)
_watched: list[tuple[str, str]] | None = None


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched is None or event != "open" or not isinstance(arguments[0], (str, bytes)):
        return
    if sys._getframe(1).f_code.co_name == "_opener":
        return  # Path.open of Python 3.9: io.open has raised the event, then calls os.open through this function.
    flags = arguments[2] if isinstance(arguments[2], int) else 0
    writes = flags & (os.O_WRONLY | os.O_RDWR)
    _watched.append((os.fsdecode(arguments[0]), "write" if writes else "read"))


sys.addaudithook(_listen)


@contextmanager
def opened_files() -> Iterator[list[tuple[str, str]]]:
    """Record the path of every file that is opened, with "read" or "write"."""
    global _watched
    opened: list[tuple[str, str]] = []
    _watched = opened
    try:
        yield opened
    finally:
        _watched = None


@contextmanager
def only_inside(folder: Path, *, reads: bool = True) -> Iterator[None]:
    """Assert that every file opened lies in `folder`, symbolic links resolved; code may be read elsewhere.

    Args:
        folder: Folder for the files.
        reads: False to watch only files opened for writing.

    Raises:
        AssertionError: A file outside the folder was opened.
    """
    with opened_files() as opened:
        yield
    inside = os.path.realpath(folder) + os.sep
    for path, purpose in opened:
        real = os.path.realpath(path)
        allowed = purpose == "read" and (not reads or real.startswith(_CODE))
        assert allowed or real.startswith(inside), f"{path} was opened to {purpose}"
