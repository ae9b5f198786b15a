"""What Linux says about USB devices, users and processes, and the kind of machine."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from esp_dfu_ext.linux.machine import Machine

from .kit.machine import NODE, FolderMachine

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Linux files, with owners and links")


def test_device_has_node_drivers_and_terminals(machine: FolderMachine) -> None:
    machine.plug(terminals={0: "tty/ttyACM0"})
    machine.write("/sys/bus/usb/devices/usb1/idVendor", "1d6b")
    (board,) = machine.usb()
    assert (board.path, board.usb_id, board.product, board.device_file) == ("1-1", "303a:0009", "ESP32-S3", NODE)
    assert board.drivers == {0: "cdc_acm", 1: "cdc_acm"}
    assert board.ttys == ("ttyACM0",)


def test_bridge_behind_hub_has_its_port_path(machine: FolderMachine) -> None:
    machine.plug("10c4:ea60", "1-4.2", 9, ["cp210x"], {0: "ttyUSB3"}, "CP2102N")
    (bridge,) = machine.usb()
    assert (bridge.path, bridge.ttys, bridge.device_file) == ("1-4.2", ("ttyUSB3",), "/dev/bus/usb/001/009")


def test_root_hub_is_left_out(machine: FolderMachine) -> None:
    machine.plug("1d6b:0002", "usb1", 1, ["hub"])
    assert machine.usb() == []


def test_device_that_leaves_while_it_is_read_is_left_out(machine: FolderMachine) -> None:
    machine.plug()
    machine.file("/sys/bus/usb/devices/1-1/devnum").unlink()
    assert machine.usb() == []


def test_empty_machine_has_nothing(machine: FolderMachine) -> None:
    assert (machine.usb(), machine.has_usb, machine.holders(NODE), machine.access(NODE)) == ([], False, [], None)
    assert (machine.wsl, machine.container) == ("", "")


def test_node_has_owner_group_and_mode(machine: FolderMachine) -> None:
    access = machine.access(machine.plug(mode=0o640))
    assert access is not None
    assert (str(access), access.allowed) == ("root:root 0640", False)


def test_holders_are_other_processes_with_node_open(machine: FolderMachine) -> None:
    machine.run_program(400, "qemu", "/dev/null", NODE)
    machine.run_program(30, "dfu-util", NODE)
    machine.run_program(31, "innocent", "/dev/bus/usb/001/003")
    machine.run_program(os.getpid(), "ourselves", NODE)
    machine.write("/proc/self/comm", "not a number")
    assert machine.holders(NODE) == [(30, "dfu-util"), (400, "qemu")]


@pytest.mark.parametrize("release", ["5.15.167.4-microsoft-standard-WSL2", "4.4.0-19041-Microsoft"])
def test_wsl_is_known_by_its_kernel(machine: FolderMachine, release: str) -> None:
    machine.write("/proc/sys/kernel/osrelease", f"{release}\n")
    assert machine.wsl == release


@pytest.mark.parametrize("path", ["/.dockerenv", "/run/.containerenv", "/run/systemd/container"])
def test_container_is_known_by_its_file(machine: FolderMachine, path: str) -> None:
    machine.write(path)
    assert machine.container == path


def test_user_and_groups_are_those_of_this_process(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    path = tmp_path / "node"
    path.write_text("")
    path.chmod(0o600)
    access = machine.access("/node")
    assert access is not None
    assert access.owner == machine.user
    assert access.group == machine.owner_and_group(path.stat())[1]
    assert (access.mode, access.allowed) == (0o600, True)
    assert machine.groups()
    assert machine.members("no such group") is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_driver_is_read_from_registry_of_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    # Not a registry: this shows only which keys are read, and that missing ones are no error.
    tree: dict[str, Any] = {"1&2": {"Service": "WinUSB"}, "3&4": {}, "5&6": {"Service": "WinUSB"}}
    path = r"SYSTEM\CurrentControlSet\Enum\USB\VID_303A&PID_0009&MI_02"

    def query(key: Any, name: str) -> tuple[str, int]:
        if name not in key:
            raise FileNotFoundError(name)
        return key[name], 1

    def open_key(parent: Any, name: str) -> Any:
        if parent is tree:
            return nullcontext(tree[name])
        if name != path:
            raise FileNotFoundError(name)
        return nullcontext(tree)

    registry = SimpleNamespace(
        HKEY_LOCAL_MACHINE="HKLM",
        OpenKey=open_key,
        QueryInfoKey=lambda key: (len(key), 0, 0),
        EnumKey=lambda key, number: list(key)[number],
        QueryValueEx=query,
    )
    monkeypatch.setitem(sys.modules, "winreg", registry)
    windows = Machine(platform="win32")
    assert windows.usb_services(0x303A, 9, 2) == ["WinUSB"]
    assert windows.usb_services(0x303A, 2, 2) == []
    assert Machine(platform="darwin").usb_services(0x303A, 9, 2) == []
