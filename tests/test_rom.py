"""The DFU device of the simulated ROM: descriptor bytes, requests, states."""

from __future__ import annotations

import pytest

from esp_dfu_ext.dfu.spec import Mode, Status
from esp_dfu_ext.simulator import Rom
from esp_dfu_ext.simulator.board import DeviceGone
from esp_dfu_ext.simulator.rom import ControlStall, ControlTimeout

from .kit.archives import FILES, MIB, File, archive, archive_of, content, params
from .kit.boards import assert_flashed, make_rig
from .kit.chips import NAMES
from .kit.host import (
    ABORT,
    APP_IDLE,
    CLRSTATUS,
    DETACH,
    DNLOAD,
    DNLOAD_IDLE,
    ERR_FIRMWARE,
    ERR_TARGET,
    ERR_UNKNOWN,
    ERROR,
    GETSTATE,
    GETSTATUS,
    IDLE,
    MANIFEST_SYNC,
    OK,
    UPLOAD,
    UPLOAD_IDLE,
    blocks,
    dnload,
    download,
    get_state,
    get_status,
    new_rom,
    send,
)

GOOD = archive(FILES)


def _request(rom: Rom, request: int, value: int = 0, length: int = 0) -> bytes:
    return rom.control(0xA1 if length else 0x21, request, value, b"", length)


def _descriptor(rom: Rom, kind: int, index: int = 0, length: int = 255) -> bytes:
    return rom.control(0x80, 6, kind << 8 | index, b"", length)


def _with_error(rom: Rom) -> int:
    """Bring the ROM to dfuERROR with a file that does not match its MD5."""
    assert send(rom, archive_of([File(0x1000, "a", b"other")], [File(0x1000, "a", content(500))])) == ERR_FIRMWARE
    return ERR_FIRMWARE


# --- descriptors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("esp32s2", "12010002ef0201403a300200230701020301"),
        ("esp32s3", "12010002ef0201403a300900280701020301"),
        ("esp32p4", "12010002ef0201403a301200120901020301"),
        ("esp32s31", "12010002ef0201403a302000640701020301"),
    ],
)
def test_device_descriptor(name: str, expected: str) -> None:
    for mode in Mode:
        assert _descriptor(new_rom(name, mode=mode), 1) == bytes.fromhex(expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("mode", "protocol"), [(Mode.RUN_TIME, "01"), (Mode.DFU, "02")])
def test_configuration_descriptor(name: str, mode: Mode, protocol: str) -> None:
    expected = bytes.fromhex(
        "09 02 5d 00 03 01 00 c0 fa"
        "08 0b 00 02 02 02 00 00"
        "09 04 00 00 01 02 02 00 00"
        "05 24 00 10 01  04 24 02 02  05 24 06 00 01  05 24 01 03 01"
        "07 05 85 03 40 00 01"
        "09 04 01 00 02 0a 02 00 00"
        "07 05 03 02 40 00 01"
        "07 05 84 02 40 00 01"
        f"09 04 02 00 00 fe 01 {protocol} 00"
        "09 21 0f bc 02 40 00 10 01"
    )
    assert len(expected) == 93
    assert _descriptor(new_rom(name, mode=mode), 2) == expected


def test_descriptor_is_cut_to_requested_length() -> None:
    assert _descriptor(new_rom(), 2, length=9) == bytes.fromhex("09025d00030100c0fa")
    assert _descriptor(new_rom(), 1, length=8) == bytes.fromhex("12010002ef020140")


@pytest.mark.parametrize(
    ("name", "product"),
    [("esp32s2", "ESP32-S2"), ("esp32s3", "ESP32-S3"), ("esp32p4", "ESP32-P4"), ("esp32s31", "ESP32-S31")],
)
def test_strings(name: str, product: str) -> None:
    board = make_rig(name).board
    serial = "0" if name == "esp32s2" else "7c:df:a1:00:00:01"
    assert _descriptor(board.rom, 3, 0) == b"\x04\x03\x09\x04"
    for index, text in ((1, "Espressif"), (2, product), (3, serial)):
        raw = _descriptor(board.rom, 3, index)
        assert raw[0] == len(raw)
        assert raw[1] == 3
        assert raw[2:].decode("utf-16-le") == text


def test_other_descriptors_stall() -> None:
    rom = new_rom()
    for kind, index in ((3, 0xEE), (3, 4), (0x0F, 0), (2, 1), (0x22, 0)):
        with pytest.raises(ControlStall):
            _descriptor(rom, kind, index)
    with pytest.raises(ControlStall):
        rom.control(0xC0, 0x20, 0, b"", 64)


