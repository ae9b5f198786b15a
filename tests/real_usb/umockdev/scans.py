"""Scan the bus many times in a process of its own on a bench, and print how many files stay open."""

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
    """Return the number of open files."""
    return len(list(Path("/proc/self/fd").iterdir()))


def library() -> str:
    """Return the path of the loaded libusb."""
    list_devices()
    return next(line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libusb" in line)


def listing() -> list[int]:
    """List all devices 50 times, without garbage collection, so that a cycle would keep contexts open."""
    gc.disable()
    counts = []
    for _ in range(50):
        list_devices()
        counts.append(descriptors())
    return counts


def opening() -> list[int]:
    """Open the devices 50 times, or fail to."""
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
    """Look 50 times for a missing board; the errors refer to the devices found."""
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
    """Drop the devices of 100 scans in every order."""
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
    """Drop a device, pyusb's object and the handle in random order."""
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
    """Leave devices, handles and cycles to the end of the interpreter."""
    for _ in range(100):
        KEPT.append(Bus().scan())
    KEPT.append(KEPT)
    KEPT.append(next(d for d in KEPT[0] if d.vid == 0x303A).open(2))
    return len(KEPT)


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]]()))
