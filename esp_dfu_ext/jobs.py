"""The jobs: build, inspect, list, flash.

They take data and return data; what happens on the way they report as events. They never print, never ask,
and get the time and the bus handed in.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .bus import Bus, UsbDevice
from .clock import Clock, SystemClock
from .dfu.device import DfuDevice
from .dfu.discovery import (
    PERMISSION_DELAY,
    SCAN_INTERVAL,
    DfuInterface,
    Selector,
    describe,
    detach_and_wait,
    dfu_interfaces,
    open_when_permitted,
    select,
)
from .dfu.download import download, leave_idle, recover
from .dfu.spec import Mode, State
from .errors import (
    DeviceGoneError,
    DfuError,
    EspDfuError,
    FirmwareError,
    ImageError,
    InputMissingError,
    InterruptedByUserError,
    OutputError,
    UsbError,
    WrongTargetError,
)
from .events import (
    DeviceFound,
    EventSink,
    Flashed,
    Notice,
    Phase,
    PhaseFinished,
    PhaseStarted,
    ignore,
)
from .image.check import check_image
from .image.firmware import AppDescription, FirmwareReport, read_firmware
from .image.image import DfuImage, FlashParams, read_image, write_image
from .image.layout import FlashFile, Layout, plan_layout
from .image.suffix import Suffix
from .project import Project, chip_size, only, read_flasher_args, read_project
from .target import Target, find_target_by_usb_id, load_target, load_targets

DFU_BIN = "dfu.bin"


# --- build ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BuildResult:
    """A dfu.bin that was written.

    Attributes:
        path: of dfu.bin.
        size: of dfu.bin in bytes.
        project: it was made from.
        target: the chip.
        chip_size: bytes of flash on the board.
        layout: what goes where.
        app: what the app says of itself, None if it says nothing.
    """

    path: Path
    size: int
    project: Project
    target: Target
    chip_size: int
    layout: Layout
    app: AppDescription | None


def build(
    build_dir: Path,
    *,
    project_dir: Path | None = None,
    output: Path | None = None,
    part_size: int | None = None,
    sections: Collection[str] = (),
    force: bool = False,
    on_event: EventSink = ignore,
) -> BuildResult:
    """Make dfu.bin from a built ESP-IDF project; everything is checked before a byte is written.

    Args:
        build_dir: the project's build folder.
        project_dir: the project's folder; None where the build folder must tell.
        output: where to write; None for dfu.bin in the build folder.
        part_size: bytes into which larger files are cut; None for the chip's default.
        sections: of flasher_args.json that are flashed; all if empty.
        force: take images that the host believes to be for another chip, or damaged.
        on_event: gets notices.

    Raises:
        InputMissingError: nothing was built, or a file is missing.
        ProjectError, TargetNotSupportedError, TargetFileError: of the project or the chip.
        UsageError: an impossible part size or section.
        LayoutError: the ROM would lose data.
        FirmwareError: an image for another chip, or a damaged one, unless `force`.
        OutputError: dfu.bin cannot be written.
    """
    project = read_project(build_dir, project_dir)
    target = load_target(project.target, project.project_dir)
    args = read_flasher_args(build_dir)
    size = chip_size(project, args)
    layout = plan_layout(only(args.files, sections), size, target, part_size)
    for notice in layout.notices:
        on_event(notice)
    app = _check_firmware([file for file, _ in layout.files], target, force, on_event)
    _warn_of_security(project, layout, on_event)
    path = output if output is not None else build_dir / DFU_BIN
    if path.is_dir():
        raise OutputError(f"{path} is a folder; dfu.bin cannot be written there.")
    if any(path.exists() and path.samefile(file.path) for file, _ in layout.files):
        raise OutputError(f"{path} is one of the files to be flashed; it will not be overwritten.")
    flash = target.flash
    params = FlashParams(size, flash.block, flash.sector, flash.page, flash.status_mask)
    written = write_image(path, layout.parts, params, Suffix(target.usb.vid, target.usb.pid))
    return BuildResult(path, written, project, target, size, layout, app)


def _check_firmware(
    files: Sequence[FlashFile], target: Target, force: bool, on_event: EventSink
) -> AppDescription | None:
    """Read each ESP image with esptool; what it finds is an opinion of the host, which `force` overrules."""
    problems = []
    app = None
    for file in files:
        try:
            report = read_firmware(file.path)
        except OSError as error:
            message = f"{file.path} cannot be read: {error.strerror or error}."
            raise InputMissingError(message, path=file.path, role="flash file") from error
        if file.section == "app" or app is None:
            app = report.app or app
        where = f"{file.path} for {file.address:#x}"
        problems += [f"{where} {problem}." for problem in _firmware_problems(file, report, target)]
    if problems and not force:
        raise FirmwareError(f"These images are not right for {target.chip}.", notes=problems)
    for problem in problems:
        on_event(Notice("forced", problem))
    return app


def _firmware_problems(file: FlashFile, report: FirmwareReport, target: Target) -> list[str]:
    wanted = target.firmware
    if not report.is_esp_image:
        must_be_one = file.section in ("app", "bootloader") and not file.encrypted
        return [f"is the {file.section}, but no ESP image"] if must_be_one else []
    problems = []
    if report.chip_id is not None and report.chip_id != wanted.chip_id:
        problems.append(f"is for chip id {report.chip_id}, {target.chip} has {wanted.chip_id}")
    if report.problem:
        problems.append(f"is damaged: {report.problem}")
    if file.section == "bootloader" and file.address != wanted.bootloader_offset:
        problems.append(f"is the bootloader, which {target.chip} looks for at {wanted.bootloader_offset:#x}")
    return problems


def _warn_of_security(project: Project, layout: Layout, on_event: EventSink) -> None:
    door = "A virgin chip takes this first plaintext flash; once the app has booted, USB DFU is closed for good."
    if project.flash_encryption or any(file.encrypted for file, _ in layout.files):
        on_event(Notice("encryption", f"The project uses flash encryption. {door}"))
    if project.secure_boot:
        on_event(Notice("secure-boot", f"The project uses Secure Boot. {door}"))


# --- inspect ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class InspectResult:
    """A dfu.bin, read.

    Attributes:
        path: of the file.
        image: its contents.
        target: the chip it was made for, None if nobody described it.
        problems: what the ROM would get wrong, one sentence each; empty if all is well.
    """

    path: Path
    image: DfuImage
    target: Target | None
    problems: tuple[str, ...]


def inspect(path: Path, targets: Sequence[Target] | None = None) -> InspectResult:
    """Read a dfu.bin and say what the ROM would get wrong.

    Raises:
        InputMissingError: it is not there.
        ImageError: suffix, CRC or archive is damaged.
        TargetFileError: a chip's file is broken.
    """
    image = read_image(path)
    known = load_targets() if targets is None else targets
    target = find_target_by_usb_id(image.suffix.vid, image.suffix.pid, known)
    if target is None:
        usb_id = f"{image.suffix.vid:04x}:{image.suffix.pid:04x}"
        return InspectResult(path, image, None, (f"No chip with the USB ID {usb_id} is known.",))
    return InspectResult(path, image, target, tuple(check_image(image, target)))


def load_image(path: Path, target: Target | None = None, targets: Sequence[Target] | None = None) -> InspectResult:
    """Read a dfu.bin that is to be flashed; only a faultless one is returned.

    Args:
        path: of the file.
        target: the chip it must be for; None to take the one that it says.
        targets: the chips that are known; None for all.

    Raises:
        InputMissingError: it is not there.
        WrongTargetError: it is for another chip.
        ImageError: it is damaged, or the ROM would get something wrong; `notes` has one line for each.
    """
    known = load_targets() if targets is None else list(targets)
    result = inspect(path, known if target is None else [target, *known])
    if target is not None and result.target != target:
        suffix = result.image.suffix
        name = result.target.name if result.target is not None else f"{suffix.vid:04x}:{suffix.pid:04x}"
        raise WrongTargetError(str(path), image_target=name, target=target.name)
    if result.problems:
        raise ImageError(f"{path} cannot be flashed as it is.", notes=result.problems)
    return result


def newer_inputs(dfu_bin: Path, build_dir: Path) -> list[Path]:
    """The flash files of the build that are newer than dfu.bin: it does not hold what was built last."""
    with suppress(EspDfuError, OSError):
        made = dfu_bin.stat().st_mtime
        files = [file.path for file in read_flasher_args(build_dir).files]
        return [path for path in files if path.is_file() and path.stat().st_mtime > made]
    return []


# --- list -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ListedDevice:
    """A device of Espressif, or of another vendor that a target names.

    Attributes:
        device: as the scan saw it.
        interfaces: its DFU interfaces, empty if it has none.
        target: the chip, None if its IDs are no chip's.
        serial: its serial number, None if it has none or cannot be opened.
        names: of its DFU interfaces, in their order; None where there is none.
        problem: why it cannot be opened, None if it can.
        description: what it is, in a few words.
    """

    device: UsbDevice
    interfaces: tuple[DfuInterface, ...]
    target: Target | None
    serial: str | None
    names: tuple[str | None, ...]
    problem: UsbError | None
    description: str


def list_devices(bus: Bus | None = None, targets: Sequence[Target] | None = None) -> list[ListedDevice]:
    """All devices of the chips' vendors, by path; also those that cannot be opened or have no DFU.

    Raises:
        UsbUnavailableError: USB cannot be used at all.
        TargetFileError: a chip's file is broken.
    """
    known = load_targets() if targets is None else targets
    vids = frozenset(target.usb.vid for target in known)
    return [_listed(device, known) for device in (bus or Bus()).scan(vids)]


def _listed(device: UsbDevice, targets: Sequence[Target]) -> ListedDevice:
    interfaces = tuple(dfu_interfaces(device))
    serial: str | None = None
    names: list[str | None] = [None] * len(interfaces)
    problem: UsbError | None = None
    try:
        if interfaces:
            serial = device.read_string(device.serial_index)
            names = [device.read_string(interface.descriptor.name_index) for interface in interfaces]
    except UsbError as error:
        problem = error
    target = find_target_by_usb_id(device.vid, device.pid, targets)
    return ListedDevice(device, interfaces, target, serial, tuple(names), problem, describe(device, targets))


# --- flash ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FlashResult:
    """A board that was flashed, and what it said.

    Attributes:
        path: of the board.
        size: bytes that went into its flash.
        seconds: from the first contact to the last answer.
        status: its last bStatus.
        state: its last bState.
        after_reset: what was seen on its port after a bus reset, None if none was asked for.
    """

    path: str
    size: int
    seconds: float
    status: str
    state: str
    after_reset: str | None


def flash(
    image: DfuImage,
    target: Target,
    *,
    bus: Bus | None = None,
    selector: Selector | None = None,
    targets: Sequence[Target] | None = None,
    wait: float = 0.0,
    strict: bool = False,
    reset: bool = False,
    clock: Clock | None = None,
    on_event: EventSink = ignore,
) -> FlashResult:
    """Flash one board.

    Args:
        image: as `load_image` returns it.
        target: the chip.
        bus: where the board is; None for this machine's USB.
        selector: which board; None for the only one there is.
        targets: the chips that are known, to name what was seen instead; None for all.
        wait: seconds to wait for the board.
        strict: ask the device for its status after each block.
        reset: try to start the app by a bus reset afterwards.
        clock: time; None for the real one.
        on_event: gets what happens, in the order that `events` gives.

    Raises:
        DeviceNotFoundError, SeveralDevicesError, UsageError: the board is not there or not unique.
        ReenumerationError: it did not come back after DFU_DETACH.
        DfuStatusError, DfuError: it reported an error.
        UsbError: a transfer failed; the kind says how.
        InterruptedByUserError: Ctrl-C.
    """
    bus = bus or Bus()
    clock = clock or SystemClock()
    known = load_targets() if targets is None else targets
    where = "Stopped while looking for a board; nothing was written."
    try:
        looked = clock.monotonic()
        interface = select(bus, target, selector or Selector(), known, clock=clock, wait=wait, on_event=on_event)
        where = f"Stopped before anything was written to the board on port {interface.path}."
        # One that was just plugged in may not be ours yet: udev.
        patience = PERMISSION_DELAY if clock.monotonic() > looked else 0.0
        serial = None
        with suppress(UsbError):
            serial = interface.read_serial()
        on_event(DeviceFound(interface.path, str(interface.mode), serial))
        started = clock.monotonic()
        if interface.mode is Mode.RUN_TIME:
            interface = _detach(interface, bus, target, clock, patience, on_event)
            patience = PERMISSION_DELAY
        with open_when_permitted(interface, clock=clock, patience=patience) as handle:
            device = DfuDevice(handle)
            try:
                _recover(device, interface.path, clock, on_event)
                answer = download(
                    device,
                    image,
                    target,
                    transfer_size=_transfer_size(interface, target),
                    path=interface.path,
                    clock=clock,
                    strict=strict,
                    on_event=on_event,
                )
            except KeyboardInterrupt:
                state = leave_idle(device, clock)
                raise InterruptedByUserError(f"Stopped. The board on port {interface.path}: {state}.") from None
            except (DfuError, UsbError) as error:
                if not isinstance(error, DeviceGoneError):
                    error.notes += (f"The board on port {interface.path}: {leave_idle(device, clock)}.",)
                raise
            where = f"Stopped, but the board on port {interface.path} is flashed ({answer.state}, {answer.status})."
            seconds = clock.monotonic() - started
            after_reset = None
            if reset or answer.state == State.dfuMANIFEST_WAIT_RESET:
                after_reset = _reset(device, interface, bus, target, known, clock, on_event)
            on_event(Flashed(interface.path, image.flash_size, seconds, str(answer.status), str(answer.state)))
    except KeyboardInterrupt:
        raise InterruptedByUserError(where) from None
    return FlashResult(interface.path, image.flash_size, seconds, str(answer.status), str(answer.state), after_reset)


def require(bus: Bus, target: Target, selectors: Sequence[Selector], targets: Sequence[Target]) -> None:
    """Make sure that every board is there, before the first is touched; errors of `select`."""
    for selector in selectors:
        select(bus, target, selector, targets, clock=SystemClock())


def _transfer_size(interface: DfuInterface, target: Target) -> int:
    functional = interface.functional
    said = functional.transfer_size if functional is not None else 0
    return min(said, target.usb.transfer_size) if said else target.usb.transfer_size


def _detach(
    interface: DfuInterface, bus: Bus, target: Target, clock: Clock, patience: float, on_event: EventSink
) -> DfuInterface:
    started = clock.monotonic()
    on_event(PhaseStarted(interface.path, Phase.DETACH))
    try:
        back = detach_and_wait(interface, bus, target, clock=clock, patience=patience, on_event=on_event)
    except KeyboardInterrupt:
        raise InterruptedByUserError(
            f"Stopped while the board on port {interface.path} was changing to DFU mode; nothing was written."
        ) from None
    on_event(PhaseFinished(interface.path, Phase.DETACH, clock.monotonic() - started))
    return back


def _recover(device: DfuDevice, path: str, clock: Clock, on_event: EventSink) -> None:
    started = clock.monotonic()
    if recover(device, clock):
        on_event(PhaseStarted(path, Phase.RECOVER))
        on_event(PhaseFinished(path, Phase.RECOVER, clock.monotonic() - started))


def _reset(
    device: DfuDevice,
    interface: DfuInterface,
    bus: Bus,
    target: Target,
    targets: Sequence[Target],
    clock: Clock,
    on_event: EventSink,
) -> str:
    """Reset the bus, which arms the ROM's watchdog, and say what then was on the port; nothing is guessed."""
    started = clock.monotonic()
    on_event(PhaseStarted(interface.path, Phase.RESET))
    with suppress(UsbError):
        device.reset_bus()  # the chip restarts inside it, so that an error here says nothing
    seen = None
    deadline = started + target.dfu.return_timeout / 3
    while clock.monotonic() < deadline:
        clock.sleep(SCAN_INTERVAL)
        now = next((d for d in bus.scan() if d.path == interface.path), None)
        seen = None if now is None else f"{describe(now, targets)} (device {now.address})"
        if now is not None and now.address != interface.device.address:
            break
    on_event(PhaseFinished(interface.path, Phase.RESET, clock.monotonic() - started))
    return seen or "nothing"


__all__ = [
    "BuildResult",
    "FlashResult",
    "InspectResult",
    "ListedDevice",
    "build",
    "flash",
    "inspect",
    "list_devices",
    "load_image",
    "newer_inputs",
    "require",
]
