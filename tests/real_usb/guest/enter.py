"""From a running app to the next one without buttons, on the real Linux USB stack.

Over a USB-UART bridge as the kernel's cp210x and ch341 drivers see it, over an app's own port as cdc_acm sees it, and
by DFU_DETACH without a port. The name does not start with test_, so that pytest collects it only from ../test_vm.py or
by hand (see ../vm/boot.py).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from esp_dfu_ext.simulator import Board
from esp_dfu_ext.simulator.apps import App, ConsoleApp, DfuApp, TouchApp
from esp_dfu_ext.simulator.bridge import Bridge

from ..usbip import device_number, wait_until
from .conftest import NOBODY, MakeImage, Result, VmBench, esp_dfu, flash, run, settle, start

pytestmark = pytest.mark.vm

ALL_CHIPS = pytest.mark.parametrize("name", ["esp32s2", "esp32s3", "esp32p4", "esp32s31"])
BRIDGES = pytest.mark.parametrize("ids", [(0x10C4, 0xEA60), (0x1A86, 0x7523)], ids=["cp210x", "ch341"])
OF_ESPRESSIF, FOREIGN = (0x303A, 0x4001), (0xCAFE, 0x4000)
UART, CDC = "/dev/ttyUSB0", "/dev/ttyACM0"
HARD = ("--after", "hard-reset")


class Overheard(Bridge):
    """A bridge that keeps every byte sent to UART0."""

    sent = b""

    def write(self, data: bytes) -> None:
        """See Bridge."""
        self.sent += data
        super().write(data)


class Unwired(Overheard):
    """A bridge whose DTR and RTS lead nowhere."""

    def set_lines(self, dtr: bool, rts: bool) -> None:
        """See Bridge."""
        self.dtr, self.rts = dtr, rts


Connect = Callable[..., Bridge]


@pytest.fixture
def connect(bench: VmBench) -> Iterator[Connect]:
    """Return a function that adds a bridge; at the end, no byte has been sent on it and both lines are released."""
    bridges: list[Overheard] = []

    def add(board: Board, ids: tuple[int, int] = (0x10C4, 0xEA60), kind: type[Overheard] = Overheard) -> Bridge:
        bridges.append(kind(board, "1-8", 1, *ids))
        bench.hub.add(bridges[-1], "1-8")
        wait_until(Path(UART).exists, f"{UART} is there")
        settle()
        return bridges[-1]

    yield add
    assert [(bridge.sent, bridge.dtr, bridge.rts) for bridge in bridges] == [(b"", False, False)] * len(bridges)


def running(bench: VmBench, app: App | None, name: str = "esp32s3", path: str = "1-1") -> Board:
    """Add a board that runs an app; None for one without USB."""
    board = bench.add(name, path)
    if app is not None:
        bench.hub.start_app(board, app)
    else:
        bench.hub.unplug(board)
        board.boots_app = True
    settle()
    return board


def assert_runs_app_again(board: Board, result: Result, ids: str) -> None:
    """The app runs, and the command said so."""
    assert f"Seen on port {board.path} after the reset: {ids}" in result.out, result
    assert (board.device, board.present, board.rom.force_download) == (board.app, True, False)


def refused(code: str, *words: str | Path, user: tuple[str, ...] = ()) -> str:
    """Run a flash that fails with an error code; return what it said."""
    result = esp_dfu("flash", *words, user=user)
    print(result)
    assert f"[{code}]" in result.err, result
    return result.err


# --- a bridge ---------------------------------------------------------------------------------------------


@BRIDGES
@ALL_CHIPS
def test_bridge_takes_app_to_the_next_one(
    bench: VmBench, image_for: MakeImage, connect: Connect, ids: tuple[int, int], name: str
) -> None:
    board, image = running(bench, App(*FOREIGN, "1234"), name), image_for(name)
    connect(board, ids)
    result = flash(board, image, "--port", UART, *HARD)
    print(result)
    assert_runs_app_again(board, result, "cafe:4000")


@BRIDGES
def test_app_without_usb(bench: VmBench, image_for: MakeImage, connect: Connect, ids: tuple[int, int]) -> None:
    board, image = running(bench, None), image_for("esp32s3")
    connect(board, ids)
    result = flash(board, image, "--port", UART, "--json", *HARD)
    flashed = json.loads(result.out.splitlines()[-1])["boards"][0]
    assert (flashed["reset_by"], flashed["came_back"]) == ("en-pulse", "nothing"), result
    assert (board.present, device_number("1-1")) == (False, None)


def test_bridge_beside_other_boards(bench: VmBench, image_for: MakeImage, connect: Connect) -> None:
    board, other = running(bench, App(*FOREIGN, "1234")), bench.add(path="1-2")
    connect(board)
    image = image_for("esp32s3")
    result = flash(board, image, "--port", UART, *HARD)
    assert_runs_app_again(board, result, "cafe:4000")
    assert other.rom.flash.read(0, 4096) == b"\xff" * 4096


@BRIDGES
def test_no_dfu_after_the_reset(bench: VmBench, image_for: MakeImage, connect: Connect, ids: tuple[int, int]) -> None:
    """The ROM says on UART0 that it is in download mode, but its USB is not there."""
    board = running(bench, None)
    board.disable_usb()
    connect(board, ids)
    said = refused("no-download-mode", "--port", UART, image_for("esp32s3").path)
    assert "download mode" in said
    assert f"on {UART}" in said


def test_lines_that_lead_nowhere(bench: VmBench, image_for: MakeImage, connect: Connect) -> None:
    board = running(bench, App(*FOREIGN, "1234"))
    connect(board, kind=Unwired)
    before = bench.number(board)
    refused("no-download-mode", "--port", UART, image_for("esp32s3").path)
    assert bench.number(board) == before


NOBODY_IN_DIALOUT = ("setpriv", "--reuid=65534", "--regid=65534", "--groups=dialout")
HOLD = """
import fcntl, sys, termios
port = open(sys.argv[1], "rb", buffering=0)
fcntl.ioctl(port, termios.TIOCEXCL)
print(1)
input()
"""


def test_port_of_another_program(bench: VmBench, image_for: MakeImage, connect: Connect) -> None:
    board = running(bench, App(*FOREIGN, "1234"))
    connect(board)
    other = start([sys.executable, "-u", "-c", HOLD, UART], NOBODY_IN_DIALOUT)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "1\n"
        said = refused("serial-port", "--port", UART, image_for("esp32s3").path, user=NOBODY_IN_DIALOUT)
        assert "in use" in said or "busy" in said or "open" in said
    finally:
        other.communicate("\n", timeout=20)
    assert board.device is board.app


def test_port_that_is_not_permitted(bench: VmBench, image_for: MakeImage, connect: Connect) -> None:
    board = running(bench, App(*FOREIGN, "1234"))
    connect(board)
    said = refused("serial-port", "--port", UART, image_for("esp32s3").path, user=NOBODY)
    assert "dialout" in said


# --- an app's own port ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [DfuApp, TouchApp], ids=["DFU_DETACH", "1200 baud"])
def test_port_of_the_app_itself(bench: VmBench, image_for: MakeImage, kind: type[App]) -> None:
    board, image = running(bench, kind(*FOREIGN, "1234")), image_for("esp32s3")
    result = flash(board, image, "--port", CDC, *HARD)
    print(result)
    assert_runs_app_again(board, result, "cafe:4000")


def test_port_of_the_roms_console(bench: VmBench, image_for: MakeImage) -> None:
    board = bench.add("esp32s3")
    bench.hub.start_app(board, ConsoleApp(board.rom))
    settle()
    image = image_for("esp32s3")
    result = flash(board, image, "--port", CDC, *HARD)
    assert_runs_app_again(board, result, "303a:0009")


def test_app_that_takes_no_notice(bench: VmBench, image_for: MakeImage) -> None:
    board = running(bench, App(*FOREIGN, "1234"))
    refused("no-download-mode", "--port", CDC, image_for("esp32s3").path)
    assert board.device is board.app


# --- without a port ---------------------------------------------------------------------------------------


@ALL_CHIPS
def test_app_is_asked_without_a_port(bench: VmBench, image_for: MakeImage, name: str) -> None:
    board, image = running(bench, DfuApp(*OF_ESPRESSIF, "1234"), name), image_for(name)
    result = flash(board, image, *HARD)
    print(result)
    assert_runs_app_again(board, result, "303a:4001")


def test_app_of_another_vendor_is_asked_by_its_path(bench: VmBench, image_for: MakeImage) -> None:
    board, image = running(bench, DfuApp(*FOREIGN, "1234")), image_for("esp32s3")
    assert esp_dfu("flash", image.path).code != 0
    assert board.device is board.app
    result = flash(board, image, "--path", "1-1", *HARD)
    assert_runs_app_again(board, result, "cafe:4000")


@pytest.mark.parametrize("options", [("--all",), ("--watch", "--count", "4")], ids=["all", "watch"])
def test_four_apps_become_four_apps(bench: VmBench, image_for: MakeImage, options: tuple[str, ...]) -> None:
    boards = [running(bench, DfuApp(*OF_ESPRESSIF, f"{port}"), path=f"1-{port}") for port in range(1, 5)]
    image = image_for("esp32s3")
    result = esp_dfu("flash", image.path, *options, *HARD)
    print(result)
    assert result.code == 0, result
    for board in boards:
        assert (board.device, board.present) == (board.app, True)
        image.assert_in(board)
    if "--watch" in options:
        assert result.out.count("app is on USB") == 4, result
        assert "4 passed, 0 failed" in result.out, result


def test_monitor_works_at_once(bench: VmBench, image_for: MakeImage, connect: Connect) -> None:
    """pyserial, as a monitor opens the bridge's port afterwards."""
    board, image = running(bench, App(*FOREIGN, "1234")), image_for("esp32s3")
    connect(board)
    flash(board, image, "--port", UART, *HARD)
    opened = run(sys.executable, "-c", f"import serial; serial.Serial({UART!r}, 115200, timeout=1).close()")
    assert opened.code == 0, opened
    assert board.device is board.app
