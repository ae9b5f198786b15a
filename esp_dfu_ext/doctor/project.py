"""Checks of the project in this folder: chip, flash size, security, dfu.bin."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ..errors import EspDfuError, InputMissingError, ProjectError
from ..inputs.esp_idf import DFU_BIN, Project, read_plan, read_project
from ..inputs.identify import plan_size
from ..inputs.sdkconfig import BUILT_CONFIG
from ..operations.inspect import load_image, outdated_files
from ..target import Target, load_target
from ..units import format_size
from .findings import Finding, not_applicable, ok, problem, raised


def read(build_dir: Path, project_dir: Path | None, *, named: bool) -> tuple[Project | None, list[Finding]]:
    """Return the configured project, or None and the finding that says why there is none.

    A build folder that does not exist is a problem only if the user `named` it, or another folder than the current one
    as the project, and that is none.
    """
    try:
        return read_project(build_dir, project_dir), []
    except EspDfuError as error:
        if not isinstance(error, InputMissingError) or error.reason != "missing" or named:
            return None, [raised("project", error)]
    wrong = _not_a_project(project_dir) if project_dir is not None else None
    if wrong is not None:
        return None, [raised("project", wrong)]
    return None, [not_applicable("project", f"no configured project here: {build_dir} does not exist")]


def _not_a_project(folder: Path) -> EspDfuError | None:
    """Return what is wrong with a project folder; None for a project, and for the current folder, which may be any."""
    if os.path.realpath(folder) == os.path.realpath(Path.cwd()):
        return None
    if not os.path.isdir(folder):  # noqa: PTH112 (Path raises if there is no permission)
        return InputMissingError(f"The project folder {folder} does not exist.", path=folder, role="project folder")
    if not os.path.isfile(folder / "CMakeLists.txt"):  # noqa: PTH113
        return ProjectError(f"{folder} is not an ESP-IDF project: it has no CMakeLists.txt.")
    return None


def check(project: Project, targets: list[Target]) -> list[Finding]:
    """Check a configured project.

    Args:
        project: The project.
        targets: All known chips, to name the one that dfu.bin is for.
    """
    try:
        target = load_target(project.target, project.project_dir)
    except EspDfuError as error:
        return [raised("project", error)]
    return [
        ok("project", f"{project.name or project.build_dir} for {target.chip}", target=target.name),
        _size(project),
        _security(project),
        _image(project, target, targets),
    ]


def _size(project: Project) -> Finding:
    try:
        size = plan_size(read_plan(project), None)
    except EspDfuError as error:
        return raised("flash", error)
    return ok("flash", f"{format_size(size)}, as configured in the project", size=size)


def _security(project: Project) -> Finding:
    security = project.security
    data = {name: getattr(security, name) for name in ("secure_boot", "flash_encryption", "closes_dfu")}
    if security.secure_boot is None:
        text = f"unknown: neither sdkconfig nor {BUILT_CONFIG} of the build folder was found"
        return not_applicable("security", text, **data)
    if not security.features:
        return ok("security", "Secure Boot and flash encryption are off", **data)
    on = f"{' and '.join(security.features)} {'are' if len(security.features) > 1 else 'is'} on"
    return ok("security", f"{on}. {security.consequence}".rstrip("."), **data)


def _image(project: Project, target: Target, targets: list[Target]) -> Finding:
    path = project.build_dir / DFU_BIN
    try:
        made = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(path.stat().st_mtime))
        loaded = load_image(path, target, targets)
    except FileNotFoundError:
        return raised("dfu.bin", InputMissingError(f"{path} does not exist", path=path, role="dfu.bin"))
    except OSError as error:
        return raised("dfu.bin", InputMissingError.of(error, path, "dfu.bin"))
    except EspDfuError as error:
        return raised("dfu.bin", error)
    differ = outdated_files(loaded.image, project.build_dir)
    if differ:
        more = f" and {len(differ) - 1} more" if len(differ) > 1 else ""
        return problem("dfu.bin", "image-old", f"{made}, not of this build: {differ[0].name}{more} changed", made=made)
    return ok("dfu.bin", f"{made}, {format_size(loaded.image.payload_size)} for {target.chip}", made=made)
