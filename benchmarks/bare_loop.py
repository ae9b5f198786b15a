"""Show the lower bound for --strict in Python: libusb's control transfers through ctypes and nothing else.

Run: ``python benchmarks/bare_loop.py DFU.BIN`` with one board in DFU mode. It makes no checks, shows no progress and
handles no errors.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import libusb_package

image = Path(sys.argv[1]).read_bytes()
pid, vid = (int.from_bytes(image[at : at + 2], "little") for at in (-14, -12))
stream = image[: image.index(b"TRAILER!!!") + 14]
usb = ctypes.CDLL(str(libusb_package.get_library_path()))
usb.libusb_open_device_with_vid_pid.restype = ctypes.c_void_p
context = ctypes.c_void_p()
usb.libusb_init(ctypes.byref(context))
handle = ctypes.c_void_p(usb.libusb_open_device_with_vid_pid(context, vid, pid))
usb.libusb_claim_interface(handle, 2)
transfer = usb.libusb_control_transfer
status = (ctypes.c_ubyte * 6)()
for block, start in enumerate(range(0, len(stream), 64)):
    data = stream[start : start + 64]
    transfer(handle, 0x21, 1, block & 0xFFFF, 2, data, len(data), 5000)
    transfer(handle, 0xA1, 3, 0, 2, status, 6, 5000)
transfer(handle, 0x21, 1, 0, 2, None, 0, 30000)
transfer(handle, 0xA1, 3, 0, 2, status, 6, 5000)
sys.exit(0 if (status[0], status[4]) == (0, 2) else 1)
