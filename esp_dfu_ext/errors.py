"""Everything that can go wrong, as one tree.

::

    EspDfuError
    ├── UsageError                 64  the request contradicts itself
    │   ├── SeveralDevicesError        more than one board matches, and none was chosen
    │   └── SeveralPortsError          the same for serial ports
    ├── DataError                  65  a file has contents that cannot be used
    │   ├── TargetFileError            a chip's YAML file
    │   ├── ProjectError               a file of a project or build folder
    │   │   ├── NoBuildError               a folder without a build that can be read
    │   │   ├── NoTargetError              no file names the chip
    │   │   ├── NoFlashSizeError           no file names the size of the flash memory
    │   │   ├── BuildFileError             a damaged file that the build tool wrote into the build folder
    │   │   └── OutsideProjectError        a file that names files outside the project and its build folder
    │   ├── WrongInputError            a file that is something else than firmware with its addresses
    │   ├── TargetNotSupportedError    the chip has no USB DFU in its ROM
    │   ├── LayoutError                files that the ROM would flash wrongly
    │   ├── FirmwareError              an ESP image that is damaged or for another chip
    │   ├── ImageError                 a damaged dfu.bin
    │   │   └── WrongTargetError       an intact dfu.bin for another chip
    │   ├── FlashTooSmallError         an image that ends beyond the board's flash memory
    │   └── SecuredBoardError          an image that a board with security features would not boot
    ├── InputMissingError          66  a file that does not exist or cannot be read
    ├── DeviceNotFoundError        69  no board matches; this class: no device of the chips' vendors found
    │   ├── OtherUsbError              only another USB device of a chip, such as USB-Serial/JTAG
    │   ├── AppRunningError            a device that is not a chip's ROM: an app
    │   ├── OtherChipError             the ROM of another chip
    │   ├── UnreadableDeviceError      a device whose descriptors cannot be read
    │   ├── OtherPathError             boards, but none on the port that was named
    │   ├── OtherSerialError           boards, but none with the serial number that was named
    │   ├── OtherMacError              boards, but none with the MAC address that was named
    │   ├── NoDownloadModeError        no board after a reset through a serial port
    │   └── NoSerialPortError          no serial port of the board
    ├── UsbUnavailableError        72  pyusb or libusb is missing or cannot start
    ├── UdevError                  72  udev is missing, or does not apply the rule (Linux)
    ├── OutputError                73  a file cannot be written
    ├── NoThreadError              71  the system starts no more threads
    ├── UsbError                   74  a transfer failed
    │   ├── StallError                 the device refused the request (EPIPE)
    │   ├── TransferTimeoutError       the device did not answer in time
    │   ├── DeviceGoneError            the device left the bus
    │   ├── AccessDeniedError      77  no permission to open the device
    │   ├── DriverMissingError     78  the system has no driver that gives access to the device (Windows)
    │   ├── DeviceBusyError        75  another program has claimed the interface
    │   └── DfuSilentError             DFU no longer answers after a SYNC to the serial loader
    ├── SerialPortError            74  a serial port cannot be opened, or it failed
    ├── SerialLoaderError          74  the chip's serial loader did not answer, or refused a command
    ├── FlashDiffersError          74  flash memory does not hold the image
    ├── DfuError                   74  the device did not follow DFU 1.1
    │   ├── DfuStatusError             it reported an error status
    │   ├── DfuStateError              it is in an unexpected state
    │   ├── DfuAnswerError             its answer is malformed
    │   ├── ReenumerationError         it did not come back after DFU_DETACH
    │   │   ├── NoDfuModeError         it came back, but not in DFU mode
    │   │   ├── NoHandoverError        an app did not hand the chip over to its ROM
    │   │   └── OtherBoardError        another board is on its port
    │   └── SimulationError            the simulated flash memory differs from the image
    ├── NeedsRootError             77  only root may do this
    ├── RemoteError                76  esp-dfu on another machine did not run, or its output is not understood
    └── InterruptedByUserError    130  Ctrl-C; 143 for SIGTERM, 129 for SIGHUP

The numbers are exit codes, from ``sysexits.h`` where it has one that fits; `EXIT_CODES` lists all of them. An error
states facts (what failed, where, with which state and status) and gives no advice: `doctor.advice` does, because advice
depends on how esp-dfu was called.

Errors can be pickled and copied.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from typing_extensions import Self


# Short meanings, for --help; docs/reference.md says more.
EXIT_CODES = {
    0: "done",
    1: "doctor found a problem",
    64: "wrong usage",
    65: "bad data",
    66: "input missing",
    69: "no device",
    71: "no more threads",
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
EXIT_USAGE = 64
EXIT_DATA = 65
EXIT_INTERRUPTED = 130
PIPE_CLOSED = 141  # 128 and SIGPIPE, the convention of shells


class EspDfuError(Exception):
    """Base class of all errors that a user, a file or a device can cause.

    Attributes:
        code: Stable name of the kind of error, for searching and comparing.
        exit_code: Exit code of the command; see the tree in this module's docstring.
        message: What failed, with which value, and what was expected.
        notes: Further lines of facts, shown below the message.
    """

    code: ClassVar[str] = "error"
    exit_code: int = 1

    def __init__(self, message: str, *, notes: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.notes = tuple(notes)

    @property
    def facts(self) -> dict[str, Any]:
        """Attributes other than `message` and `notes`: what the class adds."""
        return {name: value for name, value in vars(self).items() if name not in ("message", "notes", "__notes__")}

    @classmethod
    def restore(cls, message: str, notes: Sequence[str], facts: Mapping[str, Any]) -> Self:
        """Return an error of this class from its attributes, whatever its constructor takes."""
        error = cls.__new__(cls, message)
        vars(error).update(facts, message=message, notes=tuple(notes))
        return error

    def __reduce__(self) -> tuple[Any, ...]:
        return self.restore, (self.message, self.notes, vars(self))


def all_errors(kind: type[EspDfuError] = EspDfuError) -> Iterator[type[EspDfuError]]:
    """Return `kind` and all classes below it."""
    yield kind
    for below in kind.__subclasses__():
        yield from all_errors(below)


class UsageError(EspDfuError):
    """The request contradicts itself, or an argument is invalid."""

    code = "usage"
    exit_code = EXIT_USAGE


class SeveralDevicesError(UsageError):
    """More than one board matches.

    Attributes:
        paths: USB ports of these boards, as ``bus-port.port``.
    """

    code = "several-devices"

    def __init__(self, message: str, *, paths: Sequence[str]) -> None:
        super().__init__(message)
        self.paths = tuple(paths)


class SeveralPortsError(UsageError):
    """More than one serial port matches.

    Attributes:
        ports: Names of these ports.
    """

    code = "several-ports"

    def __init__(self, message: str, *, ports: Sequence[str]) -> None:
        super().__init__(message)
        self.ports = tuple(ports)


class DataError(EspDfuError):
    """A file has contents that cannot be used."""

    code = "data"
    exit_code = EXIT_DATA


class TargetFileError(DataError):
    """A chip's YAML file, or a folder of such files, cannot be used."""

    code = "target-file"


