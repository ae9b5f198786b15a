"""Completion of `esp-dfu` on TAB: chips and connected boards. It is silent when anything goes wrong."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from ..errors import EspDfuError
from ..units import clean

if TYPE_CHECKING:
    from ..target import Target
    from ..usb.bus import UsbDevice

PROGRAM = "esp-dfu"
_WORD = re.compile(r"[0-9A-Za-z][0-9A-Za-z:._-]*")
_VARIABLE = "_ESP_DFU_COMPLETE"  # set by the shell when it asks click for completions


def script(shell: str, command: click.Command) -> str:
    """Return the script that a shell (bash, zsh, fish) evaluates once to enable completion."""
    kind = get_completion_class(shell)
    assert kind is not None  # click has these three
    return kind(command, {}, PROGRAM, _VARIABLE).source()


def chips(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a chip that can be simulated."""
    return _offered(((target.name, target.chip) for target in _targets(context)), incomplete)


def paths(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the port of a connected board that is not on the command line yet."""
    from ..dfu.discovery import describe

    given = context.params.get(parameter.name or "") or ()
    targets = _targets(context)
    boards = (device for device in _boards(targets) if device.path not in given)
    return _offered(((device.path, describe(device, targets)) for device in boards), incomplete)


def serials(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the serial number of a connected board, as far as it can be read."""
    found = []
    for device in _boards(_targets(context)):
        with suppress(EspDfuError):
            found.append((device.read_serial() or "", f"port {device.path}"))
    return _offered(found, incomplete)


def _offered(items: Iterable[tuple[str, str]], incomplete: str) -> list[CompletionItem]:
    """Return the items that begin with what was typed.

    Shells insert them unquoted. So a name that is more than a word to some shell is left out: it may come from a device
    or from a stranger's project.
    """
    return [
        CompletionItem(value, help=clean(text))
        for value, text in items
        if value.startswith(incomplete) and _WORD.fullmatch(value)
    ]


def _targets(context: click.Context) -> list[Target]:
    """Return the chips that the command would know."""
    from ..inputs.esp_idf import project_dir_of_image
    from ..target import load_targets

    # click does not parse a line that ends with an option to its end, and leaves WHAT over.
    dfu_bin = next(iter(context.params.get("what") or context.args), None)
    try:
        return load_targets(project_dir_of_image(Path(dfu_bin)) if dfu_bin else Path(), on_broken=_ignore)
    except (EspDfuError, OSError):
        return []


def _ignore(error: Any) -> None:
    """Do not report a broken YAML file on TAB."""


def _boards(targets: list[Target]) -> list[UsbDevice]:
    """Return the connected devices with DFU, none if USB cannot be used."""
    from ..dfu.discovery import dfu_interfaces
    from ..doctor.advice import ESP_DFU
    from ..ui.console import Console
    from .session import Session

    try:
        session = Session(Console(quiet=True), ESP_DFU)
        bus = session.open_bus(session.make_simulation(targets))
        return [device for device in bus.scan(frozenset(t.usb.vid for t in targets)) if dfu_interfaces(device)]
    except (EspDfuError, OSError):
        return []
