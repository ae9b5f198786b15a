"""Test esp-dfu on the real Linux USB stack, inside the virtual machine.

The name does not start with test_, so that pytest collects it only from ../test_vm.py or by hand (see ../vm/boot.py).
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import queue
import re
import shlex
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from esp_dfu_ext import FlashOptions, flash_all, watch
from esp_dfu_ext.clock import SystemClock
from esp_dfu_ext.dfu.spec import Mode, Request, State, Status
from esp_dfu_ext.operations.inspect import CheckedImage
from esp_dfu_ext.operations.results import FlashOutcome, WatchResult
from esp_dfu_ext.simulator import Board
from esp_dfu_ext.simulator.apps import ConsoleApp
from esp_dfu_ext.simulator.board import Answer, Effect, bus_reset, error_status, hang, stall, vanish
from esp_dfu_ext.simulator.sample import write_sample_project
from esp_dfu_ext.usb.bus import Bus

from ...kit.chips import chip
from ...kit.strict_device import StrictDevice
from ..usbip import Described, attach, detach, wait_until
from .conftest import (
    LIBUSBS,
    NOBODY,
    PLUGDEV,
    Image,
    MakeImage,
    Result,
    VmBench,
    esp_dfu,
    esp_dfu_command,
    finish,
    flash,
    run,
    settle,
    start,
)

pytestmark = pytest.mark.vm

MODES = pytest.mark.parametrize("mode", [Mode.RUN_TIME, Mode.DFU], ids=str)
BOTH_LIBUSBS = pytest.mark.parametrize("libusb", LIBUSBS)
README = Path(__file__).resolve().parents[3] / "README.md"


def found_lines(text: str) -> list[str]:
    """Return the lines of a list command that describe devices, sorted."""
    return sorted(line for line in text.splitlines() if line.startswith("Found "))


def assert_failed(result: Result, exit_code: int, code: str) -> None:
    assert (result.code, f"[{code}]" in result.err) == (exit_code, True), result


# --- list -------------------------------------------------------------------------------------------------


@BOTH_LIBUSBS
def test_list_matches_dfu_util(bench: VmBench, libusb: str) -> None:
    bench.add("esp32s2", "1-1")
    bench.add("esp32s3", "1-2", Mode.DFU)
    bench.add("esp32p4", "1-8")
    theirs = run("dfu-util", "-l")
    ours = esp_dfu("list", libusb=libusb)
    assert ours.code == 0, ours
    assert found_lines(ours.out) == found_lines(theirs.out)
    assert len(found_lines(ours.out)) == 3


@BOTH_LIBUSBS
def test_device_without_dfu_is_named(bench: VmBench, libusb: str) -> None:
    serial_jtag = Described(
        bytes.fromhex("120100020000 0040 3a30 0110 0001 000000 01".replace(" ", "")),
        bytes.fromhex("09021200010100c0fa 0904000000ff000000".replace(" ", "")),
    )
    bench.hub.add(serial_jtag, "1-1")
    result = esp_dfu("list", libusb=libusb)
    assert result.code == 0
    assert "USB-Serial/JTAG" in result.err


@BOTH_LIBUSBS
def test_replugged_board_has_new_device_number(bench: VmBench, image_for: MakeImage, libusb: str) -> None:
    board = bench.add()
    first = bench.number(board)
    assert f"devnum={first}, " in esp_dfu("list", libusb=libusb).out
    bench.hub.unplug(board)
    gone = esp_dfu("list", libusb=libusb)
    assert found_lines(gone.out) == []
    assert "No board with DFU found" in gone.err
    bench.hub.plug(board)
    second = bench.number(board)
    assert second > first
    assert f"devnum={second}, " in esp_dfu("list", libusb=libusb).out
    result = esp_dfu("flash", image_for("esp32s3").path, libusb=libusb)
    assert result.code == 0, result
    assert bench.number(board) > second
    assert found_lines(esp_dfu("list", libusb=libusb).out)[0].startswith("Found DFU: ")


# --- flash ------------------------------------------------------------------------------------------------


@MODES
def test_dfu_util_flashes_our_image(bench: VmBench, image_for: MakeImage, mode: Mode) -> None:
    board, image = bench.add(mode=mode), image_for("esp32s3")
    result = run("dfu-util", "-d", "303a:0009", "-D", image.path)
    assert result.code == 0, result
    image.assert_in(board)


@MODES
@BOTH_LIBUSBS
@pytest.mark.parametrize("name", ["esp32s2", "esp32s3"])
def test_esp_dfu_flashes_our_image(bench: VmBench, image_for: MakeImage, mode: Mode, libusb: str, name: str) -> None:
    board, image = bench.add(name, mode=mode), image_for(name)
    flash(board, image, libusb=libusb)


@pytest.mark.parametrize("options", [["--strict"], ["--quiet"]], ids=str)
def test_flash_options(bench: VmBench, image_for: MakeImage, options: list[str]) -> None:
    board, image = bench.add(mode=Mode.DFU), image_for("esp32s3")
    flash(board, image, *options)


@BOTH_LIBUSBS
@pytest.mark.parametrize("boots_app", [False, True])
def test_reset_reports_next_device(bench: VmBench, image_for: MakeImage, libusb: str, boots_app: bool) -> None:
    board, image = bench.add(mode=Mode.DFU), image_for("esp32s3")
    board.boots_app = boots_app
    result = flash(board, image, "--reset", libusb=libusb)
    words = "Nothing is on port 1-1 after the reset" if boots_app else "Seen on port 1-1 after the reset: 303a:0009"
    assert words in result.out + result.err, result


def plug_in_while_it_waits(bench: VmBench, board: Board, image: Image, libusb: str, user: Sequence[str] = ()) -> None:
    """Start a flash without the board, plug the board in, and assert that the flash succeeds."""
    bench.hub.unplug(board)
    waiting = start(esp_dfu_command("flash", "--wait", "30", image.path, libusb=libusb), user)
    try:
        assert waiting.stdout is not None
        assert any("wait" in line.lower() for line in iter(waiting.stdout.readline, ""))
    finally:
        bench.hub.plug(board)
        result = finish(waiting)
    assert result.code == 0, result
    image.assert_in(board)


@BOTH_LIBUSBS
def test_board_plugged_in_while_waiting(bench: VmBench, image_for: MakeImage, libusb: str) -> None:
    board, image = bench.add(), image_for("esp32s3")
    plug_in_while_it_waits(bench, board, image, libusb)


@BOTH_LIBUSBS
def test_app_with_rom_console(bench: VmBench, image_for: MakeImage, libusb: str) -> None:
    board, image = bench.add(), image_for("esp32s3")
    bench.hub.start_app(board, ConsoleApp(board.rom))
    flash(board, image, libusb=libusb)


# --- several boards ---------------------------------------------------------------------------------------


def test_four_boards_in_parallel_processes(bench: VmBench, image_for: MakeImage) -> None:
    boards = [bench.add("esp32s3", f"1-{port}") for port in (1, 2, 3)]
    other = bench.add("esp32s2", "1-4")
    s3, s2 = image_for("esp32s3"), image_for("esp32s2")
    assert_failed(esp_dfu("flash", s3.path), 64, "several-devices")
    assert_failed(esp_dfu("flash", "--path", "1-4", s3.path), 69, "other-chip")
    commands = [
        esp_dfu_command("flash", "--path", "1-1", s3.path),
        esp_dfu_command("flash", "--serial", "7C:DF:A1:00:00:02", s3.path),
        esp_dfu_command("flash", "--path", "1-3", s3.path, libusb=LIBUSBS[1]),
        esp_dfu_command("flash", s2.path),
    ]
    for result in [finish(process) for process in [start(command) for command in commands]]:
        assert result.code == 0, result
    for board in boards:
        s3.assert_in(board)
    s2.assert_in(other)


def test_several_paths(bench: VmBench, image_for: MakeImage) -> None:
    first, untouched, last = (bench.add("esp32s2", f"1-{port}") for port in (1, 2, 3))
    image = image_for("esp32s2")
    result = esp_dfu("flash", "--path", "1-3", "--path", "1-1", image.path)
    assert result.code == 0, result
    image.assert_in(first)
    image.assert_in(last)
    assert untouched.rom.flash.read(0, 4096) == b"\xff" * 4096
    assert_failed(esp_dfu("flash", "--serial", "0", image.path), 64, "usage")


# --- permissions, drivers, other programs -----------------------------------------------------------------


@pytest.fixture
def no_rule() -> Iterator[None]:
    """Provide a machine without our udev rule."""
    yield
    Path("/etc/udev/rules.d/60-esp-dfu.rules").unlink(missing_ok=True)
    run("udevadm", "control", "--reload")


def install_rule() -> Result:
    """Install the udev rule as the README says, without sudo."""
    assert '"$(command -v esp-dfu)" udev --install' in README.read_text(encoding="utf-8")
    installed = esp_dfu("udev", "--install")
    assert installed.code == 0, installed
    return installed


def doctor(user: Sequence[str] = (), libusb: str = LIBUSBS[0]) -> tuple[int, dict[str, str], list[str]]:
    """Return the doctor's exit code, the codes of its problems by topic, and the next step."""
    result = esp_dfu("doctor", "--json", user=user, libusb=libusb)
    assert result.err == "", result
    document = json.loads(result.out)
    problems = {fact["topic"]: fact["code"] for fact in document["facts"] if fact["state"] == "problem"}
    assert "unknown" not in problems.values(), result
    return result.code, problems, document["next"]


