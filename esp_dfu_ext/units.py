"""Sizes, times and names, in and out."""

from __future__ import annotations

import re

KIB = 1024
MIB = 1024 * 1024

_SIZE = re.compile(r"(?P<number>0x[0-9a-f]+|[0-9]+)\s*(?P<unit>[km]?)(?:i?b)?", re.IGNORECASE)
_FACTORS = {"": 1, "k": KIB, "m": MIB}


def parse_size(text: str) -> int:
    """Read a size such as ``65536``, ``0x10000``, ``64K``, ``1M`` or ESP-IDF's ``4MB`` (all powers of 1024).

    Returns:
        bytes.

    Raises:
        ValueError: `text` is none of these.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no size; write bytes (65536, 0x10000) or 64K, 1M")
    number = match["number"].lower()
    return int(number, 16 if number.startswith("0x") else 10) * _FACTORS[match["unit"].lower()]


def format_size(size: int) -> str:
    """A size for people: ``812 B``, ``20.5 KiB``, ``1.24 MiB``, ``4 MiB``."""
    if size < KIB:
        return f"{size} B"
    # From here on it would be "1024.0 KiB".
    value, unit = (size / KIB, "KiB") if size < MIB - 51 else (size / MIB, "MiB")
    digits = 0 if value == int(value) else 1 if value >= 10 else 2
    return f"{value:.{digits}f} {unit}"


def format_seconds(seconds: float) -> str:
    """A duration for people: ``0.4 s``, ``12 s``, ``1:23 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60}:{whole % 60:02} min"


def format_rate(size: int, seconds: float) -> str:
    """Bytes in a time as ``61.2 KiB/s``; empty when there was no time to measure."""
    return f"{format_size(round(size / seconds))}/s" if seconds > 0 else ""


def clean(text: str) -> str:
    """The text without anything that a terminal would obey or cannot print."""
    return "".join(c if c.isprintable() else "?" for c in text)
