"""SIGTERM and SIGHUP end a job as Ctrl-C does: in order, with the board left idle and the interface released."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from .errors import Terminated

_NAMES = ("SIGTERM", "SIGHUP")  # Windows has no SIGHUP


@contextmanager
def as_interrupts() -> Iterator[None]:
    """Within it SIGTERM and SIGHUP raise Terminated, unless somebody ignores (nohup) or handles them already."""
    before: dict[int, Any] = {}
    try:
        for number in (getattr(signal, name) for name in _NAMES if hasattr(signal, name)):
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, _terminate)
    except ValueError:
        pass  # not in the main thread: not ours to decide
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated(number)
