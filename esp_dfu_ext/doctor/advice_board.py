"""Advice about the board in the user's hands: cable, buttons, power, driver, and what the chip reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..target import Target

REPLUG = "Unplug the board and plug it in again."

# bStatus -> advice; DFU 1.1 leaves the meaning to the device, this is what the ROM means by it.
_BY_STATUS: Mapping[str, str] = {
    "errTARGET": "The chip found the image damaged or incomplete. Build it again: {build}",
    "errFILE": "The image has more parts than the chip's index can hold. Build it again: {build}",
    "errFIRMWARE": (
        "Check the flash memory. Usual causes: it is smaller than the project says (idf.py menuconfig, Serial flasher "
        "config, Flash size), write-protected, or worn out."
    ),
    "errUNKNOWN": "The chip did not accept a request. Retry with a status check after every block: {flash} --strict",
    "errSTALLEDPKT": "The device wants its status read after every block: {flash} --strict",
}
_ANY_STATUS = "Retry with a status check after every block: {flash} --strict"


def cable(target: Target | None) -> list[str]:
    """Return where the USB cable belongs; nothing for an unknown chip."""
    if target is None:
        return []
    mode = target.download_mode
    return [f"Use a data cable and the chip's own USB port: D+ is {mode.d_plus}, D- is {mode.d_minus}."]


def cable_past_own_pins(target: Target | None) -> list[str]:
    """Return `cable` if another USB device of the chip has pins of its own, so that the socket may be the wrong one."""
    if target is None or not any(other.own_pins for other in target.other_usb):
        return []
    return cable(target)


def download_mode(target: Target | None) -> str:
    """Return how to put the chip into download mode; for an unknown chip, what works on most boards."""
    if target is None:
        return "Put the chip into download mode: hold BOOT, press and release RESET, release BOOT."
    mode = target.download_mode
    return f"Put the chip into download mode ({mode.strap}): {', '.join(mode.steps)}."


def download_modes(targets: Sequence[Target]) -> list[str]:
    """Return a line for each way into download mode, with the chips it is for and where their USB wires go."""
    ways: dict[str, list[str]] = {}
    for target in targets:
        mode = target.download_mode
        way = f"{', '.join(mode.steps)}. D+ is {mode.d_plus}, D- is {mode.d_minus}."
        ways.setdefault(way, []).append(target.chip)
    return [f"Download mode of {' and '.join(chips)}: {way}" for way, chips in ways.items()]


def closed_by(target: Target | None) -> list[str]:
    """Return what may prevent DFU on this chip, as a list below a sentence."""
    if target is None:
        return []
    delivered = [f"as delivered, {target.as_delivered}"] if target.as_delivered else []
    ways = [*delivered, *target.closed_by]
    return (
        ["If that does not help, USB DFU may be disabled on this chip:", *(f"- {way}." for way in ways)] if ways else []
    )


def closed_by_any(targets: Sequence[Target]) -> list[str]:
    """Return what may prevent DFU on one of these chips, in short, as a list below a sentence."""
    delivered = [f"- {target.notice}" for target in targets if target.notice]
    burned = (
        "- An eFuse that closes download mode or USB is burned; ESP-IDF usually burns one along with Secure Boot and "
        "flash encryption."
    )
    return ["If that does not help, USB DFU may be disabled on the chip:", *delivered, burned]


def no_handover(target: Target | None, outcome: str, list_command: str) -> list[str]:
    """Return what to do about an app that did not hand over to the ROM; `outcome` as in `NoHandoverError`."""
    by_hand = download_mode(target)
    if outcome == "stayed":
        return [
            by_hand,
            "The app does not act upon DFU_DETACH; with the component esp_dfu_runtime, a TinyUSB app does.",
        ]
    if outcome == "restarted":
        return [
            by_hand,
            "The app restarts without a request for download mode, or an eFuse forbids it.",
            *closed_by(target),
        ]
    moved = f"The board may have come up on another connector, in DFU. List the boards: {list_command}"
    return [moved, by_hand, *closed_by(target)]


def left_the_bus(target: Target | None, list_command: str, *, restarted: bool) -> list[str]:
    """Return what to do about a board that left the bus, and came back at once if it `restarted`."""
    if restarted:
        return [
            "Possible causes: RESET was pressed, power dropped, or another program reset the bus.",
            f"List the boards that are connected now: {list_command}",
        ]
    return ["Check the cable and the power supply; an unpowered hub may be the cause.", download_mode(target)]


def driver(target: Target | None) -> str:
    """Return how to get WinUSB for the chip's DFU interface (Windows)."""
    if target is not None and target.usb.ms_os_descriptors:
        return "Unplug the board, plug it in again, and wait until Windows has set up WinUSB, as this chip asks it to."
    if target is not None and target.usb.windows_driver is not None:
        package = target.usb.windows_driver
        return (
            f"Download {package.name} from {package.url}, a WinUSB package for this chip, unpack it, and run there as "
            f"administrator: {package.install}"
        )
    return (
        "Assign WinUSB to the DFU interface, which Windows does not do by itself. In Zadig (https://zadig.akeo.ie), "
        "choose Options, List All Devices, then the board's DFU interface (Interface 2 on all chips so far) and no "
        "other interface."
    )


