"""The diagnosis: what each part sees, what is made of it, and how it is shown."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import libusb_package
import pytest

import esp_dfu_ext
from esp_dfu_ext import load_target
from esp_dfu_ext.commands.doctor import doctor
from esp_dfu_ext.commands.session import Session
from esp_dfu_ext.dfu.spec import Mode
from esp_dfu_ext.doctor import environment, permission, usb
from esp_dfu_ext.doctor.advice import ESP_DFU, IDF_PY, advice_for, next_steps
from esp_dfu_ext.doctor.advice_machine import own_command
from esp_dfu_ext.doctor.diagnosis import diagnose
from esp_dfu_ext.doctor.environment import Plugin
from esp_dfu_ext.doctor.explain import explain
from esp_dfu_ext.doctor.findings import Finding, Level
from esp_dfu_ext.errors import (
    AccessDeniedError,
    AppRunningError,
    DeviceBusyError,
    DeviceNotFoundError,
    EspDfuError,
    OtherPathError,
    ReenumerationError,
    SeveralDevicesError,
    StallError,
    UsbUnavailableError,
)
from esp_dfu_ext.linux.machine import Machine
from esp_dfu_ext.simulator.sample import write_sample_project
from esp_dfu_ext.target import builtin_folder
from esp_dfu_ext.ui.console import Console

from .kit.boards import Bench, bench, serial_jtag
from .kit.chips import chip, chips
from .kit.commands import MAIN, esp_dfu
from .kit.files import forbid, write_file
from .kit.machine import NODE, OURS, FolderMachine

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it is about files of Linux, with its owners and links")

PACKAGE = Path(esp_dfu_ext.__file__).parent


@pytest.fixture
def machine(tmp_path: Path) -> FolderMachine:
    return FolderMachine(tmp_path / "root")


def problems(facts: list[Finding]) -> dict[str, str]:
    return {fact.topic: fact.code for fact in facts if fact.level is Level.PROBLEM}


def look_at_bus(machine: Machine, rig: Bench, wanted: str | None = "esp32s3") -> list[Finding]:
    return usb.bus(machine, chips(), chip(wanted) if wanted else None, rig.bus, simulated=False)


# --- the board on the bus and in sysfs --------------------------------------------------------------------


def test_a_board_that_may_be_opened(machine: FolderMachine) -> None:
    machine.plug()
    machine.open_to_all = True
    facts = look_at_bus(machine, bench(mode=Mode.DFU))
    assert problems(facts) == {}
    (port,) = (fact for fact in facts if fact.topic == "port 1-1")
    assert port.text.startswith("303a:0009, ESP32-S3 with DFU in DFU mode; /dev/bus/usb/001/002 is root:root 0664")
    assert (port.data["mode"], port.data["drivers"]) == ("DFU", {"0": "cdc_acm", "1": "cdc_acm"})
    assert facts[-1] == Finding("board", Level.OK, "found on port 1-1, the only ESP32-S3", "", {"paths": ["1-1"]})


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
def test_a_board_that_may_not_be_opened(
    machine: FolderMachine, rule: str, group: str, on_record: bool, code: str, step: str
) -> None:
    machine.plug()
    machine.owner = ("root", group)
    machine.records["plugdev"] = frozenset({"ada"} if on_record else ())
    machine.write("/etc/udev/rules.d/60-x.rules", rule)
    facts = look_at_bus(machine, bench())
    assert problems(facts) == {"port 1-1": code}
    found = next(fact for fact in facts if fact.code)
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
def test_a_board_where_no_udev_runs(machine: FolderMachine, file: str, step: str) -> None:
    machine.file("/run/udev/control").unlink()
    machine.write("/etc/udev/rules.d/60-x.rules", OURS)
    machine.write(file, "5.15-microsoft-standard-WSL2")
    machine.plug()
    (found,) = explain(AccessDeniedError("x"), [chip()], machine)
    assert found.code == "no-udev"
    assert step in next_steps([found], IDF_PY, chip())[0]


def test_a_board_without_a_node(machine: FolderMachine) -> None:
    machine.file(machine.plug()).unlink()
    assert problems(look_at_bus(machine, bench())) == {"port 1-1": "no-node"}


def test_a_board_that_a_program_holds(machine: FolderMachine) -> None:
    machine.plug(drivers=("cdc_acm", "cdc_acm", "usbfs"))
    machine.open_to_all = True
    machine.run_program(77, "qemu-system", NODE)
    facts = look_at_bus(machine, bench())
    assert problems(facts) == {"port 1-1": "device-busy"}
    (found,) = explain(DeviceBusyError("x"), [chip()], machine)
    assert found in facts
    assert found.text == f"interface 2 is claimed; {NODE} is open in qemu-system (process 77)"
    assert next_steps([found], IDF_PY, chip()) == ["Close qemu-system (process 77), then try again."]


def test_nobody_is_named_who_was_not_seen(machine: FolderMachine) -> None:
    machine.plug(drivers=("cdc_acm", "cdc_acm", "usbfs"))
    (found,) = explain(DeviceBusyError("x"), [chip()], machine)
    assert found.text.endswith("open in a program that this user cannot see")
    assert found.data["holders"] == []
    machine.plug(number=3)
    machine.file("/sys/bus/usb/devices/1-1:1.2/driver").unlink()
    assert explain(DeviceBusyError("x"), [chip()], machine) == []


def test_of_several_boards_the_one_that_failed_is_explained(machine: FolderMachine) -> None:
    machine.plug()
    machine.plug(path="1-2.4", number=3)
    (found,) = explain(AccessDeniedError("No.", path="1-2.4"), [chip()], machine)
    assert found.topic == "port 1-2.4"
    assert len(explain(AccessDeniedError("Port 1-2.4: no permission."), [chip()], machine)) == 2


@pytest.mark.parametrize(
    ("code", "step"),
    [
        ("device-busy", "Close the program"),
        ("no-permission", "udev --install" if sys.platform.startswith("linux") else "administrator"),
        ("no-driver", "Zadig"),
        ("no-usb", "pass the USB bus"),
    ],
)
def test_every_problem_of_a_board_has_a_next_steps(code: str, step: str) -> None:
    (line,) = next_steps([Finding("port 1-1", Level.PROBLEM, "", code)], ESP_DFU, chip())
    assert step in line


def test_a_kernel_driver_on_the_dfu_interface(machine: FolderMachine) -> None:
    machine.plug(drivers=(None, None, "usbhid"))
    machine.open_to_all = True
    facts = look_at_bus(machine, bench())
    assert problems(facts) == {"port 1-1": "kernel-driver"}
    (step,) = next_steps([fact for fact in facts if fact.code], IDF_PY, chip())
    assert step.endswith("echo 1-1:1.2 | sudo tee /sys/bus/usb/drivers/usbhid/unbind")
    assert explain(DeviceBusyError("x"), [chip()], machine) == [fact for fact in facts if fact.code]


def test_what_libusb_says_counts_where_the_system_says_nothing(machine: FolderMachine) -> None:
    rig = bench()
    rig.board.faults.no_access = True
    assert problems(look_at_bus(machine, rig)) == {"port 1-1": "no-permission"}


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
def test_no_board(
    machine: FolderMachine, wanted: str | None, boards: tuple[str, ...], other: bool, code: str, step: str
) -> None:
    rig = bench(*(boards or ("esp32s3",)), others=[serial_jtag()] if other else [])
    if not boards:
        rig.board.unplug()
    facts = usb.bus(machine, chips(), chip(wanted) if wanted else None, rig.bus, simulated=True)
    assert problems(facts) == {"board": code}
    assert step in next_steps([fact for fact in facts if fact.code], ESP_DFU, chip(wanted) if wanted else None)[0]


def test_several_boards_are_no_problem_but_are_told(machine: FolderMachine) -> None:
    facts = look_at_bus(machine, bench("esp32s3", "esp32s3"))
    assert problems(facts) == {}
    assert facts[-1].text == "2 ESP32-S3 boards are there: 1-1, 1-2"
    steps = next_steps(facts, ESP_DFU, chip())
    assert steps == advice_for(SeveralDevicesError("", paths=["1-1", "1-2"]), ESP_DFU)
    assert "--path 1-1" in steps[0]
    assert next_steps(look_at_bus(machine, bench("esp32s3")), ESP_DFU, chip()) == []
    assert next_steps(facts, ESP_DFU, None) == []


def test_an_empty_bus(machine: FolderMachine) -> None:
    rig = bench()
    rig.board.unplug()
    (fact,) = look_at_bus(machine, rig)
    assert fact.code == "no-usb"


# --- what a failed command ends with ----------------------------------------------------------------------


def test_without_a_board_its_serial_bridge_is_named(machine: FolderMachine) -> None:
    machine.plug("10c4:ea60", "1-3", 5, ["cp210x"], {0: "ttyUSB0"}, "CP2102N USB to UART Bridge")
    machine.plug(terminals={0: "tty/ttyACM0"})
    for error in (DeviceNotFoundError("x"), AppRunningError("x")):
        (fact,) = explain(error, chips(), machine)
        text = "10c4:ea60, CP2102N USB to UART Bridge, serial port /dev/ttyUSB0"
        assert (fact.topic, fact.text, fact.level) == ("port 1-3", text, Level.NOT_APPLICABLE)
    assert explain(OtherPathError("x"), chips(), machine) == []


@pytest.mark.parametrize(
    "error", [DeviceNotFoundError("x"), ReenumerationError("x"), UsbUnavailableError("x")], ids=lambda e: e.code
)
def test_wsl_and_containers_are_named_where_usb_is_missing(machine: FolderMachine, error: EspDfuError) -> None:
    assert explain(error, chips(), machine) == []
    machine.write("/proc/sys/kernel/osrelease", "5.15-microsoft-standard-WSL2")
    machine.write("/.dockerenv")
    assert [fact.code for fact in explain(error, chips(), machine)] == ["wsl", "container"]
    machine.plug("1234:5678")
    assert explain(error, chips(), machine) == []


def test_what_does_not_belong_to_an_error_is_not_shown(machine: FolderMachine) -> None:
    machine.write("/.dockerenv")
    assert explain(StallError("x"), chips(), machine) == []
    assert explain(UsbUnavailableError("x", missing="pyusb"), chips(), machine) == []
    machine.plug(drivers=(None, None, "usbfs"))
    assert explain(DeviceBusyError("x"), chips(), machine) != []
    assert explain(DeviceBusyError("x"), chips(), Machine(machine.root, platform="darwin")) == []


# --- the environment --------------------------------------------------------------------------------------


def test_the_libusb_that_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    # Not started: libusb 1.0.26 does not start on a machine without USB.
    loaded = SimpleNamespace(lib=ctypes.CDLL(str(libusb_package.get_library_path())))
    monkeypatch.setattr(usb, "libusb_backend", lambda: loaded)
    pyusb, libusb = usb.library(Machine())
    assert (pyusb.topic, libusb.topic, libusb.level) == ("pyusb", "libusb", Level.OK)
    assert re.fullmatch(r"1\.0\.\d+", libusb.data["version"])
    assert Path(libusb.data["file"]).is_file()


def test_esp_idf_of_a_shell(tmp_path: Path) -> None:
    def found(folder: Path) -> Finding:
        (fact,) = environment.esp_idf(Machine(environ={"IDF_PATH": str(folder)}))
        return fact

    assert found(tmp_path).code == "no-esp-idf"
    cmake = tmp_path / "tools" / "cmake"
    cmake.mkdir(parents=True)
    (tmp_path / "tools" / "idf.py").write_text("")
    assert found(tmp_path).data["version"] == "unknown version"
    (cmake / "version.cmake").write_text(
        "set(IDF_VERSION_MAJOR 5)\nset(IDF_VERSION_MINOR 5)\nset(IDF_VERSION_PATCH 1)\n"
    )
    assert (found(tmp_path).level, found(tmp_path).data["version"]) == (Level.OK, "5.5.1")


def test_every_package_that_is_needed_is_looked_for() -> None:
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    needed = re.findall(r'^    "([\w-]+)>=', text.partition("\ndependencies = [")[2].partition("\n]")[0], re.MULTILINE)
    assert len(needed) >= 6
    assert set(environment.PACKAGES) == set(needed) - {"pyusb", "libusb-package"}


def test_the_plugins_way_is_that_of_the_machine(tmp_path: Path) -> None:
    (tmp_path / "esp_dfu_ext").mkdir()
    machine = Machine(environ={"IDF_EXTRA_ACTIONS_PATH": str(tmp_path)})
    (fact, _) = environment.plugin(machine, Plugin(["package"]))
    assert fact.text == f"loaded by IDF_EXTRA_ACTIONS_PATH, {tmp_path}"


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "esptool" else find(name))
    (fact,) = environment.python()
    assert fact.code == "no-package"
    assert next_steps([fact], IDF_PY, None)[0].endswith("-m pip install esptool")


def test_a_plugin_whose_actions_were_refused() -> None:
    facts = environment.plugin(Machine(), Plugin(["a way"], {"dfu": False, "dfu-doctor": True}, "/ours"))
    assert problems(facts) == {"actions": "actions-refused"}
    assert next_steps(facts[1:], IDF_PY, None) == ["export IDF_EXTRA_ACTIONS_PATH=/ours"]


@pytest.mark.parametrize("platform", ["win32", "darwin", "linux"])
def test_other_systems_are_only_named(tmp_path: Path, platform: str) -> None:
    assert problems(environment.system(Machine(tmp_path, platform=platform))) == {}


def test_the_rule_is_looked_for_only_where_it_matters(machine: FolderMachine) -> None:
    def rule() -> Finding:
        (fact,) = permission.rules(machine, chips())
        return fact

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


def test_a_missing_rule_is_the_last_thing_to_mend() -> None:
    facts = [
        Finding("udev rule", Level.PROBLEM, "", "no-rule"),
        Finding("board", Level.PROBLEM, "", "no-device"),
    ]
    assert "download mode" in " ".join(next_steps(facts, ESP_DFU, chip()))
    assert "udev --install" in next_steps(facts[:1], ESP_DFU, chip())[0]


# --- the project ------------------------------------------------------------------------------------------


def build_dir(tmp_path: Path) -> Path:
    return write_sample_project(tmp_path / "project", load_target("esp32s3"), app_size=5000)


def of_project(folder: Path, machine: Machine) -> dict[str, Finding]:
    facts = diagnose(chips(), build_dir=folder, bus=bench().bus, simulated=True, machine=machine).findings
    return {fact.topic: fact for fact in facts}


def test_a_project_from_nothing_to_an_old_image(tmp_path: Path, machine: FolderMachine) -> None:
    assert of_project(tmp_path / "nowhere", machine)["project"].level is Level.NOT_APPLICABLE
    build = build_dir(tmp_path)
    facts = of_project(build, machine)
    assert (facts["project"].data["target"], facts["flash"].data["size"]) == ("esp32s3", 4 << 20)
    assert facts["dfu.bin"].code == "input-missing"
    assert next_steps([facts["dfu.bin"]], IDF_PY, chip()) == ["Create it: idf.py dfu"]
    esp_dfu_ext.build(build)
    assert of_project(build, machine)["dfu.bin"].level is Level.OK
    os.utime(build / "dfu.bin", (1, 1))
    assert of_project(build, machine)["dfu.bin"].code == "image-old"
    (build / "dfu.bin").write_bytes(b"rubbish")
    assert of_project(build, machine)["dfu.bin"].code == "image"


def test_a_project_that_cannot_be_flashed(tmp_path: Path, machine: FolderMachine) -> None:
    build = build_dir(tmp_path)
    (build.parent / "sdkconfig").write_text('CONFIG_SECURE_BOOT=y\nCONFIG_ESPTOOLPY_FLASHSIZE="2MB"\n')
    security = of_project(build, machine)["security"]
    assert security.text == "Secure Boot: the first boot disables USB DFU permanently"
    description = build / "project_description.json"
    description.write_text(description.read_text().replace("esp32s3", "esp32c3"))
    assert of_project(build, machine)["project"].code == "target-not-supported"
    description.write_text("{")
    assert of_project(build, machine)["project"].code == "build-file"


def advised(build: Path, machine: Machine) -> list[str]:
    return next_steps([fact for fact in of_project(build, machine).values() if fact.code], IDF_PY, None)


def test_only_a_missing_target_leads_to_set_target(tmp_path: Path, machine: FolderMachine) -> None:
    """It renames sdkconfig away: whoever only has a damaged file would lose his settings."""
    build = build_dir(tmp_path)
    args, sdkconfig = (build / "flasher_args.json").read_text(), build.parent / "sdkconfig"
    (build / "flasher_args.json").write_text("{")
    flash = of_project(build, machine)["flash"]
    anew = ["Generate it again: idf.py reconfigure"]
    assert (flash.code, next_steps([flash], IDF_PY, chip())) == ("build-file", anew)
    (build / "flasher_args.json").write_text(args)
    sdkconfig.unlink()
    sdkconfig.mkdir()
    assert of_project(build, machine)["project"].code == "project"
    assert advised(build, machine) == []
    sdkconfig.rmdir()
    (build / "project_description.json").write_text("[]")
    assert advised(build, machine) == anew
    (build / "project_description.json").unlink()
    assert of_project(build, machine)["project"].code == "no-target"
    assert advised(build, machine) == ["Choose the chip: idf.py set-target CHIP"]


def test_a_broken_chip_is_not_mended_by_building(tmp_path: Path, machine: FolderMachine) -> None:
    build = build_dir(tmp_path)
    write_file(build.parent / "dfu_targets" / "esp32s3.yaml", b"schema: [")
    assert of_project(build, machine)["project"].code == "target-file"
    assert advised(build, machine) == []


@pytest.mark.parametrize(
    ("name", "topic", "reason", "step"),
    [
        ("build", "project", "unreadable", "Check its permissions."),
        ("build", "project", "no-file", "Give a folder, such as build."),
        ("flasher_args.json", "flash", "missing", "Build the project first: idf.py build"),
        ("flasher_args.json", "flash", "unreadable", "Check its permissions."),
        ("dfu.bin", "dfu.bin", "missing", "Create it: idf.py dfu"),
        ("dfu.bin", "dfu.bin", "unreadable", "Check its permissions."),
        ("dfu.bin", "dfu.bin", "no-file", "Give the file itself, such as build/dfu.bin."),
    ],
)
def test_a_file_that_cannot_be_had(
    name: str,
    topic: str,
    reason: str,
    step: str,
    tmp_path: Path,
    machine: FolderMachine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build = build_dir(tmp_path)
    path = build if name == "build" else build / name
    if reason == "unreadable":
        forbid(monkeypatch, path)
    else:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        if reason == "no-file":
            path.mkdir() if name == "dfu.bin" else path.touch()
    fact = of_project(build, machine)[topic]
    assert (fact.code, fact.data["reason"]) == ("input-missing", reason)
    assert next_steps([fact], IDF_PY, chip()) == [step]


# --- the command ------------------------------------------------------------------------------------------


def test_nothing_in_the_way_is_0(tmp_path: Path) -> None:
    done = esp_dfu("doctor", boards="esp32s3,303a:1001", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("Ready to flash.\n")
    assert "\x1b" not in done.stdout


def test_a_problem_is_1_with_the_next_step_on_stderr(tmp_path: Path) -> None:
    done = esp_dfu("doctor", boards="303a:1001", cwd=tmp_path)
    assert done.returncode == 1
    assert "PROBLEM  board" in done.stdout
    assert "[other-usb]" in done.stdout
    assert done.stdout.endswith("\n1 problem found.\n")
    assert done.stderr.startswith("  > Put the chip into download mode")


def test_json_is_one_versioned_document(tmp_path: Path) -> None:
    done = esp_dfu("doctor", "--json", boards="esp32s2+no-access", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    document = json.loads(done.stdout)
    assert (document["version"], document["ok"]) == (1, False)
    assert {fact["state"] for fact in document["facts"]} <= {"ok", "problem", "not-applicable"}
    assert [fact["code"] for fact in document["facts"] if fact["state"] == "problem"] == ["no-permission"]
    for fact in document["facts"]:
        assert set(fact) == {"topic", "state", "code", "text", "data"}


NO_PYUSB = "import sys; sys.modules['usb'] = None"
NO_LIBUSB = (
    "import libusb_package, ctypes.util; libusb_package.get_library_path = ctypes.util.find_library = lambda *a: None"
)


@pytest.mark.parametrize(
    ("prelude", "topic", "install"),
    [(NO_PYUSB, "pyusb", "pyusb libusb-package"), (NO_LIBUSB, "libusb", "libusb-package")],
    ids=["pyusb", "libusb"],
)
def test_without_pyusb_or_libusb_the_rest_is_still_told(tmp_path: Path, prelude: str, topic: str, install: str) -> None:
    done = esp_dfu("doctor", "--json", code=prelude + MAIN, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    document = json.loads(done.stdout)
    by_topic = {fact["topic"]: fact for fact in document["facts"]}
    assert by_topic[topic]["code"] == "usb-unavailable"
    assert by_topic["Python"]["state"] == "ok"
    assert by_topic["project"]["state"] == "not-applicable"
    assert "unknown" not in {fact["code"] for fact in document["facts"]}
    cured = next_steps([Finding(topic, Level.PROBLEM, "", "usb-unavailable", by_topic[topic]["data"])], IDF_PY, None)
    assert cured[0].endswith(f"-m pip install {install}")


def test_what_nobody_foresaw_is_a_fact_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr("esp_dfu_ext.doctor.environment.esp_idf", fail)
    report = diagnose(chips(), build_dir=tmp_path / "build", bus=bench().bus, simulated=True)
    assert [(fact.topic, fact.code) for fact in report.problems] == [("ESP-IDF", "unknown")]
    assert "ZeroDivisionError('surprise')" in report.problems[0].text
    assert report.findings[-1].topic == "project"


def test_nothing_about_a_project_ends_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr("esp_dfu_ext.doctor.project.read_project", fail)
    report = diagnose(chips(), build_dir=tmp_path, bus=bench().bus, simulated=True)
    assert [(fact.topic, fact.code) for fact in report.problems] == [("project", "unknown")]
    assert report.findings[-1].topic == "project"


def test_our_own_version_is_told(tmp_path: Path) -> None:
    document = json.loads(esp_dfu("doctor", "--json", boards="esp32s3", cwd=tmp_path).stdout)
    first = document["facts"][0]
    assert (first["topic"], first["state"]) == ("version", "ok")
    assert first["data"] == {"version": esp_dfu_ext.__version__, "path": str(PACKAGE)}
    assert first["text"] == f"esp-dfu-ext {esp_dfu_ext.__version__}, {PACKAGE}"


def test_a_folder_of_chips_that_may_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ESP_DFU_SIMULATE", "esp32s3")
    monkeypatch.setenv("ESP_DFU_TARGETS", str(tmp_path))
    forbid(monkeypatch, tmp_path)
    session = Session(Console(), ESP_DFU)
    assert session.run(lambda session: doctor(session, tmp_path / "build")) == 1
    out = capsys.readouterr().out
    assert f"{tmp_path} cannot be read: Permission denied. [target-file]" in " ".join(out.split())
    assert "found on port 1-1" in out


def test_a_folder_of_chips_that_is_none(tmp_path: Path) -> None:
    done = esp_dfu("doctor", boards="esp32s3", env={"ESP_DFU_TARGETS": "/nowhere"}, cwd=tmp_path)
    assert done.returncode == 1
    assert "[target-file]" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_broken_chip_hides_no_other(tmp_path: Path) -> None:
    text = (builtin_folder() / "esp32s3.yaml").read_text(encoding="utf-8")
    (tmp_path / "mychip.yaml").write_text(text.replace("name: esp32s3", "name: mychip"), encoding="utf-8")
    (tmp_path / "broken.yaml").write_text("schema: [")
    done = esp_dfu("doctor", boards="mychip", env={"ESP_DFU_TARGETS": str(tmp_path)}, cwd=tmp_path)
    assert done.returncode == 1
    assert "PROBLEM  chips" in done.stdout
    assert re.search(r"ok +board +found on port 1-1", done.stdout)


def test_the_rule_is_printed_and_only_root_may_install_it(tmp_path: Path) -> None:
    assert esp_dfu("udev", cwd=tmp_path).stdout == OURS + "\n"
    prelude = "import esp_dfu_ext.linux.machine as m; m.Machine.is_root = False; m.sys.platform = 'linux'"
    done = esp_dfu("udev", "--install", code=prelude + MAIN, cwd=tmp_path)
    assert done.returncode == 77
    assert "[needs-root]" in done.stderr
    assert re.search(
        rf"  > Run it as root: sudo .*{re.escape(shlex.quote(sys.executable))} -m esp_dfu_ext udev --install\n",
        done.stderr,
    )


def test_the_command_for_root_finds_a_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: "/elsewhere")
    command = shlex.split(own_command("list"))
    assert command[:2] == ["env", f"PYTHONPATH={PACKAGE.parent}"]
    done = subprocess.run([*command, "--help"], cwd="/", env={}, capture_output=True, text=True, timeout=60)
    assert "dfu-util" in done.stdout
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(PACKAGE.parent))
    assert own_command("list", root=True) == f"sudo {shlex.quote(sys.executable)} -m esp_dfu_ext list"
