"""The findings that are shown below an error."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from esp_dfu_ext.doctor.advice import ESP_DFU, IDF_PY, advice_for
from esp_dfu_ext.doctor.explain import explain
from esp_dfu_ext.doctor.findings import Level
from esp_dfu_ext.errors import (
    AccessDeniedError,
    AppRunningError,
    DeviceBusyError,
    DeviceNotFoundError,
    DriverMissingError,
    EspDfuError,
    OtherPathError,
    ReenumerationError,
    SerialPortError,
    StallError,
    UsbUnavailableError,
)
from esp_dfu_ext.linux.machine import Machine
from esp_dfu_ext.usb.serial_ports import SerialPort

from .kit.chips import chip, chips
from .kit.machine import FolderMachine

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Linux files, with owners and links")


def test_only_board_that_failed_is_explained(machine: FolderMachine) -> None:
    machine.plug()
    machine.plug(path="1-2.4", number=3)
    (found,) = explain(AccessDeniedError("No.", path="1-2.4"), [chip()], machine)
    assert found.topic == "port 1-2.4"
    assert len(explain(AccessDeniedError("Port 1-2.4: no permission."), [chip()], machine)) == 2


def test_app_that_cannot_be_opened_is_explained(machine: FolderMachine) -> None:
    machine.plug("303a:4001", "1-2", product="App")
    machine.plug("303a:1001", "1-3", 3, ["cdc_acm", "cdc_acm"])
    (found,) = explain(AccessDeniedError("No.", path="1-2"), [chip()], machine)
    assert (found.topic, found.code) == ("port 1-2", "no-rule")
    assert explain(AccessDeniedError("No.", path="1-3"), [chip()], machine) == []


def test_missing_board_names_serial_bridges(machine: FolderMachine) -> None:
    machine.plug("10c4:ea60", "1-3", 5, ["cp210x"], {0: "ttyUSB0"}, "CP2102N USB to UART Bridge")
    machine.plug(terminals={0: "tty/ttyACM0"})
    for error in (DeviceNotFoundError("x"), AppRunningError("x")):
        (finding,) = explain(error, chips(), machine)
        text = "the kernel sees 10c4:ea60, CP2102N USB to UART Bridge, serial port /dev/ttyUSB0"
        assert (finding.topic, finding.text, finding.level) == ("port 1-3", text, Level.NOT_APPLICABLE)
    assert explain(OtherPathError("x"), chips(), machine) == []


@pytest.mark.parametrize(
    "error", [DeviceNotFoundError("x"), ReenumerationError("x"), UsbUnavailableError("x")], ids=lambda e: e.code
)
def test_missing_usb_names_wsl_and_container(machine: FolderMachine, error: EspDfuError) -> None:
    assert explain(error, chips(), machine) == []
    machine.write("/proc/sys/kernel/osrelease", "5.15-microsoft-standard-WSL2")
    machine.write("/.dockerenv")
    assert [finding.code for finding in explain(error, chips(), machine)] == ["wsl", "container"]
    machine.plug("1234:5678")
    assert explain(error, chips(), machine) == []


@pytest.mark.parametrize(("platform", "named"), [("win32", "COM5"), ("darwin", None)])
def test_missing_driver_names_serial_port_of_the_same_board(
    monkeypatch: pytest.MonkeyPatch, machine: FolderMachine, platform: str, named: str | None
) -> None:
    # Windows numbers buses in its own way, so that only the ports behind the bus count there.
    ports = [SerialPort("COM4", 0x10C4, 0xEA60, "1", "1-2"), SerialPort("COM5", 0x303A, 9, None, "1-2")]
    monkeypatch.setattr("esp_dfu_ext.linux.machine.serial_ports", lambda: ports)
    this = Machine(machine.root, platform=platform)
    found = explain(DriverMissingError("x", path="2-2"), chips(), this)
    assert [finding.data["port"] for finding in found] == ([named] if named else [])
    assert explain(DriverMissingError("x", path="2-3"), chips(), this) == []
    assert explain(DriverMissingError("x"), chips(), this) == []
    ports.append(SerialPort("COM6", 0x303A, 9, None, "3-2"))  # on the same port of another bus: which is it?
    assert explain(DriverMissingError("x", path="2-2"), chips(), this) == []


def test_refused_board_names_its_serial_port_if_that_can_be_opened(machine: FolderMachine) -> None:
    machine.plug(terminals={0: "tty/ttyACM0"})
    error = AccessDeniedError("No.", path="1-1")
    assert [finding.code for finding in explain(error, chips(), machine)] == ["no-rule"]
    machine.opened.add("/dev/ttyACM0")
    found = explain(error, chips(), machine)
    assert [finding.code for finding in found] == ["no-rule", "serial-port-usable"]
    assert found[1].data == {"port": "/dev/ttyACM0"}


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("picocom", "Close picocom (process 812), then try again."),
        (
            "ModemManager",
            "ModemManager looks at each new serial port for up to half a minute: try again then, or stop it: "
            "sudo systemctl stop ModemManager",
        ),
    ],
)
def test_busy_serial_port_names_who_has_it_open(machine: FolderMachine, name: str, advice: str) -> None:
    machine.run_program(812, name, "/dev/null", "/dev/ttyUSB0")
    error = SerialPortError("x", port="/dev/ttyUSB0", reason="busy")
    (finding,) = explain(error, chips(), machine)
    assert finding.text == f"/dev/ttyUSB0 is open in {name} (process 812)"
    assert advice_for(error, ESP_DFU, findings=[finding]) == [advice]
    assert explain(SerialPortError("x", port="/dev/ttyUSB1", reason="busy"), chips(), machine) == []
    assert explain(SerialPortError("x", port="/dev/ttyUSB0", reason="gone"), chips(), machine) == []


@pytest.mark.parametrize(
    ("again", "expected"),
    [
        ("esp-dfu flash x.bin", "esp-dfu flash x.bin --port /dev/ttyUSB0"),
        ("esp-dfu flash x.bin --all", None),
        ("esp-dfu flash x.bin --port COM1", None),
        ("esp-dfu build x", None),
    ],
)
def test_only_bridge_is_offered_for_the_reset(machine: FolderMachine, again: str, expected: str | None) -> None:
    machine.plug("10c4:ea60", "1-3", 5, ["cp210x"], {0: "ttyUSB0"}, "CP2102N USB to UART Bridge")
    error, names = DeviceNotFoundError("x"), replace(ESP_DFU, again=again)
    line = f"If /dev/ttyUSB0 is a serial port of this board: {expected}"
    findings = explain(error, chips(), machine)
    assert (line in advice_for(error, names, chip(), findings)) == (expected is not None)
    assert not any("ttyUSB" in line for line in advice_for(error, names, chip(), [*findings, *findings]))


def test_bridge_is_named_as_idf_py_takes_it(machine: FolderMachine) -> None:
    machine.plug("10c4:ea60", "1-3", 5, ["cp210x"], {0: "ttyUSB0"}, "CP2102N USB to UART Bridge")
    error, names = DeviceNotFoundError("x"), replace(IDF_PY, again="idf.py -C x dfu-flash --strict")
    lines = advice_for(error, names, chip(), explain(error, chips(), machine))
    assert lines[-1].endswith(": idf.py -C x -p /dev/ttyUSB0 dfu-flash --strict")


def test_unrelated_findings_are_not_shown(machine: FolderMachine) -> None:
    machine.write("/.dockerenv")
    assert explain(StallError("x"), chips(), machine) == []
    assert explain(UsbUnavailableError("x", missing="pyusb"), chips(), machine) == []
    machine.plug(drivers=(None, None, "usbfs"))
    assert explain(DeviceBusyError("x"), chips(), machine) != []
    assert explain(DeviceBusyError("x"), chips(), Machine(machine.root, platform="darwin")) == []
