"""Test esp-dfu with simulated boards under Debian's libusb and dfu-util and real pyusb, without a kernel.

dfu-util, dfu-suffix, cpio and libusb are the reference.
"""

from __future__ import annotations

import errno
import functools
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from esp_dfu_ext.simulator.sample import write_sample_project
from esp_dfu_ext.target import load_target

from ..kit.archives import File
from ..kit.boards import assert_flashed
from ..kit.loader import SYNC_ANSWER
from .umockdev.bench import ESP_DFU, HERE, UmockdevBench, finish

pytestmark = pytest.mark.umockdev

CHIPS = ("esp32s2", "esp32s3", "esp32p4", "esp32s31")
PID = {"esp32s2": "2", "esp32s3": "9", "esp32p4": "12", "esp32s31": "20"}
ERASED = b"\xff" * 4096


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the build folder of a sample project for each chip, with its dfu.bin."""
    folders = {}
    for chip in CHIPS:
        folders[chip] = write_sample_project(tmp_path_factory.mktemp(chip), load_target(chip), app_size=60_000)
        subprocess.run([*ESP_DFU, "build", str(folders[chip]), "-q"], check=True, capture_output=True)
    return folders


def flash(bench: UmockdevBench, build: Path, *options: str, **how: object) -> subprocess.CompletedProcess[str]:
    stay = [] if {"--after", "--reset"} & set(options) else ["--after", "no-reset"]
    return bench.run(*ESP_DFU, "flash", "-q", build / "dfu.bin", *options, *stay, **how)


def assert_build_in(bench: UmockdevBench, path: str, build: Path) -> None:
    """The files of the build are in the board's flash memory, where flasher_args.json wants them."""
    named = json.loads((build / "flasher_args.json").read_text(encoding="utf-8"))["flash_files"]
    files = [File(int(address, 0), name, (build / name).read_bytes()) for address, name in named.items()]
    assert len(files) == 3
    assert_flashed(functools.partial(bench.read, path), files)


def lines(output: str) -> list[str]:
    return sorted(line for line in output.splitlines() if line.startswith("Found"))


# --- listing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("debian_libusb", [True, False], ids=["debian", "libusb-package"])
def test_list_matches_dfu_util(debian_libusb: bool) -> None:
    with UmockdevBench(",".join([*CHIPS, *(f"{chip}+dfu" for chip in CHIPS)])) as bench:
        theirs = bench.run("dfu-util", "-l")
        ours = bench.run(*ESP_DFU, "list", debian_libusb=debian_libusb)
        assert ours.returncode == theirs.returncode == 0
        assert lines(ours.stdout) == lines(theirs.stdout)
        assert len(lines(ours.stdout)) == 8
        assert ours.stderr == ""


@pytest.mark.parametrize(("debian_libusb", "folder"), [(True, "/usr/lib/"), (False, "/libusb_package/")])
def test_intended_libusb_is_loaded(debian_libusb: bool, folder: str) -> None:
    with UmockdevBench("esp32s3") as bench:
        loaded = bench.run(sys.executable, HERE / "scans.py", "library", debian_libusb=debian_libusb)
        assert folder in json.loads(loaded.stdout), loaded.stderr


def test_replugged_board_is_listed_with_new_number() -> None:
    with UmockdevBench("esp32s3,esp32s2") as bench:
        bench.unplug("1-1")
        gone = lines(bench.run(*ESP_DFU, "list").stdout)
        assert [re.findall('path="(.*?)"', line) for line in gone] == [["1-2"]]
        bench.plug("1-1", "DFU")
        ours, theirs = bench.run(*ESP_DFU, "list"), bench.run("dfu-util", "-l")
        assert lines(ours.stdout) == lines(theirs.stdout)
        assert 'Found DFU: [303a:0009] ver=0728, devnum=4, cfg=1, intf=2, path="1-1"' in ours.stdout


# --- flashing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["", "+dfu"], ids=["run-time", "dfu"])
@pytest.mark.parametrize("chip", CHIPS)
def test_every_chip_is_flashed(builds: dict[str, Path], chip: str, mode: str) -> None:
    with UmockdevBench(chip + mode) as bench:
        result = flash(bench, builds[chip])
        assert (result.returncode, result.stderr) == (0, "")
        assert_build_in(bench, "1-1", builds[chip])
        assert bench.state("1-1") == (True, 2 if mode else 3, "DFU", "dfuIDLE")


