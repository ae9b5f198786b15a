"""What both faces do: run a job, show it, turn an error into an exit code."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from . import jobs, json_lines, simulator
from .bus import Bus
from .clock import Clock, SystemClock
from .console import Console, MapRow, at_most
from .dfu.discovery import Selector
from .errors import EspDfuError, InterruptedByUserError, UsageError
from .events import DeviceFound, Event, Notice
from .hints import ESP_DFU, Face, hints, ways_into_download_mode
from .jobs import BuildResult, FlashOutcome, InspectResult, ListedDevice
from .target import PROJECT_FOLDER, Target, load_target, load_targets
from .units import format_rate, format_seconds, format_size, parse_size

LIST_FORMAT_VERSION = 1
_LONGEST_WAIT = 24 * 3600  # seconds


@dataclass
class Session:
    """One call by a user: how it is spoken to, and what is known when an error must be explained."""

    console: Console
    face: Face
    target: Target | None = None
    clock: Clock = field(default_factory=SystemClock)

    def run(self, job: Callable[[Session], int]) -> int:
        """Run a job; its exit code, or that of its error, which is shown with its hints."""
        try:
            return job(self)
        except EspDfuError as error:
            return self.fail(error)
        except KeyboardInterrupt:
            return self.fail(InterruptedByUserError("Stopped."))
        except BrokenPipeError:
            raise
        except OSError as error:
            # What no module foresaw, such as a folder that vanishes while it is read.
            return self.fail(EspDfuError(f"{error.filename or 'The system'}: {error.strerror or error}."))

    def targets(self, project_dir: Path | None) -> list[Target]:
        """All chips; a broken file of another chip than the one that is meant is only worth a warning."""
        return load_targets(project_dir, on_broken=lambda error: self.console.warn(error.message))

    def fail(self, error: EspDfuError) -> int:
        """Show an error."""
        self.console.error(error.message, error.code, error.notes, hints(error, self.face, self.target))
        return error.exit_code

    def notice(self, event: Event) -> None:
        """Show a job's notices."""
        if isinstance(event, Notice):
            self.console.warn(event.message)


class JsonSession(Session):
    """A call by a program: its lines alone go to stdout, what people should know to stderr."""

    def __init__(self, console: Console, face: Face) -> None:
        super().__init__(console, face)
        console.out = console.err

    def fail(self, error: EspDfuError) -> int:
        """Show an error, and make it the last line."""
        try:
            self.console.raw(json_lines.error_line(error))
        except OSError:
            sys.stdout = None  # the reader left, or the disk is full; nothing more is tried at exit
        return super().fail(error)


