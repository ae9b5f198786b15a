"""What people see, command by command, as tests/golden/*.txt: read these files as a user would.

    python -m pytest tests/test_golden.py --update-golden

writes them again; read the difference before you commit it. A file holds one or more commands, each in terminals of
several widths and in pipes (see `tests.kit.screens`). ``┄`` stands for the grey part of a bar. When several boards are
flashed at once, their lines reach a log in any order; here they are sorted by port.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("pseudo-terminals and forks exist on Unix only", allow_module_level=True)

from .golden_cases import CASES, make_folder
from .kit.screens import PIPED, Command, Shown, show

GOLDEN = Path(__file__).resolve().parent / "golden"
WRITES = {"build", "dfu", "enable", "disable"}
# Yellow cannot be read on white, nor blue on black; white and black are used only on a named background.
READABLE = {"default", "red", "green", "magenta", "cyan"}
BLOCKS = {("black", "green"), ("white", "red"), ("black", "cyan"), ("black", "magenta")}


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Projects and images for the commands; those that write get a copy."""
    folder = tmp_path_factory.mktemp("golden") / "projects"
    make_folder(folder)
    return folder


@pytest.mark.parametrize("name", CASES)
def test_screen_is_as_before(name: str, projects: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    text = "\n".join(line for command in CASES[name] for line in section(command, projects, tmp_path))
    file = GOLDEN / f"{name}.txt"
    if request.config.getoption("--update-golden"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text + "\n", encoding="utf-8")
    assert text.splitlines() == file.read_text(encoding="utf-8").splitlines()


def section(command: Command, projects: Path, tmp_path: Path) -> Iterator[str]:
    """Yield a command and what it showed."""
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    if WRITES & set(command.words):
        projects = Path(shutil.copytree(projects, folder / "projects"))
    shown = show(command, projects, folder / "machine")
    assert "Traceback (most recent call last):" not in [*shown.out, *shown.err], shown
    where = "piped" if command.columns == PIPED else f"{command.columns} columns"
    where += f", {command.encoding}" if command.encoding != "utf-8" else ""
    where += "".join(f", {key}={value}" for key, value in command.env.items())
    where += f", after {command.stop:g} s" if command.stop is not None else f", exit code {shown.exit_code}"
    yield f"##### {' '.join(command.words)}   ({where})"
    yield from (shown.styles if command.styles else in_order(shown.out, command))
    if shown.err:
        yield "##### stderr"
        yield from shown.err
    if command.columns != PIPED:
        check_colours(shown)


def in_order(lines: list[str], command: Command) -> list[str]:
    """Sort the lines of a log of several boards by board, up to the table."""
    if command.columns != PIPED or "--all" not in command.words:
        return lines
    table = next((number for number, line in enumerate(lines) if line.startswith("Port ")), 0)
    return sorted(lines[:table], key=lambda line: re.findall(r"\b1-\d+", line)) + lines[table:]


def check_colours(shown: Shown) -> None:
    """Assert that everything can be read on white and on black."""
    assert {colours for colours in shown.colours if colours[1] != "default"} <= BLOCKS
    assert {colour for colour, below in shown.colours if below == "default"} <= READABLE | {"brightblack"}
