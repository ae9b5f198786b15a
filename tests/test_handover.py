"""From a running app to the next one: DFU_DETACH, the ROM, the flash, the app; and apps that do not hand over."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from esp_dfu_ext import Flasher, FlashOptions, build
from esp_dfu_ext.dfu.discovery import Selector, find_boards, select
from esp_dfu_ext.dfu.spec import FunctionalDescriptor, Mode, Request
from esp_dfu_ext.errors import (
    AccessDeniedError,
    AppRunningError,
    DeviceGoneError,
    DeviceNotFoundError,
    FlashTooSmallError,
    InterruptedByUserError,
    NoHandoverError,
    OtherBoardError,
    OtherChipError,
    OtherMacError,
    OtherSerialError,
    SeveralDevicesError,
)
from esp_dfu_ext.events import AlreadyFlashed, DeviceFound, Event, Phase, PhaseStarted
from esp_dfu_ext.operations.restart import HARD_RESET
from esp_dfu_ext.operations.results import FlashOutcome, WatchResult
from esp_dfu_ext.simulator import Board
from esp_dfu_ext.simulator.apps import App, ConsoleApp, DfuApp, Restart, TouchApp
from esp_dfu_ext.simulator.board import Fault, Moment, stall, vanish
from esp_dfu_ext.simulator.sample import write_sample_project

from .kit.archives import CHIP_SIZE, File, checked, image_of
from .kit.boards import Rig, app_with_dfu, make_rig, serial_jtag
from .kit.chips import chip, chips
from .kit.clocks import SharedClock
from .kit.commands import run
from .kit.esptool_chips import KNOWN
from .kit.host import DETACH, DNLOAD

APP = (0x303A, 0x4001)
FOREIGN = (0xCAFE, 0x4000)
MAC = "7c:df:a1:00:00:01"


def app_rig(*names: str, ids: tuple[int, int] = APP, serial: str = "1234", mode: Mode = Mode.RUN_TIME) -> Rig:
    """Boards that run an app with a DFU run-time interface."""
    rig = make_rig(*names)
    for board in rig.boards:
        board.start_app(DfuApp(*ids, serial, mode))
    return rig


class DeafApp(DfuApp):
    """Takes DFU_DETACH and does nothing."""

    def _detach(self) -> None:
        pass


class RestartingApp(DfuApp):
    """Restarts upon DFU_DETACH without a request for download mode."""

    def _detach(self) -> None:
        self.restart = Restart(download=False)


# --- what a flash does ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("mode", list(Mode), ids=str)
def test_from_app_to_app(name: str, mode: Mode) -> None:
    rig = app_rig(name, mode=mode)
    result = rig.flash(after=HARD_RESET)
    rig.assert_flashed()
    assert rig.board.device is rig.board.app
    assert not rig.board.rom.force_download
    assert (result.reset_by, result.came_back) == ("watchdog", "app")
    assert result.serial == rig.board.rom.serial
    app, rom = [event for event in rig.events if isinstance(event, DeviceFound)]
    assert app == DeviceFound("1-1", "run-time", "1234", "303a:4001")
    assert rom == DeviceFound("1-1", "DFU" if mode is Mode.DFU else "run-time", rig.board.rom.serial)
    assert rig.phases()[0] == "detach"
    assert len(rig.dfu(DETACH)) == (1 if mode is Mode.DFU else 2)


def test_rom_in_run_time_mode_is_detached_at_once() -> None:
    rig = app_rig("esp32p4")
    rig.flash()
    first, second = [transfer.when for transfer in rig.dfu(DETACH)]
    assert second - first < 1.0
    assert rig.notices() == []


def test_console_app_is_no_app_here() -> None:
    """It has the IDs and the serial number of the ROM, so it is a board in run-time mode."""
    rig = make_rig("esp32s2")
    rig.board.start_app(ConsoleApp(rig.board.rom))
    rig.flash()
    (found,) = [event for event in rig.events if isinstance(event, DeviceFound)]
    assert found.app is None


def test_serial_number_holds_between_two_devices_of_the_rom() -> None:
    rig = app_rig("esp32s3", "esp32s3")
    one, other = rig.boards
    other.plug()
    rig.clock.sleep(1)
    seen: list[int] = []

    def before(transfer: Any) -> None:
        if transfer.is_dfu and transfer.request == DETACH:
            seen.append(1)
            if len(seen) == 2:  # the ROM's DETACH: somebody changes the cables now
                one.path, other.path = other.path, one.path

    rig.before = before
    with pytest.raises(OtherBoardError, match=f"but it was {MAC} before"):
        rig.flash(path="1-1")
    assert rig.dfu(DNLOAD) == []


@pytest.mark.parametrize("options", [{}, {"path": "1-1"}, {"serial": "1234"}])
def test_flash_of_board_with_rom_does_not_touch_apps(options: dict[str, Any]) -> None:
    rig = app_rig("esp32s3", "esp32s3")
    rig.boards[0].plug()
    rig.boards[0].rom.serial = "1234"
    rig.clock.sleep(1)
    if "serial" in options:
        rig.boards[1].app._strings[3] = "other"  # type: ignore[union-attr]
    assert rig.flash(**options).path == "1-1"
    assert {transfer.path for transfer in rig.dfu(DETACH)} == {"1-1"}


# --- which app --------------------------------------------------------------------------------------------


def _select(rig: Rig, name: str = "esp32s3", apps: bool = True, **by: str) -> str:
    return select(rig.bus, chip(name), Selector(**by), chips(), clock=rig.clock, apps=apps).path


def test_several_apps_ask_for_a_path() -> None:
    rig = app_rig("esp32s3", "esp32s2")
    with pytest.raises(SeveralDevicesError, match=r"2 apps that may run on an ESP32-S3: 1-1 \(303a:4001\)") as caught:
        rig.flash(target=chip("esp32s3"))
    assert caught.value.paths == ("1-1", "1-2")
    assert rig.dfu(DETACH) == []
    assert _select(rig, path="1-2") == "1-2"


def test_app_of_another_vendor_is_asked_only_by_its_path() -> None:
    rig = app_rig(ids=FOREIGN)
    for serial in (None, "1234"):
        with pytest.raises(DeviceNotFoundError) as caught:
            rig.flash(serial=serial)
        assert "if --path names it" in " ".join(caught.value.notes)
    assert rig.dfu(DETACH) == []
    assert rig.flash(path="1-1", after=HARD_RESET).came_back == "app"


def test_only_the_named_app_of_another_vendor_is_found() -> None:
    rig = app_rig("esp32s3", "esp32s3", ids=FOREIGN)
    assert [app.path for app in find_boards(rig.bus, chip(), chips(), apps=True, paths=("1-2",))] == ["1-2"]


def test_what_an_app_says_of_downloads_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its interface is there to be left, so bitCanDnload may be 0."""
    own = FunctionalDescriptor(attributes=0x0C, detach_timeout=1000, transfer_size=64, bcd_dfu=0x0101)
    monkeypatch.setattr("esp_dfu_ext.simulator.apps._DFU_FUNCTIONAL", own)
    assert app_rig().flash().status == "OK"


