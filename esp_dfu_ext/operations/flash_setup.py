"""What a flash needs besides the board: the image, how to flash it, and where the boards are."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..clock import Clock
from ..events import EventSink
from ..target import Target
from ..usb.bus import Bus
from .board_port import RETURN_TIME
from .inspect import CheckedImage
from .restart import NO_RESET, Bridge


@dataclass(frozen=True)
class FlashOptions:
    """How to flash.

    Attributes:
        wait: Seconds to wait for a board.
        strict: Ask the chip for its status after each block.
        after: How to start the app after the flash, in esptool's words: ``hard-reset`` by the bridge that `port` is, by
            the chip's watchdog, or by a bus reset if its serial loader does not answer; ``watchdog-reset`` by nothing
            else; ``no-reset``; besides, ``bus-reset`` as dfu-util does it. None for ``hard-reset``.
        before: How to get the board behind `port` into download mode, in esptool's words: ``default-reset`` by its
            lines, which are those of a USB-UART bridge or of an app; ``no-reset``. None for ``default-reset``. With or
            without a port, no app is asked to hand over to the ROM after ``no-reset``.
        over: ``dfu``, or ``serial`` to flash through the board's own serial port with esptool; one board only.
        port: Name of the board's serial port: over DFU, that of its USB-UART bridge or its app; None for none. Over
            serial, the one to flash through; None for that of the only board.
        no_stub: Over serial, do without esptool's stub, which compresses and is faster.
        no_loader: Leave the chip's serial loader alone: DFU only, in the chip's slow loop.
        force: Flash an image that the board will not boot because of its security features.
        skip_flashed: Do not send what flash memory holds already, by the MD5s of the chip's serial loader.
        verify: Compare flash memory with the image afterwards, by these MD5s.
    """

    wait: float = 0.0
    strict: bool = False
    after: str | None = None
    before: str | None = None
    over: str = "dfu"
    port: str | None = None
    no_stub: bool = False
    no_loader: bool = False
    force: bool = False
    skip_flashed: bool = False
    verify: bool = False


@dataclass(frozen=True)
class FlashSetup:
    """Everything a flash needs except the board.

    Attributes:
        image: Image to flash.
        options: How to flash it.
        bus: Where the boards are.
        targets: Known chips, to describe other devices.
        clock: Time.
        on_event: Called with each event, in the order that `events` documents.
        return_time: Seconds to look for the board after its restart.
        others: Returns the number of other boards that are being flashed at the moment.
        bridge: What restarts the chip by its pins; None for none.
        keep_result: A board that is flashed stays flashed, even if Ctrl-C ends the wait for its app.
    """

    image: CheckedImage
    options: FlashOptions
    bus: Bus
    targets: Sequence[Target]
    clock: Clock
    on_event: EventSink
    return_time: float = RETURN_TIME
    others: Callable[[], int] = int
    bridge: Bridge | None = None
    keep_result: bool = False

    @property
    def asks_apps(self) -> bool:
        """Whether a flash may ask an app by DFU_DETACH to hand over to the ROM."""
        return self.options.over == "dfu" and self.options.before != NO_RESET

    @property
    def uses_loader(self) -> bool:
        """Whether a flash speaks to the chip's serial loader."""
        loader = self.image.target.serial_loader
        return loader is not None and loader.use and not self.options.no_loader


class Written(enum.Enum):
    """What a flash has written to flash memory so far."""

    NOTHING = "Nothing was written."
    PART = "The image in flash memory may be incomplete."
    ALL = "The whole image was sent, but the chip has not confirmed it."
    CONFIRMED = "The chip has confirmed the whole image."

    @property
    def incomplete(self) -> bool:
        """True if flash memory may hold less than the whole image."""
        return self in (Written.PART, Written.ALL)


class BoardSkipped(Exception):
    """The board has a serial number or MAC address that was to be left alone; nothing was written to it.

    `restarted` is true if its app had handed over before that was known, and was started again.
    """

    def __init__(self, serial: str | None, mac: str | None = None, *, restarted: bool = False) -> None:
        super().__init__(serial or mac)
        self.serial = serial
        self.mac = mac
        self.restarted = restarted
