"""Talk to the serial loader of the only board by libusb, without the kernel's driver."""

from __future__ import annotations

import sys
from typing import Any

import usb.core
import usb.util

from esp_dfu_ext.simulator.rom import SERIAL_IN, SERIAL_OUT

from ..kit.loader import READ_REG, SYNC_FRAME, frame, words

INTERFACES = (0, 1)


class SerialPort:
    """The board's CDC interface, taken from the kernel's driver."""

    def __init__(self) -> None:
        self._device: Any = usb.core.find(idVendor=0x303A)
        for number in INTERFACES:
            if self._device.is_kernel_driver_active(number):
                self._device.detach_kernel_driver(number)
            usb.util.claim_interface(self._device, number)

    def ask(self, wire: bytes) -> str:
        """Send bytes; return the answer in hexadecimal, once nothing has come for 200 ms."""
        self._device.write(SERIAL_OUT, wire, 1000)
        answer = b""
        while True:
            try:
                answer += bytes(self._device.read(SERIAL_IN, 64, 200))
            except usb.core.USBTimeoutError:
                return answer.hex()

    def give_back(self) -> None:
        """Give the interface back to the kernel's driver."""
        for number in INTERFACES:
            usb.util.release_interface(self._device, number)
        self._device.attach_kernel_driver(INTERFACES[0])
        usb.util.dispose_resources(self._device)


def main() -> None:
    """Print the answers to SYNC and to READ_REG of the address on the command line, and whether the driver is back."""
    port = SerialPort()
    print(port.ask(SYNC_FRAME))
    print(port.ask(frame(READ_REG, words(int(sys.argv[1], 0)))))
    port.give_back()
    device = usb.core.find(idVendor=0x303A)
    print([device.is_kernel_driver_active(number) for number in (*INTERFACES, 2)])


if __name__ == "__main__":
    main()
