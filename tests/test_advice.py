"""Advice by code."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from esp_dfu_ext.doctor import advice_machine
from esp_dfu_ext.doctor.advice import (
    ADVICE,
    ESP_DFU,
    IDF_PY,
    CommandNames,
    Context,
    _over_serial,
    advice_for,
    next_steps,
    steps_after,
)
from esp_dfu_ext.doctor.advice_machine import own_command
from esp_dfu_ext.doctor.findings import Finding, Level, problem, raised
from esp_dfu_ext.errors import (
    AccessDeniedError,
    DeviceBusyError,
    DeviceNotFoundError,
    DfuSilentError,
    DriverMissingError,
    EspDfuError,
    InputMissingError,
    OtherUsbError,
    TargetNotSupportedError,
    UsbUnavailableError,
)
from esp_dfu_ext.target import Target

from .kit.chips import NAMES, chip, chips
from .kit.commands import PACKAGE
from .test_errors_page import codes_of_errors, codes_of_findings

WITHOUT_ADVICE = {
    "error": "the message has the system's words; nobody foresaw this case",
    "usage": "the message names the option and what to use instead",
    "data": "only its subclasses are raised",
    "target-file": "the message names file, key and allowed values",
    "project": "the message names the file and what is wrong with it",
    "output": "the message has the system's reason, or names the option",
    "dfu": "the device accepts no downloads, which nothing on this side changes",
    "remote": "raised for labgrid's Python code, which shows no advice",
}
DATA: Mapping[str, Mapping[str, Any]] = {
    "several-devices": {"paths": ["1-1", "1-2"]},
    "several-ports": {"ports": ["COM5", "COM6"]},
    "serial-port-usable": {"port": "COM5"},
    "dfu-status": {"status": "errFILE"},
    "no-handover": {"outcome": "nothing"},
    "interrupted": {"incomplete": True},
    "target-not-supported": {"supported": ["esp32s3"]},
    "kernel-driver": {"interface": "1-1:1.2", "driver": "usbhid"},
    "no-udev": {"where": ""},
    "no-group": {"rule_group": "plugdev", "user": "ada"},
    "not-in-group": {"rule_group": "plugdev", "user": "ada"},
    "old-session": {"rule_group": "plugdev"},
    "no-node": {"where": "container"},
    "no-package": {"missing": ["rich"]},
    "no-build": {"path": Path("project"), "tool": "platformio", "builds": ()},
    "wrong-input": {"path": Path("app.bin"), "kind": "app", "places": ("factory",)},
    "actions-refused": {"extra_path": "/a folder"},
}


def test_every_code_has_advice_or_reason() -> None:
    assert set(ADVICE) | set(WITHOUT_ADVICE) == codes_of_errors() | codes_of_findings()
    assert not set(ADVICE) & set(WITHOUT_ADVICE)


@pytest.mark.parametrize("code", ADVICE)
@pytest.mark.parametrize("target", [None, *chips()], ids=lambda target: target and target.name)
def test_advice_is_sentence_or_ends_in_command(code: str, target: Any) -> None:
    lines = ADVICE[code](Context(ESP_DFU, target, chips(), DATA.get(code, {})))
    assert lines
    for line in lines:
        assert re.fullmatch(r"(- |[A-Z]).*[.:]|([A-Z].*: )?[a-z/'-].*[^.]", line), line


@pytest.mark.parametrize(
    "error",
    [
        InputMissingError("No.", path=Path("a"), role="dfu.bin"),
        InputMissingError("No.", path=Path("a"), role="flash file", reason="unreadable"),
        TargetNotSupportedError("esp32c3", supported=["esp32s3"]),
        UsbUnavailableError("No.", missing="libusb"),
        OtherUsbError("No."),
        DeviceBusyError("No."),
    ],
    ids=lambda error: error.code,
)
def test_error_and_finding_have_same_advice(error: EspDfuError) -> None:
    advice = advice_for(error, IDF_PY, chip())
    assert advice
    assert next_steps([raised("topic", error)], IDF_PY, chip()) == advice


def test_unknown_code_has_no_advice() -> None:
    assert next_steps([problem("topic", "brand-new", "")], IDF_PY, chip()) == []


def test_findings_come_before_error() -> None:
    denied = AccessDeniedError("No.")
    groups = [problem(f"port 1-{n}", "not-in-group", "", rule_group="plugdev", user="ada") for n in (1, 2)]
    assert advice_for(denied, IDF_PY, chip(), groups)[0] == "sudo usermod -aG plugdev ada"
    assert len(advice_for(denied, IDF_PY, chip(), groups)) == 2
    bridge = Finding("port 1-3", Level.NOT_APPLICABLE, "a serial port")
    assert advice_for(denied, IDF_PY, chip(), [bridge]) == advice_for(denied, IDF_PY, chip())


def test_unknown_chip_gets_download_mode_of_each() -> None:
    missing = DeviceNotFoundError("No.")
    for lines in (
        advice_for(missing, ESP_DFU, targets=chips()),
        next_steps([raised("board", missing)], ESP_DFU, targets=chips()),
    ):
        assert [line.partition(":")[0] for line in lines] == [
            "Download mode of ESP32-P4",
            "Download mode of ESP32-S2 and ESP32-S3",
            "Download mode of ESP32-S31",
            "If that does not help, USB DFU may be disabled on the chip",
            "- ESP32-S3",
            "- An eFuse that closes download mode or USB is burned; ESP-IDF usually burns one along with Secure Boot "
            "and flash encryption.",
        ]


@pytest.mark.parametrize("code", ["no-device", "other-usb", "app-running"])
@pytest.mark.parametrize("target", chips(), ids=lambda target: target.name)
def test_missing_board_names_what_closes_dfu(code: str, target: Target) -> None:
    lines = ADVICE[code](Context(ESP_DFU, target, chips()))
    reasons = lines[lines.index("If that does not help, USB DFU may be disabled on this chip:") + 1 :]
    assert [reason.removeprefix("- ").rstrip(".") for reason in reasons[-len(target.closed_by) :]] == [
        *target.closed_by
    ]
    delivered = [reason for reason in reasons if reason.startswith("- as delivered")]
    assert len(reasons) == len(target.closed_by) + len(delivered)
    assert bool(delivered) == bool(target.as_delivered)


def topics(*problems: Finding) -> list[str]:
    return [step.topic for step in steps_after(problems, ESP_DFU, chip())]


def test_each_problem_has_its_step_in_order_of_checks() -> None:
    image = problem("dfu.bin", "image-old", "")
    assert topics(problem("udev rule", "no-rule", ""), problem("board", "no-device", ""), image) == [
        "udev rule", "board", "dfu.bin",
    ]  # fmt: skip
    assert topics(problem("udev rule", "no-rule", ""), problem("port 1-1", "no-rule", ""), image) == [
        "udev rule", "dfu.bin",
    ]  # fmt: skip


def test_consequence_of_container_has_no_step() -> None:
    bus = problem("bus", "no-usb", "")
    assert topics(problem("container", "container", ""), bus) == ["container"]
    assert topics(bus) == ["bus"]


def test_defect_of_check_comes_after_every_problem() -> None:
    findings = [problem("plugin", "unknown", ""), problem("udev rule", "no-rule", "")]
    assert "udev --install" in next_steps(findings, ESP_DFU, chip())[0]
    assert next_steps(findings[:1], ESP_DFU, chip())[0].startswith("Report this")


@pytest.mark.parametrize(
    ("code", "step"),
    [
        ("device-busy", "Close the program"),
        ("no-permission", "udev --install" if sys.platform.startswith("linux") else "administrator"),
        ("no-driver", "Zadig"),
        ("no-usb", "pass the USB bus"),
    ],
)
def test_board_that_cannot_be_used_has_one_step(code: str, step: str) -> None:
    (line,) = next_steps([problem("port 1-1", code, "")], ESP_DFU, chip())
    assert step in line


def test_missing_driver_names_package_of_the_chip() -> None:
    for name in NAMES:
        (line,) = next_steps([problem("port 1-1", "no-driver", "")], ESP_DFU, chip(name))
        assert ("pnputil /add-driver esp32s2.inf /install" in line) is (name == "esp32s2")


USABLE = Finding("serial port", Level.NOT_APPLICABLE, "", "serial-port-usable", {"port": "COM5"})
TYPED = replace(ESP_DFU, flash="esp-dfu flash dfu.bin --path 1-2 --all --watch --count 3 --reset")


@pytest.mark.parametrize(
    ("names", "command"),
    [
        (ESP_DFU, "esp-dfu flash DFU.BIN --over serial --port COM5"),
        (TYPED, "esp-dfu flash dfu.bin --reset --over serial --port COM5"),
        (IDF_PY, "idf.py -p COM5 flash"),
        (replace(IDF_PY, flash="idf.py -C 'a b' dfu-flash --strict"), "idf.py -C 'a b' -p COM5 flash"),
    ],
)
def test_serial_port_is_another_way_after_the_cure(names: CommandNames, command: str) -> None:
    lines = advice_for(DriverMissingError("No."), names, chip(), [USABLE])
    assert lines[:-1] == advice_for(DriverMissingError("No."), names, chip())
    assert lines[-1] == f"Or flash now through the board's serial port: {command}"


HOSTILE = ("click.py", "yaml.py", "esp_dfu_ext.py", "json.py", "usb.py")


def run_in_hostile_folder(command: str, folder: Path) -> str:
    """Run a command as root would, in a folder with modules that Python must not import; return its output."""
    for name in HOSTILE:
        (folder / name).write_text("raise SystemExit('imported from the current folder')")
    done = subprocess.run(
        shlex.split(command), cwd=folder, env={"HOME": "/"}, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_own_command_is_console_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "bin" / "esp-dfu"
    script.parent.mkdir()
    # As pip writes it: a path with a space cannot stand behind #!.
    start = f"#!/bin/sh\n'''exec' \"{sys.executable}\" \"$0\" \"$@\"\n' '''\n"
    script.write_text(f"{start}from esp_dfu_ext.cli import main\nmain()\n")
    script.chmod(0o755)
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(script.parent))
    monkeypatch.setattr(advice_machine, "_private_folders", list)
    assert own_command("udev --install", root=True) == f"sudo {shlex.quote(str(script))} udev --install"
    monkeypatch.undo()
    assert "idVendor" in run_in_hostile_folder(f"{script} udev", tmp_path)


def test_own_command_without_script_imports_nothing_from_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: "/elsewhere")
    assert shlex.split(own_command("udev", root=True))[:3] == ["sudo", sys.executable, "-I"]
    assert "idVendor" in run_in_hostile_folder(own_command("udev"), tmp_path)


def test_own_command_finds_packages_that_only_this_user_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advice_machine, "_NEEDED", ("esp_dfu_ext", "click", "yaml", "a_package_that_does_not_exist"))
    command = own_command("udev")
    assert str(PACKAGE.parent) in shlex.split(command)[3]
    assert "idVendor" in run_in_hostile_folder(command, tmp_path)


@pytest.mark.parametrize(
    ("typed", "command"),
    [
        ("esp-dfu flash x.bin --verify --strict", "esp-dfu flash x.bin --strict --no-loader"),
        ("esp-dfu flash x.bin --skip-flashed --verify --path 1-2", "esp-dfu flash x.bin --path 1-2 --no-loader"),
        ("idf.py dfu-flash --mac 7c:df:a1:00:00:02", "idf.py dfu-flash --path 1-3 --no-loader"),
    ],
)
def test_command_without_loader_has_no_option_that_needs_it(typed: str, command: str) -> None:
    names = replace(ESP_DFU, flash=typed)
    lines = advice_for(DfuSilentError("No.", path="1-3"), names)
    assert f"Then flash without the serial loader: {command}" in lines
    assert any(line.endswith(f"{typed} --trace FILE") for line in lines)


def test_command_over_serial_has_no_option_that_needs_dfu() -> None:
    names = replace(ESP_DFU, flash="esp-dfu flash x.bin --verify --mac 7c:df:a1:00:00:02 --reset")
    assert _over_serial(names, "COM5") == "esp-dfu flash x.bin --reset --over serial --port COM5"
