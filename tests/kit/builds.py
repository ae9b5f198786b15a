"""Firmware as the build tools leave it: one set of binaries, in the files and folders of each tool."""

from __future__ import annotations

import hashlib
import struct
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import yaml

from .archives import pattern
from .files import write_file, write_json
from .projects import BOOTLOADER_OFFSET, CHIP_ID, app_description, esp_image

SECTOR = 4096
ERASED_SECTORS = b"\xff" * 3 * SECTOR  # in the app: they are part of it
ROWS = (  # name, type, subtype, offset, size
    ("nvs", 1, 2, 0x9000, 0x4000),
    ("otadata", 1, 0, 0xD000, 0x2000),
    ("phy_init", 1, 1, 0xF000, 0x1000),
    ("app0", 0, 0x10, 0x10000, 0x20000),
    ("app1", 0, 0x11, 0x30000, 0x20000),
    ("storage", 1, 0x82, 0x50000, 0x4000),
)
APP, TABLE = 0x10000, 0x8000
END = 0x54000  # of the last partition


def partition_table(rows: Sequence[tuple[str, int, int, int, int]] = ROWS) -> bytes:
    """A table as gen_esp32part.py writes it: entries, their MD5, FF up to 3 KiB."""
    entries = b"".join(
        struct.pack("<2sBBII16sI", b"\xaa\x50", kind, subtype, offset, size, name.encode(), 0)
        for name, kind, subtype, offset, size in rows
    )
    table = entries + b"\xeb\xeb" + b"\xff" * 14 + hashlib.md5(entries).digest()
    return table + b"\xff" * (0xC00 - len(table))


def bootloader(chip: str) -> bytes:
    """A bootloader of more than one sector, without a description."""
    return esp_image(CHIP_ID[chip], [pattern(5000, 3)])


def app(chip: str, name: str = "blink") -> bytes:
    """An app with erased sectors in its middle."""
    return esp_image(CHIP_ID[chip], [ERASED_SECTORS, pattern(3000, 7)], app=app_description(name, "1.2.3"))


def boot_app0() -> bytes:
    """What selects app0: ota_seq 1 in the first sector, the second one erased."""
    return (struct.pack("<I", 1) + b"\xff" * 28).ljust(0x2000, b"\xff")


def storage() -> bytes:
    """A file system that fills its partition and uses one sector of it."""
    return pattern(SECTOR, 11).ljust(0x4000, b"\xff")


def parts(chip: str) -> dict[int, tuple[str, bytes]]:
    """Name and content of each file, by address."""
    return {
        BOOTLOADER_OFFSET[chip]: ("bootloader.bin", bootloader(chip)),
        TABLE: ("partitions.bin", partition_table()),
        0xD000: ("boot_app0.bin", boot_app0()),
        APP: ("firmware.bin", app(chip)),
    }


def write_parts(folder: Path, chip: str) -> list[str]:
    """Write the files; return ADDRESS and FILE as esptool takes them."""
    words = []
    for address, (name, content) in parts(chip).items():
        words += [hex(address), str(write_file(folder / name, content))]
    return words


def merge_bin(output: Path, chip: str, words: Sequence[str], *options: str) -> Path:
    """Merge files with esptool."""
    old = version("esptool").startswith("4.")
    options = tuple(option.replace("pad-to-size", "fill-flash-size") if old else option for option in options)
    command = "merge_bin" if old else "merge-bin"
    arguments = ["--chip", chip, command, "-o", str(output), *options, *words]
    subprocess.run([sys.executable, "-m", "esptool", *arguments], check=True, capture_output=True, timeout=120)
    return output


def arduino_build(folder: Path, chip: str, sketch: str = "Blink", *, flash_args: bool = True) -> Path:
    """A build folder of arduino-esp32 3.x, or of 2.x without flash_args."""
    names = {"bootloader.bin": f"{sketch}.ino.bootloader.bin", "partitions.bin": f"{sketch}.ino.partitions.bin"}
    names |= {"firmware.bin": f"{sketch}.ino.bin"}
    lines = ["--flash-mode dio --flash-freq 80m --flash-size 4MB"]
    for address, (name, content) in parts(chip).items():
        write_file(folder / names.get(name, name), content)
        lines.append(f"{address:#x} {names.get(name, name)}")
    if flash_args:
        write_file(folder / "flash_args", "\n".join([*lines, ""]).encode())
    return folder


def platformio_project(folder: Path, chip: str, packages: Path, *, idedata: bool = True) -> Path:
    """A PlatformIO project after a build; boot_app0.bin is in PlatformIO's own packages. Returns .pio/build/ENV."""
    build = folder / ".pio" / "build" / "board"
    write_file(folder / "platformio.ini", b"[env:board]\nplatform = espressif32\nframework = arduino\n")
    app0 = write_file(packages / "framework-arduinoespressif32" / "tools" / "partitions" / "boot_app0.bin", boot_app0())
    images = []
    for address, (name, content) in parts(chip).items():
        path = app0 if name == "boot_app0.bin" else write_file(build / name, content)
        if name != "firmware.bin":
            images.append({"offset": hex(address), "path": str(path)})
    data = {
        "env_name": "board",
        "prog_path": str(build / "firmware.elf"),
        "extra": {"flash_images": images, "application_offset": hex(APP)},
    }
    if idedata:
        write_json(build / "idedata.json", data)
    return build


def zephyr_build(folder: Path, chip: str) -> Path:
    """A build folder of Zephyr with sysbuild: MCUboot, and an app with MCUboot's header."""
    signed = struct.pack("<II", 0x96F3B83D, 0).ljust(32, b"\0") + pattern(9000, 13)
    domains = {
        "mcuboot": (BOOTLOADER_OFFSET[chip], "zephyr.bin", bootloader(chip)),
        "hello": (0x20000, "zephyr.signed.bin", signed),
    }
    for name, (address, file, content) in domains.items():
        write_file(folder / name / "zephyr" / file, content)
        runners = {
            "runners": ["esp32", "openocd"],
            "config": {"elf_file": "zephyr.elf", "bin_file": file},
            "args": {"esp32": ["--esp-idf-path=/zephyr", "--esp-flash-size=4MB", f"--esp-app-address={address:#x}"]},
        }
        write_file(folder / name / "zephyr" / "runners.yaml", yaml.safe_dump(runners).encode())
    listed = [{"name": name, "build_dir": f"/elsewhere/{name}"} for name in domains]
    text = yaml.safe_dump({"default": "hello", "build_dir": "/elsewhere", "domains": listed})
    write_file(folder / "domains.yaml", text.encode())
    return folder
