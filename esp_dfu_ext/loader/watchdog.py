"""The watchdog of the chip's RTC, by which a serial loader restarts the chip so that it samples its straps again."""

from __future__ import annotations

from ..target import SerialLoader

_TICKS = 2000  # until it resets the chip; esptool, watchdog_reset
_STAGE = 1 << 31 | 5 << 28 | 1 << 8 | 2  # enable, stage 0 resets the RTC; as above


def restart_writes(data: SerialLoader) -> tuple[tuple[int, int, int], ...]:
    """Return the writes that restart a chip, in order: address, value and mask of a register.

    The first one clears FORCE_DOWNLOAD_BOOT, with which an app hands over to the ROM, and which would take the chip
    back there. The chip may be gone before the answer to the last one.
    """
    dog, force, every_bit = data.watchdog, data.force_download_boot, 0xFFFFFFFF
    return (
        (force.address, 0, force.mask),
        (dog.write_protect, dog.key, every_bit),
        (dog.timeout, _TICKS, every_bit),
        (dog.config, _STAGE, every_bit),
        (dog.write_protect, 0, every_bit),
    )
