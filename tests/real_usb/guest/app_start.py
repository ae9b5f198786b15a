"""Start the app after a flash, on the real Linux USB stack: what is said of it is what the kernel shows.

The name does not start with test_, so that pytest collects it only from ../test_vm.py or by hand (see ../vm/boot.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from esp_dfu_ext.dfu.spec import Mode
from esp_dfu_ext.simulator import Board
from esp_dfu_ext.simulator.apps import DfuApp
from esp_dfu_ext.simulator.bridge import Bridge

from ..usbip import device_number, wait_until
from .conftest import NOBODY, MakeImage, VmBench, esp_dfu, flash, run, settle

pytestmark = pytest.mark.vm

ALL_CHIPS = pytest.mark.parametrize("name", ["esp32s2", "esp32s3", "esp32p4", "esp32s31"])
MODES = pytest.mark.parametrize("mode", [Mode.RUN_TIME, Mode.DFU], ids=str)
OWN_IDS = 0xCAFE, 0x4000
TTY = Path("/dev/ttyACM0")
NOTHING = "Nothing is on port 1-1 after the reset, as with an app that does not use USB."
APP = "Seen on port 1-1 after the reset: cafe:4000"
HARD = ("--after", "hard-reset")


def handed_over(bench: VmBench, name: str = "esp32s3", path: str = "1-1") -> Board:
    """Add a board whose app, with a DFU run-time interface, has set FORCE_DOWNLOAD_BOOT and restarted into the ROM."""
    board = bench.add(name, path)
    bench.hub.start_app(board, DfuApp(*OWN_IDS, "1234"))
    detached = run("dfu-util", "-e", "-p", path, "-d", "cafe:4000")
    assert detached.code == 0, detached
    wait_until(lambda: board.device is board.rom and board.present, "the ROM runs")
    bench.hub.wait_for(path)
    assert board.rom.force_download
    return board


def assert_app_runs(board: Board) -> None:
    """The app runs, and cdc_acm drives its port."""
    assert (board.device, board.present, board.rom.force_download) == (board.app, True, False)
    wait_until(TTY.exists, f"{TTY} is there")


@MODES
@ALL_CHIPS
def test_flash_starts_app_without_usb(bench: VmBench, image_for: MakeImage, name: str, mode: Mode) -> None:
    board, image = bench.add(name, mode=mode), image_for(name)
    board.boots_app = True
    result = flash(board, image, *HARD)
    assert NOTHING in result.out, result
    assert (board.present, device_number("1-1")) == (False, None)


@ALL_CHIPS
def test_flash_starts_app_that_handed_over(bench: VmBench, image_for: MakeImage, name: str) -> None:
    board, image = handed_over(bench, name), image_for(name)
    result = flash(board, image, *HARD)
    assert APP in result.out, result
    assert f"(device {bench.number(board)})" in result.out, result
    assert_app_runs(board)


@MODES
@ALL_CHIPS
def test_reset_starts_app(bench: VmBench, name: str, mode: Mode) -> None:
    board = bench.add(name, mode=mode)
    board.boots_app = True
    result = esp_dfu("reset")
    assert result.code == 0, result
    assert "by its watchdog." in result.out, result
    assert NOTHING in result.out, result
    assert (board.present, device_number("1-1")) == (False, None)


def test_board_left_in_download_mode_is_reset_later(bench: VmBench, image_for: MakeImage) -> None:
    board, image = handed_over(bench), image_for("esp32s3")
    left = flash(board, image, "--after", "no-reset")
    assert "The chip stays in download mode." in left.out, left
    number = bench.number(board)
    wait_until(TTY.exists, f"cdc_acm has {TTY} again")
    assert bench.number(board) == number
    result = esp_dfu("reset")
    assert result.code == 0, result
    assert APP in result.out, result
    assert_app_runs(board)


def test_bus_reset_does_not_start_app_that_handed_over(bench: VmBench, image_for: MakeImage) -> None:
    """FORCE_DOWNLOAD_BOOT survives it; `reset` then helps."""
    board, image = handed_over(bench), image_for("esp32s3")
    result = flash(board, image, *HARD, "--no-loader")
    assert "Seen on port 1-1 after the reset: 303a:0009" in result.out, result
    assert "a bus reset may keep it there; RESET does not." in result.out, result
    assert (board.device, board.present) == (board.rom, True)
    assert APP in esp_dfu("reset").out
    assert_app_runs(board)


def test_boot_held_down(bench: VmBench, image_for: MakeImage) -> None:
    board, image = bench.add("esp32p4"), image_for("esp32p4")
    before = bench.number(board)
    result = flash(board, image, *HARD)
    assert "warning: Seen on port 1-1 after the reset: 303a:0012" in result.err, result
    assert "BOOT may be held down" in result.err, result
    assert bench.number(board) > before
    assert board.rom.mode is Mode.RUN_TIME


def test_serial_monitor_in_between(bench: VmBench, image_for: MakeImage) -> None:
    """Its port ends when the flash takes the interfaces, and exists again when the app runs."""
    board, image = handed_over(bench), image_for("esp32s3")
    wait_until(TTY.exists, f"{TTY} is there")
    settle()
    with TTY.open("rb", buffering=0) as monitor:
        result = flash(board, image, *HARD)
        assert monitor.read(1) == b""  # hung up
    assert APP in result.out, result
    assert (board.device, board.present) == (board.app, True)
    wait_until(lambda: bool([*Path("/dev").glob("ttyACM*")]), "the app has a port")  # the old name may be taken


def test_ordinary_user_with_usb_node_alone(bench: VmBench, image_for: MakeImage) -> None:
    """No right to the serial port is needed to restart the chip."""
    board, image = bench.add(mode=Mode.DFU), image_for("esp32s3")
    board.boots_app = True
    settle()
    Path(f"/dev/bus/usb/001/{bench.number(board):03}").chmod(0o666)
    result = flash(board, image, *HARD, user=NOBODY)
    assert NOTHING in result.out, result
    assert not board.present


def test_four_boards_at_once(bench: VmBench, image_for: MakeImage) -> None:
    apps = [handed_over(bench, path=path) for path in ("1-1", "1-2")]
    silent, held = bench.add(path="1-3"), bench.add(path="1-4")
    silent.boots_app = True
    image = image_for("esp32s3")
    result = esp_dfu("flash", image.path, "--all", "--json", *HARD)
    print(result)
    assert result.code == 0, result
    flashed = [event for line in result.out.splitlines() if (event := json.loads(line))["event"] == "flashed"]
    assert sorted((event["path"], event["reset_by"], event["came_back"]) for event in flashed) == [
        ("1-1", "watchdog", "app"),
        ("1-2", "watchdog", "app"),
        ("1-3", "watchdog", "nothing"),
        ("1-4", "watchdog", "rom"),
    ]
    assert [board.device for board in apps] == [board.app for board in apps]
    assert (silent.present, held.device) == (False, held.rom)
    for board in (*apps, silent, held):
        image.assert_in(board)


def test_watched_boards_are_done_when_their_app_runs(bench: VmBench, image_for: MakeImage) -> None:
    boards = [handed_over(bench, path=f"1-{port}") for port in range(1, 5)]
    image = image_for("esp32s3")
    result = esp_dfu("flash", image.path, "--watch", "--count", "4", *HARD)
    print(result)
    assert result.code == 0, result
    assert result.out.count("PASS") == 4, result
    assert result.out.count("app is on USB") == 4, result
    assert "4 passed, 0 failed" in result.out, result
    for board in boards:
        assert (board.device, board.present) == (board.app, True)
        image.assert_in(board)


class Overheard(Bridge):
    """A bridge that keeps every byte sent to UART0."""

    sent = b""

    def write(self, data: bytes) -> None:
        """See Bridge."""
        self.sent += data
        super().write(data)


@pytest.fixture
def bridged(bench: VmBench) -> Iterator[Board]:
    """Provide a board that its app handed over, with a CP210x; no byte may come over its UART."""
    board = handed_over(bench)
    bridge = Overheard(board, "1-2", 1, 0x10C4, 0xEA60)
    bench.hub.add(bridge, "1-2")
    wait_until(Path("/dev/ttyUSB0").exists, "/dev/ttyUSB0 is there")
    yield board
    assert (bridge.sent, bridge.dtr, bridge.rts) == (b"", False, False)


def test_bridge_that_nobody_named_is_left_alone(bridged: Board, image_for: MakeImage) -> None:
    result = flash(bridged, image_for("esp32s3"), *HARD)
    assert APP in result.out, result
    assert_app_runs(bridged)
