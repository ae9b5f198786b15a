"""The simulated ROM's serial loader: what Espressif's ROM code answered when it was executed, and esptool as the judge.

The answers in the tables were recorded from the ROMs of all four chips. An answer is compared whole, with its framing,
so that lengths, reasons and left-over bytes count, too.
"""

from __future__ import annotations

import hashlib
import zlib
from contextlib import suppress

import pytest

from esp_dfu_ext.clock import VirtualClock
from esp_dfu_ext.dfu.spec import Mode, Request, State
from esp_dfu_ext.simulator import Board
from esp_dfu_ext.simulator.board import DeviceGone
from esp_dfu_ext.simulator.rom import SERIAL_IN, SERIAL_OUT, ControlStall, ControlTimeout, TransferNak
from esp_dfu_ext.target import SerialLoader, Target

from .kit.chips import NAMES, chip
from .kit.loader import (
    DEFL_BEGIN,
    DEFL_DATA,
    DEFL_END,
    FLASH_BEGIN,
    FLASH_DATA,
    FLASH_END,
    GET_SECURITY_INFO,
    MEM_BEGIN,
    MEM_DATA,
    MEM_END,
    READ_FLASH,
    READ_REG,
    SPI_ATTACH,
    SPI_FLASH_MD5,
    SPI_SET_PARAMS,
    SYNC,
    SYNC_ANSWER,
    SYNC_FRAME,
    WRITE_REG,
    ask,
    block,
    frame,
    receive,
    sync,
    value,
    words,
)

MIB = 1 << 20
MAC = "7c:df:a1:00:00:01"
LINE_STATE = 0x22
A64 = bytes(range(64)) * 16
ALL_CHIPS = pytest.mark.parametrize("name", NAMES)

# A step is a command and the end of its answer behind "c001 OP": length, value, data, status, reason, two more bytes.
Step = tuple[bytes, str]
ATTACH: Step = (frame(SPI_ATTACH, words(0, 0)), "0400 00000000 00000000")


def params(size: int) -> bytes:
    return frame(SPI_SET_PARAMS, words(0, size, 65536, 4096, 256, 0xFFFF))


FOUR_MIB: Step = (params(4 * MIB), "0400 00000000 00000000")


def begin(size: int, address: int, op: int = FLASH_BEGIN, block_size: int = 1024) -> bytes:
    return frame(op, words(size, 4, block_size, address, 0))


def md5(address: int, size: int) -> bytes:
    return frame(SPI_FLASH_MD5, words(address, size, 0, 0))


def data_of(name: str) -> SerialLoader:
    data = chip(name).serial_loader
    assert data is not None
    return data


def loader_board(name: str = "esp32s3", *, mode: Mode = Mode.RUN_TIME, synced: bool = True) -> Board:
    board = Board.make(chip(name), "1-1", VirtualClock(), number=1, flash_size=4 * MIB)
    board.rom.restart(mode)
    if synced:
        sync(board)
    return board


def play(board: Board, *steps: Step) -> None:
    """Send commands one after the other, and compare each answer."""
    for number, (wire, tail) in enumerate(steps):
        expected = f"c001{wire[2]:02x}{tail.replace(' ', '')}c0"
        assert (number, ask(board, wire)) == (number, expected)


# --- the first loop, and SYNC -----------------------------------------------------------------------------


@ALL_CHIPS
@pytest.mark.parametrize("mode", [Mode.RUN_TIME, Mode.DFU], ids=str)
def test_sync_is_answered_eight_times_byte_by_byte(name: str, mode: Mode) -> None:
    board = loader_board(name, mode=mode, synced=False)
    for _ in range(2):
        board.bulk_out(SERIAL_OUT, SYNC_FRAME)
    packets = []
    with suppress(TransferNak):
        while True:
            packets.append(board.bulk_in(SERIAL_IN))
    answered = 1 if data_of(name).sync_answered < 1 else 2
    assert b"".join(packets).hex() == SYNC_ANSWER * 8 * answered
    assert {len(packet) for packet in packets} == {1}


