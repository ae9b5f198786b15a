"""The Python API: its exports are complete, and the recipes of its page run."""

from __future__ import annotations

import ast
import inspect
import operator
import re
from pathlib import Path

import msgspec
import pytest

import esp_dfu_ext
from esp_dfu_ext import errors, events, load_image, load_target
from esp_dfu_ext.clock import VirtualClock
from esp_dfu_ext.operations import results
from esp_dfu_ext.simulator import Board
from esp_dfu_ext.simulator.sample import write_sample_project
from esp_dfu_ext.target import builtin_folder

from .kit.boards import Rig
from .kit.chips import chip
from .kit.clocks import SharedClock

PAGE = Path(__file__).resolve().parent.parent / "docs" / "python-api.md"
RECIPE = re.compile(r"^### ([^\n]+)\n+```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
RECIPES = dict(RECIPE.findall(PAGE.read_text(encoding="utf-8")))

# The last line that each recipe prints.
LAST_LINES = {
    "Flash one board": "Flashed 31488 bytes to the board on port 1-1.",
    "Flash all boards at once, with progress": "1-2: flashed",
    "Flash each board as it is plugged in": "2 of 2 boards are flashed.",
    "Build an image": "factory.bin has 40976 bytes for ESP32-S3.",
    "Dry run on a simulated board": "All 31488 bytes are in the simulated flash memory.",
}


def test_every_recipe_has_expected_result() -> None:
    assert list(RECIPES) == list(LAST_LINES)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_prints_expected_result(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Only a watch sleeps in the main thread, too.
    clock = SharedClock() if name.startswith("Flash each") else VirtualClock()
    several = name.startswith(("Flash all", "Flash each"))
    rig = Rig([Board.make(chip(), path, clock) for path in ("1-1", "1-2")[: 1 + several]], clock)
    monkeypatch.setattr("esp_dfu_ext.usb.bus.libusb_backend", rig.backend)
    monkeypatch.setattr("esp_dfu_ext.operations.flasher.SystemClock", lambda: clock)
    build_dir = write_sample_project(tmp_path / "my_project", load_target("esp32s3"), app_size=8000)
    if name != "Build an image":
        esp_dfu_ext.build(build_dir)
    monkeypatch.chdir(tmp_path)
    exec(compile(RECIPES[name], name, "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out.splitlines()[-1] == LAST_LINES[name]


def test_every_exported_name_exists() -> None:
    assert [name for name in esp_dfu_ext.__all__ if not hasattr(esp_dfu_ext, name)] == []
    assert set(esp_dfu_ext.__all__) <= set(dir(esp_dfu_ext))
    assert not hasattr(esp_dfu_ext, "no_such_name")


def test_results_events_and_errors_are_exported() -> None:
    kinds = (Exception, msgspec.Struct, KeyboardInterrupt)
    public = {
        name
        for module in (errors, events, results)
        for name, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__
        and isinstance(value, type)
        and (issubclass(value, kinds) or module is results)
        and not name.startswith("_")
    }
    assert public - set(esp_dfu_ext.__all__) == set()


def test_type_checkers_see_what_is_exported() -> None:
    tree = ast.parse(Path(esp_dfu_ext.__file__).read_text(encoding="utf-8"))
    imported = {
        f"{node.module}.{alias.asname or alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
    }
    exported = {f"{module}.{name}" for name, module in esp_dfu_ext._MODULES.items()}
    starred = {f"{module}.*" for module in ("errors", "events")}
    rest = {name for name in exported if not name.startswith(("errors.", "events."))}
    assert imported == rest | starred | {"versions.__version__"}


def test_paths_may_be_text(tmp_path: Path) -> None:
    project = tmp_path / "my_project"
    build_dir = write_sample_project(project, load_target("esp32s3"), app_size=8000)
    own = project / "dfu_targets" / "mychip.yaml"
    own.parent.mkdir()
    text = (builtin_folder() / "esp32s3.yaml").read_text(encoding="utf-8")
    own.write_text(text.replace("name: esp32s3", "name: mychip"), encoding="utf-8")
    made = esp_dfu_ext.build(str(build_dir), project_dir=str(project), output=str(tmp_path / "made.bin"))
    assert made.path == tmp_path / "made.bin"
    assert esp_dfu_ext.inspect(str(made.path)).problems == ()
    assert load_image(str(made.path)).path == made.path
    assert load_target("mychip", str(project)).name == "mychip"
    assert "mychip" in [target.name for target in esp_dfu_ext.load_targets(str(project))]


def rows(section: str) -> list[list[str]]:
    """Return the cells of a table on the page."""
    text = PAGE.read_text(encoding="utf-8").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]


@pytest.mark.parametrize("call", [row[0] for section in ("Functions", "Flasher") for row in rows(section)])
def test_page_shows_calls_with_all_parameters(call: str) -> None:
    shown = re.fullmatch(r"`([\w.]+)\((.*?)\)(?: -> .+)?`", call.replace("FlashOptions()", "..."))
    assert shown
    parameters = inspect.signature(operator.attrgetter(shown[1])(esp_dfu_ext)).parameters
    assert re.findall(r"(?:^|, )(\w+)", shown[2]) == [name for name in parameters if name != "self"]


@pytest.mark.parametrize("row", rows("Results") + rows("Events"), ids=operator.itemgetter(0))
def test_page_shows_all_attributes(row: list[str]) -> None:
    parameters = inspect.signature(getattr(esp_dfu_ext, row[0].strip("`"))).parameters
    assert re.findall(r"`(\w+)`", row[1]) == list(parameters)
