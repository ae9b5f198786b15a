"""Apps that hand over to the ROM, and a USB-UART bridge, as the kernel's cdc_acm, cp210x and ch341 drivers see them.

The serial ports are the kernel's own; esptool's reset sequences and dfu-util judge.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from esp_dfu_ext.dfu.spec import Mode
from esp_dfu_ext.simulator import Board
from esp_dfu_ext.simulator.apps import App, ConsoleApp, DfuApp, TouchApp
from esp_dfu_ext.simulator.bridge import Bridge

from ..usbip import wait_until
from .conftest import MakeImage, VmBench, esp_dfu, flash, run

pytestmark = pytest.mark.vm

OWN_IDS = 0xCAFE, 0x4000
BRIDGES = pytest.mark.parametrize(
    ("vid", "pid", "driver"), [(0x10C4, 0xEA60, "cp210x"), (0x1A86, 0x7523, "ch341-uart")], ids=["cp210x", "ch341"]
)


def open_port(name: str, **options: Any) -> Any:
    """Open a serial port of the kernel with pyserial, as soon as udev has let go of it."""
    wait_until(lambda: Path("/dev", name).exists(), f"/dev/{name} exists")
    return importlib.import_module("serial").Serial(f"/dev/{name}", timeout=1, **options)


def wait_for_rom(board: Board, mode: Mode = Mode.RUN_TIME) -> None:
    wait_until(lambda: board.device is board.rom and board.present and board.rom.mode is mode, "the ROM runs")


def wait_for_app(board: Board) -> None:
    wait_until(lambda: board.device is board.app and board.present, "the app runs")


def start(bench: VmBench, make: type[App] = DfuApp) -> Board:
    """Add a board that runs an app."""
    board = bench.add("esp32s3", "1-1")
    bench.hub.start_app(board, ConsoleApp(board.rom) if make is ConsoleApp else make(*OWN_IDS, "1234"))
    return board


def test_console_app_is_moved_by_rts_and_dtr(bench: VmBench) -> None:
    board = start(bench, ConsoleApp)
    before = bench.number(board)
    with open_port("ttyACM0") as port:
        port.rts, port.dtr = True, False
        port.rts = False
        assert board.app is not None
        assert board.app.restart is not None
        wait_until(lambda: board.app is not None and board.app.restart is None, "it has restarted")
        assert board.device is board.app
        port.dtr = port.rts = True
        port.rts = False
        wait_for_rom(board)
    assert bench.number(board) == before  # Linux has seen nothing of it
    assert board.rom.force_download
    assert "error detaching" in run("dfu-util", "-e", "-d", "303a:0009").err
    assert board.deaf


def test_dfu_util_detaches_app_with_own_ids(bench: VmBench, image_for: MakeImage) -> None:
    board, image = start(bench), image_for("esp32s3")
    assert "Found Runtime: [cafe:4000]" in run("dfu-util", "-l").out
    detached = run("dfu-util", "-e", "-d", "cafe:4000")
    assert detached.code == 0, detached
    wait_for_rom(board)
    bench.hub.wait_for("1-1")
    flash(board, image)


def test_port_closed_at_1200_baud_hands_over(bench: VmBench, image_for: MakeImage) -> None:
    board, image = start(bench, TouchApp), image_for("esp32s3")
    assert esp_dfu("flash", image.path).code != 0
    with open_port("ttyACM0"):
        pass
    assert board.device is board.app
    with open_port("ttyACM0", baudrate=1200) as port:
        port.dtr = False
    wait_for_rom(board)
    bench.hub.wait_for("1-1")
    flash(board, image)


@BRIDGES
@pytest.mark.parametrize("sequence", ["ClassicReset", "UnixTightReset"])
def test_esptool_resets_chip_over_bridge(
    bench: VmBench, image_for: MakeImage, vid: int, pid: int, driver: str, sequence: str
) -> None:
    """From a running app into download mode, flashed, and out of it again."""
    board, image = start(bench), image_for("esp32s3")
    bench.hub.add(Bridge(board, "1-2", 1, vid, pid), "1-2")
    reset: Any = importlib.import_module("esptool.reset")
    with open_port("ttyUSB0") as port:
        assert Path("/sys/bus/usb/devices/1-2:1.0/driver").resolve().name in (driver, driver.partition("-")[0])
        assert board.device is board.app  # opening the port resets nothing
        getattr(reset, sequence)(port)()
        wait_for_rom(board)
        bench.hub.wait_for("1-1")
        flash(board, image)
        reset.HardReset(port)()
        wait_for_app(board)
    assert not board.rom.force_download
    assert "Found Runtime: [cafe:4000]" in run("dfu-util", "-l").out


@BRIDGES
def test_sync_on_bridge_makes_rom_deaf_until_reset(
    bench: VmBench, image_for: MakeImage, vid: int, pid: int, driver: str
) -> None:
    board, image = bench.add("esp32s3", "1-1"), image_for("esp32s3")
    bench.hub.add(Bridge(board, "1-2", 1, vid, pid), "1-2")
    reset: Any = importlib.import_module("esptool.reset")
    with open_port("ttyUSB0") as port:
        port.write(b"AT\r\n")
        port.flush()
        assert not board.deaf
        port.write(bytes.fromhex("c00008240000000000070712 20") + b"\x55" * 32 + b"\xc0")  # esptool's SYNC
        wait_until(lambda: board.deaf, "the ROM polls UART0 only")
        assert esp_dfu("flash", image.path).code != 0
        reset.ClassicReset(port)()
        wait_until(lambda: board.present and not board.deaf, "the ROM runs again")
        bench.hub.wait_for("1-1")
        flash(board, image)
