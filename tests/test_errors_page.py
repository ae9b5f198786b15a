"""docs/errors.md lists every code, and no other, with its exit code."""

from __future__ import annotations

import re
from pathlib import Path

from click.testing import CliRunner

from esp_dfu_ext import errors
from esp_dfu_ext.cli import cli

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
ENTRY = re.compile(r"### `(?P<code>[a-z-]+)`\n\n(?P<text>.*?)(?=\n#|\Z)", re.DOTALL)
TABLE_CODE = re.compile(r"`([a-z-]+)`")


def classes() -> list[type[errors.EspDfuError]]:
    """Return all classes of the tree, without those that tests add."""
    return [kind for kind in errors.all_errors() if kind.__module__ == errors.__name__]


def codes_of_errors() -> set[str]:
    """Return the codes of the error tree."""
    return {kind.code for kind in classes()}


def codes_of_findings() -> set[str]:
    """Return the codes that only findings of the doctor have, as its source says."""
    folder = ROOT / "esp_dfu_ext"
    sources = [*(folder / "doctor").glob("*.py"), folder / "linux" / "udev.py"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    codes = re.findall(r'(?:problem|another_way)\(\s*[^,]+?,\s*"([a-z-]+)"|return "([a-z-]+)", f?"', text)
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


def test_exit_code_tables_agree() -> None:
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8").partition("## Exit codes")[2]
    rows = re.findall(r"^\| ([\d, ]+) \|", page.partition("\n## ")[0], re.MULTILINE)
    assert sorted(int(code) for row in rows for code in row.split(",")) == sorted(errors.EXIT_CODES)
    by_signal = {128 + number for number in (1, 2, 13, 15)}  # SIGHUP, SIGINT, SIGPIPE, SIGTERM
    assert {0} | by_signal | {kind.exit_code for kind in classes()} == set(errors.EXIT_CODES)


def test_help_lists_exit_codes() -> None:
    shown = CliRunner().invoke(cli, ["--help"]).output.partition("Exit codes:\n")[2]
    cells = re.findall(r" {2,3}(\d+)  (\S+(?: \S+)*)", shown)
    assert {int(code): text for code, text in cells} == errors.EXIT_CODES
    assert max(map(len, shown.splitlines())) <= 60


def test_page_has_every_code_of_doctor() -> None:
    table = PAGE.partition("## Codes of the doctor")[2]
    said = {
        code for line in table.splitlines() if line.startswith("| `") for code in TABLE_CODE.findall(line.split("|")[1])
    }
    assert len(said) > 12
    assert said == codes_of_findings()


def test_codes_in_readme_exist() -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## When it does not work")[2]
    codes = re.findall(r"^\| `([a-z-]+)` \|", section.partition("\n## ")[0], re.MULTILINE)
    assert len(codes) >= 6
    assert set(codes) <= {kind.code for kind in classes()}
