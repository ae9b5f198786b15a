"""A flash through the board's serial port: esptool as a library, the simulated chip's serial loader behind a pty."""

from __future__ import annotations

import json
import os
import pty
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from esptool.targets import CHIP_DEFS

from esp_dfu_ext import Flasher, FlashOptions, NoSerialPortError, SerialLoaderError, SerialPortError, UsageError
from esp_dfu_ext.clock import SystemClock, VirtualClock
from esp_dfu_ext.dfu.discovery import Selector
from esp_dfu_ext.dfu.spec import Mode
from esp_dfu_ext.errors import LayoutError, SeveralPortsError
from esp_dfu_ext.events import (
    DeviceFound,
    Event,
    Flashed,
    Phase,
    PhaseFinished,
    PhaseStarted,
    Progress,
    Waiting,
    ignore,
)
from esp_dfu_ext.operations.flash_serial import flash_over_serial
from esp_dfu_ext.operations.flash_setup import FlashSetup
from esp_dfu_ext.operations.inspect import CheckedImage
from esp_dfu_ext.simulator import Board
from esp_dfu_ext.ui.json_lines import read_line
from esp_dfu_ext.usb.bus import Bus
from esp_dfu_ext.usb.serial_ports import SerialPort

from .kit.archives import MIB, File, checked, content, image_of, small_image
from .kit.boards import Rig, assert_flashed
from .kit.chips import NAMES, chip
from .kit.commands import esp_dfu
from .kit.files import write_file
from .kit.serial_port import serial_port

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")


def make_board(name: str = "esp32s3", flash_size: int = 4 * MIB, mode: Mode = Mode.DFU) -> Board:
    board = Board.make(chip(name), "1-1", SystemClock(), flash_size=flash_size)
    board.rom.restart(mode)
    return board


def flash(port: str, image: CheckedImage, events: list[Event], **options: Any) -> Any:
    options = {"after": "no-reset", **options}
    flasher = Flasher(FlashOptions(over="serial", port=port, no_stub=True, **options), on_event=events.append)
    return flasher.flash(image)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", [Mode.RUN_TIME, Mode.DFU], ids=str)
def test_flashes_every_chip(name: str, mode: Mode, capfd: pytest.CaptureFixture[str]) -> None:
    if name not in CHIP_DEFS:
        pytest.skip("this esptool does not know the chip")
    board, image, events = make_board(name, mode=mode), small_image(name), []  # type: ignore[var-annotated]
    with serial_port(board) as port:
        result = flash(port, checked(image, chip(name)), events)
    assert_flashed(board.rom.flash.read, image)
    assert (result.path, result.size, result.status, result.state) == (port, image.payload_size, "OK", "")
    assert events[0] == DeviceFound(port, "serial", None)
    assert [e.phase for e in events if isinstance(e, PhaseStarted)] == [Phase.DOWNLOAD, Phase.VERIFY]
    assert [e.phase for e in events if isinstance(e, PhaseFinished)] == [Phase.DOWNLOAD, Phase.VERIFY]
    done = [e.done for e in events if isinstance(e, Progress)]
    assert done == sorted(done)
    assert done[-1] == image.payload_size
    assert isinstance(events[-1], Flashed)
    assert capfd.readouterr() == ("", "")


def refused(port: str, image: CheckedImage | None = None) -> SerialLoaderError:
    with pytest.raises(SerialLoaderError) as caught:
        flash(port, image or checked(), [])
    return caught.value


def test_verifies_by_the_chips_own_md5(monkeypatch: pytest.MonkeyPatch) -> None:
    board = make_board()
    program = board.rom.flash.program

    def program_wrongly(address: int, data: bytes) -> None:
        program(address, bytes([data[0] & 0x7E]) + data[1:] if address == 0x8000 else data)

    monkeypatch.setattr(board.rom.flash, "program", program_wrongly)
    with serial_port(board) as port:
        error = refused(port)
    assert error.reason == "md5"
    assert "0x8000" in error.message
    assert error.notes == ("The image in flash memory may be incomplete.",)


def test_stub_that_does_not_start() -> None:
    board = make_board()  # it cannot run what it loads
    flasher = Flasher(FlashOptions(over="serial"))
    with serial_port(board) as port:
        flasher.options = FlashOptions(over="serial", port=port)
        with pytest.raises((SerialLoaderError, SerialPortError)) as caught:
            flasher.flash(checked())
    assert "start the stub" in caught.value.message
    assert caught.value.notes == ("Nothing was written.",)
    assert board.rom.flash.read(0, 16) == b"\xff" * 16


def test_refuses_other_chip_before_writing() -> None:
    board = make_board("esp32s2")
    with serial_port(board) as port:
        error = refused(port)
    assert "This chip is ESP32-S2" in error.message
    assert error.notes == ("Nothing was written.",)
    assert board.rom.flash.read(0, 16) == b"\xff" * 16


