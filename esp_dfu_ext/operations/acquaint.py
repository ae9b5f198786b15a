"""Before the first block: take the chip into its fast loop, learn who the board is, and refuse what it cannot boot."""

from __future__ import annotations

from contextlib import suppress

from ..clock import Clock, Deadline
from ..errors import (
    AccessDeniedError,
    DeviceGoneError,
    DriverMissingError,
    EspDfuError,
    FlashTooSmallError,
    OtherMacError,
    SecuredBoardError,
    SerialLoaderError,
    SerialPortError,
    UsbError,
)
from ..events import BoardIdentified, EventSink, Notice
from ..image.changes import changed_image
from ..image.check import chip_size
from ..image.esp_image import app_of_chip, is_signed, read_header
from ..image.firmware import image_files
from ..image.format import DfuImage, md5
from ..loader.port import BulkSerialPort, LoaderPort, serial_interfaces
from ..loader.rom_loader import Identity, RomLoader, Security
from ..loader.sync import TIMEOUT, synchronize
from ..loader.system_port import SystemSerialPort, find_system_port
from ..target import Target
from ..units import format_size
from ..usb.bus import UsbDevice
from ..usb.handle import UsbHandle

# Seconds to wait for the serial port of a board that has just appeared, part of the two for everything.
_PORT_PATIENCE = 1.0


class BoardLoader:
    """The serial loader of an open board. A loader that does not answer does not stop the flash.

    Attributes:
        synchronized: The chip has answered a SYNC, or may have heard one.
        answered: It has answered one.
        identity: Who the board is; None if that is unknown.
        rom: The loader, to be asked for more until `close`; None if it cannot be asked.
        problem: Why it cannot be asked, if it cannot.

    Args:
        device: The board.
        target: Its chip.
        clock: Time.
        on_event: Receives `BoardIdentified`, or a notice.
        serial: The board's serial number, None if it is unknown.
        required: There will be an error if the loader cannot be asked, so no notice.
    """

    def __init__(
        self,
        device: UsbDevice,
        target: Target,
        clock: Clock,
        on_event: EventSink,
        *,
        serial: str | None = None,
        required: bool = False,
    ) -> None:
        self._required = required
        self._device = device
        self._target = target
        self._clock = clock
        self._on_event = on_event
        self._mac = known_mac(target, serial, None)
        self._port: LoaderPort | None = None
        self.synchronized = self.answered = False
        self.identity: Identity | None = None
        self.rom: RomLoader | None = None
        self.problem: EspDfuError = SerialLoaderError(
            f"Port {device.path}: the chip's serial loader is not used.", reason="off"
        )

    def greet(self, handle: UsbHandle, *, identify: bool = True) -> None:
        """Send SYNC and ask for the board's identity; a `no-loader` notice says why there is none.

        Args:
            handle: The open board.
            identify: Ask who it is; without, only a serial port of the system is asked, which may be another board's.

        Raises:
            DeviceGoneError: The board left the bus.
        """
        data = self._target.serial_loader
        if data is None or not data.use:
            return
        patience = Deadline(self._clock, TIMEOUT)
        port = self._port = self._open(handle)
        if port is None:
            return
        try:
            self._ask(port, patience, identify)
        except DeviceGoneError:
            raise
        except SerialLoaderError as error:
            self._forget_rom()
            self._without(error, "The board stays unknown." if self.answered else "Flashing without it.")
        except UsbError as error:
            self._forget_rom()
            self._without(error, "The serial loader is not used.")

    def _open(self, handle: UsbHandle) -> LoaderPort | None:
        """Return the board's serial port, made of its interfaces or by the system; None if it cannot be used.

        Raises:
            DeviceGoneError: The board left the bus.
        """
        interfaces, path = serial_interfaces(self._device), self._device.path
        if interfaces is None:
            self.problem = SerialLoaderError(f"Port {path}: the board shows no serial port.", reason="connect")
            return None
        try:
            with suppress(AccessDeniedError, DriverMissingError):
                return BulkSerialPort(handle, interfaces, self._clock)
            return self._open_system_port(handle)
        except DeviceGoneError:
            raise
        except UsbError as error:
            self._without(error, "That is its serial port; flashing without it.")
        except (SerialPortError, SerialLoaderError) as error:
            self._without(error, "Flashing without it.")
        return None

    def _open_system_port(self, handle: UsbHandle) -> SystemSerialPort:
        path, clock = self._device.path, self._clock
        ports = handle.serial_ports
        found = find_system_port(ports, self._device, clock, serial_number=self._mac, patience=_PORT_PATIENCE)
        if found is None:
            raise SerialLoaderError(f"Port {path}: the system shows no serial port of this board.", reason="driver")
        try:
            return SystemSerialPort(found, path, clock, handle.trace)
        except SerialPortError as error:
            message = f"Port {path}: {error.message[0].lower()}{error.message[1:]}"
            raise SerialPortError(message, port=error.port, reason=error.reason, group=error.group) from error

    def _ask(self, port: LoaderPort, patience: Deadline, identify: bool) -> None:
        """Speak to the loader; raises UsbError or SerialLoaderError."""
        path = self._device.path
        self.synchronized = True
        self.answered = synchronize(port, self._clock, patience.left)
        if not self.answered:
            raise SerialLoaderError(f"Port {path}: the chip's serial loader does not answer.", reason="connect")
        left = patience.left  # without the time that the import of esptool takes
        self.rom = RomLoader(port, self._target)
        if not identify and isinstance(port, BulkSerialPort):
            return
        identity = self.rom.identity(left)
        if self._mac is not None and isinstance(port, SystemSerialPort) and identity.mac != self._mac.lower():
            other = f"the serial port {port.port_name} is that of another board, with MAC address {identity.mac}"
            raise SerialLoaderError(f"Port {path}: {other}.", reason="connect")
        self.identity, security = identity, identity.security
        self._on_event(
            BoardIdentified(path, identity.mac, identity.flash_size, security.secure_boot, security.flash_encryption)
        )

    def restart(self) -> bool:
        """Restart the chip by its watchdog; False if the loader cannot be asked.

        It may have failed to say who the board is: the board's own interfaces cannot be those of another one.
        """
        if self.rom is None and self.answered and isinstance(self._port, BulkSerialPort):
            with suppress(SerialLoaderError):
                self.rom = RomLoader(self._port, self._target)
        if self.rom is None:
            return False
        self.rom.restart()
        return True

    def close(self) -> None:
        """Let go of the loader and of its port."""
        self._forget_rom()
        if self._port is not None:
            self._port.release()
        self._port = None

    def _forget_rom(self) -> None:
        """Let go of the loader only: its port stays open, because closing it may restart the chip."""
        if self.rom is not None:
            self.rom.close()
        self.rom = None

    def unflashed(self, image: DfuImage) -> DfuImage | None:
        """Return what flash memory does not hold of an image, as an image; None if it holds everything.

        All of it counts as missing, and a `no-loader` notice says so, if the loader cannot be asked.

        Raises:
            DeviceGoneError: The board left the bus.
        """
        rom, path = self.rom, self._device.path
        if rom is None:
            self._notice(f"Port {path}: what is flashed already is unknown; the whole image is sent.")
            return image
        try:
            rom.set_flash_size(chip_size(image, self._target))
            return changed_image(image, self._target, lambda at, data: rom.md5(at, len(data)) == md5(data).digest())
        except DeviceGoneError:
            raise
        except (SerialLoaderError, UsbError) as error:
            self._forget_rom()
            self._without(error, "What is flashed already is unknown; the whole image is sent.")
            return image

    def _without(self, problem: EspDfuError, consequence: str) -> None:
        self.problem = problem
        if not self._required:
            self._notice(f"{problem.message} {consequence}")

    def _notice(self, message: str) -> None:
        self._on_event(Notice("no-loader", message, self._device.path))


