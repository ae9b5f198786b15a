"""`demo`: build, inspect, list and flash on a simulated chip."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ..inputs.identify import find_chip
from ..simulator.sample import write_sample_project
from ..target import PROJECT_FOLDER, Target, load_target
from . import build as build_command
from . import flash as flash_command
from . import inspect as inspect_command
from . import list as list_command
from .flash_run import FlashArguments
from .session import Session


def demo(session: Session, name: str | None) -> int:
    """Run the commands that a user would, in a temporary folder, on a simulated chip.

    Args:
        session: State of this invocation.
        name: Name of the chip; None for the oldest, the one with the lowest chip id.
    """
    project_dir = session.project_dir.absolute()  # the current folder changes below
    if name is None:
        name = min(session.targets(), key=lambda target: target.firmware.chip_id).name
    target = load_target(find_chip(name, [target.name for target in session.targets()]), project_dir)
    build_dir, dfu_bin = Path("hello_world/build"), Path("hello_world/build/dfu.bin")
    steps: list[tuple[str, Callable[[], int]]] = [
        (f"build {build_dir}", lambda: build_command.build(session, [build_dir])),
        (f"inspect {dfu_bin}", lambda: inspect_command.inspect(session, dfu_bin)),
        ("list", lambda: list_command.list_devices(session)),
        (f"flash {dfu_bin}", lambda: flash_command.flash(session, dfu_bin, FlashArguments())),
    ]
    session.boards = target.name
    with _scratch_folder():
        write_sample_project(Path("hello_world"), target)
        session.project_dir = _with_chip(Path("hello_world"), target)
        for command, step in steps:
            session.console.info(command=f"$ esp-dfu {command}")
            code = step()
            session.console.info()
            if code:
                return code
    return 0


def _with_chip(project_dir: Path, target: Target) -> Path:
    """Copy the chip's YAML file, which may come from the user's project, into the project; return the project."""
    assert target.source is not None  # it was read from there
    own = project_dir / PROJECT_FOLDER
    own.mkdir()
    shutil.copy(target.source, own)
    return project_dir


@contextmanager
def _scratch_folder() -> Iterator[None]:
    """Change to a new temporary folder, and back at the end."""
    before = Path.cwd()
    with TemporaryDirectory(prefix="esp-dfu-demo-") as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)
