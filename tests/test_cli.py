"""`esp-dfu` for its user: output, streams and exit codes."""

from __future__ import annotations

import errno
import json
import os
import shlex
import sys
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from esp_dfu_ext import inspect, load_target, load_targets
from esp_dfu_ext.clock import VirtualClock
from esp_dfu_ext.commands.host import Host
from esp_dfu_ext.commands.session import SIMULATE_VARIABLE
from esp_dfu_ext.doctor.findings import Finding, Level
from esp_dfu_ext.errors import InterruptedByUserError, UsbUnavailableError
from esp_dfu_ext.simulator import simulate_text
from esp_dfu_ext.simulator.sample import write_sample_project
from esp_dfu_ext.target import builtin_folder

from .kit.commands import complete, esp_dfu, run
from .kit.files import forbid
from .kit.machine import FolderMachine

pytestmark = pytest.mark.usefixtures("virtual_clock")

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def build_dir(tmp_path: Path) -> Path:
    return write_sample_project(tmp_path / "žluťoučký [red]kůň[/red]", load_target("esp32s3"))


@pytest.fixture
def dfu_bin(build_dir: Path, capsys: Capture) -> Path:
    assert run("build", str(build_dir), "--quiet") == 0
    capsys.readouterr()
    return build_dir / "dfu.bin"


def simulate(monkeypatch: pytest.MonkeyPatch, boards: str) -> None:
    monkeypatch.setenv(SIMULATE_VARIABLE, boards)


def test_build_shows_files_sectors_and_app(build_dir: Path, capsys: Capture) -> None:
    assert run("build", str(build_dir)) == 0
    out, err = capsys.readouterr()
    assert "hello_world 1.0.0 (ESP-IDF v5.5.1, built Jan 1 2026 12:00:00) for ESP32-S3 with 4 MiB of flash" in out
    rows = [line.split() for line in out.splitlines()]
    assert ["A", "0x0", "19.6", "KiB", "5", "bootloader/bootloader.bin"] in rows
    assert ["C", "0x10000", "195.6", "KiB", "49", "hello_world.bin"] in rows
    assert "0x0 ABCCC." in out
    # A path with markup in it is shown as it is.
    assert f"Flash it: esp-dfu flash '{build_dir}/dfu.bin'" in out
    assert err == ""


def test_inspect_shows_addresses_md5_and_rom_status(dfu_bin: Path, capsys: Capture) -> None:
    assert run("inspect", str(dfu_bin)) == 0
    out, _ = capsys.readouterr()
    assert "ESP32-S3 (303a:0009)" in out
    assert "suffix bcdDevice ffff, bcdDFU 0100, CRC correct" in out
    assert "The simulated ROM reports OK." in out
    image = inspect(dfu_bin).image
    for record in image.records:
        row = next(line for line in out.splitlines() if line.rstrip().endswith(f" {record.name}"))
        assert f"{record.address:#x}" in row
        assert record.md5.hex() in row


def test_inspect_fails_on_bad_layout(dfu_bin: Path, capsys: Capture) -> None:
    # The same bytes with one address moved into its neighbour's sector, and a right CRC.
    from zlib import crc32

    data = bytearray(dfu_bin.read_bytes())
    position = data.index((0x8000).to_bytes(4, "little") + bytes(4) + b"partition-table.bin")
    data[position : position + 4] = (0x4F00).to_bytes(4, "little")
    data[-4:] = (crc32(data[:-4]) ^ 0xFFFFFFFF).to_bytes(4, "little")
    dfu_bin.write_bytes(data)
    assert run("inspect", str(dfu_bin)) == 65
    out, err = capsys.readouterr()
    assert "share the 4096-byte sector at 0x4000" in err.replace("\n", " ")
    assert "The simulated ROM reports errFIRMWARE, but see above." in out


