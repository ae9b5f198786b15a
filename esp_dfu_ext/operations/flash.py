"""Flash one board: find it, change it to DFU mode, send the image, and say what became of the board."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass

from ..clock import Clock, Deadline
from ..dfu.access import ACCESS_DELAY, open_interface, until_accessible
from ..dfu.detach import detach_and_wait
from ..dfu.device import DfuDevice
from ..dfu.discovery import SCAN_INTERVAL, DfuInterface, Selector, describe, device_at, select
from ..dfu.download import RESET_STATES, download
from ..dfu.recovery import SILENT, back_to_idle, recover
from ..dfu.spec import Mode, StatusResponse
from ..errors import DeviceGoneError, DfuError, DfuSilentError, InterruptedByUserError, TransferTimeoutError, UsbError
from ..events import (
    DeviceFound,
    Event,
    EventSink,
    Flashed,
    PartsSkipped,
    Phase,
    PhaseFinished,
    PhaseStarted,
    Progress,
)
from ..image.format import DfuImage
from ..loader.rom_loader import preloading
from ..target import Target
from ..usb.bus import Bus, UsbDevice
from ..usb.handle import UsbHandle
from .acquaint import BoardLoader, check_fits, refuse_unbootable
from .inspect import CheckedImage
from .results import FlashResult
from .verify import check_flash, ready

LEAVING_TIME = 0.5  # seconds that a hub may take to notice that a device was unplugged
RETURN_TIME = 1.5  # seconds that a restarted chip may take to come back; 0.3 to 0.6 were seen


@dataclass(frozen=True)
class FlashOptions:
    """How to flash.

    Attributes:
        wait: Seconds to wait for a board.
        strict: Ask the chip for its status after each block.
        reset: Try to start the app after the flash: by a bus reset, over serial by the chip's watchdog.
        over: ``dfu``, or ``serial`` to flash through the board's own serial port with esptool; one board only.
        port: Name of the serial port; None for that of the only board.
        no_stub: Over serial, do without esptool's stub, which compresses and is faster.
        no_loader: Leave the chip's serial loader alone: DFU only, in the chip's slow loop.
        identify: Ask a board who it is, also where this makes the flash no faster.
        force: Flash an image that the board will not boot because of its security features.
        skip_flashed: Do not send what flash memory holds already, by the MD5s of the chip's serial loader.
        verify: Compare flash memory with the image afterwards, by these MD5s.
    """

    wait: float = 0.0
    strict: bool = False
    reset: bool = False
    over: str = "dfu"
    port: str | None = None
    no_stub: bool = False
    no_loader: bool = False
    identify: bool = False
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
    """

    image: CheckedImage
    options: FlashOptions
    bus: Bus
    targets: Sequence[Target]
    clock: Clock
    on_event: EventSink


class BoardSkipped(Exception):
    """The board has a serial number that was to be left alone; nothing was sent to it."""

    def __init__(self, serial: str) -> None:
        super().__init__(serial)
        self.serial = serial


def flash_board(setup: FlashSetup, selector: Selector, skip: Collection[str] = ()) -> FlashResult:
    """Flash one board.

    Args:
        setup: What to flash, and how.
        selector: Which board.
        skip: Serial numbers of boards to leave alone.

    Raises:
        BoardSkipped: The board's serial number is one of `skip`.
        EspDfuError: See `Flasher.flash`.
    """
    flash = _BoardFlash(setup)
    try:
        with preloading() if flash.uses_loader else nullcontext():
            return flash.run(selector, skip)
    except KeyboardInterrupt as stop:
        incomplete = flash.written in (_Written.PART, _Written.ALL)
        raise InterruptedByUserError.by(stop, flash.stopped_where, incomplete=incomplete) from None


class _Written(enum.Enum):
    """What a flash has written to flash memory so far."""

    NOTHING = "Nothing was written."
    PART = "The image in flash memory may be incomplete."
    ALL = "The whole image was sent, but the chip has not confirmed it."
    CONFIRMED = "The chip has confirmed the whole image."