# --- GETSTATUS, GETSTATE ----------------------------------------------------------------------------------


def test_poll_timeout_is_256_ms_in_every_state() -> None:
    seen = {}
    rom = new_rom(mode=Mode.RUN_TIME)
    seen[APP_IDLE] = get_status(rom)
    rom.restart(Mode.DFU)
    seen[IDLE] = get_status(rom)
    dnload(rom, GOOD[:64])
    seen[DNLOAD_IDLE] = get_status(rom)
    _request(rom, ABORT)
    _with_error(rom)
    seen[ERROR] = get_status(rom)
    _request(rom, CLRSTATUS)
    _request(rom, UPLOAD, 0, 64)
    seen[UPLOAD_IDLE] = get_status(rom)
    assert {state: answer[1:] for state, answer in seen.items()} == {state: (256, state) for state in seen}
    assert {state for state, answer in seen.items() if answer[0] != OK} == {ERROR}


def test_getstatus_answer_bytes() -> None:
    assert _request(new_rom(), GETSTATUS, length=6) == bytes.fromhex("00 000100 02 00")


def test_getstate_changes_nothing() -> None:
    rom = new_rom()
    download(rom, GOOD)
    dnload(rom, b"")
    assert [get_state(rom), get_state(rom)] == [MANIFEST_SYNC, MANIFEST_SYNC]
    assert get_status(rom) == (OK, 256, IDLE)


# --- run-time ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_", [DNLOAD, UPLOAD, CLRSTATUS, ABORT])
def test_run_time_mode_stalls_download_requests(request_: int) -> None:
    rom = new_rom(mode=Mode.RUN_TIME)
    with pytest.raises(ControlStall):
        _request(rom, request_, length=64 if request_ == UPLOAD else 0)
    assert get_status(rom)[2] == APP_IDLE


def test_board_starts_in_run_time_mode() -> None:
    rom = make_rig().board.rom
    assert rom.mode is Mode.RUN_TIME
    assert get_state(rom) == APP_IDLE


# --- DETACH -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["idle", "download"])
def test_detach_in_dfu_mode_stalls_and_enters_appidle(before: str) -> None:
    rom = new_rom()
    if before == "download":
        dnload(rom, GOOD[:64])
    with pytest.raises(ControlStall):
        _request(rom, DETACH, 700)
    assert get_status(rom)[2] == APP_IDLE


# --- DNLOAD -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 63, 64])
def test_block_leads_straight_to_dnload_idle(length: int) -> None:
    rom = new_rom()
    dnload(rom, GOOD[:length])
    assert get_state(rom) == DNLOAD_IDLE
    assert get_status(rom) == (OK, 256, DNLOAD_IDLE)


@pytest.mark.parametrize("interval", [0, 1, 2, 16, 100])
def test_getstatus_between_blocks_is_optional(interval: int) -> None:
    rom = new_rom()
    for number, block in enumerate(blocks(GOOD)):
        dnload(rom, block, number)
        if interval and number % interval == 0:
            assert get_status(rom) == (OK, 256, DNLOAD_IDLE)
    dnload(rom, b"")
    assert get_status(rom) == (OK, 256, IDLE)
    assert_flashed(rom.flash.read, FILES)


def test_block_number_is_ignored() -> None:
    rom = new_rom()
    for number, block in enumerate(blocks(GOOD)):
        dnload(rom, block, (number * 7919 + 5) & 0xFFFF)
    dnload(rom, b"", 0)
    assert get_status(rom) == (OK, 256, IDLE)
    assert_flashed(rom.flash.read, FILES)


@pytest.mark.parametrize("length", [1, 4, 32, 48])
def test_short_blocks_are_accepted(length: int) -> None:
    rom = new_rom()
    download(rom, GOOD, length)
    dnload(rom, b"")
    assert get_status(rom) == (OK, 256, IDLE)
    assert_flashed(rom.flash.read, FILES)


@pytest.mark.parametrize("blocks_before", [0, 10])
@pytest.mark.parametrize("length", [65, 128, 4096])
def test_block_over_64_bytes_times_out_unconsumed(blocks_before: int, length: int) -> None:
    rom = new_rom()
    start = 64 * blocks_before
    download(rom, GOOD[:start])
    state = get_state(rom)
    with pytest.raises(ControlTimeout):
        dnload(rom, GOOD[start : start + length])
    assert get_state(rom) == state
    assert send(rom, GOOD[start:]) == OK
    assert_flashed(rom.flash.read, FILES)


