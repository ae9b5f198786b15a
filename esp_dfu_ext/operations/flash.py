"""From a checked image to a flashed board."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from ..clock import Clock, SystemClock
from ..dfu.detach import detach_and_wait
from ..dfu.device import DfuDevice
from ..dfu.discovery import SCAN_INTERVAL, DfuInterface, Selector, describe, device_at, select
from ..dfu.download import RESET_STATES, download
from ..dfu.opening import PERMISSION_DELAY, open_when_permitted, when_permitted
from ..dfu.recovery import back_to_idle
from ..dfu.spec import Mode, StatusResponse
from ..errors import (
    DeviceGoneError,
    DfuError,
    InterruptedByUserError,
    TransferTimeoutError,
    UsbError,
    WrongTargetError,
)
from ..events import (
    DeviceFound,
    Event,
    EventSink,
    Flashed,
    Phase,
    PhaseFinished,
    PhaseStarted,
    Progress,
    ignore,
)
from ..image.format import DfuImage
from ..target import Target, load_targets
from ..usb.bus import Bus

LEAVING_TIME = 0.5  # seconds that a hub may take to notice that a device was pulled out
RETURN_TIME = 1.5  # seconds that a chip which restarted may take to be back; 0.3 to 0.6 were seen


class _Written(enum.Enum):
    """What a flash has done to the chip's flash so far."""

    NOTHING = "Nothing was written."
    PART = "The flash may be incomplete."
    ALL = "All of it was sent, but the chip has not confirmed it."
    CONFIRMED = "The flash is complete."


@dataclass(frozen=True)
class FlashResult:
    """A board that was flashed, and what it said.

    Attributes:
        path: of the board.
        serial: its serial number, None if it has none or could not be asked.
        size: bytes that went into its flash.
        seconds: from the first contact to the last answer.
        status: its last bStatus.
        state: its last bState.
        after_reset: what was seen on its port after a bus reset; None if there was none, because nobody asked for
            it and the device needs none.
    """

    path: str
    serial: str | None
    size: int
    seconds: float
    status: str
    state: str
    after_reset: str | None


def flash(
    image: DfuImage,
    target: Target,
    *,
    bus: Bus | None = None,
    selector: Selector | None = None,
    targets: Sequence[Target] | None = None,
    wait: float = 0.0,
    strict: bool = False,
    reset: bool = False,
    clock: Clock | None = None,
    on_event: EventSink = ignore,
) -> FlashResult:
    """Flash one board.

    Args:
        image: as `load_image` returns it.
        target: the chip.
        bus: where the board is; None for this machine's USB.
        selector: which board; None for the only one there is.
        targets: the chips that are known, to name what was seen instead; None for all.
        wait: seconds to wait for the board.
        strict: ask the device for its status after each block.
        reset: try to start the app by a bus reset afterwards.
        clock: time; None for the real one.
        on_event: gets what happens, in the order that `events` gives.

    Raises:
        WrongTargetError: the image is for another chip.
        DeviceNotFoundError, SeveralDevicesError, UsageError: the board is not there or not unique.
        ReenumerationError: it did not come back after DFU_DETACH.
        DfuStatusError, DfuError: it reported an error.
        UsbError: a transfer failed; the kind says how.
        InterruptedByUserError: Ctrl-C, SIGTERM or SIGHUP.
    """
    refuse_wrong_target(image, target)
    known = load_targets() if targets is None else targets
    job = _Flash(image, target, bus or Bus(), known, clock or SystemClock(), on_event)
    try:
        return job.run(selector or Selector(), wait=wait, strict=strict, reset=reset)
    except KeyboardInterrupt as stop:
        incomplete = job.written in (_Written.PART, _Written.ALL)
        raise InterruptedByUserError.by(stop, job.standing, incomplete=incomplete) from None


def refuse_wrong_target(image: DfuImage, target: Target) -> None:
    """Raises WrongTargetError if the image is for another chip."""
    suffix = image.suffix
    if (suffix.vid, suffix.pid) != (target.usb.vid, target.usb.pid):
        raise WrongTargetError("The image", image_target=f"{suffix.vid:04x}:{suffix.pid:04x}", target=target.name)


