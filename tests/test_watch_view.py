"""`flash --watch` as its user meets it: verdicts in a log and on a terminal, options, exit codes."""

from __future__ import annotations

import io
import os
import re
import signal
from pathlib import Path

import pytest

from esp_dfu_ext import build, load_target
from esp_dfu_ext.commands.host import Host
from esp_dfu_ext.commands.session import SIMULATE_VARIABLE
from esp_dfu_ext.events import (
    AlreadyFlashed,
    BoardLeft,
    DeviceFound,
    Notice,
    Phase,
    PhaseFinished,
    PhaseStarted,
    Progress,
)
from esp_dfu_ext.simulator.sample import write_sample_project
from esp_dfu_ext.ui import views
from esp_dfu_ext.ui.console import Console
from esp_dfu_ext.ui.lines import Problem, Verdict
from esp_dfu_ext.ui.terminal import Terminal

from .kit.clocks import SharedClock
from .kit.commands import run

Capture = pytest.CaptureFixture[str]
PASSED = Verdict("1-2", "7c:df:a1:00:00:02", "20 KiB in 3.2 s", "1 passed, 0 failed", 1, None)
FAILED = Verdict(
    "3-1.4",
    None,
    "device-gone",
    "1 passed, 1 failed",
    2,
    Problem("Port 3-1.4: it \x1b[2J left.", "device-gone", ["It is incomplete."], ["x" * 100]),
)


@pytest.fixture(scope="module")
def dfu_bin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    return build(write_sample_project(folder, load_target("esp32s3"), app_size=8_000, bootloader_size=4_000)).path


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SharedClock:
    """Virtual time for the command."""
    made = SharedClock()
    monkeypatch.setattr("esp_dfu_ext.commands.session.this_host", lambda: Host(made))
    return made


def flash(monkeypatch: pytest.MonkeyPatch, dfu_bin: Path, boards: str, *options: str) -> int:
    monkeypatch.setenv(SIMULATE_VARIABLE, boards)
    return run("flash", dfu_bin, *options)


# --- the command ------------------------------------------------------------------------------------------


