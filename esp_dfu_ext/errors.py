"""Everything that can go wrong, as one tree.

::

    EspDfuError
    ├── UsageError                 64  the request contradicts itself
    │   └── SeveralDevicesError        more than one board fits and none was chosen
    ├── DataError                  65  a file says something that cannot be used
    │   ├── TargetFileError            a chip's YAML
    │   ├── ProjectError               a project's or build folder's file
    │   │   ├── NoTargetError              none of them says which chip it is for
    │   │   ├── BuildFileError             one that ESP-IDF wrote into the build folder is damaged
    │   │   └── OutsideProjectError        it names files outside of both
    │   ├── TargetNotSupportedError    the chip has no USB DFU in its ROM
    │   ├── LayoutError                files that the ROM would flash wrongly
    │   ├── FirmwareError              an ESP image for another chip, or damaged
    │   └── ImageError                 a dfu.bin that is damaged
    │       └── WrongTargetError       a sound dfu.bin, made for another chip
    ├── InputMissingError          66  a file that should be there is not
    ├── DeviceNotFoundError        69  no board fits; itself: nothing of the chips' vendors is there
    │   ├── OtherUsbError              only another USB device of a chip, such as USB-Serial/JTAG
    │   ├── AppRunningError            a device that is no chip's ROM: an app
    │   ├── OtherChipError             the ROM of another chip
    │   ├── UnreadableDeviceError      a device whose descriptors cannot be read
    │   ├── OtherPathError             boards, but not on the port that was named
    │   └── OtherSerialError           boards, but none with the serial number that was named
    ├── UsbUnavailableError        72  pyusb or libusb is missing or cannot start
    ├── UdevError                  72  udev is not there, or does not do what the rule says (Linux)
    ├── OutputError                73  a file cannot be written
    ├── UsbError                   74  a transfer failed
    │   ├── StallError                 the device refused the request (EPIPE)
    │   ├── TransferTimeoutError       no answer in time
    │   ├── DeviceGoneError            the device left the bus
    │   ├── AccessDeniedError      77  no permission to open it
    │   ├── DriverMissingError     78  the system has no driver that lets us in (Windows)
    │   └── DeviceBusyError        75  somebody else holds the interface
    ├── DfuError                   74  the device did not do what DFU 1.1 says
    │   ├── DfuStatusError             it reported an error status
    │   ├── DfuStateError              it is in a state in which it should not be
    │   ├── DfuAnswerError             its answer is malformed
    │   ├── ReenumerationError         it did not come back after DFU_DETACH
    │   │   └── NoDfuModeError         it came back, but not in DFU mode
    │   └── SimulationError            a rehearsal's flash differs from the image
    ├── NeedsRootError             77  only root may do this
    ├── RemoteError                76  esp-dfu on another machine did not run, or is not understood
    └── InterruptedByUserError    130  Ctrl-C; 143 SIGTERM, 129 SIGHUP

The numbers are the exit codes, those of ``sysexits.h`` where one fits; `EXIT_CODES` has them all. Inside
the package an error carries facts (what, where, which state and status) and no advice: advice depends on who asks, see
`hints`.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


# In a word or three; docs/reference.md has more.
EXIT_CODES = {
    0: "done",
    1: "doctor found a problem",
    64: "wrong usage",
    65: "bad data",
    66: "input missing",
    69: "no device",
    72: "no pyusb, libusb or udev",
    73: "cannot write the output",
    74: "USB or DFU failed",
    75: "device busy",
    76: "remote esp-dfu",
    77: "no permission",
    78: "no driver (Windows)",
    129: "terminal closed",
    130: "interrupted (Ctrl-C)",
    141: "pipe closed",
    143: "ended by SIGTERM",
}
PIPE_CLOSED = 141  # 128 and SIGPIPE, as shells have it


class EspDfuError(Exception):
    """Base of all errors that a user, a file or a device can cause.

    Attributes:
        code: stable name of the kind of error, to search for and to compare with.
        exit_code: what the command returns, see the module's tree.
        notes: further lines of facts, shown below the message.
    """

    code: ClassVar[str] = "error"
    exit_code: int = 1

    def __init__(self, message: str, *, notes: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.notes = tuple(notes)


class UsageError(EspDfuError):
    code = "usage"
    exit_code = 64


class SeveralDevicesError(UsageError):
    """More than one board fits.

    Attributes:
        paths: the ports they are on, as ``bus-port.port``.
    """

    code = "several-devices"

    def __init__(self, message: str, *, paths: Sequence[str]) -> None:
        super().__init__(message)
        self.paths = tuple(paths)


class DataError(EspDfuError):
    code = "data"
    exit_code = 65


class TargetFileError(DataError):
    code = "target-file"


class ProjectError(DataError):
    code = "project"


class NoTargetError(ProjectError):
    code = "no-target"


class BuildFileError(ProjectError):
    code = "build-file"


class OutsideProjectError(ProjectError):
    code = "outside-project"


class TargetNotSupportedError(DataError):
    """The chip has no DFU, or nobody described it yet.

    Attributes:
        target: the name as `idf.py set-target` knows it.
        supported: names of the targets that are described.
    """

    code = "target-not-supported"

    def __init__(self, target: str, *, supported: Sequence[str]) -> None:
        super().__init__(f"{target} cannot be flashed over USB DFU: no chip of that name with DFU in its ROM is known.")
        self.target = target
        self.supported = tuple(supported)


class LayoutError(DataError):
    code = "layout"


class FirmwareError(DataError):
    code = "firmware"


class ImageError(DataError):
    code = "image"


class WrongTargetError(ImageError):
    """A DFU image for another chip.

    Attributes:
        image_target: what it was made for, a name or ``vvvv:pppp``.
        target: what was asked for.
    """

    code = "wrong-target"

    def __init__(self, path: str, *, image_target: str, target: str) -> None:
        super().__init__(f"{path} was made for {image_target}, this is {target}.")
        self.image_target = image_target
        self.target = target


class InputMissingError(EspDfuError):
    """A file is not there (or cannot be read).

    Attributes:
        path: which one.
        role: ``dfu.bin``, ``flasher_args.json``, ``flash file``, ``build folder``.
        reason: as it was seen: ``missing``; ``unreadable``, this user may not read it; ``no-file``, something else
            is there, such as a folder; ``failed``, the message has the system's words.
    """

    code = "input-missing"
    exit_code = 66
    reason: str = "missing"

    def __init__(self, message: str, *, path: Path, role: str, reason: str = "missing") -> None:
        super().__init__(message)
        self.path = path
        self.role = role
        self.reason = reason

    @classmethod
    def of(cls, error: OSError, path: Path, role: str) -> InputMissingError:
        """What the system said when `path` was looked at or read."""
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            reason = "missing"
        else:
            reason = "unreadable" if isinstance(error, PermissionError) else "failed"
        return cls(f"{path} cannot be read: {error.strerror or error}.", path=path, role=role, reason=reason)


class DeviceNotFoundError(EspDfuError):
    """No board fits what was asked for; the class says what was seen instead, this one: nothing of the vendors."""

    code = "no-device"
    exit_code = 69


class OtherUsbError(DeviceNotFoundError):
    """Only devices that a chip's file lists under `other_usb`: USB-Serial/JTAG."""

    code = "other-usb"


