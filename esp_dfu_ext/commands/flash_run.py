"""What flashing one board, several at once and one after another have in common."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..events import EventSink
from ..operations.flash_setup import FlashOptions
from ..operations.flasher import Flasher
from ..operations.inspect import CheckedImage
from ..operations.restart import DEFAULT_RESET, HARD_RESET, NO_RESET, WATCHDOG_RESET
from ..target import Target
from ..usb.bus import Bus
from ..usb.descriptors import is_port_path
from .session import Session

if TYPE_CHECKING:
    from ..operations.record import Recorder
    from ..simulator import Simulation

_LONGEST_WAIT = 24 * 3600  # seconds


def check_path(path: str) -> None:
    """Check the value of `--path`.

    Raises:
        UsageError: It is not a port path.
    """
    if not is_port_path(path):
        raise UsageError(f"{path!r} is not a port path; expected one like 1-2.")


def check_mac(mac: str) -> None:
    """Check the value of `--mac`.

    Raises:
        UsageError: It is not a MAC address.
    """
    if not re.fullmatch("[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}", mac):
        raise UsageError(f"{mac!r} is not a MAC address; expected one like 7c:df:a1:00:00:01.")


@dataclass(frozen=True)
class FlashArguments(FlashOptions):
    """Options of `dfu-flash` and `esp-dfu flash`: how to flash, which boards, and what to show."""

    paths: Sequence[str] = ()
    all: bool = False
    reset: bool = False
    serial: str | None = None
    mac: str | None = None
    simulate: bool = False
    json: bool = False
    watch: bool = False
    count: int | None = None
    report: str | None = None

    def check(self) -> None:
        """Check the values of the options, and that they do not contradict each other.

        Raises:
            UsageError: The message says what to use instead.
        """
        for path in self.paths:
            check_path(path)
        if self.mac is not None:
            self._check_mac(self.mac)
        if sum((bool(self.paths), self.all, self.serial is not None)) > 1:
            raise UsageError("--path, --serial and --all each select boards; use only one of them.")
        if self.reset and self.after not in (None, HARD_RESET):
            raise UsageError(f"--reset means --after {HARD_RESET}; use it without --after {self.after}.")
        if self.serial is not None and not self.serial.strip():
            raise UsageError("--serial is empty; expected a serial number as `list` shows it.")
        if self.report is not None and not self.report:
            raise UsageError("--report is empty; expected a file to append to.")
        if not 0 <= self.wait <= _LONGEST_WAIT:
            raise UsageError(f"--wait takes a number of seconds from 0 to {_LONGEST_WAIT}.")
        if self.watch and self.all:
            raise UsageError("--watch flashes every board, so --all cannot be used with it; use --path to limit it.")
        if self.watch and self.serial is not None:
            raise UsageError("--watch flashes any board, so --serial cannot be used with it; use --path.")
        if self.watch and self.wait:
            raise UsageError("--watch waits for boards without a limit, so --wait cannot be used with it.")
        if self.watch and self.json:
            raise UsageError(
                "--json cannot be used with --watch; use --report, which writes a JSON line for each board."
            )
        if self.count is not None and not self.watch:
            raise UsageError("--count is the number of boards for --watch; use it together with --watch.")
        if self.count is not None and self.count < 1:
            raise UsageError("--count takes a number of boards, 1 or more.")
        for option, given in (
            ("--mac", self.mac is not None),
            ("--skip-flashed", self.skip_flashed),
            ("--verify", self.verify),
        ):
            if given and self.no_loader:
                raise UsageError(f"{option} asks the chip's serial loader, so --no-loader cannot be used with it.")
            if given and self.over == "serial":
                raise UsageError(f"{option} is about DFU; use it without --over serial.")
        if self.after == WATCHDOG_RESET and self.no_loader:
            raise UsageError("The chip's serial loader arms the watchdog, so --no-loader cannot be used with it.")
        self._check_serial()

    def restart_after(self, project: str) -> str:
        """Return how to start the app; `project` is the project's own setting, empty if it has none."""
        if self.after is not None or self.reset:
            return self.after or HARD_RESET
        if self.simulate or project.startswith(NO_RESET):  # or no-reset-stub
            return NO_RESET
        return project if project == WATCHDOG_RESET else HARD_RESET

    def reset_before(self, project: str) -> str:
        """Return how to get a board into download mode; `project` is the project's own setting, empty if none."""
        return self.before or (NO_RESET if project.startswith(NO_RESET) else DEFAULT_RESET)  # or no-reset-no-sync

    def _check_mac(self, mac: str) -> None:
        check_mac(mac)
        if self.paths or self.all or self.serial is not None:
            raise UsageError("--mac selects a board; use it without --path, --serial and --all.")
        if self.watch:
            raise UsageError("--watch flashes any board, so --mac cannot be used with it; use --path.")

    def _check_serial(self) -> None:
        if self.port is not None and not self.port:
            raise UsageError("--port is empty; expected a serial port, such as COM5 or /dev/ttyACM0.")
        if self.over != "serial":
            if self.port is not None and (self.several or self.watch):
                raise UsageError("--port is that of one board; use it without --all, --watch and several --path.")
            if self.port is not None and self.simulate:
                raise UsageError("--simulate needs no serial port; use it without --port.")
            if self.no_stub:
                raise UsageError("--no-stub is about --over serial; use it together with --over serial.")
            return
        if self.before == DEFAULT_RESET:
            raise UsageError("--over serial takes a board that is in download mode; use it without --before.")
        if self.several or self.watch:
            raise UsageError("--over serial flashes one board; use it without --all, --watch and several --path.")
        if self.simulate:
            raise UsageError("--simulate needs no serial port; use it without --over serial.")

    @property
    def several(self) -> bool:
        """More than one board may be flashed at once."""
        return self.all or len(set(self.paths)) > 1


@dataclass(frozen=True)
class FlashRun:
    """Everything a command needs to flash.

    Attributes:
        session: State of this invocation.
        image: Image to flash.
        bus: Where the boards are.
        targets: Known chips.
        arguments: Options of the command line.
        simulation: Simulated boards, None for real ones.
        recorder: Writes the report, None without --report.
    """

    session: Session
    image: CheckedImage
    bus: Bus
    targets: Sequence[Target]
    arguments: FlashArguments
    simulation: Simulation | None
    recorder: Recorder | None = None

    @property
    def title(self) -> str:
        """Kind of board for headings: the chip, and whether it is simulated."""
        return f"{'simulated ' if self.simulation else ''}{self.image.target.chip}"

    def flasher(self, view: EventSink) -> Flasher:
        """Return a Flasher whose events go to the report, if there is one, and then to `view`."""
        sink = view
        if self.recorder is not None:
            self.recorder.on_event = view
            sink = self.recorder
        return Flasher(self.arguments, bus=self.bus, targets=self.targets, clock=self.session.clock, on_event=sink)
