"""Every command that is printed works as printed, with everything that the user typed.

Each state of printed_cases.py is made, and each command that is printed there is run on the boards that the user then
has. Commands of other programs are parsed by a shell; `OTHERS` lists them, with the reason.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import click
import pytest

import esp_dfu_ext
from esp_dfu_ext import cli, idf_actions, load_target
from esp_dfu_ext.commands import options
from esp_dfu_ext.doctor.advice import ADVICE, ESP_DFU, IDF_PY, CommandNames, Context
from esp_dfu_ext.simulator.sample import write_sample_project

from . import printed_cases
from .kit.chips import chips
from .kit.commands import run
from .kit.screens import PIPED, Command, show
from .printed_cases import CASES, ELSEWHERE, Case
from .test_advice import DATA
from .test_errors_page import codes_of_errors

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
        parent = click.Context(cli.cli, **cli.cli.context_settings)  # as in a run: click keeps the help option
        command.make_context(rest[0], rest[1:], parent=parent)


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


# --- in the state in which they are printed ----------------------------------------------------------------

OTHERS = {  # programs that cannot run here
    "sudo": "needs root",
    "udevadm": "needs root",
    "newgrp": "starts a shell",
    "printf": "writes as root",
    "echo": "writes as root",
    "docker": "another machine's",
    "usbipd": "Windows",
    "wsl": "Windows",
    "pio": "PlatformIO",
    "arduino-cli": "Arduino",
    "/opt/venv/bin/python": "names an ELF file that holds a program; its options are tested below",
    "export": "a shell's",
    "journalctl": "another machine's",
    "pnputil": "Windows",
    "ulimit": "a shell's",
    sys.executable: "pip, from the network",
}
WORDS = {  # that the user replaces
    "CHIP": "esp32s3",
    "DFU.BIN": "my project/build/dfu.bin",
    "APP.BIN": "my project/build/hello_world.bin",
}
ONCE = ("0x0", "0x10000")  # in place of each ADDRESS


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("printed") / "projects"
    folder.mkdir()
    printed_cases.make_projects(folder)
    return folder


def printed(lines: Sequence[str]) -> list[str]:
    """Return the commands in what a command printed into pipes."""
    found = []
    for line in lines:
        if line.startswith("  > ") and not line.endswith((".", ":")):
            found.append(line[4:].rpartition(": ")[2])
        elif not line.startswith("  > ") and (
            match := re.search(r": ((?:esp-dfu|idf\.py) [^.:]+(?:\.(?:bin|BIN).*)?)$", line)
        ):
            found.append(match[1])
    return found


def replaced(command: str) -> list[str]:
    """Return the words of a command, with values in place of what the user replaces."""
    addresses = iter(ONCE)
    return [next(addresses) if word == "ADDRESS" else WORDS.get(word, word) for word in shlex.split(command)]


STATES = [pytest.param(code, case, id=f"{code}-{case.words}") for code in CASES for case in CASES[code]]


@pytest.mark.skipif(sys.platform == "win32", reason="forks exist on Unix only")
@pytest.mark.parametrize(("code", "case"), STATES)
def test_what_is_printed_works(code: str, case: Case, projects: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(projects, tmp_path / "projects"))
    case.prepare(folder)
    case.also(folder)
    shown = show(Command(shlex.split(case.words), PIPED, case.boards, linux=case.linux), folder, tmp_path / "machine")
    if code in codes_of_errors() and not case.words.startswith((printed_cases.LIST, printed_cases.DOCTOR)):
        assert f"[{code}]" in "\n".join(shown.err)
    assert printed([*shown.out, *shown.err]) == list(case.prints), [*shown.out, *shown.err]
    for number, command in enumerate(case.prints):
        words = replaced(command)
        if words[0] in ("esp-dfu", "idf.py"):
            again = Command(words, PIPED, case.then, linux=printed_cases.open_to_all)
            done = show(again, folder, tmp_path / f"machine {number}")
            assert done.exit_code == case.ends, (words, done)
        else:
            assert words[0] in OTHERS, words
            subprocess.run(["bash", "-n", "-c", command], check=True)


def test_every_advice_with_a_command_is_tried() -> None:
    names = ESP_DFU.for_image("dfu.bin", "build")
    with_commands = {
        code
        for code in ADVICE
        for target in (None, *chips())
        if printed([f"  > {line}" for line in ADVICE[code](Context(names, target, chips(), DATA.get(code, {})))])
    }
    assert with_commands - set(CASES) == set(ELSEWHERE)


@pytest.mark.skipif(sys.platform == "win32", reason="forks exist on Unix only")
@pytest.mark.parametrize("code", ELSEWHERE)
@pytest.mark.parametrize("names", [ESP_DFU, IDF_PY], ids=["esp-dfu", "idf.py"])
def test_advice_of_other_states_works_on_a_good_board(
    code: str, names: CommandNames, projects: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(projects, tmp_path / "projects"))
    monkeypatch.chdir(folder)
    names = names.in_project("my project", "my project/build").for_image("my project/build/dfu.bin", "my project/build")
    names = replace(names, flash=names.flash + ELSEWHERE[code].typed)
    lines = [f"  > {line}" for line in ADVICE[code](Context(names, chips()[0], chips(), DATA.get(code, {})))]
    for number, command in enumerate(printed(lines)):
        words = replaced(command)
        if words[0] in ("esp-dfu", "idf.py"):
            again = Command(words, PIPED, "esp32s3", linux=printed_cases.open_to_all)
            ends = 0 if words[-1] == "flash" else ELSEWHERE[code].ends  # an action of idf.py itself
            assert show(again, folder, tmp_path / f"machine {number}").exit_code == ends, words
        else:
            assert words[0] in OTHERS, words
            subprocess.run(["bash", "-n", "-c", command], check=True)


def test_esptool_takes_the_printed_options() -> None:
    words = [sys.executable, "-m", "esptool", "--chip", "esp32s3", "elf2image", "--help"]
    assert "elf2image" in subprocess.run(words, capture_output=True, text=True, check=True).stdout


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
