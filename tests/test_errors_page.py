"""docs/errors.md has every code, and no other, with its exit code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from click.testing import CliRunner

from esp_dfu_ext import errors
from esp_dfu_ext.cli import cli

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
ENTRY = re.compile(r"### `(?P<code>[a-z-]+)`\n\n(?P<text>.*?)(?=\n#|\Z)", re.DOTALL)
TABLE_CODE = re.compile(r"`([a-z-]+)`")


def classes(kind: type[errors.EspDfuError] = errors.EspDfuError) -> Iterator[type[errors.EspDfuError]]:
    yield kind
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from classes(below)


def codes_of_errors() -> set[str]:
    """Return the codes of the error tree."""
    return {kind.code for kind in classes()}


def codes_of_findings() -> set[str]:
    """Return the codes that only findings of the doctor have, as its source says."""
    folder = ROOT / "esp_dfu_ext"
    sources = [*(folder / "doctor").glob("*.py"), folder / "linux" / "udev.py"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    codes = re.findall(r'problem\(\s*[^,]+?,\s*"([a-z-]+)"|return "([a-z-]+)", f?"', text)
    return {code for pair in codes for code in pair if code} - codes_of_errors()


def test_page_has_every_error_with_its_exit_code() -> None:
    said = {}
    for entry in ENTRY.finditer(PAGE):
        fields = dict(re.findall(r"^- (\w[\w ]*): (.+?)(?=\n- |\Z)", entry["text"].strip(), re.DOTALL | re.MULTILINE))
        assert list(fields) == ["Symptom", "Cause", "Fix", "Exit code"], entry["code"]
        said[entry["code"]] = int(fields["Exit code"])
    unexplained = PAGE.partition("## Without a known cause")[2].partition("\n## ")[0]
    said |= {code: int(exit_code) for code, exit_code in re.findall(r"^\| `([a-z-]+)` \| (\d+) \|", unexplained, re.M)}
    assert said == {kind.code: kind.exit_code for kind in classes()}


def test_every_table_of_exit_codes_is_the_same() -> None:
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8").partition("## Exit codes")[2]
    rows = re.findall(r"^\| ([\d, ]+) \|", page.partition("\n## ")[0], re.MULTILINE)
    assert sorted(int(code) for row in rows for code in row.split(",")) == sorted(errors.EXIT_CODES)
    by_signal = {128 + number for number in (1, 2, 13, 15)}  # SIGHUP, SIGINT, SIGPIPE, SIGTERM
    assert {0} | by_signal | {kind.exit_code for kind in classes()} == set(errors.EXIT_CODES)


def test_help_shows_the_exit_codes() -> None:
    shown = CliRunner().invoke(cli, ["--help"]).output.partition("Exit codes:\n")[2]
    cells = re.findall(r" {2,3}(\d+)  (\S+(?: \S+)*)", shown)
    assert {int(code): text for code, text in cells} == errors.EXIT_CODES
    assert max(map(len, shown.splitlines())) <= 60


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [kind.code for kind in classes()]
    assert sorted(codes) == sorted(set(codes))


def test_the_tree_names_every_class_with_its_exit_code() -> None:
    """The exit codes that the tree draws: a line without a number has that of the line above it."""
    assert errors.__doc__ is not None
    drawn: dict[str, int | None] = {}
    stack: list[tuple[int, int]] = []
    for line in errors.__doc__.splitlines():
        match = re.match(r"(?P<indent>[ │├└─]*)(?P<name>\w+Error)\b\s*(?P<exit>\d+)?", line)
        if match is None:
            continue
        depth = len(match["indent"])
        stack = [above for above in stack if above[0] < depth]
        exit_code = int(match["exit"]) if match["exit"] else stack[-1][1] if stack else 1
        stack.append((depth, exit_code))
        drawn[match["name"]] = exit_code
    assert drawn == {kind.__name__: kind.exit_code for kind in classes()}


def test_page_has_every_code_of_the_doctor() -> None:
    table = PAGE.partition("## Codes of the doctor")[2]
    said = {
        code for line in table.splitlines() if line.startswith("| `") for code in TABLE_CODE.findall(line.split("|")[1])
    }
    assert len(said) > 12
    assert said == codes_of_findings()


def test_the_readmes_codes_exist() -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## When it does not work")[2]
    codes = re.findall(r"^\| `([a-z-]+)` \|", section.partition("\n## ")[0], re.MULTILINE)
    assert len(codes) >= 6
    assert set(codes) <= {kind.code for kind in classes()}
