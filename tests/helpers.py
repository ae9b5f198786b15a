"""What several tests need: files with known bytes, ESP images, project folders, a DFU image by hand, and TAB."""

from __future__ import annotations

import hashlib
import json
import shlex
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from esp_dfu_ext.cli import cli
from esp_dfu_ext.events import Event, Notice
from esp_dfu_ext.target import Target, load_target

BOOTLOADER_OFFSET = {"esp32s2": 0x1000, "esp32s3": 0x0, "esp32p4": 0x2000, "esp32s31": 0x2000}
CHIP_ID = {"esp32s2": 2, "esp32s3": 9, "esp32p4": 18, "esp32s31": 32}
S3 = load_target("esp32s3")


def pattern(size: int, step: int) -> bytes:
    """`size` bytes that differ from page to page; the golden images are made of them."""
    return bytes((i * step + (i >> 8)) % 251 for i in range(size))


def write_file(path: Path, data: bytes) -> Path:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def sparse_file(path: Path, size: int) -> Path:
    """A file of zeros that takes neither space nor time."""
    with path.open("wb") as file:
        file.truncate(size)
    return path


def notices(events: Sequence[Event]) -> dict[str, str]:
    """Message of each notice, by its code."""
    return {event.code: event.message for event in events if isinstance(event, Notice)}


def forbid(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """This user may not look at a file or a folder and what is below; root, who may, cannot try it otherwise."""

    def refusing(function: Any) -> Any:
        def refuse(path: Path, *args: Any, **kwargs: Any) -> Any:
            if folder in (path, *path.parents):
                raise PermissionError(13, "Permission denied", str(path))
            return function(path, *args, **kwargs)

        return refuse

    for name in ("stat", "iterdir", "open"):
        monkeypatch.setattr(Path, name, refusing(getattr(Path, name)))


TAB_BOARDS = "esp32s3,esp32s2,esp32p4+no-access,303a:1001"


def complete(monkeypatch: pytest.MonkeyPatch, words: str, boards: str = TAB_BOARDS) -> list[str]:
    """What is offered for the last of the words, with its description."""
    monkeypatch.setenv("ESP_DFU_SIMULATE", boards)
    count = len(shlex.split(words)) - (not words.endswith(" "))
    env = {"_ESP_DFU_COMPLETE": "zsh_complete", "COMP_WORDS": words, "COMP_CWORD": str(count)}
    done = CliRunner().invoke(cli, [], env=env, prog_name="esp-dfu")
    assert done.stderr_bytes in (None, b"")
    assert done.exception is None or isinstance(done.exception, SystemExit)
    lines = done.stdout.replace("\\:", ":").splitlines()
    return [f"{value}: {text}" if kind == "plain" else kind for kind, value, text in zip(*[iter(lines)] * 3)]


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


def write_json(path: Path, data: object) -> None:
    """Write a JSON file and the folders above it."""
    write_file(path, json.dumps(data, indent=4).encode())


def edit_json(path: Path, **changes: object) -> None:
    """Change keys of a JSON object on disk; None takes a key out."""
    data = {**json.loads(path.read_text()), **changes}
    write_json(path, {key: value for key, value in data.items() if value is not None})


# --- DFU images, by hand ----------------------------------------------------------------------------------


def _fill(data: bytes, multiple: int) -> bytes:
    return data + bytes(-len(data) % multiple)


def cpio_member(name: str | bytes, data: bytes, *, mode: int = 0o100644, links: int = 0) -> bytes:
    """One member of a "newc" archive, written down from cpio(5)."""
    raw = (name.encode() if isinstance(name, str) else name) + b"\0"
    head = b"070701" + ("%08X" * 13 % (0, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(raw), 0)).lower().encode()
    return _fill(head + raw, 4) + _fill(data, 4)


def index_record(address: int, name: str | bytes, data: bytes, flags: int = 0) -> bytes:
    """One record of dfuinfo0.dat: address, flags, name, MD5."""
    raw = name.encode() if isinstance(name, str) else name
    digest = hashlib.md5(data, usedforsecurity=False).digest()
    return address.to_bytes(4, "little") + flags.to_bytes(4, "little") + raw.ljust(64, b"\0") + digest


def flash_params(chip_size: int = 4 << 20) -> bytes:
    """flash_params.dat, eight words."""
    return b"".join(v.to_bytes(4, "little") for v in (0, 0, 0, chip_size, 65536, 4096, 256, 0xFFFF))


def dfu_suffixed(stream: bytes, pid: int = 9, vid: int = 0x303A, multiple: int = 10240) -> bytes:
    """Pad a stream and put a DFU suffix behind it."""
    body = _fill(stream, multiple) + struct.pack("<HHHH3sB", 0xFFFF, pid, vid, 0x100, b"UFD", 16)
    return body + struct.pack("<I", ~zlib.crc32(body) & 0xFFFFFFFF)


TRAILER_MEMBER = cpio_member("TRAILER!!!", b"", mode=0, links=1)
FLASH_PARAMS_FLAGS = 4 | 8 | 16


def dfu_image(
    files: Sequence[tuple[str, int, bytes]], *, pid: int = 9, vid: int = 0x303A, chip_size: int = 4 << 20
) -> bytes:
    """A whole dfu.bin of files (name, address, content) that are cut already."""
    params = flash_params(chip_size)
    index = index_record(0, "flash_params.dat", params, FLASH_PARAMS_FLAGS)
    index += b"".join(index_record(address, name, data) for name, address, data in files)
    stream = cpio_member("dfuinfo0.dat", index) + cpio_member("flash_params.dat", params)
    stream += b"".join(cpio_member(name, data) for name, _, data in files)
    return dfu_suffixed(stream + TRAILER_MEMBER, pid, vid)


def target_by_pid(pid: int) -> Target:
    """The chip whose ROM has this PID."""
    name = next(name for name, chip_id in CHIP_ID.items() if chip_id == pid)
    return load_target(name)