def test_s2_answers_35_of_60_syncs_in_its_first_loop() -> None:
    answered = 0
    board = loader_board("esp32s2", synced=False)
    for _ in range(60):
        answered += bool(ask(board, SYNC_FRAME))
        board.rom.reset_chip()
    assert answered in (34, 35)
    assert sync(loader_board("esp32s2", synced=False)) == 2  # the first one gets lost
    assert sync(loader_board("esp32s2")) == 1  # after SYNC none


@pytest.mark.parametrize(
    "wire",
    [frame(READ_REG, words(0x60007044)), b"\xc0\x01\x02\xc0", b"AT\r\n", frame(GET_SECURITY_INFO), b"\x55" * 36,
     frame(SYNC, words(0x20120707), direction=1)],
    ids=["read", "short", "modem", "security", "noise", "direction"],
)  # fmt: skip
def test_first_loop_answers_nothing_but_sync(wire: bytes) -> None:
    board = loader_board(synced=False)
    assert ask(board, wire) == ""
    assert board.rom.loader is not None
    assert not board.rom.loader.active
    assert ask(board, SYNC_FRAME) == SYNC_ANSWER * 8


@pytest.mark.parametrize("argument", [b"", words(0x20120707), bytes(36), words(0x20120707) + 33 * b"\x55"], ids=len)
def test_first_loop_takes_any_sync(argument: bytes) -> None:
    echo = argument[:4].ljust(4, b"\0").hex()
    assert ask(loader_board(synced=False), frame(SYNC, argument)) == f"c001080400{echo}00000000c0" * 8


# --- framing ----------------------------------------------------------------------------------------------


@ALL_CHIPS
def test_frames_as_the_rom_reads_them(name: str) -> None:
    board = loader_board(name)
    read = frame(READ_REG, words(data_of(name).mac))
    answer = "c0010a0400010000a100000000c0"
    for wire, expected in (
        (b"AT\r" + read, answer),
        (b"\xc0\xc0", ""),
        (read + read, answer * 2),
        (read[:-1] + read, answer),  # one END for both: the second frame is taken for noise
        (b"\xc0", ""),
        (read[:9], ""),
        (read[9:], answer),
        (b"\xc0" + bytes(3000) + b"\xc0", ""),  # too long
        (read, answer),
    ):
        assert (wire[:16], ask(board, wire)) == (wire[:16], expected)


def test_short_frame_is_completed_by_the_previous_one() -> None:
    board = loader_board()
    read = frame(READ_REG, words(data_of("esp32s3").mac + 4))
    answer = ask(board, read)
    assert ask(board, b"\xc0\x00\xc0") == ask(board, b"\xc0\x00\x0a\xc0") == ask(board, read[:8] + b"\xc0") == answer


# --- registers --------------------------------------------------------------------------------------------

RAM = 0x3FCA0000
ALL = 0xFFFFFFFF


def test_register_answers() -> None:
    mac = data_of("esp32s3").mac
    play(
        loader_board(),
        (frame(READ_REG, words(mac)), "0400 010000a1 00000000"),
        (frame(READ_REG, words(mac + 4)), "0400 df7c0000 00000000"),
        (frame(READ_REG), "0400 df7c0000 00000000"),
        (frame(READ_REG, words(mac), checksum=0x55), "0400 010000a1 00000000"),
        (frame(WRITE_REG, words(RAM, 0x12345678, ALL, 0)), "0400 010000a1 00000000"),
        (frame(READ_REG, words(RAM)), "0400 78563412 00000000"),
        (frame(WRITE_REG, words(RAM, ALL, 0xFF00, 0)), "0400 78563412 00000000"),
        (frame(READ_REG, words(RAM)), "0400 78ff3412 00000000"),
        (frame(WRITE_REG, words(RAM, 1, ALL)), "0400 78ff3412 00000000"),  # too short: nothing is written
        (frame(READ_REG, words(RAM)), "0400 78ff3412 00000000"),
        (frame(WRITE_REG, words(RAM, 3, ALL, 0, RAM + 4, 4, ALL, 0)), "0400 78ff3412 00000000"),
        (frame(READ_REG, words(RAM + 4)), "0400 04000000 00000000"),
        (frame(WRITE_REG, words(RAM, 0xC0DBC0DB, ALL, 0)), "0400 04000000 00000000"),
        (frame(READ_REG, words(RAM)), "0400 dbdddbdcdbdddbdc 00000000"),
        (frame(READ_REG, words(0x40001000)), "0400 09000000 00000000"),
    )


