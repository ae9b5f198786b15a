"""The checks of the project and its dfu.bin."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

import esp_dfu_ext
from esp_dfu_ext import load_target
from esp_dfu_ext.doctor import project
from esp_dfu_ext.doctor.advice import IDF_PY, next_steps
from esp_dfu_ext.doctor.diagnosis import diagnose
from esp_dfu_ext.doctor.findings import Finding, Level
from esp_dfu_ext.linux.machine import Machine
from esp_dfu_ext.simulator.sample import write_sample_project

from .kit.boards import make_rig
from .kit.chips import chip, chips
from .kit.files import edit_json, forbid, write_file
from .kit.machine import FolderMachine

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Linux files, with owners and links")


def build_dir(tmp_path: Path) -> Path:
    return write_sample_project(tmp_path / "project", load_target("esp32s3"), app_size=5000)


def check_project(folder: Path, machine: Machine) -> dict[str, Finding]:
    findings = diagnose(chips(), build_dir=folder, bus=make_rig().bus, simulated=True, machine=machine).findings
    return {finding.topic: finding for finding in findings}


def test_project_is_followed_from_nothing_to_old_image(tmp_path: Path, machine: FolderMachine) -> None:
    assert check_project(tmp_path / "nowhere", machine)["project"].level is Level.NOT_APPLICABLE
    build = build_dir(tmp_path)
    findings = check_project(build, machine)
    assert (findings["project"].data["target"], findings["flash"].data["size"]) == ("esp32s3", 4 << 20)
    assert findings["dfu.bin"].code == "input-missing"
    assert next_steps([findings["dfu.bin"]], IDF_PY, chip()) == ["Create it: idf.py dfu"]
    esp_dfu_ext.build(build)
    assert check_project(build, machine)["dfu.bin"].level is Level.OK
    with (build / "hello_world.bin").open("ab") as app:
        app.write(b"changed")
    assert check_project(build, machine)["dfu.bin"].code == "image-old"
    (build / "dfu.bin").write_bytes(b"rubbish")
    assert check_project(build, machine)["dfu.bin"].code == "image"


def test_folder_that_is_named_must_be_a_project(
    tmp_path: Path, machine: FolderMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(folder: Path) -> Finding:
        found, findings = project.read(folder / "build", folder, named=False)
        assert found is None
        return findings[0]

    folder = tmp_path / "my_project"
    missing = check(folder)
    assert (missing.code, missing.text) == ("input-missing", f"The project folder {folder} does not exist.")
    assert next_steps([missing], IDF_PY) == ["Check the folder after -C."]
    folder.mkdir()
    assert (check(folder).code, "has no CMakeLists.txt" in check(folder).text) == ("project", True)
    monkeypatch.chdir(folder)
    assert check(folder).level is Level.NOT_APPLICABLE
    monkeypatch.chdir(tmp_path)
    (folder / "CMakeLists.txt").touch()
    assert check(folder).level is Level.NOT_APPLICABLE


def test_unusable_project_has_code_of_its_error(tmp_path: Path, machine: FolderMachine) -> None:
    build = build_dir(tmp_path)
    (build.parent / "sdkconfig").write_text('CONFIG_SECURE_BOOT=y\nCONFIG_ESPTOOLPY_FLASHSIZE="2MB"\n')
    description = build / "project_description.json"
    description.write_text(description.read_text().replace("esp32s3", "esp32c3"))
    assert check_project(build, machine)["project"].code == "target-not-supported"
    description.write_text("{")
    assert check_project(build, machine)["project"].code == "build-file"


def test_security_is_read_from_either_file_or_unknown(tmp_path: Path, machine: FolderMachine) -> None:
    build = build_dir(tmp_path)
    assert check_project(build, machine)["security"].text == "Secure Boot and flash encryption are off"
    (build.parent / "sdkconfig").unlink()
    unknown = check_project(build, machine)["security"]
    assert (unknown.level, unknown.data["secure_boot"], unknown.data["closes_dfu"]) == (
        Level.NOT_APPLICABLE,
        None,
        None,
    )
    assert unknown.text.startswith("unknown: neither sdkconfig nor config/sdkconfig.json")
    write_file(build / "config" / "sdkconfig.json", b'{"SECURE_BOOT": true, "SECURE_DISABLE_ROM_DL_MODE": true}')
    on = check_project(build, machine)["security"]
    assert (on.level, on.data["secure_boot"], on.data["closes_dfu"]) == (Level.OK, True, True)
    assert on.text == "Secure Boot is on. A new chip accepts this image; its first boot closes USB DFU permanently"


def steps_for(build: Path, machine: Machine) -> list[str]:
    return next_steps([*check_project(build, machine).values()], IDF_PY)


def test_only_missing_target_leads_to_set_target(tmp_path: Path, machine: FolderMachine) -> None:
    # set-target renames sdkconfig: with only a damaged build file, the user would lose all settings.
    build = build_dir(tmp_path)
    args, sdkconfig = (build / "flasher_args.json").read_text(), build.parent / "sdkconfig"
    (build / "flasher_args.json").write_text("{")
    flash = check_project(build, machine)["flash"]
    again = ["Generate it again: idf.py reconfigure"]
    assert (flash.code, next_steps([flash], IDF_PY, chip())) == ("build-file", again)
    (build / "flasher_args.json").write_text(args)
    sdkconfig.unlink()
    sdkconfig.mkdir()
    assert check_project(build, machine)["project"].code == "project"
    assert steps_for(build, machine) == []
    sdkconfig.rmdir()
    (build / "project_description.json").write_text("[]")
    assert steps_for(build, machine) == again
    (build / "project_description.json").unlink()
    edit_json(build / "flasher_args.json", extra_esptool_args=None)
    assert check_project(build, machine)["project"].code == "no-target"
    assert steps_for(build, machine) == ["Choose the chip (this empties the build folder): idf.py set-target CHIP"]


def test_broken_chip_file_is_not_blamed_on_build(tmp_path: Path, machine: FolderMachine) -> None:
    build = build_dir(tmp_path)
    write_file(build.parent / "dfu_targets" / "esp32s3.yaml", b"schema: [")
    assert check_project(build, machine)["project"].code == "target-file"
    assert steps_for(build, machine) == []


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
def test_unusable_file_has_reason_and_advice(
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
    finding = check_project(build, machine)[topic]
    assert (finding.code, finding.data["reason"]) == ("input-missing", reason)
    assert next_steps([finding], IDF_PY, chip()) == [step]
