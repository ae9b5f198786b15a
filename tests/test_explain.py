"""The findings that are shown below an error."""

from __future__ import annotations

import sys

import pytest

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


def test_unrelated_findings_are_not_shown(machine: FolderMachine) -> None:
    machine.write("/.dockerenv")
    assert explain(StallError("x"), chips(), machine) == []
    assert explain(UsbUnavailableError("x", missing="pyusb"), chips(), machine) == []
    machine.plug(drivers=(None, None, "usbfs"))
    assert explain(DeviceBusyError("x"), chips(), machine) != []
    assert explain(DeviceBusyError("x"), chips(), Machine(machine.root, platform="darwin")) == []
