"""`dfu-flash --watch`: flash one board after the other, each as it is plugged in."""

from __future__ import annotations

from ..errors import stopped_exit_code
from ..operations.results import FlashOutcome, WatchResult
from ..ui import views
from ..ui.lines import Problem, Verdict
from ..units import format_seconds, format_size
from .flash_run import FlashRun


def watch(run: FlashRun) -> int:
    """Show the verdicts as they come; the exit code is the first failed board's, 0 if none failed.

    Without a count, Ctrl-C is how it ends, and no failure; with one it is, as long as boards are missing.
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
            figures = f"{format_size(outcome.result.size)} in {format_seconds(outcome.result.seconds)}"
            if outcome.result.after_reset is not None:
                figures += f"; after the reset: {outcome.result.after_reset}"
        done = so_far.passed + so_far.failed
        serial = outcome.serial if target.usb.serial != "fixed" else None  # it says nothing
        view.verdict(Verdict(outcome.path, serial, figures, _tally(so_far), done, problem))

    with view:
        view.begin(f" on port {', '.join(arguments.paths)}" if arguments.paths else "", arguments.count)
        result = run.flasher(view).watch(run.image, paths=arguments.paths, count=arguments.count, on_outcome=show)
    session.console.result(f"Done: {_tally(result)}.", good=result.first_error is None)
    if result.first_error is not None:
        return result.first_error.exit_code
    missing = arguments.count is not None and result.passed < arguments.count
    return stopped_exit_code(result.stopped) if missing else 0


def _tally(result: WatchResult) -> str:
    return f"{result.passed} passed, {result.failed} failed"
