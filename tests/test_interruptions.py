"""What the system does to a program: signals, a closed terminal, a full disk, a jumping clock, a second process.

Ctrl-C, SIGTERM and SIGHUP at each place of a flash are rows of the fault matrix; here they come from outside, to a
real process.
"""

from __future__ import annotations

import ast
import errno
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import esp_dfu_ext
from esp_dfu_ext import Flasher
from esp_dfu_ext.commands import flash as flashing
from esp_dfu_ext.commands.flash_run import FlashArguments
from esp_dfu_ext.commands.session import Session
from esp_dfu_ext.doctor.advice import ESP_DFU
from esp_dfu_ext.errors import DeviceBusyError, DeviceNotFoundError, Terminated
from esp_dfu_ext.events import Event, Phase, PhaseStarted, Progress
from esp_dfu_ext.operations.build import build
from esp_dfu_ext.signals import as_interrupts
from esp_dfu_ext.simulator import simulate_text
from esp_dfu_ext.simulator.sample import write_sample_project
from esp_dfu_ext.ui.console import Console

from .kit.archives import checked
from .kit.boards import make_rig
from .kit.chips import chip, chips
from .kit.commands import MAIN, environment, esp_dfu
from .kit.host import DETACH

pytestmark = pytest.mark.usefixtures("default_signals")
OLD_RICH = int(version("rich").split(".")[0]) < 13  # its import asks for the current folder

PACKAGE = Path(esp_dfu_ext.__file__).parent
DEADLINE = 240.0  # seconds; for a process that should take one, on a busy machine

# `esp-dfu flash` with a look at the boards afterwards: state, and whether anybody still holds the interface.
FLASH = """
import json, signal, sys
import esp_dfu_ext.simulator as simulator
from esp_dfu_ext.cli import main
real, seen = simulator.simulate_text, []
simulator.simulate_text = lambda *args: seen.append(real(*args)) or seen[-1]
if sys.argv[1] == "ignored":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
report = sys.argv[2]
sys.argv[1:] = ["flash", *sys.argv[3:]]
try:
    main()
finally:
    boards = [board for simulation in seen for board in simulation.boards]
    with open(report, "w") as file:
        json.dump([[str(board.rom.state), board.holder is None] for board in boards], file)
"""
# Makes the terminal on stdin the controlling one, whose end sends SIGHUP.
IN_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-c", *sys.argv[1:]])
"""


@pytest.fixture
def dfu_bin(tmp_path: Path) -> Path:
    return build(write_sample_project(tmp_path / "my [bold]project[/bold] ž", chip(), app_size=100_000)).path


def read_until(stream: int, words: bytes) -> bytes:
    """What a terminal shows, up to `words`."""
    shown = b""
    deadline = time.monotonic() + DEADLINE
    while words not in shown:
        assert time.monotonic() < deadline, shown
        more = os.read(stream, 4096)
        assert more, f"it ended before: {shown!r}"
        shown += more
    return shown


# --- signals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("boards", ["esp32s3+dfu+slow", "esp32s3+dfu+slow,esp32s3+dfu+slow"])
def test_signal_ends_command_in_order(number: signal.Signals, boards: str, dfu_bin: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    process = subprocess.Popen(
        [sys.executable, "-c", FLASH, "", str(report), str(dfu_bin), *(["--all"] if "," in boards else [])],
        env=environment(boards),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    read_until(process.stdout.fileno(), b"%")
    process.send_signal(number)
    _, err = process.communicate(timeout=DEADLINE)
    errors = [line for line in err.decode().splitlines() if line.startswith("error:")]
    assert process.returncode == 128 + number, err
    assert len(errors) == boards.count("esp32s3")
    for line in errors:
        assert ("Stopped." if number is signal.SIGINT else f"Stopped by {number.name}.") in line
        assert "is in dfuIDLE and ready for another download" in line
    assert "Traceback" not in err.decode()
    assert json.loads(report.read_text()) == [["dfuIDLE", True]] * len(errors)


def test_ignored_and_handled_signals_are_left_alone() -> None:
    def handler(number: int, frame: object) -> None:
        pass

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN), signal.signal(signal.SIGTERM, handler)
    try:
        with as_interrupts():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGHUP, before[0])
        signal.signal(signal.SIGTERM, before[1])
    with pytest.raises(Terminated), as_interrupts():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before[1] is signal.SIG_DFL


def test_other_thread_sets_no_signal_handlers() -> None:
    entered = []

    def enter() -> None:
        with as_interrupts():
            entered.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered == [signal.SIG_DFL]


def test_sigterm_reaches_every_board() -> None:
    simulation = simulate_text("esp32s3+slow,esp32s3+slow", chips())
    started = set()

    def sink(event: Event) -> None:
        if isinstance(event, Progress) and event.done:
            started.add(event.path)
            if len(started) == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    with as_interrupts():
        outcomes = Flasher(bus=simulation.bus, targets=chips(), on_event=sink).flash_all(checked())
    assert [outcome.error and (outcome.error.code, outcome.error.exit_code) for outcome in outcomes] == [
        ("interrupted", 143)
    ] * 2


# --- a closed terminal ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hangup", "code", "state"),
    [("", 129, "dfuIDLE"), ("ignored", 0, "dfuIDLE")],
    ids=["SIGHUP", "nohup"],
)
def test_closed_terminal_leaves_chip_idle_or_flashed(
    hangup: str, code: int, state: str, dfu_bin: Path, tmp_path: Path
) -> None:
    """The bar's thread writes into it all the time: EIO. Without SIGHUP the flash goes on to its end."""
    report = tmp_path / "report.json"
    ours, theirs = os.openpty()
    with (tmp_path / "stderr").open("w+b") as err:
        process = subprocess.Popen(
            [sys.executable, "-c", IN_TERMINAL, FLASH, hangup, str(report), str(dfu_bin)],
            env=environment("esp32s3+dfu+slow"),
            stdin=theirs,
            stdout=theirs,
            stderr=err,
            start_new_session=True,
        )
        os.close(theirs)
        shown = read_until(ours, b"download")
        assert b"\x1b[" in shown  # bars
        os.close(ours)
        assert process.wait(DEADLINE) == code
        err.seek(0)
        said = err.read().decode()
    assert "Traceback" not in said
    assert ("Stopped by SIGHUP" in said) == (code == 129)
    assert json.loads(report.read_text()) == [[state, True]]


