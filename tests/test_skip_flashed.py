"""What `--skip-flashed` sends: only what the flash memory does not hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esp_dfu_ext.commands.flash_run import FlashArguments
from esp_dfu_ext.dfu.spec import Mode
from esp_dfu_ext.errors import DeviceGoneError, SerialLoaderError, UsageError
from esp_dfu_ext.events import Flashed, PartsSkipped
from esp_dfu_ext.image.changes import changed_image
from esp_dfu_ext.image.check import check_image
from esp_dfu_ext.image.format import DfuImage, md5
from esp_dfu_ext.loader.rom_loader import RomLoader
from esp_dfu_ext.simulator import simulate_text
from esp_dfu_ext.simulator.nor import NorFlash

from .kit.archives import CHIP_SIZE, MIB, File, content, dfu_image, image_of
from .kit.boards import Rig, assert_flashed, make_rig
from .kit.chips import chip, chips
from .kit.esptool_chips import KNOWN
from .kit.host import DNLOAD
from .test_acquaint import notice

S3 = chip("esp32s3")
BLOCK = S3.flash.block
LARGE = File(0x10000, "app.bin", content(5 * BLOCK + 1000, 7))
SMALL = File(0x8000, "partition-table.bin", content(3000, 8))
FILES = [SMALL, LARGE]


def holding(name: str, files: list[File], mode: Mode = Mode.DFU) -> Rig:
    """Return a board whose flash memory holds the files."""
    rig = make_rig(name, mode=mode)
    for file in files:
        rig.board.rom.flash.program(file.address, file.data)
    return rig


def with_byte_changed(file: File, at: int) -> File:
    """Return a file of which one byte is different."""
    return File(file.address, file.name, file.data[:at] + bytes([file.data[at] ^ 0xFF]) + file.data[at + 1 :])


def payload(image: DfuImage) -> int:
    """Return the number of bytes of the files."""
    return image.payload_size


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("mode", [Mode.RUN_TIME, Mode.DFU])
def test_nothing_is_sent_if_flash_memory_holds_everything(name: str, mode: Mode) -> None:
    target = chip(name)
    image = image_of(FILES, target, CHIP_SIZE)
    rig = holding(name, FILES, mode)
    result = rig.flash(image, target, skip_flashed=True)
    assert rig.dfu(DNLOAD) == []
    assert (result.size, result.skipped, result.status, result.state) == (0, payload(image), "OK", "dfuIDLE")
    assert [e for e in rig.events if isinstance(e, PartsSkipped)] == [
        PartsSkipped("1-1", payload(image), payload(image))
    ]
    assert rig.phases() == (["detach"] if mode is Mode.RUN_TIME else []) + ["compare"]
    assert rig.board.kernel_driver


@pytest.mark.parametrize("name", KNOWN)
def test_only_the_block_that_changed_is_sent(name: str) -> None:
    target = chip(name)
    at = 2 * BLOCK + 17
    image = image_of([SMALL, with_byte_changed(LARGE, at)], target, CHIP_SIZE)
    rig = holding(name, FILES)
    written: list[tuple[int, int]] = []
    program = rig.board.rom.flash.program

    def watch(address: int, data: bytes) -> None:
        written.append((address, address + len(data)))
        program(address, data)

    rig.board.rom.flash.program = watch  # type: ignore[method-assign]
    result = rig.flash(image, target, skip_flashed=True)
    rig.assert_flashed(image)
    assert (result.size, result.skipped) == (BLOCK, payload(image) - BLOCK)
    assert min(written)[0] == LARGE.address + 2 * BLOCK
    assert max(written)[1] == LARGE.address + 3 * BLOCK
    assert [(e.size, e.skipped) for e in rig.events if isinstance(e, Flashed)] == [(result.size, result.skipped)]


@pytest.mark.parametrize("name", KNOWN)
def test_empty_board_gets_everything(name: str) -> None:
    rig = make_rig(name)
    result = rig.flash(skip_flashed=True)
    rig.assert_flashed()
    assert result.skipped == 0
    assert not [e for e in rig.events if isinstance(e, PartsSkipped)]


def test_without_the_option_everything_is_sent() -> None:
    rig = holding("esp32s3", FILES)
    image = image_of(FILES, S3, CHIP_SIZE)
    assert rig.flash(image).size == payload(image)
    assert "compare" not in rig.phases()


def test_flash_memory_beyond_what_the_rom_assumes_is_compared() -> None:
    file = File(S3.flash.assumed_size + 0x10000, "data.bin", content(5000))
    rig = make_rig(mode=Mode.DFU)
    rig.board.rom.flash.__init__(4 * MIB, S3.flash.sector)  # type: ignore[misc]
    rig.board.rom.flash.program(file.address, file.data)
    rig.flash(image_of([file], S3), skip_flashed=True)
    assert rig.dfu(DNLOAD) == []


def test_board_in_the_middle_of_a_download_is_back_in_idle() -> None:
    rig = holding("esp32s3", FILES)
    image = image_of(FILES, S3, CHIP_SIZE)
    rig.board.control(0x21, DNLOAD, 0, bytes(image.stream[:64]), 64)
    assert rig.flash(image, skip_flashed=True).state == "dfuIDLE"
    assert rig.dfu(DNLOAD) == []


def test_loader_that_does_not_answer_means_everything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(loader: RomLoader, address: int, size: int) -> bytes:
        raise SerialLoaderError("Port 1-1: the serial loader did not compute an MD5.")

    monkeypatch.setattr(RomLoader, "md5", fail)
    rig = holding("esp32s3", FILES)
    image = image_of(FILES, S3, CHIP_SIZE)
    assert rig.flash(image, skip_flashed=True).size == payload(image)
    assert rig.notices() == ["no-loader"]
    assert "the whole image is sent" in notice(rig, "no-loader")
    rig.assert_flashed(image)


def test_unknown_board_gets_everything_and_says_so() -> None:
    rig = holding("esp32s3", FILES)
    rig.board.holders[1] = object()
    image = image_of(FILES, S3, CHIP_SIZE)
    assert rig.flash(image, skip_flashed=True).size == payload(image)
    assert rig.notices() == ["no-loader", "no-loader"]
    rig.assert_flashed(image)


def test_board_that_leaves_while_it_is_compared_is_gone() -> None:
    rig = holding("esp32s3", FILES)
    rig.on_event = lambda event: rig.board.unplug() if getattr(event, "phase", None) and not rig.dfu(DNLOAD) else None
    with pytest.raises(DeviceGoneError) as caught:
        rig.flash(image_of(FILES, S3, CHIP_SIZE), skip_flashed=True)
    assert "Nothing was written." in caught.value.notes


@pytest.mark.parametrize("options", [{"no_loader": True}, {"over": "serial"}])
def test_options_that_contradict_it(options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="--skip-flashed"):
        FlashArguments(skip_flashed=True, **options).check()  # type: ignore[arg-type]


def test_simulated_board_holds_an_image(tmp_path: Path) -> None:
    path = tmp_path / "dfu.bin"
    path.write_bytes(dfu_image(FILES, S3.usb.pid, chip_size=CHIP_SIZE))
    (board,) = simulate_text(f"esp32s3+holds={path}", chips()).boards
    assert_flashed(board.rom.flash.read, FILES)


# --- how files are cut ------------------------------------------------------------------------------------


def changed(image: DfuImage, flash: NorFlash) -> DfuImage | None:
    """Return what the flash memory does not hold."""
    return changed_image(image, S3, lambda at, data: md5(flash.read(at, len(data))).digest() == md5(data).digest())


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6 * BLOCK), min_size=1, max_size=5),
    starts=st.lists(st.integers(0, 20), min_size=5, max_size=5),
    damage=st.lists(st.integers(0, 4 * MIB - 1), max_size=40),
)
def test_flash_memory_is_right_after_sending_what_differs(
    sizes: list[int], starts: list[int], damage: list[int]
) -> None:
    sector, address, files = S3.flash.sector, 0, []
    for number, (size, start) in enumerate(zip(sizes, starts)):
        address += start * sector
        files.append(File(address, "data.bin" if number == 0 else f"data.bin.{number}", content(size, number)))
        address = -(-(address + size) // sector) * sector
    image, flash = image_of(files, S3), NorFlash(4 * MIB, sector)
    for file in files:
        flash.program(file.address, file.data)
    for at in damage:
        flash.program(at, b"\0")
    part = changed(image, flash)
    if part is None:
        assert_flashed(flash.read, image)
        return
    assert check_image(part, S3) == []
    assert part.payload_size <= image.payload_size
    assert len(part.records) <= S3.dfu.index_records
    for member in part.flash_members:
        assert member.record is not None
        flash.erase(member.record.address, len(member.data))
        flash.program(member.record.address, bytes(member.data))
    assert_flashed(flash.read, image)


def test_index_has_at_most_as_many_records_as_the_rom_takes() -> None:
    size = 130 * BLOCK
    image = image_of([File(0, "a.bin", content(size))], S3, 16 * MIB)
    flash = NorFlash(16 * MIB, S3.flash.sector)
    flash.program(0, content(size))
    for block in range(0, 130, 2):  # 65 stretches
        flash.erase(block * BLOCK, 1)
    part = changed(image, flash)
    assert part is not None
    assert len(part.records) == S3.dfu.index_records
    assert part.payload_size == 67 * BLOCK
    assert check_image(part, S3) == []


def test_cuts_are_at_erase_blocks() -> None:
    file = File(BLOCK + 0x3000, "a.bin", content(4 * BLOCK))
    flash = NorFlash(MIB, S3.flash.sector)
    flash.program(file.address, file.data)
    flash.erase(3 * BLOCK, 1)
    part = changed(image_of([file], S3, MIB), flash)
    assert part is not None
    assert [(record.address, record.flags) for record in part.records[1:]] == [(3 * BLOCK, 0)]
    assert part.payload_size == BLOCK


def test_longest_names_stay_within_the_index() -> None:
    name = "n" * S3.dfu.name_length
    file = File(0, name, content(3 * BLOCK))
    flash = NorFlash(MIB, S3.flash.sector)
    flash.program(0, file.data)
    flash.erase(2 * BLOCK, 1)
    part = changed(image_of([file], S3, MIB), flash)
    assert part is not None
    assert check_image(part, S3) == []
    assert [len(member.data) for member in part.flash_members] == [BLOCK]


def test_image_without_flash_params_is_not_cut() -> None:
    from esp_dfu_ext.image.format import parse_image

    from .kit.archives import archive, dfu_file

    image = parse_image(dfu_file(archive(FILES, None), S3.usb.pid))
    flash = NorFlash(MIB, S3.flash.sector)
    flash.program(SMALL.address, SMALL.data)
    assert changed(image, flash) is image