@pytest.mark.parametrize("path", [None, "1-1"])
def test_app_without_dfu_is_never_asked(path: str | None) -> None:
    rig = make_rig()
    rig.board.start_app(TouchApp(*APP, "1234"))
    with pytest.raises(AppRunningError):
        rig.flash(path=path)
    assert rig.log == [] or rig.dfu(DETACH) == []


def test_other_devices_are_no_apps() -> None:
    rig = make_rig("esp32s2", others=[serial_jtag(), app_with_dfu(0x303A, 0x0077, "1-5")])
    assert find_boards(rig.bus, chip("esp32s3"), chips(), apps=True, paths=("1-1", "1-5", "1-9")) == []
    rig = make_rig(others=[app_with_dfu(*APP)], mode=Mode.DFU)
    assert len(find_boards(rig.bus, chip(), chips(), apps=True)) == 2
    assert len(find_boards(rig.bus, chip(), chips(), apps=False, paths=("2-1",))) == 1


def test_app_in_dfu_mode_of_its_own_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = app_rig()
    own = "esp_dfu_ext.simulator.apps._DFU_RUN_TIME"
    monkeypatch.setattr(own, bytes.fromhex("09040200 00fe010200".replace(" ", "")))
    with pytest.raises(AppRunningError) as caught:
        rig.flash(path="1-1")
    assert "takes app .bin files at most" in caught.value.notes[0]


