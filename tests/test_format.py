"""Reading a dfu.bin: what it holds, and what is refused."""

from __future__ import annotations

import hashlib
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esp_dfu_ext.errors import ImageError, InputMissingError
from esp_dfu_ext.image import format as format_module
from esp_dfu_ext.image.format import FlashParams, parse_image, read_image

from .kit.archives import TRAILER, File, cpio_member, dfu_file, dfu_image, flash_params, index_record
from .kit.files import sparse_file, write_file

SMALL = dfu_image([File(0x1000, "a.bin", b"abcdefg"), File(0x2000, "b.bin", b"xyz")])
PARAMS = cpio_member("flash_params.dat", flash_params())
ONE = cpio_member("dfuinfo0.dat", index_record(0, "a.bin", b"abc")) + cpio_member("a.bin", b"abc")


def test_flash_params_are_eight_words() -> None:
    params = FlashParams(8 << 20, 65536, 4096, 256, 0xFFFF)
    encoded = params.encode()
    assert encoded.hex() == "000000000000000000000000000080000000010000100000" + "00010000ffff0000"
    assert FlashParams.decode(encoded) == params


def test_flash_params_of_wrong_length_are_refused() -> None:
    with pytest.raises(ImageError, match="31 bytes instead of 32"):
        FlashParams.decode(bytes(31))


@pytest.mark.parametrize("offset", [*range(0, 640, 7), *range(len(SMALL) - 16, len(SMALL))])
def test_any_flipped_bit_is_detected(offset: int) -> None:
    data = bytearray(SMALL)
    data[offset] ^= 0x10
    with pytest.raises(ImageError):
        parse_image(bytes(data))


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 100, len(SMALL) - 16, len(SMALL) - 1])
def test_truncated_file_is_detected(length: int) -> None:
    with pytest.raises(ImageError):
        parse_image(SMALL[:length])


def test_archive_without_padding_is_read() -> None:
    data = dfu_file(ONE + TRAILER, multiple=1)
    image = parse_image(data)
    assert image.sha256 == hashlib.sha256(data).hexdigest()
    assert bytes(image.stream) == ONE + TRAILER
    assert [bytes(member.data) for member in image.members] == [b"abc"]
    assert image.flash_params is None


def test_first_record_of_name_is_used() -> None:
    index = index_record(0x1000, "a", b"1") + index_record(0x2000, "a", b"1")
    image = parse_image(dfu_file(cpio_member("dfuinfo0.dat", index) + cpio_member("a", b"1") + TRAILER))
    record = image.members[0].record
    assert record is not None and record.address == 0x1000


def test_index_after_other_members_is_read() -> None:
    index = cpio_member("dfuinfo0.dat", index_record(0, "a.bin", b"abc"))
    image = parse_image(dfu_file(cpio_member("a.bin", b"abc") + index + TRAILER))
    assert not image.index_first
    assert [record.name for record in image.records] == ["a.bin"]


def test_unreadable_file_is_reported_with_reason(tmp_path: Path) -> None:
    write_file(tmp_path / "file", b"")
    reasons = {
        tmp_path / "dfu.bin": "missing",
        tmp_path / "file" / "dfu.bin": "missing",
        tmp_path: "no-file",
        tmp_path / ("a" * 5000): "failed",
    }
    for path, reason in reasons.items():
        with pytest.raises(InputMissingError) as caught:
            read_image(path)
        assert (caught.value.path, caught.value.role, caught.value.reason) == (path, "dfu.bin", reason)
        assert str(path) in caught.value.message


def test_large_file_is_not_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format_module, "MAX_FILE_SIZE", 1000)
    with pytest.raises(ImageError, match="not end with a DFU suffix"):
        read_image(sparse_file(tmp_path / "just.bin", 1000))
    path = sparse_file(tmp_path / "disk.img", 8 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match="more than 1000 bytes; no DFU image is that large"):
            read_image(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


names = st.text("abž.-_ 0", min_size=1, max_size=12)
contents = st.binary(min_size=1, max_size=200)
members = st.one_of(
    st.builds(cpio_member, st.sampled_from(["dfuinfo0.dat", "a", "TRAILER!!!"]) | names, st.binary(max_size=180)),
    st.builds(
        lambda records: cpio_member("dfuinfo0.dat", b"".join(records)),
        st.lists(st.builds(index_record, st.integers(0, 0xFFFFFFFF), st.binary(max_size=64), contents), max_size=3),
    ),
    st.just(PARAMS),
    st.just(TRAILER),
    st.binary(max_size=130),
)


def _is_parsed_or_refused(data: bytes) -> None:
    try:
        image = parse_image(data)
    except ImageError:
        return
    assert len(image.stream) <= len(data) - 16
    for member in image.members:
        assert image.stream[member.offset : member.offset + len(member.data)] == member.data


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=400))
def test_parser_survives_any_bytes(data: bytes) -> None:
    _is_parsed_or_refused(data)
    _is_parsed_or_refused(dfu_file(data, multiple=1))


@settings(deadline=None, max_examples=150)
@given(st.lists(members, max_size=5), st.data())
def test_parser_survives_any_archive(pieces: list[bytes], draw: st.DataObject) -> None:
    stream = b"".join([*pieces, TRAILER])
    at = draw.draw(st.integers(0, len(stream) - 1))
    _is_parsed_or_refused(dfu_file(stream, multiple=1))
    _is_parsed_or_refused(dfu_file(stream[:at] + draw.draw(st.binary(max_size=4)) + stream[at:], multiple=1))
