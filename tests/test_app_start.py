"""After a flash the app is started, and what is said of it is what the bus showed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from esp_dfu_ext import Flasher, FlashOptions
from esp_dfu_ext.clock import VirtualClock
from esp_dfu_ext.dfu import discovery
from esp_dfu_ext.dfu.spec import Mode
from esp_dfu_ext.errors import InterruptedByUserError, SerialLoaderError
from esp_dfu_ext.events import BoardIdentified, Event, Flashed, Phase, PhaseFinished, PhaseStarted
from esp_dfu_ext.loader.rom_loader import Identity, RomLoader
from esp_dfu_ext.loader.watchdog import restart_writes
from esp_dfu_ext.operations import board_port
from esp_dfu_ext.operations.board_port import RETURN_TIME, BoardPort
from esp_dfu_ext.operations.list import list_devices
from esp_dfu_ext.operations.reset import reset_board
from esp_dfu_ext.operations.restart import what_came_back
from esp_dfu_ext.simulator import Board
from esp_dfu_ext.simulator.apps import ConsoleApp, DfuApp
from esp_dfu_ext.simulator.board import Moment, stall, vanish
from esp_dfu_ext.usb.bus import Bus, UsbDevice

from .kit.archives import checked
from .kit.boards import Rig, make_rig, serial_jtag
from .kit.chips import NAMES, chip, chips
from .kit.commands import run
from .kit.esptool_chips import KNOWN
from .kit.files import edit_json
from .kit.host import DETACH

HARD, WATCHDOG, BUS = "hard-reset", "watchdog-reset", "bus-reset"


def booting_rig(*names: str, mode: Mode = Mode.RUN_TIME) -> Rig:
    """Boards whose BOOT has been released, so that a reset starts an app without USB."""
    rig = make_rig(*names, mode=mode)
    for board in rig.boards:
        board.boots_app = True
    return rig


def later(board: Board) -> object:
    board.clock.sleep(5)
    board.update()
    return board.device if board.present else None


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("mode", list(Mode), ids=str)
def test_watchdog_starts_app_of_every_chip(name: str, mode: Mode) -> None:
    rig = booting_rig(name, mode=mode)
    result = rig.flash(after=HARD)
    assert (result.reset_by, result.came_back, result.after_reset) == ("watchdog", "nothing", "nothing")
    assert rig.resets == []
    assert not rig.board.present
    assert rig.phases()[-1] == "reset"
    rig.assert_flashed()
    flashed = [event for event in rig.events if isinstance(event, Flashed)]
    assert [(event.reset_by, event.came_back) for event in flashed] == [("watchdog", "nothing")]


@pytest.mark.parametrize("name", KNOWN)
def test_app_that_handed_over_is_started_again(name: str) -> None:
    """It had set FORCE_DOWNLOAD_BOOT, which takes every other reset back to download mode."""
    rig = booting_rig(name)
    rig.board.start_app(DfuApp(0xCAFE, 0x4000, "1234"))
    rig.board.control(0x21, DETACH, 700, b"", 0)
    rig.clock.sleep(1)
    result = rig.flash(after=HARD)
    assert (result.reset_by, result.came_back) == ("watchdog", "app")
    assert result.after_reset is not None
    assert "cafe:4000" in result.after_reset
    assert rig.board.device is rig.board.app
    assert not rig.board.rom.force_download


def test_wait_ends_as_soon_as_the_app_is_there() -> None:
    rig = booting_rig()
    rig.board.start_app(DfuApp(0xCAFE, 0x4000, "1234"))
    rig.board.control(0x21, DETACH, 700, b"", 0)
    rig.clock.sleep(1)
    assert rig.flash(after=HARD).came_back == "app"
    (reset,) = [event for event in rig.events if isinstance(event, PhaseFinished) and event.phase is Phase.RESET]
    assert reset.seconds < RETURN_TIME


def test_bus_reset_leaves_board_that_was_handed_over_in_download_mode() -> None:
    rig = booting_rig()
    rig.board.start_app(DfuApp(0xCAFE, 0x4000, "1234"))
    rig.board.control(0x21, DETACH, 700, b"", 0)
    rig.clock.sleep(1)
    result = rig.flash(after=HARD, no_loader=True)
    assert (result.reset_by, result.came_back) == (BUS, "rom")
    assert rig.resets == ["1-1"]


def test_boot_held_down_is_seen_as_download_mode() -> None:
    rig = booting_rig("esp32p4")
    rig.board.boot_low = True
    result = rig.flash(after=HARD)
    assert (result.reset_by, result.came_back) == ("watchdog", "rom")


def test_nobody_resets_with_no_reset() -> None:
    rig = booting_rig()
    result = rig.flash(after="no-reset")
    assert (result.reset_by, result.came_back, result.after_reset) == (None, None, None)
    assert later(rig.board) is rig.board.rom
    assert rig.resets == []


@pytest.mark.parametrize("name", KNOWN)
def test_loader_is_asked_once_before_the_download(name: str) -> None:
    rig = booting_rig(name)
    at: list[str] = []

    def note(board: Board, answer: Callable[[], bytes]) -> bytes:
        at.append(rig.phases()[-1])
        return answer()

    rig.board.faults.plan(note, at=Moment.SERIAL_OUT)
    result = rig.flash(after=HARD)
    assert at == ["detach"]
    assert result.mac == "7c:df:a1:00:00:01"
    assert len([event for event in rig.events if isinstance(event, BoardIdentified)]) == 1


@pytest.mark.parametrize(("after", "expected"), [(HARD, (BUS, "nothing")), (WATCHDOG, ("watchdog", "same"))])
def test_watchdog_without_effect(monkeypatch: pytest.MonkeyPatch, after: str, expected: tuple[str, str]) -> None:
    monkeypatch.setattr(RomLoader, "restart", lambda self: None)
    rig = booting_rig()
    result = rig.flash(after=after)
    assert (result.reset_by, result.came_back) == expected


@pytest.mark.parametrize("name", ["esp32s2", "esp32s3"])
def test_only_watchdog_was_allowed_and_loader_is_silent(name: str) -> None:
    rig = booting_rig(name)
    for _ in range(20):
        rig.board.faults.plan(lambda board, answer: b"", at=Moment.SERIAL_OUT)
    result = rig.flash(after=WATCHDOG)
    assert (result.reset_by, result.came_back) == (None, None)
    assert rig.notices()[-1] == "no-restart"
    assert later(rig.board) is rig.board.rom
    rig.assert_flashed()


@pytest.mark.parametrize("moment", [Moment.SERIAL_OUT, Moment.SERIAL_IN, Moment.RESET])
def test_cable_pulled_before_the_start_is_no_failed_flash(moment: Moment) -> None:
    rig = booting_rig()

    def pull(event: Event) -> None:
        if isinstance(event, PhaseStarted) and event.phase is Phase.RESET:
            if moment is Moment.RESET:
                rig.board.faults.plan(stall, at=Moment.SERIAL_OUT)
            rig.board.faults.plan(vanish, at=moment)

    rig.on_event = pull
    result = rig.flash(after=HARD)
    assert result.came_back == "nothing"
    rig.assert_flashed()


@pytest.fixture
def slow_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that notices everything three seconds late, as one that sets up many other devices meanwhile."""
    seen: dict[str, list[tuple[float, UsbDevice | None]]] = {}
    now = discovery.device_at

    def late(bus: Bus, path: str) -> UsbDevice | None:
        history, time = seen.setdefault(path, []), clock.monotonic()
        history.append((time, now(bus, path)))
        return [device for at, device in history if at <= max(time - 3.0, history[0][0])][-1]

    clock = VirtualClock()
    monkeypatch.setattr("tests.kit.boards.VirtualClock", lambda: clock)
    monkeypatch.setattr(board_port, "device_at", late)


