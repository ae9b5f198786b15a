"""The driver for labgrid: the command line that it runs; the rest needs a computer with boards."""

from __future__ import annotations

from dataclasses import fields

import click
import pytest

from esp_dfu_ext import FlashOptions
from esp_dfu_ext.cli import flash

pytest.importorskip("labgrid")

from esp_dfu_ext.labgrid import _command_line


def test_options_become_words_of_command_line() -> None:
    assert _command_line(FlashOptions()) == []
    assert _command_line(FlashOptions(wait=2.5, strict=True)) == ["--wait", "2.5", "--strict"]


def test_every_flash_option_exists_on_command_line() -> None:
    names = {name for parameter in flash.params if isinstance(parameter, click.Option) for name in parameter.opts}
    assert {f"--{field.name}" for field in fields(FlashOptions)} <= names
