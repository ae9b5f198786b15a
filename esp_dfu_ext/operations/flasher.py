"""The Python API for flashing: a `Flasher`, and functions for those who need it only once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

from ..clock import Clock, SystemClock
from ..dfu.discovery import Selector
from ..errors import InterruptedByUserError
from ..events import EventSink, ignore
from ..target import Target, load_targets
from ..usb.bus import Bus
from .enter import enter_download_mode
from .flash import flash_board
from .flash_setup import FlashOptions, FlashSetup
from .gang import flash_boards
from .inspect import CheckedImage
from .results import FlashOutcome, FlashResult, WatchResult
from .watch import OutcomeSink, watch_boards

_DEFAULT = FlashOptions()


def _no_outcome(outcome: FlashOutcome, so_far: WatchResult) -> None:
    """Ignore the outcome of a board."""


class Flasher:
    """Flashes boards: one, several at once, or each as it is plugged in.

    A Flasher keeps no device open between two calls, so it needs no closing.

    Args:
        options: How to flash.
        bus: Where the boards are; None for this computer's USB.
        targets: Known chips, to describe other devices in errors; None for all.
        clock: Time; None for real time.
        on_event: Called with each event, in the order that `esp_dfu_ext.events` documents; never from two threads
            at once.
    """

    def __init__(
        self,
        options: FlashOptions = _DEFAULT,
        *,
        bus: Bus | None = None,
        targets: Sequence[Target] | None = None,
        clock: Clock | None = None,
        on_event: EventSink = ignore,
    ) -> None:
        self.options = options
        self._bus = bus or Bus()
        self._targets = targets
        self._clock = clock or SystemClock()
        self._on_event = on_event

    def flash(
        self, image: CheckedImage, *, path: str | None = None, serial: str | None = None, mac: str | None = None
    ) -> FlashResult:
        """Flash one board.

        Args:
            image: Image from `load_image`.
            path: Port of the board, such as ``1-2``.
            serial: Serial number of the board. Without path, serial number and MAC address, exactly one board must be
                connected.
            mac: MAC address of the board, which every board's serial loader is asked for.

        Raises:
            DeviceNotFoundError: The board is not connected.
            SeveralDevicesError, UsageError: More than one board fits.
            NoSerialPortError, SerialPortError: The serial port of `FlashOptions.port` cannot be used.
            NoDownloadModeError: No board appeared after a reset through it.
            ReenumerationError: The board did not come back after DFU_DETACH.
            DfuStatusError, DfuError: The board reported an error.
            UsbError: A transfer failed; the class says how.
            UsbUnavailableError: USB cannot be used on this computer.
            SerialPortError, SerialLoaderError: The serial port or esptool failed, with ``FlashOptions(over="serial")``.
            InterruptedByUserError: Ctrl-C, SIGTERM or SIGHUP.
        """
        if self.options.over == "serial":
            from .flash_serial import flash_over_serial

            return flash_over_serial(self._setup(image), Selector(path=path, serial=serial))
        setup = self._setup(image)
        if mac is not None:
            path = self._port_of(mac, setup) if self.options.port is None else path
        selector = Selector(path=path, serial=serial, mac=mac)
        if self.options.port is not None:
            entered = enter_download_mode(setup, selector, self.options.port)
            setup, selector = replace(setup, bridge=entered.bridge), entered.selector
        return flash_board(setup, selector)

    def _port_of(self, mac: str, setup: FlashSetup) -> str:
        from .info import port_of_mac

        target, wait = setup.image.target, self.options.wait
        try:
            return port_of_mac(
                setup.bus,
                target,
                mac,
                clock=setup.clock,
                wait=wait,
                on_event=setup.on_event,
                apps=setup.asks_apps,
            )
        except KeyboardInterrupt as stop:
            where = " while looking for a board; nothing was written"
            raise InterruptedByUserError.by(stop, where, incomplete=False) from None

    def flash_all(self, image: CheckedImage, *, paths: Sequence[str] = ()) -> list[FlashOutcome]:
        """Flash several boards of the image's chip at once.

        With ``FlashOptions(wait=...)`` it waits until all `paths` have a board; without `paths` until there is one,
        and then for others plugged in at about the same time.

        Args:
            image: Image from `load_image`.
            paths: Ports of the boards; all boards of this chip if empty.

        Returns:
            One outcome for each board, in the order of `paths`. An error on one board does not affect the others.
            After Ctrl-C, boards that were not finished have an InterruptedByUserError.

        Raises:
            DeviceNotFoundError: A board is not connected; nothing was sent to any board.
            UsbUnavailableError: USB cannot be used on this computer.
        """
        return flash_boards(self._setup(image), paths)

    def watch(
        self,
        image: CheckedImage,
        *,
        paths: Sequence[str] = (),
        count: int | None = None,
        stop: threading.Event | None = None,
        on_outcome: OutcomeSink = _no_outcome,
    ) -> WatchResult:
        """Flash each board of the image's chip once as it is plugged in, beginning with those already connected.

        A board that failed is tried again once it has been unplugged and plugged in again. ``FlashOptions.wait`` is
        not used.

        Args:
            image: Image from `load_image`.
            paths: Ports to watch; all if empty.
            count: Number of boards after which to end; a board with a serial number counts once. None for no end.
            stop: Ends the watch in order when it is set, as Ctrl-C does.
            on_outcome: Called with each board's outcome and the result so far, in the caller's thread.

        Returns:
            The result, after `count` boards or after Ctrl-C. Boards that were being flashed then have an
            InterruptedByUserError.

        Raises:
            UsbUnavailableError: USB cannot be used on this computer.
            UsbError: USB could not be scanned for several seconds.
        """
        return watch_boards(self._setup(image), paths, count, stop or threading.Event(), on_outcome)

    def _setup(self, image: CheckedImage) -> FlashSetup:
        if self._targets is None:
            self._targets = load_targets()
        return FlashSetup(image, self.options, self._bus, self._targets, self._clock, self._on_event)


def flash(
    image: CheckedImage,
    options: FlashOptions = _DEFAULT,
    *,
    path: str | None = None,
    serial: str | None = None,
    on_event: EventSink = ignore,
) -> FlashResult:
    """Flash one board; see `Flasher.flash`."""
    return Flasher(options, on_event=on_event).flash(image, path=path, serial=serial)


def flash_all(
    image: CheckedImage, options: FlashOptions = _DEFAULT, *, paths: Sequence[str] = (), on_event: EventSink = ignore
) -> list[FlashOutcome]:
    """Flash several boards at once; see `Flasher.flash_all`."""
    return Flasher(options, on_event=on_event).flash_all(image, paths=paths)


def watch(
    image: CheckedImage,
    options: FlashOptions = _DEFAULT,
    *,
    paths: Sequence[str] = (),
    count: int | None = None,
    on_event: EventSink = ignore,
    on_outcome: OutcomeSink = _no_outcome,
) -> WatchResult:
    """Flash each board once as it is plugged in; see `Flasher.watch`."""
    return Flasher(options, on_event=on_event).watch(image, paths=paths, count=count, on_outcome=on_outcome)