# --- build ------------------------------------------------------------------------------------------------


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
    """Make dfu.bin and show what is in it."""
    result = jobs.build(
        build_dir,
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


def show_build(session: Session, result: BuildResult) -> None:
    """The table, the map, and where dfu.bin is."""
    console = session.console
    name = result.project.name
    if result.app is not None:
        name = f"{result.app.project} {result.app.version} (ESP-IDF {result.app.idf_version})"
    console.say(f"{name or 'Image'} for {result.target.chip} with {format_size(result.chip_size)} of flash")
    rows = [
        _row(result.target, file.address, size, _relative(file.path, result.project.build_dir))
        for file, size in result.layout.files
    ]
    console.flash_table(rows, result.chip_size)
    console.result(f"Wrote {_relative(result.path, Path.cwd())} ({format_size(result.size)}).")
    own = result.path.resolve() == (result.project.build_dir / jobs.DFU_BIN).resolve()
    face = session.face if own else ESP_DFU
    console.say(f"Flash it: {face.naming(_relative(result.path, Path.cwd())).flash}")


def _row(target: Target, address: int, size: int, name: str) -> MapRow:
    sector = target.flash.sector
    sectors = (address + size - 1) // sector - address // sector + 1 if size else 0
    return MapRow(address, size, sectors, name)


def _relative(path: Path, start: Path) -> str:
    try:
        return str(path.resolve().relative_to(start.resolve()))
    except (ValueError, OSError):
        return str(path)


# --- inspect ----------------------------------------------------------------------------------------------


def inspect(session: Session, path: Path) -> int:
    """Show what is in a dfu.bin, and what the ROM would say of it."""
    result = jobs.inspect(path, session.targets(_project_of(path)))
    session.target = result.target
    console, image = session.console, result.image
    suffix = image.suffix
    chip = result.target.chip if result.target is not None else "an unknown chip"
    console.say(f"{path}: DFU image for {chip} ({suffix.vid:04x}:{suffix.pid:04x})")
    params = image.flash_params
    size = f"{format_size(params.chip_size)} of flash" if params is not None else "no flash parameters"
    console.say(
        f"Stream of {len(image.stream)} bytes, {len(image.records)} index records, {size}; "
        f"suffix bcdDevice {suffix.bcd_device:04x}, bcdDFU {suffix.bcd_dfu:04x}, CRC right"
    )
    console.table(
        [">Address", ">Bytes", "MD5", "File"],
        [
            (f"{m.record.address:#x}", str(len(m.data)), m.record.md5.hex(), m.name)
            if m.record is not None
            else ("", str(len(m.data)), "not in the index", m.name)
            for m in image.members
        ],
    )
    for problem in at_most(result.problems):
        console.warn(problem)
    if result.target is None:
        return 65
    status = simulator.rehearse(image.stream, result.target)
    console.result(
        f"The simulated ROM reports {status}" + (", but see above." if result.problems else "."),
        good=not result.problems,
    )
    return 65 if result.problems else 0


# --- list -------------------------------------------------------------------------------------------------


def list_devices(session: Session, *, project_dir: Path | None = None, as_json: bool = False) -> int:
    """Show the devices: dfu-util's lines on stdout, what people need to know on stderr."""
    targets = session.targets(project_dir)
    found = jobs.list_devices(_bus(session, targets), targets)
    if as_json:
        session.console.raw(json.dumps(_list_document(found), indent=2))
        return 0
    for listed in found:
        for number in range(len(listed.interfaces)):
            session.console.raw(dfu_util_line(listed, number))
    for listed in found:
        if not listed.interfaces:
            session.console.tell(f"Port {listed.device.path}: {listed.description}.")
        if listed.problem is not None:
            session.console.tell(f"Port {listed.device.path} cannot be opened: {listed.problem.message}", "yellow")
    problems = {listed.problem.code: (listed.problem, listed.target) for listed in found if listed.problem is not None}
    for problem, target in problems.values():
        for hint in hints(problem, session.face, target):
            session.console.hint(hint)
    if not any(listed.interfaces for listed in found):
        session.console.tell(f"No Espressif device with DFU is there ({', '.join(t.chip for t in targets)}).")
        for line in ways_into_download_mode(targets):
            session.console.hint(line)
    return 0


def dfu_util_line(listed: ListedDevice, number: int) -> str:
    """The line that dfu-util 0.11 prints for an interface."""
    interface, device = listed.interfaces[number], listed.device
    found = "DFU" if str(interface.mode) == "DFU" else "Runtime"
    descriptor = interface.descriptor
    return (
        f"Found {found}: [{device.usb_id}] ver={device.bcd_device:04x}, devnum={device.address}, "
        f"cfg={descriptor.configuration}, intf={descriptor.number}, "
        f'path="{device.path}", alt={descriptor.alternate}, '
        f'name="{listed.names[number] or "UNKNOWN"}", serial="{listed.serial or "UNKNOWN"}"'
    )


def _list_document(found: Sequence[ListedDevice]) -> dict[str, Any]:
    return {
        "version": LIST_FORMAT_VERSION,
        "devices": [
            {
                "path": listed.device.path,
                "vid": f"{listed.device.vid:04x}",
                "pid": f"{listed.device.pid:04x}",
                "bcd_device": f"{listed.device.bcd_device:04x}",
                "devnum": listed.device.address,
                "serial": listed.serial,
                "target": listed.target.name if listed.target is not None and listed.interfaces else None,
                "description": listed.description,
                "problem": None
                if listed.problem is None
                else {"code": listed.problem.code, "message": listed.problem.message},
                "interfaces": [
                    {
                        "mode": "dfu" if str(interface.mode) == "DFU" else "run-time",
                        "configuration": interface.descriptor.configuration,
                        "interface": interface.descriptor.number,
                        "alternate": interface.descriptor.alternate,
                        "name": name,
                    }
                    for interface, name in zip(listed.interfaces, listed.names)
                ],
            }
            for listed in found
        ],
    }


# --- flash ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FlashOptions:
    """What `dfu-flash` and `esp-dfu flash` take."""

    paths: Sequence[str] = ()
    all: bool = False
    serial: str | None = None
    wait: float = 0.0
    strict: bool = False
    reset: bool = False
    simulate: bool = False
    json: bool = False


def flash(
    session: Session,
    dfu_bin: Path,
    options: FlashOptions,
    *,
    target_name: str | None = None,
    build_dir: Path | None = None,
    project_dir: Path | None = None,
) -> int:
    """Flash one board, or those on the given ports one after the other."""
    if sum((bool(options.paths), options.all, options.serial is not None)) > 1:
        raise UsageError("--path, --serial and --all each say which boards; give one of them.")
    if not 0 <= options.wait <= _LONGEST_WAIT:
        raise UsageError(f"--wait takes a number of seconds, from 0 to {_LONGEST_WAIT}.")
    session.face = session.face.naming(str(dfu_bin))
    session.target = load_target(target_name, project_dir) if target_name is not None else None
    targets = session.targets(project_dir if project_dir is not None else _project_of(dfu_bin))
    loaded = jobs.load_image(dfu_bin, session.target, targets)
    session.target = target = loaded.target
    assert target is not None  # load_image lets no other pass
    if build_dir is not None:
        _warn_if_older(session, dfu_bin, build_dir)
    simulation = _simulation(session, options, target, targets)
    bus = simulation.bus if simulation is not None else Bus()
    run = _Flash(session, loaded, target, bus, targets, options, simulation)
    several = options.all or len(set(options.paths)) > 1
    if options.json:
        return run.as_lines(several)
    return run.together() if several else run.alone()


@dataclass(frozen=True)
class _Flash:
    """A flash that is about to begin, and everything it needs."""

    session: Session
    loaded: InspectResult
    target: Target
    bus: Bus
    targets: Sequence[Target]
    options: FlashOptions
    simulation: simulator.Simulation | None

    @property
    def title(self) -> str:
        return f"{'Simulated ' if self.simulation else ''}{self.target.chip}"

    def alone(self) -> int:
        """One board, with a bar for each phase."""
        options, console = self.options, self.session.console
        selector = Selector(path=options.paths[0] if options.paths else None, serial=options.serial)
        with console.flash_view(self.title) as view:
            result = jobs.flash(
                self.loaded.image,
                self.target,
                bus=self.bus,
                selector=selector,
                targets=self.targets,
                wait=options.wait,
                strict=options.strict,
                reset=options.reset,
                clock=self.session.clock,
                on_event=view,
            )
        app = self.loaded.app
        what = f"{app.project} {app.version}, " if app is not None else ""
        rate = f" ({format_rate(result.size, result.seconds)})" if self.simulation is None else ""
        console.result(
            f"{'Flashed' if self.simulation is None else 'Rehearsed'} {what}{format_size(result.size)} "
            f"in {format_seconds(result.seconds)}{rate} on port {result.path}. "
            f"The chip reported {result.status} in state {result.state}."
        )
        self._compare([result.path])
        if result.after_reset is not None:
            console.say(f"After the bus reset this was on port {result.path}: {result.after_reset}.")
        elif self.simulation is None:
            console.say("The chip stays in download mode. To start the app, press RESET, or try --reset next time.")
        return 0

    def together(self) -> int:
        """Several boards at once, with a bar for each and a table in the end."""
        options, console = self.options, self.session.console
        with console.gang_view(self.title) as view:
            outcomes = jobs.flash_all(
                self.loaded.image,
                self.target,
                bus=self.bus,
                paths=options.paths,
                targets=self.targets,
                wait=options.wait,
                strict=options.strict,
                reset=options.reset,
                clock=self.session.clock,
                on_event=view,
            )
        console.table(
            ["Port", "Serial number", "Chip", ">Bytes", ">Seconds", "Result"],
            [
                (
                    outcome.path,
                    outcome.serial or "",
                    self.target.chip,
                    str(outcome.result.size) if outcome.result is not None else "",
                    f"{outcome.result.seconds:.1f}" if outcome.result is not None else "",
                    _verdict(outcome),
                )
                for outcome in outcomes
            ],
        )
        failed = [outcome for outcome in outcomes if outcome.error is not None]
        self._compare([outcome.path for outcome in outcomes if outcome.result is not None])
        for outcome in failed:
            assert outcome.error is not None
            self.session.fail(outcome.error)
        good = len(outcomes) - len(failed)
        word = "flashed" if self.simulation is None else "rehearsed"
        console.result(f"{good} of {len(outcomes)} boards {word}.", good=not failed)
        return failed[0].error.exit_code if failed and failed[0].error is not None else 0

    def as_lines(self, several: bool) -> int:
        """The same for a program: a line for each event, the last with the verdict of each board."""
        options = self.options
        serials: dict[str, str | None] = {}

        def tell(event: Event) -> None:
            if isinstance(event, DeviceFound):
                serials[event.path] = event.serial
            # A reader that leaves ends the flash: it asked for it, and nobody else would see the verdict.
            self.session.console.raw(json_lines.event_line(event))

        common: dict[str, Any] = {
            "bus": self.bus,
            "targets": self.targets,
            "wait": options.wait,
            "strict": options.strict,
            "reset": options.reset,
            "clock": self.session.clock,
            "on_event": tell,
        }
        if several:
            outcomes = jobs.flash_all(self.loaded.image, self.target, paths=options.paths, **common)
        else:
            selector = Selector(path=options.paths[0] if options.paths else None, serial=options.serial)
            result = jobs.flash(self.loaded.image, self.target, selector=selector, **common)
            outcomes = [FlashOutcome(result.path, serials.get(result.path), result, None)]
        self._compare([outcome.path for outcome in outcomes if outcome.result is not None])
        exit_code = next((outcome.error.exit_code for outcome in outcomes if outcome.error is not None), 0)
        self.session.console.raw(json_lines.result_line(outcomes, exit_code))
        return exit_code

    def _compare(self, paths: Sequence[str]) -> None:
        """After a rehearsal: is in the simulated flash what was sent?"""
        if self.simulation is None or not paths:
            return
        compared = sum(self.simulation.compare(self.loaded.image, path) for path in paths)
        self.session.console.say(
            f"All {compared} bytes in the simulated flash are those of the image; no USB was touched."
        )


def _verdict(outcome: FlashOutcome) -> str:
    if outcome.error is not None:
        return outcome.error.code
    assert outcome.result is not None
    reset = f", after the reset: {outcome.result.after_reset}" if outcome.result.after_reset else ""
    return f"{outcome.result.status} ({outcome.result.state}){reset}"


def _warn_if_older(session: Session, dfu_bin: Path, build_dir: Path) -> None:
    newer = jobs.newer_inputs(dfu_bin, build_dir)
    if newer:
        more = f" and {len(newer) - 1} more" if len(newer) > 1 else ""
        session.console.warn(
            f"{dfu_bin.name} is older than {newer[0].name}{more}; flashed as it is. "
            f"To take the new build: {session.face.build}"
        )


def _project_of(dfu_bin: Path) -> Path | None:
    """The project whose build folder a dfu.bin lies in; it may have chips of its own."""
    project = dfu_bin.resolve().parent.parent
    return project if (project / PROJECT_FOLDER).is_dir() else None


def _simulation(
    session: Session, options: FlashOptions, target: Target, targets: Sequence[Target]
) -> simulator.Simulation | None:
    text = simulator.requested()
    if text:
        return simulator.simulate_text(text, targets, session.clock)
    if options.simulate:
        return simulator.simulate_boards(target, session.clock, options.paths, options.serial)
    return None


def _bus(session: Session, targets: Sequence[Target]) -> Bus:
    text = simulator.requested()
    return simulator.simulate_text(text, targets, session.clock).bus if text else Bus()


# --- demo -------------------------------------------------------------------------------------------------


@contextmanager
def scratch_folder() -> Iterator[None]:
    """Work in a new temporary folder for a while."""
    before = Path.cwd()
    with TemporaryDirectory(prefix="esp-dfu-demo-") as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)
