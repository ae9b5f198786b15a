"""Report a phase of an operation: when it starts, and how long it took if it succeeds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..clock import Clock
from ..events import EventSink, Phase, PhaseFinished, PhaseStarted


@contextmanager
def timed(phase: Phase, path: str, clock: Clock, on_event: EventSink, total: int = 0) -> Iterator[None]:
    """Report a phase around what is done in it; one that ends with an error is not reported as finished.

    Args:
        phase: The phase.
        path: Port of the board.
        clock: Time.
        on_event: Receives the events.
        total: Bytes that will be sent; 0 for a phase without a size.
    """
    started = clock.monotonic()
    on_event(PhaseStarted(path, phase, total))
    yield
    on_event(PhaseFinished(path, phase, clock.monotonic() - started))