@BOTH_LIBUSBS
def test_udev_rule_gives_ordinary_user_access(bench: VmBench, image_for: MakeImage, no_rule: None, libusb: str) -> None:
    board, image = bench.add(), image_for("esp32s3")
    settle()
    refused = esp_dfu("flash", image.path, libusb=libusb, user=PLUGDEV)
    assert_failed(refused, 77, "no-permission")
    node = f"/dev/bus/usb/001/{bench.number(board):03}"
    assert f"nobody cannot open {node} (root:root 0664): no udev rule matches this device" in refused.err
    assert "esp-dfu udev --install" in refused.err
    document = json.loads(esp_dfu("list", "--json", libusb=libusb, user=PLUGDEV).out)
    assert document["devices"][0]["problem"]["code"] == "no-permission"
    code, problems, step = doctor(PLUGDEV, libusb)
    assert (code, problems) == (1, {"udev rule": "no-rule", "port 1-1": "no-rule"})
    # The command that it shows works, without sudo, which the machine does not have.
    command = shlex.split(step[0].partition(": sudo ")[2])
    as_user = run(*command, user=PLUGDEV)
    assert_failed(as_user, 77, "needs-root")
    assert " ".join(command[-4:]) in as_user.err
    installed = run(*command)
    assert installed.code == 0, installed
    assert f"Port 1-1: {node} is now root:plugdev 0660, tagged uaccess." in installed.out
    assert doctor(PLUGDEV, libusb) == (0, {}, [])
    # A member of the group has access, also after the board returned with a new device number.
    flash(board, image, libusb=libusb, user=PLUGDEV)
    # Outside the group and without a seat, a user has no access.
    bench.hub.plug(board)
    settle()
    stranger = esp_dfu("flash", image.path, libusb=libusb, user=NOBODY)
    assert_failed(stranger, 77, "no-permission")
    assert "nobody is not in the group plugdev, named in /etc/udev/rules.d/60-esp-dfu.rules" in stranger.err
    code, problems, step = doctor(NOBODY, libusb)
    assert (code, problems) == (1, {"port 1-1": "not-in-group"})
    assert step[0] == "sudo usermod -aG plugdev nobody"
    tags = run("udevadm", "info", "--query=property", f"--name=/dev/bus/usb/001/{bench.number(board):03}").out
    assert ":uaccess:" in tags


