"""The plan of a build, and reading its files."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from esp_dfu_ext.errors import InputMissingError, UsageError
from esp_dfu_ext.image.layout import Region, check_regions
from esp_dfu_ext.image.plan import FlashFile, FlashPlan, LoadedFile, load_files

from .kit.archives import pattern
from .kit.chips import S3
from .kit.files import forbid, sparse_file, write_file

MIB = 1024 * 1024
PLAN = FlashPlan(
    Path("build"),
    "esp32s3",
    4 * MIB,
    (
        FlashFile(0, Path("bootloader.bin"), "bootloader"),
        FlashFile(0x10000, Path("app.bin"), "app"),
        FlashFile(0x200000, Path("spare.bin")),
    ),
)


@pytest.mark.parametrize(
    ("sections", "chosen"),
    [([], [0, 1, 2]), (["app"], [1]), (["app", "bootloader"], [0, 1]), (["app", "app"], [1])],
)
def test_select_returns_files_of_sections(sections: list[str], chosen: list[int]) -> None:
    assert list(PLAN.select(sections)) == [PLAN.files[i] for i in chosen]


@pytest.mark.parametrize("section", ["otadata", "App", "", "flash_settings"])
def test_unknown_section_is_refused_with_those_that_exist(section: str) -> None:
    with pytest.raises(UsageError) as caught:
        PLAN.select(["app", section])
    assert caught.value.message == f"The build has no section {section!r}; its sections are app, bootloader."
    assert caught.value.exit_code == 64


def test_plan_without_sections_says_so() -> None:
    with pytest.raises(UsageError, match="it has no sections"):
        replace(PLAN, files=PLAN.files[2:]).select(["app"])


def test_files_are_loaded_by_address_and_once(tmp_path: Path) -> None:
    low, high = write_file(tmp_path / "low.bin", b"low"), write_file(tmp_path / "high.bin", pattern(5000, 3))
    files = [FlashFile(0x1000, high), FlashFile(0, low), FlashFile(0x1000, high)]
    assert load_files(files, 4 * MIB) == [
        LoadedFile(FlashFile(0, low), 3, b"low"),
        LoadedFile(FlashFile(0x1000, high), 5000, pattern(5000, 3)),
    ]


def test_one_file_at_two_addresses_is_loaded_for_both(tmp_path: Path) -> None:
    path = write_file(tmp_path / "app.bin", b"app")
    loaded = load_files([FlashFile(0x10000, path), FlashFile(0x20000, path)], 4 * MIB)
    assert [(each.file.address, each.data) for each in loaded] == [(0x10000, b"app"), (0x20000, b"app")]


@pytest.mark.parametrize("sizes", [[4 * MIB + 1], [1 << 40], [3 * MIB, 3 * MIB], [MIB] * 5, [1] * 9 + [4 * MIB]])
def test_files_larger_than_flash_memory_are_not_read(sizes: list[int], tmp_path: Path) -> None:
    """Wherever they go, two of them overlap or one extends beyond the end."""
    files = [FlashFile(0x80000 * n, sparse_file(tmp_path / f"{n}.bin", size)) for n, size in enumerate(sizes)]
    loaded = load_files(files, 4 * MIB)
    assert [each.size for each in loaded] == sizes
    assert sum(len(each.data) for each in loaded) <= 4 * MIB
    assert loaded[-1].data == b""
    assert check_regions([Region(each.file.address, each.size, "f") for each in loaded], 4 * MIB, S3)


@pytest.mark.parametrize("sizes", [[4 * MIB], [3 * MIB, MIB]])
def test_files_that_fill_flash_memory_are_read(sizes: list[int], tmp_path: Path) -> None:
    files = [FlashFile(n, sparse_file(tmp_path / f"{n}.bin", size)) for n, size in enumerate(sizes)]
    assert [len(each.data) for each in load_files(files, 4 * MIB)] == sizes


@pytest.mark.parametrize(
    ("kind", "why"),
    [("missing", "does not exist"), ("folder", "is not a regular file"), ("name too long", "does not exist")],
)
def test_missing_file_is_reported_with_its_address(kind: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / ("a" * 5000 if kind == "name too long" else "app.bin")
    if kind == "folder":
        path.mkdir()
    with pytest.raises(InputMissingError) as caught:
        load_files([FlashFile(0x10000, path)], 4 * MIB)
    assert (caught.value.path, caught.value.role) == (path, "flash file")
    assert caught.value.reason == ("no-file" if kind == "folder" else "missing")
    assert caught.value.message == f"{path} for 0x10000 {why}."


def test_unreadable_file_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_file(tmp_path / "app.bin", b"x")
    with monkeypatch.context() as refused:
        forbid(refused, path)
        with pytest.raises(InputMissingError, match=r"app\.bin cannot be read: Permission denied") as caught:
            load_files([FlashFile(0, path)], 4 * MIB)
    assert caught.value.reason == "unreadable"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes in folders")
def test_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "app.bin")
    with pytest.raises(InputMissingError, match="is not a regular file"):
        load_files([FlashFile(0, tmp_path / "app.bin")], 4 * MIB)
