"""Virtual time that several threads share, with actions planned for given times."""

from __future__ import annotations

import threading
from collections.abc import Callable

_LOOK = 0.001  # real seconds between two checks whether all threads sleep


class SharedClock:
    """Time that advances only while the main thread and all boards' threads sleep, up to the next wake-up."""

    def __init__(self) -> None:
        self._now = 0.0
        self._changed = threading.Condition()
        self._sleepers: dict[int, float] = {}
        self._plans: list[tuple[float, Callable[[], object]]] = []

    def monotonic(self) -> float:
        """Return the seconds that have passed."""
        return self._now

    def at(self, when: float, *actions: Callable[[], object]) -> None:
        """Plan actions for a time; the thread that advances the clock carries them out."""
        with self._changed:
            self._plans = sorted([*self._plans, *((when, action) for action in actions)], key=lambda plan: plan[0])

    def sleep(self, seconds: float) -> None:
        """See Clock."""
        me = threading.get_ident()
        with self._changed:
            wake = self._now + max(seconds, 0.0)
            self._sleepers[me] = wake
            try:
                while self._now < wake:
                    if not self._pass():
                        self._changed.wait(_LOOK)
            finally:
                del self._sleepers[me]

    def _counts(self, thread: threading.Thread) -> bool:
        """Return True if time stands still while this thread is awake."""
        return thread is threading.main_thread() or thread.name.startswith("dfu-")

    def _pass(self) -> bool:
        """Advance time if no thread is awake; return True if it advanced."""
        if any(self._counts(thread) for thread in threading.enumerate() if thread.ident not in self._sleepers):
            return False
        next_wake = min(self._sleepers.values())
        due = self._plans[0][0] if self._plans else next_wake
        if min(next_wake, due) <= self._now and next_wake <= self._now:
            return False  # a thread is just waking up
        self._now = max(self._now, min(next_wake, due))
        while self._plans and self._plans[0][0] <= self._now:
            self._plans.pop(0)[1]()
        self._changed.notify_all()
        return True