def test_zero_length_block_needs_one_getstatus() -> None:
    rom = new_rom()
    download(rom, GOOD)
    dnload(rom, b"")
    assert get_state(rom) == MANIFEST_SYNC
    with pytest.raises(ControlStall):
        dnload(rom, GOOD[:64])
    assert get_status(rom) == (ERR_UNKNOWN, 256, ERROR)


def test_states_7_and_8_never_appear() -> None:
    rom = new_rom()
    seen = set()
    for block in blocks(GOOD):
        dnload(rom, block)
        seen |= {get_state(rom), get_status(rom)[2]}
    dnload(rom, b"")
    seen |= {get_state(rom), get_status(rom)[2], get_status(rom)[2]}
    assert seen == {DNLOAD_IDLE, MANIFEST_SYNC, IDLE}


def test_second_download_in_same_session_works() -> None:
    rom = new_rom()
    assert send(rom, archive([File(0x1000, "old.bin", content(9000, 9))])) == OK
    assert send(rom, GOOD) == OK
    assert_flashed(rom.flash.read, FILES)


def test_zero_length_block_first_is_an_empty_download() -> None:
    rom = new_rom()
    dnload(rom, b"")
    assert get_state(rom) == MANIFEST_SYNC
    assert get_status(rom) == (OK, 256, IDLE)
    assert send(rom, GOOD) == OK


# --- ABORT, CLRSTATUS -------------------------------------------------------------------------------------


@pytest.mark.parametrize("blocks", [1, 3, 4, 5, 60])
def test_abort_in_mid_download_allows_new_download(blocks: int) -> None:
    rom = new_rom()
    download(rom, GOOD[: 64 * blocks])
    _request(rom, ABORT)
    assert get_status(rom) == (OK, 256, IDLE)
    assert send(rom, GOOD) == OK
    assert_flashed(rom.flash.read, FILES)


def test_abort_in_idle_changes_nothing() -> None:
    rom = new_rom()
    _request(rom, ABORT)
    assert get_status(rom) == (OK, 256, IDLE)


def test_abort_keeps_error_and_clrstatus_clears_it() -> None:
    rom = new_rom()
    error = _with_error(rom)
    _request(rom, ABORT)
    assert get_status(rom)[0] == error
    _request(rom, CLRSTATUS)
    assert get_status(rom) == (OK, 256, IDLE)
    assert send(rom, GOOD) == OK
    assert_flashed(rom.flash.read, FILES)


@pytest.mark.parametrize("state", ["idle", "download", "upload", "manifest"])
def test_clrstatus_without_error_leads_to_idle(state: str) -> None:
    rom = new_rom()
    if state == "upload":
        _request(rom, UPLOAD, 0, 64)
    elif state != "idle":
        dnload(rom, GOOD[:64])
    if state == "manifest":
        dnload(rom, b"")
    _request(rom, CLRSTATUS)
    assert get_state(rom) == IDLE
    assert send(rom, GOOD) == OK


def test_updater_error_shows_only_when_asked_for() -> None:
    """Blocks after the error are accepted and dropped until DFU_GETSTATUS or DFU_GETSTATE looks at the updater."""
    stream = bytearray(GOOD)
    stream[bytes(stream).index(b"070701", 400)] ^= 0xFF
    rom = new_rom()
    download(rom, bytes(stream))
    assert get_state(rom) == ERROR
    with pytest.raises(ControlStall):
        dnload(rom, GOOD[:64])


def test_new_download_after_abort_forgets_error() -> None:
    rom = new_rom()
    _with_error(rom)
    _request(rom, ABORT)
    assert send(rom, GOOD) == OK


def test_blocks_stall_in_error_and_status_stays() -> None:
    rom = new_rom()
    error = _with_error(rom)
    for _ in range(3):
        with pytest.raises(ControlStall):
            dnload(rom, GOOD[:64])
        assert get_status(rom) == (error, 256, ERROR)
    with pytest.raises(ControlStall):
        _request(rom, UPLOAD, 0, 64)
    assert get_status(rom) == (error, 256, ERROR)


# --- UPLOAD -----------------------------------------------------------------------------------------------


