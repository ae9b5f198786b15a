"""udev's rules: the one we write, the ones that are there, why a user is refused; and installing."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from esp_dfu_ext.errors import NeedsRootError, OutputError, UdevError, UsageError
from esp_dfu_ext.linux import udev
from esp_dfu_ext.linux.install import Change, install
from esp_dfu_ext.linux.machine import Access, Machine

from .kit.chips import chip, chips
from .kit.machine import NODE, OURS, FolderMachine

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it is about files of Linux, with its owners and links")

ETC, RUN, LIB = "/etc/udev/rules.d", "/run/udev/rules.d", "/usr/lib/udev/rules.d"


@pytest.fixture
def machine(tmp_path: Path) -> FolderMachine:
    return FolderMachine(tmp_path / "root")


def for_s3(machine: Machine) -> list[str]:
    return [str(rule) for rule in udev.rules_for(machine, 0x303A, 9)]


# --- the rule ---------------------------------------------------------------------------------------------


def test_the_rule_is_narrow() -> None:
    assert udev.rule(chips()) == OURS + "\n"
    assert udev.covers(chips(), 0x303A, 0x0042)
    assert not udev.covers(chips(), 0x303A, 0x1001)
    assert not udev.covers(chips(), 0x303B, 0x0009)


def test_we_read_what_we_write(machine: FolderMachine) -> None:
    machine.write(udev.RULES_FILE, f"{udev.MARK}\n{udev.rule(chips())}")
    for target in chips():
        (rule,) = udev.rules_for(machine, target.usb.vid, target.usb.pid)
        assert (rule.file, rule.line, rule.group, rule.mode, rule.uaccess) == (
            udev.RULES_FILE, 2, "plugdev", 0o660, True,
        )  # fmt: skip
    assert udev.rules_for(machine, 0x303A, 0x1001) == []


# --- rules in force ---------------------------------------------------------------------------------------

GOOD = [
    OURS,
    'SUBSYSTEMS=="usb", ATTRS{idVendor}=="303a", ATTRS{idProduct}=="00??", GROUP="plugdev", MODE="0666"',
    'ATTRS{idVendor}=="303a", ATTRS{idProduct}=="1001|0009", MODE:="0666"',
    'ACTION=="add|change", SUBSYSTEM=="usb", ENV{DEVTYPE}=="usb_device", ATTR{idVendor}=="303a", TAG+="uaccess"',
    'SUBSYSTEM=="usb", ENV{ID_VENDOR_ID}=="303a", ENV{ID_MODEL_ID}=="0009", TAG+="uaccess"',
    'SUBSYSTEM=="usb", MODE="0666"',
    'SUBSYSTEM=="usb", ATTR{idVendor}=="303a", ATTR{idProduct}!="1001", GROUP="users"',
    'SUBSYSTEM=="usb", \\\n  ATTR{idVendor}=="303a", \\\n  MODE="0666"',
]
NONE = [
    f"# {OURS}",
    'SUBSYSTEM=="usb", ATTR{idVendor}=="303a", ATTR{idProduct}=="1001", MODE="0666"',
    'SUBSYSTEM=="usb", ATTR{idVendor}!="303a", MODE="0666"',
    'SUBSYSTEM=="usb", ENV{DEVTYPE}=="usb_device", MODE="0664"',  # what every udev does: everybody may read
    'SUBSYSTEM=="usb", ATTR{idVendor}=="303a", GROUP="root"',
    'SUBSYSTEM=="tty", ATTRS{idVendor}=="303a", MODE="0666"',
    'ACTION=="remove", ATTR{idVendor}=="303a", MODE="0666"',
    'SUBSYSTEM=="usb", ATTR{idVendor}=="303a", ATTR{serial}=="x", MODE="0666"',  # what that decides is not known
    'SUBSYSTEM=="usb", ATTR{idVendor}=="303a", ATTR{serial}!="x", MODE="0666"',
    'SUBSYSTEM=="usb", ATTR{idVendor}=="303a", TAG-="uaccess"',
    'MODE="0666"',
    'SUBSYSTEM=="usb", ATTR{idVendor}=="303a", MODE="rubbish"',
    "",
]


@pytest.mark.parametrize("text", GOOD)
def test_rules_that_let_somebody_in(machine: FolderMachine, text: str) -> None:
    machine.write(f"{ETC}/50-x.rules", f"# a comment\n{text}\n")
    assert len(for_s3(machine)) == 1


@pytest.mark.parametrize("text", NONE)
def test_rules_that_do_not(machine: FolderMachine, text: str) -> None:
    machine.write(f"{ETC}/50-x.rules", text)
    assert for_s3(machine) == []


def test_which_files_are_in_force_and_in_which_order(machine: FolderMachine) -> None:
    machine.write(f"{LIB}/60-x.rules", OURS)
    machine.write(f"{LIB}/40-y.rules", OURS)
    machine.write(f"{RUN}/70-z.rules", OURS)
    machine.write(f"{ETC}/60-x.rules", "# switched off")
    machine.write(f"{ETC}/60-x.rules.bak", OURS)
    assert udev.files(machine) == [f"{LIB}/40-y.rules", f"{ETC}/60-x.rules", f"{RUN}/70-z.rules"]
    gives = "line 1: group plugdev, mode 0660, the user at the seat"
    assert for_s3(machine) == [f"{LIB}/40-y.rules, {gives}", f"{RUN}/70-z.rules, {gives}"]


# --- why a user is refused --------------------------------------------------------------------------------

SEAT = 'SUBSYSTEM=="usb", ATTR{idVendor}=="303a", TAG+="uaccess"'


@pytest.mark.parametrize(
    ("name", "text", "in_session", "on_record", "node_group", "code", "says"),
    [
        ("60-x", "", False, False, "root", "no-rule", "no udev rule matches this device"),
        ("60-x", OURS, False, False, "plugdev", "not-in-group", "ada is not in the group plugdev"),
        ("60-x", OURS, False, True, "plugdev", "old-session", "this session does not have it yet"),
        ("60-x", OURS, False, False, "root", "rule-not-applied", "but the node is root:root 0664"),
        ("60-x", OURS, True, True, "plugdev", "rule-not-applied", "the node is root:plugdev 0664"),
        (
            "60-x",
            OURS.replace("plugdev", "dfu"),
            False,
            False,
            "root",
            "no-group",
            "which does not exist on this machine",
        ),
        ("60-x", SEAT, False, False, "root", "no-seat", "gives access to the user at the seat; ada got none"),
        ("99-x", SEAT, False, False, "root", "no-seat", "sorts after 73-seat-late.rules"),
    ],
)
def test_why_a_user_is_refused(
    machine: FolderMachine,
    name: str,
    text: str,
    in_session: bool,
    on_record: bool,
    node_group: str,
    code: str,
    says: str,
) -> None:
    machine.write(f"{ETC}/{name}.rules", text)
    machine.in_groups |= {"plugdev"} if in_session else set()
    machine.records["plugdev"] = frozenset({"ada"} if on_record else ())
    rules = udev.rules_for(machine, 0x303A, 9)
    found, reason = udev.why_refused(machine, rules, Access("root", node_group, 0o664, False))
    assert (found, says in reason) == (code, True), reason


# --- installing -------------------------------------------------------------------------------------------

UDEVADM = """#!/bin/sh
echo "$@" >> "$LOG"
case "$1" in
  control) [ -z "$FAIL" ] || { echo "$FAIL" >&2; exit 1; } ;;
  info) echo "TAGS=:seat:uaccess:" ;;
