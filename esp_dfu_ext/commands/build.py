"""`esp-dfu build` and `idf.py dfu`: make dfu.bin and show what is in it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ..doctor.advice import ESP_DFU
from ..errors import UsageError
from ..inputs.esp_idf import DFU_BIN
from ..operations import build as operation
from ..target import Target
from ..ui.flash_map import MapRow, show_flash_map
from ..units import format_size, parse_size
from .session import Session, near


def build(
    session: Session,
    build_dir: Path,
    *,
    project_dir: Path | None = None,
    output: Path | None = None,
    part_size: str | None = None,
    sections: Collection[str] = (),
    force: bool = False,
) -> int:
    """Make dfu.bin and show what is in it; returns the exit code."""
    result = operation.build(
        near(build_dir),
        project_dir=project_dir,
        output=output,
        part_size=_part_size(part_size),
        sections=sections,
        force=force,
        on_event=session.notice,
    )
    show_build(session, result)
    return 0


def _part_size(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_size(text)
    except ValueError as error:
        raise UsageError(f"--part-size: {error}.") from None


def show_build(session: Session, result: operation.BuildResult) -> None:
    """Print the flash files as a table and a map, and the path of dfu.bin."""
    console = session.console
    name = result.project.name
    if result.app is not None:
        name = f"{result.app.project} {result.app.version} (ESP-IDF {result.app.idf_version})"
    console.info(f"{name or 'Image'} for {result.target.chip} with {format_size(result.chip_size)} of flash memory")
    rows = [
        _row(result.target, file.address, size, _relative(file.path, result.project.build_dir))
        for file, size in result.files
    ]
    show_flash_map(console, rows, result.chip_size)
    payload = format_size(sum(size for _, size in result.files))
    console.result(f"Wrote {_relative(result.path, Path.cwd())} ({payload} to flash).")
    own = result.path.resolve() == (result.project.build_dir / DFU_BIN).resolve()
    names = session.names if own else ESP_DFU
    console.info("Flash it", command=names.for_image(_relative(result.path, Path.cwd())).flash)


def _row(target: Target, address: int, size: int, name: str) -> MapRow:
    sector = target.flash.sector
    sectors = (address + size - 1) // sector - address // sector + 1 if size else 0
    return MapRow(address, size, sectors, name)


def _relative(path: Path, start: Path) -> str:
    try:
        return str(path.resolve().relative_to(start.resolve()))
    except (ValueError, OSError):
        return str(path)
