"""Which program answers to the name dfu-util: other programs, such as an IDE, may call it."""

from __future__ import annotations

from ..launcher import is_launcher, on_path, path_folders
from ..linux.machine import Machine
from .findings import Finding, not_applicable, ok

TOPIC = "dfu-util"


def answering(machine: Machine) -> list[Finding]:
    """Report the first dfu-util on PATH, and whether it is esp-dfu's; none is needed for flashing."""
    programs = on_path(path_folders(machine.environ), machine.platform)
    if not programs:
        return [not_applicable(TOPIC, "not on PATH; esp-dfu does not need it")]
    first, ours = programs[0], [program for program in programs if is_launcher(program)]
    data = {"path": str(first), "ours": first in ours, "others": [str(program) for program in programs[1:]]}
    if first in ours:
        hidden = "".join(f", which hides {program}" for program in programs if program not in ours)
        return [ok(TOPIC, f"esp-dfu answers to it: {first}{hidden}", **data)]
    behind = "; esp-dfu's comes after it on PATH" if ours else ""
    return [ok(TOPIC, f"dfu-util itself answers to it: {first}{behind}", **data)]
