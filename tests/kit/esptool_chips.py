"""The chips that the installed esptool knows: version 4 does not know them all."""

from __future__ import annotations

from esptool.targets import CHIP_DEFS

from .chips import NAMES

KNOWN = [name for name in NAMES if name in CHIP_DEFS]
