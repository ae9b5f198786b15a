"""Flash Espressif chips over their own USB port (DFU 1.1), from idf.py, from a shell or from Python.

idf.py imports this package on each call, so a module is imported only when one of its names is used.
"""

from __future__ import annotations

from .versions import __version__ as __version__

TYPE_CHECKING = False  # typing would have to be imported for it
if TYPE_CHECKING:
    from typing import Any

    from .dfu.discovery import Selector as Selector
    from .errors import *  # noqa: F403
    from .events import *  # noqa: F403
    from .idf_actions import action_extensions as action_extensions
    from .operations.build import BuildResult as BuildResult
    from .operations.build import ImageOptions as ImageOptions
    from .operations.build import build as build
    from .operations.flash_setup import FlashOptions as FlashOptions
    from .operations.flasher import Flasher as Flasher
    from .operations.flasher import flash as flash
    from .operations.flasher import flash_all as flash_all
    from .operations.flasher import watch as watch
    from .operations.inspect import CheckedImage as CheckedImage
    from .operations.inspect import InspectResult as InspectResult
    from .operations.inspect import inspect as inspect
    from .operations.inspect import load_image as load_image
    from .operations.list import ListedDevice as ListedDevice
    from .operations.list import list_devices as list_devices
    from .operations.results import FlashOutcome as FlashOutcome
    from .operations.results import FlashResult as FlashResult
    from .operations.results import WatchResult as WatchResult
    from .paths import extra_actions_path as extra_actions_path
    from .target import Target as Target
    from .target import load_target as load_target
    from .target import load_targets as load_targets
    from .usb.bus import Bus as Bus

# The public names, by the module that defines them.
_EXPORTS = {
    "idf_actions": "action_extensions",
    "paths": "extra_actions_path",
    "operations.build": "BuildResult ImageOptions build",
    "operations.inspect": "CheckedImage InspectResult inspect load_image",
    "operations.list": "ListedDevice list_devices",
    "operations.flash_setup": "FlashOptions",
    "operations.flasher": "Flasher flash flash_all watch",
    "operations.results": "FlashOutcome FlashResult WatchResult",
    "dfu.discovery": "Selector",
    "target": "Target load_target load_targets",
    "usb.bus": "Bus",
    "events": """
        AlreadyFlashed BoardIdentified BoardLeft DeviceFound Event EventSink Failed Flashed Notice PartsSkipped Phase
        PhaseFinished PhaseStarted Progress Waiting
    """,
    "errors": """
        AccessDeniedError AppRunningError BuildFileError DataError DeviceBusyError DeviceGoneError DeviceNotFoundError
        DfuAnswerError DfuError DfuSilentError DfuStateError DfuStatusError DriverMissingError EspDfuError
        FirmwareError FlashDiffersError FlashTooSmallError ImageError InputMissingError InterruptedByUserError
        LayoutError NeedsRootError NoBuildError NoDfuModeError NoDownloadModeError NoFlashSizeError NoHandoverError
        NoSerialPortError NoTargetError NoThreadError OtherBoardError OtherChipError OtherMacError OtherPathError
        OtherSerialError OtherUsbError OutputError OutsideProjectError ProjectError ReenumerationError RemoteError
        SecuredBoardError SerialLoaderError SerialPortError SeveralDevicesError SeveralPortsError SimulationError
        StallError TargetFileError TargetNotSupportedError Terminated TransferTimeoutError UdevError
        UnreadableDeviceError UsageError UsbError UsbUnavailableError WrongInputError WrongTargetError
    """,
}
_MODULES = {name: module for module, names in _EXPORTS.items() for name in names.split()}

__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
