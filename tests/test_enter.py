"""Into download mode and out of it through a serial port that the user names: a bridge, or an app's own port."""

from __future__ import annotations

import os
import pty
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from esp_dfu_ext import Flasher, FlashOptions, FlashResult
from esp_dfu_ext.clock import VirtualClock
from esp_dfu_ext.commands.host import Host
from esp_dfu_ext.doctor.advice import ESP_DFU, advice_for
from esp_dfu_ext.errors import (
    DeviceGoneError,
    DeviceNotFoundError,
    EspDfuError,
    InterruptedByUserError,
    NoDfuModeError,
    NoDownloadModeError,
    NoSerialPortError,
    OtherChipError,
    OtherPathError,
    OtherSerialError,
    OtherUsbError,
    SerialPortError,
    SeveralDevicesError,
    UsageError,
)
from esp_dfu_ext.events import Event, Notice, Phase, PhaseFinished, PhaseStarted
from esp_dfu_ext.loader.lines import SerialLines
from esp_dfu_ext.operations.restart import HARD_RESET, NO_RESET, WATCHDOG_RESET
from esp_dfu_ext.simulator import Board, Simulation, simulate_text
from esp_dfu_ext.simulator.apps import DTR, RTS, SET_CONTROL_LINE_STATE
from esp_dfu_ext.simulator.bridge import Bridge
from esp_dfu_ext.simulator.ports import SimulatedPort, SimulatedPorts
from esp_dfu_ext.usb.serial_ports import SerialPort
from esp_dfu_ext.usb.system_port import SerialSystem
from esp_dfu_ext.usb.trace import Step, Trace, TraceEntry

from .kit.archives import checked, small_image
from .kit.boards import assert_flashed
from .kit.chips import NAMES, chip, chips
from .kit.commands import run
from .kit.files import edit_json

CP2102, CH340 = "10c4:ea60", "1a86:7523"


@dataclass
class Bench:
    """Simulated boards with their serial ports; time is virtual, esptool's pauses too."""

    simulation: Simulation
    clock: VirtualClock
    events: list[Event]
    on_event: Callable[[Event], None] | None = None

    def flash(self, port: str | None = "tty1-2", *, chip_name: str = "esp32s3", **options: Any) -> FlashResult:
        chosen = {name: options.pop(name) for name in ("path", "serial", "mac") if name in options}
        flasher = Flasher(
            FlashOptions(port=port, **options),
            bus=self.simulation.bus, targets=chips(), clock=self.clock, on_event=self.handle,
        )  # fmt: skip
        return flasher.flash(checked(target=chip(chip_name)), **chosen)

    def handle(self, event: Event) -> None:
        self.events.append(event)
        if self.on_event is not None:
            self.on_event(event)

    def fails(self, kind: type[EspDfuError], text: str, port: str | None = "tty1-2", **options: Any) -> Any:
        with pytest.raises(kind, match=text) as caught:
            self.flash(port, **options)
        for board in self.simulation.boards:
            assert board.rom.flash.read(0, 0x20000) == b"\xff" * 0x20000
        self.assert_released()
        return caught.value

    def assert_released(self) -> None:
        assert [(bridge.dtr, bridge.rts) for bridge in self.bridges] == [(False, False)] * len(self.bridges)

    @property
    def board(self) -> Board:
        return self.simulation.boards[0]

    @property
    def bridges(self) -> tuple[Bridge, ...]:
        return self.simulation.bridges

    @property
    def ports(self) -> SimulatedPorts:
        ports = self.simulation.bus.serial
        assert isinstance(ports, SimulatedPorts)
        return ports

    def at(self, phase: Phase, action: Callable[[], object], *, end: bool = False) -> None:
        def act(event: Event) -> None:
            if isinstance(event, PhaseFinished if end else PhaseStarted) and event.phase is phase:
                action()

        self.on_event = act


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Bench]]:
    """Make a bench from a text such as ESP_DFU_SIMULATE takes."""

    def make(text: str) -> Bench:
        clock = VirtualClock()
        monkeypatch.setattr(time, "sleep", clock.sleep)
        simulation = simulate_text(text, chips(), clock)
        clock.sleep(10)
        return Bench(simulation, clock, [])

    yield make


Make = Callable[[str], Bench]


def interrupt() -> None:
    raise KeyboardInterrupt