def test_refuses_image_that_ends_beyond_the_flash_memory() -> None:
    board, image = make_board(flash_size=MIB // 4), image_of([File(0x80000, "a.bin", content(4096))], chip())
    with serial_port(board) as port, pytest.raises(LayoutError, match=r"0x81000.* only 256 KiB"):
        flash(port, checked(image), [])


def test_chip_that_does_not_answer() -> None:
    ours, theirs = pty.openpty()
    try:
        error = refused(os.ttyname(theirs))
    finally:
        os.close(ours)
        os.close(theirs)
    assert error.reason == "connect"
    assert error.notes == ("Nothing was written.",)


def test_port_that_leaves_in_the_middle() -> None:
    board = make_board()
    events: list[Event] = []

    def unplug(event: Event) -> None:
        events.append(event)
        if isinstance(event, Progress) and event.name == "app.bin":
            board.unplug()

    flasher = Flasher(FlashOptions(over="serial", no_stub=True), on_event=unplug)
    with serial_port(board) as port:
        flasher.options = FlashOptions(over="serial", port=port, no_stub=True)
        with pytest.raises((SerialPortError, SerialLoaderError)) as caught:
            flasher.flash(checked())
    assert caught.value.notes == ("The image in flash memory may be incomplete.",)


def test_starts_the_app() -> None:
    board = make_board()
    board.boots_app = True
    with serial_port(board) as port:
        result = flash(port, checked(), [], after="hard-reset")
        assert result.after_reset == "nothing"
        assert not board.present


def test_without_reset_the_chip_serves_dfu_afterwards() -> None:
    board = make_board()
    rig = Rig([board], board.clock)
    with serial_port(board) as port:
        flash(port, checked(), [])
    rig.flash(small_image())


class ComesBack(SystemClock):
    """A clock that points a link at another port when somebody waits."""

    def __init__(self, link: Path, port: str) -> None:
        super().__init__()
        self._link, self._port = link, port

    def sleep(self, seconds: float) -> None:
        self._link.unlink(missing_ok=True)
        self._link.symlink_to(self._port)
        super().sleep(seconds)


def test_port_that_is_replaced_while_connecting_is_connected_again(tmp_path: Path) -> None:
    board, link = make_board(), tmp_path / "ttyACM0"
    link.symlink_to(write_file(tmp_path / "old", b""))
    options = FlashOptions(over="serial", port=str(link), no_stub=True)
    with serial_port(board) as port:
        Flasher(options, clock=ComesBack(link, port)).flash(checked())
    assert_flashed(board.rom.flash.read, small_image())


def test_port_that_is_no_serial_port_is_not_waited_for(tmp_path: Path) -> None:
    clock = VirtualClock()
    path = write_file(tmp_path / "file", b"")
    with pytest.raises(SerialPortError, match="file cannot be opened") as caught:
        Flasher(FlashOptions(over="serial", port=str(path)), clock=clock).flash(checked())
    assert caught.value.reason == "failed"
    assert clock.monotonic() < 1


# --- which port -------------------------------------------------------------------------------------------

S3 = SerialPort("COM5", 0x303A, 9, "7c:df:a1:00:00:01", "1-2")
S3_TOO = SerialPort("COM6", 0x303A, 9, "7c:df:a1:00:00:02", "1-3")
S2 = SerialPort("COM7", 0x303A, 2, "0", "1-4")
BRIDGE = SerialPort("COM8", 0x10C4, 0xEA60, "0001", "1-5")


def chosen(ports: Sequence[SerialPort], path: str | None = None, serial: str | None = None, **options: Any) -> str:
    """Return the port that is opened; it does not exist on this machine."""
    setup = FlashSetup(checked(), FlashOptions(over="serial", **options), Bus(), [chip()], VirtualClock(), ignore)
    with pytest.raises(SerialPortError) as caught:
        flash_over_serial(setup, Selector(path, serial), lambda: ports, same_buses=False)
    assert caught.value.reason == "missing"
    return caught.value.port


def test_chooses_the_only_port_of_the_chip() -> None:
    assert chosen([BRIDGE, S2, S3]) == "COM5"
    assert chosen([S3, S3_TOO], path="1-3") == "COM6"
    assert chosen([S3, S3_TOO], path="4-3") == "COM6"  # Windows numbers the buses in its own way
    assert chosen([S3, S3_TOO], serial="7C:DF:A1:00:00:01") == "COM5"
    assert chosen([S3, S3_TOO], port="COM6") == "COM6"


@pytest.mark.parametrize(
    ("ports", "selection", "kind", "text"),
    [
        ([BRIDGE, S2], {}, NoSerialPortError, r"No serial port of an ESP32-S3 \(303a:0009\) found"),
        ([S3], {"path": "1-9"}, NoSerialPortError, "on port 1-9"),
        ([S3], {"serial": "x"}, NoSerialPortError, "with serial number x"),
        ([S3], {"port": "COM9"}, NoSerialPortError, "No serial port COM9 found"),
        ([S3, S3_TOO], {}, SeveralPortsError, "COM5, COM6"),
        ([S3, BRIDGE], {"port": "COM8"}, UsageError, "COM8 is that of 10c4:ea60; expected that of an ESP32-S3"),
        ([S3, SerialPort("COM1")], {"port": "COM1"}, UsageError, "COM1 is not one of a USB device"),
    ],
)
def test_never_guesses_a_port(
    ports: Sequence[SerialPort], selection: dict[str, Any], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        chosen(ports, **selection)


def test_waits_for_the_port() -> None:
    clock, events = VirtualClock(), []  # type: ignore[var-annotated]
    setup = FlashSetup(checked(), FlashOptions(over="serial", wait=5), Bus(), [chip()], clock, events.append)
    with pytest.raises(SerialPortError):
        flash_over_serial(setup, Selector(), lambda: [S3] if clock.monotonic() > 2 else [])
    assert isinstance(events[0], Waiting)
    assert events[0].seconds == 5
    with pytest.raises(NoSerialPortError):
        flash_over_serial(setup, Selector(), list)


# --- as a command -----------------------------------------------------------------------------------------


def test_command_shows_nothing_of_esptool(tmp_path: Path) -> None:
    board, image = make_board(), small_image()
    dfu_bin, report = write_file(tmp_path / "dfu.bin", bytes(image.file)), tmp_path / "report.jsonl"
    with serial_port(board) as port:
        words = ["flash", dfu_bin, "--over", "serial", "--port", port, "--no-stub"]
        done = esp_dfu(*words, "--report", report, "--reset")
    assert done.returncode == 0, done.stderr
    assert_flashed(board.rom.flash.read, image)
    lines = (done.stdout + done.stderr).splitlines()
    assert f"ESP32-S3 on serial port {port}" in lines
    assert any(line.startswith("download") for line in lines)
    assert any("The MD5 of every file matches the flash memory." in line for line in lines)
    assert not any(word in done.stdout + done.stderr for word in ("esptool", "Connecting", "Erasing", "Compressed"))
    (line,) = [json.loads(line) for line in report.read_text().splitlines()]
    assert (line["result"], line["path"], line["bytes"]) == ("pass", port, image.payload_size)


def test_trace_shows_what_esptool_says(tmp_path: Path) -> None:
    board, trace = make_board(), tmp_path / "trace.txt"
    dfu_bin = write_file(tmp_path / "dfu.bin", bytes(small_image().file))
    with serial_port(board) as port:
        done = esp_dfu("flash", dfu_bin, "--over", "serial", "--port", port, "--no-stub", "--trace", trace)
    assert done.returncode == 0, done.stderr
    lines = [line[21:].strip() for line in trace.read_text().splitlines()[2:]]
    assert lines[0] == f"open serial port      {port}"
    assert lines[-1] == f"close serial port     {port}"
    assert any(line.startswith("serial OUT") and "-> c0 00 08 24" in line for line in lines)  # SYNC
    received = " ".join(line.partition("<- ")[2].partition(" ..")[0] for line in lines if line.startswith("serial IN"))
    assert "c0 01 08 04" in received


def test_command_prints_json_lines(tmp_path: Path) -> None:
    board, image = make_board(), small_image()
    dfu_bin = write_file(tmp_path / "dfu.bin", bytes(image.file))
    with serial_port(board) as port:
        done = esp_dfu("flash", dfu_bin, "--over", "serial", "--port", port, "--no-stub", "--json")
    read = [read_line(line) for line in done.stdout.splitlines()]
    assert [type(line) for line in read[:2]] == [type(None), DeviceFound]
    (outcome,) = read[-1]  # type: ignore[misc]
    assert outcome.result.path == port  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--over", "serial", "--all"], "flashes one board"),
        (["--over", "serial", "--watch"], "flashes one board"),
        (["--over", "serial", "--simulate"], "--simulate"),
        (["--over", "serial", "--port", ""], "--port is empty"),
        (["--no-stub"], "--over serial"),
        (["--over", "wifi"], "'wifi' is not a way to flash"),
    ],
)
def test_refuses_options_that_contradict(words: list[str], text: str, tmp_path: Path) -> None:
    dfu_bin = write_file(tmp_path / "dfu.bin", bytes(small_image().file))
    done = esp_dfu("flash", dfu_bin, *words)
    assert done.returncode in (64, 2)
    assert text in done.stderr
