"""A Linux machine in a folder: sysfs, /dev, /proc and udev rules, for code that reads them below a root."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from esp_dfu_ext.doctor import usb
from esp_dfu_ext.doctor.findings import Finding, Level
from esp_dfu_ext.linux.machine import Machine

from .boards import Rig
from .chips import chip, chips
from .files import write_file

NODE = "/dev/bus/usb/001/002"
OURS = (
    'SUBSYSTEM=="usb", ATTR{idVendor}=="303a", ATTR{idProduct}=="00??", MODE="0660", GROUP="plugdev", TAG+="uaccess", '
    'ENV{ID_MM_DEVICE_IGNORE}="1"'
)
OURS_FOR_APPS = (
    'SUBSYSTEM=="usb", ATTR{idVendor}=="303a", ENV{ID_USB_INTERFACES}=="*:fe0101:*", MODE="0660", GROUP="plugdev", '
    'TAG+="uaccess"'
)


class FolderMachine(Machine):
    """A machine with the files of a folder; the test sets the user and the owners of files."""

    is_root = False
    user = "ada"

    def __init__(self, root: Path) -> None:
        super().__init__(root, platform="linux", environ={})
        self.in_groups: frozenset[str] = frozenset({"ada"})
        self.records: dict[str, frozenset[str]] = {"plugdev": frozenset()}
        self.owner = ("root", "root")
        self.open_to_all = False
        self.opened: set[str] = set()  # nodes that the user may open
        self.write("/run/udev/control")

    def groups(self) -> frozenset[str]:
        return self.in_groups

    def members(self, group: str) -> frozenset[str] | None:
        return self.records.get(group)

    def owner_and_group(self, state: os.stat_result) -> tuple[str, str]:
        return self.owner

    def may_open(self, node: str) -> bool:
        return self.open_to_all or self.is_root or node in self.opened

    # --- furnishing ---------------------------------------------------------------------------------------

    def write(self, path: str, text: str = "") -> Path:
        return write_file(self.file(path), text.encode())

    def plug(
        self,
        usb_id: str = "303a:0009",
        path: str = "1-1",
        number: int = 2,
        drivers: Sequence[str | None] = ("cdc_acm", "cdc_acm", None),
        terminals: Mapping[int, str] | None = None,
        product: str = "ESP32-S3",
        mode: int = 0o664,
    ) -> str:
        """Plug in a device with one interface for each driver (None: without a driver); return its node."""
        folder = f"/sys/bus/usb/devices/{path}"
        vid, _, pid = usb_id.partition(":")
        values = {"idVendor": vid, "idProduct": pid, "busnum": "1", "devnum": str(number), "bConfigurationValue": "1"}
        for name, value in {**values, "product": product}.items():
            self.write(f"{folder}/{name}", f"{value}\n")
        for interface, driver in enumerate(drivers):
            kind = {0: ("02", "02"), 1: ("0a", "02")}.get(interface, ("fe", "01"))
            for name, value in zip(("Number", "Class", "SubClass"), (f"{interface:02}", *kind)):
                self.write(f"{folder}:1.{interface}/bInterface{name}", f"{value}\n")
            if driver is not None:
                link = self.file(f"{folder}:1.{interface}/driver")
                link.unlink(missing_ok=True)
                link.symlink_to(f"../../../bus/usb/drivers/{driver}")
        for interface, terminal in (terminals or {}).items():
            self.file(f"{folder}:1.{interface}/{terminal}").mkdir(parents=True)
        node = f"/dev/bus/usb/001/{number:03}"
        self.write(node).chmod(mode)
        return node

    def run_program(self, number: int, name: str, *opened: str) -> None:
        """Add a process that has files open."""
        self.write(f"/proc/{number}/comm", f"{name}\n")
        for descriptor, path in enumerate(opened, 3):
            link = self.file(f"/proc/{number}/fd/{descriptor}")
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(path)


def check_bus(machine: Machine, rig: Rig, wanted: str | None = "esp32s3", *, simulated: bool = False) -> list[Finding]:
    """Return what the doctor finds on the bus of `rig`, looking for the chip `wanted`."""
    return usb.devices(machine, chips(), chip(wanted) if wanted else None, rig.bus, simulated=simulated)


def problem_codes(findings: Sequence[Finding]) -> dict[str, str]:
    """Return the codes of the problems, by topic."""
    return {finding.topic: finding.code for finding in findings if finding.level is Level.PROBLEM}
