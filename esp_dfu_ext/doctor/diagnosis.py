"""The diagnosis: all findings, in the order in which they depend on each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import EspDfuError
from ..inputs.esp_idf import Project
from ..linux.machine import Machine
from ..target import Target
from ..usb.bus import Bus
from . import dfu_util, environment, permission, project, usb
from .environment import Plugin
from .findings import Finding, Level, problem, raised

_Check = Callable[[], Sequence[Finding]]


@dataclass(frozen=True)
class Diagnosis:
    """The result of all checks.

    Attributes:
        findings: The results, in the order of the checks.
        target: The project's chip, or None without a project.
    """

    findings: tuple[Finding, ...]
    target: Target | None

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The findings that prevent flashing."""
        return tuple(finding for finding in self.findings if finding.level is Level.PROBLEM)


def diagnose(
    targets: Sequence[Target],
    *,
    build_dir: Path,
    bus: Bus,
    named: bool = False,
    simulated: bool = False,
    project_dir: Path | None = None,
    plugin: Plugin | None = None,
    broken: Sequence[EspDfuError] = (),
    machine: Machine | None = None,
) -> Diagnosis:
    """Check everything needed for flashing. Never fails: a check that raises an error becomes a finding.

    Args:
        targets: All known chips.
        build_dir: Build folder of the project.
        bus: Where to look for boards.
        named: The user named the build folder, so it must exist.
        simulated: The boards are simulated, so libusb and udev of this machine do not matter.
        project_dir: The project's folder, or None to find it from the build folder.
        plugin: How idf.py loaded the actions, or None without idf.py.
        broken: Errors of chip files that cannot be used.
        machine: The machine to check, or None for this one.
    """
    machine = machine or Machine()
    found, no_project = _read_project(build_dir, project_dir, named=named)
    target = next((t for t in targets if found is not None and t.name == found.target), None)
    checks: list[tuple[str, _Check]] = [
        ("version", environment.ourselves),
        ("Python", environment.python),
        ("ESP-IDF", lambda: environment.esp_idf(machine)),
        ("plugin", lambda: environment.plugin(machine, plugin)),
        ("dfu-util", lambda: dfu_util.answering(machine)),
        ("chips", lambda: [raised("chips", error) for error in broken]),
    ]
    if not simulated:
        checks.append(("libusb", lambda: usb.library(machine)))
    checks.append(("system", lambda: environment.system(machine, simulated=simulated)))
    if not simulated and machine.linux:
        checks.append(("udev rule", lambda: permission.rules(machine, targets)))
    checks.append(("bus", lambda: usb.devices(machine, targets, target, bus, simulated=simulated)))
    if not simulated:
        checks.append(("serial ports", lambda: permission.bridges(machine, targets)))
    checks.append(("project", lambda: project.check(found, list(targets)) if found is not None else no_project))
    return Diagnosis(tuple(finding for topic, check in checks for finding in _run(topic, check)), target)


def _read_project(
    build_dir: Path, project_dir: Path | None, *, named: bool
) -> tuple[Project | None, Sequence[Finding]]:
    """Read the project before the first check, because it says which chip to look for."""
    try:
        return project.read(build_dir, project_dir, named=named)
    except Exception as error:
        return None, [_failed("project", error)]


def _run(topic: str, check: _Check) -> Sequence[Finding]:
    """Run a check; a defect in it is a finding too, because the other checks are still worth having."""
    try:
        return check()
    except Exception as error:
        return [_failed(topic, error)]


def _failed(topic: str, error: Exception) -> Finding:
    return problem(topic, "unknown", f"this check failed: {error!r}")