class ProjectError(DataError):
    """A file of a project or its build folder cannot be used."""

    code = "project"


class NoBuildError(ProjectError):
    """A folder has no build that can be read.

    Attributes:
        path: The folder.
        tool: The build tool whose project it is: ``esp-idf``, ``platformio``, ``arduino`` or ``zephyr``; empty if that
            is unknown.
        builds: Build folders in it, if there are several.
    """

    code = "no-build"

    def __init__(self, message: str, *, path: Path, tool: str = "", builds: Sequence[Path] = ()) -> None:
        super().__init__(message)
        self.path = path
        self.tool = tool
        self.builds = tuple(builds)


class NoTargetError(ProjectError):
    """No file of a project or build names its chip.

    Attributes:
        path: The build folder or file, None if that is unknown.
    """

    code = "no-target"

    def __init__(self, message: str, *, path: Path | None = None, notes: Sequence[str] = ()) -> None:
        super().__init__(message, notes=notes)
        self.path = path


class NoFlashSizeError(ProjectError):
    """No file of a project or build names the size of the flash memory."""

    code = "no-flash-size"


class BuildFileError(ProjectError):
    """A file that the build tool wrote into the build folder is damaged.

    Attributes:
        tool: The build tool, as in `NoBuildError`.
    """

    code = "build-file"

    def __init__(self, message: str, *, tool: str = "esp-idf") -> None:
        super().__init__(message)
        self.tool = tool


class OutsideProjectError(ProjectError):
    """A build lists files outside its project and its build folder."""

    code = "outside-project"


