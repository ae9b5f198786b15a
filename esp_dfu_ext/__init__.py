"""Flash ESP32-S2, -S3, -P4 and -S31 over their own USB port, from idf.py or alone.

idf.py imports this package on each call, so nothing is imported here until it is asked for.
"""

from __future__ import annotations

from .versions import __version__

TYPE_CHECKING = False  # typing would have to be imported for it
if TYPE_CHECKING:
    from typing import Any

    from .dfu.discovery import Selector
    from .errors import EspDfuError
    from .idf_actions import action_extensions
    from .operations.build import build
    from .operations.flash import flash
    from .operations.gang import flash_all
    from .operations.inspect import inspect, load_image
    from .operations.list import list_devices
    from .operations.watch import watch
    from .paths import extra_actions_path
    from .target import Target, load_target, load_targets
    from .usb.bus import Bus

# Public name -> the module that has it.
_HOMES = {
    "action_extensions": "idf_actions",
    "extra_actions_path": "paths",
    "Bus": "usb.bus",
    "Selector": "dfu.discovery",
    "EspDfuError": "errors",
    "build": "operations.build",
    "flash": "operations.flash",
    "flash_all": "operations.gang",
    "inspect": "operations.inspect",
    "list_devices": "operations.list",
    "load_image": "operations.inspect",
    "Target": "target",
    "load_target": "target",
    "load_targets": "target",
    "watch": "operations.watch",
}

__all__ = [
    "Bus",
    "EspDfuError",
    "Selector",
    "Target",
    "__version__",
    "action_extensions",
    "build",
    "extra_actions_path",
    "flash",
    "flash_all",
    "inspect",
    "list_devices",
    "load_image",
    "load_target",
    "load_targets",
    "watch",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value
