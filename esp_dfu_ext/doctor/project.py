"""Checks of the project in this folder: chip, flash size, security, dfu.bin."""

from __future__ import annotations

import time
from pathlib import Path

from ..errors import EspDfuError, InputMissingError
from ..inputs.esp_idf import DFU_BIN, Project, read_plan, read_project
from ..inputs.identify import plan_size
from ..inputs.sdkconfig import BUILT_CONFIG
from ..operations.inspect import load_image, newer_inputs
from ..target import Target, load_target
from ..units import format_size
from .findings import Finding, not_applicable, ok, problem, raised


def read(build_dir: Path, project_dir: Path | None, *, named: bool) -> tuple[Project | None, list[Finding]]:
    """Return the configured project, or None and the finding that says why there is none.

    A build folder that does not exist is a problem only if the user `named` it.
    """
    try:
        return read_project(build_dir, project_dir), []
    except EspDfuError as error:
        if isinstance(error, InputMissingError) and error.reason == "missing" and not named:
            return None, [not_applicable("project", f"no configured project here: {build_dir} does not exist")]
        return None, [raised("project", error)]


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
    return ok("security", f"{' and '.join(security.features)}: {security.consequence}".rstrip("."), **data)


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
    newer = newer_inputs(path, project.build_dir)
    if newer:
        more = f" and {len(newer) - 1} more" if len(newer) > 1 else ""
        return problem("dfu.bin", "image-old", f"{made}, older than {newer[0].name}{more}", made=made)
    return ok("dfu.bin", f"{made}, {format_size(loaded.image.payload_size)} for {target.chip}", made=made)
