"""`--report`: lines stay whole, whatever happens, and no board is flashed if they cannot be written."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import jsonschema
import msgspec
import pytest

from esp_dfu_ext import build, load_image, load_target
from esp_dfu_ext.clock import VirtualClock
from esp_dfu_ext.errors import EspDfuError, OutputError
from esp_dfu_ext.events import AlreadyFlashed, DeviceFound, Event, Failed, Flashed
from esp_dfu_ext.operations.record import LOCK_TIME, Line, Recorder, Report
from esp_dfu_ext.simulator.sample import write_sample_project

from .kit.commands import esp_dfu, run

CHECKOUT = Path(__file__).resolve().parent.parent
LINE = Line(
    format=1,
    time="2026-11-23T04:05:06.789Z",
    result="pass",
    path="1-2",
    serial=None,
    target="esp32s2",
    image_sha256="0" * 64,
    project="hello",
    version="1.0",
    bytes=1000,
    seconds=1.5,
    error=None,
    message=None,
    simulated=False,
    tool="esp-dfu-ext 0",
)


def lines(path: Path) -> list[Line]:
    """Return all lines, each of which must be whole."""
    data = path.read_bytes()
    assert data.endswith(b"\n")
    return [msgspec.json.decode(line, type=Line) for line in data.splitlines()]


@pytest.fixture(scope="module")
def dfu_bin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    return build(write_sample_project(folder, load_target("esp32s3"), app_size=8_000, bootloader_size=4_000)).path


def flash(dfu_bin: Path, report: Path, boards: str, *options: str) -> subprocess.CompletedProcess[str]:
    return esp_dfu("flash", dfu_bin, "--report", report, *options, boards=boards)


# --- contents of a line -----------------------------------------------------------------------------------


def test_every_way_of_flashing_records_each_board(dfu_bin: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    assert flash(dfu_bin, report, "esp32s3").returncode == 0
    assert flash(dfu_bin, report, "esp32s3+error@40").returncode == 74
    assert flash(dfu_bin, report, "esp32s3,esp32s3+busy", "--all").returncode == 75
    assert flash(dfu_bin, report, "esp32s3,esp32s3+vanish@9", "--watch", "--count", "2").returncode == 74
    made = lines(report)
    assert [(line.result, line.path, line.error) for line in made[:2]] == [
        ("pass", "1-1", None),
        ("fail", "1-1", "dfu-status"),
    ]
    for pair, code in ((made[2:4], "device-busy"), (made[4:6], "device-gone")):
        assert {(line.result, line.path, line.error) for line in pair} == {
            ("pass", "1-1", None),
            ("fail", "1-2", code),
        }
    assert len(made) == 6
    good, bad = made[0], made[1]
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", good.time)
    assert (good.format, good.serial, good.target) == (1, "7c:df:a1:00:00:01", "esp32s3")
    assert good.image_sha256 == hashlib.sha256(dfu_bin.read_bytes()).hexdigest()
    assert (good.project, good.version, good.simulated) == ("hello_world", "1.0.0", True)
    assert good.bytes > 12_000
    assert good.bytes > bad.bytes == 0
    assert 0.4 < good.seconds < 30
    assert bad.message is not None
    assert "errTARGET" in bad.message


def test_line_has_mac_of_board_unless_the_loader_is_not_used(dfu_bin: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    assert flash(dfu_bin, report, "esp32s3").returncode == 0
    assert flash(dfu_bin, report, "esp32s3+error@40").returncode == 74
    assert flash(dfu_bin, report, "esp32s3,esp32s3", "--all").returncode == 0
    assert flash(dfu_bin, report, "esp32s3", "--no-loader").returncode == 0
    alone, failed, *both, without = lines(report)
    assert [alone.mac, failed.mac, without.mac] == ["7c:df:a1:00:00:01", "7c:df:a1:00:00:01", None]
    assert {(line.path, line.mac) for line in both} == {("1-1", "7c:df:a1:00:00:01"), ("1-2", "7c:df:a1:00:00:02")}


def test_line_names_board_whose_serial_number_all_boards_have(tmp_path: Path) -> None:
    project = write_sample_project(tmp_path, load_target("esp32s2"), app_size=8_000, bootloader_size=4_000)
    image, report = build(project).path, tmp_path / "report.jsonl"
    assert flash(image, report, "esp32s2").returncode == 0
    assert flash(image, report, "esp32s2,esp32s2+error@40", "--all").returncode == 74
    assert flash(image, report, "esp32s2", "--no-loader").returncode == 0
    assert flash(image, report, "esp32s2", "--watch", "--count", "1").returncode == 0
    assert {(line.path, line.serial, line.mac, line.result) for line in lines(report)} == {
        ("1-1", "0", "7c:df:a1:00:00:01", "pass"),
        ("1-2", "0", "7c:df:a1:00:00:02", "fail"),
        ("1-1", "0", None, "pass"),
    }


def test_board_that_was_flashed_before_gets_no_line(dfu_bin: Path, tmp_path: Path) -> None:
    with Report(tmp_path / "report.jsonl") as report:
        recorder = Recorder(report, load_image(dfu_bin), False, VirtualClock())
        recorder(DeviceFound("1-2", "run-time", "0"))
        recorder(AlreadyFlashed("1-2", None, "7c:df:a1:00:00:01"))
        recorder.failed(EspDfuError("USB cannot be scanned."))
    assert (tmp_path / "report.jsonl").read_bytes() == b""


def test_no_line_without_board(dfu_bin: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    assert flash(dfu_bin, report, "esp32s2").returncode == 69
    assert report.read_bytes() == b""


def test_line_is_written_before_event_is_passed_on(dfu_bin: Path, tmp_path: Path) -> None:
    seen = []
    clock = VirtualClock()
    with Report(tmp_path / "report.jsonl") as report:

        def view(event: Event) -> None:
            if isinstance(event, (Flashed, Failed)):
                seen.append(lines(tmp_path / "report.jsonl")[-1])

        recorder = Recorder(report, load_image(dfu_bin), False, clock, view)
        recorder(DeviceFound("1-2", "run-time", "aa"))
        clock.sleep(2.0)
        recorder(Failed("1-2", "usb-io", "It\x1b broke."))
        recorder(DeviceFound("1-2", "DFU", None))
        recorder(Flashed("1-2", 77, 3.25, "OK", "dfuIDLE"))
    assert [(line.result, line.serial, line.bytes, line.seconds, line.message) for line in seen] == [
        ("fail", "aa", 0, 2.0, "It? broke."),
        ("pass", None, 77, 3.25, None),
    ]
    assert not seen[0].simulated


def test_lines_are_valid_against_schema(dfu_bin: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    assert flash(dfu_bin, report, "esp32s3,esp32s2+dfu,esp32s3+busy", "--all").returncode == 75
    schema = json.loads((CHECKOUT / "docs" / "report.schema.json").read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator({**schema, "additionalProperties": False})
    made = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
    assert [line["result"] for line in made] == ["fail", "pass"]
    for line in made:
        validator.validate(line)
        assert not validator.is_valid({**line, "format": 2})


# --- whole lines ------------------------------------------------------------------------------------------


def test_new_line_starts_after_torn_one(tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    report.write_bytes(b'{"format":1,"time":"2026')
    with Report(report) as opened:
        assert report.read_bytes() == b'{"format":1,"time":"2026'
        opened.append(LINE)
        opened.append(LINE)
    broken, *whole = report.read_bytes().splitlines()
    assert broken == b'{"format":1,"time":"2026'
    assert [msgspec.json.decode(line, type=Line) for line in whole] == [LINE, LINE]


WRITER = """
import sys
from pathlib import Path
from esp_dfu_ext.operations.record import Report
from tests.test_report import LINE
import msgspec
with Report(Path(sys.argv[1])) as report:
    for number in range(int(sys.argv[3])):
        report.append(msgspec.structs.replace(LINE, path=sys.argv[2], bytes=number, message="x" * (number % 977)))
        print(number, flush=True)
