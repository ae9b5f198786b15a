"""`esp-dfu udev`: the rule is printed, or installed and checked."""

from __future__ import annotations

import os
import re
import stat
import sys
from pathlib import Path

import pytest

from esp_dfu_ext.commands.host import Host
from esp_dfu_ext.commands.session import Session
from esp_dfu_ext.commands.udev import udev as udev_command
from esp_dfu_ext.doctor.advice import ESP_DFU
from esp_dfu_ext.errors import NeedsRootError, OutputError, UdevError, UsageError
from esp_dfu_ext.linux import udev
from esp_dfu_ext.linux.install import Change, install
from esp_dfu_ext.linux.machine import Machine
from esp_dfu_ext.ui.console import Console

from .kit.chips import chip, chips
from .kit.commands import MAIN, esp_dfu
from .kit.machine import NODE, OURS, OURS_FOR_APPS, FolderMachine
from .kit.projects import own_chip

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Linux files, with owners and links")

UDEVADM = """#!/bin/sh
echo "$@" >> "$LOG"
case "$1" in
  control) [ -z "$FAIL" ] || { echo "$FAIL" >&2; exit 1; } ;;
  info) echo "TAGS=:seat:uaccess:" ;;
esac
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderMachine:
    """A machine whose udev assigns the nodes to the rule's group, and logs its calls."""
    machine = FolderMachine(tmp_path / "root")
    machine.is_root = True
    machine.owner = ("root", "plugdev")
    program = tmp_path / "bin" / "udevadm"
    program.parent.mkdir()
    program.write_text(UDEVADM)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    monkeypatch.setenv("FAIL", "")
    return machine


def udevadm_calls(machine: FolderMachine) -> list[str]:
    return (machine.root.parent / "log").read_text().splitlines()


def test_install_writes_rule_reloads_udev_and_checks_boards(root: FolderMachine) -> None:
    root.plug(mode=0o660)
    root.plug("10c4:ea60", "1-2", 3)
    result = install(chips(), machine=root)
    assert root.read(udev.RULES_FILE) == f"{udev.MARK}\n{OURS}\n{OURS_FOR_APPS}"
    assert stat.S_IMODE(root.file(udev.RULES_FILE).stat().st_mode) == 0o644
    assert [path.name for path in root.file("/etc/udev/rules.d").iterdir()] == ["60-esp-dfu.rules"]
    assert (result.change, result.path, result.group_exists) == (Change.NEW, udev.RULES_FILE, True)
    (board,) = result.nodes
    assert (board.path, board.device_file, str(board.access), board.uaccess) == ("1-1", NODE, "root:plugdev 0660", True)
    assert udevadm_calls(root) == [
        "control --reload",
        "trigger --subsystem-match=usb --attr-match=idVendor=303a",
        "settle --timeout=20",
        f"info --query=property --name={NODE}",
    ]


def test_older_rule_of_ours_is_replaced(root: FolderMachine) -> None:
    install([chip("esp32s3")], machine=root)
    assert install(chips(), machine=root).change is Change.NONE
    root.write(udev.RULES_FILE, f"{udev.MARK}\nSUBSYSTEM==older\n")
    assert install(chips(), machine=root).change is Change.REPLACED


def test_foreign_rules_file_is_replaced_only_with_force(root: FolderMachine) -> None:
    root.write(udev.RULES_FILE, "# mine\n")
    with pytest.raises(OutputError) as caught:
        install(chips(), machine=root)
    assert "-# mine" in caught.value.notes
    assert f"+{OURS}" in caught.value.notes
    assert root.read(udev.RULES_FILE) == "# mine"
    assert not (root.root.parent / "log").exists()
    assert install(chips(), force=True, machine=root).change is Change.REPLACED


def test_rule_without_effect_names_other_rules(root: FolderMachine) -> None:
    root.plug(mode=0o600)
    root.write("/etc/udev/rules.d/61-other.rules", 'SUBSYSTEM=="usb", ATTR{idVendor}=="303a", GROUP="audio"')
    with pytest.raises(UdevError, match="root:plugdev 0600") as caught:
        install(chips(), machine=root)
    assert "  /etc/udev/rules.d/61-other.rules, line 1: group audio" in caught.value.notes


def test_missing_group_is_reported(root: FolderMachine) -> None:
    root.records.clear()
    root.owner = ("root", "root")
    root.plug(mode=0o660)
    assert not install(chips(), machine=root).group_exists


def test_install_needs_root(root: FolderMachine) -> None:
    root.is_root = False
    with pytest.raises(NeedsRootError):
        install(chips(), machine=root)
    assert not root.file(udev.RULES_FILE).exists()


def test_missing_udev_is_error_after_writing(root: FolderMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIL", "Failed to send reload request")
    with pytest.raises(UdevError, match=r"was written, .*udevadm control: Failed to send reload request"):
        install(chips(), machine=root)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UdevError, match="has no udevadm"):
        install(chips(), machine=root)


def test_unwritable_rules_folder_is_output_error(root: FolderMachine) -> None:
    root.write("/etc/udev", "a file")
    with pytest.raises(OutputError, match="cannot be written"):
        install(chips(), machine=root)


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_other_systems_have_no_udev(tmp_path: Path, platform: str) -> None:
    with pytest.raises(UsageError):
        install(chips(), machine=Machine(tmp_path, platform=platform))


def test_command_prints_rule_and_names_command_for_root(tmp_path: Path) -> None:
    own_chip(tmp_path / "dfu_targets", "esp32s3", 0x4321)
    assert esp_dfu("udev", cwd=tmp_path).stdout == f"{OURS}\n{OURS_FOR_APPS}\n"
    prelude = "import esp_dfu_ext.linux.machine as m; m.Machine.is_root = False; m.sys.platform = 'linux'"
    done = esp_dfu("udev", "--install", code=prelude + MAIN, cwd=tmp_path)
    assert done.returncode == 77
    assert "[needs-root]" in done.stderr
    assert re.search(r"  > Run it as root: sudo \S.* udev --install\n", done.stderr)
    assert " -m " not in done.stderr


def shown(machine: FolderMachine, capsys: pytest.CaptureFixture[str]) -> str:
    session = Session(Console(), ESP_DFU, host=Host(machine=machine))
    assert udev_command(session, install=True) == 0
    captured = capsys.readouterr()
    return captured.out + captured.err


def test_command_shows_what_was_done(root: FolderMachine, capsys: pytest.CaptureFixture[str]) -> None:
    first = f"Wrote {udev.RULES_FILE}.\nudev has reloaded its rules.\n"
    assert shown(root, capsys) == first + (
        "No board is connected to check the rule with. Plug one in, then run: esp-dfu doctor\n"
    )
    root.plug(mode=0o660)
    assert shown(root, capsys) == first.replace("Wrote", "No change needed in") + (
        f"Port 1-1: {NODE} is now root:plugdev 0660, tagged uaccess.\n"
    )


def test_command_warns_of_missing_group(root: FolderMachine, capsys: pytest.CaptureFixture[str]) -> None:
    root.records.clear()
    assert "warning: This machine has no group plugdev" in shown(root, capsys)


def test_rule_is_readable_whatever_the_old_one_was(root: FolderMachine) -> None:
    root.write(udev.RULES_FILE, f"{udev.MARK}\nSUBSYSTEM==older\n")
    root.file(udev.RULES_FILE).chmod(0o600)
    assert install(chips(), machine=root).change is Change.REPLACED
    assert stat.S_IMODE(root.file(udev.RULES_FILE).stat().st_mode) == 0o644
