"""dfu.bin: the bytes that ESP-IDF's own tool writes, and back."""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import sys
import tracemalloc
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esp_dfu_ext.errors import ImageError, InputMissingError, OutputError, ProjectError
from esp_dfu_ext.image import format as image_module
from esp_dfu_ext.image.format import FLASH_PARAMS_FLAGS, FlashParams, parse_image, read_image
from esp_dfu_ext.image.layout import FlashFile, plan_layout
from esp_dfu_ext.image.suffix import Suffix
from esp_dfu_ext.image.writer import Part, split, write_image
from esp_dfu_ext.units import parse_size

from .kit.archives import TRAILER, File, cpio_member, dfu_file, dfu_image, flash_params, index_record, pattern
from .kit.chips import chips
from .kit.files import sparse_file, write_file

Input = tuple[int, str, int, int]


def build(
    folder: Path, pid: int, chip_size: str, part_size: int | None, inputs: Sequence[tuple[int, str, bytes]]
) -> bytes:
    """What the planner and the writer make of some files, in any order."""
    files = [FlashFile(address, write_file(folder / name, data)) for address, name, data in inputs]
    target = next(target for target in chips() if target.usb.pid == pid)
    size = parse_size(chip_size)
    layout = plan_layout(files, size, target, part_size)
    path = folder / "dfu.bin"
    written = write_image(path, layout.parts, FlashParams(size), Suffix(target.usb.vid, target.usb.pid))
    data = path.read_bytes()
    assert written == len(data)
    return data


# --- golden bytes -----------------------------------------------------------------------------------------

# SHA-256 of what ESP-IDF's tools/mkdfu.py (master, 2026-07) wrote for these inputs.
GOLDEN: dict[str, tuple[int, str, int | None, list[Input], int, str]] = {
    "s2-small": (
        0x2,
        "4MB",
        None,
        [
            (0x1000, "bootloader.bin", 20480, 3),
            (0x8000, "partition-table.bin", 3072, 5),
            (0x10000, "hello.bin", 204801, 7),
        ],
        235536,
        "3604c3ff2e7591733833deea2952040de0080db40a3c1e1d4be3865306bbe8f2",
    ),
    "s3-split": (
        0x9,
        "8MB",
        None,
        [
            (0x0, "bootloader.bin", 21000, 3),
            (0x8000, "partition-table.bin", 3072, 5),
            (0xD000, "ota_data_initial.bin", 8192, 9),
            (0x10000, "app.bin", 1300001, 7),
        ],
        1341456,
        "be50734a47dd5dd44654420afc1f5cf466f6394a2c0674daffdac1b32c669777",
    ),
    "p4-part": (
        0x12,
        "16MB",
        0x10000,
        [
            (0x2000, "bootloader.bin", 24576, 3),
            (0x8000, "partition-table.bin", 3072, 5),
            (0x10000, "app.bin", 655360, 7),
        ],
        686096,
        "bf08eff9483e17d9b06afe9cb2fb45b259e375b0fb69bbc8990b5cec6181f1d0",
    ),
    "s31-one": (
        0x20,
        "2MB",
        None,
        [(0x2000, "b.bin", 1, 3)],
        10256,
        "d537c570e1bd7c7c36e70e9c515e138067d06cfe460c26c3e8628b682822e7f5",
    ),
    "s2-utf8": (
        0x2,
        "1MB",
        0x1000,
        [(0x1000, "žluťoučký.bin", 4096, 3), (0x8000, "x", 4097, 5)],
        10256,
        "e3c34344d3e977cbe05cc0b3baa211f0862aa747522329c5a935eff0e5bf07d5",
    ),
}


@pytest.mark.parametrize("case", GOLDEN)
@pytest.mark.parametrize("backwards", [False, True])
def test_the_image_is_esp_idfs_byte_for_byte(case: str, backwards: bool, tmp_path: Path) -> None:
    pid, chip_size, part_size, inputs, length, sha256 = GOLDEN[case]
    files = [(address, name, pattern(size, step)) for address, name, size, step in inputs]
    data = build(tmp_path, pid, chip_size, part_size, files[::-1] if backwards else files)
    assert (len(data), hashlib.sha256(data).hexdigest()) == (length, sha256)


# Two cases of our own. The expected bytes come from the hand-made writer of kit/archives.py, which is checked
# against the golden hashes itself.
def _cut(name: str, address: int, data: bytes, part_size: int) -> list[File]:
    cuts = [(address + at, data[at : at + part_size]) for at in range(0, len(data), part_size)]
    return [File(where, f"{name}.{n}" if n else name, piece) for n, (where, piece) in enumerate(cuts)]


