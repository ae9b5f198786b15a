"""Deadlines on a virtual clock."""

from __future__ import annotations

from esp_dfu_ext.clock import Deadline, VirtualClock


def test_deadline_never_sleeps_past_its_end() -> None:
    clock = VirtualClock()
    clock.sleep(100)
    deadline = Deadline(clock, 1.0)
    slept = [deadline.sleep(0.4) for _ in range(4)]
    assert slept == [True, True, True, False]
    assert (clock.monotonic(), deadline.left) == (101.0, 0.0)


def test_passed_deadline_does_not_sleep() -> None:
    clock = VirtualClock()
    deadline = Deadline(clock, 0.0)
    assert not deadline.sleep(5)
    clock.sleep(2)
    assert (deadline.left, deadline.sleep(5), clock.monotonic()) == (-2.0, False, 2.0)
