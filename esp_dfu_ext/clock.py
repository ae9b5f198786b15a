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


class Deadline:
    """The end of a wait that looks at something again and again.

    Args:
        clock: Time.
        seconds: Length of the wait; it begins now.
    """

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._end = clock.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds until the deadline; 0 or less after it."""
        return self._end - self._clock.monotonic()

    def sleep(self, seconds: float) -> bool:
        """Sleep for `seconds`, but not past the deadline; return False, without sleeping, if it has passed."""
        left = self.left
        if left <= 0:
            return False
        self._clock.sleep(min(seconds, left))
        return True