class WrongInputError(DataError):
    """A file is something else than firmware with its addresses, such as an ELF file or an app alone.

    Attributes:
        path: Path of the file.
        kind: What it is: ``elf``, ``uf2``, ``archive``, ``encrypted``, ``app``, ``bootloader``, ``table``, ``dfu`` or
            ``unknown``.
        places: For an app, the partitions that it can go to, if they are known.
        build: The build folder that the file lies in, None if it lies in none.
    """

    code = "wrong-input"

    def __init__(
        self, message: str, *, path: Path, kind: str, places: Sequence[str] = (), build: Path | None = None
    ) -> None:
        super().__init__(message)
        self.path = path
        self.kind = kind
        self.places = tuple(places)
        self.build = build


class TargetNotSupportedError(DataError):
    """The chip has no DFU, or no YAML file describes it.

    Attributes:
        target: Name of the chip, as `idf.py set-target` takes it.
        supported: Names of the chips that a YAML file describes.
        meant: The one of them that was probably meant, empty if none is similar.
    """

    code = "target-not-supported"
    meant: str = ""

    def __init__(self, target: str, *, supported: Sequence[str], meant: str = "") -> None:
        super().__init__(f"{target} is not supported: no known chip with USB DFU in its ROM has that name.")
        self.target = target
        self.supported = tuple(supported)
        self.meant = meant


class LayoutError(DataError):
    """The ROM would flash these files wrongly, for example because two overlap."""

    code = "layout"


class FirmwareError(DataError):
    """An ESP image is damaged or for another chip."""

    code = "firmware"


class ImageError(DataError):
    """A dfu.bin is damaged, or the ROM would flash it wrongly.

    Attributes:
        esp_image: The file is an ESP app or bootloader image instead.
    """

    code = "image"
    esp_image = False


class WrongTargetError(ImageError):
    """A DFU image for another chip.

    Attributes:
        image_target: The chip that it is for, by name or as ``vvvv:pppp``.
        target: Name of the chip that was asked for.
    """

    code = "wrong-target"

    def __init__(self, path: str, *, image_target: str, target: str) -> None:
        super().__init__(f"{path} is for {image_target}, but the target is {target}.")
        self.image_target = image_target
        self.target = target


class FlashTooSmallError(DataError):
    """The image ends beyond the board's flash memory.

    Attributes:
        end: Where the image ends, in bytes.
        flash_size: Size of the flash memory, as its JEDEC ID says, in bytes.
    """

    code = "flash-too-small"

    def __init__(self, message: str, *, end: int, flash_size: int) -> None:
        super().__init__(message)
        self.end = end
        self.flash_size = flash_size


class SecuredBoardError(DataError):
    """The board has security features with which it would not boot the image."""

    code = "secured-board"


class InputMissingError(EspDfuError):
    """A file does not exist or cannot be read.

    Attributes:
        path: Path of the file.
        role: What the file is: ``dfu.bin``, ``flasher_args.json``, ``flash file``, ``build folder`` or
            ``project folder``.
        reason: ``missing``; ``unreadable``, this user has no permission to read it; ``no-file``, the path is
            something else, such as a folder; ``failed``, for any other reason, which the message quotes.
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
        """Return the error for an OSError that was raised when `path` was examined or read."""
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            reason = "missing"
        else:
            reason = "unreadable" if isinstance(error, PermissionError) else "failed"
        return cls(f"{path} cannot be read: {error.strerror or error}.", path=path, role=role, reason=reason)


class DeviceNotFoundError(EspDfuError):
    """No board matches the request; the class says what was found instead (this class: no device of the vendors).

    Attributes:
        apps: Ports of other vendors' apps that are asked to hand over to the ROM if their port is named.
    """

    code = "no-device"
    exit_code = 69
    apps: Sequence[str] = ()


class OtherUsbError(DeviceNotFoundError):
    """Only devices found that a chip's YAML file lists under `other_usb`, such as USB-Serial/JTAG."""

    code = "other-usb"


class AppRunningError(DeviceNotFoundError):
    """A device with a chip's vendor ID was found, but it runs an app instead of the ROM."""

    code = "app-running"


class OtherChipError(DeviceNotFoundError):
    """Only boards with another chip were found, or an app handed over to another chip's ROM.

    Attributes:
        handed_over: Port of the board that an app handed over; None if none did.
    """

    code = "other-chip"

    def __init__(self, message: str, *, notes: Sequence[str] = (), handed_over: str | None = None) -> None:
        super().__init__(message, notes=notes)
        self.handed_over = handed_over


class UnreadableDeviceError(DeviceNotFoundError):
    """A device was found whose descriptors cannot be read."""

    code = "unreadable"


class OtherPathError(DeviceNotFoundError):
    """Boards were found, but none on the port that was named."""

    code = "other-path"


class OtherSerialError(DeviceNotFoundError):
    """Boards were found, but none with the serial number that was named."""

    code = "other-serial"


