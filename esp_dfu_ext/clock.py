"""Injectable time: modules take a Clock instead of calling time.*, so that tests never wait."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """A source of time."""

    def monotonic(self) -> float:
        """Return seconds since an arbitrary point; they never decrease."""

    def sleep(self, seconds: float) -> None:
        """Wait for `seconds`."""


class SystemClock:
    """Real time."""

    def monotonic(self) -> float:
        """Return time.monotonic()."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Call time.sleep()."""
        time.sleep(seconds)


class VirtualClock:
    """Time that advances only through `sleep`, which returns at once; host and simulated boards share it."""

    def __init__(self) -> None:
        self._now = 0.0

    def monotonic(self) -> float:
        """Return the seconds slept so far."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Advance the time by `seconds`, at once."""
        self._now += max(seconds, 0.0)