"""


def writer(report: Path, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(report), name, str(count)]
    path = os.pathsep.join([str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(sys.platform == "win32", reason="no lock there")
def test_processes_share_file(tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    for process in [writer(report, f"1-{n}", 100) for n in range(1, 4)]:
        process.communicate(timeout=240)
        assert process.returncode == 0
    made = lines(report)
    for n in range(1, 4):
        assert [line.bytes for line in made if line.path == f"1-{n}"] == list(range(100))
    assert len(made) == 300


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_lines_survive_kill(tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    for lives in range(1, 6):
        process = writer(report, f"9-{lives}", 1_000_000)
        assert process.stdout is not None
        said = [int(process.stdout.readline()) for _ in range(10 * lives)]
        process.send_signal(signal.SIGKILL)
        with process.stdout:
            said += [int(line) for line in process.stdout]  # communicate() would miss what readline() has buffered
        process.wait(timeout=240)
        with Report(report) as opened:
            opened.append(LINE)
        whole = [line for line in report.read_bytes().splitlines() if line.endswith(b"}")]
        made = [msgspec.json.decode(line, type=Line) for line in whole]
        assert [line.bytes for line in made if line.path == f"9-{lives}"][: len(said)] == said
        assert made[-1] == LINE


# --- a report that cannot be written ----------------------------------------------------------------------


@pytest.mark.parametrize("what", ["missing/report.jsonl", "."])
def test_unusable_report_stops_before_flash(
    what: str, dfu_bin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ESP_DFU_SIMULATE", "esp32s3")
    flashed = []
    monkeypatch.setattr("esp_dfu_ext.operations.flasher.flash_board", lambda *args, **options: flashed.append(args))
    assert run("flash", dfu_bin, "--report", tmp_path / what) == 73
    assert not flashed
    assert "[output]" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content", [b"", b"\n", b'{"for', msgspec.json.format(msgspec.json.encode(LINE), indent=0) + b"\n"]
)
def test_report_of_any_kind_is_continued(content: bytes, tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    report.write_bytes(content)
    with Report(report) as opened:
        opened.append(LINE)
    assert report.read_bytes().endswith(b"\n" + msgspec.json.encode(LINE) + b"\n" if content else b"}\n")


@pytest.mark.parametrize("content", [None, b"hello\n", b"{}\n", b'{"format":1}\n', b"\0" * 20, b"\xff\n"])
def test_other_file_is_not_appended_to(
    content: bytes | None,
    dfu_bin: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ESP_DFU_SIMULATE", "esp32s3")
    file = tmp_path / "file"
    file.write_bytes(dfu_bin.read_bytes() if content is None else content)
    before = file.read_bytes()
    assert run("flash", dfu_bin, "--report", file) == 73
    assert file.read_bytes() == before
    assert "not a report; esp-dfu will not append to it. [output]" in " ".join(capsys.readouterr().err.split())


FOUR = "esp32s3,esp32s3,esp32s3,esp32s3"
FULL = """
import resource, sys
from esp_dfu_ext import cli
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), -1))
cli.main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limit there")
@pytest.mark.parametrize("room", [700, 1200])
def test_full_disk_stops_no_board(dfu_bin: Path, tmp_path: Path, room: int) -> None:
    # Like a full disk, the limit on file size accepts a part of a write and refuses the rest.
    report = tmp_path / "report.jsonl"
    with Report(report) as opened:
        for _ in range(4):
            opened.append(LINE)
    before = report.read_bytes()
    options = ["flash", str(dfu_bin), "--all", "-q", "--report", str(report)]
    done = esp_dfu(len(before) + room, *options, code=FULL, boards=FOUR, cwd=tmp_path)
    assert done.returncode == 73, done.stderr
    assert "cannot be written" in done.stderr
    if room < 1000:
        assert done.stdout == ""  # known before: no board was touched
        assert report.read_bytes() == before
    else:
        assert "4 of 4 boards passed the dry run." in done.stdout
        assert 4 < len(lines(report)) < 4 + 4  # so many fit


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limit there")
def test_line_that_does_not_fit_leaves_file_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = tmp_path / "report.jsonl"
    with Report(report) as opened:
        opened.append(LINE)
        before = report.read_bytes()
        write, room = os.write, [100]

        def full(file: int, data: bytes) -> int:
            if not room[0]:
                raise OSError(28, "No space left on device")
            done = write(file, data[: room[0]])
            room[0] -= done
            return done

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OutputError, match="No space left"):
            opened.append(LINE)
        assert report.read_bytes() == before
        room[0] = 10_000
        opened.append(LINE)
    assert lines(report) == [LINE, LINE]


