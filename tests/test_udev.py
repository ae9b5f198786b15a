"""udev rules: the one that is written, those in effect, and why a user has no access."""

from __future__ import annotations

import sys

import pytest

from esp_dfu_ext.linux import udev
from esp_dfu_ext.linux.machine import Access, Machine

from .kit.chips import chips
from .kit.machine import OURS, OURS_FOR_APPS, FolderMachine

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Linux files, with owners and links")

ETC, RUN, LIB = "/etc/udev/rules.d", "/run/udev/rules.d", "/usr/lib/udev/rules.d"


def for_s3(machine: Machine) -> list[str]:
    return [str(rule) for rule in udev.rules_for(machine, 0x303A, 9)]


# --- the rule ---------------------------------------------------------------------------------------------


def test_rule_covers_only_chips() -> None:
    assert udev.rule(chips()) == f"{OURS}\n{OURS_FOR_APPS}\n"
    assert udev.covers(chips(), 0x303A, 0x0042)
    assert not udev.covers(chips(), 0x303A, 0x1001)
    assert not udev.covers(chips(), 0x303B, 0x0009)


def test_written_rule_is_read_back(machine: FolderMachine) -> None:
    machine.write(udev.RULES_FILE, f"{udev.MARK}\n{udev.rule(chips())}")
    for target in chips():
        (rule,) = udev.rules_for(machine, target.usb.vid, target.usb.pid)
        assert (rule.file, rule.line, rule.group, rule.mode, rule.uaccess) == (
            udev.RULES_FILE, 2, "plugdev", 0o660, True,
        )  # fmt: skip
    assert udev.rules_for(machine, 0x303A, 0x1001) == []
    assert [rule.line for rule in udev.rules_for(machine, 0x303A, 0x4001, is_app=True)] == [3]
    assert udev.rules_for(machine, 0x303A, 0x4001) == udev.rules_for(machine, 0xCAFE, 0x4001, is_app=True) == []


# --- rules in effect --------------------------------------------------------------------------------------

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
    'SUBSYSTEM=="usb", ENV{DEVTYPE}=="usb_device", MODE="0664"',  # the default of udev: everybody may only read
    'SUBSYSTEM=="usb", ATTR{idVendor}=="303a", GROUP="root"',
    'SUBSYSTEM=="tty", ATTRS{idVendor}=="303a", MODE="0666"',
    'ACTION=="remove", ATTR{idVendor}=="303a", MODE="0666"',
    'SUBSYSTEM=="usb", ATTR{idVendor}=="303a", ATTR{serial}=="x", MODE="0666"',  # whether that matches is not known
    'SUBSYSTEM=="usb", ATTR{idVendor}=="303a", ATTR{serial}!="x", MODE="0666"',
    'SUBSYSTEM=="usb", ATTR{idVendor}=="303a", TAG-="uaccess"',
    'MODE="0666"',
    'SUBSYSTEM=="usb", ATTR{idVendor}=="303a", MODE="rubbish"',
    "",
]


@pytest.mark.parametrize("text", GOOD)
def test_rule_that_gives_access_is_found(machine: FolderMachine, text: str) -> None:
    machine.write(f"{ETC}/50-x.rules", f"# a comment\n{text}\n")
    assert len(for_s3(machine)) == 1


@pytest.mark.parametrize("text", NONE)
def test_rule_without_access_is_left_out(machine: FolderMachine, text: str) -> None:
    machine.write(f"{ETC}/50-x.rules", text)
    assert for_s3(machine) == []


def test_earlier_folder_wins_and_names_give_order(machine: FolderMachine) -> None:
    machine.write(f"{LIB}/60-x.rules", OURS)
    machine.write(f"{LIB}/40-y.rules", OURS)
    machine.write(f"{RUN}/70-z.rules", OURS)
    machine.write(f"{ETC}/60-x.rules", "# switched off")
    machine.write(f"{ETC}/60-x.rules.bak", OURS)
    assert udev.files(machine) == [f"{LIB}/40-y.rules", f"{ETC}/60-x.rules", f"{RUN}/70-z.rules"]
    gives = "line 1: group plugdev, mode 0660, the user at the seat"
    assert for_s3(machine) == [f"{LIB}/40-y.rules, {gives}", f"{RUN}/70-z.rules, {gives}"]


def test_every_matching_rule_counts_and_last_group_wins(machine: FolderMachine) -> None:
    machine.write(f"{ETC}/50-a.rules", 'SUBSYSTEM=="usb", ATTR{idVendor}=="303a", GROUP="early", MODE="0660"')
    machine.write(f"{ETC}/60-b.rules", 'SUBSYSTEM=="usb", ATTR{idVendor}=="303a", GROUP="late"')
    rules = udev.rules_for(machine, 0x303A, 9)
    assert [(rule.group, rule.mode) for rule in rules] == [("early", 0o660), ("late", None)]
    machine.records = {"early": frozenset({"ada"}), "late": frozenset()}
    code, reason = udev.why_refused(machine, rules, Access("root", "late", 0o660, allowed=False))
    assert (code, reason) == ("not-in-group", f"ada is not in the group late, named in {ETC}/60-b.rules")


def test_rule_keeps_modem_manager_away(machine: FolderMachine) -> None:
    roms, apps = udev.rule(chips()).splitlines()
    assert 'ENV{ID_MM_DEVICE_IGNORE}="1"' in roms
    assert "ID_MM_DEVICE_IGNORE" not in apps  # what an app does with its serial port is its own business


# --- why a user has no access -----------------------------------------------------------------------------

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
def test_missing_access_has_code_and_reason(
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


@pytest.mark.parametrize(
    ("first", "last", "code", "says"),
    [
        (OURS.replace("plugdev", "dfu"), OURS, "not-in-group", "70-b.rules"),
        (OURS, OURS.replace("plugdev", "dfu"), "no-group", "70-b.rules gives access to the group dfu"),
        (OURS, 'SUBSYSTEM=="usb", MODE="0666"', "not-in-group", "named in /etc/udev/rules.d/60-a.rules"),
    ],
)
def test_last_rule_wins(machine: FolderMachine, first: str, last: str, code: str, says: str) -> None:
    machine.write(f"{ETC}/60-a.rules", first)
    machine.write(f"{ETC}/70-b.rules", last)
    machine.records["plugdev"] = frozenset()
    rules = udev.rules_for(machine, 0x303A, 9)
    found, text = udev.why_refused(machine, rules, Access("root", "plugdev", 0o660, False))
    assert (found, says in text) == (code, True), text
    if code == "not-in-group":
        found, text = udev.why_refused(machine, rules, Access("root", "root", 0o664, False))
        assert (found, f"{says[-10:]} assigns it to the group plugdev" in text) == ("rule-not-applied", True), text


def test_seat_rule_in_time_is_named(machine: FolderMachine) -> None:
    machine.write(f"{ETC}/60-a.rules", SEAT)
    machine.write(f"{ETC}/99-b.rules", SEAT)
    code, text = udev.why_refused(machine, udev.rules_for(machine, 0x303A, 9), Access("root", "root", 0o664, False))
    assert code == "no-seat"
    assert "60-a.rules" in text
    assert "too late" not in text
