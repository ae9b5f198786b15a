"""What a command reaches outside itself: time, USB and this computer. Tests run commands on a host of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..clock import Clock, SystemClock
from ..linux.machine import Machine
from ..target import Target
from ..usb.bus import Bus

if TYPE_CHECKING:
    from ..simulator import Simulation


def _simulate(boards: str, targets: Sequence[Target], clock: Clock) -> Simulation:
    from ..simulator import simulate_text

    return simulate_text(boards, targets, clock)


@dataclass(frozen=True)
class Host:
    """The computer that a command runs on.

    Attributes:
        clock: Time, for the command and for simulated boards.
        machine: Its Linux files, its platform and the environment variables.
        open_usb: Makes the bus of its own USB ports.
        simulate: Makes simulated boards from the text of ESP_DFU_SIMULATE.
    """

    clock: Clock = field(default_factory=SystemClock)
    machine: Machine = field(default_factory=Machine)
    open_usb: Callable[[], Bus] = Bus
    simulate: Callable[[str, Sequence[Target], Clock], Simulation] = _simulate


def this_host() -> Host:
    """Return the computer that this process runs on."""
    return Host()
