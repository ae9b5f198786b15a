"""Make SIGTERM and SIGHUP end an operation as Ctrl-C does: in order, leaving the board idle and released."""

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
    """Raise Terminated on SIGTERM and SIGHUP within the context, unless they are ignored (nohup) or handled already."""
    before: dict[int, Any] = {}
    try:
        for number in (getattr(signal, name) for name in _NAMES if hasattr(signal, name)):
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, _terminate)
    except ValueError:
        pass  # only the main thread may set handlers
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated(number)
