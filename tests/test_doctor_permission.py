"""The checks of device nodes, udev rules and programs that hold a board."""

from __future__ import annotations

import sys

import pytest

from esp_dfu_ext.doctor import permission
from esp_dfu_ext.doctor.advice import IDF_PY, next_steps
from esp_dfu_ext.doctor.explain import explain
from esp_dfu_ext.doctor.findings import Finding, Level
from esp_dfu_ext.errors import AccessDeniedError, DeviceBusyError

from .kit.boards import make_rig
from .kit.chips import chip, chips
from .kit.machine import NODE, OURS, FolderMachine, check_bus, problem_codes

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Linux files, with owners and links")


@pytest.mark.parametrize(
    ("rule", "group", "on_record", "code", "step"),
    [
        ("", "root", False, "no-rule", "udev --install"),
        (OURS, "root", False, "rule-not-applied", "Unplug the board and plug it in again, or: sudo udevadm"),
        (OURS, "plugdev", False, "not-in-group", "sudo usermod -aG plugdev ada"),
        (OURS, "plugdev", True, "old-session", "newgrp plugdev"),
        (OURS.replace("plugdev", "dfu"), "root", False, "no-group", "sudo groupadd --system dfu && sudo usermod"),
        ('SUBSYSTEM=="usb", ATTR{idVendor}=="303a", TAG+="uaccess"', "root", False, "no-seat", "udev --install"),
    ],
)
def test_refused_user_learns_which_rule_or_group_is_missing(
    machine: FolderMachine, rule: str, group: str, on_record: bool, code: str, step: str
) -> None:
    machine.plug()
    machine.owner = ("root", group)
    machine.records["plugdev"] = frozenset({"ada"} if on_record else ())
    machine.write("/etc/udev/rules.d/60-x.rules", rule)
    findings = check_bus(machine, make_rig())
    assert problem_codes(findings) == {"port 1-1": code}
    found = next(finding for finding in findings if finding.code)
    assert f"ada cannot open {NODE} (root:{group} 0664)" in found.text
    assert step in next_steps([found], IDF_PY, chip())[0]
    # A flash that fails ends with the same.
    assert explain(AccessDeniedError("x"), [chip()], machine) == [found]


@pytest.mark.parametrize(
    ("file", "step"),
    [
        ("/.dockerenv", "Run there, not in the container: esp-dfu udev --install"),
        ("/proc/sys/kernel/osrelease", "sudo tee -a /etc/wsl.conf"),
        ("/etc/hostname", "Start udev"),
    ],
)
def test_missing_udev_is_named_with_its_place(machine: FolderMachine, file: str, step: str) -> None:
    machine.file("/run/udev/control").unlink()
    machine.write("/etc/udev/rules.d/60-x.rules", OURS)
    machine.write(file, "5.15-microsoft-standard-WSL2")
    machine.plug()
    (found,) = explain(AccessDeniedError("x"), [chip()], machine)
    assert found.code == "no-udev"
    assert step in next_steps([found], IDF_PY, chip())[0]


def test_board_without_device_node_is_problem(machine: FolderMachine) -> None:
    machine.file(machine.plug()).unlink()
    assert problem_codes(check_bus(machine, make_rig())) == {"port 1-1": "no-node"}


def test_program_that_holds_board_is_named(machine: FolderMachine) -> None:
    machine.plug(drivers=("cdc_acm", "cdc_acm", "usbfs"))
    machine.open_to_all = True
    machine.run_program(77, "qemu-system", NODE)
    findings = check_bus(machine, make_rig())
    assert problem_codes(findings) == {"port 1-1": "device-busy"}
    (found,) = explain(DeviceBusyError("x"), [chip()], machine)
    assert found in findings
    assert found.text == f"interface 2 is claimed; {NODE} is open in qemu-system (process 77)"
    assert next_steps([found], IDF_PY, chip()) == ["Close qemu-system (process 77), then try again."]


def test_invisible_program_is_not_named(machine: FolderMachine) -> None:
    machine.plug(drivers=("cdc_acm", "cdc_acm", "usbfs"))
    (found,) = explain(DeviceBusyError("x"), [chip()], machine)
    assert found.text.endswith("open in a program that this user cannot see")
    assert found.data["holders"] == []
    machine.plug(number=3)
    machine.file("/sys/bus/usb/devices/1-1:1.2/driver").unlink()
    assert explain(DeviceBusyError("x"), [chip()], machine) == []


def test_kernel_driver_on_dfu_interface_is_problem(machine: FolderMachine) -> None:
    machine.plug(drivers=(None, None, "usbhid"))
    machine.open_to_all = True
    findings = check_bus(machine, make_rig())
    assert problem_codes(findings) == {"port 1-1": "kernel-driver"}
    (step,) = next_steps(findings, IDF_PY, chip())
    assert step.endswith("echo 1-1:1.2 | sudo tee /sys/bus/usb/drivers/usbhid/unbind")
    assert explain(DeviceBusyError("x"), [chip()], machine) == [finding for finding in findings if finding.code]


def test_rule_is_checked_only_for_users_with_udev(machine: FolderMachine) -> None:
    def rule() -> Finding:
        (finding,) = permission.rules(machine, chips())
        return finding

    machine.file("/run/udev/control").unlink()
    assert rule().level is Level.NOT_APPLICABLE
    machine.write("/run/udev/control")
    machine.write("/usr/lib/udev/rules.d/50-udev-default.rules", 'SUBSYSTEM=="usb", MODE="0664"')
    assert (rule().code, rule().data["missing"]) == ("no-rule", ["303a:0012", "303a:0002", "303a:0009", "303a:0020"])
    machine.write("/etc/udev/rules.d/60-x.rules", OURS)
    assert rule().level is Level.OK
    machine.file("/etc/udev/rules.d/60-x.rules").unlink()
    machine.is_root = True
    assert rule().level is Level.NOT_APPLICABLE
