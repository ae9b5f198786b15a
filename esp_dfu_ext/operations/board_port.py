"""Look at the port of a board: whether the board has left it, and what came back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from ..clock import Clock, Deadline
from ..dfu.device import DfuDevice
from ..dfu.discovery import SCAN_INTERVAL, describe, device_at
from ..errors import DfuAnswerError, StallError, TransferTimeoutError, UsbError
from ..target import Target
from ..usb.bus import Bus, UsbDevice
from ..usb.handle import UsbHandle

LEAVING_TIME = 0.5  # seconds that a hub may take to notice that a device was unplugged
# Seconds until a device is on the port again: the ROM needs 0.3 to 0.6, an app as long as it likes.
RETURN_TIME = 2.0
APP_TIME = 5.0  # seconds for an app of which it is known, or likely, that it uses USB
_HUB_TIME = 0.5  # seconds that a hub takes to set a device up, and in which it notices nothing of its other ports
_ANSWER_TIME = 0.1  # seconds for an answer of a device that may be gone


class BoardPort:
    """The port that a device was on when it was last seen.

    Args:
        bus: Where the port is.
        device: The device.
        targets: Known chips, to describe others that are found on the port.
        clock: Time.
        others: Number of other boards that may leave and return at the same time; each makes all take longer.
    """

    def __init__(
        self, bus: Bus, device: UsbDevice, targets: Sequence[Target], clock: Clock, *, others: int = 0
    ) -> None:
        self._bus = bus
        self._device = device
        self._targets = targets
        self._clock = clock
        self._delay = others * _HUB_TIME

    @property
    def path(self) -> str:
        """Its name, ``bus-port.port``."""
        return self._device.path

    def has_lost_it(self, handle: UsbHandle | None = None) -> bool:
        """Tell whether the device is gone: some host controllers report an I/O error first.

        Args:
            handle: The open device, which is asked too: a gone one does not answer, even if the hub is busy with
                another port and the device is still listed.
        """
        return any(
            now is None or self.is_other(now) or (handle is not None and _is_cut_off(handle))
            for now in self.watch(LEAVING_TIME)
        )

    def look_again(self) -> tuple[bool, str]:
        """Look at the port after the device has left: is a new device on it, and which, in a sentence?"""
        path, now = self._device.path, self.wait_for_other(RETURN_TIME)
        if now is not None and self.is_other(now):
            return True, f"A new device is on port {path} now: {self.describe(now)}."
        return False, f"{'Nothing' if now is None else 'Still the same device'} is on port {path} now."

    def wait_for_other(self, seconds: float) -> UsbDevice | None:
        """Return another device as soon as one is on the port; after `seconds`, what is there then."""
        now: UsbDevice | None = None
        for now in self.watch(seconds):
            if now is not None and self.is_other(now):
                break
        return now

    def describe(self, now: UsbDevice) -> str:
        """Return what a device is, in a few words."""
        return describe(now, self._targets)

    def is_other(self, now: UsbDevice) -> bool:
        """Tell whether a device is not the board's: every enumeration assigns a new address."""
        return now.address != self._device.address

    def watch(self, seconds: float) -> Iterator[UsbDevice | None]:
        """Yield the device on the port, or None, for some seconds; scans that fail are left out."""
        deadline = Deadline(self._clock, seconds + self._delay)
        while True:
            with suppress(UsbError):
                yield device_at(self._bus, self._device.path)
            if not deadline.sleep(SCAN_INTERVAL):
                return


def _is_cut_off(handle: UsbHandle) -> bool:
    """Tell whether requests to an open device fail at once; a refusal is an answer, a busy device may be silent."""
    try:
        DfuDevice(handle, _ANSWER_TIME).get_status()
    except (StallError, DfuAnswerError, TransferTimeoutError):
        return False
    except UsbError:
        return True
    return False
