"""`esp-dfu flash` is never silent, stuck or wrong in any cell of the fault matrix."""

from __future__ import annotations

import re
import signal
import threading
from pathlib import Path

import pytest

from esp_dfu_ext.commands import flash as flashing
from esp_dfu_ext.commands.flash_run import FlashArguments
from esp_dfu_ext.commands.host import Host
from esp_dfu_ext.commands.session import Session
from esp_dfu_ext.dfu.spec import Mode, State, Status
from esp_dfu_ext.doctor.advice import ESP_DFU
from esp_dfu_ext.operations.restart import BUS_RESET, NO_RESET
from esp_dfu_ext.ui.console import Console

from .conftest import MATRIX
from .fault_matrix import BLOCKS, FILES, FIRST_FILE, IMAGE, OLD, PLACES, Cell, cells, new_cell
from .kit.archives import CHIP_SIZE, dfu_file
from .kit.boards import Rig, assert_flashed, holds
from .kit.chips import chip
from .kit.host import DNLOAD

pytestmark = pytest.mark.usefixtures("default_signals")

# As in docs/errors.md.
EXIT_CODES = {
    "device-busy": 75, "no-permission": 77, "device-gone": 74, "no-return": 74, "no-dfu-mode": 74,
    "dfu-silent": 74,
    "usb-timeout": 74, "usb-stall": 74, "dfu-status": 74, "dfu-state": 74, "dfu-answer": 74,
}  # fmt: skip
MESSAGES = {
    "dfu-silent": "DFU no longer answers after the SYNC",
    "device-busy": "another program holds the device",
    "no-permission": "no permission to open the device",
    "device-gone": "the device left the bus",
    "no-return": "did not come back in DFU mode within 15 s",
    "no-dfu-mode": "did not come back in DFU mode within 15 s",
    "usb-timeout": "no answer",
    "usb-stall": "the device refused the",
    "dfu-status": "the device reported err",
    "dfu-state": "state dfu",
    "dfu-answer": "The answer to DFU_GETSTATUS is malformed",
}
RETURN_TIMEOUT = 15.0
REQUESTS = 6 * BLOCKS + 60  # one attempt, and two with a status check after every block


@pytest.fixture(scope="session")
def dfu_bin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("matrix") / "dfu.bin"
    path.write_bytes(dfu_file(bytes(IMAGE.stream)))
    return path


class Run:
    """One run of `esp-dfu flash` on a rig, and its result."""

    def __init__(
        self,
        rig: Rig,
        dfu_bin: Path,
        capsys: pytest.CaptureFixture[str],
        *,
        strict: bool = False,
        reset: bool = False,
    ) -> None:
        started, requests, threads = rig.clock.monotonic(), len(rig.log), set(threading.enumerate())
        session = Session(Console(), ESP_DFU, host=Host(rig.clock))
        options = FlashArguments(strict=strict, after=BUS_RESET if reset else NO_RESET)
        self.code = session.run(lambda session: flashing.flash(session, dfu_bin, options))
        self.out, self.err = capsys.readouterr()
        self.text = self.out + self.err
        self.seconds = rig.clock.monotonic() - started
        self.requests = len(rig.log) - requests
        assert set(threading.enumerate()) == threads
        assert rig.handles == 0
        assert "Traceback" not in self.text
        assert all("1-1" in line for line in self.err.splitlines() if "restarting" in line)

    @property
    def kind(self) -> str:
        """The result as a cell has it: the last word of the error code, or ok with the number of restarts."""
        restarts = self.err.count("restarting")
        suffix = f"+{restarts}" if restarts else ""
        codes = re.findall(r"\[([a-z-]+)\]$", self.err, re.MULTILINE)
        if self.code == 0:
            assert codes == []
            return f"ok{suffix}"
        (code,) = codes
        if code == "interrupted":
            return "stopped"
        assert self.code == EXIT_CODES[code]
        assert MESSAGES[code] in self.err
        assert "\n  > " in self.err, "no advice"
        return (str(code) if code == "no-return" else str(code).rpartition("-")[2]) + suffix


def holds_image(rig: Rig) -> bool:
    return holds(rig.boards[0].rom.flash.read, FILES)


# True wherever they are printed, but no cell prints them.
NOT_PRINTED = {"can no longer be reached", "Still the same device", "came back in run-time mode"}
printed: dict[str, bool] = {}  # the sentences of `assert_true`, and whether a cell has printed them