@pytest.mark.parametrize("op", [0x00, 0x01, 0x0C, 0x1F, 0x7F, 0x80, 0xD0, 0xFF])
def test_unknown_command_is_answered_with_the_last_known_one(op: int) -> None:
    board = loader_board("esp32s2")
    assert ask(board, frame(op)) == "c0010004000000000001050000c0"
    ask(board, SYNC_FRAME)
    assert ask(board, frame(op)) == "c0010804000707122001050000c0" * 8
    ask(board, frame(READ_REG, words(0)))
    assert ask(board, frame(op)) == "c0010a04000000000001050000c0"


@ALL_CHIPS
def test_security_info(name: str) -> None:
    expected = {
        "esp32s2": "1000 00000000 000000000000000000000000 00000000",
        "esp32s3": "1800 00000000 00000000000000000000000c 09000000 00000000 00000000",
        "esp32p4": "1800 00000000 000000000000000000000013 12000000 05000000 00000000",
        "esp32s31": "1800 00000000 000000000000000000001414 20000000 00000000 00000000",
    }
    play(loader_board(name), (frame(GET_SECURITY_INFO), expected[name]))


@ALL_CHIPS
def test_security_info_shows_burned_efuses(name: str) -> None:
    board = loader_board(name)
    assert board.rom.loader is not None
    board.rom.loader.registers.burn(data_of(name).secure_boot)
    board.rom.loader.registers.burn(data_of(name).flash_encryption)
    info = bytes.fromhex(ask(board, frame(GET_SECURITY_INFO)))[9:]
    assert (info[:4], info[4]) == (b"\1\0\0\0", 7)


# --- flash memory -----------------------------------------------------------------------------------------


@ALL_CHIPS
def test_md5_answers(name: str) -> None:
    board = loader_board(name)
    erased, empty = hashlib.md5(b"\xff" * 16).hexdigest(), hashlib.md5(b"").hexdigest()

    def answer(digest: str, tail: str) -> str:
        return "2400 00000000" + digest.encode().hex() + tail

    play(
        board,
        (md5(2 * MIB - 16, 16), answer(erased, "00000000")),
        (md5(2 * MIB - 8, 16), answer(erased, "01090000")),  # 2 MiB until told otherwise
        (frame(SPI_ATTACH, words(0, 0)), f"0400 00000000 0000 {erased[2:4].encode().hex()}"),
        (params(4 * MIB), f"0400 00000000 0000 {erased[2:4].encode().hex()}"),
        (md5(0, 0), answer(empty, "00000000")),
        (md5(4 * MIB - 16, 16), answer(erased, "00000000")),
        (md5(4 * MIB - 16, 32), answer(erased, "01090000")),
        (params(4 * MIB)[:-5] + b"\xc0", f"0400 00000000 0105 {erased[2:4].encode().hex()}"),
    )


@ALL_CHIPS
def test_flash_write(name: str) -> None:
    board = loader_board(name)
    board.rom.flash.program(0, bytes(5 * 4096))
    play(
        board,
        (block(FLASH_DATA, 0, A64), "0400 00000000 01050000"),  # before FLASH_BEGIN
        ATTACH,
        FOUR_MIB,
        (begin(2048, 0x1000), "0400 00000000 00000000"),
        (block(FLASH_DATA, 0, A64), "0400 00000000 00000000"),
        (block(FLASH_DATA, 2, A64), "0400 00000000 01050000"),  # out of sequence
        (block(FLASH_DATA, 1, A64, checksum=0), "0400 00000000 01070000"),  # uses its number up
        (block(FLASH_DATA, 1, A64), "0400 00000000 01050000"),
        (block(FLASH_DATA, 2, A64, size=512), "0400 00000000 01050000"),
        (block(FLASH_DATA, 2, A64[:101]), "0400 00000000 01050000"),  # no whole words
        (block(FLASH_DATA, 2, A64[:100], checksum=0x1EF), "0400 00000000 00050000"),  # only the lowest byte counts
        (block(FLASH_DATA, 3, A64[::-1]), "0400 00000000 00050000"),
    )
    written = A64 + A64[:100] + A64[::-1]
    assert board.rom.flash.read(0, 0x5000) == bytes(4096) + written.ljust(4096, b"\xff") + bytes(3 * 4096)


