"""ESP images, read with esptool: made for this chip, and intact? And what the app says of itself."""

from __future__ import annotations

import contextlib
import hashlib
import io
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..units import clean

ESP_IMAGE_MAGIC = 0xE9
_CHIP_ID_OFFSET = 12  # esp_image_header_t, ESP-IDF, esp_app_format.h
# Where esp_app_desc_t lies in an app: behind image header and first segment header; ESP-IDF, esp_app_desc.h.
_APP_DESC_OFFSET = 32
_APP_DESC = struct.Struct("<I12x32s32s16s16s32s32s")
_APP_DESC_MAGIC = 0xABCD5432
_CHUNK = 1 << 16


class AppDescription(NamedTuple):
    """Part of esp_app_desc_t."""

    project: str
    version: str
    idf_version: str


class FirmwareReport(NamedTuple):
    """What esptool's reader says of a file.

    Attributes:
        is_esp_image: it starts with the magic byte.
        chip_id: of the header; None if it is no ESP image or ends before.
        problem: what is broken, empty if nothing is.
        app: the app descriptor; None if it has none.
    """

    is_esp_image: bool
    chip_id: int | None
    problem: str
    app: AppDescription | None


def read_firmware(path: Path) -> FirmwareReport:
    """Read one file's header, segments, checksum and hash; memory does not grow with the file.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        if file.read(1) != bytes([ESP_IMAGE_MAGIC]):
            return FirmwareReport(False, None, "", None)
        file.seek(0)
        header = file.read(_APP_DESC_OFFSET + _APP_DESC.size)
        app = app_description(header)
        header = header[: _CHIP_ID_OFFSET + 2]
        chip_id = int.from_bytes(header[_CHIP_ID_OFFSET:], "little") if len(header) == _CHIP_ID_OFFSET + 2 else None
        file.seek(0)
        return FirmwareReport(True, chip_id, _problem_with_esptool(file), app)


def _problem_with_esptool(file: BinaryIO) -> str:
    # Imported here: it takes a third of a second, and dfu-list has no need of it.
    from esptool.bin_image import ESP32FirmwareImage
    from esptool.util import FatalError

    class StreamedImage(ESP32FirmwareImage):  # type: ignore[misc]
        """esptool's reader, which keeps a segment's checksum and not its bytes."""

        calculated = 0xEF  # ESPLoader.ESP_CHECKSUM_MAGIC
        has_digest: bool
        append_digest: bool

        def load_extended_header(self, f: BinaryIO) -> None:
            super().load_extended_header(f)
            # Set here it would make the reader take the whole file into memory for the SHA-256.
            self.has_digest, self.append_digest = self.append_digest, False

        def load_segment(self, f: BinaryIO, *_: object) -> None:
            _address, size = struct.unpack("<II", f.read(8))
            left = size
            while left:
                chunk = f.read(min(left, _CHUNK))
                if not chunk:
                    raise FatalError(f"it ends {left} bytes before its last segment does")
                self.calculated ^= xor_of(chunk)
                left -= len(chunk)

    try:
        # All chips share the format of the ESP32; that the chip id differs is said on stdout, and ours to judge.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            image = StreamedImage(file)
    except (FatalError, RuntimeError) as error:
        return str(error)
    except (struct.error, TypeError):
        # esptool 4 and 5 read headers and checksum without looking for the end of the file.
        return "it ends too early"
    if image.checksum != image.calculated:
        return f"its checksum is {image.checksum:#04x}, that of its content {image.calculated:#04x}"
    end = file.tell()
    if image.has_digest and file.read(32) != _sha256(file, end):
        return "the SHA-256 at its end is not that of its content"
    return ""


def xor_of(data: bytes) -> int:
    """All bytes XORed together: the checksum of ESP images, without a Python loop over each byte."""
    value, length = int.from_bytes(data, "little"), len(data)
    while length > 1:
        half = (length + 1) // 2
        value = (value >> (8 * half)) ^ (value & ((1 << (8 * half)) - 1))
        length = half
    return value


def _sha256(file: BinaryIO, size: int) -> bytes:
    digest = hashlib.sha256()
    file.seek(0)
    while size:
        chunk = file.read(min(size, _CHUNK))
        digest.update(chunk)
        size -= len(chunk)
    return digest.digest()


def app_description(image: bytes | memoryview) -> AppDescription | None:
    """What an app's image says of the app; None if it is no app."""
    data = bytes(image[_APP_DESC_OFFSET : _APP_DESC_OFFSET + _APP_DESC.size])
    if len(data) < _APP_DESC.size or image[0] != ESP_IMAGE_MAGIC:
        return None
    magic, version, project, _time, _date, idf_version, _sha = _APP_DESC.unpack(data)
    if magic != _APP_DESC_MAGIC:
        return None
    return AppDescription(_text(project), _text(version), _text(idf_version))


def _text(field: bytes) -> str:
    return clean(field.partition(b"\0")[0].decode("utf-8", "replace"))
