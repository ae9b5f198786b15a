"""`esp-dfu build` and `idf.py dfu`: make dfu.bin and show what is in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import simulator
from ..doctor.advice import ESP_DFU
from ..image.plan import FlashFile
from ..inputs.esp_idf import DFU_BIN
from ..operations import build as operation
from ..operations.inspect import inspect
from ..target import Target
from ..ui import documents
from ..ui.flash_map import MapRow, show_flash_map
from ..units import format_size
from .inputs import image_options, name_input
from .inspect import contents
from .session import Session, near


def build(
    session: Session,
    what: Sequence[Path],
    *,
    project_dir: Path | None = None,
    output: Path | None = None,
    as_json: bool = False,
    **chosen: Any,
) -> int:
    """Make dfu.bin and show what is in it; returns the exit code.

    Args:
        session: State of this invocation.
        what: A build folder or firmware files.
        project_dir: Folder of the ESP-IDF project that idf.py works on, None from the command line.
        output: Where to write, None for the default.
        as_json: Print a JSON document instead.
        chosen: Options, as `image_options` takes them.
    """
    if project_dir is None:
        name_input(session, "build", what)
    result = operation.build(
        [near(what[0]), *what[1:]],
        project_dir=project_dir,
        output=output,
        options=image_options(**chosen),
        on_event=session.notice,
    )
    if as_json:
        written = inspect(result.path, [result.target])
        status = simulator.rom_status(written.image.stream, result.target)
        session.console.data(documents.to_json(contents(written, status)))
    else:
        show_build(session, result)
    return 0


def show_build(session: Session, result: operation.BuildResult) -> None:
    """Print the flash files as a table and a map, and the path of dfu.bin."""
    console = session.console
    name = result.plan.name
    if result.app is not None:
        name = str(result.app)
    console.info(f"{name or 'Image'} for {result.target.chip} with {format_size(result.chip_size)} of flash memory")
    rows = [_row(result.target, file.address, size, _name(file, result.plan.folder)) for file, size in result.files]
    show_flash_map(console, rows, result.chip_size)
    payload = format_size(sum(size for _, size in result.files))
    console.result(f"Wrote {_relative(result.path, Path.cwd())} ({payload} to flash).")
    if result.is_new and result.target.notice:
        console.info(result.target.notice)
    own = result.path.resolve() == (result.plan.folder / DFU_BIN).resolve()
    names = session.names if own else ESP_DFU
    console.info("Flash it", command=names.for_image(_relative(result.path, Path.cwd())).flash)


def _name(file: FlashFile, folder: Path) -> str:
    return file.name[: -len(".bin")] if file.is_stretch else _relative(file.path, folder)


def _row(target: Target, address: int, size: int, name: str) -> MapRow:
    sector = target.flash.sector
    sectors = (address + size - 1) // sector - address // sector + 1 if size else 0
    return MapRow(address, size, sectors, name)


def _relative(path: Path, start: Path) -> str:
    try:
        return str(path.resolve().relative_to(start.resolve()))
    except (ValueError, OSError):
        return str(path)
