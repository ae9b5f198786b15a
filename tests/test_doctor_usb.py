"""The checks of libusb, the bus and the boards on it."""

from __future__ import annotations

import ctypes
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import libusb_package
import pytest

from esp_dfu_ext.dfu.spec import Mode
from esp_dfu_ext.doctor import usb
from esp_dfu_ext.doctor.advice import ESP_DFU, advice_for, next_steps
from esp_dfu_ext.doctor.findings import Finding, Level
from esp_dfu_ext.errors import SeveralDevicesError
from esp_dfu_ext.linux import udev
from esp_dfu_ext.linux.machine import Machine
from esp_dfu_ext.simulator.apps import DfuApp

from .kit.boards import make_rig, serial_jtag
from .kit.chips import chip
from .kit.machine import OURS, OURS_FOR_APPS, FolderMachine, check_bus, problem_codes

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Linux files, with owners and links")


def test_openable_board_is_ok(machine: FolderMachine) -> None:
    machine.plug()
    machine.open_to_all = True
    findings = check_bus(machine, make_rig(mode=Mode.DFU))
    assert problem_codes(findings) == {}
    (port,) = (finding for finding in findings if finding.topic == "port 1-1")
    assert port.text.startswith("303a:0009, ESP32-S3 with DFU in DFU mode; /dev/bus/usb/001/002 is root:root 0664")
    assert (port.data["mode"], port.data["drivers"]) == ("DFU", {"0": "cdc_acm", "1": "cdc_acm"})
    assert findings[-1] == Finding("board", Level.OK, "found on port 1-1, the only ESP32-S3", "", {"paths": ["1-1"]})


@pytest.mark.parametrize("wanted", ["esp32s3", None])
def test_app_that_a_flash_asks_is_ok(machine: FolderMachine, wanted: str | None) -> None:
    machine.plug("303a:4001", product="App")
    machine.open_to_all = True
    rig = make_rig()
    rig.board.start_app(DfuApp(0x303A, 0x4001, "1234"))
    findings = check_bus(machine, rig, wanted)
    assert problem_codes(findings) == {}
    assert findings[-1].data == {"paths": ["1-1"]}
    assert ("an app; the flash sees which chip runs it" in findings[-1].text) == (wanted is not None)
    machine.open_to_all = False
    machine.write(udev.RULES_FILE, OURS)
    assert problem_codes(check_bus(machine, rig, wanted)) == {"port 1-1": "no-rule"}
    machine.write(udev.RULES_FILE, OURS_FOR_APPS)
    assert problem_codes(check_bus(machine, rig, wanted)) == {"port 1-1": "rule-not-applied"}


def test_app_of_another_vendor_is_no_board(machine: FolderMachine) -> None:
    rig = make_rig()
    rig.board.start_app(DfuApp(0xCAFE, 0x4001, "1234"))
    findings = check_bus(machine, rig)
    assert problem_codes(findings) == {"board": "no-device"}
    assert "if --path names it" in findings[1].text


def test_board_refused_by_libusb_alone_is_problem(machine: FolderMachine) -> None:
    rig = make_rig()
    rig.board.faults.no_access = True
    assert problem_codes(check_bus(machine, rig)) == {"port 1-1": "no-permission"}


@pytest.mark.parametrize(
    ("wanted", "boards", "other", "code", "step"),
    [
        ("esp32s3", (), False, "no-device", "Use a data cable"),
        ("esp32s3", (), True, "other-usb", "into download mode (GPIO0 low, GPIO46 low or open, at reset)"),
        ("esp32p4", (), True, "other-usb", "the chip's own USB port: D+ is chip pin 50"),
        ("esp32p4", ("esp32s2",), False, "other-chip", "Connect the right board"),
        (None, (), True, "other-usb", "Put the chip into download mode: hold BOOT"),
        (None, (), False, "no-device", "Put the chip into download mode: hold BOOT"),
    ],
)
def test_missing_board_is_explained_by_what_is_connected(
    machine: FolderMachine, wanted: str | None, boards: tuple[str, ...], other: bool, code: str, step: str
) -> None:
    rig = make_rig(*(boards or ("esp32s3",)), others=[serial_jtag()] if other else [])
    if not boards:
        rig.board.unplug()
    findings = check_bus(machine, rig, wanted, simulated=True)
    assert problem_codes(findings) == {"board": code}
    assert step in next_steps(findings, ESP_DFU, chip(wanted) if wanted else None)[0]
    assert "Found on port" not in findings[-1].text  # each port has a finding of its own


def test_several_boards_are_ok_but_need_choice(machine: FolderMachine) -> None:
    findings = check_bus(machine, make_rig("esp32s3", "esp32s3"))
    assert problem_codes(findings) == {}
    assert findings[-1].text == "found on ports 1-1, 1-2"
    steps = next_steps(findings, ESP_DFU, chip())
    assert steps == advice_for(SeveralDevicesError("", paths=["1-1", "1-2"]), ESP_DFU)
    assert "--path 1-1" in steps[0]
    assert next_steps(check_bus(machine, make_rig("esp32s3")), ESP_DFU, chip()) == []
    assert next_steps(findings, ESP_DFU, None) == []


class WindowsMachine(Machine):
    """A Windows computer; the test says what its registry has."""

    def __init__(self, *services: str) -> None:
        super().__init__(Path("C:/"), platform="win32", environ={})
        self.services = services

    def usb_services(self, vid: int, pid: int, interface: int) -> list[str]:
        return list(self.services) if (vid, pid, interface) == (0x303A, 9, 2) else []


@pytest.mark.parametrize(
    ("services", "text"),
    [
        (("WinUSB",), "; interface 2: WinUSB"),
        (("WinUSB", "usbccgp"), "; interface 2: WinUSB or usbccgp"),
        (("libusbK",), "; interface 2: libusbK, which is said to end transfers after 5 s, too soon for a long erase"),
        ((), ""),
    ],
)
def test_driver_of_windows_is_named(services: tuple[str, ...], text: str) -> None:
    (port,) = (finding for finding in check_bus(WindowsMachine(*services), make_rig()) if finding.topic == "port 1-1")
    assert port.text == f"303a:0009, ESP32-S3 with DFU in run-time mode{text}"
    assert port.data.get("drivers", {}) == ({"2": " or ".join(services)} if services else {})


def test_bus_without_any_device_is_problem(machine: FolderMachine) -> None:
    rig = make_rig()
    rig.board.unplug()
    (finding,) = check_bus(machine, rig)
    assert finding.code == "no-usb"


def test_version_and_file_of_libusb_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    # Not started: libusb 1.0.26 does not start on a machine without USB.
    loaded = SimpleNamespace(lib=ctypes.CDLL(str(libusb_package.get_library_path())))
    monkeypatch.setattr(usb, "libusb_backend", lambda: loaded)
    pyusb, libusb = usb.library(Machine())
    assert (pyusb.topic, libusb.topic, libusb.level) == ("pyusb", "libusb", Level.OK)
    assert re.fullmatch(r"1\.0\.\d+", libusb.data["version"])
    assert Path(libusb.data["file"]).is_file()
