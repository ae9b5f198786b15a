"""What to do about an error: the next command to type, for whoever asked, on this machine, for this chip.

The errors say what was seen; only here does anybody give advice, and only advice that follows from that.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .errors import (
    AccessDeniedError,
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
    OutsideProjectError,
    ProjectError,
    ReenumerationError,
    SeveralDevicesError,
    TargetNotSupportedError,
    UsbError,
    UsbUnavailableError,
    WrongTargetError,
)
from .target import Target


@dataclass(frozen=True)
class Face:
    """How the jobs are called where the user is: the commands that hints name."""

    build: str
    list: str
    flash: str
    set_target: str
    compile: str

    def naming(self, dfu_bin: str) -> Face:
        """The same with the image's real path in its commands."""
        return replace(self, flash=self.flash.replace("DFU.BIN", shlex.quote(dfu_bin)))


IDF_PY = Face("idf.py dfu", "idf.py dfu-list", "idf.py dfu-flash", "idf.py set-target", "idf.py build")
ESP_DFU = Face("esp-dfu build BUILD_DIR", "esp-dfu list", "esp-dfu flash DFU.BIN", "idf.py set-target", "idf.py build")

UDEV_FILE = "/etc/udev/rules.d/60-esp-dfu.rules"


def udev_rule(target: Target) -> str:
    """The rule that lets users open the chip and its sisters: the vendor's IDs with the same first byte."""
    vendor, product = f"{target.usb.vid:04x}", f"{target.usb.pid >> 8:02x}??"
    return (
        f'SUBSYSTEM=="usb", ATTR{{idVendor}}=="{vendor}", ATTR{{idProduct}}=="{product}", '
        'MODE="0660", GROUP="plugdev", TAG+="uaccess"'
    )


# What the ROM means by a status, executed (rom.py has the same cases).
_STATUS_HINTS = {
    "errTARGET": "To the ROM the archive is damaged or incomplete; build the image again: {build}",
    "errFILE": "The ROM's index cannot hold that many parts; build the image again: {build}",
    "errFIRMWARE": (
        "What the chip reads back from its flash is not what was sent. The usual causes: the flash is smaller than "
        "the project says (idf.py menuconfig, Serial flasher config, Flash size), is write-protected, or is worn out"
    ),
    "errUNKNOWN": "The ROM took a request amiss. Try the careful way: {flash} --strict",
    "errSTALLEDPKT": "The device wants its status read after each block: {flash} --strict",
}


def hints(error: EspDfuError, face: Face, target: Target | None = None) -> list[str]:
    """The lines to show below an error; none when there is nothing sensible to say."""
    if isinstance(error, DeviceNotFoundError):
        return _not_found(error, face, target)
    if isinstance(error, SeveralDevicesError):
        return [*(f"Choose one: {face.flash} --path {path}" for path in error.paths), f"Or all: {face.flash} --all"]
    if isinstance(error, AccessDeniedError):
        return _no_access(target)
    if isinstance(error, DriverMissingError):
        return [
            "Windows binds no driver to the chip's DFU interface by itself. With Zadig (https://zadig.akeo.ie), "
            "Options, List All Devices, give WinUSB to Interface 2 of the board, and to that one only.",
        ]
    if isinstance(error, UsbUnavailableError):
        return _no_usb(error)
    if isinstance(error, DeviceBusyError):
        return ["Close the program that uses it (another flash, a virtual machine), then try again."]
    if isinstance(error, DeviceGoneError):
        if error.restarted:
            return [
                "RESET, a power supply that breaks down, and a bus reset by another program do this.",
                f"Look what is there now: {face.list}",
            ]
        return [f"Check the cable; a hub without power does this too. {_enter_download_mode(target)}"]
    if isinstance(error, ReenumerationError):
        return _no_return(error, face, target)
    if isinstance(error, DfuStatusError):
        text = _STATUS_HINTS.get(error.status, "Try the careful way: {flash} --strict")
        return [text.format(build=face.build, flash=face.flash)]
    if isinstance(error, (UsbError, DfuStateError, DfuAnswerError)):
        return [f"Try again; if it stays so, unplug the board and plug it in. {_enter_download_mode(target)}"]
    if isinstance(error, InterruptedByUserError):
        return [f"Start again: {face.flash}"] if error.incomplete else []
    return _about_files(error, face)