@pytest.mark.parametrize("options", [["--strict"], ["--reset"]], ids=str)
@pytest.mark.parametrize("debian_libusb", [True, False], ids=["debian", "libusb-package"])
def test_flash_options_with_either_libusb(builds: dict[str, Path], options: list[str], debian_libusb: bool) -> None:
    with UmockdevBench("esp32s3") as bench:
        result = flash(bench, builds["esp32s3"], *options, debian_libusb=debian_libusb)
        assert (result.returncode, result.stderr) == (0, "")
        assert_build_in(bench, "1-1", builds["esp32s3"])


def test_console_app_is_flashed(builds: dict[str, Path]) -> None:
    with UmockdevBench("esp32s2+app") as bench:
        assert flash(bench, builds["esp32s2"]).returncode == 0
        assert_build_in(bench, "1-1", builds["esp32s2"])


def test_wait_flashes_board_plugged_in_later(builds: dict[str, Path]) -> None:
    with UmockdevBench("esp32s3") as bench:
        bench.unplug("1-1")
        process = bench.start(*ESP_DFU, "flash", builds["esp32s3"] / "dfu.bin", "--wait", "30")
        bench.plug("1-1")
        assert finish(process).returncode == 0
        assert_build_in(bench, "1-1", builds["esp32s3"])


def test_two_of_four_boards_by_path(builds: dict[str, Path]) -> None:
    with UmockdevBench("esp32s3,esp32s3+dfu,esp32s2,esp32s3") as bench:
        assert flash(bench, builds["esp32s3"]).returncode == 64
        result = flash(bench, builds["esp32s3"], "--path", "1-4", "--path", "1-2")
        assert (result.returncode, result.stderr) == (0, "")
        for path in ("1-2", "1-4"):
            assert_build_in(bench, path, builds["esp32s3"])
        for path in ("1-1", "1-3"):
            assert bench.read(path, 0, 4096) == bench.read(path, 0x10000, 4096) == ERASED


def test_four_boards_by_path_and_one_by_serial(builds: dict[str, Path]) -> None:
    with UmockdevBench("esp32p4,esp32p4,esp32p4+dfu,esp32p4,esp32p4") as bench:
        paths = [f"1-{port}" for port in range(1, 5)]
        result = flash(bench, builds["esp32p4"], *(word for path in paths for word in ("--path", path)))
        assert (result.returncode, result.stderr) == (0, "")
        assert bench.read("1-5", 0x10000, 4096) == ERASED
        assert flash(bench, builds["esp32p4"], "--serial", "7C:DF:A1:00:00:05").returncode == 0
        for path in [*paths, "1-5"]:
            assert_build_in(bench, path, builds["esp32p4"])


# --- foreign programs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("chip", "mode"), [("esp32s2", "+dfu"), ("esp32s3", ""), ("esp32p4", "+dfu")])
def test_dfu_util_flashes_our_image(builds: dict[str, Path], chip: str, mode: str) -> None:
    with UmockdevBench(chip + mode) as bench:
        result = bench.run("dfu-util", "-d", f"303a:{PID[chip]}", "-D", builds[chip] / "dfu.bin")
        assert result.returncode == 0, result.stderr
        assert "Done!" in result.stdout
        assert_build_in(bench, "1-1", builds[chip])


def test_dfu_util_and_esp_dfu_alternate(builds: dict[str, Path]) -> None:
    """dfu-util lets the system release its claim."""
    with UmockdevBench("esp32s3+dfu") as bench:
        theirs = ("dfu-util", "-d", "303a:9", "-D", builds["esp32s3"] / "dfu.bin")
        assert bench.run(*theirs).returncode == 0
        assert flash(bench, builds["esp32s3"], "--strict").returncode == 0
        assert bench.run(*theirs).returncode == 0
        assert_build_in(bench, "1-1", builds["esp32s3"])


@pytest.mark.parametrize("chip", CHIPS)
def test_dfu_suffix_and_cpio_read_our_image(builds: dict[str, Path], chip: str) -> None:
    image = builds[chip] / "dfu.bin"
    suffix = subprocess.run(["dfu-suffix", "-c", str(image)], capture_output=True, text=True, check=True)
    assert "contains a DFU suffix" in suffix.stdout
    assert f"Product ID:\t0x{int(PID[chip], 16):04X}\nVendor ID:\t0x303A" in suffix.stdout
    with image.open("rb") as file:
        names = subprocess.run(["cpio", "-it"], stdin=file, capture_output=True, text=True, check=True)
    files = ["bootloader.bin", "partition-table.bin", "hello_world.bin"]
    assert names.stdout.split() == ["dfuinfo0.dat", "flash_params.dat", *files]
    assert "junk" not in names.stderr


