"""An open device: its interfaces, and transfers to it."""

from __future__ import annotations

import contextlib
from array import array
from typing import Any

from ..errors import DriverMissingError, UsbError
from .libusb import mapped, raise_mapped
from .serial_ports import SerialPort
from .trace import Trace


class UsbHandle:
    """An open device; a context manager that releases its interfaces and closes it.

    It is opened for one interface, which is claimed and receives the control transfers.
    """

    def __init__(self, device: Any, interface: int, path: str) -> None:
        self._device = device
        self._interface = interface
        self._path = path
        self._borrowed: tuple[int, ...] = ()
        self._backend: Any = None
        self._handle: Any = None

    def __enter__(self) -> UsbHandle:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def claim(self) -> None:
        """Open the device and claim the interface."""
        import usb.util

        with on_port(self._path):
            usb.util.claim_interface(self._device, self._interface)
        # Transfers bypass pyusb's device, which claims the interface and takes three locks for each of them.
        self._backend, self._handle = self._device.backend, self._device._ctx.handle

    @property
    def path(self) -> str:
        """Port of the device."""
        return self._path

    def borrow(self, *interfaces: int) -> None:
        """Claim interfaces that a driver of the kernel may hold; the driver gets them back at `close`.

        Raises:
            DriverMissingError: This system does not let programs take interfaces from its drivers.
            UsbError: An interface cannot be claimed, and none is; the subclass says why.
        """
        import usb.util

        if not getattr(self._device.backend, "lends_interfaces", True):
            raise DriverMissingError(
                f"Port {self._path}: the system's own drivers hold its other interfaces.", path=self._path
            )
        self._borrowed = interfaces
        try:
            with on_port(self._path):
                for interface in interfaces:
                    if self._device.is_kernel_driver_active(interface):
                        self._device.detach_kernel_driver(interface)
                for interface in interfaces:
                    usb.util.claim_interface(self._device, interface)
        except BaseException:
            self._give_back()
            raise

    def serial_ports(self) -> list[SerialPort]:
        """Return the serial ports that the system has made of devices on this bus; none of simulated ones.

        Raises:
            UsbError: The system cannot list them.
        """
        try:
            ports: list[SerialPort] = getattr(self._device.backend, "serial_ports", list)()
        except Exception as error:  # pyserial calls the system by ctypes
            raise UsbError(
                f"Port {self._path}: the serial ports cannot be listed: {error}.", path=self._path
            ) from error
        return ports

    @property
    def trace(self) -> Trace | None:
        """What takes everything that happens on the bus; None if nothing does."""
        return getattr(self._device.backend, "trace", None)

    def _give_back(self) -> None:
        import usb.util

        for interface in self._borrowed:
            with contextlib.suppress(Exception):
                usb.util.release_interface(self._device, interface)
        for interface in self._borrowed:
            # One driver may serve several: attached to the first it takes all of them, and the next is busy.
            with contextlib.suppress(Exception):
                self._device.attach_kernel_driver(interface)
        self._borrowed = ()

    def close(self) -> None:
        """Release all interfaces and close the device; never fails."""
        import usb.util

        self._handle = None
        self._give_back()
        with contextlib.suppress(Exception):
            usb.util.dispose_resources(self._device)

    def bulk_out(self, interface: int, endpoint: int, data: bytes, timeout: float) -> int:
        """Send `data` to a bulk end point of a claimed interface.

        Args:
            interface: Its interface.
            endpoint: bEndpointAddress.
            data: At least one byte.
            timeout: Seconds.

        Returns:
            Number of bytes sent; fewer than all if the time was over.

        Raises:
            UsbError: Nothing was sent; the subclass says why.
        """
        return self._transfer("bulk_write", (endpoint, interface), array("B", data), timeout)

    def bulk_in(self, interface: int, endpoint: int, length: int, timeout: float) -> bytes:
        """Receive at most `length` bytes from a bulk end point, up to the first short packet; see `bulk_out`.

        Args:
            interface: Its interface.
            endpoint: bEndpointAddress.
            length: A multiple of the end point's wMaxPacketSize.
            timeout: Seconds.
        """
        buffer = array("B", bytes(length))
        count = self._transfer("bulk_read", (endpoint, interface), buffer, timeout)
        return buffer.tobytes()[:count]

    def control_out(self, request_type: int, request: int, value: int, data: bytes, timeout: float) -> int:
        """Send `data` to the interface in a control transfer.

        Args:
            request_type: bmRequestType.
            request: bRequest.
            value: wValue.
            data: At most 65535 bytes.
            timeout: Seconds.

        Returns:
            Number of bytes sent.

        Raises:
            UsbError: The transfer failed; the subclass says how.
        """
        address = (request_type, request, value, self._interface)
        return self._transfer("ctrl_transfer", address, array("B", data), timeout)

    def control_in(self, request_type: int, request: int, value: int, length: int, timeout: float) -> bytes:
        """Receive at most `length` bytes from the interface; arguments and errors as for `control_out`."""
        buffer = array("B", bytes(length))
        address = (request_type, request, value, self._interface)
        count = self._transfer("ctrl_transfer", address, buffer, timeout)
        return buffer.tobytes()[:count]

    def _transfer(self, kind: str, address: tuple[int, ...], buffer: array[int], timeout: float) -> int:
        """Call a function of the backend, all of which end with the buffer and the time-out."""
        if self._handle is None:
            raise UsbError(f"Port {self._path}: the device is closed.", path=self._path)
        # libusb takes an unsigned int, and 0 would mean no time-out at all.
        milliseconds = min(int(timeout * 1000), 0xFFFFFFFF) or 1
        try:
            count: int = getattr(self._backend, kind)(self._handle, *address, buffer, milliseconds)
        except Exception as error:
            raise_mapped(f"Port {self._path}", error, self._path)
            raise
        return count

    def reset(self) -> None:
        """Reset the port.

        Raises:
            DeviceGoneError: The device did not come back as it was.
            UsbError: The reset failed for another reason.
        """
        self._handle = None  # pyusb closes the device after a reset
        with on_port(self._path):
            self._device.reset()


def on_port(path: str) -> mapped:
    """Return the context that maps pyusb's errors on this port to ours."""
    return mapped(f"Port {path}", path)
