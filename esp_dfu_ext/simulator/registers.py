"""The memory of the chip as the serial loader sees it: eFuses, the SPI controller, the watchdog, and RAM."""

from __future__ import annotations

from dataclasses import dataclass

from ..target import Bits, SerialLoader
from .nor import NorFlash

_READ_ID = 0x9F  # RDID of every SPI flash memory: manufacturer, type, log2 of the size
_MANUFACTURER, _TYPE = 0xEF, 0x40  # a W25Q of Winbond
_WATCHDOG_ENABLED, _ACTION_SHIFT, _ACTION_MASK = 1 << 31, 28, 7
_CPU, _RTC = 2, 4  # actions of the watchdog's first stage: from these on it resets the CPU, and the RTC registers too


@dataclass(frozen=True)
class ArmedWatchdog:
    """The RTC watchdog counts down.

    Attributes:
        seconds: Time from the write that armed it to the reset.
        resets_rtc: The reset clears FORCE_DOWNLOAD_BOOT, too.
    """

    seconds: float
    resets_rtc: bool


class Registers:
    """32-bit words by address; those without a meaning are memory that reads 0 at first.

    Args:
        data: Addresses of the chip.
        flash: Flash memory that the SPI controller reads.
        mac: MAC address, ``aa:bb:cc:dd:ee:ff``, which the eFuses hold.

    Attributes:
        watchdog: The armed watchdog, a new object for each time that it is armed; None if it is off.
    """

    def __init__(self, data: SerialLoader, flash: NorFlash, mac: str) -> None:
        self._data = data
        self._flash = flash
        self._efuses = {data.chip_magic: data.chip_magic_value}
        self.set_mac(mac)
        self._words: dict[int, int] = {}
        self._unlocked = False
        self.watchdog: ArmedWatchdog | None = None

    def set_mac(self, mac: str) -> None:
        """Burn a MAC address."""
        raw = bytes.fromhex(mac.replace(":", ""))
        self._efuses[self._data.mac] = int.from_bytes(raw[2:], "big")
        self._efuses[self._data.mac + 4] = int.from_bytes(raw[:2], "big")

    def burn(self, bits: Bits, value: int = -1) -> None:
        """Burn bits of an eFuse word, by default all of them."""
        self._efuses[bits.address] = self._efuses.get(bits.address, 0) | (value & bits.mask)

    def field(self, bits: Bits) -> int:
        """Return the value of a field, shifted to bit 0."""
        return (self.read(bits.address) & bits.mask) // (bits.mask & -bits.mask)

    @property
    def force_download(self) -> bool:
        """FORCE_DOWNLOAD_BOOT: the next reset leads to download mode, whatever the straps say."""
        return bool(self.field(self._data.force_download_boot))

    @force_download.setter
    def force_download(self, value: bool) -> None:
        bits = self._data.force_download_boot
        self._words[bits.address] = self.read(bits.address) & ~bits.mask | (bits.mask if value else 0)

    def restart(self) -> None:
        """Reset the chip: only FORCE_DOWNLOAD_BOOT keeps its value."""
        force = self.force_download
        self._words.clear()
        self.force_download = force
        self._unlocked = False
        self.watchdog = None

    def read(self, address: int) -> int:
        """Return a word."""
        address &= ~3
        return self._efuses.get(address, self._words.get(address, 0))

    def write(self, address: int, value: int, mask: int = 0xFFFFFFFF) -> None:
        """Change the bits of `mask` in a word; eFuses cannot be written so."""
        address &= ~3
        value = self.read(address) & ~mask | value & mask
        spi, watchdog = self._data.spi_flash, self._data.watchdog
        if address == watchdog.write_protect:
            self._unlocked = value == watchdog.key
        elif address in (watchdog.config, watchdog.timeout) and not self._unlocked:
            return
        elif address == spi.start.address:
            if value & spi.start.mask:
                self._run_flash_command()
            return  # the controller clears the bit when it has finished
        self._words[address] = value
        if address in (watchdog.config, watchdog.timeout):
            self._set_watchdog()

    def load(self, address: int, data: bytes) -> None:
        """Write bytes, as MEM_DATA does."""
        for offset in range(0, len(data), 4):
            word = data[offset : offset + 4]
            self.write(address + offset, int.from_bytes(word, "little"), (1 << 8 * len(word)) - 1)

    def _run_flash_command(self) -> None:
        spi = self._data.spi_flash
        if self.read(spi.user2) & 0xFF != _READ_ID:
            return  # nobody asks for other commands
        bits = (self.read(spi.read_length) & 0x3FF) + 1
        size = self._flash.size.bit_length() - 1
        self._words[spi.data] = (size << 16 | _TYPE << 8 | _MANUFACTURER) & (1 << min(bits, 32)) - 1

    def _set_watchdog(self) -> None:
        watchdog = self._data.watchdog
        config = self.read(watchdog.config)
        action = config >> _ACTION_SHIFT & _ACTION_MASK
        armed = config & _WATCHDOG_ENABLED and action >= _CPU
        seconds = self.read(watchdog.timeout) * watchdog.tick
        self.watchdog = ArmedWatchdog(seconds, action >= _RTC) if armed else None