def test_udev_install_keeps_foreign_file_without_force(bench: VmBench, no_rule: None) -> None:
    rules = Path("/etc/udev/rules.d/60-esp-dfu.rules")
    assert "Wrote" in install_rule().out
    assert "No change needed" in install_rule().out
    rules.write_text("# mine\n")
    refused = esp_dfu("udev", "--install")
    assert_failed(refused, 73, "output")
    assert "-# mine" in refused.err
    assert rules.read_text() == "# mine\n"
    assert "Replaced" in esp_dfu("udev", "--install", "--force").out
    assert [path.name for path in rules.parent.iterdir() if "60-esp" in path.name] == [rules.name]


def test_overruled_udev_rule_is_reported(bench: VmBench, no_rule: None) -> None:
    bench.add()
    later = Path("/etc/udev/rules.d/61-other.rules")
    later.parent.mkdir(parents=True, exist_ok=True)
    later.write_text('SUBSYSTEM=="usb", ATTR{idVendor}=="303a", GROUP="audio", MODE="0600"\n')
    try:
        result = esp_dfu("udev", "--install")
        assert_failed(result, 72, "udev")
        assert "is root:audio 0600" in result.err
        assert f"{later}, line 1: group audio, mode 0600" in result.err
    finally:
        later.unlink()