def _after_download(flash_size: int = 4 * MIB, chip_size: int = 4 * MIB) -> Rom:
    rom = new_rom(flash_size=flash_size)
    assert send(rom, archive(FILES, chip_size)) == OK
    return rom


def _upload(rom: Rom, blocks: int) -> bytes:
    return b"".join(_request(rom, UPLOAD, block, 64) for block in range(blocks))


def test_upload_after_download_reads_flash() -> None:
    rom = _after_download()
    assert _upload(rom, 1280) == rom.flash.read(0, 1280 * 64)
    assert get_status(rom) == (OK, 256, UPLOAD_IDLE)


def test_upload_is_4_mib_and_ends_with_short_block() -> None:
    rom = _after_download()
    assert _upload(rom, 4 * MIB // 64) == rom.flash.read(0, 4 * MIB)
    assert _request(rom, UPLOAD, 4 * MIB // 64 & 0xFFFF, 64) == b""
    assert get_status(rom) == (OK, 256, IDLE)


@pytest.mark.parametrize(("start", "length"), [(1, 1), (0, 2), (3, 1)])
def test_set_interface_selects_upload_range(start: int, length: int) -> None:
    rom = _after_download()
    for mib in range(4):
        rom.flash.program(mib * MIB, content(256, 70 + mib))
    rom.control(0x01, 0x0B, start << 8 | length, b"", 0)
    assert _upload(rom, length * MIB // 64) == rom.flash.read(start * MIB, length * MIB)
    assert _request(rom, UPLOAD, length * MIB // 64, 64) == b""


def test_upload_is_valid_up_to_downloaded_chip_size() -> None:
    rom = _after_download(chip_size=2 * MIB)
    secret = content(64, 5)
    rom.flash.program(2 * MIB - 64, secret)
    rom.flash.program(2 * MIB, content(64, 6))
    rom.control(0x01, 0x0B, 1 << 8 | 2, b"", 0)
    blocks = [_request(rom, UPLOAD, number, 64) for number in range(MIB // 64 + 1)]
    assert blocks[-2:] == [secret, secret]  # beyond it, the last block that could be read


def test_upload_before_download_reads_the_first_2_mib() -> None:
    rom = new_rom()
    rom.flash.program(0, content(64, 5))
    assert _upload(rom, 1) == content(64, 5)


def test_wrong_upload_block_returns_garbage_without_stall() -> None:
    rom = _after_download()
    rom.flash.program(64, content(64))
    _request(rom, UPLOAD, 0, 64)
    answer = _request(rom, UPLOAD, 2, 64)
    assert len(answer) == 64
    assert answer not in (rom.flash.read(64, 64), rom.flash.read(128, 64))
    assert get_status(rom)[0] != OK
    assert get_status(rom)[2] == ERROR


@pytest.mark.parametrize("name", NAMES)
def test_upload_over_64_bytes_is_wrong_and_then_fatal(name: str) -> None:
    rom = new_rom(name)
    data = content(8192)
    rom.flash.program(0, data)
    answer = _request(rom, UPLOAD, 0, 72)
    assert answer == data[:64] + bytes([UPLOAD_IDLE, 0, 0, 0]) + data[68:72]
    assert get_status(rom) == (data[68], 256, UPLOAD_IDLE)
    _request(rom, CLRSTATUS)
    with pytest.raises(ControlTimeout):
        _request(rom, UPLOAD, 0, 4096)
    for request in (GETSTATUS, CLRSTATUS, ABORT):
        with pytest.raises(ControlTimeout):
            _request(rom, request, length=6)
    rom.reset_chip()
    rom.restart(Mode.RUN_TIME)
    assert get_status(rom) == (OK, 256, APP_IDLE)


def test_bus_reset_does_not_bring_back_a_dead_chip() -> None:
    rig = make_rig(mode=Mode.DFU)
    with pytest.raises(ControlTimeout):
        rig.board.control(0xA1, UPLOAD, 0, b"", 4096)
    with pytest.raises(DeviceGone):
        rig.board.reset_bus()
    rig.clock.sleep(60)
    rig.board.update()
    assert not rig.board.present
    rig.board.plug()
    assert get_state(rig.board.rom) == APP_IDLE


def test_upload_in_mid_download_is_misuse() -> None:
    rom = new_rom()
    dnload(rom, GOOD[:64])
    with pytest.raises(ControlStall):
        _request(rom, UPLOAD, 0, 64)
    assert get_status(rom) == (ERR_UNKNOWN, 256, ERROR)


def test_abort_restarts_upload() -> None:
    rom = _after_download()
    _upload(rom, 100)
    _request(rom, ABORT)
    assert get_status(rom) == (OK, 256, IDLE)
    assert _upload(rom, 300) == rom.flash.read(0, 300 * 64)


# --- a ROM that demands GETSTATUS -------------------------------------------------------------------------


def test_strict_rom_demands_getstatus_after_each_block() -> None:
    rom = new_rom()
    rom.wants_status = True
    dnload(rom, GOOD[:64])
    with pytest.raises(ControlStall):
        dnload(rom, GOOD[64:128])
    assert get_status(rom) == (ERR_UNKNOWN, 256, ERROR)
    _request(rom, CLRSTATUS)
    for block in blocks(GOOD):
        dnload(rom, block)
        assert get_status(rom) == (OK, 256, DNLOAD_IDLE)
    dnload(rom, b"")
    assert get_status(rom) == (OK, 256, IDLE)
    assert_flashed(rom.flash.read, FILES)


# --- when errors come -------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", range(0, 256, 20))
def test_damaged_archive_is_reported_within_5_blocks(phase: int) -> None:
    first = File(0x1000, "first.bin", content(3000 + phase))
    second = File(0x8000, "second.bin", content(3000, 1))
    stream = bytearray(archive([first, second]))
    place = bytes(stream).index(b"070701", bytes(stream).index(first.data) + len(first.data))
    stream[place] ^= 0xFF
    rom = new_rom()
    reported_at = -1
    for block, position in enumerate(range(0, len(stream), 64)):
        dnload(rom, bytes(stream[position : position + 64]))
        if get_status(rom)[0] != OK:
            reported_at = block
            break
    assert get_status(rom) == (ERR_TARGET, 256, ERROR)
    assert 0 <= reported_at - place // 64 <= 5


def test_errors_are_late() -> None:
    """The block that holds the damage itself may be taken without a word."""
    stream = bytearray(GOOD)
    place = bytes(stream).index(b"070701", 10)
    stream[place] ^= 0xFF
    rom = new_rom()
    for position in range(0, place + 1, 64):
        dnload(rom, bytes(stream[position : position + 64]))
        assert get_status(rom) == (OK, 256, DNLOAD_IDLE)


def test_first_bytes_of_file_erase_its_range_only() -> None:
    data = content(20000)
    rom = new_rom()
    rom.flash.program(0, bytes(MIB))
    stream = archive([File(0x10000, "app.bin", data)])
    begin = stream.index(data)
    download(rom, stream[: begin + 9 * 64])
    assert rom.flash.read(0x10000 + 512, 20480 - 512) == b"\xff" * (20480 - 512)
    assert rom.flash.read(0, 0x10000) == bytes(0x10000)
    assert rom.flash.read(0x15000, 0x1000) == bytes(0x1000)


def test_missing_file_is_reported_at_end() -> None:
    file = File(0x1000, "a", content(2000))
    stream = archive_of([params(), file, File(0x8000, "never", content(9))], [params(), file])
    rom = new_rom()
    for block in blocks(stream):
        dnload(rom, block)
        assert get_status(rom) == (OK, 256, DNLOAD_IDLE)
    dnload(rom, b"")
    assert get_status(rom) == (ERR_TARGET, 256, ERROR)


# --- the bus ----------------------------------------------------------------------------------------------


def test_restart_keeps_flash_and_forgets_download() -> None:
    rom = new_rom()
    assert send(rom, GOOD) == OK
    dnload(rom, GOOD[:64])
    rom.restart(Mode.DFU)
    assert get_status(rom) == (OK, 256, IDLE)
    assert_flashed(rom.flash.read, FILES)
    rom.fail(Status.errVENDOR)
    rom.restart(Mode.RUN_TIME)
    assert get_status(rom) == (OK, 256, APP_IDLE)


@pytest.mark.parametrize(("request_", "data"), [(DNLOAD, b"x" * 8), (CLRSTATUS, b""), (0x20, bytes(7)), (0x22, b"")])
def test_out_request_has_no_answer(request_: int, data: bytes) -> None:
    """USB/IP passes wLength for these, too."""
    rom = new_rom()
    _request(rom, GETSTATUS, length=6)
    assert rom.control(0x21, request_, 0, data, len(data)) == b""


def test_getstate_is_one_byte() -> None:
    assert _request(new_rom(), GETSTATE, length=1) == b"\x02"
