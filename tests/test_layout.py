"""Layouts: names, part sizes, and everything that the ROM would turn into lost data."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esp_dfu_ext.errors import LayoutError, UsageError
from esp_dfu_ext.image.check import check_image
from esp_dfu_ext.image.format import FlashParams, parse_image
from esp_dfu_ext.image.layout import Layout, Region, check_regions, plan_layout
from esp_dfu_ext.image.plan import FlashFile, LoadedFile
from esp_dfu_ext.image.suffix import Suffix
from esp_dfu_ext.image.writer import encode_image
from esp_dfu_ext.target import Target

from .kit.archives import pattern
from .kit.chips import S3
from .kit.projects import notices

KIB, MIB = 1024, 1024 * 1024


@contextmanager
def no_endless_loop() -> Iterator[None]:
    """Turn an endless loop into a failure, on systems that can."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise AssertionError("endless loop")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 2)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def plan(
    files: Sequence[tuple[int, str, int]],
    *,
    chip_size: int = 4 * MIB,
    part_size: int | None = None,
    target: Target = S3,
) -> Layout:
    """Plan files of address, name and size; each is in a folder of its own, so names may repeat."""
    loaded = [
        LoadedFile(FlashFile(address, Path(f"{number}/{name}")), size, bytes(size))
        for number, (address, name, size) in enumerate(files)
    ]
    with no_endless_loop():
        return plan_layout(loaded, chip_size, target, part_size)


def refusal(files: Sequence[tuple[int, str, int]], *, chip_size: int = 4 * MIB) -> list[str]:
    with pytest.raises(LayoutError) as caught:
        plan(files, chip_size=chip_size)
    assert caught.value.exit_code == 65
    assert "cannot be flashed" in caught.value.message
    return list(caught.value.notes)


def limits(**changes: int) -> Target:
    """The ESP32-S3 with other limits of its DFU."""
    return msgspec.structs.replace(S3, dfu=msgspec.structs.replace(S3.dfu, **changes))


# --- the plan ---------------------------------------------------------------------------------------------


def test_files_are_cut_at_default_part_size() -> None:
    app = pattern(600 * KIB, 3)
    files = [LoadedFile(FlashFile(0, Path("bootloader.bin")), 3, b"abc")]
    files.append(LoadedFile(FlashFile(0x10000, Path("app.bin")), len(app), app))
    layout = plan_layout(files, 4 * MIB, S3)
    assert [(part.name, part.address, bytes(part.data)) for part in layout.parts] == [
        ("bootloader.bin", 0x0, b"abc"),
        ("app.bin", 0x10000, app[: 512 * KIB]),
        ("app.bin.1", 0x90000, app[512 * KIB :]),
    ]
    assert (layout.part_size, layout.notices) == (512 * KIB, ())


def test_one_file_at_two_addresses_is_flashed_twice() -> None:
    layout = plan([(0x10000, "app.bin", 10), (0x20000, "app.bin", 10)])
    assert [part.address for part in layout.parts] == [0x10000, 0x20000]
    assert len({part.name for part in layout.parts}) == 2


@pytest.mark.parametrize("part_size", [0, -4096, 1, 4095, 5000, 65537])
def test_part_size_within_sector_is_refused(part_size: int) -> None:
    with pytest.raises(UsageError, match="multiple of 4096") as caught:
        plan([(0, "a.bin", 1)], part_size=part_size)
    assert str(part_size) in caught.value.message


@pytest.mark.parametrize(
    ("size", "part_size", "actual", "parts"),
    [
        (63 * 4 * KIB, 4 * KIB, 4 * KIB, 63),
        (63 * 4 * KIB + 1, 4 * KIB, 8 * KIB, 32),
        (15 * MIB, 64 * KIB, 244 * KIB, 63),
        (15 * MIB, 512 * KIB, 512 * KIB, 30),
        (15 * MIB, 64 * MIB, 64 * MIB, 1),
    ],
)
def test_part_size_is_raised_until_index_fits(size: int, part_size: int, actual: int, parts: int) -> None:
    layout = plan([(0, "app.bin", size)], chip_size=16 * MIB, part_size=part_size)
    assert (layout.part_size, len(layout.parts)) == (actual, parts)
    found = notices(layout.notices)
    if actual == part_size:
        assert found == {}
    else:
        assert f"{part_size // KIB} KiB to {actual // KIB} KiB" in found["part-size-raised"]
        assert "63" in found["part-size-raised"]


