"""ESP images, checked with esptool's reader: which chip they are for, whether they are intact, which app they hold."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from ..units import clean

ESP_IMAGE_MAGIC = 0xE9
_CHIP_ID_OFFSET = 12  # esp_image_header_t, ESP-IDF, esp_app_format.h
# Offset of esp_app_desc_t in an app: after the image header and the first segment header; ESP-IDF, esp_app_desc.h.
_APP_DESC_OFFSET = 32
_APP_DESC = struct.Struct("<I12x32s32s16s16s32s32s")
_APP_DESC_MAGIC = 0xABCD5432
_CONFIGURATION = "ESPTOOL_CFGFILE"  # names esptool's configuration file
_IMPORTING = threading.RLock()  # boards that are flashed at once share the environment
_MOST_SEGMENTS = 16
_XOR_BLOCK = 1 << 14  # bytes, a power of two
_HEADER, _SEGMENT_HEADER, _SHA256 = 24, 8, 32  # bytes; ESP-IDF, esp_app_format.h
_FLASH_SIZE_OFFSET, _HASHED_OFFSET = 3, 23
_SIGNATURE_SECTOR, _SIGNATURE_BLOCK = 4096, b"\xe7\x02"  # magic byte, version; ESP-IDF, secure_boot.h
_LARGEST_FLASH = 7  # 1 MiB << 7; ESP-IDF, esp_image_flash_size_t


class AppDescription(NamedTuple):
    """Part of esp_app_desc_t; `date` and `time` of its build, as the compiler writes them, may be empty."""

    project: str
    version: str
    idf_version: str
    date: str = ""
    time: str = ""

    @property
    def built(self) -> str:
        """Date and time of the build; empty if the app does not say it."""
        return " ".join(f"{self.date} {self.time}".split())

    def __str__(self) -> str:
        built = f", built {self.built}" if self.built else ""
        return f"{self.project} {self.version} (ESP-IDF {self.idf_version}{built})"


class EspImage(NamedTuple):
    """What an ESP image says about itself, and what is wrong with it.

    Attributes:
        chip_id: Chip ID from the header, None if the file ends before it.
        problem: What is damaged, empty if nothing is.
        app: The app description, None if there is none.
    """

    chip_id: int | None
    problem: str
    app: AppDescription | None


class EspHeader(NamedTuple):
    """What the first bytes of an ESP image say.

    Attributes:
        chip_id: Chip ID.
        flash_size: Bytes of flash memory that it was built for, None if the field is invalid.
    """

    chip_id: int
    flash_size: int | None


def read_header(data: bytes | memoryview) -> EspHeader | None:
    """Return what an ESP image's header says; None if the data does not start like one."""
    if len(data) < _HEADER or data[0] != ESP_IMAGE_MAGIC:
        return None
    size = data[_FLASH_SIZE_OFFSET] >> 4
    chip_id = int.from_bytes(data[_CHIP_ID_OFFSET : _CHIP_ID_OFFSET + 2], "little")
    return EspHeader(chip_id, 1 << 20 << size if size <= _LARGEST_FLASH else None)


def image_length(data: bytes | memoryview) -> int | None:
    """Return the bytes from an ESP image's header to the end of its checksum and hash; None if it is cut off."""
    if read_header(data) is None:
        return None
    end = _HEADER
    for _ in range(data[1]):
        length = data[end + 4 : end + _SEGMENT_HEADER]
        if len(length) < 4:
            return None
        end += _SEGMENT_HEADER + int.from_bytes(length, "little")
    end = (end | 15) + 1 + (_SHA256 if data[_HASHED_OFFSET] == 1 else 0)
    return end if end <= len(data) else None