def test_doctor_names_program_that_holds_board(bench: VmBench) -> None:
    board = bench.add(mode=Mode.DFU)
    settle()
    assert doctor() == (0, {}, [])
    facts = json.loads(esp_dfu("doctor", "--json").out)["facts"]
    (port,) = (fact for fact in facts if fact["topic"] == "port 1-1")
    assert port["data"]["drivers"] == {"0": "cdc_acm", "1": "cdc_acm"}
    assert port["data"]["node"] == f"/dev/bus/usb/001/{bench.number(board):03}"
    assert (port["data"]["target"], port["data"]["mode"]) == ("esp32s3", "DFU")
    other = start([sys.executable, "-c", CLAIM])
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "claimed\n"
        code, problems, step = doctor()
        assert (code, problems) == (1, {"port 1-1": "device-busy"})
        assert f"(process {other.pid}), then try again." in step[0]
    finally:
        finish_input(other)
    assert doctor() == (0, {}, [])


@BOTH_LIBUSBS
def test_user_waits_for_board_and_udev(bench: VmBench, image_for: MakeImage, no_rule: None, libusb: str) -> None:
    board, image = bench.add(), image_for("esp32s3")
    install_rule()
    plug_in_while_it_waits(bench, board, image, libusb, PLUGDEV)


@BOTH_LIBUSBS
def test_cdc_acm_keeps_its_interfaces(bench: VmBench, image_for: MakeImage, libusb: str) -> None:
    board, image = bench.add(mode=Mode.DFU), image_for("esp32s3")
    settle()
    with Path("/dev/ttyACM0").open("rb", buffering=0):
        flash(board, image, libusb=libusb)
    drivers = [Path(f"/sys/bus/usb/devices/1-1:1.{number}/driver") for number in (0, 1, 2)]
    assert [driver.resolve().name if driver.exists() else None for driver in drivers] == ["cdc_acm", "cdc_acm", None]


CLAIM = """
from esp_dfu_ext.usb.bus import Bus
handle = Bus().scan(frozenset([0x303A]))[0].open(2)
print("claimed", flush=True)
input()
"""


@BOTH_LIBUSBS
@MODES
def test_claimed_interface_is_device_busy(bench: VmBench, image_for: MakeImage, libusb: str, mode: Mode) -> None:
    board, image = bench.add(mode=mode), image_for("esp32s3")
    other = start([sys.executable, "-c", CLAIM])
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "claimed\n"
        result = esp_dfu("flash", image.path, libusb=libusb)
        assert_failed(result, 75, "device-busy")
        assert f"is open in python (process {other.pid})." in result.err, result
        assert found_lines(esp_dfu("list", libusb=libusb).out)  # list claims nothing
    finally:
        finish_input(other)
    flash(board, image, libusb=libusb)


def finish_input(process: subprocess.Popen[str]) -> None:
    """End a program that waits for a line."""
    process.communicate("\n", timeout=20)


# --- faults -----------------------------------------------------------------------------------------------

LATE_BLOCK = 200  # after the blocks that erase, which have a longer timeout


@BOTH_LIBUSBS
@pytest.mark.parametrize(
    ("effect", "code", "fact"),
    [
        (vanish, "device-gone", "Nothing is on port 1-1 now"),
        (bus_reset, "device-gone", "A new device is on port 1-1 now: 303a:0009, ESP32-S3 with DFU in run-time mode"),
        (error_status(Status.errWRITE), "dfu-status", "errWRITE"),
    ],
    ids=["vanish", "bus reset by another program", "error status"],
)
def test_fault_in_mid_file(
    bench: VmBench, image_for: MakeImage, libusb: str, effect: Effect, code: str, fact: str
) -> None:
    board, image = bench.add(mode=Mode.DFU), image_for("esp32s3")
    board.faults.plan(effect, LATE_BLOCK)
    failed = esp_dfu("flash", image.path, libusb=libusb)
    assert_failed(failed, 74, code)
    assert fact in failed.err, failed
    assert "The image in flash memory may be incomplete." in failed.err, failed
    if effect is vanish:
        bench.hub.plug(board)
    flash(board, image, libusb=libusb)


