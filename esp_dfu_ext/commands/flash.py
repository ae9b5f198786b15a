"""`dfu-flash`: flash an image onto one board, several together, or one after the other as they come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..dfu.discovery import Selector
from ..errors import EspDfuError, UsageError
from ..events import Event, EventSink
from ..operations import flash as flashing
from ..operations import inspect as inspecting
from ..operations.inspect import InspectResult
from ..target import Target, load_target
from ..ui import views
from ..ui.streams import Piece
from ..units import format_rate, format_seconds, format_size
from ..usb.bus import Bus
from .session import Session, near

if TYPE_CHECKING:
    from ..operations.gang import FlashOutcome
    from ..operations.record import Recorder
    from ..simulator import Simulation

_LONGEST_WAIT = 24 * 3600  # seconds


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
    watch: bool = False
    count: int | None = None
    report: str | None = None

    def check(self) -> None:
        """Raises UsageError if they contradict each other."""
        if sum((bool(self.paths), self.all, self.serial is not None)) > 1:
            raise UsageError("--path, --serial and --all each say which boards; give one of them.")
        if not 0 <= self.wait <= _LONGEST_WAIT:
            raise UsageError(f"--wait takes a number of seconds, from 0 to {_LONGEST_WAIT}.")
        if self.watch and self.serial is not None:
            raise UsageError("--watch takes whatever board comes, so --serial says nothing; --path says where.")
        if self.watch and self.wait:
            raise UsageError("--watch waits as long as it takes; leave --wait away.")
        if self.watch and self.json:
            raise UsageError("--watch has no --json; --report writes a JSON line for each board.")
        if self.count is not None and not self.watch:
            raise UsageError("--count is how many boards a --watch is for; give both.")
        if self.count is not None and self.count < 1:
            raise UsageError("--count takes a number of boards, 1 or more.")


def flash(
    session: Session,
    dfu_bin: Path,
    options: FlashOptions,
    *,
    target_name: str | None = None,
    build_dir: Path | None = None,
) -> int:
    """Flash one board, or several together, or one after the other as they come."""
    options.check()
    dfu_bin = near(dfu_bin)
    session.name_image(dfu_bin)
    session.target = load_target(target_name, session.project_dir) if target_name is not None else None
    targets = session.targets()
    loaded = inspecting.load_image(dfu_bin, session.target, targets)
    session.target = target = loaded.target
    assert target is not None  # load_image lets no other pass
    if build_dir is not None:
        _warn_if_older(session, dfu_bin, build_dir)
    simulation = session.simulation(targets)
    if simulation is None and options.simulate:
        from ..simulator import simulate_boards

        session.real = False
        simulation = simulate_boards(target, session.clock, options.paths, options.serial)
    bus = simulation.bus if simulation is not None else Bus()
    run = Flashing(session, loaded, target, bus, targets, options, simulation)
    return run.start() if options.report is None else _on_record(run, Path(options.report))


def _on_record(run: Flashing, path: Path) -> int:
    """The flash with a report; what failed first decides the exit code, be it a board or the report."""
    from ..operations.record import Recorder, Report

    with Report(path, run.session.clock) as report:
        recorder = Recorder(report, run.loaded, run.target, run.simulation is not None, run.session.clock)
        try:
            code = replace(run, recorder=recorder).start()
        except EspDfuError as error:
            recorder.failed(error)
            raise
    if recorder.error is not None:
        code = code or run.session.fail(recorder.error)
    return code


@dataclass(frozen=True)
class Flashing:
    """A flash that is about to begin, and everything it needs."""

    session: Session
    loaded: InspectResult
    target: Target
    bus: Bus
    targets: Sequence[Target]
    options: FlashOptions
    simulation: Simulation | None
    recorder: Recorder | None = None

    @property
    def title(self) -> str:
        return f"{'simulated ' if self.simulation else ''}{self.target.chip}"

    def start(self) -> int:
        """One board, several together, or one after the other as they come."""
        if self.options.watch:
            from .watch import watch

            return watch(self)
        several = self.options.all or len(set(self.options.paths)) > 1
        if self.options.json:
            return self.as_lines(several)
        return self.together() if several else self.alone()

    def sink(self, view: EventSink) -> EventSink:
        """Where the events go: to the view, and before that into the report if there is one."""
        if self.recorder is None:
            return view
        self.recorder.on_event = view
        return self.recorder

    @property
    def _selector(self) -> Selector:
        paths = self.options.paths
        return Selector(path=paths[0] if paths else None, serial=self.options.serial)

    def _common(self, on_event: EventSink) -> dict[str, Any]:
        """What both jobs take."""
        return {
            "bus": self.bus,
            "targets": self.targets,
            "wait": self.options.wait,
            "strict": self.options.strict,
            "reset": self.options.reset,
            "clock": self.session.clock,
            "on_event": self.sink(on_event),
        }

    def alone(self) -> int:
        """One board, with a bar for each phase."""
        console = self.session.console
        with views.flash_view(console, self.title) as view:
            result = flashing.flash(self.loaded.image, self.target, selector=self._selector, **self._common(view))
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
            console.say(f"Seen on port {result.path} after the bus reset: {result.after_reset}.")
        elif self.simulation is None:
            console.say("The chip stays in download mode. To start the app, press RESET, or try --reset next time.")
        return 0

    def together(self) -> int:
        """Several boards at once, with a bar for each and a table in the end."""
        from ..operations import gang

        console = self.session.console
        with views.gang_view(console, self.title) as view:
            outcomes = gang.flash_all(self.loaded.image, self.target, paths=self.options.paths, **self._common(view))
        console.table(
            ["Port", "Serial number", ">Time", "Result"],
            [
                (
                    outcome.path,
                    outcome.serial or "",
                    format_seconds(outcome.result.seconds) if outcome.result is not None else "",
                    _verdict(outcome),
                )
                for outcome in outcomes
            ],
        )
        failed = [outcome.error for outcome in outcomes if outcome.error is not None]
        for error in failed:
            self.session.fail(error)
        good = len(outcomes) - len(failed)
        word = "flashed" if self.simulation is None else "rehearsed"
        console.result(f"{good} of {len(outcomes)} boards {word}.", good=not failed)
        self._compare([outcome.path for outcome in outcomes if outcome.result is not None])
        return failed[0].exit_code if failed else 0

    def as_lines(self, several: bool) -> int:
        """The same for a program: a line for each event, the last with the verdict of each board."""
        from ..operations import gang
        from ..ui import json_lines

        def tell(event: Event) -> None:
            # A reader that leaves ends the flash: it asked for it, and nobody else would see the verdict.
            self.session.console.raw(json_lines.event_line(event))

        common = self._common(tell)
        if several:
            outcomes = gang.flash_all(self.loaded.image, self.target, paths=self.options.paths, **common)
        else:
            result = flashing.flash(self.loaded.image, self.target, selector=self._selector, **common)
            outcomes = [gang.FlashOutcome(result.path, result.serial, result, None)]
        self._compare([outcome.path for outcome in outcomes if outcome.result is not None])
        errors = [outcome.error for outcome in outcomes] + [self.recorder.error if self.recorder is not None else None]
        exit_code = next((error.exit_code for error in errors if error is not None), 0)
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
        return Piece(f"FAILED: {outcome.error.code}", "bold red")
    assert outcome.result is not None
    reset = f"; after the reset: {outcome.result.after_reset}" if outcome.result.after_reset else ""
    return f"{outcome.result.status}{reset}"


def _warn_if_older(session: Session, dfu_bin: Path, build_dir: Path) -> None:
    newer = inspecting.newer_inputs(dfu_bin, build_dir)
    if newer:
        more = f" and {len(newer) - 1} more" if len(newer) > 1 else ""
        session.console.warn(
            f"{dfu_bin.name} is older than {newer[0].name}{more}; flashed as it is. "
            f"To take the new build: {session.names.build}"
        )