def is_signed(data: bytes | memoryview) -> bool:
    """Tell whether an ESP image is followed by the signature sector of Secure Boot V2, where a ROM looks for it."""
    length = image_length(data)
    if length is None:
        return False
    start = -(-length // _SIGNATURE_SECTOR) * _SIGNATURE_SECTOR
    return bytes(data[start : start + 2]) == _SIGNATURE_BLOCK


def read_esp_image(data: bytes) -> EspImage | None:
    """Check header, segments, checksum and hash of a file; None if it does not start like an ESP image."""
    if not data or data[0] != ESP_IMAGE_MAGIC:
        return None
    field = data[_CHIP_ID_OFFSET : _CHIP_ID_OFFSET + 2]
    chip_id = int.from_bytes(field, "little") if len(field) == 2 else None
    problem = "" if _is_sound(data) else _problem(data, chip_id)
    return EspImage(chip_id, problem, app_description(data))


def _is_sound(data: bytes) -> bool:
    """Return whether checksum and SHA-256 are right; of other images, esptool says whether and why they are damaged.

    Most images are sound, and importing esptool takes a third of a second.
    """
    if len(data) < _HEADER or data[_HASHED_OFFSET] != 1 or not 0 < data[1] <= _MOST_SEGMENTS:
        return False
    checksum, end = 0xEF, _HEADER
    for _ in range(data[1]):
        start = end + _SEGMENT_HEADER
        size = int.from_bytes(data[start - 4 : start], "little")
        end = start + size
        if end > len(data):
            return False
        checksum ^= xor_of(data[start:end])
    end = (end | 15) + 1  # the checksum is the last byte of a line of 16
    digest = data[end : end + _SHA256]
    return data[end - 1 : end] == bytes([checksum]) and digest == hashlib.sha256(data[:end]).digest()


@contextmanager
def own_configuration() -> Iterator[None]:
    """Have esptool read our configuration file while it is imported.

    Otherwise it reads esptool.cfg, setup.cfg and tox.ini of the current folder, which may be a stranger's project: a
    wrong number there ends the import with a traceback, and a pipe never ends it.
    """
    with _IMPORTING:
        before = os.environ.get(_CONFIGURATION)
        os.environ[_CONFIGURATION] = str(Path(__file__).with_name("esptool.cfg"))
        try:
            yield
        finally:
            del os.environ[_CONFIGURATION]
            if before is not None:
                os.environ[_CONFIGURATION] = before


def _problem(data: bytes, chip_id: int | None) -> str:
    # Imported here: it takes a third of a second, and most commands do not need it.
    with own_configuration():
        from esptool.bin_image import ESP32FirmwareImage
        from esptool.loader import ESPLoader
        from esptool.util import FatalError

    # All chips share the ESP32's format. esptool 4 prints a warning if the chip ID is not that of the reader's chip.
    chip = type("AnyChip", (ESPLoader,), {"IMAGE_CHIP_ID": chip_id})
    reader = type("Image", (ESP32FirmwareImage,), {"ROM_LOADER": chip})
    try:
        image = reader(io.BytesIO(data))
    except (FatalError, RuntimeError) as error:
        return _said(error)
    except (struct.error, TypeError):  # esptool reads headers and checksum without looking for the end of the file
        return "it ends too early"
    checksum = ESPLoader.ESP_CHECKSUM_MAGIC
    for segment in image.segments:
        checksum ^= xor_of(segment.data)
    if image.checksum != checksum:
        return f"its checksum is {image.checksum:#04x}, but that of its content is {checksum:#04x}"
    if image.append_digest and image.stored_digest != image.calc_digest:
        return "the SHA-256 at its end does not match its content"
    return ""


def _said(error: Exception) -> str:
    """Return the message of one of esptool's errors, some of which hold a format and its values."""
    text, *values = error.args or ("",)
    with suppress(TypeError, ValueError):
        return str(text % tuple(values) if values else text).rstrip(".")
    return str(error).rstrip(".")


def xor_of(data: bytes) -> int:
    """XOR all bytes: the checksum of ESP images, without a Python loop over each byte as in esptool."""
    value, length = 0, _XOR_BLOCK
    for start in range(0, len(data), length):
        value ^= int.from_bytes(data[start : start + length], "little")
    while length > 1:
        length //= 2
        value ^= value >> (8 * length)
    return value & 0xFF


def app_description(image: bytes | memoryview) -> AppDescription | None:
    """Return what an app's image says about the app, or None if it is not an app."""
    data = bytes(image[_APP_DESC_OFFSET : _APP_DESC_OFFSET + _APP_DESC.size])
    if len(data) < _APP_DESC.size or image[0] != ESP_IMAGE_MAGIC:
        return None
    magic, version, project, time, date, idf_version, _sha = _APP_DESC.unpack(data)
    if magic != _APP_DESC_MAGIC:
        return None
    return AppDescription(_text(project), _text(version), _text(idf_version), _text(date), _text(time))


def app_of_chip(data: bytes | memoryview, chip_id: int) -> AppDescription | None:
    """Return what an app says about itself if it is for this chip: data may hold the app of another one."""
    header = read_header(data)
    return app_description(data) if header is not None and header.chip_id == chip_id else None


def _text(field: bytes) -> str:
    return clean(field.partition(b"\0")[0].decode("utf-8", "replace"))
