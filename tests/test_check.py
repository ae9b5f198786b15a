"""Everything that the ROM would get wrong about an image is reported."""

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


def test_good_image_has_no_problems() -> None:
    assert problems_of(("a.bin", 0x0, A), ("b.bin", 0x1000, B), ("ž" * 31 + "z", 0x3FF000, bytes(4096))) == []


def test_short_stream_would_be_written_raw() -> None:
    found = problems()
    assert any("124 bytes" in p and "232" in p and "raw" in p for p in found)
    assert any("dfuinfo0.dat is missing or empty" in p for p in found)


@pytest.mark.parametrize("members", [[PARAMS_MEMBER, cpio_member("a", A)], [index(), PARAMS_MEMBER]])
def test_image_without_index_would_write_nothing(members: list[bytes]) -> None:
    assert "dfuinfo0.dat is missing or empty: the ROM would report success and write nothing." in problems(*members)


def test_members_before_index_would_be_lost() -> None:
    [problem] = problems(PARAMS_MEMBER, index(PARAMS_RECORD, index_record(0, "a", A)), cpio_member("a", A))
    assert "not the first member" in problem


def test_member_missing_from_index_would_be_skipped() -> None:
    [problem] = problems(
        index(PARAMS_RECORD, index_record(0, "a", A)), PARAMS_MEMBER, cpio_member("a", A), cpio_member("b", B)
    )
    assert problem == "b is in the archive but not in the index: the ROM would skip it."


def test_members_after_one_missing_from_index_are_checked() -> None:
    found = problems(
        index(PARAMS_RECORD, index_record(0, "a", B)), PARAMS_MEMBER, cpio_member("b", B), cpio_member("a", A)
    )
    assert [problem.split()[0] for problem in found] == ["b", "a"]


def test_late_and_repeated_flash_params_are_reported() -> None:
    record = index_record(0, "p2", PARAMS, PARAMS_FLAGS)
    members = index(PARAMS_RECORD, record, index_record(0, "a", A)), cpio_member("a", A), cpio_member("p2", PARAMS)
    late, several = problems(*members, PARAMS_MEMBER)
    assert "flash parameters" in late and "after other members" in late
    assert several.startswith("2 members hold flash parameters")


def test_second_index_is_reported() -> None:
    one = index(PARAMS_RECORD, index_record(0, "a", A))
    second, skipped = problems(one, PARAMS_MEMBER, cpio_member("a", A), one)
    assert "several members named dfuinfo0.dat" in second
    assert "dfuinfo0.dat is in the archive but not in the index" in skipped


def test_record_without_member_is_reported() -> None:
    [problem] = problems(
        index(PARAMS_RECORD, index_record(0, "a", A), index_record(0x1000, "b", B)), PARAMS_MEMBER, cpio_member("a", A)
    )
    assert problem == "b is in the index but not in the archive."


def test_repeated_name_is_reported() -> None:
    found = problems_of(("a.bin", 0x0, A), ("a.bin", 0x1000, B))
    assert any("2 members are named a.bin" in p for p in found)
    assert any("2 records are named a.bin" in p for p in found)


@pytest.mark.parametrize("name", ["n" * 64, "ž" * 32])
def test_name_too_long_for_rom_is_reported(name: str) -> None:
    [problem] = problems_of((name, 0x0, A))
    assert name in problem and "63 bytes" in problem


def test_too_many_records_are_reported() -> None:
    assert problems_of(*((f"{n}", 0x1000 * n, A) for n in range(63))) == []
    [problem] = problems_of(*((f"{n}", 0x1000 * n, A) for n in range(64)))
    assert "65 records" in problem and "64" in problem and "errFILE" in problem


def test_wrong_md5_is_reported() -> None:
    [problem] = problems(index(PARAMS_RECORD, index_record(0, "a", B)), PARAMS_MEMBER, cpio_member("a", A))
    assert problem == "a does not match its MD5 in the index."


@pytest.mark.parametrize("flags", [1, 2, 3, 4, 8, 16, 24, 32, 0x80000000])
def test_unexpected_flags_are_reported(flags: int) -> None:
    found = problems(index(PARAMS_RECORD, index_record(0, "a", A, flags)), PARAMS_MEMBER, cpio_member("a", A))
    assert f"a has flags {flags:#x} in the index; a flash file has 0x0." in found


@pytest.mark.parametrize(
    ("files", "word"),
    [
        ([("a", 0x0, bytes(0x1001)), ("b", 0x1800, B)], "share the 4096-byte sector at 0x1000"),
        ([("a", 0x0, bytes(0x1001)), ("b", 0x1000, B)], "a (0x0 to 0x1001) and b (0x1000 to 0x1064) overlap"),
        ([("a", 0x2, A)], "multiple of 4"),
        ([("a", 0x1000, b"")], "a for 0x1000 is empty"),
        ([("a", 0x3FFFF0, A)], "beyond the chip's flash memory, which ends at 0x400000"),
        ([("a", 0x0, bytes(0x1800)), ("a.1", 0x1800, bytes(0x1800))], "share"),
    ],
)
def test_regions_that_rom_would_flash_wrongly_are_reported(files: list[tuple[str, int, bytes]], word: str) -> None:
    [problem] = problems_of(*files)
    assert word in problem


def test_region_beyond_16_mib_is_reported() -> None:
    assert problems_of(("a", 0xFFF000, bytes(4096)), chip_size=32 << 20) == []
    [problem] = problems_of(("a", 0xFFF000, bytes(4097)), chip_size=32 << 20)
    assert "beyond what the ROM can address, which ends at 0x1000000" in problem


def test_without_flash_params_limit_is_2_mib() -> None:
    def found(address: int) -> list[str]:
        return problems(index(index_record(address, "a", bytes(4096))), cpio_member("a", bytes(4096)))

    assert found(0x1FF000) == []
    [problem] = found(0x200000)
    assert "which ends at 0x200000 (2 MiB)" in problem
