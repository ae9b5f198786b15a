"""The checks of Python, ESP-IDF, the plugin and the kind of machine."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from esp_dfu_ext.doctor import environment
from esp_dfu_ext.doctor.advice import IDF_PY, next_steps
from esp_dfu_ext.doctor.environment import Plugin
from esp_dfu_ext.doctor.findings import Finding, Level
from esp_dfu_ext.linux.machine import Machine

from .kit.machine import problem_codes


def test_esp_idf_is_found_with_its_version(tmp_path: Path) -> None:
    def found(folder: Path) -> Finding:
        (finding,) = environment.esp_idf(Machine(environ={"IDF_PATH": str(folder)}))
        return finding

    assert found(tmp_path).code == "no-esp-idf"
    cmake = tmp_path / "tools" / "cmake"
    cmake.mkdir(parents=True)
    (tmp_path / "tools" / "idf.py").write_text("")
    assert found(tmp_path).data["version"] == "unknown version"
    (cmake / "version.cmake").write_text(
        "set(IDF_VERSION_MAJOR 5)\nset(IDF_VERSION_MINOR 5)\nset(IDF_VERSION_PATCH 1)\n"
    )
    assert (found(tmp_path).level, found(tmp_path).data["version"]) == (Level.OK, "5.5.1")


def test_every_dependency_is_checked() -> None:
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    needed = re.findall(r'^    "([\w-]+)>=', text.partition("\ndependencies = [")[2].partition("\n]")[0], re.MULTILINE)
    assert len(needed) >= 6
    assert set(environment.PACKAGES) == set(needed) - {"pyusb", "libusb-package"}


def test_plugin_route_comes_from_machine(tmp_path: Path) -> None:
    (tmp_path / "esp_dfu_ext").mkdir()
    machine = Machine(environ={"IDF_EXTRA_ACTIONS_PATH": str(tmp_path)})
    (finding, _) = environment.plugin(machine, Plugin(["package"]))
    assert finding.text == f"loaded by IDF_EXTRA_ACTIONS_PATH, {tmp_path}"


def test_missing_package_is_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "esptool" else find(name))
    (finding,) = environment.python()
    assert finding.code == "no-package"
    assert next_steps([finding], IDF_PY, None)[0].endswith("-m pip install esptool")


def test_refused_actions_are_problem() -> None:
    findings = environment.plugin(Machine(), Plugin(["a way"], {"dfu": False, "dfu-doctor": True}, "/ours"))
    assert problem_codes(findings) == {"actions": "actions-refused"}
    assert next_steps(findings[1:], IDF_PY, None) == ["export IDF_EXTRA_ACTIONS_PATH=/ours"]


@pytest.mark.parametrize("platform", ["win32", "darwin", "linux"])
def test_other_systems_have_no_problems(tmp_path: Path, platform: str) -> None:
    assert problem_codes(environment.system(Machine(tmp_path, platform=platform))) == {}
