"""States in which commands are printed: what is typed there, and on which machine what is printed is run.

`CASES` has one or more for every code of `doctor.advice` that prints a command of ours; tests/test_printed_commands.py
runs the first command, then each command that it printed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from esp_dfu_ext import build, load_target
from esp_dfu_ext.simulator.sample import write_sample_project

from .kit.files import edit_json
from .kit.machine import NODE, OURS, FolderMachine

Prepare = Callable[[Path], object]
Linux = Callable[[FolderMachine], object]


@dataclass(frozen=True)
class Case:
    """A command that prints others.

    Attributes:
        words: The command line.
        boards: Simulated boards while it runs.
        then: Boards while the printed commands run, as after what the advice says to do first.
        prepare: Changes the projects before.
        repair: Changes them before the printed commands run.
        linux: Makes the machine that the boards are on; None for boards that are known to be simulated.
        prints: How many commands are printed.
        shows: What the first of them says.
        ends: Exit code of the printed commands.
    """

    words: str
    boards: str = ""
    then: str = "esp32s3"
    prepare: Prepare = lambda folder: None
    repair: Prepare = lambda folder: None
    linux: Linux | None = lambda machine: None
    prints: int = 1
    shows: str = ""
    ends: int = 0


P, PB = "'my project'", "'my project/build'"
DFU, FLASH = "'my project/build/dfu.bin'", "esp-dfu flash 'my project/build/dfu.bin'"


def make_projects(folder: Path) -> None:
    """Write a project with an image, one of another chip, and one that is not built."""
    for name, chip in (("my project", "esp32s3"), ("other chip", "esp32s2"), ("not built", "esp32s3")):
        write_sample_project(folder / name, load_target(chip), app_size=9_000, bootloader_size=2_000)
        (folder / name / "CMakeLists.txt").touch()
        edit_json(folder / name / "build" / "project_description.json", project_path=None, build_dir=None)
        if name != "not built":
            build(folder / name / "build")


def _file(name: str) -> Callable[[Path], Path]:
    return lambda folder: folder / "my project" / "build" / name


def _cut(folder: Path) -> None:
    image = folder / "my project" / "build" / "dfu.bin"
    image.write_bytes(image.read_bytes()[:-900])


def _garbage(name: str) -> Prepare:
    return lambda folder: _file(name)(folder).write_bytes(b"\xe9 no image" * 50)


def _remove(name: str) -> Prepare:
    return lambda folder: _file(name)(folder).unlink()


def _changed(folder: Path) -> None:
    app = _file("hello_world.bin")(folder)
    app.write_bytes(app.read_bytes()[:-1] + b"!")


def _nobody_names_the_chip(folder: Path) -> None:
    built = folder / "my project" / "build"
    (built / "project_description.json").unlink()
    shutil.rmtree(built / "config", ignore_errors=True)
    edit_json(built / "flasher_args.json", extra_esptool_args=None)


CASES: dict[str, list[Case]] = {}
