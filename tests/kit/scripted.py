"""A device that answers DFU_GETSTATUS from a script."""

from __future__ import annotations

from collections.abc import Iterator

from esp_dfu_ext.clock import VirtualClock
from esp_dfu_ext.dfu.spec import StatusResponse
from esp_dfu_ext.usb.handle import UsbHandle

from .host import IDLE, OK


class Scripted(UsbHandle):
    """An open device with given answers to DFU_GETSTATUS; it accepts everything else.

    Args:
        clock: Time.
        states: State and seconds of bwPollTimeout of each answer; the last one is repeated.
        status: Status of every answer.

    Attributes:
        idle_first: Answer dfuIDLE before the first of `states`.
        asked: Times of DFU_GETSTATUS.
        sent: Other requests.
    """

    def __init__(self, clock: VirtualClock, *states: tuple[int, float], status: int = OK) -> None:
        super().__init__(None, 0, "1-1")
        self.idle_first = False
        self.clock = clock
        self.states: Iterator[tuple[int, float]] = iter(states)
        self.last = states[-1]
        self.status = status
        self.asked: list[float] = []
        self.sent: list[int] = []

    def control_out(self, request_type: int, request: int, value: int, data: bytes, timeout: float) -> int:
        self.sent.append(request)
        return len(data)

    def control_in(self, request_type: int, request: int, value: int, length: int, timeout: float) -> bytes:
        self.asked.append(self.clock.monotonic())
        assert len(self.asked) < 10_000
        if self.idle_first and len(self.asked) == 1:
            return StatusResponse(OK, 0.0, IDLE).encode()
        state, seconds = next(self.states, self.last)
        return StatusResponse(self.status, seconds, state).encode()