# --- the serial loader ------------------------------------------------------------------------------------


@pytest.mark.parametrize("debian_libusb", [True, False], ids=["debian", "libusb-package"])
@pytest.mark.parametrize("mode", ["", "+dfu"], ids=["run-time", "dfu"])
def test_serial_loader_answers_by_libusb(mode: str, debian_libusb: bool) -> None:
    data = load_target("esp32s3").serial_loader
    assert data is not None
    with UmockdevBench("esp32s3" + mode) as bench:
        talk = [sys.executable, "-m", "tests.real_usb.serial_talk", hex(data.mac)]
        result = bench.run(*talk, debian_libusb=debian_libusb)
        assert result.stderr == ""
        mac = "c0010a0400010000a100000000c0"
        assert result.stdout.split("\n") == [SYNC_ANSWER * 8, mac, "[True, True, False]", ""]


# --- faults -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "exit_code", "code"),
    [
        ("+dfu+stall@600+stall@601+stall@602", 74, "usb-stall"),
        ("+dfu+error@600", 74, "dfu-status"),
        ("+dfu+hang@600+hang@601+hang@602", 74, "usb-timeout"),
        ("+dfu+vanish@600", 74, "device-gone"),
        ("+dfu+held+reset@600", 74, "device-gone"),
        ("+vanish@600", 74, "device-gone"),
        ("+no-access", 77, "no-permission"),
        ("+dfu+no-access", 77, "no-permission"),
        ("+busy", 75, "device-busy"),
        ("+dfu+busy", 75, "device-busy"),
    ],
)
def test_faults_have_their_codes(builds: dict[str, Path], fault: str, exit_code: int, code: str) -> None:
    with UmockdevBench("esp32s3" + fault) as bench:
        result = flash(bench, builds["esp32s3"], user=True)
        assert f"[{code}]" in result.stderr, result.stderr
        assert result.returncode == exit_code


@pytest.mark.parametrize("fault", ["stall", "hang"])
def test_lost_request_restarts_download(builds: dict[str, Path], fault: str) -> None:
    with UmockdevBench(f"esp32s3+dfu+{fault}@600") as bench:
        result = bench.run(*ESP_DFU, "flash", builds["esp32s3"] / "dfu.bin")
        assert (result.returncode, result.stderr.count("restarting")) == (0, 1), result.stderr
        assert_build_in(bench, "1-1", builds["esp32s3"])


@pytest.mark.parametrize(
    ("fault", "fact"),
    [
        ("vanish", "Nothing is on port 1-1 now."),
        ("reset", "A new device is on port 1-1 now: 303a:0009, ESP32-S3 with DFU in run-time mode."),
    ],
)
def test_board_that_left_and_next_device_are_reported(builds: dict[str, Path], fault: str, fact: str) -> None:
    with UmockdevBench(f"esp32s3+dfu+held+{fault}@600") as bench:
        result = flash(bench, builds["esp32s3"])
        assert fact in result.stderr, result.stderr
        assert "The image in flash memory may be incomplete." in result.stderr
        if fault == "vanish":
            bench.plug("1-1")
        assert flash(bench, builds["esp32s3"]).returncode == 0
        assert_build_in(bench, "1-1", builds["esp32s3"])