@pytest.mark.parametrize(
    ("wire", "status"),
    [
        (begin(0, 0x1000), "0000"),
        (begin(4096, 0x1000, block_size=6000), "0000"),
        (begin(4096, 0x1000, block_size=8000), "0105"),
        (frame(FLASH_BEGIN, words(1024, 1, 1024, 0x1000)), "0105"),
        (frame(FLASH_BEGIN, words(1024, 1, 1024, 0x1000, 0, 0)), "0105"),
        (begin(1024, 0x1010), "0106"),
        (begin(8192, 4 * MIB - 4096), "0106"),
        (begin(1 << 31, 0x1000), "0106"),
    ],
)
def test_flash_begin(wire: bytes, status: str) -> None:
    play(loader_board(), ATTACH, FOUR_MIB, (wire, f"0400 00000000 {status}0000"))


def test_blocks_after_a_failed_erase_are_programmed() -> None:
    board = loader_board()
    board.rom.flash.program(0x6000, b"\x0f" * 4096)
    play(board, ATTACH, FOUR_MIB, (begin(1024, 0x6010), "0400 00000000 01060000"))
    play(board, (block(FLASH_DATA, 0, b"\x3c" * 64), "0400 00000000 00060000"))
    assert board.rom.flash.read(0x6010, 64) == b"\x0c" * 64


@pytest.mark.parametrize(("announced", "status", "written"), [(2048, "0000", True), (1000, "0106", False)])
def test_compressed_flash_write(announced: int, status: str, written: bool) -> None:
    board = loader_board()
    content = A64 + A64[::-1]
    packed = zlib.compress(content, 9)
    play(board, ATTACH, FOUR_MIB, (begin(announced, 0x2000, DEFL_BEGIN), "0400 00000000 00000000"))
    play(board, (block(DEFL_DATA, 0, packed[:71]), "0400 00000000 00000000"))
    play(board, (block(DEFL_DATA, 1, packed[71:]), "0400 00000000 00000000"))
    play(board, (frame(DEFL_END, words(1)), f"0400 00000000 {status}0000"))
    assert board.rom.flash.read(0x2000, 2048) == (content if written else b"\xff" * 2048)


def test_broken_compressed_block() -> None:
    play(
        loader_board(),
        ATTACH,
        FOUR_MIB,
        (begin(1000, 0x7000, DEFL_BEGIN), "0400 00000000 00000000"),
        (block(DEFL_DATA, 0, b"abcdefgh"), "0400 00000000 010b0000"),
        (block(FLASH_DATA, 1, A64), "0400 00000000 01050000"),
    )


def test_slow_read() -> None:
    board = loader_board()
    board.rom.flash.program(0x2000, A64)
    first = A64[:64].hex()
    play(
        board,
        ATTACH,
        FOUR_MIB,
        (frame(READ_FLASH, words(0x2000, 64)), f"4400 00000000 {first} 00000000"),
        (frame(READ_FLASH, words(0x2004, 16)), f"4400 00000000 {A64[4:20].hex()}{first[32:]} 00000000"),
        (frame(READ_FLASH, words(0x2000, 65)), f"4400 00000000 {A64[4:20].hex()}{first[32:]} 010a0000"),
        (frame(READ_FLASH, words(4 * MIB, 64)), f"4400 00000000 {A64[4:20].hex()}{first[32:]} 01090000"),
    )


