"""Test docs/usbip.md: Debian's `usbip attach` uses a board of another machine over TCP and a slow link.

The other machine is the server of ../usbip.py. Linux' own server refuses devices that are themselves attached over
USB/IP ("bind loop detected"), as all devices of the virtual machine are.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from esp_dfu_ext.clock import SystemClock
from esp_dfu_ext.dfu.spec import Mode
from esp_dfu_ext.simulator import Board
from esp_dfu_ext.simulator.board import vanish

from ...kit.chips import chip
from ..usbip import Server, detach, device_number, wait_until
from .checks import assert_failed
from .conftest import MakeImage, esp_dfu, flash, run

pytestmark = pytest.mark.vm

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "usbip.md").read_text(encoding="utf-8")
BUS_ID = "1-1"
HERE = "1-1"  # the first free port
SLOW = 0.02  # seconds of round trip
LOOP = next(line.strip() for line in PAGE.splitlines() if line.startswith("    while")).replace("HOST", "127.0.0.1")
ATTACH = LOOP[LOOP.index("usbip") : LOOP.index(" 2>")]


@pytest.fixture
def board() -> Board:
    """Return a board for the other machine."""
    return Board.make(chip("esp32s3"), "3-1.4", SystemClock(), number=1, flash_size=1 << 20)


@pytest.fixture
def server(board: Board) -> Iterator[Server]:
    if not os.environ.get("ESP_DFU_VM"):
        pytest.fail("this runs in the virtual machine only: tests/real_usb/vm/boot.py")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with Server(board, BUS_ID, SLOW) as server:
        yield server
    detach(0)
    wait_until(lambda: not is_here(), "it is gone")


@pytest.fixture
def attaching(server: Server) -> Iterator[None]:
    """Run the page's loop."""
    loop = subprocess.Popen(["bash", "-c", LOOP])
    wait_until(is_here, "it is here", deadline=20)
    yield
    loop.kill()
    loop.wait()


def is_here() -> bool:
    return device_number(HERE) is not None


def attach() -> None:
    done = run(*ATTACH.split())
    assert done.code == 0, done
    wait_until(is_here, "it is here")


def test_attach_loop_follows_board_through_flash(
    board: Board, server: Server, attaching: None, image_for: MakeImage
) -> None:
    image, before = image_for("esp32s3"), device_number(HERE)
    result = flash(board, image)
    assert f"on port {HERE}" in result.out
    assert device_number(HERE) != before
    assert server.imports == 2


def test_flash_without_second_attach_fails(board: Board, server: Server, image_for: MakeImage) -> None:
    image = image_for("esp32s3")
    listed = run("usbip", "list", "--remote=127.0.0.1")
    assert f"{BUS_ID}: " in listed.out
    assert "(303a:0009)" in listed.out
    attach()
    lost = esp_dfu("flash", image.path)
    assert_failed(lost, 74, "no-return")
    assert "no device is on its port now" in lost.err
    # As the page says, the board waits in DFU mode.
    attach()
    assert board.rom.mode is Mode.DFU
    flash(board, image)
    assert server.imports == 2


def test_dfu_mode_needs_one_attach(board: Board, server: Server, image_for: MakeImage) -> None:
    board.rom.restart(Mode.DFU)
    attach()
    assert run(*ATTACH.split()).code != 0  # as the loop does all the time: refused, without effect
    image = image_for("esp32s3")
    flash(board, image)
    assert server.imports == 1


def test_board_unplugged_from_other_machine(board: Board, server: Server, image_for: MakeImage) -> None:
    board.rom.restart(Mode.DFU)
    attach()
    board.faults.plan(vanish, 100)
    gone = esp_dfu("flash", image_for("esp32s3").path)
    assert_failed(gone, 74, "device-gone")
    assert "The image in flash memory may be incomplete." in gone.err
