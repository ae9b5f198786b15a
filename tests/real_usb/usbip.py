"""Simulated devices on the real Linux USB stack: a USB/IP server that vhci_hcd presents as a bus.

The messages follow the kernel's Documentation/usb/usbip_protocol.rst. Needs root and a kernel with vhci_hcd.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from esp_dfu_ext.dfu.spec import Mode
from esp_dfu_ext.simulator.apps import App
from esp_dfu_ext.simulator.board import Board, DeviceGone
from esp_dfu_ext.simulator.bridge import BULK_IN, Bridge
from esp_dfu_ext.simulator.rom import ControlStall, ControlTimeout, TransferNak

_ATTACH = Path("/sys/devices/platform/vhci_hcd.0/attach")
_DETACH = Path("/sys/devices/platform/vhci_hcd.0/detach")
_VHCI = Path("/sys/devices/platform/vhci_hcd.0")
# VHCI_PORTS of drivers/usb/usbip/vhci.h: each controller has 8 ports (vm/kernel.config) for high speed and as many for
# SuperSpeed; on both of its root hubs they are 1 to 8, and the next controller's are two buses further.
_PORTS_OF_CONTROLLER = 16
_DEVICES = Path("/sys/bus/usb/devices")
_PORT_FREE = "004"  # VDEV_ST_NULL
_FULL_SPEED = 2  # enum usb_device_speed

_SUBMIT, _UNLINK, _ANSWER, _UNLINKED = 1, 2, 3, 4
_HEADER = struct.Struct(">5I28s")  # command, seqnum, devid, direction, endpoint; what the command needs
_SUBMIT_REST = struct.Struct(">Iiiii8s")  # flags, length, start frame, packets, interval, setup
_ANSWER_REST = struct.Struct(">iiiii8x")  # status, length, start frame, packets, errors
_SETUP = struct.Struct("<BBHHH")

_GET_DESCRIPTOR, _SET_CONFIGURATION, _SET_INTERFACE = 0x06, 0x09, 0x0B
_TO_HOST, _PACKET = 0x80, 64  # bit of an endpoint's address; size of a bulk packet at full speed
_FIRST_READ = 64  # GET_DESCRIPTOR_BUFSIZE of drivers/usb/core/hub.c: asked only after a bus reset

FOLLOW_INTERVAL = 0.01  # seconds between two checks for boards that connected or left
DEADLINE = 10.0


class Device(Protocol):
    """A device that answers control requests, or raises the simulator's exceptions."""

    def control(self, request_type: int, request: int, value: int, data: bytes, length: int) -> bytes:
        """Carry out a control transfer; see Board.control."""


@dataclass
class Described:
    """A device made of two descriptors; all other requests go to `answer`, which by default stalls them."""

    device_descriptor: bytes
    configuration_descriptor: bytes
    answer: Callable[[int, int, int, bytes, int], bytes] | None = None

    def control(self, request_type: int, request: int, value: int, data: bytes, length: int) -> bytes:
        """See Device."""
        if request_type & 0x60 == 0:
            if request == _GET_DESCRIPTOR and value >> 8 in (1, 2):
                descriptor = self.device_descriptor if value >> 8 == 1 else self.configuration_descriptor
                return descriptor[:length]
            if request in (_SET_CONFIGURATION, _SET_INTERFACE):
                return b""
        if self.answer is None:
            raise ControlStall
        return self.answer(request_type, request, value, data, length)


def wait_until(done: Callable[[], bool], what: str, deadline: float = DEADLINE) -> None:
    """Poll until `done`; raise TimeoutError after `deadline` seconds."""
    end = time.monotonic() + deadline
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {deadline:g} s: {what}")
        time.sleep(FOLLOW_INTERVAL)


def device_number(path: str) -> int | None:
    """Return the device number on a port; None without a configured device."""
    try:
        if not (_DEVICES / path / "bConfigurationValue").read_text().strip():
            return None
        return int((_DEVICES / path / "devnum").read_text())
    except (OSError, ValueError):
        return None


def attach(kernels: socket.socket, port: int) -> None:
    """Pass the kernel's end of a connection to vhci_hcd; the other end becomes the device on this port."""
    with kernels:
        _ATTACH.write_text(f"{port} {kernels.fileno()} {port + 1} {_FULL_SPEED}")


