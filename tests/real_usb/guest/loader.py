"""Test the serial loader on the real Linux USB stack: the kernel's tty with esptool, and libusb beside DFU.

The name does not start with test_, so that pytest collects it only from ../test_vm.py or by hand (see ../vm/boot.py).
"""

from __future__ import annotations

import array
import fcntl
import os
import sys
import termios
from pathlib import Path

import pytest
import usb.core
import usb.util

from esp_dfu_ext.clock import SystemClock
from esp_dfu_ext.dfu.spec import Mode

from ...kit.files import write_file
from ...kit.loader import READ_REG, SYNC_ANSWER, SYNC_FRAME, frame, value, words
from ...kit.serial_port import OLD_ESPTOOL, esptool, finish, start_esptool
from ..serial_talk import SerialPort
from ..usbip import wait_until
from .conftest import CLI, NOBODY, Image, MakeImage, VmBench, esp_dfu, flash, run

pytestmark = pytest.mark.vm

TTY = "/dev/ttyACM0"
ALL_CHIPS = pytest.mark.parametrize("name", ["esp32s2", "esp32s3", "esp32p4", "esp32s31"])


def wait_for_tty(*, there: bool = True) -> str:
    wait_until(lambda: Path(TTY).exists() is there, f"{TTY} is {'there' if there else 'gone'}")
    return TTY


def esp_files(image: Image, folder: Path) -> list[str]:
    """Write an image's files; return the words of esptool's command line for them."""
    files = []
    for member in image.parsed.flash_members:
        assert member.record is not None
        files += [hex(member.record.address), str(write_file(folder / member.name, bytes(member.data)))]
    return files


def set_lines(tty: int, lines: int) -> None:
    fcntl.ioctl(tty, termios.TIOCMSET, array.array("i", [lines]))


@ALL_CHIPS
def test_esptool_reads_mac_and_flash_size(bench: VmBench, name: str) -> None:
    board = bench.add(name)
    out = esptool(wait_for_tty(), "flash-id")
    print(out)
    assert "7c:df:a1:00:00:01" in out
    assert "Detected flash size: 1MB" in out
    # esptool has closed the port: RTS fell, and the chip restarted.
    wait_until(lambda: board.rom.loader is not None and not board.rom.loader.active, "the chip was reset")


@ALL_CHIPS
def test_esptool_verifies_what_we_flashed_and_starts_the_app(
    bench: VmBench, image_for: MakeImage, name: str, tmp_path: Path
) -> None:
    board, image = bench.add(name), image_for(name)
    flash(board, image)
    board.boots_app = True
    files = esp_files(image, tmp_path)
    process = start_esptool(
        wait_for_tty(), "verify-flash", *files, after="no-reset" if OLD_ESPTOOL else "watchdog-reset"
    )
    out = process.communicate(timeout=60)[0]
    print(out)
    assert out.count("digest matched") == len(files) // 2, out
    wait_for_tty(there=False)  # esptool itself may fail: the chip can be gone before its last answer
    assert not board.present


OVER_SERIAL = ("--over", "serial", "--no-stub")


@ALL_CHIPS
def test_flashes_over_serial_and_starts_the_app(bench: VmBench, image_for: MakeImage, name: str) -> None:
    board, image = bench.add(name), image_for(name)
    wait_for_tty()
    result = flash(board, image, *OVER_SERIAL)
    print(result)
    assert f"on serial port {TTY}" in result.out + result.err
    number = bench.number(board)
    board.boots_app = True
    flash(board, image, *OVER_SERIAL)
    assert bench.number(board) == number  # RTS did not fall, which would have reset the chip
    result = flash(board, image, *OVER_SERIAL, "--reset", "--path", "1-1")
    print(result)
    assert not board.present
    wait_for_tty(there=False)


# As on Windows and macOS: the system keeps the serial interfaces. On Windows, RTS is low while the port is open.
KEPT = "import esp_dfu_ext.usb.libusb as libusb; libusb._backend_class().lends_interfaces = False\n"
LOW = (
    "import functools, esp_dfu_ext.loader.system_port as port\n"
    "port.open_serial_port = functools.partial(port.open_serial_port, keeps_lines=False)\n"
)