class _Flash:
    """One board's flash; `standing` says how far it is, for somebody who stops it, `written` what that means."""

    def __init__(
        self,
        image: DfuImage,
        target: Target,
        bus: Bus,
        targets: Sequence[Target],
        clock: Clock,
        on_event: EventSink,
    ) -> None:
        self._image = image
        self._target = target
        self._bus = bus
        self._targets = targets
        self._clock = clock
        self._on_event = on_event
        self._path = ""
        self.standing = " while looking for a board; nothing was written"
        self.written = _Written.NOTHING

    def run(self, selector: Selector, *, wait: float, strict: bool, reset: bool) -> FlashResult:
        interface = select(
            self._bus, self._target, selector, self._targets, clock=self._clock, wait=wait, on_event=self._on_event
        )
        self._path = interface.path
        self.standing = f" before anything was written to the board on port {self._path}"
        started = self._clock.monotonic()
        # One that was waited for may just have been plugged in, and not be ours yet: udev.
        permitted = started + (PERMISSION_DELAY if wait else 0.0)
        if interface.functional is not None and not interface.functional.can_download:
            raise DfuError(f"The device on port {self._path} takes no downloads (bitCanDnload is 0).")
        try:
            serial = self._serial_of(interface, permitted)
            self._on_event(DeviceFound(self._path, str(interface.mode), serial))
            patience = max(0.0, permitted - self._clock.monotonic())
            if interface.mode is Mode.RUN_TIME:
                interface = self._detach(interface, patience)
                patience = PERMISSION_DELAY
            with open_when_permitted(interface, clock=self._clock, patience=patience) as handle:
                device = DfuDevice(handle)
                answer = self._download(device, interface, strict)
                seconds = self._clock.monotonic() - started
                after_reset = None
                if reset or answer.state in RESET_STATES:
                    after_reset = self._reset(device, interface)
        except DeviceGoneError as error:
            error.restarted, now = self._look_again(interface)
            error.notes += (self.written.value, now)
            raise
        status, state = str(answer.status), str(answer.state)
        self._on_event(Flashed(self._path, self._image.flash_size, seconds, status, state))
        return FlashResult(self._path, serial, self._image.flash_size, seconds, status, state, after_reset)

    @contextmanager
    def _phase(self, phase: Phase) -> Iterator[None]:
        started = self._clock.monotonic()
        self._on_event(PhaseStarted(self._path, phase))
        yield
        self._on_event(PhaseFinished(self._path, phase, self._clock.monotonic() - started))

    def _detach(self, interface: DfuInterface, patience: float) -> DfuInterface:
        self.standing = f" while the board on port {self._path} was changing to DFU mode; nothing was written"
        with self._phase(Phase.DETACH):
            return detach_and_wait(
                interface,
                self._bus,
                self._target,
                clock=self._clock,
                targets=self._targets,
                patience=patience,
                on_event=self._on_event,
            )

    def _download(self, device: DfuDevice, interface: DfuInterface, strict: bool) -> StatusResponse:
        # Until something better is known: a second Ctrl-C may end the cleaning up below.
        self.standing = f". The state of the board on port {self._path} is not known"
        try:
            answer = download(
                device,
                self._image,
                self._target,
                transfer_size=self._transfer_size(interface),
                path=self._path,
                clock=self._clock,
                strict=strict,
                tolerant=interface.functional is None or interface.functional.manifestation_tolerant,
                on_event=self._note_written,
            )
        except DeviceGoneError:
            raise
        except (DfuError, UsbError) as error:
            if type(error) in (UsbError, TransferTimeoutError) and self._has_left(interface):
                raise DeviceGoneError(f"Port {self._path}: the device left the bus.") from error
            error.notes += (f"{self.written.value} The board on port {self._path}: {self._back_to_idle(device)}.",)
            raise
        except BaseException:
            # Ctrl-C, or an event sink that fails.
            self.standing = f". {self.written.value} The state of the board on port {self._path} is not known"
            left_so = self._back_to_idle(device)
            self.standing = f". {self.written.value} The board on port {self._path}: {left_so}"
            raise
        self.written = _Written.CONFIRMED
        self.standing = f" after the flash. The board on port {self._path} reported {answer.status} in {answer.state}"
        return answer

    def _serial_of(self, interface: DfuInterface, permitted: float) -> str | None:
        patience = permitted - self._clock.monotonic()
        try:
            return when_permitted(interface.read_serial, clock=self._clock, patience=patience)
        except DeviceGoneError:
            raise
        except UsbError:
            return None

    def _note_written(self, event: Event) -> None:
        if isinstance(event, Progress) and event.name:
            self.written = _Written.PART  # its first bytes, which erase its sectors, come next
        elif isinstance(event, PhaseStarted) and event.phase is Phase.VERIFY:
            self.written = _Written.ALL
        self._on_event(event)

    def _back_to_idle(self, device: DfuDevice) -> str:
        return back_to_idle(device, self._clock)

    def _has_left(self, interface: DfuInterface) -> bool:
        """After an I/O error: some host controllers say that, and the system notices a little later."""
        deadline = self._clock.monotonic() + LEAVING_TIME
        while True:
            with suppress(UsbError):
                now = device_at(self._bus, self._path)
                if now is None or now.address != interface.device.address:
                    return True
            if self._clock.monotonic() >= deadline:
                return False
            self._clock.sleep(SCAN_INTERVAL)

    def _look_again(self, interface: DfuInterface) -> tuple[bool, str]:
        """What is on the port of a board that left the bus: is it a new device, and which?"""
        deadline = self._clock.monotonic() + RETURN_TIME
        now = None
        while True:
            with suppress(UsbError):
                now = device_at(self._bus, self._path)
            if now is not None and now.address != interface.device.address:
                return True, f"A new device is on port {self._path} since: {describe(now, self._targets)}."
            if self._clock.monotonic() >= deadline:
                return False, f"{'Nothing' if now is None else 'Still the same device'} is on port {self._path} now."
            self._clock.sleep(SCAN_INTERVAL)

    def _transfer_size(self, interface: DfuInterface) -> int:
        """The device's own wTransferSize, but never more than the chip's file says its ROM can take."""
        functional, limit = interface.functional, self._target.usb.transfer_size
        return min(functional.transfer_size, limit) if functional and functional.transfer_size else limit

    def _reset(self, device: DfuDevice, interface: DfuInterface) -> str:
        """Reset the bus, which arms the ROM's watchdog, and say what then was on the port; nothing is guessed."""
        with self._phase(Phase.RESET):
            with suppress(UsbError):
                device.reset_bus()  # the chip restarts inside it, so that an error here says nothing
            seen, restarted = "nothing", False
            deadline = self._clock.monotonic() + self._target.dfu.return_timeout / 3
            while self._clock.monotonic() < deadline:
                self._clock.sleep(SCAN_INTERVAL)
                with suppress(UsbError):  # the board is flashed; not to see it is no failure
                    now = device_at(self._bus, self._path)
                    seen = f"{describe(now, self._targets)} (device {now.address})" if now else "nothing"
                    restarted = now is None or now.address != interface.device.address
                    if now is not None and restarted:
                        break
        return seen if restarted else f"still the same, {seen}: the reset did not restart it"
