"""`verify`: compare the flash memory of a board with an image, and write nothing."""

from __future__ import annotations

from pathlib import Path

from ..dfu.discovery import Selector
from ..errors import UsageError
from ..operations.inspect import load_image
from ..operations.verify import verify_board
from ..ui import views
from ..units import format_size
from ..usb.descriptors import is_port_path
from .inputs import BuiltImage
from .session import Session, near


def verify(
    session: Session, dfu_bin: Path, built: BuiltImage | None, *, path: str | None, serial: str | None, wait: float
) -> int:
    """Compare the flash memory of one board with an image.

    Args:
        session: State of this invocation.
        dfu_bin: The image, or what it is made from.
        built: The image if it is in memory, made from `dfu_bin`.
        path: Port of the board; None for the only one.
        serial: Its serial number; None for any.
        wait: Seconds to wait for it.
    """
    if path is not None and not is_port_path(path):
        raise UsageError(f"{path!r} is not a port path; expected one like 1-2.")
    if path is not None and serial is not None:
        raise UsageError("--path and --serial each select a board; use only one of them.")
    dfu_bin = near(dfu_bin)
    if built is None:
        session.name_image(dfu_bin)
    targets = session.targets()
    target = built.target if built is not None else None
    image = load_image(dfu_bin, target, targets, image=built.image if built is not None else None, force=True)
    session.target = image.target
    simulation = session.make_simulation(targets)
    title = f"{'simulated ' if simulation else ''}{image.target.chip}"
    with views.flash_view(session.console, title) as view:
        bus = session.open_bus(simulation)
        result = verify_board(image, Selector(path, serial), bus, targets, session.clock, view, wait)
    what = f"{image.app.project} {image.app.version}" if image.app is not None else str(image.path)
    session.console.result(
        f"The flash memory of the board on port {result.path} holds {what}, {format_size(result.size)}: every MD5 of "
        "the chip's serial loader matches."
    )
    return 0
