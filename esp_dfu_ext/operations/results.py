"""What flashing returns: for one board, for one of several boards, for a watch."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import EspDfuError
from ..events import CameBack
from ..target import Target


@dataclass(frozen=True)
class FlashResult:
    """A board that was flashed, and its last answer.

    Attributes:
        path: Port of the board; the name of its serial port if it was flashed over that.
        serial: Serial number, None if the board has none or it could not be read.
        size: Bytes written to flash memory.
        seconds: Time from the first contact to the last answer.
        status: Last bStatus.
        state: Last bState; empty over serial.
        after_reset: What was on the port after a reset; None if there was none.
        reset_by: What restarted the chip: ``en-pulse``, ``watchdog`` or ``bus-reset``; None if nothing did.
        came_back: What came back: ``nothing``, ``app``, ``rom`` or ``same``, as in `events.Flashed`; None without a
            reset.
        mac: MAC address, None if the chip's serial loader was not used or did not tell it.
        skipped: Bytes of the image that flash memory held already, so that they were not sent.
    """

    path: str
    serial: str | None
    size: int
    seconds: float
    status: str
    state: str
    after_reset: str | None = None
    mac: str | None = None
    skipped: int = 0
    reset_by: str | None = None
    came_back: CameBack | None = None


@dataclass(frozen=True)
class FlashOutcome:
    """How flashing one of several boards ended: with a `result` or with an `error`.

    Attributes:
        path: Port of the board.
        serial: Serial number, None if the board has none or it could not be read.
        result: Result of the flash, None if it failed.
        error: Why it failed, None if it did not.
        mac: MAC address, None if the chip's serial loader was not used or did not tell it.
    """

    path: str
    serial: str | None
    result: FlashResult | None
    error: EspDfuError | None
    mac: str | None = None

    def own_name(self, target: Target) -> str | None:
        """Return the serial number or, where all boards of the chip have the same one, the MAC address."""
        return self.mac if target.usb.serial == "fixed" else self.serial or self.mac


@dataclass(frozen=True)
class WatchResult:
    """How the boards of a watch ended; one that failed first and passed later counts as passed.

    Attributes:
        passed: Number of boards that were flashed.
        failed: Number of boards that were not.
        first_error: Error of the first board that failed, None if all passed.
        stopped: What ended the watch, Ctrl-C or a signal; None if nothing did.
    """

    passed: int
    failed: int
    first_error: EspDfuError | None
    stopped: KeyboardInterrupt | None