def not_in_download_mode(target: Target | None, facts: Mapping[str, Any], flash: str) -> list[str]:
    """Return what to do about a board that a reset through a serial port did not bring to USB in download mode.

    Args:
        target: The chip.
        facts: Attributes of the `NoDownloadModeError`.
        flash: The command that flashes.
    """
    said, changed, port = facts.get("boot_mode"), facts.get("changed"), facts.get("port", "the port")
    if said == "download":
        also = "Connect the chip's own USB port, too: a USB-UART bridge is not enough."
        return [also, *cable(target), *closed_by(target)]
    if said in ("secure", "disabled"):
        return closed_by(target)
    if said is None and not changed:
        lines = [f"Check that {port} is the serial port of this board, and that the board has power."]
    else:
        lines = [f"{port} resets the board, but its strapping pin stays high: not every board has the circuit."]
    again = flash if "--before" in flash.split() else f"{flash} --before no-reset"
    return [*lines, *cable(target), download_mode(target), f"Then flash without a reset: {again}"]


def taken_by_lines(target: Target | None, seen: str | None) -> list[str]:
    """Return why a chip whose app may have had the ROM's console ignores DFU_DETACH; `seen` as in `NoDfuModeError`."""
    if target is None or not target.usb.rom_console or seen != "run-time":
        return []
    return [
        "If another program, such as a serial monitor or esptool, reset the chip through the serial port of its app, "
        "it does not answer on USB until RESET is pressed."
    ]


def serial_loader(target: Target | None, reason: str, flash: str) -> list[str]:
    """Return what to do about a serial loader that failed; `reason` as in `SerialLoaderError`."""
    if reason == "md5":
        return [_BY_STATUS["errFIRMWARE"]]
    if reason == "secure":
        return closed_by(target)
    if reason == "driver":
        return [REPLUG, "Close other programs that may hold the board, such as a virtual machine."]
    if reason == "off":
        return ["Do without --verify, or let the chip's file use the serial loader (serial_loader, use)."]
    if reason == "esptool":
        return ["Use another version of esptool, in a Python environment of its own: 4.12 and 5.6 were tried."]
    without = [] if reason == "connect" or "--no-stub" in flash.split() else [f"Do without the stub: {flash} --no-stub"]
    return [REPLUG, download_mode(target), *without]


def status(name: str, build: str, flash: str) -> str:
    """Return what to do about a bStatus such as ``errFIRMWARE``."""
    text = _BY_STATUS.get(name, _ANY_STATUS)
    if "--strict" in text and "--strict" in flash.split():
        return f"{REPLUG} Then try again."
    return text.format(build=build, flash=flash)


def app_start(target: Target, came_back: str | None, reset_by: str | None) -> list[str]:
    """Return what to do after a restart, by what came back and by what caused it, as in `results.FlashResult`."""
    if came_back is None:
        return ["To start the app, press RESET, or: esp-dfu reset"]
    if came_back == "same":
        return ["To start the app, press RESET."]
    if came_back != "rom":
        return []
    what = "If that is not the console of your app but download mode" if target.usb.rom_console else "In download mode"
    lines = [f"{what}, BOOT may be held down ({target.download_mode.strap}): release it, then press RESET."]
    if reset_by == "bus-reset":
        lines.append("If its app sent the chip into download mode, a bus reset may keep it there; RESET does not.")
    return lines