def test_part_size_counts_parts_of_all_files() -> None:
    files = [(MIB * n, f"{n}.bin", 512 * KIB) for n in range(4)]
    layout = plan(files, part_size=4 * KIB)
    assert layout.part_size == 36 * KIB
    assert len(layout.parts) == 60


def test_part_size_is_raised_to_largest_file_if_each_must_be_one_part() -> None:
    layout = plan([(0x4000 * n, f"{n}.bin", 8193 if n == 7 else 1) for n in range(63)], part_size=4 * KIB)
    assert (layout.part_size, len(layout.parts)) == (12 * KIB, 63)


def test_63_files_fit_and_64_do_not() -> None:
    files = [(0x1000 * n, f"{n}.bin", 4096) for n in range(64)]
    assert len(plan(files[:63]).parts) == 63
    assert refusal(files) == ["The build has 64 files, but the ROM's index holds at most 63."]


# --- names ------------------------------------------------------------------------------------------------


def test_equal_names_are_told_apart_by_address() -> None:
    layout = plan([(0x10000, "app.bin", 10), (0x20000, "app.bin", 10), (0x30000, "app.bin", 10)])
    assert [part.name for part in layout.parts] == ["app.bin", "app@0x20000.bin", "app@0x30000.bin"]
    messages = [notice.message for notice in layout.notices if notice.code == "renamed"]
    assert len(messages) == 2
    assert messages[0] == f"{Path('1/app.bin')} is named app@0x20000.bin in the image."


