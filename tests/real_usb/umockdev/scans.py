"""Run on a bench, in a process of its own: scans the bus again and again, and looks at what is left behind."""

from __future__ import annotations

import contextlib
import gc
import json
import random
import sys
from itertools import permutations
from pathlib import Path
from typing import Any

from esp_dfu_ext.clock import SystemClock
from esp_dfu_ext.dfu.discovery import Selector, select
from esp_dfu_ext.errors import DeviceNotFoundError, UsbError
from esp_dfu_ext.operations.list import list_devices
from esp_dfu_ext.target import load_targets
from esp_dfu_ext.usb.bus import Bus, UsbDevice

KEPT: list[Any] = []  # until the interpreter ends


def descriptors() -> int:
    """Open files of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


def library() -> str:
    """Where libusb came from."""
    list_devices()
    return next(line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libusb" in line)


def listing() -> list[int]:
    """Lists everything 50 times, strings and refusals included; a cycle would keep its contexts open."""
    gc.disable()
    counts = []
    for _ in range(50):
        list_devices()
        counts.append(descriptors())
    return counts


def opening() -> list[int]:
    """Opens a device 50 times, or is refused."""
    gc.disable()
    counts = []
    for _ in range(50):
        for device in Bus().scan():
            if device.vid == 0x303A:
                with contextlib.suppress(UsbError), device.open(2) as handle:
                    handle.control_in(0xA1, 3, 0, 6, 5.0)
        counts.append(descriptors())
    return counts


def waiting() -> list[int]:
    """Looks 50 times for a board that is not there; the errors hold what was seen."""
    gc.disable()
    counts = []
    chips = load_targets()
    absent = next(chip for chip in chips if chip.name == "esp32s31")
    for _ in range(50):
        with contextlib.suppress(DeviceNotFoundError):
            select(Bus(), absent, Selector(), chips, clock=SystemClock())
        counts.append(descriptors())
    return counts


def orders() -> list[int]:
    """Drops the devices of 100 scans in every order, and each one's parts in every order."""
    before = descriptors()
    bus, shuffled = Bus(), random.Random(0)
    scans = [bus.scan() for _ in range(50)]
    most = descriptors()
    devices: list[UsbDevice] = [device for scan in scans for device in scan]
    del scans
    shuffled.shuffle(devices)
    while devices:
        devices.pop()
    for order in list(permutations(range(4))) * 2 + [(0, 1, 2, 3)] * 2:
        found: list[UsbDevice | None] = list(bus.scan())
        for index in order:
            found[index] = None
    return [before, most, descriptors()]


def inner() -> list[int]:
    """Lets go of a device, pyusb's object of it and the handle in any order."""
    before, shuffled = descriptors(), random.Random(0)
    for _ in range(25):
        device = next(d for d in Bus().scan() if d.vid == 0x303A)
        handle = device.open(2)
        parts = [device._device, handle, device]
        del device, handle
        shuffled.shuffle(parts)
        while parts:
            parts.pop()
    return [before, descriptors()]


def at_exit() -> int:
    """Leaves everything to the end of the interpreter: devices, handles, cycles."""
    for _ in range(100):
        KEPT.append(Bus().scan())
    KEPT.append(KEPT)
    KEPT.append(next(d for d in KEPT[0] if d.vid == 0x303A).open(2))
    return len(KEPT)


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]]()))