def assert_true(run: Run, cell: Cell) -> None:
    """Assert that every sentence printed is true."""
    board, text = cell.rig.boards[0], run.text
    data = [t for t in cell.rig.dfu(DNLOAD) if t.data]
    here = [device for device in cell.rig.bus.scan() if device.path == "1-1"]
    old_device = [device for device in here if device.address == cell.first_address]
    truths = {
        "Nothing was written": board.rom.flash.read(0, CHIP_SIZE) == OLD,
        "The image in flash memory may be incomplete": any(t.value >= FIRST_FILE for t in data),
        "The whole image was sent": any(t.value == BLOCKS - 1 for t in data),
        "is in dfuIDLE and ready for another download": board.present
        and (board.rom.state, board.rom.status) == (State.dfuIDLE, Status.OK),
        "no longer answers": cell.dead,
        "can no longer be reached": not old_device,
        "refuses to return to dfuIDLE": cell.lasting and not cell.dead,
        "the device left the bus": not old_device,
        "Nothing is on port 1-1 now": not here,
        "no device is on its port now": not here,
        "A new device is on port 1-1 now": bool(here) and not old_device,
        "Still the same device": bool(old_device),
        "The chip reported OK in state dfuIDLE": holds_image(cell.rig),
        "never left the bus": bool(old_device) and board.rom.mode is Mode.RUN_TIME,
        "did not answer the request": cell.dead,
        "came back in run-time mode": bool(here) and not old_device and board.rom.mode is Mode.RUN_TIME,
        "303a:0002": cell.rig.boards[1].present,
        "on port 1-2": board.path == "1-2",
        "before anything was written": board.rom.flash.read(0, CHIP_SIZE) == OLD,
        "nothing was written": board.rom.flash.read(0, CHIP_SIZE) == OLD,
        "after the flash": holds_image(cell.rig),
    }
    for words, truth in truths.items():
        assert truth or words not in text, f"{words!r} is not true"
        printed[words] = printed.get(words, False) or words in text
    assert (run.code == 0) == ("The chip reported OK in state dfuIDLE" in run.out)
    if run.code:
        written = ("Nothing was written", "The image in flash memory may be incomplete", "The whole image was sent")
        # Every failure in DFU mode says what is in the flash memory now.
        assert any(words in text for words in (*written, "after the flash")) or not data
        if cell.place.name in ("first", "middle", "last", "zero", "final"):
            ended = any(not t.data for t in cell.rig.dfu(DNLOAD))
            assert written[2 if ended else 1] in text
        for words in cell.says:
            assert words in run.err


def deadline(cell: Cell, kind: str) -> float:
    """Return the seconds within which a cell must end: the longest wait at its place, and a margin."""
    limits = chip().dfu
    patience = {"first": limits.erase_timeout, "params": limits.erase_timeout, "zero": limits.verify_timeout + 0.1}
    wait = max(patience.get(cell.place.name, 5.0), 5.0)
    again = 2 * 5.0 + 0.5 if kind in ("timeout", "silent") else 0.0  # two more requests, and a scan of the bus
    away = RETURN_TIMEOUT + 0.2 if kind in ("no-return", "mode") or cell.place.name in ("detach", "wait") else 0.0
    return wait + again + away + 3.0


def second_run(cell: Cell, first: Run, dfu_bin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run the command again as a user would, after replugging a board that is gone or whose fault persists."""
    board, other = cell.rig.boards
    if cell.lasting or not board.present:
        other.unplug()
        board.unplug()
        board.faults.planned.clear()
        board.faults.no_access = False
        cell.rig.clock.sleep(1.0)
        board.plug()
    again = Run(cell.rig, dfu_bin, capsys)
    assert (again.code, again.kind, again.err) == (0, "ok", "")
    assert holds_image(cell.rig)
    assert board.holder is None
    assert_flashed(board.rom.flash.read, IMAGE)


@pytest.mark.parametrize(
    ("fault", "place", "strict", "expected"),
    cells(),
    ids=[f"{fault}-{place}{'-strict' if strict else ''}" for fault, place, strict, _ in cells()],
)
def test_cell_ends_as_expected(
    fault: str,
    place: str,
    strict: bool,
    expected: str,
    dfu_bin: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    cell = new_cell(PLACES[place])
    cell.set_up(fault)
    monkeypatch.setattr("esp_dfu_ext.usb.bus.libusb_backend", cell.rig.backend)
    run = Run(cell.rig, dfu_bin, capsys, strict=strict, reset=place == "reset")
    request.config.stash[MATRIX][fault, place, strict] = run.kind
    assert run.kind == expected
    assert run.seconds <= deadline(cell, run.kind)
    assert run.requests <= REQUESTS
    assert fault == "held" or cell.rig.boards[0].holder is None
    assert_true(run, cell)
    assert cell.struck, "the fault never struck"
    if run.kind == "stopped":
        assert run.code == 128 + signal.Signals[fault]
        assert len([line for line in run.err.splitlines() if not line.startswith("  ")]) == 1
        assert place == "reset" or cell.rig.boards[0].rom.state in (State.appIDLE, State.appDETACH, State.dfuIDLE)
        assert (place in ("open", "detach", "wait", "reset")) == ("ready for another download" not in run.err)
    second_run(cell, run, dfu_bin, capsys)


def test_every_sentence_is_printed_in_some_cell(request: pytest.FixtureRequest) -> None:
    if len(request.config.stash[MATRIX]) < len(cells()):
        pytest.skip("needs all cells")
    missing = {words for words, found in printed.items() if not found}
    assert missing == NOT_PRINTED, sorted(missing)