class AppRunningError(DeviceNotFoundError):
    code = "app-running"


class OtherChipError(DeviceNotFoundError):
    code = "other-chip"


class UnreadableDeviceError(DeviceNotFoundError):
    code = "unreadable"


class OtherPathError(DeviceNotFoundError):
    code = "other-path"


class OtherSerialError(DeviceNotFoundError):
    code = "other-serial"


class UsbUnavailableError(EspDfuError):
    """USB cannot be used on this machine at all.

    Attributes:
        missing: ``pyusb``, ``libusb`` or ``""`` when both are there and libusb does not start.
    """

    code = "usb-unavailable"
    exit_code = 72

    def __init__(self, message: str, *, missing: str = "") -> None:
        super().__init__(message)
        self.missing = missing


class UdevError(EspDfuError):
    code = "udev"
    exit_code = 72


class OutputError(EspDfuError):
    code = "output"
    exit_code = 73


class UsbError(EspDfuError):
    """A transfer failed.

    Attributes:
        path: the port, as ``bus-port.port``; None where the error is of no port, or does not say.
    """

    code = "usb-io"
    exit_code = 74
    path: str | None = None

    def __init__(self, message: str, *, notes: Sequence[str] = (), path: str | None = None) -> None:
        super().__init__(message, notes=notes)
        self.path = path