def test_without_leave_no_app_is_found() -> None:
    rig = app_rig()
    with pytest.raises(AppRunningError):
        _select(rig, apps=False)


@pytest.mark.parametrize("shown", [MAC, "7CDFA1000001", "7c-df-a1-00-00-01"])
@pytest.mark.parametrize("by", ["serial", "mac"])
@pytest.mark.parametrize("name", ["esp32s2", "esp32s3"])
def test_serial_number_of_app_may_be_the_mac(shown: str, by: str, name: str) -> None:
    rig = app_rig(name, name, serial="1234")
    rig.boards[0].app._strings[3] = shown  # type: ignore[union-attr]
    flasher = Flasher(FlashOptions(), bus=rig.bus, targets=chips(), clock=rig.clock)
    result = flasher.flash(checked(target=chip(name)), **{by: MAC})
    assert result.path == "1-1"
    assert {transfer.path for transfer in rig.dfu(DETACH)} == {"1-1"}
    if by == "mac":
        assert result.mac == MAC


def test_app_with_another_serial_number_is_chosen_by_that_alone() -> None:
    rig = app_rig("esp32s3", "esp32s3")
    rig.boards[1].app._strings[3] = "blue"  # type: ignore[union-attr]
    flasher = Flasher(FlashOptions(), bus=rig.bus, targets=chips(), clock=rig.clock)
    with pytest.raises(OtherSerialError):
        flasher.flash(checked(), serial=MAC)
    with pytest.raises(OtherMacError) as caught:
        flasher.flash(checked(), mac=MAC)
    assert "the app 303a:4001, MAC unknown" in caught.value.notes[0]
    assert rig.dfu(DETACH) == []
    assert flasher.flash(checked(), serial="BLUE").serial == "7c:df:a1:00:00:02"


def test_app_that_shows_the_mac_of_another_board_is_refused_and_started_again() -> None:
    rig = app_rig(serial="7c:df:a1:00:00:99")
    flasher = Flasher(FlashOptions(), bus=rig.bus, targets=chips(), clock=rig.clock)
    with pytest.raises(OtherMacError, match=f"has the MAC address {MAC}; 7c:df:a1:00:00:99 was chosen") as caught:
        flasher.flash(checked(), mac="7c:df:a1:00:00:99")
    assert "The chip was restarted; on port 1-1 now: 303a:4001" in caught.value.notes[-1]
    assert rig.board.device is rig.board.app
    assert rig.dfu(DNLOAD) == []


# --- apps that do not hand over ---------------------------------------------------------------------------


def _fails(rig: Rig, outcome: str) -> NoHandoverError:
    with pytest.raises(NoHandoverError) as caught:
        rig.flash(target=chip("esp32s3"))
    assert (caught.value.code, caught.value.outcome, caught.value.path) == ("no-handover", outcome, "1-1")
    assert "App 303a:4001 on port 1-1" in caught.value.message.replace("The app", "App")
    assert rig.dfu(DNLOAD) == []
    assert len(rig.dfu(DETACH)) == 1
    return caught.value


def test_app_ignores_detach() -> None:
    rig = make_rig(start=0)
    rig.board.start_app(DeafApp(*APP, "1234"))
    error = _fails(rig, "stayed")
    assert "did not leave the bus within 15 s after DFU_DETACH, and accepted the request." in error.message
    assert 15 <= rig.clock.monotonic() < 16


def test_app_refuses_detach() -> None:
    rig = app_rig()
    rig.board.faults.planned.append(Fault(stall, at=Request.DFU_DETACH))
    assert "and refused the request" in _fails(rig, "stayed").message


def test_app_restarts_into_itself() -> None:
    rig = make_rig()
    rig.board.start_app(RestartingApp(*APP, "1234"))
    error = _fails(rig, "restarted")
    assert "restarted after DFU_DETACH, but 15 s later the app is on the port again, not the ROM." in error.message


def test_nothing_comes_back() -> None:
    rig = app_rig()
    rig.board.faults.no_return = True
    error = _fails(rig, "nothing")
    assert "left the bus after DFU_DETACH, and nothing came back on its port within 15 s." in error.message


