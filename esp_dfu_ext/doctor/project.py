"""The project in this folder, as far as a flash depends on it."""

from __future__ import annotations

import time
from pathlib import Path

from ..errors import EspDfuError, InputMissingError
from ..operations.inspect import load_image, newer_inputs
from ..project import DFU_BIN, Project, read_plan, read_project
from ..target import Target, load_target
from ..units import format_size
from .facts import Fact, not_applicable, ok, problem, raised


def read(build_dir: Path, project_dir: Path | None) -> tuple[Project | None, Fact | None]:
    """The project; None, and the fact that says why, where there is none that is configured."""
    try:
        return read_project(build_dir, project_dir), None
    except EspDfuError as error:
        if isinstance(error, InputMissingError) and error.reason == "missing":
            return None, not_applicable("project", f"no configured project here: there is no {build_dir}")
        return None, raised("project", error)


def facts(project: Project, targets: list[Target]) -> list[Fact]:
    """What a configured project says."""
    try:
        target = load_target(project.target, project.project_dir)
    except EspDfuError as error:
        return [raised("project", error, supported=list(getattr(error, "supported", ())))]
    return [
        ok("project", f"{project.name or project.build_dir} for {target.chip}", target=target.name),
        _size(project),
        _security(project),
        _image(project, target, targets),
    ]


def _size(project: Project) -> Fact:
    try:
        size = read_plan(project).chip_size
    except EspDfuError as error:
        return raised("flash", error)
    return ok("flash", f"{format_size(size)}, as the project is configured", size=size)


def _security(project: Project) -> Fact:
    on = ["Secure Boot"] if project.secure_boot else []
    on += ["flash encryption"] if project.flash_encryption else []
    if not on:
        return ok("security", "neither Secure Boot nor flash encryption", secure_boot=False, flash_encryption=False)
    return ok(
        "security",
        f"{' and '.join(on)}: the first boot closes USB DFU for good",
        secure_boot=project.secure_boot,
        flash_encryption=project.flash_encryption,
    )


def _image(project: Project, target: Target, targets: list[Target]) -> Fact:
    path = project.build_dir / DFU_BIN
    try:
        made = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(path.stat().st_mtime))
        loaded = load_image(path, target, targets)
    except FileNotFoundError:
        return raised("dfu.bin", InputMissingError(f"there is no {path}", path=path, role="dfu.bin"))
    except OSError as error:
        return raised("dfu.bin", InputMissingError.of(error, path, "dfu.bin"))
    except EspDfuError as error:
        return raised("dfu.bin", error)
    newer = newer_inputs(path, project.build_dir)
    if newer:
        more = f" and {len(newer) - 1} more" if len(newer) > 1 else ""
        return problem("dfu.bin", "image-old", f"of {made}, older than {newer[0].name}{more}", made=made)
    return ok("dfu.bin", f"of {made}, {format_size(loaded.image.flash_size)} for {target.chip}", made=made)
