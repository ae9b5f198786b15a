"""`dfu-flash`: flash an image to one board, to several at once, or to one board after another."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ..errors import EspDfuError, UsageError
from ..events import Event
from ..image.firmware import image_files, missing_names, missing_parts
from ..inputs.esp_idf import FlasherArgs, read_flasher_args
from ..operations.flasher import Flasher
from ..operations.inspect import CheckedImage, load_image, outdated_files, own_chip_notices
from ..operations.restart import HARD_RESET
from ..operations.results import FlashOutcome, FlashResult
from ..target import Target, load_target
from ..ui import views
from ..ui.text import Styled
from ..units import format_rate, format_seconds, format_size
from .app_start import in_short, restarted_of, show_app_start
from .flash_run import FlashArguments, FlashRun
from .inputs import BuiltImage
from .session import SIMULATE_VARIABLE, Session, near
from .watch import watch


def flash(
    session: Session,
    dfu_bin: Path,
    arguments: FlashArguments,
    *,
    target_name: str | None = None,
    build_dir: Path | None = None,
    built: BuiltImage | None = None,
) -> int:
    """Flash one board, several at once, or each board as it is plugged in.

    Args:
        session: State of this invocation.
        dfu_bin: Image to flash.
        arguments: Options of the command line.
        target_name: Chip of the project, which the image must be for; None for any chip.
        build_dir: Build folder to compare the image with; None for the folder that the image is in.
        built: The image if it is in memory, made from `dfu_bin`.
    """
    arguments.check()
    if arguments.reset:
        session.console.info(f"--reset is now the default; it means --after {HARD_RESET}.")
    dfu_bin = near(dfu_bin)
    if built is None:
        session.name_image(dfu_bin)
    session.names = replace(session.names, flash=session.names.again or session.names.flash)
    session.target = built.target if built is not None else None
    if target_name is not None:
        session.target = load_target(target_name, session.project_dir)
    targets = session.targets()
    if built is None:
        image = load_image(dfu_bin, session.target, targets, force=arguments.force, on_event=session.notice)
    else:
        image = load_image(dfu_bin, session.target, targets, image=built.image, force=True)  # checked when it was built
    session.target = image.target
    for notice in own_chip_notices(image.target) if built is None else []:
        session.notice(notice)
    _show_image(session, image)
    if built is None:
        _warn_if_outdated(session, image, build_dir or dfu_bin.parent)
        missing = missing_parts(missing_names(image_files(image.image), image.target))
        if missing:
            session.console.warn(missing)
    simulation = session.make_simulation(targets)
    if simulation is not None and arguments.over == "serial":
        raise UsageError(f"Boards that {SIMULATE_VARIABLE} simulates have no serial port for --over serial.")
    if simulation is None and arguments.simulate:
        from ..simulator import simulate_boards

        simulation = simulate_boards(image.target, session.clock, arguments.paths, arguments.serial)
    project = built.plan if built is not None else _project_args(build_dir or dfu_bin.parent)
    arguments = replace(
        arguments, before=arguments.reset_before(project.before), after=arguments.restart_after(project.after)
    )
    run = FlashRun(session, image, session.open_bus(simulation), targets, arguments, simulation)
    return _start(run) if arguments.report is None else _with_report(run, Path(arguments.report))


def _with_report(run: FlashRun, path: Path) -> int:
    """Flash with a report; the exit code is that of the first failure, of a board or of the report."""
    from ..operations.record import Recorder, Report

    with Report(path, run.session.clock) as report:
        recorder = Recorder(report, run.image, run.simulation is not None, run.session.clock)
        try:
            code = _start(replace(run, recorder=recorder))
        except EspDfuError as error:
            recorder.failed(error)
            raise
    if recorder.error is not None:
        code = code or run.session.fail(recorder.error)
    return code


def _start(run: FlashRun) -> int:
    if run.arguments.watch:
        return watch(run)
    if run.arguments.json:
        return _as_lines(run)
    return _several(run) if run.arguments.several else _one(run)


def _one(run: FlashRun) -> int:
    """Flash one board, with a progress bar for each phase."""
    console = run.session.console
    with views.flash_view(console, run.title) as view:
        result = _flash_one(run, run.flasher(view))
    app = run.image.app
    what = f"{app.project} {app.version}" if app is not None else "the image"
    if result.size == 0:
        console.result(
            f"Already flashed: {what}, {format_size(result.skipped)}, on port {result.path}. Nothing was sent."
        )
    else:
        _show_result(run, result, what)
    _compare(run, [result.path])
    if result.came_back is not None or not run.arguments.simulate:
        show_app_start(run.session, result.path, restarted_of(result), run.image.target)
    return 0


def _show_result(run: FlashRun, result: FlashResult, what: str) -> None:
    rate = f" ({format_rate(result.size, result.seconds)})" if run.simulation is None else ""
    done = f"Flashed {what}," if run.simulation is None else f"Dry run of {what}:"
    skipped = f" of {format_size(result.size + result.skipped)}" if result.skipped else ""
    run.session.console.result(
        f"{done} {format_size(result.size)}{skipped} "
        f"in {format_seconds(result.seconds)}{rate} on port {result.path}. "
        f"{_verdict_of_chip(result)}"
    )


def _verdict_of_chip(result: FlashResult) -> str:
    if not result.state:
        return "The MD5 of every file matches the flash memory."
    return f"The chip reported {result.status} in state {result.state}."


def _several(run: FlashRun) -> int:
    """Flash several boards at once, with a progress bar for each and a table at the end."""
    console = run.session.console
    with views.gang_view(console, run.title) as view:
        outcomes = run.flasher(view).flash_all(run.image, paths=run.arguments.paths)
    shared = run.image.target.usb.serial == "fixed"
    console.table(
        ["Port", "MAC address" if shared else "Serial number", ">Time", "Result"],
        [
            (
                outcome.path,
                outcome.own_name(run.image.target) or "",
                format_seconds(outcome.result.seconds) if outcome.result is not None else "",
                _verdict(outcome, run.image.target),
            )
            for outcome in outcomes
        ],
    )
    failed = [outcome.error for outcome in outcomes if outcome.error is not None]
    for error in failed:
        run.session.fail(error)
    good = len(outcomes) - len(failed)
    word = "flashed" if run.simulation is None else "passed the dry run"
    boards = "board" if len(outcomes) == 1 else "boards"
    console.result(f"{good} of {len(outcomes)} {boards} {word}.", good=not failed)
    _compare(run, [outcome.path for outcome in outcomes if outcome.result is not None])
    return failed[0].exit_code if failed else 0


def _as_lines(run: FlashRun) -> int:
    """Flash for a program: print a line for the image, for each event, and for the result of all boards."""
    from ..ui import json_lines

    def print_line(event: Event) -> None:
        # A reader that closes the pipe ends the flash: nobody else would see the result.
        run.session.console.data(json_lines.event_line(event))

    run.session.console.data(json_lines.image_line(run.image))
    flasher = run.flasher(print_line)
    if run.arguments.several:
        outcomes = flasher.flash_all(run.image, paths=run.arguments.paths)
    else:
        result = _flash_one(run, flasher)
        outcomes = [FlashOutcome(result.path, result.serial, result, None, result.mac)]
    _compare(run, [outcome.path for outcome in outcomes if outcome.result is not None])
    errors = [outcome.error for outcome in outcomes] + [run.recorder.error if run.recorder is not None else None]
    exit_code = next((error.exit_code for error in errors if error is not None), 0)
    run.session.console.data(json_lines.result_line(outcomes, exit_code))
    return exit_code


def _compare(run: FlashRun, paths: Sequence[str]) -> None:
    """Compare the simulated flash memory of the boards with the image."""
    if run.simulation is None or not paths:
        return
    compared = sum(run.simulation.compare(run.image.image, path) for path in paths)
    run.session.console.info(
        f"The simulated flash memory ({format_size(compared)}) matches the image; USB was not used."
    )


def _flash_one(run: FlashRun, flasher: Flasher) -> FlashResult:
    chosen = run.arguments
    path = chosen.paths[0] if chosen.paths else None
    return flasher.flash(run.image, path=path, serial=chosen.serial, mac=chosen.mac)


def _verdict(outcome: FlashOutcome, target: Target) -> str:
    if outcome.error is not None:
        return Styled(f"FAIL: {outcome.error.code}", "bold red")
    assert outcome.result is not None
    skipped = "" if outcome.result.size else ", already flashed"
    return f"PASS{skipped}{in_short(outcome.result, target)}"


def _show_image(session: Session, image: CheckedImage) -> None:
    """Show what is going to be flashed, before anything is sent."""
    what = str(image.app) if image.app is not None else "no app that describes itself"
    session.console.info(f"{image.path}: {what}, {format_size(image.image.payload_size)} for {image.target.chip}")


def _project_args(build_dir: Path) -> FlasherArgs:
    """Return what a build folder says; nothing if it has no flasher_args.json that can be read."""
    with suppress(EspDfuError, OSError):
        return read_flasher_args(build_dir)
    return FlasherArgs((), None)


def _warn_if_outdated(session: Session, image: CheckedImage, build_dir: Path) -> None:
    differ = outdated_files(image.image, build_dir)
    if differ:
        more = f" and of {len(differ) - 1} more" if len(differ) > 1 else ""
        session.console.warn(
            f"{image.path} is outdated: it holds another version of {differ[0].name}{more}. It is flashed anyway. "
            f"To update it: {session.names.build}"
        )
