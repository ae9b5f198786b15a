"""What to do about an error or a fact: the next command to type, for whoever asked, on this machine, for this chip.

Errors and facts say what was seen; only here does anybody give advice, and only advice that follows from that.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..errors import (
    AccessDeniedError,
    AppRunningError,
    BuildFileError,
    DeviceBusyError,
    DeviceGoneError,
    DeviceNotFoundError,
    DfuAnswerError,
    DfuStateError,
    DfuStatusError,
    DriverMissingError,
    EspDfuError,
    FirmwareError,
    ImageError,
    InputMissingError,
    InterruptedByUserError,
    LayoutError,
    NeedsRootError,
    NoDfuModeError,
    NoTargetError,
    OtherChipError,
    OtherPathError,
    OtherSerialError,
    OtherUsbError,
    OutsideProjectError,
    ReenumerationError,
    SeveralDevicesError,
    TargetNotSupportedError,
    UdevError,
    UnreadableDeviceError,
    UsbError,
    UsbUnavailableError,
    WrongTargetError,
)
from ..target import Target
from .cures import cures, let_in, own_command

if TYPE_CHECKING:
    from .facts import Fact


@dataclass(frozen=True)
class CommandNames:
    """How the jobs are called where the user is: the commands that hints name."""

    build: str
    list: str
    flash: str
    set_target: str
    compile: str

    def naming(self, dfu_bin: str, build_dir: str = "BUILD_DIR") -> CommandNames:
        """The same with the image's real path in its commands, and that of its build folder if it is known."""
        flash = self.flash.replace("DFU.BIN", shlex.quote(dfu_bin))
        return replace(self, flash=flash, build=self.build.replace("BUILD_DIR", shlex.quote(build_dir)))


IDF_PY = CommandNames("idf.py dfu", "idf.py dfu-list", "idf.py dfu-flash", "idf.py set-target", "idf.py build")
ESP_DFU = CommandNames(
    "esp-dfu build BUILD_DIR", "esp-dfu list", "esp-dfu flash DFU.BIN", "idf.py set-target", "idf.py build"
)

# What the ROM means by a status, executed (rom.py has the same cases).
_STATUS_HINTS = {
    "errTARGET": "To the ROM the archive is damaged or incomplete; build the image again: {build}",
    "errFILE": "The ROM's index cannot hold that many parts; build the image again: {build}",
    "errFIRMWARE": (
        "What the chip reads back from its flash is not what was sent. The usual causes: the flash is smaller than "
        "the project says (idf.py menuconfig, Serial flasher config, Flash size), is write-protected, or is worn out."
    ),
    "errUNKNOWN": "The ROM took a request amiss. Try the careful way: {flash} --strict",
    "errSTALLEDPKT": "The device wants its status read after each block: {flash} --strict",
}


_SERIAL_PORT = "Flash it over its serial port: idf.py flash"
_RECONFIGURE = "Have it written anew: idf.py reconfigure"
_BUSY = "Close the program that uses it (another flash, a virtual machine), then try again."


def advice_for(
    error: EspDfuError,
    names: CommandNames,
    target: Target | None = None,
    facts: Sequence[Fact] = (),
    targets: Sequence[Target] = (),
) -> list[str]:
    """The lines to show below an error; none when there is nothing sensible to say.

    Args:
        error: what happened.
        names: who asked.
        target: the chip, if it is known.
        facts: what this machine shows about it.
        targets: the chips that it may be where it is not known.
    """
    known = cures(facts)
    if known:
        return known
    if type(error) is DeviceNotFoundError and target is None and targets:
        return _ways_into_download_mode(targets)
    if isinstance(error, DeviceNotFoundError):
        return _not_found(type(error), names, target)
    if isinstance(error, SeveralDevicesError):
        return _choose(error.paths, names)
    if isinstance(error, AccessDeniedError):
        return [_no_access()]
    if isinstance(error, NeedsRootError):
        return [own_command("udev --install", root=True)]
    if isinstance(error, UdevError):
        return [
            "Change or take away the rule that decides otherwise."
            if error.notes
            else "See what udev says of it: journalctl -u systemd-udevd"
        ]
    if isinstance(error, DriverMissingError):
        return [_no_driver(target)]
    if isinstance(error, UsbUnavailableError):
        return _no_usb(error.missing)
    if isinstance(error, DeviceBusyError):
        return [_BUSY]
    if isinstance(error, DeviceGoneError):
        if error.restarted:
            return [
                "RESET, a power supply that breaks down, and a bus reset by another program do this.",
                f"Look what is there now: {names.list}",
            ]
        return ["Check the cable; a hub without power does this too.", _enter_download_mode(target)]
    if isinstance(error, ReenumerationError):
        return _no_return(error, names, target)
    if isinstance(error, DfuStatusError):
        text = _STATUS_HINTS.get(error.status, "Try the careful way: {flash} --strict")
        return [text.format(build=names.build, flash=names.flash)]
    if isinstance(error, (UsbError, DfuStateError, DfuAnswerError)):
        return ["Try again; if it stays so, unplug the board and plug it in.", _enter_download_mode(target)]
    if isinstance(error, InterruptedByUserError):
        return [f"Start again: {names.flash}"] if error.incomplete else []
    return _about_files(error, names)