def handed_over_rig(*names: str) -> Rig:
    """Boards that their apps have sent into download mode."""
    rig = booting_rig(*names)
    for board in rig.boards:
        board.start_app(DfuApp(0xCAFE, 0x4000, "1234"))
        board.control(0x21, DETACH, 700, b"", 0)
    rig.clock.sleep(1)
    return rig


def test_restart_is_the_watchdogs_on_a_slow_hub(slow_hub: None) -> None:
    """The chip itself shows it: it no longer answers."""
    rig = handed_over_rig("esp32s3")
    result = rig.flash(after=HARD)
    assert (result.reset_by, rig.resets) == ("watchdog", [])


@pytest.mark.parametrize(("others", "expected"), [(0, "nothing"), (3, "app")])
def test_many_boards_on_one_hub_take_longer_to_return(slow_hub: None, others: int, expected: str) -> None:
    rig = handed_over_rig("esp32s3")
    (listed,) = list_devices(rig.bus, chips())
    port = BoardPort(rig.bus, listed.device, chips(), rig.clock, others=others)
    rig.board.reset(rtc=True)
    assert what_came_back(port, rig.board.target, "watchdog").came_back == expected


def test_loader_that_did_not_tell_who_it_is_restarts_the_chip(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: RomLoader, timeout: float = 0.0) -> Identity:
        raise SerialLoaderError("Port 1-1: no answer in time.", reason="connect")

    monkeypatch.setattr(RomLoader, "identity", fail)
    rig = handed_over_rig("esp32s3")
    result = rig.flash(after=HARD)
    assert (result.mac, result.reset_by, result.came_back) == (None, "watchdog", "app")
    rig = handed_over_rig("esp32s3")
    (listed,) = list_devices(rig.bus, chips())
    assert reset_board(listed, rig.bus, chips(), rig.clock).by == "watchdog"


