"""Sizes, durations and rates, parsed and formatted."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esp_dfu_ext.units import KIB, MIB, format_rate, format_seconds, format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("65536", 65536),
        ("0x10000", 65536),
        ("0X1f", 31),
        ("0x10K", 16384),
        ("64K", 65536),
        ("64k", 65536),
        ("64KB", 65536),
        ("64KiB", 65536),
        ("1M", MIB),
        ("4MB", 4 * MIB),
        ("128MB", 128 * MIB),
        (" 1 M ", MIB),
        ("512KB", 524288),
    ],
)
def test_sizes_are_read_in_powers_of_1024(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", " ", "-1", "+1", "1.5M", "4G", "K", "0x", "0xg", "MB4", "1 2", "1_000", "detect", "keep", "٤", "64K\n1"],
)
def test_invalid_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="64K, 1M"):
        parse_size(text)


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=12))
def test_any_text_gives_size_or_value_error(text: str) -> None:
    try:
        size = parse_size(text)
    except ValueError:
        return
    assert size >= 0


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 1 << 40))
def test_every_notation_is_read_back(size: int) -> None:
    assert parse_size(str(size)) == parse_size(hex(size)) == size
    assert parse_size(f"{size}K") == size * KIB
    assert parse_size(f"{size}MB") == size * MIB


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (812, "812 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (20992, "20.5 KiB"),
        (1536, "1.50 KiB"),
        (524288, "512 KiB"),
        (MIB, "1 MiB"),
        (1300001, "1.24 MiB"),
        (4 * MIB, "4 MiB"),
        (16 * MIB, "16 MiB"),
        (int(12.5 * MIB), "12.5 MiB"),
    ],
)
def test_sizes_are_formatted_short(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.44, "0.4 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (12.3, "12 s"),
        (59.4, "59 s"),
        (59.6, "1:00 min"),
        (83, "1:23 min"),
        (605, "10:05 min"),
    ],
)
def test_durations_are_formatted_short(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_rate_without_time_is_empty() -> None:
    assert format_rate(62669, 1.0) == "61.2 KiB/s"
    assert format_rate(2 * MIB, 0.5) == "4 MiB/s"
    assert format_rate(2 * MIB, 0.0) == ""