def test_log_has_line_for_each_verdict(
    dfu_bin: Path, clock: SharedClock, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    boards = "esp32s3+slow,esp32s3+vanish@3,esp32s3+vanish@9"
    assert flash(monkeypatch, dfu_bin, boards, "--watch", "--count", "3") == 74
    out, err = capsys.readouterr()
    firmware, first, *_ = lines = out.splitlines()
    assert firmware.startswith(f"{dfu_bin}: hello_world 1.0.0 (ESP-IDF v5.5.1")
    assert first == "Waiting for 3 simulated ESP32-S3 boards. Connect them in download mode; press Ctrl-C to stop."
    verdicts = [line for line in lines if line.startswith(("PASS", "FAIL"))]
    assert sorted(line.partition("(")[0].rstrip() for line in verdicts) == [
        "FAIL  1-2  7c:df:a1:00:00:02  device-gone",
        "FAIL  1-3  7c:df:a1:00:00:03  device-gone",
        "PASS  1-1  7c:df:a1:00:00:01  15.1 KiB in 1.1 s",
    ]
    assert verdicts[-1].endswith("(1 passed, 2 failed)")
    assert lines[-1] == "Dry run done: 1 passed, 2 failed."
    assert "1-1     detach    board is in DFU mode" in out
    assert err.count("error: Port 1-") == 2
    assert err.count("Check the cable") == 1  # the same advice is given once


def test_quiet_prints_only_verdicts(
    dfu_bin: Path, clock: SharedClock, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert flash(monkeypatch, dfu_bin, "esp32s3", "--watch", "--count", "1", "--quiet") == 0
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["PASS", "Dry"]
    assert err == ""


@pytest.mark.parametrize(
    ("boards", "options", "exit_code"),
    [
        ("esp32s3", (), 0),
        ("esp32s3", ("--count", "2"), 130),
        ("esp32s3+busy", (), 75),
        ("esp32s3+busy", ("--count", "2"), 75),
        ("esp32s2", (), 0),
    ],
)
@pytest.mark.usefixtures("default_signals")
def test_ctrl_c_ends_watch(
    dfu_bin: Path,
    clock: SharedClock,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    boards: str,
    options: tuple[str, ...],
    exit_code: int,
) -> None:
    clock.at(20, lambda: os.kill(os.getpid(), signal.SIGINT))
    assert flash(monkeypatch, dfu_bin, boards, "--watch", *options) == exit_code
    assert "Dry run done: " in capsys.readouterr().out


@pytest.mark.parametrize(
    "options",
    [
        ("--watch", "--serial", "0"),
        ("--watch", "--wait", "5"),
        ("--watch", "--json"),
        ("--count", "5"),
        ("--watch", "--count", "0"),
        ("--watch", "--all"),
        ("--watch", "--all", "--path", "1-1"),
        ("--watch", "--path", "foo"),
    ],
)
def test_contradicting_options_are_refused(
    dfu_bin: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, options: tuple[str, ...]
) -> None:
    assert flash(monkeypatch, dfu_bin, "esp32s3", *options) == 64
    assert "[usage]" in capsys.readouterr().err


@pytest.mark.usefixtures("default_signals")
def test_only_named_ports_are_watched(
    dfu_bin: Path, clock: SharedClock, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    clock.at(20, lambda: os.kill(os.getpid(), signal.SIGINT))
    options = ("--watch", "--path", "1-2", "--path", "1-4")
    assert flash(monkeypatch, dfu_bin, "esp32s3,esp32s3,esp32s3", *options) == 0
    out, _ = capsys.readouterr()
    assert "boards on port 1-2, 1-4." in out
    assert [line.split()[1] for line in out.splitlines() if line.startswith("PASS")] == ["1-2"]


# --- the terminal -----------------------------------------------------------------------------------------


def test_terminal_shows_ports_in_use_below_verdicts() -> None:
    out = io.StringIO()
    terminal = Terminal(out, width=80, force_terminal=True, color_system="standard", legacy_windows=False)
    view = views.watch_view(Console(out=terminal), "ESP32-S3")
    with view:
        view.begin("", 3)
        tally = view._progress.tasks[0]  # type: ignore[attr-defined]
        assert tally.fields["figures"] == ["no board yet"]
        view(DeviceFound("1-2", "run-time", "7c:df:a1:00:00:02"))
        assert tally.fields["figures"] == ["0 passed, 0 failed"]
        view(PhaseStarted("1-2", Phase.DOWNLOAD, 2048))
        view(Progress("1-2", Phase.DOWNLOAD, 300, 2048, "app.bin"))
        view(Notice("report", "A line is missing.", "1-2"))
        view(PhaseFinished("1-2", Phase.DOWNLOAD, 2.0))
        view.verdict(PASSED)
        view(BoardLeft("1-2"))
        view.verdict(FAILED)
        view(DeviceFound("1-4", "run-time", None))
        assert tally.fields["figures"] == [FAILED.tally]
        view(BoardLeft("1-4"))
        view(AlreadyFlashed("1-5", None, "7c:df:a1:00:00:02"))
    plain = re.sub(r"\x1b\[[0-9?;]*[A-Za-z]", "", out.getvalue()).replace("\r", "\n")
    last = [line.split() for line in plain.splitlines() if line.strip()][-3:]
    assert [line[0] for line in last] == ["watching", "1-5", "3-1.4"]
    assert last[0][-4:] == ["1", "passed,", "1", "failed"]
    assert "unplug it" in plain
    assert "SKIP   1-5   7c:df:a1:00:00:02   already flashed" in plain
    assert "warning: Port 1-2: A line is missing." in plain
    assert "x" * 100 in plain  # a command is never broken
    assert "it ?[2J left. [device-gone]" in plain
