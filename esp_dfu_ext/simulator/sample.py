"""Write a small built project: valid ESP images, a partition table, and the files that describe them.

The demo and the tests use it where ESP-IDF is not installed. The firmware has the right format and does nothing.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

from ..target import Target
from ..units import MIB

APP_OFFSET, TABLE_OFFSET = 0x10000, 0x8000
_CHECKSUM_SEED = 0xEF
_LOAD_ADDRESS = 0x3FFB0000


def esp_image(chip_id: int, payload: bytes) -> bytes:
    """Return an ESP image with one segment, checksum and SHA-256 (ESP-IDF, esp_app_format.h)."""
    payload += bytes(-len(payload) % 4)
    header = struct.pack("<BBBBIB3sHBHH4sB", 0xE9, 1, 2, 0x20, 0x40080000, 0xEE, b"", chip_id, 0, 0, 99, b"", 1)
    data = header + struct.pack("<II", _LOAD_ADDRESS, len(payload)) + payload
    checksum = _CHECKSUM_SEED
    for byte in payload:
        checksum ^= byte
    data += bytes(15 - len(data) % 16) + bytes([checksum])
    return data + hashlib.sha256(data).digest()


def app_description(project: str, version: str, idf_version: str) -> bytes:
    """Return esp_app_desc_t, 256 bytes (ESP-IDF, esp_app_desc.h)."""
    return struct.pack(
        "<I12x32s32s16s16s32s32s80x",
        0xABCD5432,
        version.encode(),
        project.encode(),
        b"12:00:00",
        b"Jan  1 2026",
        idf_version.encode(),
        b"",
    )


def partition_table() -> bytes:
    """Return a table of nvs, phy_init and factory with its MD5 record (ESP-IDF, gen_esp32part.py)."""
    rows = (
        (1, 2, 0x9000, 0x6000, b"nvs"),
        (1, 1, 0xF000, 0x1000, b"phy_init"),
        (0, 0, APP_OFFSET, MIB, b"factory"),
    )
    entries = b"".join(struct.pack("<2sBBII16sI", b"\xaa\x50", *row, 0) for row in rows)
    table = entries + b"\xeb\xeb" + b"\xff" * 14 + hashlib.md5(entries, usedforsecurity=False).digest()
    return table + b"\xff" * (0xC00 - len(table))


def _noise(size: int, seed: int) -> bytes:
    blocks = (hashlib.sha256(struct.pack("<II", seed, n)).digest() for n in range(-(-size // 32)))
    return b"".join(blocks)[:size]


def write_sample_project(
    folder: Path,
    target: Target,
    *,
    app_size: int = 200_000,
    bootloader_size: int = 20_000,
    flash_size: str = "4MB",
) -> Path:
    """Write a project as ESP-IDF leaves it after a build.

    Returns:
        Path of the build folder.
    """
    build = folder / "build"
    chip_id = target.firmware.chip_id
    app = app_description("hello_world", "1.0.0", "v5.5.1") + _noise(app_size, 2)
    files = {
        f"{target.firmware.bootloader_offset:#x}": (
            "bootloader",
            "bootloader/bootloader.bin",
            _noise(bootloader_size, 1),
        ),
        f"{TABLE_OFFSET:#x}": ("partition-table", "partition_table/partition-table.bin", partition_table()),
        f"{APP_OFFSET:#x}": ("app", "hello_world.bin", app),
    }
    sections = {}
    for offset, (section, name, content) in files.items():
        path = build / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if section == "partition-table" else esp_image(chip_id, content))
        sections[section] = {"offset": offset, "file": name, "encrypted": "false"}
    flasher_args = {
        "write_flash_args": ["--flash_mode", "dio", "--flash_size", flash_size, "--flash_freq", "80m"],
        "flash_settings": {"flash_mode": "dio", "flash_size": flash_size, "flash_freq": "80m"},
        "flash_files": {offset: name for offset, (_, name, _) in files.items()},
        **sections,
        "extra_esptool_args": {
            "after": "hard_reset",
            "before": "default_reset",
            "stub": True,
            "chip": target.name,
        },
    }
    description = {
        "version": "1.3",
        "project_name": "hello_world",
        "project_version": "1.0.0",
        "project_path": str(folder),
        "build_dir": str(build),
        "config_file": str(folder / "sdkconfig"),
        "target": target.name,
    }
    (build / "flasher_args.json").write_text(json.dumps(flasher_args, indent=4), encoding="utf-8")
    (build / "project_description.json").write_text(json.dumps(description, indent=4), encoding="utf-8")
    (folder / "sdkconfig").write_text(
        f'CONFIG_IDF_TARGET="{target.name}"\nCONFIG_ESPTOOLPY_FLASHSIZE="{flash_size}"\n', encoding="utf-8"
    )
    return build
