"""Writing dfu.bin: the bytes that ESP-IDF's own tool writes, all of them or none."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esp_dfu_ext.errors import OutputError
from esp_dfu_ext.image.format import FLASH_PARAMS_FLAGS, FlashParams, parse_image
from esp_dfu_ext.image.layout import Part, plan_layout, split
from esp_dfu_ext.image.plan import FlashFile, load_files
from esp_dfu_ext.image.suffix import Suffix
from esp_dfu_ext.image.writer import encode_image, write_image
from esp_dfu_ext.units import parse_size

from .kit.archives import TRAILER, File, dfu_image, pattern
from .kit.chips import chips
from .kit.files import write_file

Input = tuple[int, str, int, int]


def flash_params(chip_size: int) -> FlashParams:
    """Return flash parameters with the geometry that ESP-IDF writes for every chip."""
    return FlashParams(chip_size, 65536, 4096, 256, 0xFFFF)


def build(
    folder: Path, pid: int, chip_size: str, part_size: int | None, inputs: Sequence[tuple[int, str, bytes]]
) -> bytes:
    """Make dfu.bin from files in any order; returns its bytes."""
    files = [FlashFile(address, write_file(folder / name, data)) for address, name, data in inputs]
    target = next(target for target in chips() if target.usb.pid == pid)
    size = parse_size(chip_size)
    layout = plan_layout(load_files(files, size), size, target, part_size)
    path = folder / "dfu.bin"
    written = write_image(path, layout.parts, flash_params(size), Suffix(target.usb.vid, target.usb.pid))
    data = path.read_bytes()
    assert written == len(data)
    return data


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
def test_image_matches_esp_idf_byte_for_byte(case: str, backwards: bool, tmp_path: Path) -> None:
    pid, chip_size, part_size, inputs, length, sha256 = GOLDEN[case]
    files = [(address, name, pattern(size, step)) for address, name, size, step in inputs]
    data = build(tmp_path, pid, chip_size, part_size, files[::-1] if backwards else files)
    assert (len(data), hashlib.sha256(data).hexdigest()) == (length, sha256)


# The expected bytes come from the independent writer in kit/archives.py, itself checked against the golden hashes.
def _cut(name: str, address: int, data: bytes, part_size: int) -> list[File]:
    cuts = [(address + at, data[at : at + part_size]) for at in range(0, len(data), part_size)]
    return [File(where, f"{name}.{n}" if n else name, piece) for n, (where, piece) in enumerate(cuts)]


@pytest.mark.parametrize(
    "case", ["s2-small", "s3-split", "p4-part", "s31-one", "s2-utf8", "full-index", "whole-parts", "archive-exact"]
)
def test_image_matches_independent_writer(case: str, tmp_path: Path) -> None:
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
        # The archive ends exactly at a multiple of 10240, so no padding follows it.
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


@pytest.mark.parametrize(
    ("size", "part_size", "expected"),
    [
        (1, 4096, [("f", 0x10000, 1)]),
        (4096, 4096, [("f", 0x10000, 4096)]),
        (4097, 4096, [("f", 0x10000, 4096), ("f.1", 0x11000, 1)]),
        (9000, 4096, [("f", 0x10000, 4096), ("f.1", 0x11000, 4096), ("f.2", 0x12000, 808)]),
    ],
)
def test_split_parts_are_numbered(size: int, part_size: int, expected: list[tuple[str, int, int]]) -> None:
    data = pattern(size, 3)
    parts = list(split("f", 0x10000, data, part_size))
    assert [(part.name, part.address, len(part.data)) for part in parts] == expected
    assert b"".join(part.data for part in parts) == data


@pytest.fixture
def parts(tmp_path: Path) -> list[Part]:
    """Two parts; the folder already holds a dfu.bin."""
    write_file(tmp_path / "dfu.bin", b"old")
    return [Part("a.bin", 0, memoryview(pattern(300000, 3))), Part("b.bin", 0x100000, memoryview(pattern(50, 5)))]


def _write(folder: Path, parts: Sequence[Part]) -> int:
    return write_image(folder / "dfu.bin", parts, flash_params(4 << 20), Suffix(0x303A, 9))


def _assert_untouched(folder: Path) -> None:
    assert (folder / "dfu.bin").read_bytes() == b"old"
    assert [path.name for path in folder.iterdir()] == ["dfu.bin"]


def test_new_image_replaces_old_one_and_leaves_nothing_else(tmp_path: Path, parts: list[Part]) -> None:
    assert _write(tmp_path, parts) == (tmp_path / "dfu.bin").stat().st_size > 300000
    assert [path.name for path in tmp_path.iterdir()] == ["dfu.bin"]


def test_new_image_is_written_to_hidden_file_next_to_old_one(
    tmp_path: Path, parts: list[Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the same folder, so that the rename is atomic; after a power cut the name tells what the file is."""
    seen: list[str] = []

    def look(handle: int) -> None:
        seen.extend(sorted(path.name for path in tmp_path.iterdir()))
        assert (tmp_path / "dfu.bin").read_bytes() == b"old"

    monkeypatch.setattr(os, "fsync", look)
    _write(tmp_path, parts)
    hidden, *others = seen
    assert hidden.startswith(".dfu.bin.") and hidden.endswith(".tmp")
    assert others == ["dfu.bin"]