def test_memory_write() -> None:
    play(
        loader_board(),
        (block(MEM_DATA, 0, A64[:64]), "0400 00000000 01050000"),
        (frame(MEM_BEGIN, words(128, 2, 64, RAM)), "0400 00000000 00050000"),
        (block(MEM_DATA, 0, A64[:64]), "0400 00000000 00050000"),
        (block(MEM_DATA, 1, A64[:64], checksum=0), "0400 00000000 01070000"),
        (block(MEM_DATA, 2, A64[4:68]), "0400 00000000 00070000"),
        (frame(READ_REG, words(RAM + 4)), "0400 04050607 00000000"),
        (frame(READ_REG, words(RAM + 64)), "0400 04050607 00000000"),
        (frame(MEM_BEGIN, words(128, 2, 64)), "0400 04050607 01050000"),
        (frame(MEM_END, words(1, 0)), "0400 04050607 00050000"),
        (frame(READ_REG, words(RAM)), "0400 00010203 00000000"),
    )


@ALL_CHIPS
@pytest.mark.parametrize("size", [MIB, 4 * MIB, 16 * MIB])
def test_flash_id_tells_the_size(name: str, size: int) -> None:
    board = Board.make(chip(name), "1-1", VirtualClock(), flash_size=size)
    sync(board)
    spi = data_of(name).spi_flash

    def write(address: int, word: int) -> None:
        ask(board, frame(WRITE_REG, words(address, word, ALL, 0)))

    write(spi.read_length, 23)
    write(spi.user, 0x90000000)
    write(spi.user2, 0x7000009F)
    write(spi.data, 0)
    write(spi.start.address, spi.start.mask)
    assert value(ask(board, frame(READ_REG, words(spi.start.address)))) == 0  # finished
    flash_id = value(ask(board, frame(READ_REG, words(spi.data))))
    assert (flash_id & 0xFFFF, 1 << (flash_id >> 16)) == (0x40EF, size)


@pytest.mark.parametrize(("wire", "reboots"), [(frame(FLASH_END, words(0)), True), (frame(FLASH_END, words(1)), False)])
def test_flash_end_leaves_the_loader(wire: bytes, reboots: bool) -> None:
    board = loader_board()
    play(board, ATTACH, FOUR_MIB, (begin(1024, 0x2000), "0400 00000000 00000000"))
    board.bulk_out(SERIAL_OUT, wire)
    assert board.present is not reboots
    if not reboots:
        with pytest.raises(TransferNak):
            ask(board, SYNC_FRAME)
        with pytest.raises(ControlTimeout):
            board.control(0xA1, Request.DFU_GETSTATE, 0, b"", 1)


@pytest.mark.parametrize(
    ("name", "status"),
    [("esp32s2", "0106"), ("esp32s3", "0106"), ("esp32p4", "0000"), ("esp32s31", "0000")],
)
def test_flash_end_without_begin(name: str, status: str) -> None:
    board = loader_board(name)
    assert ask(board, frame(FLASH_END, words(1))) == f"c00104040000000000{status}0000c0"


@pytest.mark.parametrize(("name", "ends"), [("esp32s2", 0), ("esp32s3", 2), ("esp32p4", 2), ("esp32s31", 2)])
@pytest.mark.parametrize("argument", [b"", words(115200), words(115200, 0)])
def test_baud_rate_changes_nothing(name: str, ends: int, argument: bytes) -> None:
    board = loader_board(name)
    assert ask(board, frame(0x0F, argument)) == "c0010f04000000000000000000c0" + "c0" * ends
    assert ask(board, frame(READ_REG, words(0))).startswith("c0010a04")


@pytest.mark.parametrize(
    ("name", "said"), [("esp32s2", "00"), ("esp32s3", "15"), ("esp32p4", "00"), ("esp32s31", "00")]
)
def test_refused_command_may_be_a_known_one(name: str, said: str) -> None:
    board = loader_board(name)
    for op in (0x15, 0x16):
        assert ask(board, frame(op)) == f"c001{said}04000000000001050000c0"


@pytest.mark.parametrize("wire", [md5(0, 1 << 25), begin(1 << 25, 0)])
def test_more_than_all_flash_memory_keeps_the_rom_busy(wire: bytes) -> None:
    board = loader_board()
    assert ask(board, params(0xFFFFFFFF))
    assert ask(board, wire) == ""
    with pytest.raises(ControlTimeout):
        board.control(0xA1, Request.DFU_GETSTATE, 0, b"", 1)
    board.plug()
    assert board.control(0xA1, Request.DFU_GETSTATE, 0, b"", 1) == b"\0"


