"""The driver for labgrid: with labgrid's own target and the real esp-dfu, on a board whose udev is left out."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest

import esp_dfu_ext
from esp_dfu_ext import FlashOptions
from esp_dfu_ext.cli import flash
from esp_dfu_ext.errors import DeviceNotFoundError, InputMissingError, OtherPathError, RemoteError, UsageError
from esp_dfu_ext.events import Event, Flashed, Progress
from esp_dfu_ext.simulator.sample import write_sample_project

from .kit.chips import chip

pytest.importorskip("labgrid")

import attr
from labgrid import Target
from labgrid.resource import Resource
from labgrid.resource.udev import USBFlashableDevice

from esp_dfu_ext import labgrid
from esp_dfu_ext.labgrid import EspDfuDriver, _command_line

SCRIPTS = {
    "silent": "sleep 60",
    "dribbles": "while true; do printf .; sleep 0.1; done",
    "line without end": "exec cat /dev/zero",
    "no JSON": "echo hello",
    "stays": "exec >&-; exec sleep 60",
    "fails": "echo oh no >&2; exit 3",
}
SAID = {
    "silent": "printed no line for 0.3 s.",
    "dribbles": "printed no line for 0.3 s.",
    "line without end": "printed a line of more than 1048576 bytes.",
    "no JSON": "Expected a JSON line of esp-dfu, got 'hello'.",
    "stays": "closed its output, but did not end.",
    "fails": "ended with exit code 3 and no result.",
}


@attr.s(eq=False)
class Board(USBFlashableDevice):  # type: ignore[misc]
    """A board that udev would have to find."""

    here: str | None = "1-1"
    path = property(lambda self: self.here)

    def __attrs_post_init__(self) -> None:
        Resource.__attrs_post_init__(self)
        self.avail = True

    def poll(self) -> None:
        """Find nothing new."""


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EspDfuDriver]:
    monkeypatch.setenv("ESP_DFU_SIMULATE", chip().name)
    monkeypatch.setenv("PYTHONPATH", str(Path(esp_dfu_ext.__file__).parents[1]))
    target = Target("main")
    Board(target=target, name=None)  # type: ignore[call-arg]
    driver = EspDfuDriver(target=target, name=None)  # type: ignore[call-arg]
    driver.tool = program(tmp_path, f'exec "{sys.executable}" -m esp_dfu_ext "$@"')
    target.activate(driver)
    yield driver
    target.deactivate(driver)


def program(folder: Path, script: str) -> str:
    file = folder / "esp-dfu"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return str(file)


@pytest.fixture
def dfu_bin(tmp_path: Path) -> Path:
    return esp_dfu_ext.build(write_sample_project(tmp_path / "project", chip(), app_size=20_000)).path


def test_options_become_words_of_command_line() -> None:
    assert _command_line(FlashOptions()) == []
    assert _command_line(FlashOptions(wait=2.5, strict=True)) == ["--wait", "2.5", "--strict"]
    assert _command_line(FlashOptions(no_loader=True)) == ["--no-loader"]


def test_every_flash_option_exists_on_command_line() -> None:
    names = {name for parameter in flash.params if isinstance(parameter, click.Option) for name in parameter.opts}
    assert {f"--{field.name.replace('_', '-')}" for field in fields(FlashOptions)} <= names


def test_board_is_listed_and_flashed(driver: EspDfuDriver, dfu_bin: Path) -> None:
    assert [(device["path"], device["target"]) for device in driver.list()] == [("1-1", chip().name)]
    events: list[Event] = []
    result = driver.flash(str(dfu_bin), on_event=events.append, strict=True, wait=1.0)
    assert result.path == "1-1"
    assert {Progress, Flashed} <= {type(event) for event in events}


def test_error_of_esp_dfu_is_raised(driver: EspDfuDriver, dfu_bin: Path) -> None:
    driver.board.here = "1-7"
    with pytest.raises(OtherPathError):
        driver.flash(str(dfu_bin))


def test_missing_board_and_image_are_named(driver: EspDfuDriver, tmp_path: Path, dfu_bin: Path) -> None:
    with pytest.raises(UsageError, match="No image"):
        driver.flash()
    with pytest.raises(InputMissingError, match="does not exist"):
        driver.flash(str(tmp_path / "missing.bin"))
    driver.board.here = None
    with pytest.raises(DeviceNotFoundError, match="is not on the USB of this computer"):
        driver.flash(str(dfu_bin))


@pytest.mark.parametrize("verb", ["flash", "list"])
@pytest.mark.parametrize("kind", SCRIPTS)
def test_every_wait_for_the_program_has_an_end(
    kind: str, verb: str, driver: EspDfuDriver, dfu_bin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_LIST_TIME", "_SILENCE", "_RECOVERY_TIME"):
        monkeypatch.setattr(labgrid, name, 0.3)
    program(tmp_path, SCRIPTS[kind])
    words: dict[str, Any] = {"filename": str(dfu_bin)} if verb == "flash" else {}
    with pytest.raises(RemoteError) as caught:
        getattr(driver, verb)(**words)
    text = (
        "list --json on this computer printed an unknown document."
        if (verb, kind) == ("list", "no JSON")
        else SAID[kind]
    )
    assert caught.value.message.endswith(text)
    assert caught.value.notes == (("oh no",) if kind == "fails" else caught.value.notes)