# --- a bridge ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bridge", [CP2102, CH340])
@pytest.mark.parametrize("name", NAMES)
def test_bridge_takes_app_to_download_mode_and_back(bench: Make, name: str, bridge: str) -> None:
    made = bench(f"{name}+app=cafe:4000,bridge={bridge}")
    made.ports.hangs_up = False
    result = made.flash(chip_name=name)
    assert_flashed(made.board.rom.flash.read, small_image(name))
    assert (result.path, result.reset_by, result.came_back) == ("1-1", "en-pulse", "app")
    phases = [event.phase.value for event in made.events if isinstance(event, PhaseStarted)]
    assert [phases[0], phases[-1]] == ["enter", "reset"]
    assert made.board.device is made.board.app
    made.assert_released()


def test_no_byte_is_sent_on_the_bridge(bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(port: SimulatedPort, data: bytes) -> None:
        raise AssertionError(data)

    monkeypatch.setattr(SimulatedPort, "write", write, raising=False)
    bench(f"esp32s3,bridge={CP2102}").flash(verify=True)


def test_app_without_usb_is_entered_too(bench: Make) -> None:
    made = bench(f"esp32p4,bridge={CP2102}")
    made.board.unplug()
    result = made.flash(chip_name="esp32p4")
    assert (result.reset_by, result.came_back) == ("en-pulse", "nothing")


@pytest.mark.parametrize(("after", "by"), [(HARD_RESET, "en-pulse"), (WATCHDOG_RESET, "watchdog"), (NO_RESET, None)])
def test_after(bench: Make, after: str, by: str | None) -> None:
    assert bench(f"esp32s3,bridge={CP2102}").flash(after=after).reset_by == by


def test_no_reset_before_leaves_the_board_as_it_is(bench: Make) -> None:
    made = bench(f"esp32s3,bridge={CP2102}")
    address = made.board.address
    result = made.flash(before=NO_RESET)
    assert "enter" not in [event.phase.value for event in made.events if isinstance(event, PhaseStarted)]
    assert made.board.address == address + 1  # only for DFU mode
    assert result.reset_by == "en-pulse"


def test_board_that_has_been_in_download_mode_is_reset_all_the_same(bench: Make) -> None:
    made = bench(f"esp32s3,bridge={CP2102},esp32s3")
    assert made.flash().path == "1-1"


def test_slow_en_needs_the_longer_try(bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esp_dfu_ext.simulator.board.EN_RISE_TIME", 0.3)
    made = bench(f"esp32s3,bridge={CP2102}")
    before = made.clock.monotonic()
    made.flash(after=NO_RESET)
    assert made.clock.monotonic() - before < 6


class OneAddress(list[int]):
    """A host that gives a device the address that it had before, as some do."""

    def __setitem__(self, index: Any, value: Any) -> None:
        """Keep the first address."""


def test_board_that_comes_back_with_the_same_address_has_appeared(bench: Make) -> None:
    made = bench(f"esp32s3,bridge={CP2102}")
    made.board._bus_addresses = OneAddress([made.board.address])
    before = made.board.address
    assert made.flash(after=NO_RESET).path == "1-1"
    assert made.board.address == before


def test_serial_number_and_mac_address_are_compared(bench: Make) -> None:
    assert bench(f"esp32s3,bridge={CP2102}").flash(serial="7C:DF:A1:00:00:01").serial == "7c:df:a1:00:00:01"
    assert bench(f"esp32s2,bridge={CP2102}").flash(chip_name="esp32s2", mac="7c:df:a1:00:00:01").mac is not None
    bench(f"esp32s3,bridge={CP2102}").fails(OtherSerialError, "No ESP32-S3 with serial number 77 appeared", serial="77")


# --- what may be wrong ------------------------------------------------------------------------------------


def test_several_boards_appear(bench: Make) -> None:
    made = bench(f"esp32s3,bridge={CP2102},esp32s3")
    other = made.simulation.boards[1]
    other.unplug()
    made.at(Phase.ENTER, lambda: other.plug(after=0.4))
    error = made.fails(SeveralDevicesError, "2 ESP32-S3 boards appeared after the reset through tty1-2: 1-1, 1-3")
    assert error.paths == ("1-1", "1-3")
    other.unplug()
    assert made.flash(path="1-1").path == "1-1"


@pytest.mark.parametrize(
    ("text", "options", "kind", "said"),
    [
        (f"esp32s3,bridge={CP2102}", {"path": "1-7"}, OtherPathError, "tty1-2, an ESP32-S3 appeared on port 1-1, not"),
        (f"esp32s2,bridge={CP2102}", {}, OtherChipError, "tty1-2, an ESP32-S2 appeared on port 1-1; the image is for"),
    ],
)
def test_another_board_is_reset(
    bench: Make, text: str, options: dict[str, Any], kind: type[EspDfuError], said: str
) -> None:
    bench(text).fails(kind, said, **options)


@pytest.mark.parametrize(
    ("uart", "boot_mode", "note"),
    [
        (
            b"rst:0x1 (POWERON),boot:0x0 (DOWNLOAD(USB/UART0))\r\nwaiting for download\r\n",
            "download",
            "in download mode",
        ),
        (b"wait uart download(secure mode)\r\n", "secure", "in Secure Download Mode"),
        (b"Download boot modes disabled\r\n", "disabled", "an eFuse disables download mode"),
        (b"rst:0x1 (POWERON),boot:0x8 (SPI_FAST_FLASH_BOOT)\r\n", "app", "it starts its app"),
        (b"", None, "says nothing on tty1-2"),
    ],
)
def test_no_dfu_appears(
    bench: Make, monkeypatch: pytest.MonkeyPatch, uart: bytes, boot_mode: str | None, note: str
) -> None:
    made = bench(f"esp32s3+no-usb,bridge={CP2102}")
    monkeypatch.setattr("esp_dfu_ext.simulator.board._DOWNLOAD", uart)
    error = made.fails(NoDownloadModeError, "No ESP32-S3 in download mode appeared on USB within [0-9.]+ s after the")
    assert (error.boot_mode, error.changed) == (boot_mode, False)
    assert note in error.notes[0]
    assert error.notes[1:] == ("Nothing changed on USB.",)


def test_strap_that_stays_high_starts_the_app_again(bench: Make) -> None:
    made = bench(f"esp32s3+app=cafe:4000+no-strap,bridge={CP2102}")
    before = made.clock.monotonic()
    error = made.fails(NoDownloadModeError, "after the reset through tty1-2")
    assert made.clock.monotonic() - before < 2  # the chip has said that it is of no use to wait
    assert (error.boot_mode, error.changed) == ("app", True)
    assert any(note.startswith("Left port 1-1: cafe:4000") for note in error.notes)


@pytest.mark.parametrize("reason", ["busy", "permission", "failed"])
def test_port_that_cannot_be_opened(bench: Make, reason: str) -> None:
    made = bench(f"esp32s3,bridge={CP2102}")
    made.ports.faults["tty1-2"] = reason
    before = made.clock.monotonic()
    assert made.fails(SerialPortError, "tty1-2 cannot be opened").reason == reason
    assert (made.clock.monotonic() - before > 2) == (reason == "busy")


def test_port_that_another_program_only_looks_at_is_waited_for(bench: Make) -> None:
    made = bench(f"esp32s3,bridge={CP2102}")
    made.ports.faults["tty1-2"] = "busy"
    sleep = made.clock.sleep

    def free(seconds: float) -> None:
        made.ports.faults.clear()
        sleep(seconds)

    made.clock.sleep = free  # type: ignore[method-assign]
    assert made.flash().path == "1-1"


def test_port_that_does_not_exist(bench: Make) -> None:
    made = bench(f"esp32s3,bridge={CP2102}")
    error = made.fails(NoSerialPortError, "No serial port ttyX found", "ttyX")
    assert error.notes == ("Found serial port tty1-1 of 303a:0009.", f"Found serial port tty1-2 of {CP2102}.")
    made.bridges[0].plugged = False
    before = made.clock.monotonic()
    made.fails(NoSerialPortError, "tty1-2", wait=5.0)
    assert made.clock.monotonic() - before == pytest.approx(5, abs=0.5)


def test_bridge_that_leaves_during_the_reset(bench: Make) -> None:
    made = bench(f"esp32s3,bridge={CP2102}")
    set_lines = made.bridges[0].set_lines

    def leave(dtr: bool, rts: bool) -> None:
        set_lines(False, False)
        made.bridges[0].plugged = dtr and rts

    made.bridges[0].set_lines = leave  # type: ignore[method-assign]
    assert made.fails(SerialPortError, "The serial port tty1-2 left while DTR and RTS were moved").reason == "gone"


def test_bridge_that_is_gone_at_the_end_is_a_notice(bench: Make) -> None:
    made = bench(f"esp32s3,bridge={CP2102}")
    made.at(Phase.RESET, lambda: setattr(made.bridges[0], "plugged", False))
    assert made.flash().reset_by == "watchdog"
    assert [event.message for event in made.events if isinstance(event, Notice)] == [
        "The serial port tty1-2 cannot be opened (missing). The chip is restarted without it."
    ]


def test_bridge_of_another_board_does_not_start_this_one(bench: Make) -> None:
    made = bench(f"esp32s3,esp32s2,bridge={CP2102}")
    assert made.flash("tty1-3", before=NO_RESET).reset_by == "watchdog"


def test_board_that_is_unplugged_after_it_appeared(bench: Make) -> None:
    made = bench(f"esp32s3,bridge={CP2102}")
    made.at(Phase.ENTER, made.board.unplug, end=True)
    made.fails(EspDfuError, "No ESP32-S3")
    made = bench(f"esp32s3,bridge={CP2102}")
    made.at(Phase.DETACH, made.board.unplug, end=True)
    made.fails(DeviceGoneError, "left the bus")


@pytest.mark.parametrize("when", [0.05, 0.12, 0.3, 1.0])
def test_ctrl_c_while_the_board_is_reset(bench: Make, when: float, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench(f"esp32s3+no-usb,bridge={CP2102}")
    made.ports.hangs_up = False
    sleep, end = made.clock.sleep, made.clock.monotonic() + when

    def stop(seconds: float) -> None:
        sleep(seconds)
        if made.clock.monotonic() >= end:
            raise KeyboardInterrupt

    made.clock.sleep = stop  # type: ignore[method-assign]
    monkeypatch.setattr(time, "sleep", stop)
    made.fails(InterruptedByUserError, "Stopped while the board on serial port tty1-2 was being reset; nothing was")


def test_ctrl_c_at_the_end_leaves_nothing_pulled(bench: Make) -> None:
    made = bench(f"esp32s3,bridge={CP2102}")
    made.at(Phase.RESET, interrupt)
    with pytest.raises(InterruptedByUserError, match="after the flash"):
        made.flash()
    made.assert_released()


# --- an app's own port ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["esp32s2", "esp32s3"])
def test_dfu_interface_is_preferred_to_the_lines(bench: Make, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A chip that the lines took there goes deaf at DFU_DETACH."""
    made = bench(f"{name}+app,{name}+app")
    monkeypatch.setattr(SimulatedPorts, "open", lambda *_, **__: pytest.fail("opened"))
    assert made.flash("tty1-2", chip_name=name).path == "1-2"


@pytest.mark.parametrize("ids", ["303a:4001", "cafe:4000"])
def test_dfu_interface_of_an_app_is_asked_because_its_port_is_named(bench: Make, ids: str) -> None:
    made = bench(f"esp32s3,esp32s3+app={ids}")
    result = made.flash("tty1-2")
    assert (result.path, result.reset_by, result.came_back) == ("1-2", "watchdog", "app")
    made = bench(f"esp32s3+app={ids}")
    made.fails(DeviceNotFoundError, "No ESP32-S3 .* on port 1-1", "tty1-1", before=NO_RESET)


def test_port_of_a_device_on_another_usb_port_is_refused(bench: Make) -> None:
    made = bench("esp32s3+app,esp32s3+app")
    made.fails(UsageError, "tty1-1 is that of the device on port 1-1, not of one on port 1-2", "tty1-1", path="1-2")


@pytest.mark.parametrize("port", [None, "tty1-1"])
def test_chip_that_lines_took_from_a_console_app_is_deaf(bench: Make, port: str | None) -> None:
    made = bench("esp32s3+app")
    for lines in (RTS | DTR, DTR):  # as esptool does it on that port
        made.board.control(0x21, SET_CONTROL_LINE_STATE, lines, b"", 0)
    made.clock.sleep(1)
    error = made.fails(NoDfuModeError, "it never left the bus, and did not answer the request", port)
    advice = advice_for(error, ESP_DFU, chip())
    assert any("hold BOOT" in line for line in advice)
    assert "reset the chip through the serial port of its app" in advice[0]


def test_app_is_touched_at_1200_baud(bench: Make) -> None:
    made = bench("esp32s3+touch=2341:0070,esp32s3+touch=2341:0070")
    result = made.flash("tty1-2")
    assert (result.path, result.reset_by, result.came_back) == ("1-2", "watchdog", "app")
    assert not [event for event in made.events if isinstance(event, Notice)]  # its port is not taken for a bridge's


class JtagPorts(SimulatedPorts):
    """One port of USB-Serial/JTAG; it takes the lines as what they stand for, not as pins."""

    def __init__(self, bench: Bench) -> None:
        super().__init__((), ())
        self.states: list[tuple[bool, bool]] = []
        self._bench = bench

    def list(self) -> list[SerialPort]:
        return [SerialPort("ttyACM0", 0x303A, 0x1001, None, "1-2")]

    def open(self, name: str, **_: Any) -> Any:
        ports = self

        class Port(SimulatedPort):
            def __init__(self) -> None:
                self._dtr = self._rts = True

            def _set(self) -> None:
                ports.states.append((self._dtr, self._rts))
                if ports.states[-2:] == [(False, True), (False, False)]:
                    ports._bench.board.plug(after=0.4)

        return Port()


def jtag(bench: Make, text: str) -> tuple[Bench, JtagPorts]:
    made = bench(text)
    made.board.unplug()
    ports = JtagPorts(made)
    made.simulation.bus.serial = ports
    return made, ports


@pytest.mark.parametrize("name", ["esp32p4", "esp32s31"])
def test_serial_jtag_beside_the_chips_usb(bench: Make, name: str) -> None:
    made, ports = jtag(bench, f"{name},303a:1001")
    result = made.flash("ttyACM0", chip_name=name)
    assert result.path == "1-1"
    assert result.reset_by in ("watchdog", "bus-reset")  # esptool 4 does not know every chip
    assert (True, False) in ports.states
    assert ports.states[-1] == (False, False)


@pytest.mark.parametrize("name", ["esp32s2", "esp32s3"])
def test_serial_jtag_in_place_of_the_chips_usb(bench: Make, name: str) -> None:
    made, _ = jtag(bench, f"{name},303a:1001")
    made.fails(OtherUsbError, "ttyACM0 is that of 303a:1001, USB-Serial/JTAG, through which", "ttyACM0", chip_name=name)


def test_app_that_ignores_everything(bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esp_dfu_ext.simulator.apps.TOUCH_BAUD_RATE", 1)
    made = bench("esp32s3+touch=2341:0070")
    error = made.fails(NoDownloadModeError, "after the reset through tty1-1", "tty1-1")
    assert error.notes == ("Nothing changed on USB.",)


# --- ports of the system ----------------------------------------------------------------------------------


def test_port_without_lines() -> None:
    ours, theirs = pty.openpty()
    name = os.ttyname(theirs)
    with pytest.raises(SerialPortError, match=f"The serial port {name} has no DTR and RTS") as caught:
        SerialLines(SerialSystem(), SerialPort(name))
    assert caught.value.reason == "no-lines"
    os.close(ours)
    os.close(theirs)


def test_link_to_a_port_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = SerialPort(str(tmp_path / "ttyUSB0"), 0x10C4, 0xEA60, None, "1-2")
    monkeypatch.setattr("esp_dfu_ext.usb.system_port.serial_ports", lambda: [port])
    (tmp_path / "ttyUSB0").touch()
    (tmp_path / "by-id").symlink_to(tmp_path / "ttyUSB0")
    assert SerialSystem().find(str(tmp_path / "by-id")) == port
    assert SerialSystem().find(str(tmp_path / "none")) is None


def test_trace_shows_what_was_done_with_the_lines(bench: Make) -> None:
    made, entries = bench(f"esp32s3,bridge={CP2102}"), list[TraceEntry]()
    made.simulation.bus.trace = Trace(entries.append, made.clock)
    made.flash()
    steps = [entry.text for entry in entries if isinstance(entry, Step) and entry.name == "move DTR and RTS"]
    assert steps == ["ClassicReset", "HardReset"]


# --- the command line -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--port", "x", "--all"), "--port is that of one board"),
        (("--port", "x", "--watch"), "--port is that of one board"),
        (("--port", "x", "--path", "1-1", "--path", "1-2"), "--port is that of one board"),
        (("--port", "x", "--simulate"), "--simulate needs no serial port"),
        (("--port", ""), "--port is empty"),
        (("--before", "usb"), "expected default-reset or no-reset"),
        (("--before", "default-reset", "--over", "serial"), "--over serial takes a board that is in download mode"),
    ],
)
def test_contradictions(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], text: str) -> None:
    assert run("flash", "dfu.bin", *words) == 64
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "words", "resets"),
    [
        ("default_reset", (), True),
        ("no_reset", (), False),
        ("no-reset-no-sync", (), False),
        ("no_reset", ("--before", "default_reset"), True),
        ("default-reset", ("--before", "no-reset"), False),
    ],
)
def test_project_says_whether_the_board_is_reset(
    sample_project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    setting: str,
    words: tuple[str, ...],
    resets: bool,
) -> None:
    edit_json(sample_project / "build" / "flasher_args.json", extra_esptool_args={"before": setting})
    clock = VirtualClock()
    monkeypatch.setattr(time, "sleep", clock.sleep)
    monkeypatch.setattr("esp_dfu_ext.commands.session.this_host", lambda: Host(clock))
    monkeypatch.setenv("ESP_DFU_SIMULATE", f"esp32s3,bridge={CP2102}")
    assert run("flash", sample_project / "build" / "dfu.bin", "--port", "tty1-2", *words) == 0
    assert ("Resetting the board on serial port tty1-2 into download mode" in capsys.readouterr().out) == resets
