"""The pictures of docs/ show what the code and the measurements are now."""

from __future__ import annotations

import importlib
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


@pytest.fixture
def diagrams(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module("diagrams")


@pytest.mark.parametrize("name", ["house.svg", "image-path.svg", "speed.svg"])
def test_diagram_is_up_to_date(name: str, diagrams: Any) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == diagrams.PICTURES[name](), "run: python docs/diagrams.py"


@pytest.mark.parametrize("picture", sorted(DOCS.glob("*.svg")), ids=lambda path: path.name)
def test_picture_is_xml_with_title(picture: Path) -> None:
    assert ET.fromstring(picture.read_text(encoding="utf-8")).findtext("{http://www.w3.org/2000/svg}title")


def test_house_has_every_module(diagrams: Any) -> None:
    package = ROOT / "esp_dfu_ext"
    packages = {path.parent.name for path in package.glob("*/__init__.py")}
    modules = {path.stem for path in package.glob("*.py")}
    rooms = {room for floor in diagrams.layers() for room in floor}
    assert rooms == packages | modules - {"__init__"}
    assert set(diagrams.ROOMS) <= rooms


def test_image_path_names_modules_that_exist(diagrams: Any) -> None:
    shown = "\n".join(word for name, _, lines in [*diagrams.BUILD, *diagrams.FLASH] for word in [name, *lines])
    named = set(re.findall(r"\b(?:image|operations|dfu)\.[a-z_]+", shown))
    assert {"image.plan", "dfu.detach", "operations.inspect"} < named
    missing = [name for name in named if not (ROOT / "esp_dfu_ext" / f"{name.replace('.', '/')}.py").is_file()]
    assert not missing


def test_readme_has_measured_seconds() -> None:
    medians = json.loads((ROOT / "benchmarks" / "usb.json").read_text(encoding="utf-8"))["medians"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"\| ([0-9.]+) s (?=\|)", readme))
    assert shown == {f"{run['seconds']:.1f}" for run in medians}
