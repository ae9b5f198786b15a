"""What the ROM's serial loader reports about a board, read with esptool's own classes.

esptool knows where each chip keeps its MAC address and revision and how its flash memory is asked for its size. It is
imported only at the first use, and prints nothing: no method that writes to its log is called.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from ..errors import DeviceGoneError, EspDfuError, SerialLoaderError
from ..image.esp_image import own_configuration
from ..target import Target
from ..units import MIB, parse_size
from .port import LoaderPort
from .watchdog import restart_writes

T = TypeVar("T")

_MD5_SIZE = 16
_SECURE_BOOT, _SECURE_DOWNLOAD = 1 << 0, 1 << 2  # flags of GET_SECURITY_INFO (ESPLoader.get_security_info)
_ADESTO = 0x1F  # manufacturer whose flash IDs do not end with the size
# Seconds. Executed ROM code takes 0.25 s for the identity, a millisecond for each byte of its answers, and 0.6 s per
# MiB for an MD5 without the time that flash memory takes.
_IDENTITY_TIMEOUT = 2.0
_RESTART_TIMEOUT = 0.5  # for each of five commands
_MD5_TIMEOUT, _MD5_TIMEOUT_PER_MIB = 2.0, 8.0


@dataclass(frozen=True)
class Security:
    """Security state as GET_SECURITY_INFO reports it.

    Attributes:
        secure_boot: Secure Boot is enabled.
        flash_encryption: Flash encryption is enabled.
    """

    secure_boot: bool
    flash_encryption: bool


@dataclass(frozen=True)
class Identity:
    """What a board says of itself.

    Attributes:
        mac: MAC address from the eFuses, ``aa:bb:cc:dd:ee:ff``.
        flash_size: Size of the flash memory in bytes by its JEDEC ID; None if the ID is unknown.
        flash_id: JEDEC ID: manufacturer in bits 0 to 7, device in bits 8 to 23.
        security: Security state.
    """

    mac: str
    flash_size: int | None
    flash_id: int
    security: Security


class RomLoader:
    """The serial loader of one board, after SYNC.

    Args:
        port: Its port.
        target: Its chip.

    Raises:
        SerialLoaderError: esptool is missing, does not know the chip, or has changed.
    """

    def __init__(self, port: LoaderPort, target: Target) -> None:
        self._port = port
        self._where = f"Port {port.path}"
        self._data = target.serial_loader
        try:
            rom = _esptool_classes()[target.name]
        except ImportError as error:
            raise SerialLoaderError(f"esptool cannot be imported: {error}.", reason="esptool") from error
        except KeyError:
            raise SerialLoaderError(f"The installed esptool does not know {target.chip}.", reason="esptool") from None
        self._esp: Any = self._ask("open", lambda: rom(port))
        self._attached = False

    def identity(self, timeout: float = _IDENTITY_TIMEOUT) -> Identity:
        """Read who the board is, in `timeout` seconds; takes about a quarter of a second.

        Raises:
            SerialLoaderError: An answer did not come or is malformed, or the chip is in Secure Download Mode.
            DeviceGoneError: The board left the bus.
        """
        self._port.limit(timeout)
        security = self._ask("read the security state", self._security)
        mac = self._ask("read the MAC address", lambda: bytes(self._esp.read_mac()).hex(":"))
        self._attach()
        flash_id: int = self._ask("read the flash memory's ID", lambda: self._esp.flash_id())
        size = self._ask("say how large that is", lambda: flash_size_of(flash_id))
        return Identity(mac, size, flash_id, security)

    def revision(self) -> int:
        """Read the chip revision: major * 100 + minor, as esptool and ESP-IDF count; up to a tenth of a second.

        Raises:
            SerialLoaderError: An answer did not come, or is malformed.
            DeviceGoneError: The board left the bus.
        """
        self._port.limit(_IDENTITY_TIMEOUT)
        revision: int = self._ask("read the chip revision", lambda: self._esp.get_chip_revision())
        return revision

    def set_flash_size(self, size: int) -> None:
        """Tell the ROM up to which address, in bytes, it may read flash memory; an image tells it the same.

        Raises:
            SerialLoaderError: An answer did not come, or is malformed.
            DeviceGoneError: The board left the bus.
        """
        self._port.limit(_IDENTITY_TIMEOUT)
        self._attach()
        self._ask("take the size of the flash memory", lambda: self._esp.flash_set_parameters(size))

    def md5(self, address: int, size: int) -> bytes:
        """Have the chip read `size` bytes of flash memory and return their MD5; about 0.6 s per MiB.

        Raises:
            SerialLoaderError: An answer did not come, or is malformed.
            DeviceGoneError: The board left the bus.
        """
        self._port.limit(_MD5_TIMEOUT + _MD5_TIMEOUT_PER_MIB * size / MIB)
        self._attach()
        digest = self._ask("compute an MD5", lambda: bytes.fromhex(self._esp.flash_md5sum(address, size)))
        if len(digest) != _MD5_SIZE:
            raise SerialLoaderError(f"{self._where}: the loader's MD5 is {len(digest)} bytes long.", reason="connect")
        return digest

    def restart(self) -> None:
        """Restart the chip by its watchdog; never fails, because the chip may be gone before its last answer."""
        if self._data is None:
            return
        for register in restart_writes(self._data):
            self._port.limit(_RESTART_TIMEOUT)
            try:
                self._ask("restart the chip", partial(self._esp.write_reg, *register))
            except DeviceGoneError:
                return
            except EspDfuError:  # the command may have arrived all the same; what is left of old answers must go
                with suppress(EspDfuError):
                    self._ask("forget what it received", self._esp.flush_input)

    def close(self) -> None:
        """Let go of the board: esptool's objects refer to each other, and would keep its device alive."""
        with suppress(Exception):
            self._esp._slip_reader.close()
            self._esp._slip_reader = None
        self._esp = None

    def _security(self) -> Security:
        info = self._esp.get_security_info()
        if info["flags"] & _SECURE_DOWNLOAD:
            message = f"{self._where}: the chip is in Secure Download Mode, in which its serial loader tells nothing."
            raise SerialLoaderError(message, reason="secure")
        return Security(bool(info["flags"] & _SECURE_BOOT), bool(bin(info["flash_crypt_cnt"]).count("1") % 2))

    def _attach(self) -> None:
        """Connect the ROM to its flash memory; once."""
        if not self._attached:
            self._ask("attach the flash memory", lambda: self._esp.flash_spi_attach(0))
            self._attached = True

    def _ask(self, what: str, action: Callable[[], T]) -> T:
        try:
            return action()
        except (DeviceGoneError, SerialLoaderError):
            raise
        except (AttributeError, ImportError, TypeError) as error:
            message = f"{self._where}: the installed esptool cannot {what}: {error}".rstrip(". ") + "."
            raise SerialLoaderError(message, reason="esptool") from error
        except Exception as error:
            # esptool raises FatalError, struct.error and more for answers that are late, garbled or of an odd length.
            message = f"{self._where}: the serial loader did not {what}: {error}".rstrip(". ") + "."
            raise SerialLoaderError(message, reason="connect") from error


def _esptool_classes() -> dict[str, Any]:
    """Return esptool's loader classes by chip; importing them takes half a second the first time."""
    with own_configuration():
        from esptool.targets import CHIP_DEFS
    classes: dict[str, Any] = CHIP_DEFS
    return classes


@contextmanager
def preloading() -> Iterator[None]:
    """Import esptool while USB takes its time; an error shows at the first use."""

    def load() -> None:
        with suppress(Exception):
            _esptool_classes()

    thread = threading.Thread(target=load, name="esptool", daemon=True)
    started = False
    if "esptool.targets" not in sys.modules:
        with suppress(RuntimeError):  # can't start new thread
            thread.start()
            started = True
    try:
        yield
    finally:
        if started:
            thread.join()


def flash_size_of(flash_id: int) -> int | None:
    """Return the size in bytes that a JEDEC ID stands for by esptool's list, or None."""
    from esptool.cmds import DETECTED_FLASH_SIZES

    size = DETECTED_FLASH_SIZES.get(flash_id >> 16) if flash_id & 0xFF != _ADESTO else None
    return parse_size(size) if size is not None else None
