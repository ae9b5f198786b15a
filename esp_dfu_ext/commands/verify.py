"""`verify`: compare the flash memory of a board with an image, and write nothing."""

from __future__ import annotations

from pathlib import Path

from ..dfu.discovery import Selector
from ..errors import UsageError
from ..events import EventSink, ignore
from ..operations.info import port_of_mac
from ..operations.inspect import CheckedImage, load_image
from ..operations.verify import VerifyResult, verify_board
from ..ui import documents, views
from ..units import format_size
from ..usb.bus import Bus
from .flash_run import check_mac, check_path
from .inputs import BuiltImage
from .session import Session, near


def verify(
    session: Session,
    dfu_bin: Path,
    built: BuiltImage | None,
    *,
    path: str | None,
    serial: str | None,
    mac: str | None,
    wait: float,
    as_json: bool = False,
) -> int:
    """Compare the flash memory of one board with an image.

    Args:
        session: State of this invocation.
        dfu_bin: The image, or what it is made from.
        built: The image if it is in memory, made from `dfu_bin`.
        path: Port of the board; None for the only one.
        serial: Its serial number; None for any.
        mac: Its MAC address; None for any.
        wait: Seconds to wait for it.
        as_json: Print a JSON document instead.
    """
    if path is not None:
        check_path(path)
    if mac is not None:
        check_mac(mac)
    if sum(given is not None for given in (path, serial, mac)) > 1:
        raise UsageError("--path, --serial and --mac each select a board; use only one of them.")
    dfu_bin = near(dfu_bin)
    if built is None:
        session.name_image(dfu_bin)
    targets = session.targets()
    target = built.target if built is not None else None
    image = load_image(dfu_bin, target, targets, image=built.image if built is not None else None, force=True)
    session.target = image.target
    simulation = session.make_simulation(targets)
    title = f"{'simulated ' if simulation else ''}{image.target.chip}"

    def compare(bus: Bus, on_event: EventSink) -> VerifyResult:
        at = path
        if mac is not None:
            at = port_of_mac(bus, image.target, mac, clock=session.clock, wait=wait, on_event=on_event)
        return verify_board(image, Selector(at, serial, mac), bus, targets, session.clock, on_event, wait)

    bus = session.open_bus(simulation)
    if as_json:
        result = compare(bus, ignore)
        session.console.data(documents.to_json(_document(image, result)))
    else:
        with views.flash_view(session.console, title) as view:
            result = compare(bus, view)
    if result.difference is not None:
        return session.fail(result.difference)
    if not as_json:
        what = f"{image.app.project} {image.app.version}" if image.app is not None else str(image.path)
        session.console.result(
            f"The flash memory of the board on port {result.path} holds {what}, {format_size(result.size)}: every MD5 "
            "of the chip's serial loader matches."
        )
    return 0


def _document(image: CheckedImage, result: VerifyResult) -> documents.Comparison:
    difference = result.difference
    return documents.Comparison(
        image=str(image.path),
        path=result.path,
        target=image.target.name,
        serial=result.serial,
        mac=result.identity.mac,
        size=result.size,
        ok=difference is None,
        different=list(difference.files) if difference is not None else [],
        problem=documents.Problem(code=difference.code, message=difference.message) if difference is not None else None,
    )