def test_usb_serial_jtag_comes_back() -> None:
    """An ESP32-S3 as delivered, whose PHY went back to USB-Serial/JTAG."""
    rig = app_rig()
    rig.board.faults.no_return = True
    rig.others = (serial_jtag("1-1"),)
    error = _fails(rig, "other")
    assert "On the port now: 303a:1001, USB-Serial/JTAG" in error.message


def test_another_chip_answers() -> None:
    rig = app_rig("esp32s2")
    with pytest.raises(OtherChipError) as caught:
        rig.flash(target=chip("esp32s3"))
    assert caught.value.message == (
        "The app 303a:4001 on port 1-1 runs on an ESP32-S2 (303a:0002), not on an ESP32-S3 (303a:0009)."
    )
    assert (caught.value.code, caught.value.handed_over) == ("other-chip", "1-1")
    assert (len(rig.dfu(DETACH)), rig.dfu(DNLOAD)) == (1, [])


def test_unknown_chip_answers() -> None:
    rig = app_rig("esp32s2")
    only = [target for target in chips() if target.name != "esp32s2"]
    flasher = Flasher(FlashOptions(), bus=rig.bus, targets=only, clock=rig.clock)
    with pytest.raises(OtherChipError, match=r"runs on an unknown chip \(303a:0002\)"):
        flasher.flash(checked())


def test_app_that_cannot_be_opened_gets_no_detach() -> None:
    rig = app_rig()
    rig.board.faults.no_access = True
    with pytest.raises(AccessDeniedError):
        rig.flash()
    assert rig.dfu(DETACH) == []


def test_image_that_does_not_fit_leaves_the_app_running() -> None:
    rig = app_rig()
    image = image_of([File(CHIP_SIZE, "app.bin", b"x" * 64)], chip(), 2 * CHIP_SIZE)
    flasher = Flasher(FlashOptions(), bus=rig.bus, targets=chips(), clock=rig.clock)
    with pytest.raises(FlashTooSmallError) as caught:
        flasher.flash(checked(image))
    assert "on port 1-1 now: 303a:4001" in caught.value.notes[-1]
    assert rig.board.device is rig.board.app


@pytest.mark.parametrize("phase", [Phase.DETACH, Phase.DOWNLOAD, Phase.RESET])
def test_ctrl_c(phase: Phase) -> None:
    rig = app_rig()

    def interrupt(event: Event) -> None:
        if isinstance(event, PhaseStarted) and event.phase is phase:
            raise KeyboardInterrupt

    rig.on_event = interrupt
    with pytest.raises(InterruptedByUserError) as caught:
        rig.flash(after=HARD_RESET)
    if phase is Phase.DETACH:
        assert "while the app on port 1-1 was handing over to the ROM; nothing was written" in caught.value.message


def test_cable_pulled_between_handover_and_flash() -> None:
    rig = app_rig(mode=Mode.DFU)
    rig.board.faults.plan(vanish, at=Moment.SERIAL_OUT)
    with pytest.raises(DeviceGoneError) as caught:
        rig.flash()
    assert (caught.value.code, caught.value.notes[0]) == ("device-gone", "Nothing was written.")


# --- several boards, and one after the other --------------------------------------------------------------


def test_all_includes_apps_and_says_which_chip_was_the_wrong_one() -> None:
    rig = app_rig("esp32s3", "esp32s3", "esp32s2", serial="same for all")
    rig.boards[0].plug()
    rig.clock.sleep(1)
    options = FlashOptions(no_loader=True)  # its time-outs would depend on how fast the threads are
    flasher = Flasher(options, bus=rig.bus, targets=chips(), clock=rig.clock, on_event=rig.handle)
    one, two, three = flasher.flash_all(checked())
    assert (one.error, two.error, two.serial) == (None, None, "7c:df:a1:00:00:02")
    assert isinstance(three.error, OtherChipError)
    assert three.serial is None  # not the app's, which is that of all boards


def test_app_of_another_vendor_takes_part_only_by_its_path() -> None:
    rig = app_rig("esp32s3", "esp32s3", ids=FOREIGN)
    flasher = Flasher(FlashOptions(), bus=rig.bus, targets=chips(), clock=rig.clock)
    with pytest.raises(DeviceNotFoundError):
        flasher.flash_all(checked())
    assert [outcome.path for outcome in flasher.flash_all(checked(), paths=("1-2",))] == ["1-2"]
    assert {transfer.path for transfer in rig.dfu(DETACH)} == {"1-2"}