def detach(port: int) -> None:
    """Detach the device of a port, and wait until the port is free."""
    with contextlib.suppress(OSError):  # it may be detached already
        _DETACH.write_text(str(port))
    wait_until(lambda: _port_state(port) == _PORT_FREE, f"port {port} is free")


class _Connection:
    """One attachment of a device, from enumeration to its end; vhci_hcd has the other end of the socket."""

    def __init__(self, device: Device, lock: threading.Lock, end: socket.socket, transfer_time: float) -> None:
        self._transfer_time = transfer_time
        self._device = device
        self._lock = lock
        self._waiting: set[int] = set()  # seqnums without an answer
        self._reads: list[tuple[int, int]] = []  # seqnum and endpoint of transfers that wait for data
        self._configured = False
        self._socket = end
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """True if the device or the kernel has closed the connection."""
        return not self._thread.is_alive()

    def close(self) -> None:
        """Detach the device."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(DEADLINE)

    def _serve(self) -> None:
        # The device or the kernel ends the connection; neither is an error.
        with self._socket, self._socket.makefile("rb") as reader, contextlib.suppress(DeviceGone, OSError):
            while header := reader.read(_HEADER.size):
                command, seqnum, _, to_host, endpoint, rest = _HEADER.unpack(header)
                if command == _UNLINK:
                    self._unlink(seqnum, int.from_bytes(rest[:4], "big"))
                    continue
                _, length, _, _, _, setup = _SUBMIT_REST.unpack(rest)
                data = b"" if to_host else reader.read(length)
                self._waiting.add(seqnum)
                if endpoint == 0:
                    self._control(seqnum, setup, data)
                elif to_host:
                    self._reads.append((seqnum, endpoint | _TO_HOST))
                    self._send_packets()
                else:
                    self._bulk_out(seqnum, endpoint, data)

    def _control(self, seqnum: int, setup: bytes, data: bytes) -> None:
        request_type, request, value, _, length = _SETUP.unpack(setup)
        if self._transfer_time:
            time.sleep(self._transfer_time)
        with self._lock:
            try:
                self._notice_reset(request_type, request, value, length)
            except DeviceGone:
                # Without an answer the kernel would wait five seconds; a real bus fails at once.
                self._answer(seqnum, -errno.EPROTO, 0, b"")
                raise
            try:
                answer = self._device.control(request_type, request, value, data, length)
            except ControlStall:
                self._answer(seqnum, -errno.EPIPE, 0, b"")
            except ControlTimeout:
                pass
            else:
                self._answer(seqnum, 0, len(answer) if request_type & 0x80 else len(data), answer)

    def _bulk_out(self, seqnum: int, endpoint: int, data: bytes) -> None:
        """Pass a transfer on packet by packet; a device that does not take it lets the host wait."""
        if isinstance(self._device, Bridge):
            with self._lock:
                self._device.write(data)
                self._answer(seqnum, 0, len(data), b"")
        if not isinstance(self._device, Board):
            return
        with self._lock, contextlib.suppress(TransferNak):
            for start in range(0, len(data), _PACKET):
                self._device.bulk_out(endpoint, data[start : start + _PACKET])
            self._answer(seqnum, 0, len(data), b"")
        self._send_packets()

    def pass_uart_on(self) -> None:
        """Send what the chip has printed on the UART of a bridge; it does that when nobody has just asked."""
        if isinstance(self._device, Bridge) and self._device.board.uart:
            self._send_packets()

    def _send_packets(self) -> None:
        """Answer the transfers that wait for data, as far as there is some; each packet ends one."""
        if not isinstance(self._device, (Board, Bridge)):
            return
        for seqnum, endpoint in self._reads[:]:
            with self._lock, contextlib.suppress(TransferNak, OSError):
                packet = self._packet(self._device, endpoint)
                self._reads.remove((seqnum, endpoint))
                self._answer(seqnum, 0, len(packet), packet)

    @staticmethod
    def _packet(device: Board | Bridge, endpoint: int) -> bytes:
        if isinstance(device, Board):
            return device.bulk_in(endpoint)
        if endpoint != BULK_IN or not device.board.uart:
            raise TransferNak
        packet = bytes(device.board.uart[:_PACKET])
        del device.board.uart[:_PACKET]
        return packet

    def _notice_reset(self, request_type: int, request: int, value: int, length: int) -> None:
        """Detect a bus reset, for which USB/IP has no message, by how the kernel then reads the descriptor."""
        if (request_type, request) == (0x00, _SET_CONFIGURATION):
            self._configured = True
        first_read = (request_type, request, value, length) == (0x80, _GET_DESCRIPTOR, 0x0100, _FIRST_READ)
        if first_read and self._configured:
            self._configured = False
            if isinstance(self._device, Board):
                self._device.reset_bus()

    def _answer(self, seqnum: int, status: int, length: int, data: bytes) -> None:
        self._waiting.discard(seqnum)
        rest = _ANSWER_REST.pack(status, length, 0, 0, 0)
        self._socket.sendall(_HEADER.pack(_ANSWER, seqnum, 0, 0, 0, rest) + data)

    def _unlink(self, seqnum: int, unlinked: int) -> None:
        status = -errno.ECONNRESET if unlinked in self._waiting else 0
        self._waiting.discard(unlinked)
        self._reads = [read for read in self._reads if read[0] != unlinked]
        self._socket.sendall(_HEADER.pack(_UNLINKED, seqnum, 0, 0, 0, struct.pack(">i24x", status)))


def _port_state(port: int) -> str:
    files = [file.read_text().splitlines() for file in _VHCI.glob("status*")]  # one for each controller
    rows = [line.split() for lines in files for line in lines if not line.startswith("hub")]
    return next(row[2] for row in rows if int(row[1]) == port)


@dataclass
class _Slot:
    """A device and its port; `seen` is the address for which the connection was made."""

    device: Device
    port: int
    transfer_time: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)
    connection: _Connection | None = None
    seen: int = 0

    def follow(self) -> None:
        """Attach and detach a board as it connects and leaves; other devices are always attached."""
        address = 1
        if isinstance(self.device, Board):
            with self.lock:
                self.device.update()
                address = self.device.address if self.device.present else 0
        if self.connection is not None and address != self.seen:
            self.close()
        if self.connection is None and address:
            end, kernels = socket.socketpair()
            attach(kernels, self.port)
            self.connection = _Connection(self.device, self.lock, end, self.transfer_time)
            self.seen = address
        if self.connection is not None:
            self.connection.pass_uart_on()

    def close(self) -> None:
        """Detach the device, and wait until the port is free."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None
            wait_until(lambda: _port_state(self.port) == _PORT_FREE, f"port {self.port} is free")