# --- beside DFU -------------------------------------------------------------------------------------------


@ALL_CHIPS
@pytest.mark.parametrize("when", ["before", "amid", "after"])
def test_download_and_loader_do_not_disturb_each_other(name: str, when: str) -> None:
    from .kit.archives import small_image

    image = small_image(name)
    board = loader_board(name, mode=Mode.DFU, synced=False)
    stream = bytes(image.stream)
    mac = frame(READ_REG, words(data_of(name).mac))

    def talk() -> None:
        sync(board)
        assert value(ask(board, mac)) == 0xA1000001

    if when == "before":
        talk()
    for number, start in enumerate(range(0, len(stream), 64)):
        board.control(0x21, Request.DFU_DNLOAD, number, stream[start : start + 64], 0)
        if when == "amid" and number % 10 == 5:
            talk()
    board.control(0x21, Request.DFU_DNLOAD, 0, b"", 0)
    assert board.control(0xA1, Request.DFU_GETSTATUS, 0, b"", 6)[4] == State.dfuIDLE
    talk()
    for member in image.flash_members:
        assert member.record is not None
        answer = ask(board, md5(member.record.address, len(member.data)))
        assert bytes.fromhex(answer)[9:41].decode() == hashlib.md5(member.data).hexdigest()


def test_loader_goes_on_after_dfu_detach() -> None:
    board = loader_board()
    with pytest.raises(DeviceGone):
        board.control(0x21, Request.DFU_DETACH, 1000, b"", 0)
    board.clock.sleep(1.0)
    board.update()
    assert board.rom.mode is Mode.DFU
    assert ask(board, frame(READ_REG, words(data_of("esp32s3").mac))) == "c0010a0400010000a100000000c0"


def test_unread_answer_is_dropped_after_100_ms() -> None:
    board = loader_board()
    read = frame(READ_REG, words(data_of("esp32s3").mac))
    answer = "c0010a0400010000a100000000c0"
    board.bulk_out(SERIAL_OUT, read)
    board.clock.sleep(0.09)
    assert receive(board) == answer
    board.bulk_out(SERIAL_OUT, read)
    board.clock.sleep(0.2)
    board.bulk_out(SERIAL_OUT, read)  # is not answered at all
    assert receive(board) == answer[:2]
    assert ask(board, read) == answer


# --- line state and resets --------------------------------------------------------------------------------


def set_lines(board: Board, *states: int) -> None:
    for state in states:
        board.control(0x21, LINE_STATE, state, b"", 0)


def test_cdc_requests() -> None:
    board = loader_board(synced=False)
    coding = bytes.fromhex("00c20100000008")
    assert board.control(0xA1, 0x21, 0, b"", 7) == bytes(7)
    assert board.control(0x21, 0x20, 0, coding, 0) == b""
    assert board.control(0xA1, 0x21, 0, b"", 7) == coding
    board.control(0x21, 0x20, 0, b"\0\1", 0)
    assert board.control(0xA1, 0x21, 0, b"", 7) == b"\0\1" + coding[2:]
    for request in (0x23, 0x24):
        with pytest.raises(ControlStall):
            board.control(0x21, request, 0, b"", 0)


@ALL_CHIPS
@pytest.mark.parametrize("states", [(2, 0), (3, 1), (3, 0)], ids=str)
def test_falling_rts_resets_the_chip_after_sync(name: str, states: tuple[int, int]) -> None:
    board = loader_board(name, mode=Mode.DFU, synced=False)
    set_lines(board, *states)  # nothing in the first loop
    assert board.present
    set_lines(board, states[0])
    sync(board)
    assert board.present
    board.rom.force_download = True
    set_lines(board, states[1])
    assert not board.present
    board.clock.sleep(1.0)
    board.update()
    assert (board.present, board.rom.mode, board.rom.force_download) == (True, Mode.RUN_TIME, False)
    assert board.rom.loader is not None
    assert not board.rom.loader.active


