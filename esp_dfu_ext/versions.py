"""Versions of this package and of each format that other programs read or that users write.

A format's version is raised when a change breaks readers; adding a key does not.
"""

from __future__ import annotations

__version__ = "0.1.0"

CONTENTS_DOCUMENT = 1  # `build --json` and `inspect --json`
DOCTOR_DOCUMENT = 1  # `dfu-doctor --json`
FLASH_LINES = 1  # `flash --json`, one JSON object a line
INFO_DOCUMENT = 1  # `info --json`
LIST_DOCUMENT = 1  # `dfu-list --json`
RECORD_LINE = 1  # `--report FILE`
TARGET_FILE = 1  # a chip's YAML file
VERIFY_DOCUMENT = 1  # `verify --json`
