"""Time, as something that is passed in: no module asks for it by itself, so no test has to wait."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Seconds that only grow, and a way to let some pass."""

    def monotonic(self) -> float:
        """Seconds since some point."""

    def sleep(self, seconds: float) -> None:
        """Let `seconds` pass."""


class SystemClock:
    """The real time."""

    def monotonic(self) -> float:
        """See time.monotonic."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """See time.sleep."""
        time.sleep(seconds)


class VirtualClock:
    """Time that passes only when somebody sleeps, and then at once; simulated boards share it with the host."""

    def __init__(self) -> None:
        self._now = 0.0

    def monotonic(self) -> float:
        """Seconds slept so far."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Takes no time."""
        self._now += max(seconds, 0.0)
