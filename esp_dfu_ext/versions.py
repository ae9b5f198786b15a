"""Versions of this package and of every format that other programs read.

A format's version grows with each change that a reader must know about; a new key alone is not such a change.
"""

from __future__ import annotations

__version__ = "0.1.0"

DOCTOR_DOCUMENT = 1  # `dfu-doctor --json`
FLASH_LINES = 1  # `flash --json`, one JSON object a line
LIST_DOCUMENT = 1  # `dfu-list --json`
RECORD_LINE = 1  # `--report FILE`