class _BoardFlash:
    """The flash of one board.

    Attributes:
        stopped_where: How far it is, to end the sentence "Stopped..." after Ctrl-C.
        written: What it has written so far.
    """

    def __init__(self, setup: FlashSetup) -> None:
        self._image = setup.image.image
        self._unsent: DfuImage | None = self._image  # what is to be sent of it
        self._target = setup.image.target
        self._options = setup.options
        self._bus = setup.bus
        self._targets = setup.targets
        self._clock = setup.clock
        self._on_event = setup.on_event
        self._path = ""
        self._loader: BoardLoader | None = None
        self.stopped_where = " while looking for a board; nothing was written"
        self.written = _Written.NOTHING

    def run(self, selector: Selector, skip: Collection[str]) -> FlashResult:
        wait = self._options.wait
        interface = select(
            self._bus, self._target, selector, self._targets, clock=self._clock, wait=wait, on_event=self._on_event
        )
        self._path = interface.path
        self.stopped_where = f" before anything was written to the board on port {self._path}"
        started = self._clock.monotonic()
        # A board that was waited for may have been plugged in just now, before udev gave access to it.
        permitted = started + (ACCESS_DELAY if wait else 0.0)
        try:
            serial = self._serial_of(interface, permitted)
            if serial is not None and serial in skip:
                raise BoardSkipped(serial)
            self._on_event(DeviceFound(self._path, "DFU" if interface.mode is Mode.DFU else "run-time", serial))
            if interface.functional is not None and not interface.functional.can_download:
                raise DfuError(f"The device on port {self._path} does not accept downloads (bitCanDnload is 0).")
            patience = max(0.0, permitted - self._clock.monotonic())
            if interface.mode is Mode.RUN_TIME:
                interface = self._detach(interface, serial, patience)
                patience = ACCESS_DELAY
            with open_interface(interface, clock=self._clock, patience=patience) as handle:
                device = DfuDevice(handle)
                self._meet(handle, interface)
                self._compare()
                answer = self._download(device, interface)
                self._check()
                seconds = self._clock.monotonic() - started
                after_reset = None
                if self._options.reset or answer.state in RESET_STATES:
                    after_reset = self._reset(device, interface)
        except DeviceGoneError as error:
            error.restarted, now = self._look_again(interface)
            error.notes += (self.written.value, now)
            raise
        finally:
            if self._loader is not None:
                self._loader.close()
        status, state, size, skipped = str(answer.status), str(answer.state), self._size, self._skipped
        self._on_event(Flashed(self._path, size, seconds, status, state, skipped))
        return FlashResult(self._path, serial, size, seconds, status, state, after_reset, self._mac, skipped)

    @contextmanager
    def _phase(self, phase: Phase) -> Iterator[None]:
        started = self._clock.monotonic()
        self._on_event(PhaseStarted(self._path, phase))
        yield
        self._on_event(PhaseFinished(self._path, phase, self._clock.monotonic() - started))

    def _serial_of(self, interface: DfuInterface, permitted: float) -> str | None:
        patience = permitted - self._clock.monotonic()
        try:
            return until_accessible(interface.read_serial, clock=self._clock, patience=patience)
        except UsbError as error:
            # libusb also reports a device as gone that is on the bus but has no node, as in some containers.
            if isinstance(error, DeviceGoneError) and self._has_left(interface):
                raise
            return None

    @property
    def uses_loader(self) -> bool:
        """Whether it speaks to the chip's serial loader."""
        loader = self._target.serial_loader
        options = self._options
        if loader is None or not loader.use or options.no_loader:
            return False
        return loader.fast_loop or options.identify or options.skip_flashed or options.verify

    @property
    def _mac(self) -> str | None:
        return self._loader.identity.mac if self._loader is not None and self._loader.identity is not None else None

    def _meet(self, handle: UsbHandle, interface: DfuInterface) -> None:
        """Take the chip into its fast loop, and check the image against what the board says of itself."""
        verify = self._options.verify
        if not self.uses_loader and not verify:
            return
        self._loader = BoardLoader(interface.device, self._target, self._clock, self._on_event, required=verify)
        if self.uses_loader:
            self._loader.greet(handle)
        if verify:
            ready(self._loader, self.written.value)
        identity = self._loader.identity
        if identity is not None:
            check_fits(self._image, self._target, identity, self._path, self._on_event)
            refuse_unbootable(
                self._image,
                self._target,
                identity,
                self._path,
                force=self._options.force,
                on_event=self._on_event,
            )

    @property
    def _size(self) -> int:
        return self._unsent.payload_size if self._unsent is not None else 0

    @property
    def _skipped(self) -> int:
        return max(0, self._image.payload_size - self._size)

    def _compare(self) -> None:
        """Leave out what flash memory holds already."""
        if not self._options.skip_flashed or self._loader is None:
            return
        self.stopped_where = f" while comparing the flash memory of the board on port {self._path}; nothing was written"
        with self._phase(Phase.COMPARE):
            self._unsent = self._loader.unflashed(self._image)
        if self._skipped:
            self._on_event(PartsSkipped(self._path, self._skipped, self._image.payload_size))

    def _check(self) -> None:
        """Compare flash memory with the image once more, without DFU."""
        if not self._options.verify or self._loader is None:
            return
        rom, identity = ready(self._loader), self._loader.identity
        encrypted = identity is not None and identity.security.flash_encryption
        with self._phase(Phase.CHECK):
            check_flash(rom, self._image, self._target, self._path, encrypted=encrypted)

    def _detach(self, interface: DfuInterface, serial: str | None, patience: float) -> DfuInterface:
        self.stopped_where = f" while the board on port {self._path} was changing to DFU mode; nothing was written"
        with self._phase(Phase.DETACH):
            return detach_and_wait(
                interface,
                self._bus,
                self._target,
                clock=self._clock,
                targets=self._targets,
                patience=patience,
                serial=serial,
                on_event=self._on_event,
            )

    def _download(self, device: DfuDevice, interface: DfuInterface) -> StatusResponse:
        # Until more is known: a second Ctrl-C may end the recovery below.
        self.stopped_where = f". The state of the board on port {self._path} is unknown"
        try:
            answer = self._send(device, interface)
        except DeviceGoneError:
            raise
        except (DfuError, UsbError) as error:
            if type(error) in (UsbError, TransferTimeoutError) and self._has_left(interface):
                raise DeviceGoneError(f"Port {self._path}: the device left the bus.") from error
            state = back_to_idle(device, self._clock)
            notes = (f"{self.written.value} The board on port {self._path} {state}.",)
            if state in SILENT and self._loader is not None and self._loader.synchronized:
                raise DfuSilentError(
                    f"Port {self._path}: DFU no longer answers after the SYNC to the chip's serial loader.",
                    notes=(error.message, *error.notes, *notes),
                ) from error
            error.notes += notes
            raise
        except BaseException:
            # Ctrl-C, or an event sink that fails.
            self.stopped_where = f". {self.written.value} The state of the board on port {self._path} is unknown"
            state = back_to_idle(device, self._clock)
            self.stopped_where = f". {self.written.value} The board on port {self._path} {state}"
            raise
        self.written = _Written.CONFIRMED
        self.stopped_where = (
            f" after the flash. The board on port {self._path} reported {answer.status} in {answer.state}"
        )
        return answer

    def _send(self, device: DfuDevice, interface: DfuInterface) -> StatusResponse:
        """Send what flash memory does not hold yet; if it holds everything, only ask how the chip is."""
        if self._unsent is None:
            recover(device, self._clock)
            return device.get_status()
        return download(
            device,
            self._unsent,
            self._target.dfu,
            transfer_size=self._transfer_size(interface),
            path=self._path,
            clock=self._clock,
            strict=self._options.strict,
            tolerant=interface.functional is None or interface.functional.manifestation_tolerant,
            on_event=self._note_written,
        )

    def _transfer_size(self, interface: DfuInterface) -> int:
        """Return the device's own wTransferSize, but not more than the ROM can take by the chip's YAML file."""
        functional, limit = interface.functional, self._target.usb.transfer_size
        return min(functional.transfer_size, limit) if functional and functional.transfer_size else limit

    def _note_written(self, event: Event) -> None:
        if isinstance(event, Progress) and event.name:
            self.written = _Written.PART  # the file's first bytes come next, and erase its sectors
        elif isinstance(event, PhaseStarted) and event.phase is Phase.VERIFY:
            self.written = _Written.ALL
        self._on_event(event)

    def _has_left(self, interface: DfuInterface) -> bool:
        """Tell whether the device is gone: some host controllers report an I/O error first."""
        return any(now is None or now.address != interface.device.address for now in self._on_port(LEAVING_TIME))

    def _look_again(self, interface: DfuInterface) -> tuple[bool, str]:
        """Look at the port of a board that left the bus: is a new device on it, and which?"""
        now = None
        for now in self._on_port(RETURN_TIME):
            if now is not None and now.address != interface.device.address:
                return True, f"A new device is on port {self._path} now: {describe(now, self._targets)}."
        return False, f"{'Nothing' if now is None else 'Still the same device'} is on port {self._path} now."

    def _on_port(self, seconds: float) -> Iterator[UsbDevice | None]:
        """Yield the device on the board's port, or None, for some seconds; scans that fail are left out."""
        deadline = Deadline(self._clock, seconds)
        while True:
            with suppress(UsbError):
                yield device_at(self._bus, self._path)
            if not deadline.sleep(SCAN_INTERVAL):
                return

    def _reset(self, device: DfuDevice, interface: DfuInterface) -> str:
        """Reset the bus, which arms the ROM's watchdog, and return what was on the port afterwards."""
        with self._phase(Phase.RESET):
            with suppress(UsbError):
                device.reset_bus()  # the chip restarts during it, so an error here means nothing
            seen, restarted = "nothing", False
            for now in self._on_port(self._target.dfu.return_timeout / 3):
                seen = f"{describe(now, self._targets)} (device {now.address})" if now else "nothing"
                restarted = now is None or now.address != interface.device.address
                if now is not None and restarted:
                    break
        return seen if restarted else f"still the same, {seen}: the reset did not restart it"
