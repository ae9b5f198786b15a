"""The component for ESP-IDF and the changelog fit the package."""

from __future__ import annotations

from pathlib import Path

import yaml

import esp_dfu_ext
from esp_dfu_ext import load_targets

ROOT = Path(__file__).resolve().parent.parent
COMPONENT = yaml.safe_load((ROOT / "idf_component.yml").read_text(encoding="utf-8"))


def test_component_has_package_version_and_allows_all_targets() -> None:
    assert COMPONENT["version"] == esp_dfu_ext.__version__
    assert "targets" not in COMPONENT  # or a project for another chip could not be configured
    assert all(target.chip.removeprefix("ESP32") in COMPONENT["description"] for target in load_targets())


def test_changelog_starts_with_unreleased() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert text.index("## [Unreleased]") < text.find("## [0.") or "## [0." not in text