class OtherMacError(DeviceNotFoundError):
    """Boards were found, but none with the MAC address that was named."""

    code = "other-mac"


class NoDownloadModeError(DeviceNotFoundError):
    """A reset through the serial port that was named brought no board into download mode on USB.

    Attributes:
        port: Name of the serial port.
        boot_mode: How the chip said on that port that it booted: ``download``, ``secure`` (Secure Download Mode),
            ``disabled`` (an eFuse forbids download mode), ``app``, or None if it said nothing.
        changed: Another device left the bus or appeared meanwhile.
        stayed: USB ports of boards with this chip that the reset did not touch.
    """

    code = "no-download-mode"

    def __init__(
        self,
        message: str,
        *,
        port: str,
        boot_mode: str | None,
        changed: bool,
        stayed: Sequence[str] = (),
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__(message, notes=notes)
        self.stayed = tuple(stayed)
        self.port = port
        self.boot_mode = boot_mode
        self.changed = changed


class NoSerialPortError(DeviceNotFoundError):
    """The board has no serial port on this computer, or not the one that was named.

    Attributes:
        port: Name of the port that was named; empty if none was.
    """

    code = "no-serial-port"

    def __init__(self, message: str, *, port: str = "", notes: Sequence[str] = ()) -> None:
        super().__init__(message, notes=notes)
        self.port = port


class UsbUnavailableError(EspDfuError):
    """USB cannot be used on this machine at all.

    Attributes:
        missing: ``pyusb`` or ``libusb``; ``""`` if both are installed and libusb does not start.
    """

    code = "usb-unavailable"
    exit_code = 72

    def __init__(self, message: str, *, missing: str = "") -> None:
        super().__init__(message)
        self.missing = missing


class NoThreadError(EspDfuError):
    """The system starts no more threads, one of which each of several boards needs."""

    code = "no-thread"
    exit_code = 71


class UdevError(EspDfuError):
    """udev is missing, or does not apply the rule (Linux)."""

    code = "udev"
    exit_code = 72


class OutputError(EspDfuError):
    """A file cannot be written."""

    code = "output"
    exit_code = 73


class UsbError(EspDfuError):
    """A transfer failed.

    Attributes:
        path: USB port, as ``bus-port.port``; None if unknown or if the error does not concern a port.
    """

    code = "usb-io"
    exit_code = 74
    path: str | None = None

    def __init__(self, message: str, *, notes: Sequence[str] = (), path: str | None = None) -> None:
        super().__init__(message, notes=notes)
        self.path = path


class StallError(UsbError):
    """The device refused the request (EPIPE)."""

    code = "usb-stall"


class TransferTimeoutError(UsbError):
    """The device did not answer in time."""

    code = "usb-timeout"


class DeviceGoneError(UsbError):
    """The device left the bus.

    Attributes:
        restarted: True if a device appeared on its port again soon after.
    """

    code = "device-gone"
    restarted: bool = False


class AccessDeniedError(UsbError):
    """The user has no permission to open the device."""

    code = "no-permission"
    exit_code = 77


class DriverMissingError(UsbError):
    """The system has no driver that gives access to the device (Windows)."""

    code = "no-driver"
    exit_code = 78


class DeviceBusyError(UsbError):
    """Another program has claimed the interface."""

    code = "device-busy"
    exit_code = 75


class SerialPortError(EspDfuError):
    """A serial port cannot be opened, or it failed while it was used.

    Attributes:
        port: Name of the port.
        reason: ``missing``; ``busy``, another program uses it; ``permission``, this user may not open it; ``gone``, it
            left while it was used; ``no-lines``, it has no DTR and RTS; ``failed``, for any other reason, which the
            message quotes.
        group: Group whose members may open it, if this user may not; empty if that is not known.
    """

    code = "serial-port"
    exit_code = 74

    def __init__(self, message: str, *, port: str, reason: str, group: str = "") -> None:
        super().__init__(message)
        self.port = port
        self.reason = reason
        self.group = group


class SerialLoaderError(EspDfuError):
    """The chip's serial loader did not answer, or refused a command, or esptool cannot ask it.

    Attributes:
        reason: ``connect``, it did not answer, or its answer makes no sense; ``secure``, it is in Secure Download Mode;
            ``md5``, the flash memory differs from the image; ``esptool``, that is missing, or does not know the chip;
            ``driver``, the system has made no serial port of the board; ``off``, the chip's file says not to use
            it; empty for any other reason, which the message quotes.
    """

    code = "serial-loader"
    exit_code = 74

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class FlashDiffersError(EspDfuError):
    """By the serial loader's MD5s, flash memory does not hold the image.

    Attributes:
        files: Names of the files that it does not hold.
    """

    code = "flash-differs"
    exit_code = 74

    def __init__(self, message: str, *, files: Sequence[str] = (), notes: Sequence[str] = ()) -> None:
        super().__init__(message, notes=notes)
        self.files = tuple(files)


class DfuSilentError(UsbError):
    """The device no longer answered on its DFU interface after a SYNC to its serial loader."""

    code = "dfu-silent"


class DfuError(EspDfuError):
    """The device did not follow DFU 1.1, or does not accept downloads."""

    code = "dfu"
    exit_code = 74


class DfuStatusError(DfuError):
    """The device reported an error in its answer to DFU_GETSTATUS.

    Attributes:
        status: bStatus, by its name in DFU 1.1 section 6.1.2, such as ``errFIRMWARE``.
        state: bState, such as ``dfuERROR``.
    """

    code = "dfu-status"

    def __init__(self, message: str, *, status: str, state: str) -> None:
        super().__init__(message)
        self.status = status
        self.state = state


class DfuStateError(DfuError):
    """The device reports no error, but an unexpected state.

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
    """The board did not come back after DFU_DETACH."""

    code = "no-return"


class NoDfuModeError(ReenumerationError):
    """After DFU_DETACH the board or another device is on its port, but not in DFU mode.

    Attributes:
        seen: The device that was last seen there: ``run-time`` or ``vvvv:pppp``.
    """

    code = "no-dfu-mode"

    def __init__(self, message: str, *, seen: str, notes: Sequence[str] = ()) -> None:
        super().__init__(message, notes=notes)
        self.seen = seen


class NoHandoverError(ReenumerationError):
    """After DFU_DETACH an app did not hand the chip over to its ROM.

    Attributes:
        path: USB port of the app.
        outcome: What was seen: ``stayed``, the app never left the bus; ``restarted``, the same app came back;
            ``nothing``, no device came back; ``other``, a device other than the app and the ROM.
    """

    code = "no-handover"

    def __init__(self, message: str, *, path: str, outcome: str, notes: Sequence[str] = ()) -> None:
        super().__init__(message, notes=notes)
        self.path = path
        self.outcome = outcome


class OtherBoardError(ReenumerationError):
    """After DFU_DETACH the board on the port does not have the serial number that was read before.

    Attributes:
        before: Serial number of the board that was chosen.
        now: Serial number of the board that is on the port now; None if it cannot be read.
    """

    code = "other-board"

    def __init__(self, path: str, *, before: str, now: str | None) -> None:
        seen = f"has serial number {now}" if now is not None else "does not give its serial number"
        super().__init__(
            f"The board on port {path} {seen} after DFU_DETACH, but it was {before} before. Nothing was written to it."
        )
        self.before = before
        self.now = now


class SimulationError(DfuError):
    """The simulated flash memory differs from the image."""

    code = "simulation"


class NeedsRootError(EspDfuError):
    """Only root may do this."""

    code = "needs-root"
    exit_code = 77


class RemoteError(EspDfuError):
    """esp-dfu on another machine did not run, or its output is not understood."""

    code = "remote"
    exit_code = 76


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, handled like Ctrl-C.

    Attributes:
        number: Number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class InterruptedByUserError(EspDfuError):
    """Ctrl-C, SIGTERM or SIGHUP; the message says in which state the chip was left.

    Attributes:
        incomplete: True if a part of the image was written to a board, but not all of it.
    """

    code = "interrupted"
    exit_code = EXIT_INTERRUPTED

    def __init__(self, message: str, *, incomplete: bool = False) -> None:
        super().__init__(message)
        self.incomplete = incomplete

    @classmethod
    def by(cls, stop: KeyboardInterrupt, where: str = "", *, incomplete: bool = False) -> InterruptedByUserError:
        """Return the error for `stop`; `where` completes the sentence "Stopped"."""
        name = f" by {signal.Signals(stop.number).name}" if isinstance(stop, Terminated) else ""
        error = cls(f"Stopped{name}{where}.", incomplete=incomplete)
        error.exit_code = stopped_exit_code(stop)
        return error


def stopped_exit_code(stop: BaseException | None) -> int:
    """Return 128 plus the number of the signal, the convention of shells; SIGINT's if `stop` is not a `Terminated`."""
    return 128 + (stop.number if isinstance(stop, Terminated) else signal.SIGINT)
