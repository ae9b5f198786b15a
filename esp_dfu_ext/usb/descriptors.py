"""Descriptors that pyusb has read: interfaces as data, the port's path, and the bytes they came as."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

DEVICE, CONFIGURATION, STRING = 1, 2, 3  # bDescriptorType, USB 2.0 table 9-5


_BULK = 2  # bmAttributes, transfer type; USB 2.0 table 9-13


class BulkEndpoint(NamedTuple):
    """A bulk end point: bEndpointAddress, and wMaxPacketSize in bytes."""

    address: int
    max_packet: int

    @property
    def is_in(self) -> bool:
        """True if it goes to the host."""
        return bool(self.address & 0x80)


@dataclass(frozen=True)
class InterfaceDescriptor:
    """One alternate setting of an interface.

    Attributes:
        extra: The class-specific descriptors that follow it.
        bulk: Its bulk end points.
    """

    configuration: int
    number: int
    alternate: int
    class_: int
    subclass: int
    protocol: int
    name_index: int
    extra: bytes = b""
    bulk: tuple[BulkEndpoint, ...] = ()


def interfaces(device: Any) -> Iterator[InterfaceDescriptor]:
    """Yield every alternate setting of every interface of a pyusb device; raises pyusb's errors."""
    for configuration in device:
        for interface in configuration:
            yield InterfaceDescriptor(
                configuration.bConfigurationValue,
                interface.bInterfaceNumber,
                interface.bAlternateSetting,
                interface.bInterfaceClass,
                interface.bInterfaceSubClass,
                interface.bInterfaceProtocol,
                interface.iInterface,
                bytes(interface.extra_descriptors),
                tuple(
                    BulkEndpoint(each.bEndpointAddress, each.wMaxPacketSize)
                    for each in interface
                    if each.bmAttributes & 3 == _BULK
                ),
            )


def port_path(device: Any) -> str:
    """Return ``bus-port.port`` of a pyusb device; port 0 is the root hub itself."""
    ports = device.port_numbers or ()
    return f"{device.bus}-{'.'.join(map(str, ports))}" if ports else f"{device.bus}-0"


def is_port_path(text: str) -> bool:
    """Tell whether a text has the form of `port_path`."""
    return re.fullmatch(r"[0-9]+-[0-9]+(\.[0-9]+)*", text) is not None


def path_key(path: str) -> list[int]:
    """Return a sort key that puts ``1-2`` before ``1-10``."""
    return [int(number) if number.isdigit() else -1 for number in path.replace("-", ".").split(".")]


# USB 2.0, tables 9-8, 9-10, 9-12 and 9-13, as struct formats and pyusb's attribute names.
_DEVICE = (
    "<BBHBBBBHHHBBBB",
    "bLength bDescriptorType bcdUSB bDeviceClass bDeviceSubClass bDeviceProtocol bMaxPacketSize0 idVendor idProduct "
    "bcdDevice iManufacturer iProduct iSerialNumber bNumConfigurations",
)
_CONFIGURATION = (
    "<BBHBBBBB",
    "bLength bDescriptorType wTotalLength bNumInterfaces bConfigurationValue iConfiguration bmAttributes bMaxPower",
)
_INTERFACE = (
    "<BBBBBBBBB",
    "bLength bDescriptorType bInterfaceNumber bAlternateSetting bNumEndpoints bInterfaceClass bInterfaceSubClass "
    "bInterfaceProtocol iInterface",
)
_ENDPOINT = ("<BBBBHB", "bLength bDescriptorType bEndpointAddress bmAttributes wMaxPacketSize bInterval")


def device_bytes(device: Any) -> bytes:
    """Return the 18 bytes of the device descriptor."""
    return _packed(_DEVICE, device)


def configuration_bytes(configuration: Any) -> bytes:
    """Return a configuration descriptor with everything that follows it, as GET_DESCRIPTOR would."""
    parts = [_packed(_CONFIGURATION, configuration), bytes(configuration.extra_descriptors)]
    for interface in configuration:
        parts += [_packed(_INTERFACE, interface), bytes(interface.extra_descriptors)]
        for endpoint in interface:
            body = _packed(_ENDPOINT, endpoint)
            if endpoint.bLength == 9:  # USB audio has two more fields
                body += bytes([endpoint.bRefresh, endpoint.bSynchAddress])
            parts += [body, bytes(endpoint.extra_descriptors)]
    return b"".join(parts)


def _packed(layout: tuple[str, str], descriptor: Any) -> bytes:
    packing, names = layout
    return struct.pack(packing, *(getattr(descriptor, name) for name in names.split()))
