"""A pyusb backend around another one that records what goes through it."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any, NamedTuple

from ..units import usb_id
from .descriptors import CONFIGURATION, DEVICE, configuration_bytes, device_bytes, port_path
from .libusb import kind_of
from .trace import GET_DESCRIPTOR, BulkTransfer, Step, Trace, Transfer


class _Opened(NamedTuple):
    path: str
    address: int


class TracingBackend:
    """Passes every call on to `backend`, and those that reach a device to `trace` as well."""

    def __init__(self, backend: Any, trace: Trace) -> None:
        self._backend = backend
        self.trace = trace
        self._opened: dict[int, _Opened] = {}  # by id() of the handle, which pyusb keeps until it is closed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def open_device(self, device: Any) -> Any:
        """See IBackend."""
        import usb.core

        view = usb.core.Device(device, self._backend)
        opened = _Opened(port_path(view), view.address)
        name = f"{usb_id(view.idVendor, view.idProduct)}, device {view.address}"
        handle = self._step(opened, "open", name, self._backend.open_device, device)
        self._opened[id(handle)] = opened
        self._add_descriptors(view, opened)
        return handle

    def close_device(self, handle: Any) -> None:
        """See IBackend."""
        opened = self._opened.pop(id(handle))
        self._step(opened, "close", f"device {opened.address}", self._backend.close_device, handle)

    def claim_interface(self, handle: Any, intf: int) -> None:
        """See IBackend."""
        self._step(self._opened[id(handle)], "claim", f"interface {intf}", self._backend.claim_interface, handle, intf)

    def release_interface(self, handle: Any, intf: int) -> None:
        """See IBackend."""
        opened = self._opened[id(handle)]
        self._step(opened, "release", f"interface {intf}", self._backend.release_interface, handle, intf)

    def reset_device(self, handle: Any) -> None:
        """See IBackend."""
        opened = self._opened[id(handle)]
        self._step(opened, "reset", f"device {opened.address}", self._backend.reset_device, handle)

    def ctrl_transfer(
        self, handle: Any, request_type: int, request: int, value: int, index: int, data: array[int], timeout: int
    ) -> int:
        """See IBackend."""
        trace, opened, length = self.trace, self._opened[id(handle)], len(data)
        begun, failed = trace.now(), None
        count = 0
        try:
            count = int(self._backend.ctrl_transfer(handle, request_type, request, value, index, data, timeout))
            return count
        except Exception as error:
            failed = kind_of(error)
            raise
        finally:
            # What was to be sent is shown whole, even if it failed.
            content = data.tobytes()[:count] if request_type & 0x80 else data.tobytes()
            seconds = trace.now() - begun
            trace.add(Transfer(begun, seconds, *opened, request_type, request, value, index, length, content, failed))

    def detach_kernel_driver(self, handle: Any, intf: int) -> None:
        """See IBackend."""
        opened = self._opened[id(handle)]
        self._step(opened, "detach driver", f"interface {intf}", self._backend.detach_kernel_driver, handle, intf)

    def attach_kernel_driver(self, handle: Any, intf: int) -> None:
        """See IBackend."""
        opened = self._opened[id(handle)]
        self._step(opened, "attach driver", f"interface {intf}", self._backend.attach_kernel_driver, handle, intf)

    def bulk_write(self, handle: Any, ep: int, intf: int, data: array[int], timeout: int) -> int:
        """See IBackend."""
        return self._bulk(self._backend.bulk_write, handle, ep, intf, data, timeout)

    def bulk_read(self, handle: Any, ep: int, intf: int, buff: array[int], timeout: int) -> int:
        """See IBackend."""
        return self._bulk(self._backend.bulk_read, handle, ep, intf, buff, timeout)

    def _bulk(
        self, transfer: Callable[..., int], handle: Any, ep: int, intf: int, data: array[int], timeout: int
    ) -> int:
        trace, opened = self.trace, self._opened[id(handle)]
        begun, failed = trace.now(), None
        count = 0
        try:
            count = int(transfer(handle, ep, intf, data, timeout))
            return count
        except Exception as error:
            failed = kind_of(error)
            raise
        finally:
            content = data.tobytes()[:count] if ep & 0x80 else data.tobytes()
            trace.add(BulkTransfer(begun, trace.now() - begun, *opened, ep, len(data), content, failed))

    def _step(self, opened: _Opened, name: str, text: str, call: Callable[..., Any], *arguments: Any) -> Any:
        begun, failed = self.trace.now(), None
        try:
            return call(*arguments)
        except Exception as error:
            failed = kind_of(error)
            raise
        finally:
            self.trace.add(Step(begun, self.trace.now() - begun, opened.path, name, text, failed))

    def _add_descriptors(self, view: Any, opened: _Opened) -> None:
        """Add the descriptors that libusb read before, without which Wireshark cannot name the class's requests."""
        try:
            found = [(DEVICE << 8, device_bytes(view))]
            found += [(CONFIGURATION << 8 | n, configuration_bytes(each)) for n, each in enumerate(view)]
        except Exception:  # a device that leaves at this moment, or one without a driver on Windows
            return
        for value, raw in found:
            self.trace.add(
                Transfer(self.trace.now(), 0.0, *opened, 0x80, GET_DESCRIPTOR, value, 0, len(raw), raw, cached=True)
            )
