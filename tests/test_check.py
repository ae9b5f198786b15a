"""An image that somebody else made: each thing that the ROM would get wrong of it is said."""

from __future__ import annotations

import pytest

from esp_dfu_ext.image.check import check_image
from esp_dfu_ext.image.format import parse_image

from .kit.archives import PARAMS_FLAGS, TRAILER, File, cpio_member, dfu_file, dfu_image, flash_params, index_record
from .kit.chips import S3

PARAMS = flash_params()
PARAMS_MEMBER = cpio_member("flash_params.dat", PARAMS)
PARAMS_RECORD = index_record(0, "flash_params.dat", PARAMS, PARAMS_FLAGS)
A, B = b"a" * 100, b"b" * 100


def index(*records: bytes) -> bytes:
    return cpio_member("dfuinfo0.dat", b"".join(records))


def problems(*members: bytes) -> list[str]:
    return check_image(parse_image(dfu_file(b"".join([*members, TRAILER]))), S3)


def problems_of(*files: tuple[str, int, bytes], chip_size: int = 4 << 20) -> list[str]:
    image = dfu_image([File(address, name, data) for name, address, data in files], chip_size=chip_size)
    return check_image(parse_image(image), S3)


def test_a_sound_image_has_no_problems() -> None:
    assert problems_of(("a.bin", 0x0, A), ("b.bin", 0x1000, B), ("ž" * 31 + "z", 0x3FF000, bytes(4096))) == []


def test_an_archive_that_is_too_short_would_be_programmed_raw() -> None:
    found = problems()
    assert any("124 bytes" in p and "232" in p and "raw" in p for p in found)
    assert any("no index" in p for p in found)


@pytest.mark.parametrize("members", [[PARAMS_MEMBER, cpio_member("a", A)], [index(), PARAMS_MEMBER]])
def test_an_image_without_an_index_would_write_nothing(members: list[bytes]) -> None:
    assert "There is no index, or an empty one: the ROM would report success and write nothing." in problems(*members)


def test_members_before_the_index_would_be_lost() -> None:
    [problem] = problems(PARAMS_MEMBER, index(PARAMS_RECORD, index_record(0, "a", A)), cpio_member("a", A))
    assert "not the first member" in problem


def test_a_member_that_is_not_in_the_index_would_be_skipped() -> None:
    [problem] = problems(
        index(PARAMS_RECORD, index_record(0, "a", A)), PARAMS_MEMBER, cpio_member("a", A), cpio_member("b", B)
    )
    assert problem == "b is in the archive, but not in the index: the ROM would skip it."


def test_what_follows_a_member_that_is_not_in_the_index_is_checked_too() -> None:
    found = problems(
        index(PARAMS_RECORD, index_record(0, "a", B)), PARAMS_MEMBER, cpio_member("b", B), cpio_member("a", A)
    )
    assert [problem.split()[0] for problem in found] == ["b", "a"]


def test_flash_params_that_come_late_or_twice_are_told() -> None:
    record = index_record(0, "p2", PARAMS, PARAMS_FLAGS)
    members = index(PARAMS_RECORD, record, index_record(0, "a", A)), cpio_member("a", A), cpio_member("p2", PARAMS)
    late, several = problems(*members, PARAMS_MEMBER)
    assert "flash parameters" in late and "after other members" in late
    assert several.startswith("2 members hold flash parameters")


def test_a_second_index_is_refused() -> None:
    one = index(PARAMS_RECORD, index_record(0, "a", A))
    second, skipped = problems(one, PARAMS_MEMBER, cpio_member("a", A), one)
    assert "more than one dfuinfo0.dat" in second
    assert "dfuinfo0.dat is in the archive, but not in the index" in skipped


def test_a_record_without_its_member_is_told() -> None:
    [problem] = problems(
        index(PARAMS_RECORD, index_record(0, "a", A), index_record(0x1000, "b", B)), PARAMS_MEMBER, cpio_member("a", A)
    )
    assert problem == "b is in the index, but not in the archive."


def test_a_name_that_comes_twice_is_told() -> None:
    found = problems_of(("a.bin", 0x0, A), ("a.bin", 0x1000, B))
    assert any("2 members are called a.bin" in p for p in found)
    assert any("2 records are called a.bin" in p for p in found)


@pytest.mark.parametrize("name", ["n" * 64, "ž" * 32])
def test_a_name_that_the_rom_would_never_find_is_told(name: str) -> None:
    [problem] = problems_of((name, 0x0, A))
    assert name in problem and "63 bytes" in problem


def test_too_many_records_are_told() -> None:
    assert problems_of(*((f"{n}", 0x1000 * n, A) for n in range(63))) == []
    [problem] = problems_of(*((f"{n}", 0x1000 * n, A) for n in range(64)))
    assert "65 records" in problem and "64" in problem and "errFILE" in problem


def test_content_that_does_not_fit_its_md5_is_told() -> None:
    [problem] = problems(index(PARAMS_RECORD, index_record(0, "a", B)), PARAMS_MEMBER, cpio_member("a", A))
    assert problem == "a does not have the MD5 that the index says."


@pytest.mark.parametrize("flags", [1, 2, 3, 4, 8, 16, 24, 32, 0x80000000])
def test_flags_that_no_flash_file_has_are_told(flags: int) -> None:
    found = problems(index(PARAMS_RECORD, index_record(0, "a", A, flags)), PARAMS_MEMBER, cpio_member("a", A))
    assert f"a has the flags {flags:#x}, which no flash file has." in found


@pytest.mark.parametrize(
    ("files", "word"),
    [
        ([("a", 0x0, bytes(0x1001)), ("b", 0x1800, B)], "share the 4096-byte sector at 0x1000"),
        ([("a", 0x0, bytes(0x1001)), ("b", 0x1000, B)], "a (0x0 to 0x1001) and b (0x1000 to 0x1064) overlap"),
        ([("a", 0x2, A)], "multiple of 4"),
        ([("a", 0x1000, b"")], "a for 0x1000 is empty"),
        ([("a", 0x3FFFF0, A)], "beyond the chip's flash, which ends at 0x400000"),
        ([("a", 0x0, bytes(0x1800)), ("a.1", 0x1800, bytes(0x1800))], "share"),
    ],
)
def test_regions_that_the_rom_would_flash_wrongly_are_told(files: list[tuple[str, int, bytes]], word: str) -> None:
    [problem] = problems_of(*files)
    assert word in problem


def test_beyond_16_mib_the_rom_would_wrap_around() -> None:
    assert problems_of(("a", 0xFFF000, bytes(4096)), chip_size=32 << 20) == []
    [problem] = problems_of(("a", 0xFFF000, bytes(4097)), chip_size=32 << 20)
    assert "beyond what the ROM can address, which ends at 0x1000000" in problem


def test_without_flash_params_the_rom_believes_in_2_mib() -> None:
    def found(address: int) -> list[str]:
        return problems(index(index_record(address, "a", bytes(4096))), cpio_member("a", bytes(4096)))

    assert found(0x1FF000) == []
    [problem] = found(0x200000)
    assert "which ends at 0x200000 (2 MiB)" in problem