def test_full_disk_keeps_old_image(tmp_path: Path, parts: list[Part], monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OutputError, match=r"dfu\.bin cannot be written: No space left on device") as caught:
        _write(tmp_path, parts)
    assert caught.value.exit_code == 73
    _assert_untouched(tmp_path)


def test_ctrl_c_keeps_old_image(tmp_path: Path, parts: list[Part], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        _write(tmp_path, parts)
    _assert_untouched(tmp_path)


def test_missing_output_folder_is_reported(tmp_path: Path, parts: list[Part]) -> None:
    with pytest.raises(OutputError, match="No such file or directory"):
        _write(tmp_path / "gone", parts)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
@pytest.mark.parametrize("mode", [0o600, 0o664])
def test_permissions_are_kept_and_new_file_follows_umask(
    mode: int, tmp_path: Path, parts: list[Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "dfu.bin"
    path.chmod(mode)
    _write(tmp_path, parts)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    path.unlink()
    before = os.umask(0o026)
    monkeypatch.setattr(os, "umask", None)  # threads share it
    try:
        _write(tmp_path, parts)
    finally:
        monkeypatch.undo()
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


names = st.text("abž.-_ 0", min_size=1, max_size=12).filter(lambda name: len(name.encode()) <= 63)
words = st.integers(0, 0xFFFF)
contents = st.binary(min_size=1, max_size=200)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(names, st.integers(0, 0xFFFFFFFF), contents), max_size=5, unique_by=lambda part: part[0]),
    st.builds(Suffix, words, words, words, words),
    st.integers(0, 0xFFFFFFFF),
)
def test_parse_image_is_inverse_of_encode_image(
    wanted: list[tuple[str, int, bytes]], suffix: Suffix, chip_size: int
) -> None:
    parts = [Part(name, address, memoryview(data)) for name, address, data in wanted]
    image = parse_image(b"".join(encode_image(parts, flash_params(chip_size), suffix)))
    assert image.suffix == suffix
    assert image.flash_params == flash_params(chip_size)
    assert image.index_first
    assert image.payload_size == sum(len(data) for _, _, data in wanted)
    found = [(m.name, m.record.address if m.record else None, bytes(m.data)) for m in image.flash_members]
    assert found == wanted
    assert [(r.name, r.flags) for r in image.records] == [
        ("flash_params.dat", FLASH_PARAMS_FLAGS),
        *((name, 0) for name, _, _ in wanted),
    ]
    assert all(m.record is not None and m.record.md5 == hashlib.md5(m.data).digest() for m in image.flash_members)
    assert image.stream[-len(TRAILER) :] == TRAILER
