"""What a file is: told by its contents, not by its name."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import InputMissingError, WrongInputError
from ..image import suffix
from ..image.cpio import MAGIC as CPIO_MAGIC
from ..image.esp_image import ESP_IMAGE_MAGIC, app_description, image_length, read_header
from ..image.partition_table import SECTOR, read_partition_table
from ..target import Target
from ..units import format_size
from .identify import chip_name

LARGEST_FILE = 128 << 20  # bytes, the largest flash memory of any chip
_HEAD = 4096
_RANDOM = 7.8  # bits in a byte; 4 KiB of random bytes have 7.95, code has 6 to 7
_ARCHIVES = {b"PK\3\4": "a ZIP archive", b"\x1f\x8b": "a gzip archive", b"\xfd7zXZ": "an xz archive"}
_ARCHIVES |= {b"BZh": "a bzip2 archive", b"7z\xbc\xaf": "a 7-Zip archive", b"\x28\xb5\x2f\xfd": "a Zstandard archive"}


class Recognised(NamedTuple):
    """What a file is.

    Attributes:
        kind: ``merged``, ``hex``, ``flash_args`` or ``dfu``; or one of `WrongInputError`.
        text: The same for people, such as ``an ELF file``.
        chip: The chip's name, empty if the file does not say.
        base: For a merged image, the flash address that it begins at.
    """

    kind: str
    text: str
    chip: str = ""
    base: int = 0


def read_firmware_file(path: Path) -> bytes:
    """Return the contents of a file that the user named.

    Raises:
        InputMissingError: It does not exist, is not a regular file, or cannot be read.
        WrongInputError: It is larger than any flash memory.
    """
    try:
        if path.exists() and not path.is_file():
            raise InputMissingError(f"{path} is not a regular file.", path=path, role="flash file", reason="no-file")
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError):
            raise InputMissingError.of(error, path, "flash file") from error
        raise InputMissingError(f"{path} does not exist.", path=path, role="flash file") from error
    if len(data) > LARGEST_FILE:
        text = f"{path} is larger than {format_size(LARGEST_FILE)}; no chip has that much flash memory."
        raise WrongInputError(text, path=path, kind="unknown")
    return data


def recognise(data: bytes, targets: Sequence[Target]) -> Recognised:
    """Return what a file is.

    Args:
        data: Its contents.
        targets: Known chips.
    """
    if data[:1] == bytes([ESP_IMAGE_MAGIC]):
        return _esp_image(data, targets)
    for base in sorted({target.firmware.bootloader_offset for target in targets} - {0}):
        header = read_header(data[base : base + _HEAD])
        chip = chip_name(header.chip_id, targets) if header is not None else ""
        if chip and all(target.firmware.bootloader_offset == base for target in targets if target.name == chip):
            return Recognised("merged", f"a merged image for {chip}", chip, 0)
    return _text(data) or _other(data)


def _esp_image(data: bytes, targets: Sequence[Target]) -> Recognised:
    header = read_header(data)
    if header is None:
        return Recognised("unknown", "the start of an ESP image, cut off in its header")
    chip = chip_name(header.chip_id, targets)
    target = next((target for target in targets if target.name == chip), None)
    name = target.chip if target is not None else chip or f"chip ID {header.chip_id}"
    app = app_description(data)
    if app is not None:
        return Recognised("app", f"an app alone ({app.project} {app.version} for {name})", chip)
    length = image_length(data)
    if length is None or not data[-(-length // SECTOR) * SECTOR :].strip(b"\xff"):
        cut = ", cut off" if length is None else ""
        return Recognised("bootloader", f"a single ESP image for {name} that is not an app: a bootloader{cut}", chip)
    return Recognised(
        "merged", f"a merged image for {name}", chip, target.firmware.bootloader_offset if target is not None else 0
    )


def _text(data: bytes) -> Recognised | None:
    """Recognise Intel HEX and the arguments of esptool; both are text."""
    head = data[:_HEAD]
    if head[:1] == b":" and all(line[:1] in (b":", b"") for line in head.split(b"\n")[:-1] or [head]):
        return Recognised("hex", "an Intel HEX file")
    try:
        words = [line.split() for line in head.decode("utf-8").splitlines()]
    except UnicodeDecodeError:
        return None
    if any(len(line) >= 2 and line[0].lower().startswith("0x") for line in words) and data.isascii():
        return Recognised("flash_args", "arguments of esptool")
    return None


def _other(data: bytes) -> Recognised:
    if suffix.has_suffix(data[-suffix.LENGTH :]) or data.startswith(CPIO_MAGIC):
        return Recognised("dfu", "a DFU image already")
    if data.startswith(b"\x7fELF"):
        return Recognised("elf", "an ELF file, the linker's output with debug information")
    if data.startswith(b"UF2\n"):
        return Recognised("uf2", "a UF2 file, for a board that shows itself as a drive")
    if read_partition_table(data):
        return Recognised("table", "a partition table alone")
    for magic, text in _ARCHIVES.items():
        if data.startswith(magic):
            return Recognised("archive", text)
    if not data.strip(b"\xff"):
        return Recognised("unknown", "empty: it holds nothing but FF" if data else "empty")
    head = data.lstrip(b"\xff")[:_HEAD]
    if len(head) == _HEAD and _entropy(head) > _RANDOM:
        return Recognised("encrypted", "encrypted, or compressed: it looks random from its start")
    return Recognised("unknown", "no firmware that esp-dfu knows")


def _entropy(data: bytes) -> float:
    """Return Shannon's entropy in bits for each byte."""
    return -sum(count / len(data) * math.log2(count / len(data)) for count in Counter(data).values())
