"""All checks together."""

from __future__ import annotations

from pathlib import Path

import pytest

from esp_dfu_ext.doctor.diagnosis import diagnose

from .kit.boards import make_rig
from .kit.chips import chips


def test_check_with_defect_is_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr("esp_dfu_ext.doctor.environment.esp_idf", fail)
    diagnosis = diagnose(chips(), build_dir=tmp_path / "build", bus=make_rig().bus, simulated=True)
    assert [(finding.topic, finding.code) for finding in diagnosis.problems] == [("ESP-IDF", "unknown")]
    assert "ZeroDivisionError('surprise')" in diagnosis.problems[0].text
    assert diagnosis.findings[-1].topic == "project"


def test_project_check_with_defect_is_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr("esp_dfu_ext.doctor.project.read_project", fail)
    diagnosis = diagnose(chips(), build_dir=tmp_path, bus=make_rig().bus, simulated=True)
    assert [(finding.topic, finding.code) for finding in diagnosis.problems] == [("project", "unknown")]
    assert diagnosis.findings[-1].topic == "project"