needs_flock = pytest.mark.skipif(sys.platform == "win32", reason="no lock there")


@needs_flock
def test_locked_file_is_awaited_once(tmp_path: Path) -> None:
    import fcntl

    path, clock = tmp_path / "report.jsonl", VirtualClock()
    with Report(path, clock) as report, path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        for seconds in (LOCK_TIME, 0.0):  # boards are waiting
            started = clock.monotonic()
            with pytest.raises(OutputError, match="locked by another program"):
                report.append(LINE)
            assert clock.monotonic() - started == pytest.approx(seconds, abs=0.1)
        fcntl.flock(other, fcntl.LOCK_UN)
        report.append(LINE)
    assert lines(path) == [LINE]


@needs_flock
def test_without_locks_file_is_never_truncated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    path, write = tmp_path / "report.jsonl", os.write
    theirs = msgspec.json.encode(LINE) + b"\n"

    def interrupted(file: int, data: bytes) -> int:
        with path.open("ab") as other:
            other.write(theirs)
        raise OSError(errno.ENOSPC, "No space left on device")

    with Report(path) as report:
        report.append(LINE)
        monkeypatch.setattr(os, "write", interrupted)
        with pytest.raises(OutputError, match="No space left"):
            report.append(LINE)
        monkeypatch.setattr(os, "write", write)
    with Report(path) as report:
        report.append(LINE)
    assert lines(path) == [LINE, LINE, LINE]


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limit there")
def test_failed_report_still_gives_one_result_line(dfu_bin: Path, tmp_path: Path) -> None:
    options = ["flash", str(dfu_bin), "--all", "--json", "--report", str(tmp_path / "report.jsonl")]
    done = esp_dfu(1200, *options, code=FULL, boards=FOUR)
    said = [json.loads(line) for line in done.stdout.splitlines()]
    events = [line["event"] for line in said]
    assert (events.count("result"), events.count("error"), events[-1]) == (1, 0, "result")
    assert (said[-1]["exit_code"], done.returncode) == (73, 73)
    assert {line["code"] for line in said if line["event"] == "notice"} == {"report"}


