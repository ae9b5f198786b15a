"""The documentation: its commands run, its links lead somewhere, and JSON output matches the published schemas."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from esp_dfu_ext import load_target
from esp_dfu_ext.cli import cli
from esp_dfu_ext.clock import VirtualClock
from esp_dfu_ext.commands.host import Host
from esp_dfu_ext.operations.build import build
from esp_dfu_ext.simulator.sample import write_sample_project

from .kit import builds
from .kit.commands import idf_py, run

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        ROOT / "targets" / "README.md",
        *(ROOT / "components").rglob("README.md"),
    ]
)
CODE = re.compile(r"^ {4,}([^\n]+)$|^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"")


def code_lines(page: Path) -> Iterator[str]:
    """Yield the lines of a page's code blocks, without comments."""
    for indented, fenced in CODE.findall(page.read_text(encoding="utf-8")):
        for line in (indented or fenced).splitlines():
            yield re.sub(r"\s+#.*", "", line).strip()


def commands(program: str) -> list[str]:
    """Return every command of this program that a page shows."""
    found = {line for page in PAGES for line in code_lines(page) if line.startswith(program + " ")}
    return sorted(found)


ESP_DFU = commands("esp-dfu")
IDF_PY = [line for line in commands("idf.py") if line.split()[1].startswith("dfu")]
# These run until Ctrl-C, wait for a hundred boards, or change this machine.
ONLY_PARSED = ("--watch", "--install", "--over")


@pytest.fixture
def folder(tmp_path: Path, virtual_clock: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create the project and the image that the pages name, and work there."""
    project = tmp_path / "my_project"
    write_sample_project(project, load_target("esp32s3"), app_size=8000)
    (project / "CMakeLists.txt").touch()
    build(project / "build", output=tmp_path / "dfu.bin")
    build(project / "build")
    merged = bytearray(b"\xff" * 0x20000)
    for address, (name, content) in builds.parts("esp32s3").items():
        merged[address : address + len(content)] = content
        (tmp_path / name).write_bytes(content)
    (tmp_path / "firmware.factory.bin").write_bytes(merged)
    (tmp_path / "firmware.bin").rename(tmp_path / "app.bin")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHELL", "/bin/bash")
    return tmp_path


def boards(line: str) -> str:
    """Return the simulated boards that a command needs."""
    if "tty" in line:
        return "esp32s3,bridge=10c4:ea60"
    return ",".join(["esp32s3"] * (3 if re.search(r"--(path|serial|all)\b", line) else 1))


def test_pages_show_commands() -> None:
    assert len(ESP_DFU) >= 12
    assert len(IDF_PY) >= 8


@pytest.mark.parametrize("line", ESP_DFU)
def test_esp_dfu_command_runs(line: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = line.replace("PORT", "tty1-2")
    if "tty" in line:
        clock = VirtualClock()
        monkeypatch.setattr("esp_dfu_ext.commands.session.this_host", lambda: Host(clock))
        monkeypatch.setattr(time, "sleep", clock.sleep)  # esptool's, between two states of the lines
    monkeypatch.setenv("ESP_DFU_SIMULATE", boards(line))
    words = shlex.split(line.partition(" > ")[0].partition(" | ")[0])[1:]
    if words[0] == "verify":
        monkeypatch.setenv("ESP_DFU_SIMULATE", f"esp32s3+holds={words[1]}")
    if any(word in ONLY_PARSED for word in words):
        group = cli.make_context("esp-dfu", list(words))
        name, command, rest = cli.resolve_command(group, words)
        assert name is not None and command is not None
        command.make_context(name, rest, parent=group)
        return
    assert run(*words) == 0


@pytest.mark.parametrize("line", IDF_PY)
def test_idf_py_command_runs(line: str, folder: Path) -> None:
    line = line.replace("7c:df:a1:..", "7c:df:a1:00:00:01").replace("PORT", "tty1-2")
    words = shlex.split(line)[1:]
    if "--watch" in words:
        words = [*words, "--count", "1"]
    over_serial = "--over" in words  # simulated boards have no serial port; this machine has none with such a name
    env = {"ESP_DFU_SIMULATE": "" if over_serial else boards(line), "IDF_EXTRA_ACTIONS_PATH": str(ROOT)}
    done = idf_py(folder / "my_project", env, "5.5", *words)
    assert done.returncode == (69 if over_serial else 0), done.stdout + done.stderr


def anchors(page: Path) -> set[str]:
    """The anchors that forges and the site give to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def leads_somewhere(page: Path, link: str) -> bool:
    """Whether a link of this page leads to a file and, with an anchor, to a heading in it."""
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    return target.exists() and (not anchor or anchor in anchors(target))


def test_links_lead_to_files_and_headings() -> None:
    links = [(page, "".join(link)) for page in PAGES for link in LINK.findall(page.read_text(encoding="utf-8"))]
    local = [(page, link) for page, link in links if not re.match(r"[a-z]+:", link)]
    assert len(local) > 50
    assert [f"{page.name}: {link}" for page, link in local if not leads_somewhere(page, link)] == []


# --- JSON -------------------------------------------------------------------------------------------------


def schema(name: str) -> dict[str, Any]:
    """Return a schema of docs/, closed: its objects accept no key that it does not name."""

    def close(part: Any) -> Any:
        if isinstance(part, dict):
            part = {key: close(value) for key, value in part.items()}
            if "properties" in part:
                part["additionalProperties"] = False
        return [close(item) for item in part] if isinstance(part, list) else part

    document: dict[str, Any] = close(json.loads((ROOT / "docs" / f"{name}.schema.json").read_text(encoding="utf-8")))
    jsonschema.validators.validator_for(document).check_schema(document)
    return document


def printed(words: str, capsys: pytest.CaptureFixture[str]) -> list[Any]:
    """Return the JSON documents that a command prints."""
    run(*words.split())
    text = capsys.readouterr().out
    return [json.loads(line) for line in text.splitlines()] if words.startswith("flash") else [json.loads(text)]


@pytest.mark.parametrize(
    ("name", "words", "boards"),
    [
        ("list", "list --json", "esp32s3,esp32s2+no-access,303a:1001,esp32p4+dfu"),
        ("contents", "build my_project/build --json -o made.bin", ""),
        ("contents", "inspect dfu.bin --json", ""),
        ("contents", "inspect my_project/build --json", ""),
        ("doctor", "doctor --json my_project/build", "esp32s3"),
        ("doctor", "doctor --json nowhere", "303a:1001"),
        ("flash", "flash --json dfu.bin", "esp32s3"),
        ("flash", "flash --json dfu.bin --reset", "esp32s3+strict"),
        ("flash", "flash --json dfu.bin", "esp32s3+vanish@90"),
        ("flash", "flash --json dfu.bin --wait 3", "303a:1001"),
        ("flash", "flash --json dfu.bin --all", "esp32s3,esp32s3+busy,esp32s3+error@50"),
    ],
)
def test_json_matches_its_schema(
    name: str,
    words: str,
    boards: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ESP_DFU_SIMULATE", boards)
    validator = jsonschema.Draft202012Validator(schema(name))
    documents = printed(words, capsys)
    assert documents
    for document in documents:
        validator.validate(document)


def test_schema_refuses_unknown_keys_and_events() -> None:
    validator = jsonschema.Draft202012Validator(schema("flash"))
    good = {"version": 1, "event": "board-left", "path": "1-1"}
    validator.validate(good)
    for bad in ({**good, "version": 2}, {**good, "event": "x"}, {**good, "more": 1}, {"version": 1, "event": "failed"}):
        assert not validator.is_valid(bad), bad