def _about_files(error: EspDfuError, face: Face) -> list[str]:
    if isinstance(error, InputMissingError):
        # os.path and not Path: up to Python 3.13 that raises OSError for a name that is too long.
        if os.path.exists(error.path):  # noqa: PTH110
            return ["Look at its permissions."]
        return [f"Make it: {face.build}"] if error.role == "dfu.bin" else [f"Build the project first: {face.compile}"]
    if isinstance(error, TargetNotSupportedError):
        return [
            "Flash it over its serial port: idf.py flash",
            f"USB DFU is for {', '.join(error.supported)}.",
        ]
    if isinstance(error, WrongTargetError):
        return [f"Build it for this chip: {face.build}"]
    if isinstance(error, ImageError):
        return [f"Build it again: {face.build}"]
    if isinstance(error, FirmwareError):
        return [
            f"If it is for another chip: {face.set_target} CHIP; if it is damaged: {face.compile}",
            "Or insist, if you know better: --force",
        ]
    if isinstance(error, LayoutError):
        return ["Addresses come from the partition table, the size of the flash from the project: idf.py menuconfig"]
    if isinstance(error, OutsideProjectError):
        return ["They would become part of dfu.bin, for everybody to read. If you want that: --force"]
    if isinstance(error, ProjectError) and "which chip" in error.message:
        return [f"Choose it: {face.set_target} CHIP"]
    return []


def _not_found(error: DeviceNotFoundError, face: Face, target: Target | None) -> list[str]:
    if error.reason in ("other-path", "other-serial"):
        return [f"See which boards are there: {face.list}"]
    if error.reason == "other-target":
        return ["Plug in the right board, or flash an image that was built for the one that is there."]
    lines = [_enter_download_mode(target), f"Then look: {face.list}"]
    if error.reason == "nothing" and target is not None:
        lines.insert(
            0,
            f"The cable must carry data and go to the chip's own USB port: D+ is {target.download_mode.d_plus}, "
            f"D- is {target.download_mode.d_minus}.",
        )
    if error.reason == "no-dfu" and target is not None and target.closed_by:
        lines.append(f"If that changes nothing, DFU may be closed on this chip by {'; '.join(target.closed_by)}.")
    return lines


def _enter_download_mode(target: Target | None) -> str:
    if target is None:
        return "Bring the chip into download mode: hold BOOT, press and release RESET, release BOOT."
    mode = target.download_mode
    return f"Bring the chip into download mode ({mode.strap}): {', '.join(mode.steps)}."


def ways_into_download_mode(targets: Sequence[Target]) -> list[str]:
    """A line for each way, naming the chips it is for and where their USB wires go."""
    ways: dict[str, list[str]] = {}
    for target in targets:
        mode = target.download_mode
        way = f"{', '.join(mode.steps)}. D+ is {mode.d_plus}, D- is {mode.d_minus}."
        ways.setdefault(way, []).append(target.chip)
    return [f"{' and '.join(chips)} in download mode: {way}" for way, chips in ways.items()]


def _no_return(error: ReenumerationError, face: Face, target: Target | None) -> list[str]:
    if error.seen == "nothing":
        return [
            f"Unplug the board and plug it in again. {_enter_download_mode(target)}",
            "In a virtual machine or container, pass the whole port on: the board comes back as a new device.",
        ]
    return [_enter_download_mode(target), f"Then look: {face.list}"]


def _no_access(target: Target | None) -> list[str]:
    if sys.platform.startswith("linux") and target is not None:
        return [
            f"Let yourself in, once: echo {shlex.quote(udev_rule(target))} | sudo tee {UDEV_FILE}",
            "and then: sudo udevadm control --reload && sudo udevadm trigger (or plug the board in again)",
        ]
    return ["Another program may hold the device, or the system wants administrator rights for it."]


def _no_usb(error: UsbUnavailableError) -> list[str]:
    python = shlex.quote(sys.executable or "python")
    if error.missing == "pyusb":
        return [f"Install it: {python} -m pip install pyusb libusb-package"]
    if error.missing == "libusb":
        return [f"Install it: {python} -m pip install libusb-package"]
    return ["In a container or virtual machine, pass the USB bus on (/dev/bus/usb)."]
