"""What TAB offers for `esp-dfu`: chips, and the boards that are there. Quick, and silent when anything is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from ..errors import EspDfuError

if TYPE_CHECKING:
    from ..target import Target
    from ..usb.bus import UsbDevice

PROGRAM = "esp-dfu"
# Where click looks for a shell's question.
_VARIABLE = "_ESP_DFU_COMPLETE"


def script(shell: str, command: click.Command) -> str:
    """What the shell must evaluate, once, so that it asks us; for bash, zsh and fish."""
    kind = get_completion_class(shell)
    assert kind is not None  # click has these three
    return kind(command, {}, PROGRAM, _VARIABLE).source()


def chips(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The chips that can be simulated."""
    return [
        CompletionItem(target.name, help=target.chip)
        for target in _targets(context)
        if target.name.startswith(incomplete)
    ]


def paths(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The ports of the boards that are there, without those that were named already."""
    from ..dfu.discovery import describe

    given = context.params.get(parameter.name or "") or ()
    targets = _targets(context)
    return [
        CompletionItem(device.path, help=describe(device, targets))
        for device in _boards(targets)
        if device.path.startswith(incomplete) and device.path not in given
    ]


def serials(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The serial numbers of the boards that are there and may be asked."""
    found = []
    for device in _boards(_targets(context)):
        try:
            serial = device.read_string(device.serial_index)
        except EspDfuError:
            continue
        if serial is not None and serial.startswith(incomplete):
            found.append(CompletionItem(serial, help=f"port {device.path}"))
    return found


def _targets(context: click.Context) -> list[Target]:
    """The chips that the command will know."""
    from ..project import project_dir_of_image
    from ..target import load_targets

    # A line that ends with an option is not parsed to its end: DFU.BIN is left over.
    dfu_bin = context.params.get("dfu_bin") or next(iter(context.args), None)
    try:
        return load_targets(project_dir_of_image(Path(dfu_bin)) if dfu_bin else Path(), on_broken=_ignore)
    except (EspDfuError, OSError):
        return []


def _ignore(error: Any) -> None:
    """A broken chip file is not told on TAB."""


def _boards(targets: list[Target]) -> list[UsbDevice]:
    from ..dfu.discovery import dfu_interfaces
    from ..doctor.advice import ESP_DFU
    from ..ui.console import Console
    from .session import Session

    try:
        session = Session(Console(quiet=True), ESP_DFU)
        bus = session.bus(session.simulation(targets))
        return [device for device in bus.scan(frozenset(t.usb.vid for t in targets)) if dfu_interfaces(device)]
    except (EspDfuError, OSError):
        return []
