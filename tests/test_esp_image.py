"""ESP images: the chip they are for, whether they are intact, and the app they hold."""

from __future__ import annotations

import functools
import io
import operator
import struct
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from esp_dfu_ext.image.esp_image import AppDescription, EspImage, _is_sound, _problem, read_esp_image, xor_of

from .kit.archives import pattern
from .kit.projects import app_description, esp_image

SIZES = st.lists(st.integers(0, 60), min_size=1, max_size=3)  # bytes of each segment


def read(data: bytes) -> EspImage:
    image = read_esp_image(data)
    assert image is not None
    return image


@pytest.mark.parametrize("chip_id", [0, 2, 5, 9, 18, 32, 0xFFFF])
@pytest.mark.parametrize("sha256", [True, False])
def test_intact_image_of_any_chip_has_no_problem(chip_id: int, sha256: bool) -> None:
    assert read(esp_image(chip_id, sha256=sha256)) == (chip_id, "", None)


@pytest.mark.parametrize("size", [0, 1, 3, 7, 8, 14, 15, 16, 65535, 65536, 65537, 200000])
def test_last_segment_may_have_any_length(size: int) -> None:
    assert read(esp_image(9, [b"1234", pattern(size, 7)])).problem == ""


def test_app_description_is_read() -> None:
    app = app_description("hello-world", "v1.2-3-gabc-dirty", "v6.1-beta1")
    expected = AppDescription("hello-world", "v1.2-3-gabc-dirty", "v6.1-beta1", "Jul  1 2026", "12:34:56")
    assert read(esp_image(app=app)).app == expected
    assert str(expected) == "hello-world v1.2-3-gabc-dirty (ESP-IDF v6.1-beta1, built Jul 1 2026 12:34:56)"
    assert str(expected._replace(date="", time="")) == "hello-world v1.2-3-gabc-dirty (ESP-IDF v6.1-beta1)"


@pytest.mark.parametrize(
    ("name", "shown"), [("n" * 32, "n" * 32), ("", ""), ("a\x1b[31mb\n", "a?[31mb?"), ("žluť", "žluť")]
)
def test_app_description_is_cleaned_for_terminals(name: str, shown: str) -> None:
    app = read(esp_image(app=app_description(name, "1"))).app
    assert app is not None and app.project == shown


def test_invalid_utf_8_is_replaced() -> None:
    data = bytearray(app_description("abc", "1"))
    data[48 + 1] = 0xFF
    app = read(esp_image(app=bytes(data))).app
    assert app is not None and app.project == "a\ufffdc"


def test_wrong_magic_is_not_app_description() -> None:
    data = bytearray(app_description("abc", "1"))
    data[0] ^= 1
    assert read(esp_image(app=bytes(data))).app is None


@pytest.mark.parametrize("data", [b"", b"\x00", b"\xaa\x50" * 600, b"\xff" * 8192])
def test_other_files_are_not_esp_images(data: bytes) -> None:
    assert read_esp_image(data) is None


def test_wrong_checksum_is_reported_with_both_values() -> None:
    right = esp_image(sha256=False)
    problem = read(esp_image(sha256=False, checksum_error=0x55)).problem
    assert problem == f"its checksum is {right[-1] ^ 0x55:#04x}, but that of its content is {right[-1]:#04x}"


@pytest.mark.parametrize("offset", [40, 200, -33, -32, -1])
def test_flipped_bit_after_headers_is_detected(offset: int) -> None:
    data = bytearray(esp_image())
    data[offset] ^= 1
    assert read(bytes(data)).problem != ""


def test_flipped_bit_in_header_fails_hash() -> None:
    data = bytearray(esp_image())
    data[5] ^= 1
    assert "SHA-256" in read(bytes(data)).problem


WHOLE = esp_image(app=app_description("a", "1"))


@pytest.mark.parametrize("length", [1, 4, 8, 13, 14, 23, 24, 27, 31, 32, 100, len(WHOLE) - 33, len(WHOLE) - 1])
def test_truncated_image_is_damaged(length: int) -> None:
    image = read(WHOLE[:length])
    assert image.problem
    assert image.chip_id == (9 if length >= 14 else None)


@pytest.mark.parametrize("claimed", [101, 0x12345, 0xFFFFFFFF])
def test_truncated_segment_is_reported_with_both_lengths(claimed: int) -> None:
    header = esp_image(9, [b""])[:24]
    problem = read(header + struct.pack("<II", 0x3FC90000, claimed) + bytes(100)).problem
    assert f"length {claimed} (actual length 100)" in problem


def test_bytes_after_image_are_ignored() -> None:
    """Signatures and padding follow it."""
    assert read(WHOLE + b"\xff" * 4096).problem == ""


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    for data in (esp_image(2), esp_image(9, checksum_error=1), esp_image(9, [bytes(100_000)]), WHOLE[:100]):
        read(data)
    assert capsys.readouterr() == ("", "")


def test_output_of_other_threads_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = sys.stdout, sys.stderr
    seen = []

    class Watched(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            seen.append((sys.stdout, sys.stderr))
            return super().read(size)

    monkeypatch.setattr("esp_dfu_ext.image.esp_image.io.BytesIO", Watched)
    assert read(WHOLE[:-1]).problem  # esptool reads only what is damaged
    assert seen and set(seen) == {streams}


@settings(deadline=None, max_examples=80)
@given(st.binary(max_size=300))
@example(pattern((1 << 14) + 1, 7))
@example(pattern(50000, 7))
def test_xor_of_all_bytes(data: bytes) -> None:
    assert xor_of(data) == functools.reduce(operator.xor, data, 0)


@settings(deadline=None, max_examples=80)
@given(st.binary(max_size=200), st.integers(0, 300), st.binary(max_size=8))
@example(b"", 24, b"\xff" * 8)
def test_reader_survives_any_bytes(data: bytes, at: int, patch: bytes) -> None:
    read(b"\xe9" + data)
    assert read(b"\xe9" + WHOLE[1 : at + 1] + patch + WHOLE[at + 1 + len(patch) :]).chip_id is not None


@given(st.data())
def test_quick_check_and_esptool_agree(data: st.DataObject) -> None:
    image = bytearray(esp_image(data.draw(st.sampled_from([2, 9])), [b"x" * n for n in data.draw(SIZES)]))
    for _ in range(data.draw(st.integers(0, 2))):
        image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
    image = image[: data.draw(st.integers(24, len(image) + 1))] + data.draw(st.binary(max_size=20))
    if _is_sound(bytes(image)):
        assert _problem(bytes(image), int.from_bytes(image[12:14], "little")) == ""


def test_sound_image_needs_no_esptool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "esptool", None)
    found = read_esp_image(esp_image(2, app=app_description("hello", "1")))
    assert found is not None
    assert (found.problem, found.chip_id) == ("", 2)
