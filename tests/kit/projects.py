"""Project folders as ESP-IDF leaves them after a build, and the ESP images in them."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from esp_dfu_ext.events import Event, Notice
from esp_dfu_ext.target import builtin_folder

from .archives import pattern
from .files import write_file, write_json

BOOTLOADER_OFFSET = {"esp32s2": 0x1000, "esp32s3": 0x0, "esp32p4": 0x2000, "esp32s31": 0x2000}
CHIP_ID = {"esp32s2": 2, "esp32s3": 9, "esp32p4": 18, "esp32s31": 32}


def notices(events: Sequence[Event]) -> dict[str, str]:
    """Return the message of each notice, by its code."""
    return {event.code: event.message for event in events if isinstance(event, Notice)}


# --- ESP images -------------------------------------------------------------------------------------------


def app_description(project: str, version: str, idf_version: str = "v5.5.4") -> bytes:
    """esp_app_desc_t, 256 bytes: magic, secure version, names and versions, hash of the ELF."""
    return struct.pack(
        "<II8x32s32s16s16s32s32s80x",
        0xABCD5432,
        0,
        version.encode(),
        project.encode(),
        b"12:34:56",
        b"Jul  1 2026",
        idf_version.encode(),
        bytes(32),
    )


def esp_image(
    chip_id: int = 9,
    segments: Sequence[bytes] = (b"\x11" * 300, b"\x22" * 52),
    *,
    app: bytes = b"",
    sha256: bool = True,
    checksum_error: int = 0,
) -> bytes:
    """An ESP image: 24-byte header, segments, checksum up to a multiple of 16, and a hash if wanted."""
    first, *rest = segments
    body = bytearray(struct.pack("<BBBBI", 0xE9, len(segments), 2, 0x20, 0x40374000))
    body += struct.pack("<B3xHBHH4xB", 0xEE, chip_id, 0, 0, 0xFFFF, sha256)
    checksum = 0xEF
    for number, data in enumerate([app + first, *rest]):
        body += struct.pack("<II", 0x3FC90000 + 0x10000 * number, len(data)) + data
        for byte in data:
            checksum ^= byte
    body += bytes(15 - len(body) % 16) + bytes([checksum ^ checksum_error])
    if sha256:
        body += hashlib.sha256(body).digest()
    return bytes(body)


# --- project folders --------------------------------------------------------------------------------------

Section = tuple[str, int, str, bytes]


def project_sections(target: str, version: str = "1.2.3") -> list[Section]:
    """Section, address, path in the build folder and content, as an ESP-IDF project with OTA has them."""
    chip_id = CHIP_ID[target]
    return [
        ("app", 0x20000, "hello.bin", esp_image(chip_id, app=app_description("hello", version))),
        ("bootloader", BOOTLOADER_OFFSET[target], "bootloader/bootloader.bin", esp_image(chip_id, [b"b" * 900])),
        ("partition-table", 0x8000, "partition_table/partition-table.bin", pattern(3072, 5)),
        ("otadata", 0xD000, "ota_data_initial.bin", b"\xff" * 8192),
    ]


def make_project(
    folder: Path,
    target: str = "esp32s3",
    *,
    idf: int = 5,
    sections: Sequence[Section] | None = None,
    sdkconfig: Mapping[str, str] | None = None,
    flash_size: str = "4MB",
    encrypted: Sequence[str] = (),
) -> Path:
    """A project as ESP-IDF `idf` leaves it behind after a build; returns its build folder.

    Args:
        folder: of the project; made if it is not there.
        target: as `idf.py set-target` knows it.
        idf: major version: 5 writes esptool's options with underscores, 6 with dashes.
        sections: None for those of `project_sections`.
        sdkconfig: lines that are added.
        flash_size: of flasher_args.json; sdkconfig always says 4MB, unless `sdkconfig` says something else.
        encrypted: names of the sections that the build marks.
    """
    if sections is None:
        sections = project_sections(target)
    build = folder / "build"
    for _, _, file, content in sections:
        write_file(build / file, content)
    options = {"CONFIG_IDF_TARGET": f'"{target}"', "CONFIG_ESPTOOLPY_FLASHSIZE": '"4MB"', **(sdkconfig or {})}
    lines = ["# Automatically generated file. DO NOT EDIT.", "# CONFIG_SECURE_BOOT is not set"]
    lines += [f"{key}={value}" for key, value in options.items()]
    write_file(folder / "sdkconfig", "\n".join([*lines, ""]).encode())
    description: dict[str, Any] = {
        "version": "1.3",
        "project_name": "hello",
        "project_path": str(folder),
        "build_dir": str(build),
        "config_file": str(folder / "sdkconfig"),
        "target": target,
    }
    write_json(build / "project_description.json", description)
    dash = "-" if idf >= 6 else "_"
    args: dict[str, Any] = {
        "write_flash_args": [f"--flash{dash}mode", "dio", f"--flash{dash}size", flash_size],
        "flash_settings": {"flash_mode": "dio", "flash_size": flash_size, "flash_freq": "80m"},
        "flash_files": {hex(address): file for _, address, file, _ in sections},
        "extra_esptool_args": {"after": f"hard{dash}reset", "stub": True, "chip": target},
    }
    for name, address, file, _ in sections:
        mark = "true" if name in encrypted else "false"
        args[name] = {"offset": hex(address), "file": file, "encrypted": mark}
    write_json(build / "flasher_args.json", args)
    return build


def own_chip(folder: Path, name: str, pid: int) -> Path:
    """Write the YAML file of a chip like the ESP32-S3 with another name and PID."""
    data = yaml.safe_load((builtin_folder() / "esp32s3.yaml").read_text())
    data.update(name=name, chip=f"Own {name}")
    data["usb"]["pid"] = pid
    return write_file(folder / f"{name}.yaml", yaml.safe_dump(data).encode())
