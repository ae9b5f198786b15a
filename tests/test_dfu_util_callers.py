"""Programs that call dfu-util: their calls and what they read, with the launcher of `enable --dfu-util` on PATH."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from esp_dfu_ext import build
from esp_dfu_ext.launcher import write_launcher
from esp_dfu_ext.simulator.sample import write_sample_project
from esp_dfu_ext.target import load_target

from .kit.commands import TIMEOUT, environment
from .real_usb import dfu_util_cases

ROOT = Path(__file__).resolve().parents[1]
DONE = subprocess.CompletedProcess[str]


class Caller:
    """A folder with the launcher and an image, and simulated boards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write_launcher(folder / "bin")
        project = write_sample_project(folder, load_target("esp32s2"), app_size=8_000, bootloader_size=4_000)
        self.image = build(project, output=folder / "dfu.bin").path

    def run(self, *words: str | Path, boards: str = "esp32s2", **more: str) -> DONE:
        env = environment(boards, **more)
        env["PATH"] = f"{self.folder / 'bin'}:{env['PATH']}"
        return subprocess.run(
            list(map(str, words)), env=env, cwd=self.folder, capture_output=True, text=True, timeout=TIMEOUT
        )


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Caller:
    return Caller(tmp_path_factory.mktemp("caller"))


# --- ESP-IDF ----------------------------------------------------------------------------------------------

# What tools/cmake/run_dfu_util.cmake of ESP-IDF does, written anew: the words, and a failure if there is an exit code.
RUN_DFU_UTIL = """
if(LIST)
  set(words --list)
else()
  set(words -d 303a:${PID})
  if(NOT "$ENV{ESP_DFU_PATH}" STREQUAL "")
    list(APPEND words --path $ENV{ESP_DFU_PATH})
  endif()
  list(APPEND words -D ${BIN})
endif()
execute_process(COMMAND dfu-util ${words} RESULT_VARIABLE result)
if(result)
  message(FATAL_ERROR "failed: ${result}")
endif()
"""


def esp_idf_words(path: str) -> list[str]:
    """Return what the script passes on, for machines without cmake."""
    return ["-d", "303a:2", *(["--path", path] if path else []), "-D", "dfu.bin"]


@pytest.mark.parametrize(
    ("path", "boards", "good"), [("", "esp32s2", True), ("1-2", "esp32s2,esp32s2", True), ("", "esp32s3", False)]
)
def test_esp_idf_flashes(caller: Caller, path: str, boards: str, good: bool) -> None:
    done = caller.run("dfu-util", *esp_idf_words(path), boards=boards)
    assert (done.returncode, "Done!" in done.stdout) == ((0, True) if good else (74, False))
    if shutil.which("cmake"):
        (caller.folder / "run.cmake").write_text(RUN_DFU_UTIL)
        words = ["-D", "PID=2", "-D", "BIN=dfu.bin", "-P", "run.cmake"]
        done = caller.run("cmake", *words, boards=boards, ESP_DFU_PATH=path)
        assert (done.returncode == 0, "failed: 74" in done.stderr) == (good, not good)


def test_esp_idf_without_pid(caller: Caller) -> None:
    """Its script runs with an empty PID too; the file then says which chip."""
    assert caller.run("dfu-util", "-d", "303a:", "-D", "dfu.bin", boards="esp32s2,esp32s3").returncode == 0


def test_esp_idf_lists(caller: Caller) -> None:
    done = caller.run("dfu-util", "--list", boards="esp32s2,esp32s3+dfu")
    assert (done.returncode, done.stdout.count("Found ")) == (0, 2)


def test_idf_tools_reads_the_version(caller: Caller) -> None:
    """tools.json: version_cmd and version_regex."""
    found = re.search(r"dfu-util ([0-9.]+)", caller.run("dfu-util", "--version").stdout)
    assert found is not None
    assert found[1] == "0.11"


# --- VS Code's ESP-IDF extension --------------------------------------------------------------------------