@BOTH_LIBUSBS
@pytest.mark.parametrize(
    ("effect", "code", "fact"),
    [(stall, "usb-stall", "refused the block"), (hang, "usb-timeout", "no answer within 5 s")],
)
def test_lost_request_restarts_download(
    bench: VmBench, image_for: MakeImage, libusb: str, effect: Effect, code: str, fact: str
) -> None:
    board, image = bench.add(mode=Mode.DFU), image_for("esp32s3")
    board.faults.plan(effect, LATE_BLOCK)
    result = esp_dfu("flash", image.path, libusb=libusb)
    assert result.code == 0, result
    assert fact in result.err, result
    assert result.err.count("restarting") == 1, result
    image.assert_in(board)
    for attempt in range(3):
        board.faults.plan(effect, board.blocks + LATE_BLOCK + attempt)
    failed = esp_dfu("flash", image.path, libusb=libusb)
    assert_failed(failed, 74, code)
    assert failed.err.count("restarting") == 2, failed
    assert "is in dfuIDLE and ready for another download" in failed.err, failed
    again = esp_dfu("flash", image.path, libusb=libusb)
    assert again.code == 0, again


def test_other_chip_after_detach(bench: VmBench, image_for: MakeImage) -> None:
    board, image = bench.add(), image_for("esp32s3")
    other = chip("esp32s2")

    def swap(board: Board, answer: Answer) -> bytes:
        board.rom.target = other
        return answer()

    board.faults.plan(swap, at=Request.DFU_DETACH)
    failed = esp_dfu("flash", image.path)
    assert_failed(failed, 74, "no-dfu-mode")
    assert "303a:0002 is on its port now" in failed.err, failed
    board.rom.target = chip("esp32s3")
    bench.hub.plug(board)
    flash(board, image)


