"""Parse sizes, and format sizes, durations, USB IDs, commands and texts for people."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence

KIB = 1024
MIB = 1024 * 1024

_SIZE = re.compile(r"(?P<number>0x[0-9a-f]+|[0-9]+)\s*(?P<unit>[km]?)(?:i?b)?", re.IGNORECASE)
_FACTORS = {"": 1, "k": KIB, "m": MIB}


def parse_size(text: str) -> int:
    """Return the bytes in a size such as ``65536``, ``0x10000``, ``64K``, ``1M`` or ESP-IDF's ``4MB``.

    The units are powers of 1024.

    Raises:
        ValueError: `text` is not such a size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"invalid size {text!r}: use bytes (65536, 0x10000) or a suffix (64K, 1M)")
    number = match["number"].lower()
    return int(number, 16 if number.startswith("0x") else 10) * _FACTORS[match["unit"].lower()]


def format_size(size: int) -> str:
    """Format a size for people: ``812 B``, ``20.5 KiB``, ``1.24 MiB``, ``4 MiB``."""
    if size < KIB:
        return f"{size} B"
    # 51 bytes below 1 MiB, rounding would start to give "1024.0 KiB".
    value, unit = (size / KIB, "KiB") if size < MIB - 51 else (size / MIB, "MiB")
    digits = 0 if value == int(value) else 1 if value >= 10 else 2
    return f"{value:.{digits}f} {unit}"


def format_seconds(seconds: float) -> str:
    """Format a duration for people: ``0.4 s``, ``12 s``, ``1:23 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60}:{whole % 60:02} min"


def format_rate(size: int, seconds: float) -> str:
    """Format bytes per time as ``61.2 KiB/s``; return an empty text if `seconds` is 0."""
    return f"{format_size(round(size / seconds))}/s" if seconds > 0 else ""


def quoted(words: Sequence[str]) -> str:
    """Return words as a command line that a shell of this system splits into the same words."""
    if sys.platform == "win32":
        import subprocess

        return subprocess.list2cmdline(words)
    return shlex.join(words)


def usb_id(vid: int, pid: int) -> str:
    """Format a vendor and a product ID as ``vvvv:pppp``, the notation of lsusb."""
    return f"{vid:04x}:{pid:04x}"


def clean(text: str) -> str:
    """Return the text with ``?`` for each character that is not printable, such as those of terminal commands."""
    return "".join(c if c.isprintable() else "?" for c in text)
