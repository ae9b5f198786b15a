"""Every command that advice prints works as printed, with everything that the user typed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import esp_dfu_ext
from esp_dfu_ext import cli, idf_actions, load_target
from esp_dfu_ext.commands import options
from esp_dfu_ext.doctor.advice import ADVICE, ESP_DFU, IDF_PY, CommandNames, Context
from esp_dfu_ext.simulator.sample import write_sample_project

from .kit.chips import chips
from .kit.commands import run
from .test_advice import DATA

FOLDER = "a project [x]; rm $HOME 'q'"
OURS = ("esp-dfu", "idf.py dfu", "idf.py -")
ESP_IDF = ("set-target", "build", "menuconfig", "reconfigure", "flash")  # actions of idf.py itself


@pytest.fixture
def dfu_bin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = Path(FOLDER)
    write_sample_project(folder, load_target("esp32s3"), app_size=5000, bootloader_size=2000)
    return esp_dfu_ext.build(folder / "build").path


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command of ours in advice or warnings."""
    for line in text.splitlines():
        found = re.search(r"(?:^\s*> |: |^)((?:esp-dfu|idf\.py) [^.].*)$", line)
        if found is not None:
            yield shlex.split(found[1])


def parse(words: list[str]) -> None:
    """Parse a command of ours without running it, or name what is wrong with it."""
    program, *rest = words
    if program == "idf.py":
        while rest[0] in ("-C", "-B"):
            assert Path(rest[1]).is_dir()
            rest = rest[2:]
        if rest[0] == "-p":  # idf.py's own option, which its flash takes
            assert rest[2:] == ["flash"]
            return
        name, *rest = rest
        if name in ESP_IDF:
            assert len(rest) == (name == "set-target")
            return
        action = idf_actions._actions()[name]
        described = [
            click.Option(o["names"], **{k: v for k, v in o.items() if k != "names"}) for o in action["options"]
        ]
        click.Command(name, params=[*described]).make_context(name, rest)
    else:
        command = cli.cli.commands[rest[0]]
        command.make_context(rest[0], rest[1:])


@pytest.mark.parametrize("names", [ESP_DFU, IDF_PY], ids=["esp-dfu", "idf.py"])
@pytest.mark.parametrize("code", ADVICE)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_advice_can_be_parsed(code: str, names: CommandNames, elsewhere: bool, dfu_bin: Path) -> None:
    if elsewhere and names is IDF_PY:
        names = names.in_project(FOLDER, f"{FOLDER}/build")
    else:
        names = names.for_image(str(dfu_bin), str(dfu_bin.parent))
    lines = [
        line
        for target in (None, *chips())
        for line in ADVICE[code](Context(names, target, chips(), DATA.get(code, {})))
    ]
    for words in commands("\n".join(lines)):
        parse(words)


# --- commands that are run again --------------------------------------------------------------------------

TYPED = ["--wait", "2.5", "--strict", "--reset", "--report", "the report.jsonl", "--trace", "a trace.txt", "--quiet"]


def advised(err: str) -> list[list[str]]:
    """Return the commands in a command's errors and warnings."""
    return list(commands(err))


def test_several_boards_are_told_apart_by_what_is_printed(
    dfu_bin: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ESP_DFU_SIMULATE", "esp32s3,esp32s3")
    assert run("flash", dfu_bin, *TYPED) == 64
    one, all_ = advised(capfd.readouterr().err)
    for words in (one, all_):
        assert words[:3] == ["esp-dfu", "flash", str(dfu_bin)]
        for option in TYPED:
            assert option in words
        assert run(*words[1:]) == 0
    assert Path("the report.jsonl").read_text().count('"pass"') == 3


@pytest.mark.parametrize("fault", ["error@20", "reset@20"])
@pytest.mark.parametrize("more", [[], TYPED, ["--all"], ["--watch", "--count", "1"], ["--path", "1-1"]])
def test_printed_command_flashes_the_same_boards(
    fault: str, more: list[str], dfu_bin: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ESP_DFU_SIMULATE", f"esp32s3+held+{fault}")
    assert run("flash", dfu_bin, *more) == 74
    found = advised(capfd.readouterr().err)
    assert found
    monkeypatch.setenv("ESP_DFU_SIMULATE", "esp32s3")
    for words in found:
        assert run(*words[1:]) == 0, words


def test_forced_command_is_the_typed_one(
    dfu_bin: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (dfu_bin.parent / "hello_world.bin").write_bytes(b"not an app")
    typed = [dfu_bin.parent, "-o", "an image.bin", "--part-size", "64K", "--only", "app", "--only", "bootloader"]
    assert run("build", *typed) == 65
    *_, forced = advised(capfd.readouterr().err)
    assert forced[-1] == "--force"
    assert run(*forced[1:]) == 0
    monkeypatch.setenv("ESP_DFU_SIMULATE", "esp32s3")
    capfd.readouterr()
    assert Path("an image.bin").is_file()


def test_idf_py_names_options_with_another_value_than_their_default() -> None:
    described = [*options.flash(), options.quiet()]
    values = {"path": ("1-1", "1-2.3"), "all": False, "serial": None, "wait": 2.5, "strict": True, "count": None}
    assert options.typed(described, values) == ["--path", "1-1", "--path", "1-2.3", "--wait", "2.5", "--strict"]
    assert options.typed(options.build(), {"only": ("app",), "output": "a b", "part_size": None, "force": False}) == [
        "--output",
        "a b",
        "--only",
        "app",
    ]
    assert options.typed(described, {"path": (), "wait": 0.0, "all": False}) == []
