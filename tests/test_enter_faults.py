"""`esp-dfu flash --port` is never silent, stuck or wrong, whatever happens between the reset and the start of the app.

The fault matrix has the faults of a flash itself.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from esp_dfu_ext.clock import VirtualClock
from esp_dfu_ext.commands import flash as flashing
from esp_dfu_ext.commands.flash_run import FlashArguments
from esp_dfu_ext.commands.host import Host
from esp_dfu_ext.commands.session import Session
from esp_dfu_ext.doctor.advice import ESP_DFU
from esp_dfu_ext.linux.machine import Machine
from esp_dfu_ext.operations import flash, flasher
from esp_dfu_ext.simulator import Simulation, simulate_text
from esp_dfu_ext.simulator.ports import SimulatedPorts
from esp_dfu_ext.ui.console import Console

from .kit.archives import dfu_file, small_image
from .kit.boards import assert_flashed
from .kit.chips import chips

pytestmark = pytest.mark.usefixtures("default_signals")

PORT = "tty1-2"
# When: before the port is opened; while EN is low; while the board is away; before the board is opened, and the pulse.
TABLE = """
fault       start             low               away              found      pulse
unplugged   no-download-mode  no-download-mode  no-download-mode  no-device  ok
no-bridge   no-serial-port  serial-port       ok!               ok!        ok!
busy        serial-port     -                 ok!               ok!        ok!
other-chip  no-download-mode  other-chip        other-chip        other-chip ok
SIGINT      interrupted     interrupted       interrupted       interrupted interrupted
SIGTERM     interrupted     interrupted       interrupted       interrupted interrupted
SIGHUP      interrupted     interrupted       interrupted       interrupted interrupted
"""


def cells() -> list[tuple[str, str, str]]:
    head, *rows = [line.split() for line in TABLE.strip().splitlines()]
    return [(row[0], when, kind) for row in rows for when, kind in zip(head[1:], row[1:]) if kind != "-"]


class Once:
    """Calls an action the first time that it is asked while a condition holds."""

    def __init__(self, action: Callable[[], object], when: Callable[[], bool] = lambda: True) -> None:
        self.done = False
        self._action, self._when = action, when

    def __call__(self) -> None:
        if not self.done and self._when():
            self.done = True
            self._action()


def before(once: Once, call: Callable[..., Any]) -> Callable[..., Any]:
    def called(*arguments: Any, **settings: Any) -> Any:
        once()
        return call(*arguments, **settings)

    return called


def strike(simulation: Simulation, fault: str) -> None:
    board, other = simulation.boards
    ports = simulation.bus.serial
    assert isinstance(ports, SimulatedPorts)
    if fault.startswith("SIG"):
        signal.raise_signal(signal.Signals[fault])
    elif fault == "no-bridge":
        simulation.bridges[0].set_lines(False, False)
        simulation.bridges[0].plugged = False
    elif fault == "busy":
        ports.faults[PORT] = "busy"
    else:
        board.unplug()
        board.set_pins = lambda **pins: None  # type: ignore[method-assign]
        if fault == "other-chip":
            other.path = board.path
            other.plug()


@pytest.mark.parametrize(("fault", "when", "expected"), cells())
def test_cell(
    fault: str, when: str, expected: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    clock = VirtualClock()
    monkeypatch.setattr(time, "sleep", clock.sleep)
    simulation = simulate_text("esp32s3+app=cafe:4000,bridge=10c4:ea60,esp32s2", chips(), clock)
    board, other = simulation.boards
    bridge, set_pins = simulation.bridges[0], board.set_pins
    other.unplug()
    conditions: dict[str, Callable[[], bool]] = {
        "low": lambda: (bridge.dtr, bridge.rts) == (False, True),
        "away": lambda: not board.present and board.enabled and (bridge.dtr, bridge.rts) == (False, False),
    }
    once = Once(lambda: strike(simulation, fault), conditions.get(when, lambda: True))
    if when in conditions:
        sleep = clock.sleep
        clock.sleep = before(once, sleep)  # type: ignore[method-assign]
        monkeypatch.setattr(time, "sleep", clock.sleep)
    module, name = {"found": (flasher, "flash_board"), "pulse": (flash, "pulse_en")}.get(
        when, (flasher, "enter_download_mode")
    )
    if when not in conditions:
        monkeypatch.setattr(module, name, before(once, getattr(module, name)))
    dfu_bin = tmp_path / "dfu.bin"
    dfu_bin.write_bytes(dfu_file(bytes(small_image().stream)))
    host = Host(clock, Machine(tmp_path / "root", environ={}), open_usb=lambda: simulation.bus)
    begun = clock.monotonic()

    def run() -> tuple[int, str, str]:
        session = Session(Console(), ESP_DFU, host=host)
        code = session.run(lambda session: flashing.flash(session, dfu_bin, FlashArguments(port=PORT)))
        return (code, *capsys.readouterr())

    code, out, err = run()
    assert once.done
    codes = re.findall(r"\[([a-z-]+)\]$", err, re.MULTILINE)
    assert (codes or ["ok!" if err else "ok"]) == [expected]
    assert (code == 0) == expected.startswith("ok")
    assert "\n  > " in err or code == 0 or expected == "interrupted"
    assert clock.monotonic() - begun < 30
    assert (bridge.dtr, bridge.rts) == (False, False)
    assert code != 0 or "reset" in out

    # Again, as a user would: everything is plugged in, and the port is free.
    other.unplug()
    board.set_pins, bridge.plugged = set_pins, True  # type: ignore[method-assign]
    assert isinstance(simulation.bus.serial, SimulatedPorts)
    simulation.bus.serial.faults.clear()
    board.reset(rtc=True)
    clock.sleep(5)
    assert run()[::2] == (0, "")
    assert_flashed(board.rom.flash.read, small_image())