@pytest.mark.parametrize("states", [(0, 1, 0), (2, 3, 2), (1, 3)], ids=str)
def test_other_line_states_do_nothing(states: tuple[int, ...]) -> None:
    board = loader_board()
    set_lines(board, *states)
    assert board.present


def test_bus_reset_forgets_rts() -> None:
    board = loader_board(synced=False)
    set_lines(board, 2)
    sync(board)
    board.reset_bus()
    set_lines(board, 0)
    assert board.present


def was_not_reset(board: Board) -> bool:
    """Return True if the board is on the bus, and its ROM still in the loop that SYNC led to."""
    return board.present and board.rom.loader is not None and board.rom.loader.active


def arm_watchdog(board: Board, action: int, *, key: int | None = None) -> None:
    """Write what esptool's watchdog reset writes, with another action of the first stage."""
    assert board.target.serial_loader is not None
    watchdog = board.target.serial_loader.watchdog
    config = 1 << 31 | action << 28 | 1 << 8 | 2
    for address, word in (
        (watchdog.write_protect, watchdog.key if key is None else key),
        (watchdog.timeout, 2000),
        (watchdog.config, config),
        (watchdog.write_protect, 0),
    ):
        assert ask(board, frame(WRITE_REG, words(address, word, ALL, 0))).endswith("00000000c0")


@ALL_CHIPS
@pytest.mark.parametrize("mode", [Mode.RUN_TIME, Mode.DFU], ids=str)
@pytest.mark.parametrize(
    ("action", "forced", "strap", "app"),
    [(5, False, True, True), (5, True, True, True), (5, False, False, False), (3, False, True, True),
     (3, True, True, False), (2, True, True, False)],
)  # fmt: skip
def test_watchdog_starts_app_or_rom(name: str, mode: Mode, action: int, forced: bool, strap: bool, app: bool) -> None:
    board = loader_board(name, mode=mode)
    board.boots_app = strap
    board.rom.force_download = forced
    arm_watchdog(board, action)
    assert board.present
    board.clock.sleep(0.1)
    board.update()
    assert not board.present
    board.clock.sleep(1.0)
    board.update()
    assert board.present is not app
    if not app:
        assert board.rom.mode is Mode.RUN_TIME


@pytest.mark.parametrize(("action", "key"), [(5, 0x12345678), (0, None), (1, None)])
def test_watchdog_that_is_locked_or_only_interrupts_does_not_reset(action: int, key: int | None) -> None:
    board = loader_board()
    arm_watchdog(board, action, key=key)
    board.clock.sleep(5)
    board.update()
    assert was_not_reset(board)


def test_watchdog_can_be_stopped() -> None:
    board = loader_board()
    watchdog = data_of("esp32s3").watchdog
    arm_watchdog(board, 5)
    ask(board, frame(WRITE_REG, words(watchdog.write_protect, watchdog.key, ALL, 0)))
    ask(board, frame(WRITE_REG, words(watchdog.config, 0, ALL, 0)))
    board.clock.sleep(5)
    board.update()
    assert was_not_reset(board)


# --- chips without, and boards whose eFuses close it ------------------------------------------------------


def test_chip_without_loader_data_has_no_serial_loader() -> None:
    import msgspec

    target: Target = msgspec.structs.replace(chip("esp32s3"), serial_loader=None)
    board = Board.make(target, "1-1", VirtualClock())
    assert board.rom.loader is None
    with pytest.raises(TransferNak):
        ask(board, SYNC_FRAME)
    set_lines(board, 2, 0)
    board.rom.force_download = True
    assert board.rom.force_download
    assert board.control(0xA1, 0x21, 0, b"", 7) == bytes(7)


def test_efuses_that_disable_usb_keep_the_rom_off_the_bus() -> None:
    board = loader_board(synced=False)
    board.disable_usb()
    board.plug()
    assert not board.present


@pytest.mark.parametrize("endpoint", [SERIAL_IN, 0x01, 0x85])
def test_other_endpoints_take_nothing(endpoint: int) -> None:
    board = loader_board()
    with pytest.raises(TransferNak):
        board.bulk_out(endpoint, SYNC_FRAME)
    with pytest.raises(TransferNak):
        board.bulk_in(endpoint & 0x7F)
