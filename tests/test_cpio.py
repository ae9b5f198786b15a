"""CPIO archives, intact and damaged."""

from __future__ import annotations

import pytest

from esp_dfu_ext.errors import ImageError
from esp_dfu_ext.image.format import parse_image

from .kit.archives import TRAILER, cpio_member, dfu_file, index_record


def _header_field(stream: bytes, start: int, field: int, text: bytes) -> bytes:
    at = start + 6 + 8 * field
    return stream[:at] + text + stream[at + 8 :]


ONE = cpio_member("dfuinfo0.dat", index_record(0, "a.bin", b"abc")) + cpio_member("a.bin", b"abc")
MEMBER_AT = len(cpio_member("dfuinfo0.dat", index_record(0, "a.bin", b"abc")))


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (ONE, "No CPIO header found at offset 0x"),
        (ONE + TRAILER[:100], "CPIO header|damaged|ends"),
        (b"\xe9" * 300, "No CPIO header found at offset 0x0"),
        (_header_field(ONE + TRAILER, MEMBER_AT, 6, b"ffffffff"), "4294967295 bytes, but the file ends before"),
        (_header_field(ONE + TRAILER, MEMBER_AT, 6, b"0000 0x1"), f"offset {MEMBER_AT:#x} is damaged"),
        (_header_field(ONE + TRAILER, MEMBER_AT, 6, b"+0000003"), f"offset {MEMBER_AT:#x} is damaged"),
        (_header_field(ONE + TRAILER, MEMBER_AT, 6, b"0000_003"), f"offset {MEMBER_AT:#x} is damaged"),
        *((_header_field(ONE + TRAILER, MEMBER_AT, n, b"0000z000"), "is damaged") for n in range(13)),
        (_header_field(ONE + TRAILER, MEMBER_AT, 11, b"00000000"), "name in the CPIO header"),
        (_header_field(ONE + TRAILER, MEMBER_AT, 11, b"00000005"), "name in the CPIO header"),
        (_header_field(ONE + TRAILER, MEMBER_AT, 11, b"ffffffff"), "name in the CPIO header"),
        (cpio_member(b"\xff", b"abc") + TRAILER, "not UTF-8"),
        (cpio_member("dfuinfo0.dat", bytes(87)) + TRAILER, "87 bytes, which is not a multiple of 88"),
        (cpio_member("dfuinfo0.dat", index_record(0, b"\xff", b"")) + TRAILER, "not UTF-8"),
        (ONE + TRAILER + ONE, "Data follows the TRAILER!!! member"),
    ],
)
def test_damaged_archive_is_refused_with_offset(stream: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        parse_image(dfu_file(stream))


@pytest.mark.parametrize(
    ("last", "beyond", "message"),
    [
        (cpio_member("", b""), _header_field(cpio_member("", b""), 0, 11, b"00000000"), "name in the CPIO header"),
        (cpio_member("n" * 255, b""), cpio_member("n" * 256, b""), "name in the CPIO header at offset 0x0 is damaged"),
        (cpio_member("a", b"") * 1023, cpio_member("a", b"") * 1024, "more than 1024 members"),
        (
            cpio_member("dfuinfo0.dat", index_record(0, "a", b"") * 1024),
            cpio_member("dfuinfo0.dat", index_record(0, "a", b"") * 1025),
            "more than 1024 records",
        ),
    ],
    ids=["no name", "name", "members", "records"],
)
def test_limits_are_exact(last: bytes, beyond: bytes, message: str) -> None:
    assert bytes(parse_image(dfu_file(last + TRAILER)).stream) == last + TRAILER
    with pytest.raises(ImageError, match=message):
        parse_image(dfu_file(beyond + TRAILER))


def test_archive_without_trailer_is_refused_with_offset() -> None:
    with pytest.raises(ImageError, match=rf"ends at offset {len(ONE):#x} without a TRAILER!!!"):
        parse_image(dfu_file(ONE, multiple=1))


def test_header_digits_may_be_upper_case() -> None:
    stream = cpio_member("a", b"0123456789")
    assert b"0000000a" in stream
    stream = stream.replace(b"0000000a", b"0000000A") + TRAILER
    assert bytes(parse_image(dfu_file(stream)).members[0].data) == b"0123456789"
