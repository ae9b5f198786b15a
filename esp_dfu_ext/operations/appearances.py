"""What appears on the bus after a reset, and what leaves it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from ..dfu.discovery import DfuInterface, describe, describe_all, dfu_interfaces
from ..errors import DeviceNotFoundError, NoDownloadModeError, OtherChipError, OtherPathError, UsbError
from ..target import Target, find_target_by_usb_id
from ..units import format_seconds
from ..usb.bus import Bus, UsbDevice
from ..usb.serial_ports import SerialPort

_Key = tuple[str, int]  # port and address: every enumeration assigns a new address


class Appearances:
    """The devices of a bus, compared with those that were there in the beginning.

    Args:
        bus: The bus; it is scanned now.
        target: The chip that is waited for.
        targets: Known chips, to describe others.

    Raises:
        UsbError: The bus cannot be scanned.
        UsbUnavailableError: USB cannot be used on this machine.
    """

    def __init__(self, bus: Bus, target: Target, targets: Sequence[Target]) -> None:
        self._bus = bus
        self._target = target
        self._targets = targets
        self._before = {_key(device): device for device in bus.scan()}
        self._stayed = dict(self._before)
        self._new: dict[_Key, UsbDevice] = {}

    def device_of(self, port: SerialPort, *, same_buses: bool) -> UsbDevice | None:
        """Return the device that a serial port is made of, None if that is not known."""
        alike = [device for device in self._before.values() if (device.vid, device.pid) == (port.vid, port.pid)]
        here = [device for device in alike if port.is_at(device.path, same_buses=same_buses)]
        found = here if port.path is not None else alike
        return found[0] if len(found) == 1 else None

    def boards(self) -> list[DfuInterface]:
        """Scan the bus, and return the boards with this chip that have appeared since the beginning."""
        with suppress(UsbError):  # a scan may fail while devices come and go
            now = {_key(device): device for device in self._bus.scan()}
            # One that has left may come back with the same address.
            self._stayed = {key: device for key, device in self._stayed.items() if key in now}
            self._new = {key: device for key, device in now.items() if key not in self._stayed}
        mine = [device for device in self._new.values() if device.usb_id == self._target.usb_id]
        return [interfaces[0] for device in mine if (interfaces := dfu_interfaces(device))]

    def nothing(self, port: str, boot_mode: str | None, seconds: float, *, listens: bool) -> DeviceNotFoundError:
        """Return the error for a board that did not appear where it was waited for.

        Args:
            port: Name of the serial port through which it was reset.
            boot_mode: How the chip said on it that it booted; None if it said nothing.
            seconds: How long it was waited for.
            listens: The chip would have said so on this port.
        """
        chip, through = self._target.chip, f"the reset through {port}"
        elsewhere = self.boards()
        if elsewhere:
            paths = ", ".join(board.path for board in elsewhere)
            return OtherPathError(
                f"After {through}, an {chip} appeared on port {paths}, not on the one that was named."
            )
        others = [device for device in self._new.values() if self._other_chip(device) is not None]
        if others:
            other = self._other_chip(others[0])
            assert other is not None
            message = f"After {through}, an {other.chip} appeared on port {others[0].path}; the image is for {chip}."
            return OtherChipError(message)
        left = [device for key, device in self._before.items() if key not in self._stayed]
        notes = [_SAID[boot_mode].format(port=port)] if listens or boot_mode is not None else []
        notes += [f"Left port {device.path}: {describe(device, self._targets)}." for device in left]
        notes += [f"Appeared on port {d.path}: {describe(d, self._targets)}." for d in self._new.values()]
        stayed = [device for device in self._stayed.values() if device.vid == self._target.usb.vid]
        notes += describe_all(stayed, self._targets, self._target)
        if not left and not self._new:
            notes.append("Nothing changed on USB.")
        return NoDownloadModeError(
            f"No {chip} in download mode appeared on USB within {format_seconds(seconds)} after {through}.",
            port=port,
            boot_mode=boot_mode,
            changed=bool(left or self._new),
            stayed=[device.path for device in stayed if device.usb_id == self._target.usb_id],
            notes=notes,
        )

    def _other_chip(self, device: UsbDevice) -> Target | None:
        return find_target_by_usb_id(device.vid, device.pid, self._targets) if dfu_interfaces(device) else None


_SAID = {
    "download": "The chip says on {port} that it is in download mode.",
    "secure": "The chip says on {port} that it is in Secure Download Mode, which has no DFU.",
    "disabled": "The chip says on {port} that an eFuse disables download mode.",
    "app": "The chip says on {port} that it starts its app.",
    None: "The chip says nothing on {port}.",
}


def _key(device: UsbDevice) -> _Key:
    return device.path, device.address
