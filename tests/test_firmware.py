"""ESP images: whose, and intact?"""

from __future__ import annotations

import functools
import operator
import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from esp_dfu_ext.image.esp_image import AppDescription, read_firmware, xor_of

from .kit.archives import pattern
from .kit.files import write_file
from .kit.projects import app_description, esp_image


def read(folder: Path, data: bytes) -> tuple[bool, int | None, str, AppDescription | None]:
    return tuple(read_firmware(write_file(folder / "app.bin", data)))  # type: ignore[return-value]


@pytest.mark.parametrize("chip_id", [0, 2, 5, 9, 18, 32, 0xFFFF])
@pytest.mark.parametrize("sha256", [True, False])
def test_a_sound_image_is_read_for_every_chip(chip_id: int, sha256: bool, tmp_path: Path) -> None:
    assert read(tmp_path, esp_image(chip_id, sha256=sha256)) == (True, chip_id, "", None)


@pytest.mark.parametrize("size", [0, 1, 3, 7, 8, 14, 15, 16, 65535, 65536, 65537, 200000])
def test_every_length_of_the_last_segment_is_read(size: int, tmp_path: Path) -> None:
    assert read(tmp_path, esp_image(9, [b"1234", pattern(size, 7)]))[2] == ""


def test_an_app_says_what_it_is(tmp_path: Path) -> None:
    app = app_description("hello-world", "v1.2-3-gabc-dirty", "v6.1-beta1")
    assert read(tmp_path, esp_image(app=app))[3] == AppDescription("hello-world", "v1.2-3-gabc-dirty", "v6.1-beta1")


@pytest.mark.parametrize(
    ("name", "shown"), [("n" * 32, "n" * 32), ("", ""), ("a\x1b[31mb\n", "a?[31mb?"), ("žluť", "žluť")]
)
def test_what_an_app_says_is_safe_for_a_terminal(name: str, shown: str, tmp_path: Path) -> None:
    app = read(tmp_path, esp_image(app=app_description(name, "1")))[3]
    assert app is not None and app.project == shown


def test_text_that_is_no_utf_8_is_shown_as_far_as_it_goes(tmp_path: Path) -> None:
    data = bytearray(app_description("abc", "1"))
    data[48 + 1] = 0xFF
    app = read(tmp_path, esp_image(app=bytes(data)))[3]
    assert app is not None and app.project == "a\ufffdc"


def test_another_magic_is_no_app_description(tmp_path: Path) -> None:
    data = bytearray(app_description("abc", "1"))
    data[0] ^= 1
    assert read(tmp_path, esp_image(app=bytes(data)))[3] is None


@pytest.mark.parametrize("data", [b"", b"\x00", b"\xaa\x50" * 600, b"\xff" * 8192])
def test_what_is_no_esp_image_is_only_that(data: bytes, tmp_path: Path) -> None:
    assert read(tmp_path, data) == (False, None, "", None)


def test_a_wrong_checksum_is_said_with_both_values(tmp_path: Path) -> None:
    right = esp_image(sha256=False)
    report = read(tmp_path, esp_image(sha256=False, checksum_error=0x55))
    assert report[2] == f"its checksum is {right[-1] ^ 0x55:#04x}, that of its content {right[-1]:#04x}"


@pytest.mark.parametrize("offset", [40, 200, -33, -32, -1])
def test_a_flipped_bit_behind_the_headers_is_noticed(offset: int, tmp_path: Path) -> None:
    data = bytearray(esp_image())
    data[offset] ^= 1
    assert read(tmp_path, bytes(data))[2] != ""


def test_a_flipped_bit_in_the_header_is_noticed_by_the_hash(tmp_path: Path) -> None:
    data = bytearray(esp_image())
    data[5] ^= 1
    assert "SHA-256" in read(tmp_path, bytes(data))[2]


WHOLE = esp_image(app=app_description("a", "1"))


@pytest.mark.parametrize("length", [1, 4, 8, 13, 14, 23, 24, 27, 31, 32, 100, len(WHOLE) - 33, len(WHOLE) - 1])
def test_an_image_that_was_cut_short_is_damaged(length: int, tmp_path: Path) -> None:
    is_image, chip_id, problem, _ = read(tmp_path, WHOLE[:length])
    assert is_image and problem
    assert chip_id == (9 if length >= 14 else None)


@pytest.mark.parametrize(("told", "missing"), [(101, 1), (0x12345, 0x12345 - 100), (0xFFFFFFFF, 0xFFFFFFFF - 100)])
def test_a_segment_that_ends_early_is_said_with_what_is_missing(told: int, missing: int, tmp_path: Path) -> None:
    header = esp_image(9, [b""])[:24]
    assert f" {missing} bytes" in read(tmp_path, header + struct.pack("<II", 0x3FC90000, told) + bytes(100))[2]


def test_what_follows_an_image_is_not_looked_at(tmp_path: Path) -> None:
    """Signatures and padding stand there."""
    assert read(tmp_path, WHOLE + b"\xff" * 4096)[2] == ""


def test_nothing_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for data in (esp_image(2), esp_image(9, checksum_error=1), WHOLE[:100]):
        read(tmp_path, data)
    assert capsys.readouterr() == ("", "")


def test_memory_does_not_grow_with_the_image(tmp_path: Path) -> None:
    def peak(size: int) -> int:
        path = write_file(tmp_path / "app.bin", esp_image(9, [bytes(1024), *[bytes(size // 4)] * 4]))
        tracemalloc.start()
        try:
            assert read_firmware(path).problem == ""
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1024)
    assert peak(1 << 19) < 1.5 * peak(1 << 17)


def test_a_file_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_firmware(tmp_path / "app.bin")


@settings(deadline=None, max_examples=80)
@given(st.binary(max_size=300))
def test_the_checksum_is_the_xor_of_all_bytes(data: bytes) -> None:
    assert xor_of(data) == functools.reduce(operator.xor, data, 0)


@settings(deadline=None, max_examples=80)
@given(st.binary(max_size=200), st.integers(0, 300), st.binary(max_size=8))
@example(b"", 24, b"\xff" * 8)
def test_no_bytes_crash_the_reader(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, at: int, patch: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.bin"
    path.write_bytes(b"\xe9" + data)
    report = read_firmware(path)
    assert report.is_esp_image
    path.write_bytes(b"\xe9" + WHOLE[1 : at + 1] + patch + WHOLE[at + 1 + len(patch) :])
    report = read_firmware(path)
    assert report.is_esp_image and report.chip_id is not None
