"""All facts, in the order in which they depend on each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import EspDfuError
from ..linux.machine import Machine
from ..project import Project
from ..target import Target
from ..usb.bus import Bus
from . import environment, permission, project, usb
from .environment import Plugin
from .facts import Fact, State, problem


@dataclass(frozen=True)
class Report:
    """What was looked at.

    Attributes:
        facts: in their order.
        target: the project's chip, None where there is no project.
    """

    facts: tuple[Fact, ...]
    target: Target | None

    @property
    def problems(self) -> tuple[Fact, ...]:
        """The facts that stand in the way of a flash."""
        return tuple(fact for fact in self.facts if fact.state is State.PROBLEM)


def diagnose(
    targets: Sequence[Target],
    *,
    build_dir: Path,
    project_dir: Path | None = None,
    plugin: Plugin | None = None,
    broken: Sequence[EspDfuError] = (),
    bus: Bus,
    simulated: bool = False,
    machine: Machine | None = None,
) -> Report:
    """Look at everything that a flash needs; never fails.

    Args:
        targets: the chips that are known.
        build_dir: of the project, which need not be there.
        project_dir: its folder; None where the build folder must tell.
        plugin: how idf.py loaded us; None without it.
        broken: errors of the chips' files that cannot be used.
        bus: Where to look for boards.
        simulated: They are simulated, so the libusb and udev of this machine do not matter.
        machine: this one, or another for tests.
    """
    machine = machine or Machine()
    found, no_project = _read_project(build_dir, project_dir)
    target = next((t for t in targets if found is not None and t.name == found.target), None)
    looks: list[tuple[str, Callable[[], Sequence[Fact]]]] = [
        ("version", environment.ourselves),
        ("Python", environment.python),
        ("ESP-IDF", lambda: environment.esp_idf(machine)),
        ("plugin", lambda: environment.plugin(machine, plugin)),
        ("chips", lambda: [problem("chips", error.code, error.message) for error in broken]),
    ]
    if not simulated:
        looks.append(("libusb", lambda: usb.library(machine)))
    looks.append(("system", lambda: environment.system(machine, simulated=simulated)))
    if not simulated and machine.linux:
        looks.append(("udev rule", lambda: list(permission.rules(machine, targets))))
    looks.append(("bus", lambda: usb.bus(machine, targets, target, bus, simulated=simulated)))
    if not simulated:
        looks.append(("serial ports", lambda: permission.bridges(machine, targets)))
    looks.append(
        ("project", lambda: [no_project] if no_project else project.facts(found, list(targets)) if found else [])
    )
    return Report(tuple(fact for topic, look in looks for fact in _looked(topic, look)), target)


def _read_project(build_dir: Path, project_dir: Path | None) -> tuple[Project | None, Fact | None]:
    """First, because it says which chip is meant."""
    try:
        return project.read(build_dir, project_dir)
    except Exception as error:
        return None, _unknown("project", error)


def _looked(topic: str, look: Callable[[], Sequence[Fact]]) -> Sequence[Fact]:
    """One look; whatever nobody foresaw is a fact too, because the others are still worth having."""
    try:
        return look()
    except Exception as error:
        return [_unknown(topic, error)]


def _unknown(topic: str, error: Exception) -> Fact:
    return problem(topic, "unknown", f"could not be looked at: {error!r}")