def test_list_json_is_one_versioned_document(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    simulate(monkeypatch, "esp32s3,303a:1001,esp32s2+no-access")
    assert run("list", "--json") == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert err == ""
    assert document["version"] == 1
    s3, jtag, s2 = document["devices"]
    assert (s3["path"], s3["vid"], s3["pid"], s3["target"], s3["serial"], s3["problem"]) == (
        "1-1", "303a", "0009", "esp32s3", "7c:df:a1:00:00:01", None,
    )  # fmt: skip
    assert s3["interfaces"] == [{"mode": "run-time", "configuration": 1, "interface": 2, "alternate": 0, "name": None}]
    assert (jtag["interfaces"], jtag["target"]) == ([], None)
    assert s2["problem"]["code"] == "no-permission"


def test_list_probe_tells_who_the_boards_are(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    simulate(monkeypatch, "esp32s2,esp32s3+app,303a:1001,esp32s2+dfu+no-access")
    assert run("list") == 0
    lines = capsys.readouterr().out
    assert run("list", "--probe") == 0
    out, err = capsys.readouterr()
    assert out == lines
    assert "Port 1-1: ESP32-S2 v0.0, MAC 7c:df:a1:00:00:01, 16 MiB of flash memory." in err
    assert "Port 1-2: the chip's serial loader does not answer." in err
    assert err.count("Port 1-4: no permission") == 1
    assert run("list", "--probe", "--format", "table") == 0
    out, err = capsys.readouterr()
    assert [line.split() for line in out.splitlines()][1:] == [
        ["1-1", "ESP32-S2", "v0.0", "run-time", "7c:df:a1:00:00:01", "16", "MiB"],
        ["1-2", "ESP32-S3", "run-time", "7c:df:a1:00:00:02", "unknown"],
        ["1-4", "ESP32-S2", "DFU", "unknown", "unknown"],
    ]
    assert "MAC" not in err
    assert run("list", "--probe", "--json") == 0
    boards = [device["board"] for device in json.loads(capsys.readouterr().out)["devices"]]
    assert [board["mac"] if board else "" for board in boards] == ["7c:df:a1:00:00:01", None, "", None]
    assert [board["problem"]["code"] for board in boards if board and board["problem"]] == [
        "serial-loader",
        "no-permission",
    ]


# --- exit codes -------------------------------------------------------------------------------------------

FAILURES = [
    # (boards, options, exit code, what stderr must say)
    ("esp32s2", (), 69, ["No ESP32-S3 (303a:0009) found", "ESP32-S2 with DFU in run-time mode", "[other-chip]"]),
    ("303a:1001", (), 69, ["USB-Serial/JTAG", "hold BOOT", "[other-usb]"]),
    (
        "esp32s3",
        ("--path", "1-7"),
        69,
        ["No ESP32-S3 (303a:0009) found on port 1-7", "Found on port 1-1", "[other-path]"],
    ),
    ("esp32s3", ("--serial", "nobody"), 69, ["with serial number nobody", "[other-serial]"]),
    ("esp32s3,esp32s3", (), 64, ["Found 2 ESP32-S3 boards: 1-1, 1-2", "--path 1-1", "--all"]),
    ("esp32s3", ("--path", "foo"), 64, ["'foo' is not a port path; expected one like 1-2. [usage]"]),
    ("esp32s3", ("--path", "1-1", "--path", "1-2x"), 64, ["'1-2x' is not a port path"]),
    ("esp32s3", ("--path", "1-1", "--serial", "x"), 64, ["use only one of them"]),
    ("esp32s3", ("--wait", "-1"), 64, ["--wait"]),
    ("esp32s3+no-access", (), 77, ["no permission", "[no-permission]"]),
    ("esp32s3+busy", (), 75, ["another program holds the device"]),
    ("esp32s3+vanish@50", (), 74, ["left the bus", "Check the cable"]),
    ("esp32s3+stall@50+stall@51+stall@52", (), 74, ["refused the block at offset 0x0", "[usb-stall]"]),
    ("esp32s3+error@50", (), 74, ["errTARGET", "dfuERROR", "is in dfuIDLE and ready for another download"]),
    ("frog", (), 64, ["Cannot simulate 'frog'", "esp32s3"]),
]


@pytest.mark.parametrize(("boards", "options", "code", "texts"), FAILURES)
def test_failures_have_their_own_exit_code_and_next_step(
    boards: str,
    options: tuple[str, ...],
    code: int,
    texts: list[str],
    dfu_bin: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    simulate(monkeypatch, boards)
    assert run("flash", str(dfu_bin), "-q", *options) == code
    out, err = capsys.readouterr()
    for text in texts:
        assert text in err
    assert out == ""


def test_simulated_fault_is_not_explained_by_real_machine(
    dfu_bin: Path, monkeypatch: pytest.MonkeyPatch, mocker: MockerFixture, capsys: Capture
) -> None:
    fact = Finding("port 1-1", Level.PROBLEM, "seen here", "no-rule")
    explain = mocker.patch("esp_dfu_ext.doctor.explain.explain", return_value=[fact])
    simulate(monkeypatch, "esp32s3+no-access")
    assert run("flash", str(dfu_bin)) == 77
    assert run("list") == 0
    assert not explain.called
    # Where the boards are real it is: this one fails before any bus is looked at.
    monkeypatch.delenv(SIMULATE_VARIABLE)
    capsys.readouterr()
    mocker.patch("esp_dfu_ext.usb.bus.libusb_backend", side_effect=UsbUnavailableError("libusb does not start."))
    assert run("flash", str(dfu_bin)) == 72
    assert "  Port 1-1: seen here.\n  > Give yourself access (once): sudo " in capsys.readouterr().err


def test_usage_errors_are_64(capsys: Capture) -> None:
    for args in ((), ("frob",), ("flash",), ("flash", "--wait", "soon", "x"), ("build", "x", "--frob")):
        assert run(*args) == 64, args
    capsys.readouterr()


def test_missing_input_is_66(tmp_path: Path, capsys: Capture) -> None:
    assert run("flash", str(tmp_path / "dfu.bin")) == 66
    assert run("inspect", str(tmp_path / "dfu.bin")) == 66
    assert run("build", str(tmp_path / "build")) == 66
    assert "Traceback" not in capsys.readouterr().err


def test_folder_instead_of_image_is_named(dfu_bin: Path, capsys: Capture) -> None:
    (dfu_bin.parent / "empty").mkdir()
    assert run("flash", str(dfu_bin.parent / "empty")) == 65
    err = " ".join(capsys.readouterr().err.split())
    assert "empty has no build of ESP-IDF, Arduino, PlatformIO or Zephyr. [no-build]" in err
    assert run("flash", str(dfu_bin.parent), "--simulate") == 0  # builds it
    capsys.readouterr()
    assert run("build", str(dfu_bin)) == 65
    err = capsys.readouterr().err
    assert "is a DFU image already. [wrong-input]" in " ".join(err.split())
    assert err.endswith(f"> Flash it: esp-dfu flash {shlex.quote(str(dfu_bin))}\n")


def test_unreadable_file_names_file(dfu_bin: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    forbid(monkeypatch, dfu_bin)
    assert run("flash", str(dfu_bin)) == 66
    assert capsys.readouterr().err.endswith(
        "cannot be read: Permission denied. [input-missing]\n  > Check its permissions.\n"
    )
    app = dfu_bin.parent / "hello_world.bin"
    forbid(monkeypatch, app)
    assert run("build", str(dfu_bin.parent)) == 66
    assert capsys.readouterr().err.endswith(
        f"{app} cannot be read: Permission denied. [input-missing]\n  > Check its permissions.\n"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="it is about Linux")
@pytest.mark.parametrize(
    "words", [["flash"], ["flash", "--all"], ["flash", "--watch", "--count", "2"], ["list"]], ids=" ".join
)
def test_error_shows_findings_of_this_machine(
    words: list[str], dfu_bin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    machine = FolderMachine(tmp_path / "root")
    nodes = {path: machine.plug(path=path, number=number) for path, number in (("1-1", 2), ("1-2", 3))}
    if words == ["flash"]:
        del nodes["1-2"]
    # Boards of a simulator, which the command takes for real ones.
    boards = ",".join(["esp32s3+no-access"] * len(nodes))
    clock = VirtualClock()
    host = Host(clock, machine, open_usb=lambda: simulate_text(boards, load_targets(), clock).bus)
    monkeypatch.setattr("esp_dfu_ext.commands.session.this_host", lambda: host)
    assert run(*words[:1], *([str(dfu_bin)] if words[0] == "flash" else []), *words[1:]) == (
        0 if words == ["list"] else 77
    )
    err = capsys.readouterr().err
    for path, node in nodes.items():
        assert err.count(f"  Port {path}: ada cannot open {node} (root:root 0664):") == 1
    assert err.count("Give yourself access (once):") == 1


def test_damaged_image_is_65_before_usb_is_used(dfu_bin: Path, mocker: MockerFixture, capsys: Capture) -> None:
    scan = mocker.patch("esp_dfu_ext.usb.bus.Bus.scan")
    data = bytearray(dfu_bin.read_bytes())
    for position in (0, 130, len(data) // 2, len(data) - 20, len(data) - 1):
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        dfu_bin.write_bytes(damaged)
        assert run("flash", str(dfu_bin)) == 65
    assert not scan.called
    assert "CRC" in capsys.readouterr().err


def test_unwritable_output_is_73(build_dir: Path, capsys: Capture) -> None:
    assert run("build", str(build_dir), "-o", str(build_dir)) == 73
    assert run("build", str(build_dir), "-o", str(build_dir / "nowhere" / "dfu.bin")) == 73
    assert run("build", str(build_dir), "-o", str(build_dir / "hello_world.bin")) == 73
    assert "cannot be written" in capsys.readouterr().err


def test_full_disk_keeps_old_image(dfu_bin: Path, mocker: MockerFixture, capsys: Capture) -> None:
    before = dfu_bin.read_bytes()
    mocker.patch("os.fsync", side_effect=OSError(errno.ENOSPC, "No space left on device"))
    assert run("build", str(dfu_bin.parent)) == 73
    assert "No space left on device" in capsys.readouterr().err
    assert dfu_bin.read_bytes() == before
    assert [p.name for p in dfu_bin.parent.iterdir() if p.name.endswith(".tmp")] == []


def test_interrupt_is_130(dfu_bin: Path, mocker: MockerFixture, capsys: Capture) -> None:
    mocker.patch("esp_dfu_ext.operations.flasher.flash_board", side_effect=KeyboardInterrupt)
    assert run("flash", str(dfu_bin), "--simulate") == 130
    mocker.patch(
        "esp_dfu_ext.operations.flasher.flash_board", side_effect=InterruptedByUserError("Stopped.", incomplete=True)
    )
    assert run("flash", str(dfu_bin), "--simulate") == 130
    assert f"Flash again: esp-dfu flash '{dfu_bin}'" in capsys.readouterr().err


def test_options_are_checked_before_scan(dfu_bin: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    simulate(monkeypatch, "esp32s3")
    monkeypatch.setattr("esp_dfu_ext.usb.bus.Bus.scan", lambda *_, **__: pytest.fail("scanned"))
    for options in (("--path", "foo"), ("--watch", "--all"), ("--path", "1-1", "--all")):
        assert run("flash", str(dfu_bin), *options) == 64
    capsys.readouterr()


def test_app_image_is_named_as_such(dfu_bin: Path, capsys: Capture) -> None:
    assert run("flash", str(dfu_bin.parent / "hello_world.bin"), "--simulate") == 65
    err = capsys.readouterr().err
    assert "is an app alone (hello_world 1.0.0 for ESP32-S3). [wrong-input]" in " ".join(err.split())
    assert "> Say where it goes: esp-dfu flash " in err and err.endswith(" --at factory\n")


def test_several_paths_are_flashed_at_once(dfu_bin: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    simulate(monkeypatch, "esp32s3,esp32s3,esp32s3")
    assert run("flash", str(dfu_bin), "--path", "1-3", "--path", "1-1", "-q") == 0
    assert capsys.readouterr().out == "2 of 2 boards passed the dry run.\n"
    assert run("flash", str(dfu_bin), "--path", "1-3", "--path", "1-1") == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[:2] for row in rows if row[-1:] == ["PASS"]] == [
        ["1-3", "7c:df:a1:00:00:03"],
        ["1-1", "7c:df:a1:00:00:01"],
    ]


def test_all_flashes_every_board_despite_failures(
    dfu_bin: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    simulate(monkeypatch, "esp32s3,esp32s3+error@9,esp32s2,esp32s3+vanish@70,esp32s3")
    assert run("flash", str(dfu_bin), "--all") == 74
    out, err = capsys.readouterr()
    rows = {line.split()[0]: line.split()[-1] for line in out.splitlines() if line.startswith("1-")}
    assert rows == {"1-1": "PASS", "1-2": "dfu-status", "1-4": "device-gone", "1-5": "PASS"}
    assert "2 of 4 boards passed the dry run." in out
    assert "errTARGET" in err
    assert "Port 1-4: the device left the bus" in err


def test_all_without_board_is_69(dfu_bin: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    simulate(monkeypatch, "esp32s2")
    assert run("flash", str(dfu_bin), "--all") == 69
    assert run("flash", str(dfu_bin), "--all", "--path", "1-1") == 64
    capsys.readouterr()


def test_missing_path_stops_all_before_flashing(
    dfu_bin: Path, monkeypatch: pytest.MonkeyPatch, mocker: MockerFixture, capsys: Capture
) -> None:
    flash = mocker.patch("esp_dfu_ext.operations.gang.flash_board")
    simulate(monkeypatch, "esp32s3")
    assert run("flash", str(dfu_bin), "--path", "1-1", "--path", "1-2") == 69
    assert not flash.called
    capsys.readouterr()


def test_reset_reports_what_was_seen(dfu_bin: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    simulate(monkeypatch, "esp32s3+held")
    assert run("flash", str(dfu_bin), "--reset") == 0
    out, _ = capsys.readouterr()
    assert "Seen on port 1-1 after the reset: 303a:0009, ESP32-S3 with DFU in run-time mode" in out


def test_demo_runs_all_commands_and_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("demo") == 0
    out, err = capsys.readouterr()
    assert "for ESP32-S2" in out.splitlines()[1]
    for text in ("$ esp-dfu build", "$ esp-dfu inspect", "$ esp-dfu list", "$ esp-dfu flash", "(218.2 KiB) matches"):
        assert text in out
    assert err == ""
    assert list(tmp_path.iterdir()) == []
    assert Path.cwd() == tmp_path


@pytest.mark.parametrize("name", ["esp32s2", "esp32s3", "esp32p4", "esp32s31"])
def test_every_target_can_be_rehearsed(name: str, tmp_path: Path, capsys: Capture) -> None:
    build_dir = write_sample_project(tmp_path, load_target(name), app_size=5000)
    assert run("build", str(build_dir), "-q") == 0
    assert run("flash", str(build_dir / "dfu.bin"), "--simulate", "-q") == 0
    assert "Dry run" in capsys.readouterr().out


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_output_works_in_every_code_page(encoding: str, build_dir: Path) -> None:
    done = esp_dfu("build", build_dir, env={"PYTHONIOENCODING": encoding}, encoding=encoding)
    assert (done.returncode, done.stderr) == (0, "")
    assert ("žluťoučký" in done.stdout) == (encoding == "utf-8")
    assert "[red]k" in done.stdout


def test_closed_pipe_ends_without_traceback(dfu_bin: Path) -> None:
    assert esp_dfu("--version").stdout.startswith("esp-dfu, version ")
    # What is for people is not missed; what is for programs and could not be written is an error.
    for words, code in ((["inspect", str(dfu_bin)], 0), (["list"], 141), (["list", "--json"], 141), (["--help"], 141)):
        done = esp_dfu(*words, boards="esp32s3", env={"PYTHONUNBUFFERED": ""}, unread="pipe")
        assert (done.returncode, done.stderr) == (code, "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--wait", "abc"], "'abc' is not a number of seconds, such as 10 or 0.5."),
        (["--watch", "--count", ""], "'' is not a number of boards, such as 10."),
        (["--serial", " "], "--serial is empty"),
        (["--report", ""], "--report is empty; expected a file to append to."),
        (["--trace", ""], "--trace is empty; expected a file to write."),
        (["--path", ""], "'' is not a port path; expected one like 1-2."),
    ],
)
def test_invalid_value_is_named_with_what_was_expected(
    words: list[str], message: str, dfu_bin: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("ESP_DFU_SIMULATE", "esp32s3")
    assert run("flash", str(dfu_bin), *words) == 64
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("value", "known"), [(None, True), ("", True), ("0", True), ("1", False)])
def test_environment_turns_serial_loader_off(
    value: str | None, known: bool, dfu_bin: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("ESP_DFU_SIMULATE", "esp32s3")
    if value is not None:
        monkeypatch.setenv("ESP_DFU_NO_LOADER", value)
    assert run("flash", str(dfu_bin)) == 0
    assert ("MAC 7c:df:a1:00:00:01" in capsys.readouterr().out) == known


@pytest.mark.usefixtures("virtual_clock")
def test_environment_that_is_no_choice_is_a_usage_error(
    dfu_bin: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("ESP_DFU_SIMULATE", "esp32s3")
    monkeypatch.setenv("ESP_DFU_NO_LOADER", "perhaps")
    assert run("flash", str(dfu_bin)) == 64
    assert "perhaps" in capsys.readouterr().err


def test_missing_choice_is_named_in_one_line(capsys: Capture) -> None:
    assert run("completion") == 64
    assert "Choose from: bash, zsh, fish. [usage]" in capsys.readouterr().err


def test_one_board_is_not_several(dfu_bin: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("ESP_DFU_SIMULATE", "esp32s3")
    assert run("flash", str(dfu_bin), "--all") == 0
    assert "1 of 1 board passed the dry run." in capsys.readouterr().out


@pytest.mark.usefixtures("virtual_clock")
def test_wait_is_announced_as_it_was_typed(dfu_bin: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("ESP_DFU_SIMULATE", "esp32s2")
    for words in (["--all"], []):
        assert run("flash", str(dfu_bin), "--wait", "2", *words) == 69
        assert "Waiting up to 2.0 s for a" in capsys.readouterr().out


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf", "1e300"])
def test_impossible_wait_is_64(seconds: str, dfu_bin: Path, capsys: Capture) -> None:
    assert run("flash", str(dfu_bin), "--simulate", "--wait", seconds) == 64
    assert "--wait takes a number of seconds" in capsys.readouterr().err


def test_simulate_accepts_real_command_line(dfu_bin: Path, capsys: Capture) -> None:
    assert run("flash", str(dfu_bin), "--simulate", "--path", "2-3.1") == 0
    assert "on port 2-3.1" in capsys.readouterr().out
    assert run("flash", str(dfu_bin), "--simulate", "--serial", "my board") == 0
    assert "serial number my board" in capsys.readouterr().out


def test_missing_permission_with_serial_is_77(dfu_bin: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    simulate(monkeypatch, "esp32s3+no-access")
    assert run("flash", str(dfu_bin), "--serial", "7c:df:a1:00:00:01") == 77
    capsys.readouterr()


def test_every_command_knows_chips_of_project(dfu_bin: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    project = dfu_bin.parent.parent
    own = project / "dfu_targets"
    own.mkdir()
    text = (builtin_folder() / "esp32s3.yaml").read_text(encoding="utf-8")
    text = text.replace("name: esp32s3", "name: mychip").replace("pid: 0x0009", "pid: 0x0123")
    (own / "mychip.yaml").write_text(text, encoding="utf-8")
    for name in ("sdkconfig", "build/project_description.json"):
        file = project / name
        file.write_text(file.read_text(encoding="utf-8").replace("esp32s3", "mychip"), encoding="utf-8")
    assert run("build", str(dfu_bin.parent)) == 0
    assert run("inspect", str(dfu_bin)) == 0
    assert run("flash", str(dfu_bin), "--simulate") == 0
    simulate(monkeypatch, "mychip+no-access")
    assert run("flash", str(dfu_bin)) == 77
    capsys.readouterr()
    assert run("doctor", str(dfu_bin.parent)) == 1
    assert "[no-permission]" in capsys.readouterr().out
    simulate(monkeypatch, "mychip")
    assert run("doctor", str(dfu_bin.parent)) == 0
    monkeypatch.chdir(dfu_bin.parent)
    assert run("doctor", ".") == 0
    assert run("flash", "dfu.bin") == 0
    monkeypatch.chdir(project)
    capsys.readouterr()
    assert run("udev") == 0
    assert 'ATTR{idProduct}=="01??"' not in capsys.readouterr().out  # root takes nothing from the current folder
    assert run("list") == 0
    assert "Found Runtime: [303a:0123]" in capsys.readouterr().out
    assert run("demo", "--target", "mychip") == 0
    assert "on port 1-1. The chip reported OK" in capsys.readouterr().out
    assert "mychip: ESP32-S3" in complete(monkeypatch, "esp-dfu demo --target my", "mychip")
    monkeypatch.chdir(project.parent)
    offered = complete(monkeypatch, f"esp-dfu flash {shlex.quote(str(dfu_bin))} --path ", "mychip")
    assert "1-1" in [line.split(":")[0] for line in offered]


def test_broken_yaml_of_other_chip_is_warning(
    dfu_bin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    folder = tmp_path / "chips"
    folder.mkdir()
    (folder / "other.yaml").write_text("[", encoding="utf-8")
    monkeypatch.setenv("ESP_DFU_TARGETS", str(folder))
    assert run("flash", str(dfu_bin), "--simulate") == 0
    assert run("inspect", str(dfu_bin)) == 0
    simulate(monkeypatch, "esp32s3")
    assert run("list") == 0
    assert "other.yaml: is not YAML" in capsys.readouterr().err


def test_advice_names_other_output_file(build_dir: Path, tmp_path: Path, capsys: Capture) -> None:
    assert run("build", str(build_dir), "-o", str(tmp_path / "other.bin")) == 0
    assert f"Flash it: esp-dfu flash {tmp_path / 'other.bin'}" in capsys.readouterr().out


def test_output_to_special_file_keeps_it(build_dir: Path, tmp_path: Path, capsys: Capture) -> None:
    fifo, link, real = tmp_path / "fifo", tmp_path / "link", tmp_path / "real.bin"
    os.mkfifo(fifo)
    link.symlink_to(real)
    assert run("build", str(build_dir), "-o", str(fifo)) == 73
    assert fifo.is_fifo()
    assert run("inspect", str(fifo)) == 66
    assert run("build", str(build_dir), "-o", str(link)) == 0
    assert link.is_symlink()
    assert real.is_file()
    capsys.readouterr()


FULL = "error: The output cannot be written: No space left on device. [output]\n"


def test_full_log_does_not_stop_flash(dfu_bin: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    for stdout, code, error in (("pipe", 0, ""), ("/dev/full", 73, FULL)):
        words = ("flash", dfu_bin, "--report", report)
        done = esp_dfu(*words, boards="esp32s3", env={"PYTHONUNBUFFERED": ""}, unread=stdout)
        assert (done.returncode, done.stderr) == (code, error)
        assert json.loads(report.read_text().splitlines()[-1])["result"] == "pass"


@pytest.mark.parametrize(
    "line",
    ["--help", "--version", "flash --help", "inspect DFU", "list", "list --json", "udev", "completion bash", "demo"],
)
def test_output_that_is_lost_is_no_success(line: str, dfu_bin: Path) -> None:
    words = [dfu_bin if word == "DFU" else word for word in line.split()]
    done = esp_dfu(*words, boards="esp32s3", env={"PYTHONUNBUFFERED": ""}, unread="/dev/full")
    assert (done.returncode, done.stderr) == (73, FULL)


@pytest.mark.parametrize("line", ["--help", "inspect DFU", "list", "enable --shell", "flash DFU", "flash DFU --json"])
def test_closed_stdout_is_no_failure(line: str, dfu_bin: Path) -> None:
    words = [dfu_bin if word == "DFU" else word for word in line.split()]
    done = esp_dfu(*words, boards="esp32s3", prefix=["sh", "-c", 'exec "$@" >&-', "sh"])
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr.lower()
