"""What a flash asks the serial loader before the first block, and what it refuses then."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
import pytest

from esp_dfu_ext import FlashOptions
from esp_dfu_ext.dfu.spec import Mode
from esp_dfu_ext.errors import (
    DeviceGoneError,
    DfuSilentError,
    FlashTooSmallError,
    InterruptedByUserError,
    SecuredBoardError,
    TransferTimeoutError,
)
from esp_dfu_ext.events import BoardIdentified, Event, Notice, Phase, PhaseStarted
from esp_dfu_ext.image.esp_image import is_signed
from esp_dfu_ext.loader import rom_loader
from esp_dfu_ext.loader.rom_loader import Identity, Security
from esp_dfu_ext.loader.sync import ANSWER_SIZE, ANSWERS
from esp_dfu_ext.operations import acquaint
from esp_dfu_ext.operations.acquaint import boot_problems, check_fits
from esp_dfu_ext.operations.flash_setup import FlashSetup
from esp_dfu_ext.operations.gang import Gang
from esp_dfu_ext.operations.restart import NO_RESET
from esp_dfu_ext.simulator import Board
from esp_dfu_ext.simulator.board import Answer, Moment, hang, vanish
from esp_dfu_ext.simulator.rom import TransferNak

from .kit.archives import CHIP_SIZE, File, checked, content, fill, image_of
from .kit.boards import Rig, make_rig
from .kit.chips import NAMES, chip, chips
from .kit.esptool_chips import KNOWN
from .kit.host import DNLOAD
from .kit.projects import app_description, esp_image


def fast(board: Board) -> bool:
    """Return True if the ROM has left its first loop."""
    return board.rom.loader is not None and board.rom.loader.active


def notice(rig: Rig, code: str) -> str:
    """Return the text of the only notice with this code."""
    (text,) = [event.message for event in rig.events if isinstance(event, Notice) and event.code == code]
    return text


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", [Mode.RUN_TIME, Mode.DFU])
@pytest.mark.parametrize("strict", [False, True])
def test_flash_takes_chip_into_fast_loop(name: str, mode: Mode, strict: bool) -> None:
    rig = make_rig(name, mode=mode)
    result = rig.flash(strict=strict)
    rig.assert_flashed()
    assert fast(rig.board)
    if name not in KNOWN:
        assert rig.notices() == ["no-loader"]
        assert "does not know" in notice(rig, "no-loader")
        return
    assert result.mac == "7c:df:a1:00:00:01"
    assert [e for e in rig.events if isinstance(e, BoardIdentified)] == [
        BoardIdentified("1-1", "7c:df:a1:00:00:01", rig.board.rom.flash.size, False, False)
    ]


def test_interfaces_are_held_to_the_end_and_given_back() -> None:
    rig = make_rig()
    held: list[set[int]] = []
    rig.after = lambda transfer: held.append(set(rig.board.holders)) if transfer.request == DNLOAD else None
    rig.flash()
    assert set(map(frozenset, held)) == {frozenset({0, 1, 2})}
    assert rig.board.kernel_driver
    assert rig.board.holders == {}
    assert [t for t in rig.log if t.request_type == 0x21 and t.request in (0x20, 0x22)] == []


def test_no_loader_sends_nothing_to_it() -> None:
    rig = make_rig()
    result = rig.flash(no_loader=True)
    rig.assert_flashed()
    assert not fast(rig.board)
    assert result.mac is None
    assert rig.board.kernel_driver
    assert rig.notices() == []


def test_chip_file_turns_loader_off() -> None:
    rig = make_rig()
    target = rig.board.target
    assert target.serial_loader is not None
    off = msgspec.structs.replace(target.serial_loader, use=False)
    rig.flash(target=msgspec.structs.replace(target, serial_loader=off))
    assert not fast(rig.board)


def test_stop_does_not_wait_for_an_md5_that_never_comes() -> None:
    rig = make_rig("esp32s3", mode=Mode.DFU)
    options = FlashOptions(skip_flashed=True, after=NO_RESET)
    setup = FlashSetup(checked(target=rig.board.target), options, rig.bus, chips(), rig.clock, rig.handle)
    gang, begun = Gang(setup), 0.0

    def stop(event: Event) -> None:
        nonlocal begun
        if isinstance(event, PhaseStarted) and event.phase is Phase.COMPARE:
            begun = rig.clock.monotonic()
            rig.board.bulk_in = never  # type: ignore[method-assign]
            gang.stop()

    rig.on_event = stop
    outcome = gang.flash("1-1")
    assert isinstance(outcome.error, InterruptedByUserError)
    assert "nothing was written" in outcome.error.message
    assert rig.clock.monotonic() - begun < 1.5
    assert rig.handles == 0


def never(endpoint: int) -> bytes:
    """A serial port that says nothing any more."""
    raise TransferNak


def test_silent_loader_costs_two_seconds_and_one_notice() -> None:
    rig = make_rig("esp32s3", mode=Mode.DFU)
    board_bulk_in = rig.board.bulk_in

    def silent(endpoint: int) -> bytes:
        with suppress(Exception):
            board_bulk_in(endpoint)
        raise TransferNak

    rig.board.bulk_in = silent  # type: ignore[method-assign]
    before = rig.clock.monotonic()
    result = rig.flash()
    assert rig.clock.monotonic() - before <= 2.1
    assert rig.notices() == ["no-loader"]
    assert "does not answer" in notice(rig, "no-loader")
    assert result.mac is None
    rig.assert_flashed()


@pytest.mark.parametrize("lost", [0, 1, 3, 5])
def test_loader_that_is_silent_after_sync_costs_two_seconds(lost: int) -> None:
    rig = make_rig("esp32s3", mode=Mode.DFU)
    board_bulk_in, board_bulk_out, answers, syncs = rig.board.bulk_in, rig.board.bulk_out, [0], [0]

    def dies(endpoint: int) -> bytes:
        data = board_bulk_in(endpoint)
        answers[0] += 1
        if answers[0] > ANSWERS * ANSWER_SIZE:
            raise TransferNak
        return data

    def deaf_at_first(endpoint: int, data: bytes) -> None:
        syncs[0] += 1
        if syncs[0] > lost:
            board_bulk_out(endpoint, data)

    rig.board.bulk_in = dies  # type: ignore[method-assign]
    rig.board.bulk_out = deaf_at_first  # type: ignore[method-assign]
    before = rig.clock.monotonic()
    rig.flash()
    assert rig.clock.monotonic() - before <= 2.1
    assert rig.notices() == ["no-loader"]
    rig.assert_flashed()


def test_serial_port_held_by_another_program_is_a_notice() -> None:
    rig = make_rig(mode=Mode.DFU)
    rig.board.holders[1] = object()
    rig.flash()
    assert rig.notices() == ["no-loader"]
    rig.assert_flashed()
    assert not fast(rig.board)


def test_board_without_serial_interfaces_is_flashed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acquaint, "serial_interfaces", lambda device: None)
    rig = make_rig()
    rig.flash()
    rig.assert_flashed()
    assert rig.notices() == []


@pytest.mark.parametrize("error", [ImportError("No module named 'esptool'"), KeyError("esp32s3")])
def test_flash_works_without_esptool(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def no_classes() -> dict[str, Any]:
        raise error

    monkeypatch.setattr(rom_loader, "_esptool_classes", no_classes)
    rig = make_rig()
    rig.flash()
    assert fast(rig.board)
    assert rig.notices() == ["no-loader"]
    rig.assert_flashed()


def test_answers_that_make_no_sense_leave_board_unknown() -> None:
    rig = make_rig(mode=Mode.DFU)
    garble_after_sync(rig)
    rig.flash()
    assert rig.notices() == ["no-loader"]
    assert fast(rig.board)
    rig.assert_flashed()


def garble_after_sync(rig: Rig) -> None:
    """Let each answer after those to SYNC be a wrong byte."""
    bulk_in, seen = rig.board.bulk_in, [0]

    def garbled(endpoint: int) -> bytes:
        data = bulk_in(endpoint)
        seen[0] += 1
        return data if seen[0] <= 8 * 14 else b"\xc0"

    rig.board.bulk_in = garbled  # type: ignore[method-assign]


@pytest.mark.parametrize("at", [Moment.SERIAL_OUT, Moment.SERIAL_IN])
def test_board_that_leaves_in_sync_is_gone_with_nothing_written(at: Moment) -> None:
    rig = make_rig(mode=Mode.DFU)
    rig.board.faults.plan(vanish, at=at)
    with pytest.raises(DeviceGoneError) as caught:
        rig.flash()
    assert "Nothing was written." in caught.value.notes
    assert rig.dfu(DNLOAD) == []


def test_dfu_that_dies_after_sync_is_said() -> None:
    rig = make_rig(mode=Mode.DFU)

    def die(transfer: Any) -> None:
        rig.board.deaf = rig.board.deaf or transfer.is_dfu

    rig.before = die
    with pytest.raises(DfuSilentError, match="SYNC") as caught:
        rig.flash()
    assert any("Nothing was written." in note for note in caught.value.notes)


def test_dfu_that_dies_without_sync_is_another_error() -> None:
    rig = make_rig(mode=Mode.DFU)
    rig.before = lambda transfer: setattr(rig.board, "deaf", True)
    with pytest.raises(TransferTimeoutError):
        rig.flash(no_loader=True)


def test_block_that_hangs_once_is_begun_again_after_sync() -> None:
    rig = make_rig(mode=Mode.DFU)
    rig.board.faults.plan(hang, 5)
    rig.flash()
    rig.assert_flashed()
    assert rig.notices() == ["restart"]


def test_board_restarted_in_download_is_gone() -> None:
    rig = make_rig(mode=Mode.DFU)

    def rts_falls(board: Board, answer: Answer) -> bytes:
        board.control(0x21, 0x22, 3, b"", 0)
        board.control(0x21, 0x22, 1, b"", 0)
        return answer()

    rig.board.faults.plan(rts_falls, 20)
    with pytest.raises(DeviceGoneError):
        rig.flash()


# --- does it fit, does it boot ---------------------------------------------------------------------------

S3 = chip("esp32s3")
BOOT = S3.firmware.bootloader_offset
CODE = esp_image(S3.firmware.chip_id)  # says 4 MiB of flash memory
APP_CODE = esp_image(S3.firmware.chip_id, app=app_description("hello", "1"))
SIGNED = fill(CODE, 4096) + b"\xe7\x02" + bytes(4094)


def burn(rig: Rig) -> None:
    """Burn the eFuses of flash encryption on the only board."""
    loader, data = rig.board.rom.loader, rig.board.target.serial_loader
    assert loader is not None and data is not None
    loader.registers.burn(data.flash_encryption)


def test_image_that_ends_beyond_flash_memory_is_refused() -> None:
    rig = make_rig(mode=Mode.DFU)
    image = image_of([File(0x100000 - 0x1000, "data.bin", content(0x1001))], S3)
    with pytest.raises(FlashTooSmallError, match=r"1 MiB of flash memory, but data\.bin ends at 0x100001") as caught:
        rig.flash(image)
    assert (caught.value.end, caught.value.flash_size) == (0x100001, 0x100000)
    assert rig.dfu(DNLOAD) == []
    assert rig.board.kernel_driver


def test_image_that_ends_with_flash_memory_fits() -> None:
    rig = make_rig(mode=Mode.DFU)
    image = image_of([File(0x100000 - 0x1000, "data.bin", content(0x1000))], S3)
    rig.flash(image)
    rig.assert_flashed(image)
    assert rig.notices() == []


def test_flash_memory_of_unknown_size_takes_every_image() -> None:
    unknown = Identity("7c:df:a1:00:00:01", None, 0, Security(False, False))
    events: list[Any] = []
    check_fits(image_of([File(0xF00000, "data.bin", b"1234")], S3), S3, unknown, "1-1", events.append)
    assert events == []


def test_project_for_larger_flash_memory_is_a_notice() -> None:
    rig = make_rig(mode=Mode.DFU)
    rig.flash(image_of([File(BOOT, "bootloader.bin", CODE)], S3))
    assert "4 MiB of flash memory, but the board has 1 MiB" in notice(rig, "flash-size")
    assert "menuconfig" in notice(rig, "flash-size")


@pytest.mark.parametrize("secure_boot", [False, True])
@pytest.mark.parametrize("encryption", [False, True])
@pytest.mark.parametrize(
    ("files", "problems"),
    [
        ([File(BOOT, "b.bin", CODE)], (1, 1)),
        ([File(0x10000, "a.bin", APP_CODE)], (1, 1)),
        ([File(0x10000, "a.bin", SIGNED)], (0, 0)),  # no app: data
        ([File(BOOT, "b.bin", SIGNED)], (0, 1)),
        ([File(BOOT, "b.bin", content(4096))], (0, 0)),  # encrypted, or nothing that can be judged
    ],
)
def test_what_a_board_with_security_boots(
    files: list[File], problems: tuple[int, int], secure_boot: bool, encryption: bool
) -> None:
    found = boot_problems(image_of(files, S3), S3, Security(secure_boot, encryption))
    assert len(found) == problems[0] * secure_boot + problems[1] * encryption


@pytest.mark.parametrize("name", KNOWN)
def test_image_that_board_would_not_boot_needs_force(name: str) -> None:
    target = chip(name)
    code = esp_image(target.firmware.chip_id)
    image = image_of([File(target.firmware.bootloader_offset, "bootloader.bin", code)], target, CHIP_SIZE)
    rig = make_rig(name, mode=Mode.DFU)
    burn(rig)
    with pytest.raises(SecuredBoardError) as caught:
        rig.flash(image, target)
    assert [note for note in caught.value.notes if "bootloader.bin is not encrypted" in note]
    assert rig.dfu(DNLOAD) == []
    rig.flash(image, target, force=True)
    assert rig.notices().count("forced") == 1
    rig.assert_flashed(image)


def test_signature_is_found_in_next_sector_only() -> None:
    assert is_signed(SIGNED)
    assert not is_signed(fill(CODE, 4096) + bytes(2))
    assert not is_signed(CODE)
    assert not is_signed(CODE[:40])
    assert not is_signed(content(9000))
