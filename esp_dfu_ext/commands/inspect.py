"""`inspect`: show what an image contains, and whether the chip's ROM would accept it."""

from __future__ import annotations

from pathlib import Path

from .. import simulator
from ..dfu.spec import Status
from ..errors import EXIT_DATA
from ..operations import inspect as operation
from ..ui import documents
from ..ui.text import at_most
from ..units import format_size
from .inputs import BuiltImage
from .session import Session

_MOST_ROWS = 100


def inspect(session: Session, path: Path, built: BuiltImage | None = None, *, as_json: bool = False) -> int:
    """Show what a dfu.bin contains, or would contain, and whether the ROM would accept it.

    Args:
        session: State of this invocation.
        path: Path of dfu.bin, or of what it is made from.
        built: The image if it is in memory, made from `path`.
        as_json: Print a JSON document instead.
    """
    if built is None:
        session.name_image(path)
        result = operation.inspect(path, session.targets())
    else:
        result = operation.inspect(path, [built.target], image=built.image)
    session.target = result.target
    status = simulator.rom_status(result.image.stream, result.target) if result.target is not None else None
    problems = [*result.problems, *result.firmware_problems]
    good = status is Status.OK and not problems
    if as_json:
        session.console.data(documents.to_json(contents(result, status)))
    else:
        _show(session, result, built, status, good)
    return 0 if good else EXIT_DATA


def _show(
    session: Session, result: operation.InspectResult, built: BuiltImage | None, status: Status | None, good: bool
) -> None:
    console, image, problems = session.console, result.image, [*result.problems, *result.firmware_problems]
    suffix = image.suffix
    chip = result.target.chip if result.target is not None else "an unknown chip"
    kind = "DFU image" if built is None else f"{built.kind}, as a DFU image"
    console.info(f"{result.path}: {kind} for {chip} ({suffix.usb_id})")
    console.info(f"App: {result.app}" if result.app is not None else "It contains no app that describes itself.")
    params = image.flash_params
    size = f"{format_size(params.chip_size)} of flash memory" if params is not None else "no flash parameters"
    console.info(
        f"Stream of {len(image.stream)} bytes, {len(image.records)} index records, {size}; "
        f"suffix bcdDevice {suffix.bcd_device:04x}, bcdDFU {suffix.bcd_dfu:04x}, CRC correct"
    )
    console.table(
        [">Address", ">Bytes", "~MD5", "File"],
        [
            (f"{m.record.address:#x}", str(len(m.data)), m.record.md5.hex(), m.name)
            if m.record is not None
            else ("", str(len(m.data)), "not in the index", m.name)
            for m in image.members[:_MOST_ROWS]
        ],
    )
    if len(image.members) > _MOST_ROWS:
        console.info(f"... and {len(image.members) - _MOST_ROWS} more.")
    for problem in at_most(problems):
        console.warn(problem)
    if result.target is None:
        return
    told = "stops answering" if status is None else f"reports {status}"
    console.result(f"The simulated ROM {told}" + (", but see above." if problems else "."), good=good)


def contents(result: operation.InspectResult, status: Status | None) -> documents.Contents:
    """Return the JSON document about an image; `status` is what the simulated ROM reports for it."""
    image, params = result.image, result.image.flash_params
    return documents.Contents(
        path=str(result.path),
        vid=f"{image.suffix.vid:04x}",
        pid=f"{image.suffix.pid:04x}",
        target=result.target.name if result.target is not None else None,
        flash_size=params.chip_size if params is not None else None,
        app=documents.app_document(result.app),
        files=[
            documents.File(
                name=member.name,
                address=member.record.address if member.record is not None else None,
                size=len(member.data),
                md5=member.record.md5.hex() if member.record is not None else None,
            )
            for member in image.flash_members
        ],
        problems=[*result.problems, *result.firmware_problems],
        rom_status=str(status) if status is not None else None,
    )