@pytest.mark.parametrize("answer", [b"", b"\x55\xc0\x01", b"\xc0\x01\x0a\x04"], ids=["none", "garbage", "half"])
def test_restart_does_not_wait_for_answers_that_are_spoilt(answer: bytes) -> None:
    rig = handed_over_rig("esp32s3")

    def spoil(event: Event) -> None:
        if isinstance(event, PhaseStarted) and event.phase is Phase.RESET:
            rig.board.faults.plan(lambda board, right: right()[:0] + answer, at=Moment.SERIAL_IN)

    rig.on_event = spoil
    result = rig.flash(after=HARD)
    assert (result.reset_by, result.came_back, rig.resets) == ("watchdog", "app", [])


def test_ctrl_c_while_app_starts_keeps_the_results_of_several_boards() -> None:
    rig = booting_rig("esp32s3", "esp32s3")

    def interrupt(event: Event) -> None:
        if isinstance(event, PhaseStarted) and event.phase is Phase.RESET:
            raise KeyboardInterrupt

    rig.on_event = interrupt
    options = FlashOptions(after=HARD)
    flasher = Flasher(options, bus=rig.bus, targets=chips(), clock=rig.clock, on_event=rig.handle)
    outcomes = flasher.flash_all(checked())
    assert [outcome.error for outcome in outcomes] == [None, None]
    rig = booting_rig()
    rig.on_event = interrupt
    with pytest.raises(InterruptedByUserError, match="after the flash"):
        rig.flash(after=HARD)


@pytest.mark.parametrize("name", ["esp32s2", "esp32s3"])
def test_console_of_the_app_is_not_a_new_board(name: str) -> None:
    rig = booting_rig(name)
    rig.board.app = ConsoleApp(rig.board.rom)
    done: list[str | None] = []

    def stop(event: Event) -> None:
        if isinstance(event, Flashed):
            done.append(event.came_back)

    class Stop:
        def is_set(self) -> bool:
            return rig.clock.monotonic() > 200

    flasher = Flasher(FlashOptions(), bus=rig.bus, targets=chips(), clock=rig.clock, on_event=stop)
    result = flasher.watch(checked(target=chip(name)), stop=Stop())  # type: ignore[arg-type]
    assert (result.passed, result.failed, done) == (1, 0, ["rom"])
    assert later(rig.board) is rig.board.app


# --- the command line -------------------------------------------------------------------------------------