def _about_files(error: EspDfuError, names: CommandNames) -> list[str]:
    if isinstance(error, InputMissingError):
        return _missing(error.reason, error.role, names)
    if isinstance(error, TargetNotSupportedError):
        return [
            _SERIAL_PORT,
            f"USB DFU is for {', '.join(error.supported)}.",
        ]
    if isinstance(error, WrongTargetError):
        return [f"Build it for this chip: {names.build}"]
    if isinstance(error, ImageError):
        return [f"Build it again: {names.build}"]
    if isinstance(error, FirmwareError):
        return [
            f"If it is for another chip: {names.set_target} CHIP",
            f"If it is damaged: {names.compile}",
            "Or insist, if you know better: --force",
        ]
    if isinstance(error, LayoutError):
        return ["Addresses come from the partition table, the size of the flash from the project: idf.py menuconfig"]
    if isinstance(error, OutsideProjectError):
        return ["They would become part of dfu.bin, for everybody to read.", "If you want that: --force"]
    if isinstance(error, NoTargetError):
        return [_set_target(names)]
    return [_RECONFIGURE] if isinstance(error, BuildFileError) else []


def _missing(reason: str, role: str, names: CommandNames) -> list[str]:
    if reason == "unreadable":
        return ["Look at its permissions."]
    if reason == "missing":
        return [f"Make it: {names.build}"] if role == "dfu.bin" else [f"Build the project first: {names.compile}"]
    examples = {"dfu.bin": "the file itself, such as build/dfu.bin", "build folder": "a folder, such as build"}
    return [f"Name {examples[role]}."] if reason == "no-file" and role in examples else []


def _set_target(names: CommandNames) -> str:
    return f"Choose it: {names.set_target} CHIP"


def _choose(paths: Sequence[str], names: CommandNames) -> list[str]:
    return [f"Choose one, such as: {names.flash} --path {paths[0]}", f"Or all: {names.flash} --all"]


def _not_found(kind: type[DeviceNotFoundError], names: CommandNames, target: Target | None) -> list[str]:
    if issubclass(kind, (OtherPathError, OtherSerialError)):
        return [f"See which boards are there: {names.list}"]
    if kind is OtherChipError:
        return ["Plug in the right board, or flash an image that was built for the one that is there."]
    if kind is UnreadableDeviceError:
        return ["Unplug the board and plug it in again.", _enter_download_mode(target)]
    lines = [_enter_download_mode(target), f"Then look: {names.list}"]
    other_port = kind is OtherUsbError and target is not None and any(other.own_pins for other in target.other_usb)
    if target is not None and (kind is DeviceNotFoundError or other_port):
        lines.insert(
            0,
            f"The cable must carry data and go to the chip's own USB port: D+ is {target.download_mode.d_plus}, "
            f"D- is {target.download_mode.d_minus}.",
        )
    if kind in (OtherUsbError, AppRunningError) and target is not None and target.closed_by:
        lines.append("If that changes nothing, DFU may be closed on this chip by one of these:")
        lines += [f"- {way}." for way in target.closed_by]
    return lines