@BOTH_LIBUSBS
@pytest.mark.parametrize(("signal_number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signal_leaves_board_idle(
    bench: VmBench, image_for: MakeImage, libusb: str, signal_number: int, exit_code: int
) -> None:
    board, image = bench.add(mode=Mode.DFU), image_for("esp32s3")
    board.faults.block_time = 0.02
    flashing = start(esp_dfu_command("flash", image.path, libusb=libusb))
    wait_until(lambda: board.blocks > 50, "it is in the middle")
    flashing.send_signal(signal_number)
    result = finish(flashing)
    assert_failed(result, exit_code, "interrupted")
    assert "dfuIDLE" in result.err, result
    assert board.rom.state is State.dfuIDLE
    board.faults.block_time = 0.0
    flash(board, image, libusb=libusb)


def test_board_does_not_return_after_detach(bench: VmBench, image_for: MakeImage) -> None:
    gone, other_mode = bench.add("esp32s3", "1-1"), bench.add("esp32s3", "1-2")
    gone.faults.no_return = True
    other_mode.faults.return_mode = Mode.RUN_TIME
    path = image_for("esp32s3").path
    processes = [start(esp_dfu_command("flash", "--path", board.path, path)) for board in (gone, other_mode)]
    results = [finish(process) for process in processes]
    assert_failed(results[0], 74, "no-return")
    assert "no device is on its port" in results[0].err
    assert_failed(results[1], 74, "no-dfu-mode")
    assert "run-time mode" in results[1].err


@BOTH_LIBUSBS
def test_access_granted_after_return(bench: VmBench, image_for: MakeImage, libusb: str) -> None:
    """The user gets access one second after the board returns in DFU mode, as with a slow udev."""
    board, image = bench.add(), image_for("esp32s3")
    settle()
    before = bench.number(board)
    Path(f"/dev/bus/usb/001/{before:03}").chmod(0o666)
    flashing = start(esp_dfu_command("flash", image.path, libusb=libusb), NOBODY)
    wait_until(lambda: bench.hub.wait_for("1-1") != before, "it is back")
    SystemClock().sleep(1.0)
    Path(f"/dev/bus/usb/001/{bench.number(board):03}").chmod(0o666)
    result = finish(flashing)
    assert result.code == 0, result
    image.assert_in(board)


def test_slow_and_strict_boards(bench: VmBench, image_for: MakeImage) -> None:
    slow, strict = bench.add("esp32s3", "1-1", Mode.DFU), bench.add("esp32s3", "1-2", Mode.DFU)
    slow.faults.block_time = 0.003
    strict.rom.wants_status = True
    image = image_for("esp32s3")
    processes = [start(esp_dfu_command("flash", "--path", board.path, image.path)) for board in (slow, strict)]
    for result, board in zip([finish(process) for process in processes], (slow, strict)):
        assert result.code == 0, result
        image.assert_in(board)


# --- the rest of the system --------------------------------------------------------------------------------


def test_full_disk_keeps_old_image(tmp_path: Path) -> None:
    run("mount", "-t", "tmpfs", "-o", "size=300k", "none", tmp_path)
    try:
        build_dir = write_sample_project(tmp_path / "project", chip("esp32s3"), app_size=60_000)
        first = esp_dfu("build", build_dir)
        assert first.code == 0, first
        before = (build_dir / "dfu.bin").read_bytes()
        filler = tmp_path / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        os.truncate(filler, filler.stat().st_size - 20_000)
        failed = esp_dfu("build", build_dir)
        assert_failed(failed, 73, "output")
        assert "No space left on device" in failed.err, failed
        assert (build_dir / "dfu.bin").read_bytes() == before
        assert list(build_dir.glob(".*.tmp")) == []
    finally:
        run("umount", tmp_path)


# --- other people's devices and hosts ---------------------------------------------------------------------


@pytest.fixture
def large_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the ESP32-S3 take larger blocks than its ROM does."""
    text = (README.parent / "targets" / "esp32s3.yaml").read_text(encoding="utf-8")
    changed = re.sub(r"(transfer_size:) 64\b", r"\1 4096", text)
    assert changed != text
    (tmp_path / "esp32s3.yaml").write_text(changed, encoding="utf-8")
    monkeypatch.setenv("ESP_DFU_TARGETS", str(tmp_path))


@MODES
@BOTH_LIBUSBS
def test_strict_device(bench: VmBench, image_for: MakeImage, large_blocks: None, mode: Mode, libusb: str) -> None:
    clock = SystemClock()
    device = StrictDevice(chip("esp32s3"), clock)
    device.restart(mode)
    bench.hub.add(Board(chip("esp32s3"), "1-1", clock, device), "1-1")
    image = image_for("esp32s3")
    result = esp_dfu("flash", image.path, libusb=libusb)
    assert result.code == 0, result
    assert bytes(device.received) == bytes(image.parsed.stream)


class Target:
    """Storage for the DFU class of PyPI's usbip."""

    name = "flash"
    i_string = 0

    def __init__(self) -> None:
        self.content = bytearray()
        self.finished = False

    @property
    def length(self) -> int:
        return len(self.content)

    def write(self, offset: int, data: bytes) -> None:
        assert offset == len(self.content)
        self.content += data

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self.content[offset : offset + size])

    def begin_download(self) -> None:
        self.content.clear()

    def finish_download(self) -> None:
        self.finished = True


@BOTH_LIBUSBS
def test_dfu_device_of_pypi_usbip(bench: VmBench, image_for: MakeImage, libusb: str) -> None:
    """The device and the USB/IP server are those of the package."""
    usbip, classes = importlib.import_module("usbip"), importlib.import_module("usbip.classes.device.dfu")
    flash = Target()
    device = usbip.USBDevice(0x303A, 0x0009, manufacturer="Somebody", product="Else", serial="usbip")
    device.add(classes.DFU([flash], transfer_size=64, winusb=False))
    transport = importlib.import_module("usbip.transport").Loopback()
    image = image_for("esp32s3")
    with device.plug(via=transport):
        connection = transport.connect()
        import_device(connection, "1-1")
        attach(connection, 0)
        try:
            bench.hub.wait_for("1-1")
            listed, theirs = esp_dfu("list", libusb=libusb), run("dfu-util", "-l")
            result = esp_dfu("flash", image.path, libusb=libusb)
        finally:
            detach(0)
    assert found_lines(listed.out) == found_lines(theirs.out)
    assert 'name="flash", serial="usbip"' in listed.out
    assert result.code == 0, result
    assert flash.finished
    assert bytes(flash.content) == bytes(image.parsed.stream)