class StallError(UsbError):
    code = "usb-stall"


class TransferTimeoutError(UsbError):
    code = "usb-timeout"


class DeviceGoneError(UsbError):
    """The device left the bus.

    Attributes:
        restarted: a device was on its port again soon after.
    """

    code = "device-gone"
    restarted: bool = False


class AccessDeniedError(UsbError):
    code = "no-permission"
    exit_code = 77


class DriverMissingError(UsbError):
    code = "no-driver"
    exit_code = 78


class DeviceBusyError(UsbError):
    code = "device-busy"
    exit_code = 75


class DfuError(EspDfuError):
    code = "dfu"
    exit_code = 74


class DfuStatusError(DfuError):
    """The device reported an error in its answer to DFU_GETSTATUS.

    Attributes:
        status: bStatus, name of DFU 1.1 section 6.1.2 such as ``errFIRMWARE``.
        state: bState, such as ``dfuERROR``.
    """

    code = "dfu-status"

    def __init__(self, message: str, *, status: str, state: str) -> None:
        super().__init__(message)
        self.status = status
        self.state = state


class DfuStateError(DfuError):
    """The device reports no error, but a state in which it should not be.

    Attributes:
        state: bState, such as ``dfuUPLOAD-IDLE``.
    """

    code = "dfu-state"

    def __init__(self, message: str, *, state: str) -> None:
        super().__init__(message)
        self.state = state


class DfuAnswerError(DfuError):
    """The answer to a request has the wrong length."""

    code = "dfu-answer"


class ReenumerationError(DfuError):
    """After DFU_DETACH the board did not come back."""

    code = "no-return"


class NoDfuModeError(ReenumerationError):
    """It, or something else, is on its port, but not in DFU mode.

    Attributes:
        seen: what it was in the end: ``run-time`` or ``vvvv:pppp``.
    """

    code = "no-dfu-mode"

    def __init__(self, message: str, *, seen: str, notes: Sequence[str] = ()) -> None:
        super().__init__(message, notes=notes)
        self.seen = seen


class SimulationError(DfuError):
    code = "simulation"


class NeedsRootError(EspDfuError):
    code = "needs-root"
    exit_code = 77


class RemoteError(EspDfuError):
    code = "remote"
    exit_code = 76


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP: what has to be done is what has to be done upon Ctrl-C.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class InterruptedByUserError(EspDfuError):
    """Ctrl-C, SIGTERM or SIGHUP; the message says what state the chip was left in.

    Attributes:
        incomplete: something was written to a board, and not all of it.
    """

    code = "interrupted"
    exit_code = 130

    def __init__(self, message: str, *, incomplete: bool = False) -> None:
        super().__init__(message)
        self.incomplete = incomplete

    @classmethod
    def by(cls, stop: KeyboardInterrupt, where: str = "", *, incomplete: bool = False) -> InterruptedByUserError:
        """Stopped by `stop`; `where` goes on with the sentence."""
        name = f" by {signal.Signals(stop.number).name}" if isinstance(stop, Terminated) else ""
        error = cls(f"Stopped{name}{where}.", incomplete=incomplete)
        error.exit_code = stopped_exit_code(stop)
        return error


def stopped_exit_code(stop: BaseException | None) -> int:
    """128 and the signal's number, as shells have it; SIGINT if `stop` does not know."""
    return 128 + (stop.number if isinstance(stop, Terminated) else signal.SIGINT)
