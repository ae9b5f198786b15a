"""What dfu-util 0.11 prints to stdout, as far as programs read it: letter for letter."""

from __future__ import annotations

import sys
from contextlib import suppress

from ..dfu.spec import FunctionalDescriptor, State, Status
from ..events import Event, Phase, PhaseFinished, PhaseStarted, Progress
from ..versions import __version__
from .lines import FlashView

# tools.json of ESP-IDF and others look for the first line.
BANNER = f"""\
dfu-util 0.11

This is esp-dfu-ext {__version__} with dfu-util's command line, not dfu-util itself,
which is at http://dfu-util.sourceforge.net
"""
NOTHING_FOUND = "dfu-util: No DFU capable USB device available"  # scripts search stderr for it
_BAR = 25  # columns
_ATTRIBUTES = ("bitCanDnload", "bitCanUpload", "bitManifestationTolerant", "bitWillDetach")


class DfuUtilView(FlashView):
    """Prints lines and a bar to stdout; a reader that has left does not stop the operation."""

    def __init__(self) -> None:
        self._shown: tuple[str, int] | None = None
        self._total = 0

    def write(self, text: str) -> None:
        """Print a text as it is."""
        with suppress(OSError, ValueError):
            sys.stdout.write(text)
            sys.stdout.flush()

    def line(self, text: str) -> None:
        """Print a line."""
        self.write(f"{text}\n")

    def device(self, usb_id: str, functional: FunctionalDescriptor | None, verbose: int) -> None:
        """Print what is known of the device that was chosen."""
        self.line(f"Device ID {usb_id}")
        if functional is None:
            return
        self.line(f"Device DFU version {functional.bcd_dfu:04x}")
        self.line(f"Device returned transfer size {functional.transfer_size}")
        if verbose:
            names = [name for bit, name in enumerate(_ATTRIBUTES) if functional.attributes & 1 << bit]
            self.line(" ".join([f"DFU attributes: (0x{functional.attributes:02x})", *names]))
            self.line(f"Detach timeout {functional.detach_timeout} ms")

    def state(self, state: int, status: int) -> None:
        """Print the state and the status of a device."""
        meaning = "No error condition is present" if status == Status.OK else _name(status)
        self.line(f"DFU state({int(state)}) = {_name(state)}, status({int(status)}) = {meaning}")

    def bar(self, what: str, done: int, total: int) -> None:
        """Print a bar over the last one; `total` is 0 if it is not known."""
        total = max(total, done + 1)  # complete only by `finish`
        columns = _BAR * done // total
        if self._shown != (what, columns):
            self._shown = (what, columns)
            self.write(f"\r{what}\t[{'=' * columns:{_BAR}}] {100 * done // total:3}% {done:12} bytes")

    def finish(self, what: str, done: int) -> None:
        """Print a complete bar, and that it is complete."""
        self._shown = None
        self.write(f"\r{what}\t[{'=' * _BAR}] 100% {done:12} bytes\n{what} done.\n")

    def stop(self) -> None:
        """End the line of a bar that was not completed, before an error is shown."""
        if self._shown is not None:
            self._shown = None
            self.write("\n")

    def __call__(self, event: Event) -> None:
        """Show an event of a download."""
        if isinstance(event, PhaseStarted) and event.phase is Phase.DOWNLOAD:
            self._total = event.total
            self.bar("Download", 0, event.total)
        elif isinstance(event, Progress):
            self.bar("Download", event.done, event.total)
        elif isinstance(event, PhaseFinished) and event.phase is Phase.VERIFY:
            self.finish("Download", self._total)


def _name(value: int) -> str:
    return str(value) if isinstance(value, (State, Status)) else "unknown"