@pytest.mark.parametrize(
    "case", ["s2-small", "s3-split", "p4-part", "s31-one", "s2-utf8", "full-index", "whole-parts", "archive-exact"]
)
def test_a_writer_made_by_hand_gives_the_same_bytes(case: str, tmp_path: Path) -> None:
    if case in GOLDEN:
        pid, chip_size, part_size, inputs, _, sha256 = GOLDEN[case]
        files = [(address, name, pattern(size, step)) for address, name, size, step in inputs]
    elif case == "full-index":
        pid, chip_size, part_size = 0x20, "8MB", 0x1000
        files = [(0x2000, "b.bin", pattern(61 * 0x1000, 11)), (0x100000, "n" * 63, b"1"), (0x101000, "c", b"123")]
    elif case == "whole-parts":
        pid, chip_size, part_size = 0x9, "2MB", 0x2000
        files = [(0x0, "a.bin", pattern(0x2000, 3)), (0x8000, "b.bin", pattern(0x4000, 5))]
    else:
        # The archive ends exactly at a multiple of 10240, and no padding follows it.
        pid, chip_size, part_size = 0x12, "2MB", None
        files = [(0x2000, "a", pattern(9544, 3))]
    parts = [piece for a, n, d in sorted(files) for piece in _cut(n, a, d, part_size or 0x80000)]
    expected = dfu_image(parts, pid=pid, chip_size=parse_size(chip_size))
    assert build(tmp_path, pid, chip_size, part_size, files) == expected
    if case in GOLDEN:
        assert hashlib.sha256(expected).hexdigest() == sha256
    if case == "full-index":
        assert len(parse_image(expected).records) == 64
    if case == "archive-exact":
        assert expected[-16 - len(TRAILER) : -16] == TRAILER


def test_the_suffix_has_the_crc_of_the_dfu_specification(tmp_path: Path) -> None:
    data = build(tmp_path, 0x12, "2MB", None, [(0x2000, "a", b"1")])
    crc = 0xFFFFFFFF
    for byte in data[:-4]:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0xEDB88320 if crc & 1 else 0)
    assert data[-16:] == b"\xff\xff\x12\x00\x3a\x30\x00\x01UFD\x10" + crc.to_bytes(4, "little")


def test_flash_params_are_eight_words() -> None:
    encoded = FlashParams(8 << 20, 65536, 4096, 256, 0xFFFF).encode()
    assert encoded.hex() == "000000000000000000000000000080000000010000100000" + "00010000ffff0000"
    assert FlashParams.decode(encoded) == FlashParams(8 << 20)


@pytest.mark.parametrize(
    ("size", "part_size", "expected"),
    [
        (1, 4096, [("f", 0x10000, 0, 1)]),
        (4096, 4096, [("f", 0x10000, 0, 4096)]),
        (4097, 4096, [("f", 0x10000, 0, 4096), ("f.1", 0x11000, 4096, 1)]),
        (9000, 4096, [("f", 0x10000, 0, 4096), ("f.1", 0x11000, 4096, 4096), ("f.2", 0x12000, 8192, 808)]),
    ],
)
def test_files_are_cut_into_numbered_parts(
    size: int, part_size: int, expected: list[tuple[str, int, int, int]]
) -> None:
    parts = split("f", 0x10000, Path("f"), size, part_size)
    assert [(part.name, part.address, part.offset, part.size) for part in parts] == expected


# --- atomic writing ---------------------------------------------------------------------------------------


@pytest.fixture
def parts(tmp_path: Path) -> list[Part]:
    """Two parts, and a dfu.bin that is there already."""
    write_file(tmp_path / "dfu.bin", b"old")
    a, b = write_file(tmp_path / "in/a.bin", pattern(300000, 3)), write_file(tmp_path / "in/b.bin", pattern(50, 5))
    return [Part("a.bin", 0, a, 0, 300000), Part("b.bin", 0x100000, b, 0, 50)]


def _write(folder: Path, parts: Sequence[Part]) -> int:
    return write_image(folder / "dfu.bin", parts, FlashParams(4 << 20), Suffix(0x303A, 9))


def _assert_untouched(folder: Path) -> None:
    assert (folder / "dfu.bin").read_bytes() == b"old"
    assert sorted(path.name for path in folder.iterdir()) == ["dfu.bin", "in"]