class Hub:
    """The ports of vhci_hcd, ``1-1`` to ``1-8`` and ``3-1`` to ``3-8``; a context manager that unplugs all devices.

    Args:
        transfer_time: Seconds that the bus takes for a control transfer, in addition to the device's own time.
    """

    def __init__(self, transfer_time: float = 0.0) -> None:
        self._transfer_time = transfer_time
        self._slots: dict[str, _Slot] = {}
        self._stop = threading.Event()
        self._changing = threading.Lock()
        self._follower = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Hub:
        self._follower.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._follower.join(DEADLINE)
        for path in list(self._slots):
            self.remove(path)

    def add(self, device: Device, path: str) -> None:
        """Connect a device to a port and, if it is present, wait until Linux has configured it."""
        bus, _, number = path.partition("-")
        port = int(bus) // 2 * _PORTS_OF_CONTROLLER + int(number) - 1
        with self._changing:
            slot = self._slots[path] = _Slot(device, port, self._transfer_time)
            if isinstance(device, Bridge):
                slot.lock = self._slots[device.board.path].lock  # it moves the board's pins
        if not isinstance(device, Board) or device.present:
            self.wait_for(path)

    def remove(self, path: str) -> None:
        """Remove the device of a port."""
        with self._changing:
            self._slots.pop(path).close()
        wait_until(lambda: not (_DEVICES / path).exists(), f"{path} is gone")

    def plug(self, board: Board, mode: Mode = Mode.RUN_TIME) -> None:
        """Plug a board in, and wait until Linux has configured it."""
        self.unplug(board)
        with self._held(board):
            board.plug(mode)
        self.wait_for(board.path)

    def start_app(self, board: Board, app: App) -> None:
        """Start an app on a board, and wait until Linux has configured it."""
        self.unplug(board)
        with self._held(board):
            board.start_app(app)
        self.wait_for(board.path)

    def unplug(self, board: Board) -> None:
        """Unplug a board, and wait until Linux has noticed."""
        with self._held(board):
            board.unplug()
        wait_until(lambda: device_number(board.path) is None, f"{board.path} is gone")

    def wait_for(self, path: str) -> int:
        """Wait for a device; return its device number."""
        seen: list[int] = []

        def look() -> bool:
            number = device_number(path)
            if number is not None:
                seen.append(number)  # kept: the device may leave at once
            return bool(seen)

        wait_until(look, f"{path} is set up")
        return seen[0]

    @contextlib.contextmanager
    def _held(self, board: Board) -> Iterator[None]:
        with self._slots[board.path].lock:
            yield

    def _follow(self) -> None:
        while not self._stop.wait(FOLLOW_INTERVAL):
            with self._changing:
                slots = list(self._slots.values())
                for slot in slots:
                    slot.follow()


