"""`dfu-flash --watch`: flash each board as it is plugged in, one after another."""

from __future__ import annotations

from ..errors import stopped_exit_code
from ..operations.results import FlashOutcome, WatchResult
from ..ui import views
from ..ui.lines import Problem, Verdict
from ..units import format_seconds, format_size
from .app_start import in_short
from .flash_run import FlashRun


def watch(run: FlashRun) -> int:
    """Flash each board as it is plugged in, and show the result of each.

    Returns:
        The exit code of the first board that failed, else 0. With a count, Ctrl-C before all boards have passed is a
        failure; without one it is the usual way to end.
    """
    arguments, session, target = run.arguments, run.session, run.image.target
    view = views.watch_view(session.console, run.title)

    def show(outcome: FlashOutcome, so_far: WatchResult) -> None:
        problem = None
        figures = ""
        if outcome.error is not None:
            error = outcome.error
            problem = Problem(error.message, error.code, *session.explained(error, target))
            figures = error.code
        elif outcome.result is not None:
            if run.simulation is not None:
                run.simulation.compare(run.image.image, outcome.path)
            size = format_size(outcome.result.size) if outcome.result.size else "already flashed"
            figures = f"{size} in {format_seconds(outcome.result.seconds)}"
            figures += in_short(outcome.result, target)
        done = so_far.passed + so_far.failed
        view.verdict(Verdict(outcome.path, outcome.own_name(target), figures, _tally(so_far), done, problem))

    with view:
        view.begin(f" on port {', '.join(arguments.paths)}" if arguments.paths else "", arguments.count)
        result = run.flasher(view).watch(run.image, paths=arguments.paths, count=arguments.count, on_outcome=show)
    done = "Done" if run.simulation is None else "Dry run done"
    session.console.result(f"{done}: {_tally(result)}.", good=result.first_error is None)
    if result.first_error is not None:
        return result.first_error.exit_code
    missing = arguments.count is not None and result.passed < arguments.count
    return stopped_exit_code(result.stopped) if missing else 0


def _tally(result: WatchResult) -> str:
    return f"{result.passed} passed, {result.failed} failed"