esac
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderMachine:
    """A machine whose udev gives the nodes to the rule's group, and notes what it was asked."""
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


def asked(machine: FolderMachine) -> list[str]:
    return (machine.root.parent / "log").read_text().splitlines()


def test_installing_writes_reloads_and_looks(root: FolderMachine) -> None:
    root.plug(mode=0o660)
    root.plug("10c4:ea60", "1-2", 3)
    result = install(chips(), machine=root)
    assert root.read(udev.RULES_FILE) == f"{udev.MARK}\n{OURS}"
    assert stat.S_IMODE(root.file(udev.RULES_FILE).stat().st_mode) == 0o644
    assert [path.name for path in root.file(ETC).iterdir()] == ["60-esp-dfu.rules"]
    assert (result.change, result.path, result.group_exists) == (Change.NEW, udev.RULES_FILE, True)
    (board,) = result.nodes
    assert (board.path, board.node, str(board.access), board.uaccess) == ("1-1", NODE, "root:plugdev 0660", True)
    assert asked(root) == [
        "control --reload",
        "trigger --subsystem-match=usb --attr-match=idVendor=303a",
        "settle --timeout=20",
        f"info --query=property --name={NODE}",
    ]


def test_installing_twice_and_over_an_older_one_of_ours(root: FolderMachine) -> None:
    install([chip("esp32s3")], machine=root)
    assert install(chips(), machine=root).change is Change.NONE
    root.write(udev.RULES_FILE, f"{udev.MARK}\nSUBSYSTEM==older\n")
    assert install(chips(), machine=root).change is Change.REPLACED


def test_a_file_of_somebody_else_is_left_alone(root: FolderMachine) -> None:
    root.write(udev.RULES_FILE, "# mine\n")
    with pytest.raises(OutputError) as caught:
        install(chips(), machine=root)
    assert "-# mine" in caught.value.notes
    assert f"+{OURS}" in caught.value.notes
    assert root.read(udev.RULES_FILE) == "# mine"
    assert not (root.root.parent / "log").exists()
    assert install(chips(), force=True, machine=root).change is Change.REPLACED


def test_a_rule_that_does_not_show_is_an_error_that_names_the_others(root: FolderMachine) -> None:
    root.plug(mode=0o600)
    root.write(f"{ETC}/61-other.rules", 'SUBSYSTEM=="usb", ATTR{idVendor}=="303a", GROUP="audio"')
    with pytest.raises(UdevError, match="root:plugdev 0600") as caught:
        install(chips(), machine=root)
    assert f"  {ETC}/61-other.rules, line 1: group audio" in caught.value.notes


def test_a_machine_without_the_group(root: FolderMachine) -> None:
    root.records.clear()
    root.owner = ("root", "root")
    root.plug(mode=0o660)
    assert not install(chips(), machine=root).group_exists


def test_only_root_may(root: FolderMachine) -> None:
    root.is_root = False
    with pytest.raises(NeedsRootError):
        install(chips(), machine=root)
    assert not root.file(udev.RULES_FILE).exists()


def test_udev_that_does_not_run(root: FolderMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIL", "Failed to send reload request")
    with pytest.raises(UdevError, match=r"was written, .*udevadm control: Failed to send reload request"):
        install(chips(), machine=root)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UdevError, match="has no udevadm"):
        install(chips(), machine=root)


def test_a_folder_that_cannot_be_written(root: FolderMachine) -> None:
    root.write("/etc/udev", "a file")
    with pytest.raises(OutputError, match="cannot be written"):
        install(chips(), machine=root)


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_other_systems_have_no_udev(tmp_path: Path, platform: str) -> None:
    with pytest.raises(UsageError):
        install(chips(), machine=Machine(tmp_path, platform=platform))
