"""`esp-dfu doctor`: its table, its JSON document and its exit code."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

import esp_dfu_ext
from esp_dfu_ext import build, load_target
from esp_dfu_ext.commands.doctor import doctor
from esp_dfu_ext.commands.session import Session
from esp_dfu_ext.doctor.advice import ESP_DFU, IDF_PY, next_steps
from esp_dfu_ext.doctor.findings import Finding, Level
from esp_dfu_ext.simulator.sample import write_sample_project
from esp_dfu_ext.target import builtin_folder
from esp_dfu_ext.ui.console import Console

from .kit.commands import MAIN, PACKAGE, esp_dfu
from .kit.files import forbid

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Linux files, with owners and links")


def test_no_problem_exits_with_0(tmp_path: Path) -> None:
    done = esp_dfu("doctor", boards="esp32s3,303a:1001", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\nReady to flash; no project was checked.\n" in done.stdout
    assert done.stdout.endswith(": esp-dfu flash DFU.BIN --trace trace.txt\n")
    assert "\x1b" not in done.stdout


def test_named_build_folder_must_exist(tmp_path: Path) -> None:
    done = esp_dfu("doctor", "nope", boards="esp32s3", cwd=tmp_path)
    assert done.returncode == 1
    assert "PROBLEM  project" in done.stdout
    assert "The build folder nope does not exist. [input-missing]" in done.stdout
    assert done.stdout.endswith("\n1 problem found.\n")
    assert done.stderr == "  > Check its name.\n  > If it is right, build the project first: idf.py build\n"
    assert "nope/dfu.bin" not in done.stdout + done.stderr


def test_project_folder_will_do_in_place_of_its_build_folder(tmp_path: Path) -> None:
    build(write_sample_project(tmp_path / "my_app", load_target("esp32s3"), app_size=8_000, bootloader_size=4_000))
    done = esp_dfu("doctor", "my_app", boards="esp32s3", cwd=tmp_path)
    assert (done.returncode, "Ready to flash" in done.stdout) == (0, True)
    assert "esp-dfu flash my_app/build/dfu.bin" in done.stdout


def test_each_problem_has_its_step_below_its_topic(tmp_path: Path) -> None:
    write_sample_project(tmp_path, load_target("esp32s2"), app_size=8_000, bootloader_size=4_000)
    done = esp_dfu("doctor", boards="esp32s3", cwd=tmp_path)
    assert done.stdout.endswith("\n2 problems found.\n")
    lines = done.stderr.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == ["board:", "dfu.bin:"]
    assert "  > Put the ESP32-S2 into download mode" in done.stderr
    assert lines[-1] == "  > Create it: esp-dfu build build"


def test_choice_of_board_comes_before_trace(tmp_path: Path) -> None:
    build(write_sample_project(tmp_path, load_target("esp32s3"), app_size=8_000, bootloader_size=4_000))
    done = esp_dfu("doctor", boards="esp32s3,esp32s3", cwd=tmp_path)
    assert (done.returncode, "found on ports 1-1, 1-2\n" in done.stdout) == (0, True)
    assert done.stdout.endswith(
        "\nReady to flash, but choose a board:\n"
        "If flashing still fails, record the USB traffic: esp-dfu flash build/dfu.bin --path 1-1 --trace trace.txt\n"
    )
    assert done.stderr.startswith("  > Choose one, for example: esp-dfu flash build/dfu.bin --path 1-1\n")


def test_problem_exits_with_1_and_advice_on_stderr(tmp_path: Path) -> None:
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
    assert {finding["state"] for finding in document["facts"]} <= {"ok", "problem", "not-applicable"}
    assert [(finding["topic"], finding["code"]) for finding in document["facts"] if finding["state"] == "problem"] == [
        ("port 1-1", "no-permission")
    ]
    assert not any("Port 1-1" in finding["text"] for finding in document["facts"])
    for finding in document["facts"]:
        assert set(finding) == {"topic", "state", "code", "text", "data"}


NO_PYUSB = "import sys; sys.modules['usb'] = None"
NO_LIBUSB = (
    "import libusb_package, ctypes.util; libusb_package.get_library_path = ctypes.util.find_library = lambda *a: None"
)


@pytest.mark.parametrize(
    ("prelude", "topic", "install"),
    [(NO_PYUSB, "pyusb", "pyusb libusb-package"), (NO_LIBUSB, "libusb", "libusb-package")],
    ids=["pyusb", "libusb"],
)
def test_missing_pyusb_or_libusb_leaves_other_checks(tmp_path: Path, prelude: str, topic: str, install: str) -> None:
    done = esp_dfu("doctor", "--json", code=prelude + MAIN, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    document = json.loads(done.stdout)
    by_topic = {finding["topic"]: finding for finding in document["facts"]}
    assert by_topic[topic]["code"] == "usb-unavailable"
    assert by_topic["Python"]["state"] == "ok"
    assert by_topic["project"]["state"] == "not-applicable"
    assert "unknown" not in {finding["code"] for finding in document["facts"]}
    steps = next_steps([Finding(topic, Level.PROBLEM, "", "usb-unavailable", by_topic[topic]["data"])], IDF_PY, None)
    assert steps[0].endswith(f"-m pip install {install}")


def test_own_version_comes_first(tmp_path: Path) -> None:
    document = json.loads(esp_dfu("doctor", "--json", boards="esp32s3", cwd=tmp_path).stdout)
    first = document["facts"][0]
    assert (first["topic"], first["state"]) == ("version", "ok")
    assert first["data"] == {"version": esp_dfu_ext.__version__, "path": str(PACKAGE)}
    assert first["text"] == f"esp-dfu-ext {esp_dfu_ext.__version__}, {PACKAGE}"


def test_unreadable_folder_of_chips_is_problem(
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


def test_missing_folder_of_chips_is_problem(tmp_path: Path) -> None:
    done = esp_dfu("doctor", boards="esp32s3", env={"ESP_DFU_TARGETS": "/nowhere"}, cwd=tmp_path)
    assert done.returncode == 1
    assert "[target-file]" in done.stdout
    assert "Traceback" not in done.stderr


def test_broken_chip_file_hides_no_other_chip(tmp_path: Path) -> None:
    text = (builtin_folder() / "esp32s3.yaml").read_text(encoding="utf-8")
    (tmp_path / "mychip.yaml").write_text(text.replace("name: esp32s3", "name: mychip"), encoding="utf-8")
    (tmp_path / "broken.yaml").write_text("schema: [")
    done = esp_dfu("doctor", boards="mychip", env={"ESP_DFU_TARGETS": str(tmp_path)}, cwd=tmp_path)
    assert done.returncode == 1
    assert "PROBLEM  chips" in done.stdout
    assert re.search(r"ok +board +found on port 1-1", done.stdout)