class Line:
    """A production line: a watch until `end` seconds, and what happened."""

    def __init__(self, name: str = "esp32s3") -> None:
        self.name = name
        self.rig = Rig(clock=SharedClock())
        self.events: list[Event] = []
        self.verdicts: list[tuple[str, str | None, str]] = []

    def board(self, app: App, number: int = 1, path: str = "1-1") -> Board:
        board = Board.make(chip(self.name), path, self.rig.clock, number=number, flash_size=CHIP_SIZE)
        self.rig.add(board)
        board.start_app(app)
        return board

    def watch(self, end: float) -> WatchResult:
        stop = threading.Event()
        self.rig.clock.at(end, stop.set)  # type: ignore[attr-defined]
        flasher = Flasher(
            FlashOptions(), bus=self.rig.bus, targets=chips(), clock=self.rig.clock, on_event=self.events.append
        )
        return flasher.watch(checked(target=chip(self.name)), stop=stop, on_outcome=self._take)

    def _take(self, outcome: FlashOutcome, so_far: WatchResult) -> None:
        self.verdicts.append((outcome.path, outcome.mac, "PASS" if outcome.error is None else outcome.error.code))

    def count(self, kind: type[Event]) -> int:
        return sum(isinstance(event, kind) for event in self.events)

    @property
    def detached(self) -> int:
        """Apps that were asked."""
        return sum(isinstance(event, DeviceFound) and event.app is not None for event in self.events)


@pytest.mark.parametrize("name", KNOWN)
def test_watch_does_not_ask_the_app_of_a_board_that_it_has_flashed(name: str) -> None:
    line = Line(name)
    board = line.board(DfuApp(*APP, "123456"))
    result = line.watch(end=120)
    assert line.verdicts == [("1-1", MAC, "PASS")]
    assert (result.passed, result.failed, line.detached) == (1, 0, 1)
    assert board.device is board.app


def test_boards_whose_apps_share_a_serial_number_are_each_flashed() -> None:
    line = Line()
    first = line.board(DfuApp(*APP, "123456"))
    second = line.board(DfuApp(*APP, "123456"), number=2)
    second.unplug()
    line.rig.clock.at(30, first.unplug)  # type: ignore[attr-defined]
    line.rig.clock.at(33, lambda: second.start_app(second.app))  # type: ignore[attr-defined, arg-type]
    line.watch(end=90)
    assert [mac for _, mac, _ in line.verdicts] == [MAC, "7c:df:a1:00:00:02"]


@pytest.mark.parametrize(("serial", "asked"), [("7CDFA1000001", 1), ("123456", 2)])
def test_flashed_board_that_is_plugged_in_again_runs_its_app(serial: str, asked: int) -> None:
    """Its app's serial number tells who it is if it is the MAC address; else the ROM has to be asked."""
    line = Line()
    board = line.board(DfuApp(*APP, serial))
    line.rig.clock.at(30, board.unplug)  # type: ignore[attr-defined]
    line.rig.clock.at(35, lambda: board.start_app(board.app))  # type: ignore[attr-defined, arg-type]
    result = line.watch(end=120)
    (again,) = [event for event in line.events if isinstance(event, AlreadyFlashed)]
    assert again.serial == (MAC if asked == 2 else again.serial)
    assert (result.passed, line.detached) == (1, asked)
    assert board.device is board.app
    assert board.present


def test_reset_button_of_a_flashed_board_is_no_reason_to_ask_its_app() -> None:
    line = Line()
    board = line.board(DfuApp(*APP, "123456"))
    line.rig.clock.at(30, lambda: board.reset(rtc=True))  # type: ignore[attr-defined]
    result = line.watch(end=60)
    assert (result.passed, line.detached, line.count(AlreadyFlashed)) == (1, 1, 0)
    assert board.address > 3