@pytest.mark.parametrize(
    "files",
    [
        [(0x0, "a.bin.1", 10), (0x1000, "a.bin", 8192)],
        [(0x0, "a.bin", 8192), (0x10000, "a.bin.1", 10)],
        [(0x0, "a.bin", 8192), (0x10000, "a.bin", 8192)],
        [(0x0, "a@0x20000.bin", 1), (0x10000, "a.bin", 1), (0x20000, "a.bin", 1)],
        [(0x0, "a@0x20000.bin", 1), (0x1000, "_1_a@0x20000.bin", 1), (0x10000, "a.bin", 1), (0x20000, "a.bin", 1)],
        [(0x0, "dfuinfo0.dat", 10)],
        [(0x0, "flash_params.dat", 10)],
        [(0x0, "TRAILER!!!", 10)],
        [(0x0, "n" * 64, 10)],
        [(0x0, "n" * 62, 8192)],
        [(0x0, "n" * 63, 10), (0x1000, "n" * 63, 10)],
        [(0x0, "n" * 200 + ".bin", 10), (0x1000, "n" * 200 + ".bin", 10)],
        [(0x0, "ž" * 32, 10)],
        [(0x0, "a" + "ž" * 40 + ".bin", 8192), (0x10000, "a" + "ž" * 40 + ".bin", 8192)],
        [(0x0, "." + "e" * 100, 10)],
        [(0x0, "x." + "e" * 100, 10)],
    ],
    ids=lambda files: ",".join(name[:16] for _, name, _ in files).encode("ascii", "replace").decode(),
)
def test_names_that_rom_would_mix_up_or_not_find_are_changed(files: list[tuple[int, str, int]]) -> None:
    layout = plan(files, part_size=4096)
    names = [part.name for part in layout.parts]
    assert len(set(names)) == len(names) == sum(-(-size // 4096) for _, _, size in files)
    assert not {"dfuinfo0.dat", "flash_params.dat", "TRAILER!!!"} & set(names)
    assert all(0 < len(name.encode()) <= 63 for name in names)
    assert "renamed" in notices(layout.notices)


@pytest.mark.parametrize(("ending", "kept"), [(".elffile", ".elffile"), (".elffiles", "")])
def test_changed_name_keeps_ending_of_up_to_8_bytes(ending: str, kept: str) -> None:
    [part] = plan([(0x1000, "n" * 70 + ending, 10)]).parts
    assert part.name.endswith(f"n@0x1000{kept}")


@pytest.mark.parametrize("name", ["n" * 63, "ž" * 31, "žluťoučký.bin", "a b.bin", "dfuinfo1.dat", "n" * 59 + ".bin"])
def test_names_that_rom_accepts_are_kept(name: str) -> None:
    layout = plan([(0, name, 10)])
    assert ([part.name for part in layout.parts], layout.notices) == ([name], ())


def test_file_gets_name_even_if_obvious_ones_are_taken() -> None:
    """Its own name is taken, and so is the one with its address."""
    stem = "n" * 48
    files = [(0x1000 * n, name, 10) for n, name in enumerate([f"{stem}.bin", f"{stem}@0x800000.bin"])]
    layout = plan([*files, (0x800000, f"{stem}.bin", 8192)], chip_size=16 * MIB, part_size=4096)
    names = [part.name for part in layout.parts]
    assert len(set(names)) == len(names) == 4
    assert all(len(name.encode()) <= 63 for name in names)


# --- what the ROM would get wrong -------------------------------------------------------------------------


def test_unaligned_address_is_refused() -> None:
    [problem] = refusal([(0x10002, "app.bin", 10)])
    assert problem.startswith("app.bin (0x10002 to 0x1000c)")
    assert "multiple of 4" in problem
    assert plan([(0x10004, "app.bin", 10)]).parts[0].address == 0x10004


def test_overlapping_files_are_refused_with_names_and_addresses() -> None:
    [problem] = refusal([(0x8000, "table.bin", 0x1000), (0x0, "bootloader.bin", 0x8001)])
    assert problem == "bootloader.bin (0x0 to 0x8001) and table.bin (0x8000 to 0x9000) overlap."


def test_two_files_at_one_address_overlap() -> None:
    [problem] = refusal([(0x8000, "a.bin", 10), (0x8000, "b.bin", 10)])
    assert "a.bin" in problem and "b.bin" in problem and "overlap" in problem


@pytest.mark.parametrize(
    ("end", "next_address", "allowed"),
    [(0x8000, 0x8000, True), (0x8001, 0x8004, False), (0x8001, 0x8FFC, False), (0x8001, 0x9000, True), (4, 8, False)],
)
def test_files_that_share_sector_are_refused(end: int, next_address: int, allowed: bool) -> None:
    files = [(0x0, "a.bin", end), (next_address, "b.bin", 10)]
    if allowed:
        assert len(plan(files).parts) == 2
        return
    [problem] = refusal(files)
    assert f"share the 4096-byte sector at {next_address // 4096 * 4096:#x}" in problem
    assert f"a.bin (0x0 to {end:#x})" in problem and "b.bin" in problem


@pytest.mark.parametrize(
    ("address", "size", "chip_size", "what"),
    [
        (0x1FF000, 4097, 2 * MIB, "beyond the chip's flash memory, which ends at 0x200000 (2 MiB)"),
        (0x200000, 1, 2 * MIB, "beyond the chip's flash memory"),
        (0xFFF000, 4097, 16 * MIB, "beyond the chip's flash memory, which ends at 0x1000000 (16 MiB)"),
        (0xFFF000, 4097, 32 * MIB, "beyond what the ROM can address, which ends at 0x1000000 (16 MiB)"),
        (0x1000000, 1, 128 * MIB, "beyond what the ROM can address"),
        (0xFFFFFFFC, 100, 4 * MIB, "beyond the chip's flash memory"),
    ],
)
def test_files_beyond_flash_memory_or_16_mib_are_refused(address: int, size: int, chip_size: int, what: str) -> None:
    [problem] = refusal([(address, "app.bin", size)], chip_size=chip_size)
    assert problem.startswith(f"app.bin ({address:#x} to {address + size:#x})")
    assert what in problem


@pytest.mark.parametrize("chip_size", [16 * MIB, 32 * MIB])
def test_file_may_end_where_flash_memory_ends(chip_size: int) -> None:
    assert plan([(0xFFF000, "app.bin", 4096)], chip_size=chip_size).parts[0].data == bytes(4096)


def test_empty_file_is_refused_with_its_address() -> None:
    assert refusal([(0x10000, "app.bin", 0)]) == ["app.bin for 0x10000 is empty."]


def test_build_without_files_is_refused() -> None:
    assert refusal([]) == ["The build has no files to flash."]


def test_all_problems_are_reported_at_once() -> None:
    problems = refusal([(2, "a.bin", 10), (0x100, "b.bin", 10), (0x500000, "c.bin", 10), (0x8000, "d.bin", 0)])
    assert len(problems) == 4
    for name, word in (("a.bin", "multiple"), ("b.bin", "share"), ("c.bin", "beyond"), ("d.bin", "empty")):
        assert any(name in problem and word in problem for problem in problems)


def test_file_starting_within_sector_cannot_be_cut() -> None:
    with pytest.raises(LayoutError) as caught:
        plan([(0x10800, "storage.bin", 16 * KIB)], part_size=4096)
    assert "storage.bin" in caught.value.notes[0] and "0x10800" in caught.value.notes[0]


def test_file_in_one_part_may_start_within_sector() -> None:
    assert [part.address for part in plan([(0x10800, "storage.bin", 16 * KIB)]).parts] == [0x10800]


def test_limits_come_from_chip() -> None:
    target = limits(index_records=4, name_length=40, part_size=8192)
    layout = plan([(0, "n" * 41, 7 * 4096)], target=target)
    assert layout.part_size == 3 * 4096
    assert len(layout.parts) == 3
    assert all(len(part.name) <= 40 for part in layout.parts)


def test_regions_are_checked_in_any_order() -> None:
    regions = [Region(0x2000, 10, "b"), Region(0x1000, 10, "a"), Region(0x1800, 10, "c")]
    [problem] = check_regions(regions, 4 * MIB, S3)
    assert problem.startswith("a (0x1000 to 0x100a) and c (0x1800 to 0x180a) share")
    assert check_regions(regions[:2], 4 * MIB, S3) == []
    assert check_regions([], 4 * MIB, S3) == []


# --- hypothesis -------------------------------------------------------------------------------------------

some_names = st.text("ab.@0x1_ž", min_size=1, max_size=6) | st.sampled_from(["a.bin", "a.bin.1", "n" * 62, "ž" * 33])
some_files = st.tuples(
    st.integers(0, 40).map(lambda n: n * 0x800),
    some_names.filter(lambda name: name not in (".", "..")),
    st.integers(1, 20000),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(some_files, min_size=1, max_size=4), st.sampled_from([4096, 8192]), st.sampled_from([6, 64]))
def test_accepted_layout_holds_every_byte_once_and_passes_check_image(
    files: list[tuple[int, str, int]], part_size: int, records: int
) -> None:
    target = limits(index_records=records)
    loaded = [
        LoadedFile(FlashFile(address, Path(name)), size, pattern(size, 3))
        for address, name, size in sorted(files, key=lambda file: file[0])
    ]
    try:
        with no_endless_loop():
            layout = plan_layout(loaded, 4 * MIB, target, part_size)
    except LayoutError as error:
        assert error.notes
        return
    assert len(layout.parts) < records
    sectors: set[int] = set()
    for part in layout.parts:
        own = set(range(part.address // 4096, (part.address + len(part.data) - 1) // 4096 + 1))
        assert not own & sectors, "the ROM would erase one for the other"
        sectors |= own
    written = {part.address + at: byte for part in layout.parts for at, byte in enumerate(part.data)}
    assert written == {each.file.address + at: byte for each in loaded for at, byte in enumerate(each.data)}
    params = FlashParams(4 * MIB, 65536, 4096, 256, 0xFFFF)
    image = parse_image(b"".join(encode_image(layout.parts, params, Suffix(0x303A, 9))))
    assert check_image(image, target) == []