@pytest.mark.parametrize(("setup", "flashes"), [(KEPT, 2), (KEPT + LOW, 1)], ids=["rts-high", "rts-low"])
def test_fast_loop_through_the_kernels_own_tty(
    bench: VmBench, image_for: MakeImage, tmp_path: Path, setup: str, flashes: int
) -> None:
    board, image = bench.add("esp32s3"), image_for("esp32s3")
    wait_for_tty()
    for number in range(flashes):  # from run-time mode, and then with the chip in its fast loop already
        trace = tmp_path / f"trace{number}"
        words = ["flash", "--verify", "--after", "no-reset", "--trace", str(trace), str(image.path)]
        result = run(sys.executable, "-c", setup + CLI, *words)
        lines = trace.read_text().splitlines()
        print(result, *(line for line in lines if "serial" in line), sep="\n")
        assert result.code == 0
        image.assert_in(board)
        assert "MAC 7c:df:a1:00:00:01" in result.out + result.err
        assert any(f"open serial port      {TTY}" in line for line in lines)
        assert not any("detach driver" in line for line in lines)
        before = bench.number(board)
        SystemClock().sleep(0.2)
        assert bench.number(board) == before  # RTS did not fall, which would have reset the chip
        assert board.rom.mode is Mode.DFU
        assert board.rom.serial_loader_active


def test_refused_board_names_serial_port(bench: VmBench, image_for: MakeImage) -> None:
    board, image = bench.add(), image_for("esp32s3")
    os.chmod(wait_for_tty(), 0o666)  # noqa: PTH101
    result = esp_dfu("flash", image.path, user=NOBODY)
    print(result)
    assert result.code == 77
    said = f"esp-dfu flash {image.path} --after no-reset --over serial --port {TTY}"
    assert said in result.err
    flash(board, image, *OVER_SERIAL, "--port", TTY, user=NOBODY)


def test_esptool_writes_flash_in_dfu_mode(bench: VmBench, tmp_path: Path) -> None:
    board = bench.add(mode=Mode.DFU)
    content = bytes(range(256)) * 32
    path = write_file(tmp_path / "app.bin", content)
    out = esptool(wait_for_tty(), "write-flash", "0x10000", str(path))
    assert "Hash of data verified" in out
    assert board.rom.flash.read(0x10000, len(content)) == content


def test_tty_that_is_opened_and_closed_resets_the_chip_only_after_sync(bench: VmBench) -> None:
    board = bench.add(mode=Mode.DFU)
    number = bench.number(board)
    for _ in range(2):
        os.close(os.open(wait_for_tty(), os.O_RDWR | os.O_NOCTTY))
    assert bench.number(board) == number
    tty = os.open(TTY, os.O_RDWR | os.O_NOCTTY)
    try:
        set_lines(tty, termios.TIOCM_DTR)  # RTS off
        os.write(tty, SYNC_FRAME)
        wait_until(lambda: board.rom.loader is not None and board.rom.loader.active, "SYNC is answered")
    finally:
        os.close(tty)
    SystemClock().sleep(0.2)
    assert bench.number(board) == number
    os.close(os.open(TTY, os.O_RDWR | os.O_NOCTTY))
    wait_until(lambda: board.rom.mode is Mode.RUN_TIME, "the chip was reset")


@pytest.mark.parametrize("mode", [Mode.RUN_TIME, Mode.DFU], ids=str)
def test_libusb_talks_to_the_loader_beside_a_download(bench: VmBench, image_for: MakeImage, mode: Mode) -> None:
    board, image = bench.add("esp32s3", mode=mode), image_for("esp32s3")
    wait_for_tty()
    port = SerialPort()
    assert not Path(TTY).exists()
    assert port.ask(SYNC_FRAME) == SYNC_ANSWER * 8
    assert board.target.serial_loader is not None
    read = frame(READ_REG, words(board.target.serial_loader.mac))
    assert value(port.ask(read)) == 0xA1000001
    if mode is Mode.DFU:
        flash(board, image)
        assert value(port.ask(read)) == 0xA1000001
    port.give_back()
    assert finish(start_esptool(wait_for_tty(), "read-mac"))


def test_interface_that_the_kernel_drives_cannot_be_claimed(bench: VmBench) -> None:
    bench.add()
    wait_for_tty()
    device = usb.core.find(idVendor=0x303A)
    with pytest.raises(usb.core.USBError) as caught:
        usb.util.claim_interface(device, 1)
    assert caught.value.errno == 16  # EBUSY
    usb.util.dispose_resources(device)