def come_back_late(board: Board, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the board's app use USB only some time after a restart."""
    reset = board.reset

    def late(*, rtc: bool, mode: Mode = Mode.RUN_TIME) -> None:
        reset(rtc=rtc, mode=mode)
        if not board.rom.force_download:
            (_, action), *_ = board._schedule
            board._schedule = [(board.clock.monotonic() + seconds, action)]

    monkeypatch.setattr(board, "reset", late)


def test_app_that_needs_a_while_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = app_rig()
    come_back_late(rig.board, 4.0, monkeypatch)
    assert rig.flash(after=HARD_RESET).came_back == "app"


def test_watch_leaves_an_app_alone_that_comes_back_late(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line()
    board = line.board(DfuApp(*APP, "123456"))
    come_back_late(board, 8.0, monkeypatch)
    result = line.watch(end=400)
    assert (result.passed, result.failed) == (1, 0)
    assert line.detached <= 3
    assert board.device is board.app


@pytest.mark.parametrize("app", [DeafApp, RestartingApp])
def test_watch_asks_an_app_that_does_not_hand_over_only_once(app: type[DfuApp]) -> None:
    line = Line()
    line.board(app(*APP, "123456"))
    result = line.watch(end=300)
    assert [code for *_, code in line.verdicts] == ["no-handover"]
    assert (result.failed, line.detached) == (1, 1)


# --- the command line -------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write_sample_project(tmp_path, chip())
    build(tmp_path / "build")
    return tmp_path


Shell = Callable[..., tuple[int, str]]


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], virtual_clock: None) -> Shell:
    def call(*words: object, boards: str) -> tuple[int, str]:
        monkeypatch.setenv("ESP_DFU_SIMULATE", boards)
        code = run(*words)
        out, err = capsys.readouterr()
        return code, out + err

    return call


def test_session_from_app_to_app(shell: Shell, project: Path) -> None:
    code, text = shell("flash", project / "build" / "dfu.bin", boards="esp32p4,esp32s3+app=303a:4001")
    assert code == 0
    assert "App 303a:4001 on port 1-2, serial number 7c:df:a1:00:00:02: asked to enter download mode" in text
    assert "Seen on port 1-2 after the reset: 303a:4001, an app" in text


def test_report_and_json_of_app(shell: Shell, project: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    code, text = shell("flash", project / "build", "--json", "--report", report, boards="esp32s3+app=303a:4001")
    assert code == 0
    (line,) = [json.loads(line) for line in report.read_text().splitlines()]
    assert (line["mac"], line["serial"], line["came_back"]) == (MAC, MAC, "app")
    assert line["seconds"] > 0.8  # with the time that the app took
    said = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert [line["app"] for line in said if line["event"] == "device-found"] == ["303a:4001", None]


@pytest.mark.parametrize(
    ("boards", "words", "code", "texts"),
    [
        ("esp32s3+app=303a:4001,esp32s3+app=303a:4002", (), 64, ("1-2 (303a:4002)", "--path 1-1", "--all")),
        ("esp32s2+app=303a:4001", (), 69, ("runs on an ESP32-S2", "esp-dfu reset --path 1-1")),
        ("esp32s3+app=303a:4001+no-return", (), 74, ("[no-handover]", "USB-Serial/JTAG", "hold BOOT")),
        ("esp32s3+app=cafe:4000", (), 69, ("if --path names it",)),
        ("esp32s3+app=cafe:4000", ("--path", "1-1"), 0, ("App cafe:4000 on port 1-1",)),
        ("esp32s3+touch=303a:4001", (), 69, ("[app-running]",)),
        ("esp32s3+app=303a:4001", ("--before", "no-reset"), 69, ("[app-running]", "hold BOOT")),
        ("esp32s3+app=cafe:4000", ("--before", "no-reset", "--path", "1-1"), 69, ("found on port 1-1",)),
    ],
)
def test_what_is_said(
    shell: Shell, project: Path, boards: str, words: tuple[str, ...], code: int, texts: tuple[str, ...]
) -> None:
    ended, text = shell("flash", project / "build" / "dfu.bin", *words, boards=boards)
    assert ended == code
    assert [part for part in texts if part not in text] == []


def test_verdict_of_boards_with_apps(shell: Shell, project: Path) -> None:
    boards = "esp32s3+app=303a:4001,esp32s2+app=303a:4001"
    code, text = shell("flash", project / "build" / "dfu.bin", "--all", "--no-loader", boards=boards)
    assert code == 69
    assert "PASS" in text
    assert "FAIL: other-chip" in text
