"""What Linux knows about its USB devices, who may open them, and what it runs in: sysfs, /dev, /proc.

Read-only, below a root folder that tests can choose. Other systems have none of these files, so nothing is found there.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..units import usb_id
from ..usb.serial_ports import SerialPort, serial_ports

_SYS_USB = "/sys/bus/usb/devices"
_USB_NODES = "/dev/bus/usb"


@dataclass(frozen=True)
class UsbNode:
    """A USB device as the kernel knows it.

    Attributes:
        path: Port, as ``bus-port.port``, like `UsbDevice.path`.
        vid: Vendor ID.
        pid: Product ID.
        product: Product string, empty if the device has none.
        device_file: Path of the device node, which libusb opens.
        classes: Class and subclass of each interface, by interface number.
        drivers: Driver of each bound interface, by interface number; ``usbfs``: a program has claimed it.
        ttys: Names of its serial ports, such as ``ttyACM0``.
    """

    path: str
    vid: int
    pid: int
    product: str
    device_file: str
    classes: Mapping[int, tuple[int, int]]
    drivers: Mapping[int, str]
    ttys: tuple[str, ...]

    @property
    def usb_id(self) -> str:
        """Vendor and product ID as ``vvvv:pppp``, the notation of lsusb."""
        return usb_id(self.vid, self.pid)


@dataclass(frozen=True)
class Access:
    """Owner, group and mode of a device node; `allowed` is the kernel's answer for this process, ACLs included."""

    owner: str
    group: str
    mode: int
    allowed: bool

    def __str__(self) -> str:
        return f"{self.owner}:{self.group} {self.mode:04o}"