@pytest.mark.usefixtures("default_signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_leaves_board_idle(builds: dict[str, Path], number: signal.Signals) -> None:
    with UmockdevBench("esp32s3+dfu+slow") as bench:
        process = bench.start(*ESP_DFU, "flash", builds["esp32s3"] / "dfu.bin")
        bench.wait_for(lambda: bench.state("1-1")[3] == "dfuDNLOAD-IDLE")
        process.send_signal(number)
        result = finish(process)
        assert (result.returncode, "[interrupted]" in result.stderr) == (128 + number, True), result.stderr
        assert bench.state("1-1")[3] == "dfuIDLE"
        assert flash(bench, builds["esp32s3"]).returncode == 0


def test_unplugged_board_with_eproto_is_device_gone(builds: dict[str, Path]) -> None:
    with UmockdevBench("esp32s3+vanish@600", gone=errno.EPROTO) as bench:
        result = flash(bench, builds["esp32s3"])
        assert "[device-gone]" in result.stderr, result.stderr
        assert result.returncode == 74
        assert not bench.state("1-1")[0]


def test_board_never_returns(builds: dict[str, Path], tmp_path: Path) -> None:
    ours = (HERE.parents[2] / "targets/esp32s3.yaml").read_text(encoding="utf-8")
    hasty, count = re.subn("return_timeout: *[0-9]+", "return_timeout: 1", ours)
    assert count == 1
    (tmp_path / "esp32s3.yaml").write_text(hasty, encoding="utf-8")
    with UmockdevBench("esp32s3+no-return") as bench:
        result = flash(bench, builds["esp32s3"], more={"ESP_DFU_TARGETS": str(tmp_path)})
        assert "[no-return]" in result.stderr
        assert result.returncode == 74


@pytest.mark.parametrize(
    ("boards", "options", "exit_code"),
    [("esp32s2", [], 69), ("esp32s3,esp32s3", [], 64), ("esp32s3", ["--path", "1-7"], 69)],
)
def test_missing_or_ambiguous_board(builds: dict[str, Path], boards: str, options: list[str], exit_code: int) -> None:
    with UmockdevBench(boards) as bench:
        assert flash(bench, builds["esp32s3"], *options).returncode == exit_code
        assert lines(bench.run(*ESP_DFU, "list").stdout) == lines(bench.run("dfu-util", "-l").stdout)


def test_list_shows_board_without_access() -> None:
    with UmockdevBench("esp32s3+no-access,esp32s2") as bench:
        result = bench.run(*ESP_DFU, "list", user=True)
        assert result.returncode == 0
        assert len(lines(result.stdout)) == 2
        assert "Port 1-1: no permission to open the device" in result.stderr


def test_second_flash_is_device_busy_and_does_no_harm(builds: dict[str, Path]) -> None:
    with UmockdevBench("esp32s3+dfu+slow") as bench:
        first = bench.start(*ESP_DFU, "flash", "-q", "--no-loader", builds["esp32s3"] / "dfu.bin")
        bench.wait_for(lambda: bench.state("1-1")[3] == "dfuDNLOAD-IDLE")
        second = flash(bench, builds["esp32s3"])
        assert bench.state("1-1")[3] == "dfuDNLOAD-IDLE"
        assert ("[device-busy]" in second.stderr, second.returncode) == (True, 75)
        assert finish(first).returncode == 0
        assert_build_in(bench, "1-1", builds["esp32s3"])


# --- what is left behind ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def three() -> Iterator[UmockdevBench]:
    with UmockdevBench("esp32s3,esp32s2+dfu,esp32p4") as bench:
        yield bench


def open_files_after(bench: UmockdevBench, what: str, *, debian_libusb: bool = True) -> list[int]:
    """Run a function of scans.py, and assert that libusb reports no context that ends before its devices."""
    # Freed memory is overwritten, so that using it fails.
    more = {"LIBUSB_DEBUG": "2", "MALLOC_PERTURB_": "165"}
    result = bench.run(sys.executable, HERE / "scans.py", what, debian_libusb=debian_libusb, more=more)
    assert result.returncode == 0, result.stderr
    complaints = [line for line in result.stderr.splitlines() if "implicit default" not in line]
    assert complaints == []
    counts: list[int] = json.loads(result.stdout)
    return counts


@pytest.mark.parametrize("debian_libusb", [True, False], ids=["debian", "libusb-package"])
@pytest.mark.parametrize("what", ["listing", "opening", "waiting"])
def test_scans_leave_no_file_open(three: UmockdevBench, what: str, debian_libusb: bool) -> None:
    counts = open_files_after(three, what, debian_libusb=debian_libusb)
    assert len(counts) == 50
    assert counts[-1] == counts[1]


def test_failed_opens_leave_no_file_open() -> None:
    with UmockdevBench("esp32s3+busy") as bench:
        counts = open_files_after(bench, "opening")
        assert counts[-1] == counts[1]


@pytest.mark.parametrize("what", ["orders", "inner"])
def test_devices_are_freed_before_their_context(three: UmockdevBench, what: str) -> None:
    counts = open_files_after(three, what)
    assert counts[-1] <= counts[0] + 4  # one context may stay


def test_interpreter_exit_does_not_crash(three: UmockdevBench) -> None:
    open_files_after(three, "at_exit")


@pytest.mark.parametrize("mode", ["", "+dfu"], ids=["run-time", "dfu"])
def test_flash_makes_libusb_log_no_error(builds: dict[str, Path], mode: str) -> None:
    with UmockdevBench("esp32s3" + mode) as bench:
        more = {"LIBUSB_DEBUG": "2", "MALLOC_PERTURB_": "165"}
        result = flash(bench, builds["esp32s3"], "--reset", more=more)
        assert result.returncode == 0
        assert "still referenced" not in result.stderr
