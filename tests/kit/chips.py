"""The chips of targets/, loaded once."""

from __future__ import annotations

from functools import cache

from esp_dfu_ext.target import Target, load_target, load_targets

NAMES = ("esp32s2", "esp32s3", "esp32p4", "esp32s31")


@cache
def chip(name: str = "esp32s3") -> Target:
    """Return one chip's target data."""
    return load_target(name)


@cache
def chips() -> tuple[Target, ...]:
    """Return the target data of every chip."""
    return tuple(load_targets())


S3 = chip("esp32s3")
