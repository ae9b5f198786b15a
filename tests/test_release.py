"""One version everywhere, and a component that ESP-IDF can read."""

from __future__ import annotations

from pathlib import Path

import yaml

import esp_dfu_ext
from esp_dfu_ext import load_targets

ROOT = Path(__file__).resolve().parent.parent
COMPONENT = yaml.safe_load((ROOT / "idf_component.yml").read_text(encoding="utf-8"))


def test_the_component_has_the_packages_version_and_hinders_no_other_chip() -> None:
    assert COMPONENT["version"] == esp_dfu_ext.__version__
    assert "targets" not in COMPONENT  # a project for another chip could not be configured any more
    assert all(target.chip.removeprefix("ESP32") in COMPONENT["description"] for target in load_targets())


def test_the_changelog_begins_with_what_is_not_released() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert text.index("## [Unreleased]") < text.find("## [0.") or "## [0." not in text