def test_closed_stderr_leaves_chip_idle(dfu_bin: Path, tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    report = tmp_path / "report.json"
    process = subprocess.Popen(
        [sys.executable, "-c", IN_TERMINAL, FLASH, "", str(report), str(dfu_bin)],
        env=environment("esp32s3+dfu+slow"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    read_until(ours, b"download")
    os.close(ours)
    assert process.wait(DEADLINE) == 129
    assert json.loads(report.read_text()) == [["dfuIDLE", True]]


# --- disks ------------------------------------------------------------------------------------------------


def rebuild(dfu_bin: Path, *prefix: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return esp_dfu("build", dfu_bin.parent, prefix=prefix, **options)


def assert_refused(done: subprocess.CompletedProcess[str], dfu_bin: Path, before: bytes, words: str) -> None:
    assert (done.returncode, "[output]" in done.stderr, words in done.stderr) == (73, True, True), done.stderr
    assert dfu_bin.read_bytes() == before
    assert [path.name for path in dfu_bin.parent.iterdir() if path.name.endswith(".tmp")] == []


def test_full_disk_keeps_old_image(dfu_bin: Path) -> None:
    """Not a mock: the system refuses the write in the middle of the file."""
    before = dfu_bin.read_bytes()

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    done = rebuild(dfu_bin, preexec_fn=limit)
    assert_refused(done, dfu_bin, before, os.strerror(errno.EFBIG))


def test_read_only_build_folder_keeps_old_image(dfu_bin: Path) -> None:
    before = dfu_bin.read_bytes()
    no_override = "-dac_override,-dac_read_search"
    # Root may write everywhere, until somebody takes that from it.
    ordinary = ["setpriv", f"--bounding-set={no_override}", f"--inh-caps={no_override}"] if os.geteuid() == 0 else []
    dfu_bin.parent.chmod(0o555)
    try:
        done = rebuild(dfu_bin, *ordinary)
    finally:
        dfu_bin.parent.chmod(0o755)
    assert_refused(done, dfu_bin, before, os.strerror(errno.EACCES))


# --- memory, folders and imports --------------------------------------------------------------------------


def test_memory_error_is_shown(dfu_bin: Path) -> None:
    """Not a mock: the system refuses the memory for the image."""
    code = """
import resource
import esp_dfu_ext.commands.inspect
limit = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + (16 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
"""
    big = dfu_bin.with_name("big.bin")
    with big.open("wb") as file:
        file.truncate(64 << 20)
    done = esp_dfu("inspect", big, code=code + MAIN)
    assert (done.stderr, done.returncode) == ("error: There is not enough memory. [error]\n", 1)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["list"], 0),
        (["inspect", "{dfu_bin}"], OLD_RICH),
        (["build", "{build}"], 1),
        (["flash", "x"], 66),
        (["doctor"], 1),
    ],
)
def test_deleted_current_folder_has_no_traceback(words: list[str], code: int, dfu_bin: Path, tmp_path: Path) -> None:
    words = [word.format(dfu_bin=dfu_bin, build=dfu_bin.parent) for word in words]
    remove = (
        "import os, sys; sys.path[:] = filter(None, sys.path); os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')"
    )
    done = esp_dfu(*words, boards="esp32s3", code=remove + MAIN, cwd=tmp_path, env={"PYTHONSAFEPATH": "1"})
    assert "Traceback" not in done.stderr
    assert done.returncode == code
    if words[0] in ("build", "inspect"):
        assert done.stderr == "error: The current folder does not exist. [error]\n" * code


INTERRUPTED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "click":
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Finder())
from esp_dfu_ext.__main__ import main; main()
"""


def test_ctrl_c_during_imports_has_no_traceback() -> None:
    done = esp_dfu("list", code=INTERRUPTED)
    assert (done.stderr, done.returncode) == ("", 130)


# --- time -------------------------------------------------------------------------------------------------


def test_jumping_wall_clock_changes_nothing(dfu_bin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jumps = iter(range(10_000_000))
    monkeypatch.setattr(time, "time", lambda: (-1) ** next(jumps) * 1e9 + 2e9)
    monkeypatch.setattr(time, "time_ns", lambda: int(time.time() * 1e9))
    monkeypatch.setenv("ESP_DFU_SIMULATE", "esp32s3")
    session = Session(Console(), ESP_DFU)
    started = time.monotonic()
    assert session.run(lambda session: flashing.flash(session, dfu_bin, FlashArguments(wait=30))) == 0
    assert time.monotonic() - started < 20
    assert next(jumps) >= 0


def test_package_does_not_use_wall_clock() -> None:
    asked = []
    # A report and a trace say when something happened; durations come from the monotonic clock.
    for path in (path for path in PACKAGE.rglob("*.py") if path.name not in ("record.py", "trace.py", "trace_file.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
            if name in ("time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.datetime.now"):
                asked.append(f"{path.name}:{getattr(node, 'lineno', 0)}")
            if isinstance(node, ast.ImportFrom) and node.module in ("time", "datetime"):
                asked.append(f"{path.name}:{node.lineno}")
    assert asked == []


# --- a second process --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", [Phase.DOWNLOAD, Phase.VERIFY])
def test_second_process_is_refused_and_first_continues(when: Phase) -> None:
    rig = make_rig()
    refused = []

    def try_too(event: Event) -> None:
        middle = isinstance(event, Progress) and event.name == "app.bin" and event.done > 3000
        begins = isinstance(event, PhaseStarted) and event.phase is when
        if not (middle if when is Phase.DOWNLOAD else begins):
            return
        rig.on_event = None
        before = rig.board.blocks, rig.board.rom.state
        with pytest.raises(DeviceBusyError):
            rig.flash()
        assert (rig.board.blocks, rig.board.rom.state) == before
        refused.append(event)

    rig.on_event = try_too
    rig.flash()
    rig.assert_flashed()
    assert len(refused) == 1
    assert rig.handles == 0


def test_second_process_is_refused_during_reenumeration() -> None:
    rig = make_rig()
    sleep = rig.clock.sleep
    refused = []

    def try_too(seconds: float) -> None:
        rig.clock.sleep = sleep  # type: ignore[method-assign]
        sleep(seconds)
        with pytest.raises(DeviceNotFoundError):
            rig.flash()
        refused.append(seconds)

    rig.clock.sleep = try_too  # type: ignore[method-assign]
    rig.flash()
    rig.assert_flashed()
    assert len(refused) == 1
    assert len(rig.dfu(DETACH)) == 1
