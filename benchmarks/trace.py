"""What a trace adds to each control transfer. Run: python -m benchmarks.trace [CHECKOUT].

Transfers of 64 bytes go to a pyusb backend that does nothing. CHECKOUT is another version of this project, measured in
turns with this one.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from esp_dfu_ext import Bus

ROUNDS = 9
TRANSFERS = 50_000
MODES = ("off", "text", "pcapng", "log")
# Not as a script: this folder, whose usb.py would hide pyusb, must not be on the path, but the current folder must.
_RUN = "import runpy, sys; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
HERE = Path(__file__).resolve().parent.parent


class IdleBackend:
    """A pyusb backend with one device, which takes everything."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None

    def enumerate_devices(self) -> list[str]:
        """See IBackend."""
        return ["device"]

    def get_device_descriptor(self, device: Any) -> SimpleNamespace:
        """See IBackend; a device descriptor of zeros."""
        names = (
            "bLength bDescriptorType bcdUSB bDeviceClass bDeviceSubClass bDeviceProtocol bMaxPacketSize0 idVendor "
            "idProduct bcdDevice iManufacturer iProduct iSerialNumber bNumConfigurations address bus speed port_number"
        )
        return SimpleNamespace(**dict.fromkeys(names.split(), 0), port_numbers=(1,))

    def open_device(self, device: Any) -> object:
        """See IBackend."""
        return object()

    def ctrl_transfer(self, handle: Any, kind: int, request: int, value: int, index: int, data: Any, ms: int) -> int:
        """See IBackend."""
        return len(data)


def measure(mode: str) -> float:
    """Return microseconds of CPU time per transfer."""
    bus: Any = Bus(IdleBackend)
    with tempfile.TemporaryDirectory() as folder:
        if mode == "log":
            import logging

            stream = (Path(folder) / "log.txt").open("w", encoding="utf-8")
            logging.basicConfig(stream=stream, level=logging.DEBUG)
        elif mode != "off":
            from esp_dfu_ext.clock import SystemClock
            from esp_dfu_ext.dfu.trace_file import TraceFile

            bus.trace = TraceFile(Path(folder) / f"t.{mode}", SystemClock()).trace
        handle = bus.scan()[0].open(0)
        data = bytes(64)
        started = time.process_time()
        for block in range(TRANSFERS):
            handle.control_out(0x21, 1, block & 0xFFFF, data, 5.0)
        return (time.process_time() - started) / TRANSFERS * 1e6


def main() -> None:
    """Measure every mode in turns, each in a process of its own, and print the results."""
    if sys.argv[1:2] == ["--one"]:
        print(measure(sys.argv[2]))
        return
    cases = [(f"here, {mode}", HERE, mode) for mode in MODES]
    if len(sys.argv) > 1:
        cases.insert(0, (f"{sys.argv[1]}, off", Path(sys.argv[1]), "off"))
    found: dict[str, list[float]] = {name: [] for name, *_ in cases}
    for _ in range(ROUNDS):
        for name, checkout, mode in cases:
            command = [sys.executable, "-c", _RUN, str(Path(__file__).resolve()), "--one", mode]
            done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True)
            found[name].append(float(done.stdout))
    print("| version, trace | CPU µs per transfer: lowest | median |\n|---|---:|---:|")
    for name, times in found.items():
        print(f"| {name} | {min(times):.2f} | {statistics.median(times):.2f} |")


if __name__ == "__main__":
    main()
