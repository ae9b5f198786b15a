"""Choose DFU interfaces by what dfu-util's options say about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from ..target import Target, find_target_by_usb_id
from .discovery import DfuInterface
from .spec import Mode

ANY = -1
NOTHING = 0x10000  # no VID and no PID has this value


class UsbIds(NamedTuple):
    """A vendor and a product ID; `ANY` matches every ID, `NOTHING` matches none."""

    vid: int = ANY
    pid: int = ANY

    def match(self, vid: int, pid: int) -> bool:
        """Return whether a device has these IDs."""
        return self.vid in (ANY, vid) and self.pid in (ANY, pid)


ANY_IDS = UsbIds()


@dataclass(frozen=True)
class DfuMatch:
    """Which DFU interfaces to use; None matches all.

    Attributes:
        run_time: IDs of a device in run-time mode.
        dfu: IDs of a device in DFU mode; None if they were not given.
        path: Port, ``bus-port.port``.
        devnum: Number of the device on its bus.
        configuration: bConfigurationValue.
        interface: bInterfaceNumber.
        alternate: bAlternateSetting or name of the interface, in DFU mode only.
        serial: Serial number in run-time mode.
        dfu_serial: Serial number in DFU mode.
    """

    run_time: UsbIds = ANY_IDS
    dfu: UsbIds | None = None
    path: str | None = None
    devnum: int | None = None
    configuration: int | None = None
    interface: int | None = None
    alternate: int | str | None = None
    serial: str | None = None
    dfu_serial: str | None = None

    def with_file_ids(self, vid: int, pid: int) -> DfuMatch:
        """Return this match with the IDs of a DFU file where the run-time IDs say nothing; `ANY` is no ID."""
        ids = self.run_time
        return replace(self, run_time=UsbIds(vid if ids.vid == ANY else ids.vid, pid if ids.pid == ANY else ids.pid))

    def accepts(self, interface: DfuInterface, serial: str | None, name: str | None, targets: Sequence[Target]) -> bool:
        """Return whether an interface matches.

        Args:
            interface: The interface.
            serial: Serial number of its device; None if it has none or cannot be read.
            name: Name of the interface; None if it has none or cannot be read.
            targets: Known chips.
        """
        device, descriptor = interface.device, interface.descriptor
        in_dfu_mode = interface.mode is Mode.DFU
        wanted_serial = self.dfu_serial if in_dfu_mode else self.serial
        return (
            self.path in (None, device.path)
            and self.devnum in (None, device.address)
            and self.configuration in (None, descriptor.configuration)
            and self.interface in (None, descriptor.number)
            and (not in_dfu_mode or self.alternate in (None, descriptor.alternate, name))
            and self._ids(in_dfu_mode, targets).match(device.vid, device.pid)
            and wanted_serial in (None, serial)
        )

    def _ids(self, in_dfu_mode: bool, targets: Sequence[Target]) -> UsbIds:
        """Return the IDs that a device must have.

        If only run-time IDs are given, dfu-util accepts every device in DFU mode, because a device may change its IDs
        with its mode. Here it must have the same vendor; a chip's ROM, which never changes its IDs, the same product.
        """
        ids = self.run_time
        if not in_dfu_mode:
            return ids
        if self.dfu is not None:
            return self.dfu
        if ids.vid == NOTHING:
            return ANY_IDS
        return ids if find_target_by_usb_id(ids.vid, ids.pid, targets) is not None else UsbIds(ids.vid, ANY)
