"""How long the chip takes: the waits of the ROM's loop, and the work of the flash memory.

The numbers are data of the chip (`timing` in its YAML file). The loop's were executed, the flash memory's are typical
values of a data sheet.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..clock import Clock
from ..target import Timing
from ..units import MIB

_MAX_LATE = 0.005  # seconds; more than that is a simulation that cannot keep up


@dataclass
class Work:
    """What the flash memory has been asked to do: erase and program commands, and bytes read for their MD5."""

    sectors: int = 0
    blocks: int = 0
    programs: int = 0
    verified: int = 0


def request_time(timing: Timing, *, download: bool, serial_loader: bool) -> float:
    """Return the seconds that the ROM takes for a control request, without the flash memory's work.

    Args:
        timing: Data of the chip.
        download: The request is a DFU_DNLOAD.
        serial_loader: A SYNC has taken the ROM out of its first loop.
    """
    loop = timing.serial_loader if serial_loader else timing.first_loop
    return loop.download if download else loop.request


def work_time(timing: Timing, work: Work) -> float:
    """Return the seconds that the flash memory takes."""
    return (
        work.sectors * timing.erase_sector
        + work.blocks * timing.erase_block
        + work.programs * timing.program
        + work.verified / MIB * timing.verify_per_mib
    )


class ChipTime:
    """Makes requests take the chip's own time, in real time too.

    The computing time of the simulation counts towards the chip's time. If a request ends late, because the simulation
    was slow or a sleep took too long, the next requests take less.

    Args:
        clock: Time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = 0.0
        self._late = 0.0

    def begin(self) -> None:
        """Begin a request."""
        self._began = self._clock.monotonic() - self._late

    def spend(self, seconds: float) -> None:
        """Wait until the request has taken this long."""
        end = self._began + seconds
        left = end - self._clock.monotonic()
        if left > 0:
            self._clock.sleep(left)
        self._late = min(max(0.0, self._clock.monotonic() - end), _MAX_LATE)
