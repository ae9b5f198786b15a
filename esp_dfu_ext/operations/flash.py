"""Flash one board: find it, change it to DFU mode, send the image, and say what became of the board."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace

from ..dfu.access import ACCESS_DELAY, open_interface
from ..dfu.device import DfuDevice
from ..dfu.discovery import DfuInterface, Selector, is_same_serial, select
from ..dfu.download import RESET_STATES, download
from ..dfu.recovery import SILENT, back_to_idle, recover
from ..dfu.spec import Mode, StatusResponse
from ..errors import (
    DeviceGoneError,
    DfuError,
    DfuSilentError,
    EspDfuError,
    InterruptedByUserError,
    SerialLoaderError,
    TransferTimeoutError,
    UsbError,
)
from ..events import (
    Event,
    Flashed,
    Notice,
    PartsSkipped,
    Phase,
    PhaseStarted,
    Progress,
    ignore,
)
from ..image.format import DfuImage
from ..loader.rom_loader import Identity, preloading
from ..usb.handle import UsbHandle
from .acquaint import BoardLoader, check_fits, known_mac, refuse_other_board, refuse_unbootable
from .board_port import APP_TIME, BoardPort
from .dfu_mode import enter_dfu_mode, found, read_serial, refuse_no_download
from .flash_setup import BoardSkipped, FlashSetup, Written
from .phases import timed
from .restart import BUS_RESET, EN_PULSE, HARD_RESET, NO_RESET, Restarted, pulse_en, restart, what_came_back
from .results import FlashResult
from .verify import check_flash, ready


def flash_board(setup: FlashSetup, selector: Selector, skip: Collection[str] = ()) -> FlashResult:
    """Flash one board.

    Args:
        setup: What to flash, and how.
        selector: Which board.
        skip: Serial numbers and MAC addresses of boards to leave alone.

    Raises:
        BoardSkipped: The board's serial number or MAC address is one of `skip`.
        EspDfuError: See `Flasher.flash`.
    """
    flash = _BoardFlash(setup)
    try:
        with preloading() if setup.uses_loader else nullcontext():
            return flash.run(selector, skip)
    except KeyboardInterrupt as stop:
        if setup.keep_result and flash.result is not None:
            return flash.report(flash.result)
        raise InterruptedByUserError.by(stop, flash.stopped_where, incomplete=flash.written.incomplete) from None


class _BoardFlash:
    """The flash of one board.

    Attributes:
        handed_over: Its app was asked to hand over to the ROM, and did.
        result: Its result, from the moment on that the chip has confirmed the image.
        stopped_where: How far it is, to end the sentence "Stopped..." after Ctrl-C.
        written: What it has written so far.
    """

    def __init__(self, setup: FlashSetup) -> None:
        self._setup = setup
        self._image = setup.image.image
        self._unsent: DfuImage | None = self._image  # what is to be sent of it
        self._target = setup.image.target
        self._options = setup.options
        self._uses_loader = setup.uses_loader
        self._return_time = setup.return_time
        self._others = setup.others
        self._bridge = setup.bridge
        self._bus = setup.bus
        self._targets = setup.targets
        self._clock = setup.clock
        self._on_event = setup.on_event
        self._path = ""
        self._loader: BoardLoader | None = None
        self.handed_over = False
        self.result: FlashResult | None = None
        self.stopped_where = " while looking for a board; nothing was written"
        self.written = Written.NOTHING

    def run(self, selector: Selector, skip: Collection[str]) -> FlashResult:
        wait = self._options.wait
        interface = select(
            self._bus,
            self._target,
            selector,
            self._targets,
            clock=self._clock,
            wait=wait,
            on_event=self._on_event,
            apps=self._setup.asks_apps,
        )
        self._path = interface.path
        self.stopped_where = f" before anything was written to the board on port {self._path}"
        started = self._clock.monotonic()
        # A board that was waited for or reset may have appeared just now, before udev gave access to it.
        permitted = started + (ACCESS_DELAY if wait or self._options.port else 0.0)
        try:
            serial = read_serial(interface, self._setup, permitted - self._clock.monotonic())
            self._skip_known(serial, skip)
            self._on_event(found(interface, serial, self._setup))
            if interface.is_rom_of(self._target):
                refuse_no_download(interface)
            patience = max(0.0, permitted - self._clock.monotonic())
            if interface.mode is Mode.RUN_TIME:
                interface, serial = self._enter(interface, serial, patience)
                patience = ACCESS_DELAY
            with open_interface(interface, clock=self._clock, patience=patience) as handle:
                device = DfuDevice(handle)
                with self._giving_back(handle, interface):
                    self._meet(handle, interface, serial)
                    self._skip_known(serial, skip)  # a board whose app handed over; its loader can restart it now
                    refuse_other_board(selector.mac, known_mac(self._target, serial, self._identity), self._path)
                    if self._mac in skip:
                        raise BoardSkipped(None, self._mac)
                    self._compare()
                answer = self._download(device, interface)
                self._check()
                seconds = self._clock.monotonic() - started
                self.result = FlashResult(
                    self._path,
                    serial,
                    self._size,
                    seconds,
                    str(answer.status),
                    str(answer.state),
                    mac=self._mac,
                    skipped=self._skipped,
                )
                self._restart(handle, interface, BUS_RESET if answer.state in RESET_STATES else self._options.after)
        except DeviceGoneError as error:
            error.restarted, now = self._port_of(interface).look_again()
            error.notes += (self.written.value, now)
            raise
        finally:
            if self._loader is not None:
                self._loader.close()
        return self.report(self.result)

    def report(self, result: FlashResult) -> FlashResult:
        """Report that the board is flashed, and return the result."""
        self._on_event(
            Flashed(
                result.path,
                result.size,
                result.seconds,
                result.status,
                result.state,
                result.skipped,
                result.reset_by,
                result.came_back,
            )
        )
        return result

    def _phase(self, phase: Phase) -> AbstractContextManager[None]:
        return timed(phase, self._path, self._clock, self._on_event)

    def _skip_known(self, serial: str | None, skip: Collection[str]) -> None:
        """Raise BoardSkipped if a serial number, of the app or of the ROM, is one of `skip`."""
        name = next((name for name in skip if serial is not None and is_same_serial(name, serial)), None)
        if name is not None:
            raise BoardSkipped(name)

    @property
    def _identity(self) -> Identity | None:
        return self._loader.identity if self._loader is not None else None

    @property
    def _mac(self) -> str | None:
        return self._identity.mac if self._identity is not None else None

    def _meet(self, handle: UsbHandle, interface: DfuInterface, serial: str | None) -> None:
        """Take the chip into its fast loop, and check the image against what the board says of itself."""
        verify = self._options.verify
        if not self._uses_loader and not verify:
            return
        self._loader = BoardLoader(
            interface.device, self._target, self._clock, self._on_event, serial=serial, required=verify
        )
        if self._uses_loader:
            self._loader.greet(handle)
        if verify:
            ready(self._loader, self.written.value)
        identity = self._identity
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
        rom, identity = ready(self._loader, self.written.value), self._identity
        encrypted = identity is not None and identity.security.flash_encryption
        try:
            with self._phase(Phase.CHECK):
                check_flash(rom, self._image, self._target, self._path, encrypted=encrypted)
        except (SerialLoaderError, UsbError) as error:
            if not isinstance(error, DeviceGoneError):
                error.notes += (self.written.value,)
            raise

    def _enter(self, interface: DfuInterface, serial: str | None, patience: float) -> tuple[DfuInterface, str | None]:
        """Return the interface in DFU mode, and the serial number of the board's ROM."""
        is_app = not interface.is_rom_of(self._target)
        what = "the app" if is_app else "the board"
        doing = "handing over to the ROM" if is_app else "changing to DFU mode"
        self.stopped_where = f" while {what} on port {self._path} was {doing}; nothing was written"
        with self._phase(Phase.DETACH):
            entered = enter_dfu_mode(interface, serial, self._setup, patience)
        self.handed_over = is_app
        return entered

    @contextmanager
    def _giving_back(self, handle: UsbHandle, interface: DfuInterface) -> Iterator[None]:
        """Start the app again that handed over, if the board is not flashed after all."""
        try:
            yield
        except (BoardSkipped, EspDfuError) as problem:
            after = self._options.after or HARD_RESET
            if not self.handed_over or after == NO_RESET or isinstance(problem, DeviceGoneError):
                raise
            with suppress(EspDfuError), self._phase(Phase.RESET):
                seen = self._restart_chip(handle, interface, after)
                if isinstance(problem, BoardSkipped):
                    problem.restarted = True
                elif seen is not None:
                    problem.notes += (f"The chip was restarted; on port {self._path} now: {seen.seen}.",)
            raise

    def _download(self, device: DfuDevice, interface: DfuInterface) -> StatusResponse:
        # Until more is known: a second Ctrl-C may end the recovery below.
        self.stopped_where = f". The state of the board on port {self._path} is unknown"
        try:
            answer = self._send(device, interface)
        except DeviceGoneError:
            raise
        except (DfuError, UsbError) as error:
            if type(error) in (UsbError, TransferTimeoutError) and self._port_of(interface).has_lost_it():
                raise DeviceGoneError(f"Port {self._path}: the device left the bus.") from error
            state = back_to_idle(device, self._clock)
            notes = (f"{self.written.value} The board on port {self._path} {state}.",)
            if state in SILENT and self._loader is not None and self._loader.synchronized:
                raise DfuSilentError(
                    f"Port {self._path}: DFU no longer answers after the SYNC to the chip's serial loader.",
                    notes=(error.message, *error.notes, *notes),
                    path=self._path,
                ) from error
            error.notes += notes
            raise
        except BaseException:
            # Ctrl-C, or an event sink that fails.
            self.stopped_where = f". {self.written.value} The state of the board on port {self._path} is unknown"
            state = back_to_idle(device, self._clock)
            self.stopped_where = f". {self.written.value} The board on port {self._path} {state}"
            raise
        self.written = Written.CONFIRMED
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
            self.written = Written.PART  # the file's first bytes come next, and erase its sectors
        elif isinstance(event, PhaseStarted) and event.phase is Phase.VERIFY:
            self.written = Written.ALL
        self._on_event(event)

    def _port_of(self, interface: DfuInterface) -> BoardPort:
        return BoardPort(self._bus, interface.device, self._targets, self._clock, others=self._others())

    def _restart(self, handle: UsbHandle, interface: DfuInterface, after: str | None) -> None:
        """Restart the chip, and add to the result what was on the port afterwards."""
        after = after or HARD_RESET
        if after == NO_RESET:
            return
        assert self.result is not None
        with self._phase(Phase.RESET):
            seen = self._restart_chip(handle, interface, after)
        if seen is not None:
            self.result = replace(self.result, after_reset=seen.seen, reset_by=seen.by, came_back=seen.came_back)
        else:
            loader = self._loader or BoardLoader(interface.device, self._target, self._clock, ignore)
            why = loader.problem.message
            self._on_event(Notice("no-restart", f"{why} The chip was not restarted.", self._path))

    def _restart_chip(self, handle: UsbHandle, interface: DfuInterface, after: str) -> Restarted | None:
        """Restart the chip, and return what was on the port afterwards; None if nothing may restart it."""
        port = self._port_of(interface)
        by: str | None = EN_PULSE
        if after != HARD_RESET or not pulse_en(self._bridge, handle, port, self._on_event):
            by = restart(handle, self._loader, port, after)
        seconds = max(self._return_time, APP_TIME) if self.handed_over else self._return_time
        return what_came_back(port, self._target, by, seconds) if by is not None else None
