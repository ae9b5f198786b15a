"""`esp-dfu flash --json`: lines that are written can be read again, for one board, several boards and errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from esp_dfu_ext import build, errors, events, load_target
from esp_dfu_ext.commands.session import SIMULATE_VARIABLE
from esp_dfu_ext.doctor.advice import ESP_DFU, advice_for
from esp_dfu_ext.errors import (
    DfuStatusError,
    EspDfuError,
    InputMissingError,
    RemoteError,
    SeveralDevicesError,
)
from esp_dfu_ext.events import Phase
from esp_dfu_ext.operations.results import FlashOutcome, FlashResult
from esp_dfu_ext.simulator.sample import write_sample_project
from esp_dfu_ext.ui.json_lines import error_line, event_line, read_line, result_line

from .kit.commands import esp_dfu, run

pytestmark = pytest.mark.usefixtures("virtual_clock")

Capture = pytest.CaptureFixture[str]

EVENTS: list[events.Event] = [
    events.Waiting(1.5),
    events.DeviceFound("1-2.3", "DFU", None),
    events.BoardIdentified("1-2.3", "7c:df:a1:00:00:01", 4 << 20, True, False),
    events.PartsSkipped("1-2.3", 5, 12),
    events.PhaseStarted("1-2.3", Phase.DOWNLOAD, 7),
    events.Progress("1-2.3", Phase.DOWNLOAD, 3, 7, "žluťoučký\n\x1b[31m"),
    events.PhaseFinished("1-2.3", Phase.VERIFY, 0.25),
    events.Notice("strict-restart", "Once more."),
    events.Flashed("1-2.3", 7, 2.0, "OK", "dfuIDLE", 5),
    events.Failed("1-2.3", "device-gone", "It left."),
    events.AlreadyFlashed("1-2.3", "7c:df:a1:00:00:01"),
    events.AlreadyFlashed("1-2.3", None, "7c:df:a1:00:00:01"),
    events.BoardLeft("1-2.3"),
]
ERRORS: list[EspDfuError] = [
    SeveralDevicesError("Two.", paths=["1-1", "1-2"]),
    errors.TargetNotSupportedError("esp32", supported=["esp32s3"]),
    errors.WrongTargetError("dfu.bin", image_target="esp32s2", target="esp32s3"),
    InputMissingError("Not there.", path=Path("a/dfu.bin"), role="dfu.bin", reason="no-file"),
    errors.AccessDeniedError("No.", path="1-2"),
    errors.OtherChipError("None.", notes=["Seen: nothing."]),
    errors.UsbUnavailableError("No libusb.", missing="libusb"),
    errors.DeviceGoneError("Left.", notes=["The flash is incomplete."]),
    DfuStatusError("No.", status="errFIRMWARE", state="dfuERROR"),
    errors.NoDfuModeError("No return.", seen="run-time"),
    errors.InterruptedByUserError("Stopped.", incomplete=True),
    EspDfuError("Anything else."),
]


@pytest.fixture
def dfu_bin(tmp_path: Path) -> Path:
    return build(write_sample_project(tmp_path, load_target("esp32s3"), app_size=8000)).path


def flash(*args: str | Path) -> int:
    return run("flash", "--json", *args)


# --- the lines --------------------------------------------------------------------------------------------


def test_every_event_is_covered() -> None:
    assert {type(event) for event in EVENTS} == set(events.Event.__args__)  # type: ignore[attr-defined]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_events_survive_round_trip(event: events.Event) -> None:
    line = event_line(event)
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["version"] == 1
    assert read_line(line) == event


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.code)
def test_errors_survive_round_trip(error: EspDfuError) -> None:
    back = read_line(error_line(error))
    assert type(back) is type(error)
    assert vars(back) == vars(error)
    assert (str(back), back.code, back.exit_code) == (str(error), error.code, error.exit_code)


def test_unknown_error_keeps_code() -> None:
    line = error_line(DfuStatusError("New.", status="OK", state="dfuIDLE")).replace("dfu-status", "brand-new")
    back = read_line(line)
    assert type(back) is EspDfuError
    assert (back.code, back.exit_code, back.message) == ("brand-new", 74, "New.")


def test_error_of_earlier_version_has_defaults() -> None:
    def earlier(error: EspDfuError, *names: str) -> EspDfuError:
        document = json.loads(error_line(error))
        for name in names:
            del document["facts"][name]
        back = read_line(json.dumps(document))
        assert isinstance(back, type(error))
        return back

    missing = earlier(InputMissingError("No.", path=Path("dfu.bin"), role="dfu.bin"), "reason")
    assert isinstance(missing, InputMissingError)
    assert advice_for(missing, ESP_DFU) == ["Create it: esp-dfu build BUILD_DIR"]
    denied = earlier(errors.AccessDeniedError("No.", path="1-2"), "path")
    assert isinstance(denied, errors.UsbError)
    assert denied.path is None


def test_outcomes_survive_round_trip() -> None:
    good = FlashOutcome("1-1", "7c:df", FlashResult("1-1", "7c:df", 4096, 1.5, "OK", "dfuIDLE", "nothing"), None)
    status = DfuStatusError("No.", status="errVERIFY", state="dfuERROR")
    bad = FlashOutcome("1-2", "0", None, status, "7c:df:a1:00:00:02")
    back = read_line(result_line([good, bad], 74))
    assert isinstance(back, list)
    assert back[0] == good
    assert isinstance(back[1].error, DfuStatusError)
    assert back[1].error.status == "errVERIFY"
    assert (back[1].serial, back[1].mac, back[1].result) == ("0", "7c:df:a1:00:00:02", None)


def test_unknown_events_and_keys_are_ignored() -> None:
    assert read_line('{"version": 1, "event": "moon-phase", "full": true}') is None
    assert read_line('{"version": 1, "event": "waiting", "seconds": 2, "for": "godot"}') == events.Waiting(2)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "bash: esp-dfu: command not found",
        "[]",
        "{}",
        '{"version": 1}',
        '{"version": 1, "event": "waiting"}',
        '{"version": 1, "event": "waiting", "seconds": "two"}',
        '{"version": 1, "event": "progress", "path": "1-1", "phase": "lunch", "done": 1, "total": 2}',
        '{"version": 1, "event": "error", "code": 5}',
        '{"version": 1, "event": "result", "boards": [{}], "exit_code": 0}',
        '{"version": 2, "event": "waiting", "seconds": 2}',
        "[" * 100_000,
    ],
    ids=lambda line: line[:20],
)
def test_invalid_lines_are_refused(line: str) -> None:
    with pytest.raises(RemoteError) as error:
        read_line(line)
    assert error.value.exit_code == 76
    assert len(error.value.message) < 400


# --- the command ------------------------------------------------------------------------------------------


def test_one_board_gives_events_and_result(dfu_bin: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv(SIMULATE_VARIABLE, "esp32s3")
    assert flash(dfu_bin) == 0
    out, err = capsys.readouterr()
    _image, *said, last = [read_line(line) for line in out.splitlines()]
    assert isinstance(said[0], events.DeviceFound)
    assert isinstance(said[-1], events.Flashed)
    assert isinstance(last, list)
    assert (last[0].path, last[0].serial, last[0].error) == ("1-1", "7c:df:a1:00:00:01", None)
    assert last[0].result is not None
    assert (last[0].result.size, last[0].result.status) == (said[-1].size, "OK")
    assert "matches the image; USB was not used" in err


def test_result_lists_each_board(dfu_bin: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv(SIMULATE_VARIABLE, "esp32s3,esp32s3+busy")
    assert flash("--all", dfu_bin) == 75
    lines = capsys.readouterr().out.splitlines()
    document = json.loads(lines[-1])
    assert document["exit_code"] == 75
    assert [board["error"] and board["error"]["code"] for board in document["boards"]] == [None, "device-busy"]
    assert {json.loads(line)["event"] for line in lines[:-1]} >= {"flashed", "failed"}


def test_error_is_last_line_and_shown_on_stderr(
    dfu_bin: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv(SIMULATE_VARIABLE, "esp32s2")
    assert flash(dfu_bin) == 69
    out, err = capsys.readouterr()
    error = read_line(out.splitlines()[-1])
    assert type(error) is errors.OtherChipError
    assert "[other-chip]" in err


def test_errors_before_flash_are_lines(dfu_bin: Path, tmp_path: Path, capsys: Capture) -> None:
    assert flash(tmp_path / "nothing.bin") == 66
    assert flash("--wait", "-1", dfu_bin) == 64
    missing, usage = [read_line(line) for line in capsys.readouterr().out.splitlines()]
    assert isinstance(missing, InputMissingError)
    assert missing.path == tmp_path / "nothing.bin"
    assert isinstance(usage, errors.UsageError)


@pytest.mark.parametrize("stdout", ["pipe", "/dev/full"])
def test_closed_stdout_ends_flash(dfu_bin: Path, stdout: str) -> None:
    done = esp_dfu("flash", "--json", dfu_bin, boards="esp32s3", env={"PYTHONUNBUFFERED": ""}, unread=stdout)
    assert done.returncode == (73 if stdout == "/dev/full" else 141), done
    assert "Traceback" not in done.stderr
    assert "Flashed" not in done.stderr


def test_first_line_names_the_firmware(dfu_bin: Path) -> None:
    first = json.loads(esp_dfu("flash", "--json", dfu_bin, boards="esp32s3").stdout.splitlines()[0])
    app = first["app"]
    assert (first["event"], first["path"], first["target"]) == ("image", str(dfu_bin), "esp32s3")
    assert first["size"] > 0
    shown = json.loads(esp_dfu("inspect", "--json", dfu_bin).stdout)["app"]
    assert app == shown
    assert app["project"]
    assert read_line(json.dumps(first)) is None