# The regular expressions of src/flash/transports/dfu/helpers.ts, version 2.2 and later.
DEVICE = re.compile(
    r'\[([0-9a-fA-F]{4}\:[0-9a-fA-F]{4}\]) ver=.+, devnum=[0-9]+, cfg=.+, intf=.+, path=".+", alt=.+, name=".+", '
    r'serial=".+"'
)
PATHS = (re.compile(r'path="[0-9.]+-[0-9.]+"'), re.compile(r'path="([^"]+)"'))
LABEL = re.compile(r":\d+]")


def test_vscode_lists_chooses_and_flashes(caller: Caller) -> None:
    listed = caller.run("dfu-util", "--list", boards="esp32s2,esp32s3+dfu,esp32p4,303a:1001")
    devices = [match[0] for match in DEVICE.finditer(listed.stdout)]
    assert len(devices) == listed.stdout.count("Found ") == 3
    assert [LABEL.findall(device) for device in devices] == [[":0002]"], [":0009]"], [":0012]"]]
    for device, path in zip(devices, ("1-1", "1-2", "1-3")):
        assert [pattern.findall(device) for pattern in PATHS] == [[f'path="{path}"'], [path]]
    done = caller.run("dfu-util", "-d", "303a:2", "-D", caller.image, boards="esp32s2,esp32s3+dfu")
    assert (done.returncode, done.stderr) == (0, "")


def test_vscode_sees_no_device(caller: Caller) -> None:
    assert DEVICE.search(caller.run("dfu-util", "--list", boards="303a:1001").stdout) is None
    assert caller.run("dfu-util", "-d", "303a:2", "-D", caller.image, boards="303a:1001").returncode == 74


# --- west, PlatformIO, Arduino, scripts -------------------------------------------------------------------


def test_west_runner(caller: Caller) -> None:
    """Zephyr's runner: it waits until the list has the alternate setting, and then downloads."""
    words = ("dfu-util", "-d,303a:0002")
    assert ", alt=0," not in caller.run(*words, "-l").stdout  # in run-time mode
    assert ", alt=0," in caller.run(*words, "-l", boards="esp32s2+dfu").stdout
    assert caller.run(*words, "-a", "0", "-D", "dfu.bin", boards="esp32s2+dfu").returncode == 0


@pytest.mark.parametrize(
    "words",
    [
        "-d 303a:0x0002 -a 0 -R -D dfu.bin",  # PlatformIO: DFUUtil with vid:pid from the board
        "-R -a 0 -d 303a:0002 -D dfu.bin",
        "--device 0x303a:0x0002 -D dfu.bin -a0 -R",  # Arduino's recipes, apart from -Q of their own dfu-util
        "--alt 0 --download dfu.bin",
        "-p 1-1 --alt 0 --download dfu.bin",  # labgrid
    ],
)
def test_recipes(caller: Caller, words: str) -> None:
    done = caller.run("dfu-util", *words.split())
    assert done.returncode == 0, done.stderr
    assert "Download done." in done.stdout


def test_st_recipes_are_refused(caller: Caller) -> None:
    done = caller.run("dfu-util", "-d", "0483:df11", "-a", "0", "-s", "0x08000000:leave", "-D", "dfu.bin")
    assert (done.returncode, "DfuSe" in done.stderr) == (64, True)


def test_scripts_search_stderr(caller: Caller) -> None:
    done = caller.run("dfu-util", "-D", "dfu.bin", boards="303a:1001")
    assert done.returncode == 74
    assert done.stderr.startswith("dfu-util: No DFU capable USB device available\n")


# --- the page ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("different", [True, False])
def test_page_has_the_tables_of_the_comparison(different: bool) -> None:
    page = (ROOT / "docs" / "dfu-util.md").read_text(encoding="utf-8")
    assert "\n".join(dfu_util_cases.table(different=different)) in page


def test_every_difference_has_a_reason() -> None:
    assert [case.call for case in dfu_util_cases.CASES if bool(case.ours) != bool(case.why)] == []
