"""What to do about an input that cannot become an image."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_HELP = "Name a build folder, a merged .bin, or addresses with files: esp-dfu build --help"
_MOST_BUILDS = 4


def name_chip(this: str, set_target: str) -> list[str]:
    """Advise to name the chip; `set-target` only where idf.py or an unconfigured project asks for it."""
    if this:
        return [f"Name the chip: {this} --target CHIP"]
    return [f"Choose the chip (this empties the build folder): {set_target} CHIP"]


def name_flash_size(this: str, menuconfig: str) -> list[str]:
    """Advise to name the size of the flash memory."""
    return [f"Name the size: {this} --flash-size 4MB" if this else f"Choose the size: {menuconfig}"]


def allow_outside(this: str) -> list[str]:
    """Advise how to accept files that lie outside a build."""
    command = f"{this} --allow-outside" if this else "--allow-outside"
    return [f"Anyone who gets dfu.bin could read these files. If they belong in it: {command}"]


def build_again(tool: str, reconfigure: str) -> list[str]:
    """Advise to generate the files of a build again."""
    if tool == "platformio":
        return ["Generate it again: pio run -t idedata"]
    return [f"Generate it again: {reconfigure}"] if tool == "esp-idf" else ["Build the project again."]


def find_build(this: str, data: Mapping[str, Any]) -> list[str]:
    """Advise which folder to name, or to build first."""
    builds, folder = data.get("builds", ()), shlex.quote(str(data["path"]))
    verb = " ".join(this.split()[:2]) or "esp-dfu build"
    if builds:
        chosen = [shlex.quote(str(build)) for build in builds[:_MOST_BUILDS]]
        if folder in shlex.split(this):  # keep the options
            return [f"Choose one: {this.replace(folder, build, 1)}" for build in chosen]
        return [f"Choose one: {verb} {build}" for build in chosen]
    if data["tool"] == "platformio":
        return [f"Build it first: pio run -d {folder}"]
    if data["tool"] == "arduino":
        output = shlex.quote(str(Path(data["path"], "build")))
        return [f"Build it into the folder: arduino-cli compile -b BOARD --output-dir {output} {folder}"]
    return [_HELP]


def other_chip(data: Mapping[str, Any], flash: str) -> list[str]:
    """Advise what to do with a chip without USB DFU, or with a name that is no chip."""
    supported = f"Chips with USB DFU: {', '.join(data.get('supported', ()))}."
    if data.get("meant"):
        return [f"Did you mean {data['meant']}?", supported]
    return [f"Flash it over its serial port: {flash}", supported]


def instead(this: str, data: Mapping[str, Any]) -> list[str]:
    """Advise what to do with a file that is something else than firmware with its addresses."""
    kind, path = data["kind"], shlex.quote(str(data["path"]))
    verb = " ".join(this.split()[:2]) or "esp-dfu build"
    lines = [f"Use the build that it belongs to: {verb} {shlex.quote(str(data['build']))}"] if data.get("build") else []
    if kind == "dfu":
        return [f"Flash it: esp-dfu flash {path}"]
    placed = this or f"{verb} {path}"
    if kind == "app":
        place = next(iter(data["places"]), "0x10000")
        which = "" if data["places"] else " (ESP-IDF puts the app at 0x10000)"
        return [*lines, f"{'Or say' if lines else 'Say'} where it goes{which}: {placed} --at {shlex.quote(place)}"]
    if kind == "elf":
        esptool = f"{shlex.quote(sys.executable or 'python')} -m esptool"  # its own name depends on its version
        return lines or [f"Make an app of it: {esptool} --chip CHIP elf2image {path}"]
    if kind == "uf2":
        return ["Copy it to the board's drive, or use the .bin of the same release."]
    if kind == "archive":
        return ["Unpack it, and name the firmware in it: esp-dfu build --help"]
    if kind in ("bootloader", "table"):
        return lines or [f"Name all files with their addresses: {verb} ADDRESS {path} ADDRESS APP.BIN"]
    if kind == "encrypted":
        return [*lines, f"If this chip can decrypt it, say where it goes: {placed} --at 0x10000"]
    return [_HELP]