def test_line_and_name_of_file_are_on_disk_before_result_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fsync itself cannot be seen from here; that it is called for both, and when, can."""
    report = tmp_path / "report.jsonl"
    synced: list[tuple[int, int]] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        fsync(descriptor)
        state = os.fstat(descriptor)
        synced.append((state.st_ino, state.st_size if state.st_ino == report.stat().st_ino else 0))

    monkeypatch.setattr(os, "fsync", note)
    with Report(report) as opened:
        if sys.platform != "win32":
            assert (tmp_path.stat().st_ino, 0) in synced
        opened.append(LINE)
        assert synced[-1] == (report.stat().st_ino, report.stat().st_size)


def test_time_of_board_begins_with_its_app(dfu_bin: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    clock = VirtualClock()
    with Report(report) as opened:
        recorder = Recorder(opened, load_image(dfu_bin), False, clock)
        for _ in range(2):
            recorder(DeviceFound("1-2", "run-time", "app's", "303a:4001"))
            clock.sleep(3.0)
            recorder(DeviceFound("1-2", "DFU", "aa"))
            clock.sleep(1.0)
            recorder(Failed("1-2", "usb-io", "It broke."))
    assert [(line.serial, line.seconds) for line in lines(report)] == [("aa", 4.0)] * 2


def test_next_board_on_port_has_its_own_line(dfu_bin: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    clock = VirtualClock()
    with Report(report) as opened:
        recorder = Recorder(opened, load_image(dfu_bin), False, clock)
        recorder(DeviceFound("1-2", "run-time", "aa"))
        clock.sleep(3.0)
        recorder(DeviceFound("1-2", "run-time", "bb"))  # "aa" left without a result
        clock.sleep(1.0)
        recorder(Failed("1-2", "usb-io", "It broke."))
        recorder.failed(OutputError("Something else."))  # nothing is left to record
    (line,) = lines(report)
    assert (line.serial, line.seconds, line.error) == ("bb", 1.0, "usb-io")
