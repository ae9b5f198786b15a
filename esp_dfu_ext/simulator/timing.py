"""How long the chip takes: the waits of the ROM's loop, and the work of the flash memory.

The numbers are data of the chip (`timing` in its YAML file). The loop's were executed, the flash memory's are typical
values of a data sheet.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..target import Timing
from ..units import MIB


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