def check_fits(image: DfuImage, target: Target, identity: Identity, path: str, on_event: EventSink) -> None:
    """Check that an image fits into the board's flash memory, and warn if its project is for a larger one.

    Raises:
        FlashTooSmallError: It ends beyond the flash memory.
    """
    real = identity.flash_size
    if real is None:
        return
    files = image_files(image)
    last = max(files, key=lambda file: file.address + file.size, default=None)
    end = last.address + last.size if last is not None else 0
    if last is not None and end > real:
        raise FlashTooSmallError(
            f"Port {path}: the board has {format_size(real)} of flash memory, but {last.name} ends at {end:#x}. "
            "Nothing was written.",
            end=end,
            flash_size=real,
        )
    bootloader = next((file for file in files if file.address == target.firmware.bootloader_offset), None)
    header = read_header(bootloader.chunks[0]) if bootloader is not None else None
    if header is not None and header.flash_size is not None and header.flash_size > real:
        on_event(
            Notice(
                "flash-size",
                f"Port {path}: the project is for {format_size(header.flash_size)} of flash memory, but the board has "
                f"{format_size(real)}; an app of ESP-IDF may stop at its start. In menuconfig: Serial flasher config, "
                "Flash size.",
                path,
            )
        )


def boot_problems(image: DfuImage, target: Target, security: Security) -> list[str]:
    """Return why the board's security features would keep it from booting an image, in sentences; empty if nothing.

    Only a bootloader or an app for this chip that is plain to read counts; encrypted files cannot be judged.
    """
    offset, chip_id = target.firmware.bootloader_offset, target.firmware.chip_id
    problems, plain = [], []
    for file in image_files(image):
        is_bootloader = file.address == offset and read_header(file.chunks[0]) is not None
        if is_bootloader or app_of_chip(file.chunks[0], chip_id) is not None:
            plain.append(file)
    if security.flash_encryption and plain:
        problems.append(f"Flash encryption is enabled on the board, but {plain[0].name} is not encrypted.")
    unsigned = [file for file in plain if not is_signed(file.data)]
    if security.secure_boot and unsigned:
        problems.append(f"Secure Boot is enabled on the board, but {unsigned[0].name} is not signed.")
    return problems


def known_mac(target: Target, serial: str | None, identity: Identity | None) -> str | None:
    """Return a board's MAC address: the one that its loader tells, else its serial number where that is the same."""
    if identity is not None:
        return identity.mac
    return serial if target.usb.serial == "mac" else None


def refuse_other_board(expected: str | None, mac: str | None, path: str) -> None:
    """Raise OtherMacError if another board took the place of the one with the MAC address `expected`, if any."""
    if expected is not None and (mac or "").lower() != expected.lower():
        has = f"has the MAC address {mac}" if mac else "does not tell its MAC address"
        raise OtherMacError(f"The board on port {path} {has}; {expected} was chosen.", notes=["Nothing was written."])


def refuse_unbootable(
    image: DfuImage, target: Target, identity: Identity, path: str, *, force: bool, on_event: EventSink
) -> None:
    """Refuse an image that the board would accept but not boot.

    Raises:
        SecuredBoardError: It would not boot it, unless `force`.
    """
    problems = boot_problems(image, target, identity.security)
    if problems and not force:
        message = f"The board on port {path} would accept the image, but not boot it. Nothing was written."
        raise SecuredBoardError(message, notes=problems)
    for problem in problems:
        on_event(Notice("forced", f"Port {path}: {problem} The board will not boot it.", path))
