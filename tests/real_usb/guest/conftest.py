"""Boards on the virtual machine's USB, images for them, and programs that use them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from esp_dfu_ext import build
from esp_dfu_ext.clock import SystemClock
from esp_dfu_ext.dfu.spec import Mode
from esp_dfu_ext.image.format import DfuImage, parse_image
from esp_dfu_ext.simulator import Board
from esp_dfu_ext.simulator.sample import write_sample_project

from ...kit.boards import assert_flashed
from ...kit.chips import chip
from ..usbip import Hub, device_number

SYSTEM_LIBUSB = "import libusb_package; libusb_package.get_library_path = lambda: None\n"
CLI = "from esp_dfu_ext.cli import cli; cli(prog_name='esp-dfu')"
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
PLUGDEV = ("setpriv", "--reuid=65534", "--regid=65534", "--groups=plugdev")
LIBUSBS = ("libusb-package", "system libusb")


@dataclass(frozen=True)
class Result:
    """Exit code and output of a program."""

    code: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"exit code {self.code}\n{self.out}\n{self.err}"


def start(command: Sequence[str | Path], user: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Start a program; `user` is a command prefix that changes the user."""
    words = [*user, *map(str, command)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str], timeout: float = 60.0) -> Result:
    """Wait for a program to end."""
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return Result(process.returncode, out, err)


def run(*command: str | Path, user: Sequence[str] = (), timeout: float = 60.0) -> Result:
    """Run a program to its end."""
    return finish(start(command, user), timeout)


def esp_dfu_command(*arguments: str | Path, libusb: str = LIBUSBS[0]) -> list[str | Path]:
    """Return the command line of esp-dfu, with the libusb of PyPI's libusb-package or with the system's.

    A flashed board stays in download mode, unless the arguments say how to restart it.
    """
    prefix = SYSTEM_LIBUSB if libusb == LIBUSBS[1] else ""
    stay = ["--after", "no-reset"] if arguments[0] == "flash" and not {"--after", "--reset"} & {*arguments} else []
    return [sys.executable, "-c", prefix + CLI, *arguments, *stay]


def esp_dfu(*arguments: str | Path, libusb: str = LIBUSBS[0], user: Sequence[str] = ()) -> Result:
    """Run esp-dfu to its end."""
    return run(*esp_dfu_command(*arguments, libusb=libusb), user=user)


def settle() -> None:
    """Wait until udev has handled all devices."""
    subprocess.run(["udevadm", "settle", "--timeout=20"], check=True)


@dataclass(frozen=True)
class Image:
    """A dfu.bin, as a file and parsed."""

    path: Path
    parsed: DfuImage

    def assert_in(self, board: Board) -> None:
        """Assert that the board's flash memory holds the image."""
        assert_flashed(board.rom.flash.read, self.parsed)


MakeImage = Callable[[str], Image]


def flash(board: Board, image: Image, *options: str, libusb: str = LIBUSBS[0], user: Sequence[str] = ()) -> Result:
    """Flash a board with esp-dfu, and assert that its flash memory then holds the image."""
    result = esp_dfu("flash", *options, image.path, libusb=libusb, user=user)
    assert result.code == 0, result
    image.assert_in(board)
    return result


@pytest.fixture(scope="session")
def image_for(tmp_path_factory: pytest.TempPathFactory) -> MakeImage:
    """Return a function that builds a small image for a chip, about 250 blocks."""
    made: dict[str, Image] = {}

    def make(name: str) -> Image:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            folder.chmod(0o755)
            result = build(write_sample_project(folder, chip(name), app_size=8_000, bootloader_size=4_000))
            # In a place where an ordinary user can read it.
            path = Path(shutil.copy(result.path, f"/run/{name}.bin"))
            made[name] = Image(path, parse_image(path.read_bytes()))
        return made[name]

    return make


class VmBench:
    """The virtual machine's USB bus, with simulated boards on it."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub

    def add(self, name: str = "esp32s3", path: str = "1-1", mode: Mode = Mode.RUN_TIME) -> Board:
        """Plug a new board into a port; its serial number ends with the port number."""
        board = Board.make(chip(name), path, SystemClock(), number=int(path[2:]), flash_size=1 << 20)
        board.rom.restart(mode)
        self.hub.add(board, path)
        return board

    def number(self, board: Board) -> int:
        """Return the device number of a board."""
        number = device_number(board.path)
        assert number is not None
        return number


@pytest.fixture
def bench() -> Iterator[VmBench]:
    """Provide an empty bus; unplug all its devices after the test."""
    if not os.environ.get("ESP_DFU_VM"):
        pytest.fail("this runs in the virtual machine only: tests/real_usb/vm/boot.py")
    with Hub() as hub:
        yield VmBench(hub)