class Machine:
    """The machine this runs on.

    Args:
        root: The folder that contains its files.
        platform: Like `sys.platform`.
        environ: Environment variables.
    """

    def __init__(
        self, root: Path = Path("/"), *, platform: str = sys.platform, environ: Mapping[str, str] = os.environ
    ) -> None:
        self.root = root
        self.linux = platform.startswith("linux")
        self.platform = platform
        self.environ = environ

    def file(self, path: str) -> Path:
        """Return where an absolute path of this machine is, below `root`."""
        return self.root / path.lstrip("/")

    def read(self, path: str) -> str:
        """Return the stripped text of a small file; empty if it cannot be read."""
        try:
            return self.file(path).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return ""

    # --- the user -----------------------------------------------------------------------------------------

    @property
    def is_root(self) -> bool:
        """The user is root."""
        return self.linux and os.geteuid() == 0

    @property
    def user(self) -> str:
        """Name of the user, or the number of a user without a name."""
        import pwd

        try:
            return pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            return str(os.getuid())

    def groups(self) -> frozenset[str]:
        """Return the names of the groups of this process."""
        return frozenset(_group_name(number) for number in {os.getegid(), *os.getgroups()})

    def members(self, group: str) -> frozenset[str] | None:
        """Return the members of a group in the system's database, or None if the group does not exist."""
        import grp

        try:
            return frozenset(grp.getgrnam(group).gr_mem)
        except KeyError:
            return None

    def usb_services(self, vid: int, pid: int, interface: int) -> list[str]:
        """Return the drivers that Windows has assigned to an interface of devices with these IDs; empty elsewhere.

        The registry keeps them for each port on which such a device ever was; see Microsoft's "USB device registry
        entries".
        """
        if self.platform != "win32":
            return []
        import importlib

        registry: Any = importlib.import_module("winreg")
        path = rf"SYSTEM\CurrentControlSet\Enum\USB\VID_{vid:04X}&PID_{pid:04X}&MI_{interface:02}"
        found: list[str] = []
        with suppress(OSError), registry.OpenKey(registry.HKEY_LOCAL_MACHINE, path) as key:
            for number in range(registry.QueryInfoKey(key)[0]):
                with suppress(OSError), registry.OpenKey(key, registry.EnumKey(key, number)) as instance:
                    found.append(str(registry.QueryValueEx(instance, "Service")[0]))
        return list(dict.fromkeys(found))

    def serial_ports(self) -> list[SerialPort]:
        """Return the serial ports of USB devices; outside Linux, all serial ports as pyserial lists them."""
        if not self.linux:
            return serial_ports()
        return [
            SerialPort(f"/dev/{name}", node.vid, node.pid, path=node.path) for node in self.usb() for name in node.ttys
        ]

    # --- USB ----------------------------------------------------------------------------------------------

    @property
    def has_usb(self) -> bool:
        """The machine has a folder of USB device nodes."""
        return self.file(_USB_NODES).is_dir()

    def usb(self) -> list[UsbNode]:
        """Return all USB devices that the kernel shows, except root hubs."""
        with suppress(OSError):
            names = sorted(path.name for path in self.file(_SYS_USB).iterdir())
            return [node for name in names if ":" not in name and (node := self._usb(name, names)) is not None]
        return []

    def _usb(self, name: str, names: list[str]) -> UsbNode | None:
        folder = f"{_SYS_USB}/{name}"
        classes: dict[int, tuple[int, int]] = {}
        drivers: dict[int, str] = {}
        ttys: list[str] = []
        try:
            vid, pid = (int(self.read(f"{folder}/{key}"), 16) for key in ("idVendor", "idProduct"))
            bus, device = (int(self.read(f"{folder}/{key}")) for key in ("busnum", "devnum"))
            for interface in (self.file(f"{_SYS_USB}/{i}") for i in names if i.startswith(f"{name}:")):
                number, class_, subclass = (
                    int((interface / f"bInterface{key}").read_text(), 16) for key in ("Number", "Class", "SubClass")
                )
                classes[number] = class_, subclass
                if (interface / "driver").is_symlink():
                    drivers[number] = (interface / "driver").readlink().name
                # cdc_acm puts them into a folder, drivers of USB-to-serial bridges do not.
                found = [*interface.glob("tty/tty*"), *interface.glob("tty[A-Z]*")]
                ttys += sorted(path.name for path in found)
        except (OSError, ValueError):
            return None  # a root hub, which has no port; or the device left while it was read
        if name.startswith("usb"):
            return None
        device_file = f"{_USB_NODES}/{bus:03}/{device:03}"
        return UsbNode(name, vid, pid, self.read(f"{folder}/product"), device_file, classes, drivers, tuple(ttys))

    @property
    def udev_running(self) -> bool:
        """udev is running, so its rules take effect."""
        return self.file("/run/udev/control").exists()

    def access(self, node: str) -> Access | None:
        """Return who may open a device node, or None if it does not exist."""
        try:
            state = self.file(node).stat()
        except OSError:
            return None
        owner, group = self.owner_and_group(state)
        return Access(owner, group, stat.S_IMODE(state.st_mode), self.may_open(node))

    def owner_and_group(self, state: os.stat_result) -> tuple[str, str]:
        """Return owner and group of a file."""
        import pwd

        try:
            owner = pwd.getpwuid(state.st_uid).pw_name
        except KeyError:
            owner = str(state.st_uid)
        return owner, _group_name(state.st_gid)

    def may_open(self, node: str) -> bool:
        """Return whether this process may read and write a node."""
        return os.access(self.file(node), os.R_OK | os.W_OK)

    def holders(self, node: str) -> list[tuple[int, str]]:
        """Return number and name of the processes that have a node open, as far as this user can see."""
        found = []
        for process in self._processes():
            with suppress(OSError):
                if any(str(file.readlink()) == node for file in _links(process / "fd")):
                    found.append((int(process.name), (process / "comm").read_text().strip()))
        return sorted(found)

    def _processes(self) -> Iterator[Path]:
        with suppress(OSError):
            for path in self.file("/proc").iterdir():
                if path.name.isdecimal() and int(path.name) != os.getpid():
                    yield path

    # --- what it runs in ----------------------------------------------------------------------------------

    @property
    def wsl(self) -> str:
        """Release of the kernel if this is the Windows Subsystem for Linux, else empty."""
        release = self.read("/proc/sys/kernel/osrelease")
        return release if "microsoft" in release.lower() else ""

    @property
    def container(self) -> str:
        """The file that marks this as a container, else empty."""
        for path in ("/.dockerenv", "/run/.containerenv", "/run/systemd/container"):
            if self.file(path).exists():
                return path
        return ""


def _links(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_symlink()]


def _group_name(number: int) -> str:
    import grp

    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
