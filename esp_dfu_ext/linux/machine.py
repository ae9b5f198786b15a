"""What Linux tells of its USB devices, of who may open them, and of what it runs in: sysfs, /dev, /proc.

Reads only, and below a root that tests can choose. On other systems there is nothing to read, and nothing is found.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_SYS_USB = "/sys/bus/usb/devices"
_USB_NODES = "/dev/bus/usb"


@dataclass(frozen=True)
class UsbNode:
    """A USB device as the kernel knows it.

    Attributes:
        path: ``bus-port.port``, as `UsbDevice.path`.
        product: what the device calls itself, empty if it does not say.
        node: the file that libusb opens.
        classes: class and subclass of its interfaces, by interface number.
        drivers: of its interfaces, by interface number; ``usbfs`` is a program that has claimed it.
        terminals: names of its serial ports, such as ``ttyACM0``.
    """

    path: str
    vid: int
    pid: int
    product: str
    node: str
    classes: Mapping[int, tuple[int, int]]
    drivers: Mapping[int, str]
    terminals: tuple[str, ...]

    @property
    def usb_id(self) -> str:
        """``vvvv:pppp``, as lsusb writes it."""
        return f"{self.vid:04x}:{self.pid:04x}"


@dataclass(frozen=True)
class Access:
    """Who may open a device node; `allowed` is the kernel's own answer for this process, ACLs included."""

    owner: str
    group: str
    mode: int
    allowed: bool

    def __str__(self) -> str:
        return f"{self.owner}:{self.group} {self.mode:04o}"


class Machine:
    """The machine this runs on.

    Args:
        root: below which its files are.
        platform: as `sys.platform`.
        environ: the environment.
    """

    def __init__(
        self, root: Path = Path("/"), *, platform: str = sys.platform, environ: Mapping[str, str] = os.environ
    ) -> None:
        self.root = root
        self.linux = platform.startswith("linux")
        self.platform = platform
        self.environ = environ

    def file(self, path: str) -> Path:
        """Where an absolute path of this machine is."""
        return self.root / path.lstrip("/")

    def read(self, path: str) -> str:
        """A small text file; empty if it cannot be read."""
        try:
            return self.file(path).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return ""

    # --- the user -----------------------------------------------------------------------------------------

    @property
    def is_root(self) -> bool:
        """May do everything."""
        return self.linux and os.geteuid() == 0

    @property
    def user(self) -> str:
        """Name of the user."""
        import pwd

        try:
            return pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            return str(os.getuid())

    def groups(self) -> frozenset[str]:
        """Names of the groups that this process is in."""
        return frozenset(_group_name(number) for number in {os.getegid(), *os.getgroups()})

    def members(self, group: str) -> frozenset[str] | None:
        """Who is in a group as the system's records say now; None if there is no such group."""
        import grp

        try:
            return frozenset(grp.getgrnam(group).gr_mem)
        except KeyError:
            return None

    # --- USB ----------------------------------------------------------------------------------------------

    @property
    def has_usb(self) -> bool:
        """There are USB device nodes."""
        return self.file(_USB_NODES).is_dir()

    def usb(self) -> list[UsbNode]:
        """All USB devices that the kernel shows, but for root hubs."""
        with suppress(OSError):
            names = sorted(path.name for path in self.file(_SYS_USB).iterdir())
            return [node for name in names if ":" not in name and (node := self._usb(name, names)) is not None]
        return []

    def _usb(self, name: str, names: list[str]) -> UsbNode | None:
        folder = f"{_SYS_USB}/{name}"
        classes: dict[int, tuple[int, int]] = {}
        drivers: dict[int, str] = {}
        terminals: list[str] = []
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
                # cdc_acm has a folder for them, a USB-to-serial bridge has them in place.
                found = [*interface.glob("tty/tty*"), *interface.glob("tty[A-Z]*")]
                terminals += sorted(path.name for path in found)
        except (OSError, ValueError):
            return None  # a root hub's name is of another kind; or it left while it was read
        if name.startswith("usb"):
            return None
        node = f"{_USB_NODES}/{bus:03}/{device:03}"
        return UsbNode(name, vid, pid, self.read(f"{folder}/product"), node, classes, drivers, tuple(terminals))

    def access(self, node: str) -> Access | None:
        """Who may open a device node; None if it is not there."""
        try:
            state = self.file(node).stat()
        except OSError:
            return None
        owner, group = self.names(state)
        return Access(owner, group, stat.S_IMODE(state.st_mode), self.may_open(node))

    def names(self, state: os.stat_result) -> tuple[str, str]:
        """Owner and group of a file."""
        import pwd

        try:
            owner = pwd.getpwuid(state.st_uid).pw_name
        except KeyError:
            owner = str(state.st_uid)
        return owner, _group_name(state.st_gid)

    def may_open(self, node: str) -> bool:
        """Whether this process may read and write a node."""
        return os.access(self.file(node), os.R_OK | os.W_OK)

    def holders(self, node: str) -> list[tuple[int, str]]:
        """Processes that have a node open, as far as this user may see that: number and name."""
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
        """The kernel's release if it is that of Windows' subsystem for Linux, else empty."""
        release = self.read("/proc/sys/kernel/osrelease")
        return release if "microsoft" in release.lower() else ""

    @property
    def container(self) -> str:
        """The file that says that this is a container, else empty."""
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