def _no_access() -> str:
    if sys.platform.startswith("linux"):
        return let_in()
    return "Another program may hold the device, or the system wants administrator rights for it."


def _no_driver(target: Target | None) -> str:
    if target is not None and target.usb.ms_os_descriptors:
        return "This chip asks Windows for WinUSB by itself: unplug it, plug it in again, and wait for the driver."
    return (
        "Windows binds no driver to the chip's DFU interface by itself. With Zadig (https://zadig.akeo.ie), "
        "Options, List All Devices, give WinUSB to Interface 2 of the board, and to that one only."
    )


def _enter_download_mode(target: Target | None) -> str:
    if target is None:
        return "Bring the chip into download mode: hold BOOT, press and release RESET, release BOOT."
    mode = target.download_mode
    return f"Bring the chip into download mode ({mode.strap}): {', '.join(mode.steps)}."


def _ways_into_download_mode(targets: Sequence[Target]) -> list[str]:
    """A line for each way, naming the chips it is for and where their USB wires go."""
    ways: dict[str, list[str]] = {}
    for target in targets:
        mode = target.download_mode
        way = f"{', '.join(mode.steps)}. D+ is {mode.d_plus}, D- is {mode.d_minus}."
        ways.setdefault(way, []).append(target.chip)
    return [f"{' and '.join(chips)} in download mode: {way}" for way, chips in ways.items()]


def _no_return(error: ReenumerationError, names: CommandNames, target: Target | None) -> list[str]:
    if isinstance(error, NoDfuModeError):
        return [_enter_download_mode(target), f"Then look: {names.list}"]
    return [
        "Unplug the board and plug it in again.",
        _enter_download_mode(target),
        "In a virtual machine or container, pass the whole port on: the board comes back as a new device.",
    ]


def _no_usb(missing: str) -> list[str]:
    python = shlex.quote(sys.executable or "python")
    if missing == "pyusb":
        return [f"Install it: {python} -m pip install pyusb libusb-package"]
    if missing == "libusb":
        return [f"Install it: {python} -m pip install libusb-package"]
    return ["In a container or virtual machine, pass the USB bus on (/dev/bus/usb)."]


def next_step(facts: Sequence[Fact], names: CommandNames, target: Target | None) -> list[str]:
    """What to do first after a diagnosis; empty if there is nothing to do, or no problem has a known cure."""
    problems = [fact for fact in facts if fact.code]
    # The rule is only needed once a board is there; one that is there and refused says so itself.
    for fact in sorted(problems, key=lambda fact: fact.topic == "udev rule"):
        lines = cures([fact]) or _cure_in_project(fact, names) or _cure_on_bus(fact, names, target)
        if lines:
            return lines
    if not problems and target is not None:
        paths = next((fact.data["paths"] for fact in facts if fact.topic == "board"), ())
        return _choose(paths, names) if len(paths) > 1 else []
    return []


def _cure_in_project(fact: Fact, names: CommandNames) -> list[str]:
    if fact.topic not in ("project", "flash", "dfu.bin"):
        return []
    if fact.code == TargetNotSupportedError.code:
        return [_SERIAL_PORT]
    if fact.code == NoTargetError.code:
        return [_set_target(names)]
    if fact.code == BuildFileError.code:
        return [_RECONFIGURE]
    if fact.code == InputMissingError.code:
        return _missing(fact.data.get("reason", ""), fact.data.get("role", ""), names)
    return [f"Make it: {names.build}"] if fact.topic == "dfu.bin" else []


_MISSING = (
    DeviceNotFoundError,
    OtherUsbError,
    AppRunningError,
    OtherChipError,
    UnreadableDeviceError,
)


def _cure_on_bus(fact: Fact, names: CommandNames, target: Target | None) -> list[str]:
    for kind in _MISSING:
        if fact.code == kind.code:
            return _not_found(kind, names, target)
    if fact.code in (UsbUnavailableError.code, "no-usb"):
        return _no_usb(fact.data.get("missing", ""))
    if fact.code == DriverMissingError.code:
        return [_no_driver(target)]
    if fact.code == AccessDeniedError.code:
        return [_no_access()]
    return [_BUSY] if fact.code == DeviceBusyError.code else []