def test_a_new_image_replaces_the_old_one_and_leaves_nothing_else(tmp_path: Path, parts: list[Part]) -> None:
    assert _write(tmp_path, parts) == (tmp_path / "dfu.bin").stat().st_size > 300000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dfu.bin", "in"]


def test_the_new_image_grows_hidden_beside_the_old_one(tmp_path: Path, parts: list[Part]) -> None:
    """In one folder, so that it takes its place in one step; a name that tells whose it is after a power cut."""
    seen: list[str] = []

    def look() -> None:
        seen.extend(sorted(path.name for path in tmp_path.iterdir()))
        assert (tmp_path / "dfu.bin").read_bytes() == b"old"

    write_image(tmp_path / "dfu.bin", parts, FlashParams(4 << 20), Suffix(0x303A, 9), look)
    hidden, *others = seen
    assert hidden.startswith(".dfu.bin.") and hidden.endswith(".tmp")
    assert others == ["dfu.bin", "in"]


def test_a_full_disk_leaves_the_old_image(tmp_path: Path, parts: list[Part], monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OutputError, match=r"dfu\.bin cannot be written: No space left on device") as caught:
        _write(tmp_path, parts)
    assert caught.value.exit_code == 73
    _assert_untouched(tmp_path)


def test_an_input_that_is_gone_leaves_the_old_image(tmp_path: Path, parts: list[Part]) -> None:
    parts[1].path.unlink()
    with pytest.raises(InputMissingError, match=r"b\.bin cannot be read: No such file or directory\.$") as caught:
        _write(tmp_path, parts)
    assert (caught.value.path, caught.value.role) == (parts[1].path, "flash file")
    _assert_untouched(tmp_path)


