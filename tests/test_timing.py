"""The time that a simulated chip takes, by a virtual clock."""

from __future__ import annotations

import msgspec
import pytest

from esp_dfu_ext import Flasher, FlashOptions
from esp_dfu_ext.clock import VirtualClock
from esp_dfu_ext.dfu.spec import Mode
from esp_dfu_ext.errors import TransferTimeoutError, UsageError
from esp_dfu_ext.simulator import Board, simulate_text
from esp_dfu_ext.simulator.timing import ChipTime

from .kit.archives import FILES, KIB, File, archive, checked, content, image_of
from .kit.boards import make_rig, open_board
from .kit.chips import NAMES, chip
from .kit.host import DNLOAD, GETSTATUS
from .kit.loader import SPI_ATTACH, SPI_FLASH_MD5, SYNC_FRAME, ask, frame, sync, words

# Seconds per DFU_DNLOAD and per DFU_GETSTATUS: in the ROM's first loop, and after a SYNC on its serial port (executed).
LOOPS = {
    "esp32s2": ((0.00012, 0.00005), (0.00012, 0.00005)),
    "esp32s3": ((0.0041, 0.00205), (0.00012, 0.00005)),
    "esp32p4": ((0.00412, 0.00206), (0.00013, 0.00005)),
    "esp32s31": ((0.00414, 0.00207), (0.00013, 0.00005)),
}


def _board(name: str = "esp32s3", mode: Mode = Mode.DFU) -> Board:
    board = Board.make(chip(name), "1-1", VirtualClock())
    board.timing = board.target.timing
    board.rom.restart(mode)
    return board


def _seconds(board: Board, request: int, data: bytes = b"", length: int = 0) -> float:
    started = board.clock.monotonic()
    board.control(0xA1 if length else 0x21, request, 0, data, length)
    return board.clock.monotonic() - started


@pytest.mark.parametrize("name", NAMES)
def test_requests_take_the_time_of_the_loop(name: str) -> None:
    board = _board(name)
    block = archive(FILES)[:64]
    for synced, (download, request) in zip((False, True), LOOPS[name]):
        if synced:
            sync(board)
        assert _seconds(board, DNLOAD, block) == pytest.approx(download)
        assert _seconds(board, GETSTATUS, length=6) == pytest.approx(request)


def test_what_the_simulation_takes_is_part_of_the_chips_time() -> None:
    clock = VirtualClock()
    time = ChipTime(clock)
    for simulation, passed in ((0.001, 0.004), (0.006, 0.006), (0.001, 0.002), (1.0, 1.0), (0.0, 0.0), (0.0, 0.003)):
        started = clock.monotonic()
        time.begin()
        clock.sleep(simulation)
        time.spend(0.004)
        assert clock.monotonic() - started == pytest.approx(passed)


def test_each_byte_of_a_serial_answer_takes_1_ms() -> None:
    board = _board()
    started = board.clock.monotonic()
    ask(board, SYNC_FRAME)
    assert board.clock.monotonic() - started == pytest.approx(0.112)


@pytest.mark.parametrize("size", [64 * KIB, 1024 * KIB])
def test_md5_of_the_serial_loader_takes_time(size: int) -> None:
    board = _board()
    sync(board)
    ask(board, frame(SPI_ATTACH, words(0, 0)))
    started = board.clock.monotonic()
    answer = ask(board, frame(SPI_FLASH_MD5, words(0, size, 0, 0)))
    assert len(bytes.fromhex(answer)) == 46  # though the ROM drops what is not read within 0.1 s
    assert board.clock.monotonic() - started == pytest.approx(0.53 * size / 2**20 + 46 * 0.001, rel=0.01)


@pytest.mark.parametrize(("size", "sectors", "blocks"), [(4096, 1, 0), (196608, 32, 1), (524288, 32, 6)])
def test_first_bytes_of_a_file_take_the_time_of_its_erase(size: int, sectors: int, blocks: int) -> None:
    board = _board("esp32s2")
    timing = board.timing
    assert timing is not None
    stream = archive([File(0x10000, "a.bin", content(512) + bytes(size - 512))])
    times = [_seconds(board, DNLOAD, stream[n : n + 64]) for n in range(0, 64 * 40, 64)]
    longest = max(times)
    assert longest == pytest.approx(sectors * 0.045 + blocks * 0.15, abs=0.002)
    assert sorted(times)[-2] < 0.01


def test_programming_and_verifying_take_time() -> None:
    board = _board("esp32s2")
    board.rom.flash.erase = lambda address, size: None  # type: ignore[method-assign]
    data = content(64 * KIB)
    stream = archive([File(0x10000, "a.bin", data)])
    blocks = [stream[n : n + 64] for n in range(0, len(stream), 64)]
    writing = sum(_seconds(board, DNLOAD, block) for block in blocks)
    erasing = 16 * 0.045
    assert writing - erasing == pytest.approx(len(blocks) * 0.00012 + len(data) / 32 * 0.00011, rel=0.01)
    assert _seconds(board, DNLOAD) == pytest.approx(0.00012 + 0.45 / 16, rel=0.05)  # and a rest to program


def test_no_time_passes_without_timing() -> None:
    board = _board()
    board.timing = None
    assert _seconds(board, DNLOAD, archive(FILES)[:64]) == 0


@pytest.mark.parametrize(("name", "ratio"), [("esp32s2", 1.1), ("esp32s3", 1.4)])
def test_status_after_every_block_costs_a_round_each(name: str, ratio: float) -> None:
    image = image_of([File(0x10000, "a.bin", content(64 * KIB))], chip(name))
    seconds = []
    for strict in (False, True):
        clock = VirtualClock()
        simulation = simulate_text(f"{name}+dfu+slow", [chip(name)], clock)
        started = clock.monotonic()
        options = FlashOptions(strict=strict, no_loader=True)  # after SYNC no chip waits
        Flasher(options, bus=simulation.bus, clock=clock).flash(checked(image, chip(name)))
        seconds.append(clock.monotonic() - started)
    assert seconds[1] / seconds[0] == pytest.approx(ratio, abs=0.12)


def test_host_sees_a_timeout_if_the_chip_takes_longer() -> None:
    rig = make_rig(mode=Mode.DFU, start=0)
    timing = rig.board.target.timing
    assert timing is not None
    loop = msgspec.structs.replace(timing.first_loop, download=6.0)
    device = open_board(rig)
    rig.board.timing = msgspec.structs.replace(timing, first_loop=loop)
    with pytest.raises(TransferTimeoutError):
        device.download(0, b"x", 5.0)
    device.download(0, b"x", 7.0)


def test_chip_without_timing_cannot_be_slow() -> None:
    plain = msgspec.structs.replace(chip(), timing=None)
    with pytest.raises(UsageError, match="timing"):
        simulate_text("esp32s3+slow", [plain], VirtualClock())