_OP = struct.Struct(">HHI")  # version, code, status
_DEVICE = struct.Struct(">256s32s3I3H6B")
_REQUEST_LIST, _REPLY_LIST, _REQUEST_IMPORT, _REPLY_IMPORT = 0x8005, 0x0005, 0x8003, 0x0003
_OK, _NOT_AVAILABLE, _BUSY = 0, 1, 2
_VERSION = 0x0111
_BUS_ID_SIZE = 32


class Server:
    """A machine that shares one board with `usbip attach` of another machine; a context manager.

    Like a real one, it ends the connection when the board leaves, and offers the board again when it returns.

    Args:
        transfer_time: Round-trip time of a control transfer in seconds.
    """

    def __init__(self, board: Board, bus_id: str, transfer_time: float = 0.0) -> None:
        self._board = board
        self._bus_id = bus_id.encode()
        self._transfer_time = transfer_time
        self._lock = threading.Lock()
        self._connection: _Connection | None = None
        self._listening = socket.create_server(("127.0.0.1", 3240))
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self.imports = 0

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(DEADLINE)
        if self._connection is not None:
            self._connection.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client = self._listening.accept()[0]
                # As usbip does: a short message must not wait for the next one.
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with contextlib.suppress(OSError, struct.error):
                    self._answer(client)

    def _answer(self, client: socket.socket) -> None:
        _, code, _ = _OP.unpack(client.recv(_OP.size, socket.MSG_WAITALL))
        with self._lock:
            self._board.update()
            here = self._board.present
        if code == _REQUEST_LIST:
            with client:
                devices = [self._description() + bytes(4) * self._interfaces()] if here else []
                client.sendall(
                    _OP.pack(_VERSION, _REPLY_LIST, _OK) + struct.pack(">I", len(devices)) + b"".join(devices)
                )
            return
        wanted = client.recv(_BUS_ID_SIZE, socket.MSG_WAITALL).rstrip(b"\0")
        taken = self._connection is not None and not self._connection.ended
        if code != _REQUEST_IMPORT or wanted != self._bus_id or not here or taken:
            with client:
                client.sendall(_OP.pack(_VERSION, _REPLY_IMPORT, _BUSY if taken else _NOT_AVAILABLE))
            return
        client.sendall(_OP.pack(_VERSION, _REPLY_IMPORT, _OK) + self._description())
        self._connection = _Connection(self._board, self._lock, client, self._transfer_time)
        self.imports += 1

    def _description(self) -> bytes:
        """Return struct usbip_usb_device, made from the board's descriptors."""
        device = self._descriptor(1, 18)
        configuration = self._descriptor(2, 9)
        vid, pid, bcd_device = struct.unpack_from("<HHH", device, 8)
        numbers = (
            1,
            1,
            _FULL_SPEED,
            vid,
            pid,
            bcd_device,
            *device[4:7],
            configuration[5],
            device[17],
            configuration[4],
        )
        return _DEVICE.pack(b"/sys/devices/" + self._bus_id, self._bus_id, *numbers)

    def _interfaces(self) -> int:
        return self._descriptor(2, 9)[4]

    def _descriptor(self, kind: int, length: int) -> bytes:
        with self._lock:
            return self._board.control(0x80, _GET_DESCRIPTOR, kind << 8, b"", length)