class _SecondOpen:
    """`Path.open` that does something at the second open of one file, which is when it goes into the image."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
        self._path, self._opened = path, 0
        self._real: Callable[..., IO[Any]] = Path.open
        monkeypatch.setattr(Path, "open", lambda this, *args, **named: self._open(this, *args, **named))

    def _open(self, path: Path, *args: Any, **named: Any) -> IO[Any]:
        if path == self._path:
            self._opened += 1
            if self._opened == 2:
                self.happens()
        return self._real(path, *args, **named)

    def happens(self) -> None:
        raise KeyboardInterrupt


def test_ctrl_c_leaves_the_old_image(tmp_path: Path, parts: list[Part], monkeypatch: pytest.MonkeyPatch) -> None:
    _SecondOpen(monkeypatch, parts[1].path)
    with pytest.raises(KeyboardInterrupt):
        _write(tmp_path, parts)
    _assert_untouched(tmp_path)


@pytest.mark.parametrize(("change", "message"), [(b"X" * 50, "changed"), (b"X" * 49, "shorter"), (b"", "shorter")])
def test_an_input_that_changes_meanwhile_leaves_the_old_image(
    change: bytes, message: str, tmp_path: Path, parts: list[Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Change(_SecondOpen):
        def happens(self) -> None:
            parts[1].path.write_bytes(change)

    Change(monkeypatch, parts[1].path)
    with pytest.raises(ProjectError, match=rf"b\.bin.*{message}"):
        _write(tmp_path, parts)
    _assert_untouched(tmp_path)


def test_a_folder_that_is_not_there_is_said(tmp_path: Path, parts: list[Part]) -> None:
    with pytest.raises(OutputError, match="No such file or directory"):
        _write(tmp_path / "gone", parts)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
@pytest.mark.parametrize("mode", [0o600, 0o664])
def test_permissions_stay_as_they_were_and_follow_the_umask_at_first(
    mode: int, tmp_path: Path, parts: list[Part]
) -> None:
    path = tmp_path / "dfu.bin"
    path.chmod(mode)
    _write(tmp_path, parts)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    path.unlink()
    before = os.umask(0o026)
    try:
        _write(tmp_path, parts)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_memory_does_not_grow_with_the_image(tmp_path: Path) -> None:
    def peak(size: int) -> int:
        file = sparse_file(tmp_path / f"{size}.bin", size)
        parts = list(split("app.bin", 0, file, size, 512 << 10))
        tracemalloc.start()
        try:
            write_image(tmp_path / "dfu.bin", parts, FlashParams(16 << 20), Suffix(0x303A, 9))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1 << 16)
    small, large = peak(1 << 20), peak(8 << 20)
    assert large < 1.5 * small
    assert large < 1 << 20


# --- build and parse are inverses -------------------------------------------------------------------------

names = st.text("abž.-_ 0", min_size=1, max_size=12).filter(lambda name: len(name.encode()) <= 63)
words = st.integers(0, 0xFFFF)
contents = st.binary(min_size=1, max_size=200)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(names, st.integers(0, 0xFFFFFFFF), contents), max_size=5, unique_by=lambda part: part[0]),
    st.builds(Suffix, words, words, words, words),
    st.integers(0, 0xFFFFFFFF),
)
def test_parsing_gives_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory,
    wanted: list[tuple[str, int, bytes]],
    suffix: Suffix,
    chip_size: int,
) -> None:
    folder = tmp_path_factory.getbasetemp()
    source = write_file(folder / "all.bin", b"".join(data for _, _, data in wanted))
    offset, parts = 0, []
    for name, address, data in wanted:
        parts.append(Part(name, address, source, offset, len(data)))
        offset += len(data)
    write_image(folder / "dfu.bin", parts, FlashParams(chip_size), suffix)
    image = read_image(folder / "dfu.bin")
    assert image.suffix == suffix
    assert image.flash_params == FlashParams(chip_size)
    assert image.index_first
    assert image.flash_size == offset
    found = [(m.name, m.record.address if m.record else None, bytes(m.data)) for m in image.flash_members]
    assert found == wanted
    assert [(r.name, r.flags) for r in image.records] == [
        ("flash_params.dat", FLASH_PARAMS_FLAGS),
        *((name, 0) for name, _, _ in wanted),
    ]
    assert all(m.record is not None and m.record.md5 == hashlib.md5(m.data).digest() for m in image.flash_members)
    assert image.stream[-len(TRAILER) :] == TRAILER


# --- reading ----------------------------------------------------------------------------------------------

SMALL = dfu_image([File(0x1000, "a.bin", b"abcdefg"), File(0x2000, "b.bin", b"xyz")])
PARAMS = cpio_member("flash_params.dat", flash_params())


@pytest.mark.parametrize("offset", [*range(0, 640, 7), *range(len(SMALL) - 16, len(SMALL))])
def test_one_flipped_bit_anywhere_is_noticed(offset: int) -> None:
    data = bytearray(SMALL)
    data[offset] ^= 0x10
    with pytest.raises(ImageError):
        parse_image(bytes(data))


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 100, len(SMALL) - 16, len(SMALL) - 1])
def test_a_file_that_was_cut_short_is_noticed(length: int) -> None:
    with pytest.raises(ImageError):
        parse_image(SMALL[:length])


def _header_field(stream: bytes, start: int, field: int, text: bytes) -> bytes:
    at = start + 6 + 8 * field
    return stream[:at] + text + stream[at + 8 :]


ONE = cpio_member("dfuinfo0.dat", index_record(0, "a.bin", b"abc")) + cpio_member("a.bin", b"abc")
MEMBER_AT = len(cpio_member("dfuinfo0.dat", index_record(0, "a.bin", b"abc")))


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (ONE, "no CPIO header at offset 0x"),
        (ONE + TRAILER[:100], "CPIO header|damaged|ends"),
        (b"\xe9" * 300, "no CPIO header at offset 0x0"),
        (_header_field(ONE + TRAILER, MEMBER_AT, 6, b"ffffffff"), "4294967295 bytes; the file ends before"),
        (_header_field(ONE + TRAILER, MEMBER_AT, 6, b"0000 0x1"), f"offset {MEMBER_AT:#x} is damaged"),
        (_header_field(ONE + TRAILER, MEMBER_AT, 6, b"+0000003"), f"offset {MEMBER_AT:#x} is damaged"),
        (_header_field(ONE + TRAILER, MEMBER_AT, 6, b"0000_003"), f"offset {MEMBER_AT:#x} is damaged"),
        (_header_field(ONE + TRAILER, MEMBER_AT, 11, b"00000000"), "name in the CPIO header"),
        (_header_field(ONE + TRAILER, MEMBER_AT, 11, b"00000005"), "name in the CPIO header"),
        (_header_field(ONE + TRAILER, MEMBER_AT, 11, b"ffffffff"), "name in the CPIO header"),
        (cpio_member(b"\xff", b"abc") + TRAILER, "not UTF-8"),
        (cpio_member("dfuinfo0.dat", bytes(87)) + TRAILER, "87 bytes, no multiple of 88"),
        (cpio_member("dfuinfo0.dat", index_record(0, b"\xff", b"")) + TRAILER, "not UTF-8"),
        (ONE + TRAILER + ONE, "data after the TRAILER!!!"),
    ],
)
def test_a_damaged_archive_is_refused_with_the_place(stream: bytes, message: str) -> None:
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


def test_an_archive_that_ends_between_two_members_is_refused_with_the_place() -> None:
    with pytest.raises(ImageError, match=rf"ends at offset {len(ONE):#x} without a TRAILER!!!"):
        parse_image(dfu_file(ONE, multiple=1))


def test_digits_of_a_header_may_be_of_either_case() -> None:
    stream = cpio_member("a", b"0123456789")
    assert b"0000000a" in stream
    stream = stream.replace(b"0000000a", b"0000000A") + TRAILER
    assert bytes(parse_image(dfu_file(stream)).members[0].data) == b"0123456789"


def test_an_archive_without_padding_after_its_trailer_is_read() -> None:
    data = dfu_file(ONE + TRAILER, multiple=1)
    image = parse_image(data)
    assert image.sha256 == hashlib.sha256(data).hexdigest()
    assert bytes(image.stream) == ONE + TRAILER
    assert [bytes(member.data) for member in image.members] == [b"abc"]
    assert image.flash_params is None


def test_the_first_record_of_a_name_counts() -> None:
    index = index_record(0x1000, "a", b"1") + index_record(0x2000, "a", b"1")
    image = parse_image(dfu_file(cpio_member("dfuinfo0.dat", index) + cpio_member("a", b"1") + TRAILER))
    record = image.members[0].record
    assert record is not None and record.address == 0x1000


def test_an_index_behind_other_members_is_read_and_told() -> None:
    index = cpio_member("dfuinfo0.dat", index_record(0, "a.bin", b"abc"))
    image = parse_image(dfu_file(cpio_member("a.bin", b"abc") + index + TRAILER))
    assert not image.index_first
    assert [record.name for record in image.records] == ["a.bin"]


def test_flash_params_of_another_length_are_refused() -> None:
    with pytest.raises(ImageError, match="31 bytes instead of 32"):
        FlashParams.decode(bytes(31))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"", "0 bytes"),
        (lambda data: data + bytes(16), "no DFU suffix"),
        (lambda data: data[:-8] + b"DFU" + data[-5:], "no DFU suffix"),
        (lambda data: data[:-5] + b"\x11" + data[-4:], "no DFU suffix"),
        (lambda data: data[:-4] + bytes(4), "CRC in the DFU suffix is 00000000"),
    ],
)
def test_a_file_without_a_sound_suffix_is_refused(change: Any, message: str, tmp_path: Path) -> None:
    path = write_file(tmp_path / "dfu.bin", change(SMALL))
    with pytest.raises(ImageError, match=message) as caught:
        read_image(path)
    assert str(path) in caught.value.message


def test_each_field_of_a_suffix_is_read() -> None:
    data = ONE + TRAILER + struct.pack("<HHHH3sB", 0x0203, 0x0009, 0x303A, 0x011A, b"UFD", 16)
    crc = zlib.crc32(data) ^ 0xFFFFFFFF
    assert parse_image(data + struct.pack("<I", crc)).suffix == (0x303A, 0x0009, 0x0203, 0x011A)
    with pytest.raises(ImageError, match=f"DFU suffix is 12345678, the file's is {crc:08x}"):
        parse_image(data + struct.pack("<I", 0x12345678))


def test_a_suffix_without_anything_before_it_is_no_image() -> None:
    with pytest.raises(ImageError, match="archive ends at offset 0x0"):
        parse_image(dfu_file(b"", multiple=1))


def test_a_file_that_is_not_there_is_told_from_one_that_is_damaged(tmp_path: Path) -> None:
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


def test_a_wrong_file_is_not_taken_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_module, "MAX_FILE_SIZE", 1000)
    with pytest.raises(ImageError, match="no DFU suffix"):
        read_image(sparse_file(tmp_path / "just.bin", 1000))
    path = sparse_file(tmp_path / "disk.img", 8 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match="more than 1000 bytes; no DFU image is that large"):
            read_image(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


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
def test_no_bytes_crash_the_parser(data: bytes) -> None:
    _is_parsed_or_refused(data)
    _is_parsed_or_refused(dfu_file(data, multiple=1))


@settings(deadline=None, max_examples=150)
@given(st.lists(members, max_size=5), st.data())
def test_no_archive_crashes_the_parser(pieces: list[bytes], draw: st.DataObject) -> None:
    stream = b"".join([*pieces, TRAILER])
    at = draw.draw(st.integers(0, len(stream) - 1))
    _is_parsed_or_refused(dfu_file(stream, multiple=1))
    _is_parsed_or_refused(dfu_file(stream[:at] + draw.draw(st.binary(max_size=4)) + stream[at:], multiple=1))
