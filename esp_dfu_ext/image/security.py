"""What a project's security features mean for USB DFU, as ESP-IDF's options say it.

The ROM serves USB DFU with Secure Boot and flash encryption on (executed, all chips); only eFuses for download mode and
USB close it. Which of them a project burns at its first boot is a choice of its own (ESP-IDF,
components/bootloader/Kconfig.projbuild, SECURE_UART_ROM_DL_MODE).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

_SECURE_BOOT = "CONFIG_SECURE_BOOT"
_ENCRYPTION = "CONFIG_SECURE_FLASH_ENC_ENABLED"
_CLOSES = ("CONFIG_SECURE_ENABLE_SECURE_ROM_DL_MODE", "CONFIG_SECURE_DISABLE_ROM_DL_MODE")
_STAYS_OPEN = "CONFIG_SECURE_INSECURE_ALLOW_DL_MODE"


@dataclass(frozen=True)
class Security:
    """The security features of a project; None is unknown.

    Attributes:
        secure_boot: The bootloader enables Secure Boot.
        flash_encryption: The bootloader enables flash encryption.
        closes_dfu: The first boot closes download mode, and with it USB DFU, permanently.
    """

    secure_boot: bool | None = None
    flash_encryption: bool | None = None
    closes_dfu: bool | None = None

    @classmethod
    def of(cls, options: Mapping[str, str]) -> Security:
        """Return what a project's options say; `options` is empty if they are unknown."""
        if not options:
            return cls()
        closes = True if any(options.get(name) == "y" for name in _CLOSES) else None
        if options.get(_STAYS_OPEN) == "y":
            closes = False
        return cls(options.get(_SECURE_BOOT) == "y", options.get(_ENCRYPTION) == "y", closes)

    def encrypted(self) -> Security:
        """Return the same features, and flash encryption, which a build's files may show by themselves."""
        return replace(self, flash_encryption=True)

    @property
    def features(self) -> tuple[str, ...]:
        """The features that are on."""
        named = (("Secure Boot", self.secure_boot), ("flash encryption", self.flash_encryption))
        return tuple(name for name, on in named if on)

    @property
    def consequence(self) -> str:
        """What becomes of a chip that boots this project, in sentences; empty if no feature is on."""
        if not self.features:
            return ""
        lacks = "unsigned" if self.secure_boot else "unencrypted"
        dead = f"still accepts an {lacks} image and reports OK, but does not boot it"
        if self.closes_dfu is False:
            return (
                "A new chip accepts this image. The project leaves download mode open: after the first boot, the chip "
                f"{dead}."
            )
        if self.closes_dfu:
            return "A new chip accepts this image; its first boot closes USB DFU permanently."
        return (
            "A new chip accepts this image; usually, its first boot closes USB DFU permanently. A chip on which it "
            f"stays open {dead}."
        )
