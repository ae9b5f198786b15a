"""`dfu-flash`: flash an image onto one board, several together, or one after the other as they come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..dfu.discovery import Selector
from ..errors import EspDfuError
from ..events import Event
from ..operations import flash as flashing
from ..operations import inspect as inspecting
from ..target import load_target
from ..ui import views
from ..ui.text import Styled
from ..units import format_rate, format_seconds, format_size
from .flash_run import FlashOptions, FlashRun
from .session import Session, near
from .watch import watch

if TYPE_CHECKING:
    from ..operations.gang import FlashOutcome


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

        simulation = simulate_boards(target, session.clock, options.paths, options.serial)
    run = FlashRun(session, loaded, target, session.bus(simulation), targets, options, simulation)
    return _start(run) if options.report is None else _with_report(run, Path(options.report))


def _with_report(run: FlashRun, path: Path) -> int:
    """Flash with a report; the exit code is that of the first failure, of a board or of the report."""
    from ..operations.record import Recorder, Report

    with Report(path, run.session.clock) as report:
        recorder = Recorder(report, run.loaded, run.target, run.simulation is not None, run.session.clock)
        try:
            code = _start(replace(run, recorder=recorder))
        except EspDfuError as error:
            recorder.failed(error)
            raise
    if recorder.error is not None:
        code = code or run.session.fail(recorder.error)
    return code


def _start(run: FlashRun) -> int:
    if run.options.watch:
        return watch(run)
    if run.options.json:
        return _as_lines(run)
    return _several(run) if run.options.several else _one(run)


def _one(run: FlashRun) -> int:
    """One board, with a bar for each phase."""
    console = run.session.console
    with views.flash_view(console, run.title) as view:
        result = flashing.flash(run.loaded.image, run.target, selector=_selector(run), **run.common(view))
    app = run.loaded.app
    what = f"{app.project} {app.version}, " if app is not None else ""
    rate = f" ({format_rate(result.size, result.seconds)})" if run.simulation is None else ""
    console.result(
        f"{'Flashed' if run.simulation is None else 'Rehearsed'} {what}{format_size(result.size)} "
        f"in {format_seconds(result.seconds)}{rate} on port {result.path}. "
        f"The chip reported {result.status} in state {result.state}."
    )
    _compare(run, [result.path])
    if result.after_reset is not None:
        console.info(f"Seen on port {result.path} after the bus reset: {result.after_reset}.")
    elif run.simulation is None:
        console.info("The chip stays in download mode. To start the app, press RESET, or try --reset next time.")
    return 0


def _several(run: FlashRun) -> int:
    """Several boards at once, with a bar for each and a table in the end."""
    from ..operations import gang

    console = run.session.console
    with views.gang_view(console, run.title) as view:
        outcomes = gang.flash_all(run.loaded.image, run.target, paths=run.options.paths, **run.common(view))
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
        run.session.fail(error)
    good = len(outcomes) - len(failed)
    word = "flashed" if run.simulation is None else "rehearsed"
    console.result(f"{good} of {len(outcomes)} boards {word}.", good=not failed)
    _compare(run, [outcome.path for outcome in outcomes if outcome.result is not None])
    return failed[0].exit_code if failed else 0


def _as_lines(run: FlashRun) -> int:
    """The same for a program: a line for each event, the last with the verdict of each board."""
    from ..operations import gang
    from ..ui import json_lines

    def tell(event: Event) -> None:
        # A reader that leaves ends the flash: it asked for it, and nobody else would see the verdict.
        run.session.console.data(json_lines.event_line(event))

    common = run.common(tell)
    if run.options.several:
        outcomes = gang.flash_all(run.loaded.image, run.target, paths=run.options.paths, **common)
    else:
        result = flashing.flash(run.loaded.image, run.target, selector=_selector(run), **common)
        outcomes = [gang.FlashOutcome(result.path, result.serial, result, None)]
    _compare(run, [outcome.path for outcome in outcomes if outcome.result is not None])
    errors = [outcome.error for outcome in outcomes] + [run.recorder.error if run.recorder is not None else None]
    exit_code = next((error.exit_code for error in errors if error is not None), 0)
    run.session.console.data(json_lines.result_line(outcomes, exit_code))
    return exit_code


def _compare(run: FlashRun, paths: Sequence[str]) -> None:
    """After a rehearsal: is in the simulated flash what was sent?"""
    if run.simulation is None or not paths:
        return
    compared = sum(run.simulation.compare(run.loaded.image, path) for path in paths)
    run.session.console.info(f"All {compared} bytes in the simulated flash are those of the image; no USB was touched.")


def _selector(run: FlashRun) -> Selector:
    paths = run.options.paths
    return Selector(path=paths[0] if paths else None, serial=run.options.serial)


def _verdict(outcome: FlashOutcome) -> str:
    if outcome.error is not None:
        return Styled(f"FAILED: {outcome.error.code}", "bold red")
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
