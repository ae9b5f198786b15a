"""The jobs: build, inspect, list, flash.

They take data and return data; what happens on the way they report as events. They never print, never ask,
and get the time and the bus handed in.
"""

from __future__ import annotations

from .building import DFU_BIN, BuildResult, build
from .flashing import FlashResult, flash
from .gang import FlashOutcome, flash_all
from .inspecting import InspectResult, inspect, load_image, newer_inputs
from .listing import ListedDevice, list_devices

__all__ = [
    "DFU_BIN",
    "BuildResult",
    "FlashOutcome",
    "FlashResult",
    "InspectResult",
    "ListedDevice",
    "build",
    "flash",
    "flash_all",
    "inspect",
    "list_devices",
    "load_image",
    "newer_inputs",
]