class Shell:
    """Runs esp-dfu on simulated boards, in this process and on a virtual clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys
        self.code = 0
        self.out = self.err = ""

    def __call__(self, *words: object, boards: str) -> str:
        self._monkeypatch.setenv("ESP_DFU_SIMULATE", boards or "303a:1001")
        self.code = run(*words)
        self.out, self.err = self._capsys.readouterr()
        return self.out + self.err


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], virtual_clock: None) -> Shell:
    return Shell(monkeypatch, capsys)


@pytest.mark.parametrize(
    ("words", "boards", "expected"),
    [
        ((), "esp32s3", "Nothing is on port 1-1 after the reset"),
        (("--reset",), "esp32s3", "Nothing is on port 1-1 after the reset"),
        (("--after", "hard_reset"), "esp32s3", "Nothing is on port 1-1 after the reset"),
        (("--after", "watchdog-reset"), "esp32s3", "Nothing is on port 1-1 after the reset"),
        (("--after", "no-reset"), "esp32s3", "The chip stays in download mode."),
        ((), "esp32s3+held", "If that is not the console of your app but download mode, BOOT may be held down (GPIO0"),
        (("--no-loader",), "esp32s3+held", "a bus reset may keep it there"),
    ],
)
def test_what_is_said(shell: Shell, sample_project: Path, words: tuple[str, ...], boards: str, expected: str) -> None:
    assert expected in shell("flash", sample_project / "build" / "dfu.bin", *words, boards=boards)
    assert shell.code == 0
    assert ("--reset is now the default" in shell.out) == ("--reset" in words)


@pytest.mark.parametrize(
    ("setting", "words", "expected"),
    [
        ("no_reset", (), None),
        ("no-reset-stub", (), None),
        ("hard_reset", (), "watchdog"),
        ("watchdog-reset", (), "watchdog"),
        ("soft_reset", (), "watchdog"),
        (7, (), "watchdog"),
        ("no_reset", ("--after", "hard-reset"), "watchdog"),
        ("hard_reset", ("--after", "no-reset"), None),
    ],
)
@pytest.mark.parametrize("what", ["build/dfu.bin", "build"])
def test_project_says_how_the_app_starts(
    shell: Shell, sample_project: Path, setting: Any, words: tuple[str, ...], expected: str | None, what: str
) -> None:
    args = sample_project / "build" / "flasher_args.json"
    edit_json(args, extra_esptool_args={"after": setting, "before": "default_reset", "stub": True})
    shell("flash", sample_project / what, "--json", *words, boards="esp32s3")
    (board,) = json.loads(shell.out.splitlines()[-1])["boards"]
    assert board["reset_by"] == expected


def test_contradicting_resets_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (("--reset", "--after", "no-reset"), ("--no-loader", "--after", "watchdog-reset"), ("--after", "x")):
        assert run("flash", "dfu.bin", *words) == 64
    assert "is not a reset" in capsys.readouterr().err


# --- esp-dfu reset ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("mode", ["", "+dfu"])
def test_reset_starts_app(shell: Shell, name: str, mode: str) -> None:
    shell("reset", boards=f"{name}{mode}")
    assert (shell.code, shell.err) == (0, "")
    assert f"Restarted the {chip(name).chip} on port 1-1 by its watchdog." in shell.out
    assert "Nothing is on port 1-1" in shell.out


@pytest.mark.parametrize(
    ("boards", "words", "code", "text"),
    [
        ("esp32s3,esp32p4", (), 64, "Found 2 boards: 1-1, 1-2. [several-devices]"),
        ("esp32s3,esp32p4", ("--path", "1-2"), 0, "Restarted the ESP32-P4"),
        ("esp32s3,esp32p4", ("--serial", "7C:DF:A1:00:00:01"), 0, "Restarted the ESP32-S3"),
        ("esp32s3", ("--serial", "x"), 69, "[other-serial]"),
        ("esp32s3", ("--path", "1-7"), 69, "[other-path]"),
        ("303a:1001", (), 69, "[no-device]"),
        ("esp32s3", ("--path", "x"), 64, "is not a port path"),
        ("esp32s3", ("--path", "1-1", "--serial", "x"), 64, "use only one"),
        ("esp32s3", ("--after", "no-reset"), 64, "resets nothing"),
        ("esp32s3+busy", (), 75, "[device-busy]"),
        ("esp32s3+no-access", (), 77, "[no-permission]"),
        ("esp32s3+app", (), 74, "The chip was not restarted. [serial-loader]"),
        ("esp32p4+held", (), 0, "In download mode, BOOT may be held down"),
    ],
)
def test_reset_of_other_boards(shell: Shell, boards: str, words: tuple[str, ...], code: int, text: str) -> None:
    assert text in shell("reset", *words, boards=boards)
    assert shell.code == code


def test_device_of_app_is_named() -> None:
    rig = booting_rig()

    def app(event: Event) -> None:
        if isinstance(event, PhaseStarted) and event.phase is Phase.RESET:
            rig.others = (serial_jtag("1-1"),)

    rig.on_event = app
    result = rig.flash(after=HARD)
    assert result.came_back == "app"
    assert result.after_reset is not None
    assert "303a:1001" in result.after_reset


@pytest.mark.parametrize("name", NAMES)
def test_restart_clears_request_for_download_mode_first(name: str) -> None:
    """The simulated watchdog clears it, too; that the real one does is not known."""
    data = chip(name).serial_loader
    assert data is not None
    first, *others = restart_writes(data)
    assert first == (data.force_download_boot.address, 0, data.force_download_boot.mask)
    assert [address for address, _, _ in others] == [
        data.watchdog.write_protect, data.watchdog.timeout, data.watchdog.config, data.watchdog.write_protect,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("boards", "expected"),
    [
        ("esp32s3,esp32s3", "PASS\n"),
        ("esp32s3+held,esp32s3", "PASS; in download mode or console of the app"),
    ],
)
def test_verdict_of_several_boards(shell: Shell, sample_project: Path, boards: str, expected: str) -> None:
    assert expected in shell("flash", sample_project / "build" / "dfu.bin", "--all", boards=boards)
    assert shell.code == 0