def import_device(connection: socket.socket, bus_id: str) -> None:
    """Send OP_REQ_IMPORT; afterwards the connection carries the device's transfers."""
    connection.sendall(struct.pack(">HHI32s", 0x0111, 0x8003, 0, bus_id.encode()))
    with connection.makefile("rb", buffering=0) as reader:
        answer = b""
        while len(answer) < 320:
            answer += reader.read(320 - len(answer)) or b""
    assert answer[:8] == struct.pack(">HHI", 0x0111, 0x0003, 0)


def test_pypi_pydfuutil_flashes_our_image(bench: VmBench, image_for: MakeImage) -> None:
    board, image = bench.add(), image_for("esp32s3")
    command: list[str | Path] = [sys.executable, "-m", "pydfuutil", "-D", image.path]
    # pydfuutil gives up when the ROM leaves the bus during DFU_DETACH, and has to be run again.
    detached = run(*command)
    assert "No such device" in detached.err, detached
    wait_until(lambda: board.present and board.rom.mode is Mode.DFU, "it is back in DFU mode")
    bench.hub.wait_for("1-1")
    result = run(*command)
    assert result.code == 0, result
    image.assert_in(board)


# --- many boards ------------------------------------------------------------------------------------------


def open_files() -> int:
    """Return the number of open files; each libusb context has some."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Disable garbage collection, so that open files in reference cycles are counted."""
    Bus().scan()  # loads libusb with the context that pyusb keeps
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_sixteen_boards_with_same_serial_number(bench: VmBench, image_for: MakeImage, no_collector: None) -> None:
    """Runs in this process, to count what it leaves open."""
    paths = [f"{bus}-{port}" for bus in (1, 3) for port in range(1, 9)]
    boards = [bench.add("esp32s2", path) for path in paths]
    image = image_for("esp32s2")
    before = open_files()
    outcomes = flash_all(CheckedImage(image.path, image.parsed, chip("esp32s2")))
    assert [(outcome.path, outcome.serial, outcome.error) for outcome in outcomes] == [(p, "0", None) for p in paths]
    for board in boards:
        image.assert_in(board)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("dfu-")]
    for device in Bus().scan(frozenset([0x303A])):
        device.open(2).close()  # it is not claimed
    del device
    assert open_files() == before


def test_watch_leaves_nothing_behind(bench: VmBench, image_for: MakeImage, no_collector: None) -> None:
    """Boards come and go on four ports, and some of them fail."""
    total = int(os.environ.get("ESP_DFU_SOAK_BOARDS", "24"))
    boards = [bench.add("esp32s2", f"1-{port}") for port in range(1, 5)]
    image = image_for("esp32s2")
    before = open_files()
    changes: queue.SimpleQueue[Board | None] = queue.SimpleQueue()
    verdicts: list[str] = []

    def change_boards() -> None:
        while (board := changes.get()) is not None:
            bench.hub.unplug(board)
            SystemClock().sleep(1.3)
            # Erased like a new board.
            board.rom.flash.erase(0, 1 << 20)
            if len(verdicts) % 5 == 4:
                board.faults.plan(vanish, LATE_BLOCK)
            bench.hub.plug(board)

    people = [threading.Thread(target=change_boards) for _ in boards]

    def take(outcome: FlashOutcome, so_far: WatchResult) -> None:
        board = next(board for board in boards if board.path == outcome.path)
        if outcome.error is None:
            image.assert_in(board)
        verdicts.append("PASS" if outcome.error is None else outcome.error.code)
        if so_far.passed + so_far.failed <= total - len(boards):
            changes.put(board)

    for person in people:
        person.start()
    try:
        checked = CheckedImage(image.path, image.parsed, chip("esp32s2"))
        # The same few boards stand for many: their MAC addresses must not be known.
        result = watch(checked, FlashOptions(no_loader=True), count=total, on_outcome=take)
    finally:
        for _ in people:
            changes.put(None)
        for person in people:
            person.join()
    assert (result.passed + result.failed, set(verdicts)) == (total, {"PASS", "device-gone"})
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("dfu-")]
    left = open_files()
    assert left <= before  # the last board may have vanished, with its connection
