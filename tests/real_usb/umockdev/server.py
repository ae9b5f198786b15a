"""Serve simulated boards to the real libusb without a kernel: the simulator answers umockdev's sysfs and usbfs.

`bench` starts it on the Python that setup.sh prepares, because gi comes from apt. It reads commands from stdin, answers
each with a line of JSON, and ends when stdin does.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import struct
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import gi

gi.require_version("UMockdev", "1.0")
from gi.repository import GLib, UMockdev  # noqa: E402

from esp_dfu_ext.clock import SystemClock  # noqa: E402
from esp_dfu_ext.dfu.spec import Mode  # noqa: E402
from esp_dfu_ext.simulator import Board, serial_loader, simulate_text  # noqa: E402
from esp_dfu_ext.simulator.board import SERIAL_INTERFACES, AccessDenied, DeviceGone  # noqa: E402
from esp_dfu_ext.simulator.rom import ControlStall, ControlTimeout, TransferNak  # noqa: E402
from esp_dfu_ext.target import load_targets  # noqa: E402
from tests.kit.plain_device import PlainDevice, plain_board  # noqa: E402

HUB = "/devices/pci0000:00/0000:00:14.0/usb1"
HUB_DESCRIPTORS = bytes.fromhex(
    "12010002090001406b1d020001060302010109021900010100e0000904000001090000000705810304000c"
)
PACKET = 64  # bytes of a bulk packet at full speed
TICK = 5  # milliseconds between two updates of the boards, and for which a REAPURB waits

# linux/usbdevice_fs.h: the numbers of the ioctls of type 'U', on a 64-bit machine.
SETINTERFACE, GETDRIVER, SUBMITURB, DISCARDURB, REAPURB, REAPURBNDELAY = 4, 8, 10, 11, 12, 13
CLAIMINTERFACE, RELEASEINTERFACE, IOCTL, RESET, CLEAR_HALT, GET_CAPABILITIES, DISCONNECT_CLAIM = (
    15, 16, 18, 20, 21, 26, 27,
)  # fmt: skip
CAPABILITIES = 0x01 | 0x04 | 0x10  # zero packet, no packet size limit, reap after disconnect
URB_INTERRUPT, URB_CONTROL, URB_BULK = 1, 2, 3
DISCONNECT, CONNECT = 22, 23  # within IOCTL
DRIVER = b"cdc_acm\0"
# struct usbdevfs_urb: type, endpoint, status, buffer, buffer_length, actual_length.
URB_SIZE, STATUS_AT, BUFFER_AT, BUFFER_LENGTH_AT, ACTUAL_LENGTH_AT = 56, 4, 16, 24, 28


class BenchClock(SystemClock):
    """Collects the time that boards sleep, which delays their transfers instead of the whole server."""

    owed = 0.0

    def sleep(self, seconds: float) -> None:
        self.owed += seconds

    def settle(self) -> float:
        """Return the time at which the collected sleep ends."""
        owed, self.owed = self.owed, 0.0
        return self.monotonic() + owed


@dataclass
class Urb:
    """A submitted transfer, which can be reaped from `due` on; `endpoint` of one that waits for the board's data."""

    client: Any
    memory: Any
    due: float
    endpoint: int | None = None


class Node(UMockdev.IoctlBase):  # type: ignore[misc]
    """The usbfs node of one enumeration of a board; it answers ENODEV once the board has left."""

    def __init__(self, board: Board, clock: BenchClock, gone_errno: int, changed: Callable[[], object]) -> None:
        super().__init__()
        self.board = board
        self.address = board.address
        self._clock = clock
        self._gone_errno = gone_errno
        self._changed = changed
        self._urbs: list[Urb] = []
        self._claimed: dict[int, Any] = {}

    @property
    def present(self) -> bool:
        return self.board.present and self.board.address == self.address

    def do_handle_ioctl(self, client: Any) -> bool:
        number = client.get_request() & 0xFF
        if number in (REAPURB, REAPURBNDELAY):
            self._reap(client)
            return True
        try:
            if not self.present and number != DISCARDURB:
                raise OSError(errno.ENODEV, "")
            result = self._answer(client, number)
        except OSError as error:
            client.complete(-1, error.errno)
        else:
            client.complete(result, 0)
        return True

    def _answer(self, client: Any, number: int) -> int:
        argument = client.get_arg()
        if number == GET_CAPABILITIES:
            argument.resolve(0, 4).update(0, struct.pack("<I", CAPABILITIES))
        elif number in (CLAIMINTERFACE, DISCONNECT_CLAIM):
            self._claim(client, _first_word(argument))
        elif number == RELEASEINTERFACE:
            if self._claimed.pop(_first_word(argument), None) is None:
                raise OSError(errno.EINVAL, "not claimed")
        elif number == SETINTERFACE:
            interface, alternate = struct.unpack("<II", bytes(argument.resolve(0, 8).retrieve()))
            if interface > 2 or alternate > isinstance(self.board.rom, PlainDevice):
                raise OSError(errno.EINVAL, "no such alternate")
            self.board.control(0x01, 0x0B, alternate, b"", 0)
        elif number == SUBMITURB:
            self._submit(client, argument.resolve(0, URB_SIZE))
        elif number == DISCARDURB:
            self._discard(int.from_bytes(bytes(argument.retrieve()), "little"))
        elif number == RESET:
            self._reset()
        elif number == GETDRIVER:
            memory = argument.resolve(0, 4 + len(DRIVER))  # umockdev keeps the size of the first resolve()
            self._check_driver(int.from_bytes(bytes(memory.retrieve())[:4], "little"))
            memory.update(4, DRIVER)
        elif number == IOCTL:
            interface, code = struct.unpack("<ii", bytes(argument.resolve(0, 8).retrieve()))
            return self._change_driver(interface, code & 0xFF)
        elif number != CLEAR_HALT:
            raise OSError(errno.ENOTTY, "")
        return 0

    def _check_driver(self, interface: int) -> None:
        if interface not in SERIAL_INTERFACES or not self.board.kernel_driver:
            raise OSError(errno.ENODATA, "no kernel driver")

    def _change_driver(self, interface: int, code: int) -> int:
        """Unbind or bind the kernel's serial driver, which has both halves of the CDC interface."""
        if code == DISCONNECT:
            self._check_driver(interface)
            self.board.kernel_driver = False
        elif code == CONNECT and interface in SERIAL_INTERFACES and not set(SERIAL_INTERFACES) & set(self._claimed):
            self.board.kernel_driver = True
            return 1
        return 0

    def _claim(self, client: Any, interface: int) -> None:
        owner = self._claimed.get(interface)
        if interface in SERIAL_INTERFACES and self.board.kernel_driver:
            raise OSError(errno.EBUSY, "")
        if self.board.faults.busy or (owner not in (None, client) and owner.get_connected()):
            raise OSError(errno.EBUSY, "")
        self._claimed[interface] = client

    def _reset(self) -> None:
        try:
            self.board.reset_bus()
        except DeviceGone:
            self._changed()
            raise OSError(errno.ENODEV, "") from None

    def _submit(self, client: Any, memory: Any) -> None:
        raw = bytes(memory.retrieve())
        if raw[0] in (URB_BULK, URB_INTERRUPT):
            self._submit_to_endpoint(client, memory, raw)
            return
        if raw[0] != URB_CONTROL:
            raise OSError(errno.EINVAL, "the boards have no isochronous endpoints")
        buffer = memory.resolve(BUFFER_AT, struct.unpack_from("<i", raw, BUFFER_LENGTH_AT)[0])
        sent = bytes(buffer.retrieve())
        kind, request, value, _, length = struct.unpack_from("<BBHHH", sent)
        status, answer, hangs = 0, b"", False
        try:
            answer = self.board.control(kind, request, value, b"" if kind & 0x80 else sent[8 : 8 + length], length)
        except ControlStall:
            status = -errno.EPIPE
        except ControlTimeout:
            hangs = True
        except DeviceGone:
            status = -self._gone_errno
            self._changed()
        if kind & 0x80 and answer:
            buffer.update(8, answer)
        done = 0 if status else len(answer) if kind & 0x80 else length
        memory.update(STATUS_AT, struct.pack("<i", status))
        memory.update(ACTUAL_LENGTH_AT, struct.pack("<i", done))
        due = self._clock.settle()
        self._urbs.append(Urb(client, memory, math.inf if hangs else due))
        if not status and not self.present:
            self._changed()  # a line state that resets the chip

    def _submit_to_endpoint(self, client: Any, memory: Any, raw: bytes) -> None:
        """Start a transfer to an endpoint; one that the board does not take, or has no data for, waits."""
        endpoint, length = raw[1], struct.unpack_from("<i", raw, BUFFER_LENGTH_AT)[0]
        urb = Urb(client, memory, math.inf, endpoint if endpoint & 0x80 else None)
        self._urbs.append(urb)
        if endpoint & 0x80:
            self._send_packets()
            return
        data = bytes(memory.resolve(BUFFER_AT, length).retrieve())
        try:
            for start in range(0, length, PACKET):
                self.board.bulk_out(endpoint, data[start : start + PACKET])
        except TransferNak:
            return
        except DeviceGone:
            length = 0
        self._finish(urb, length)
        self._send_packets()

    def _finish(self, urb: Urb, length: int) -> None:
        """End a transfer; with an error if the board has left the bus."""
        status = 0 if self.present or length else -self._gone_errno
        urb.memory.update(STATUS_AT, struct.pack("<i", status))
        urb.memory.update(ACTUAL_LENGTH_AT, struct.pack("<i", length))
        urb.due, urb.endpoint = self._clock.settle(), None
        if not self.present:
            self._changed()

    def _send_packets(self) -> None:
        """Answer the transfers that wait for data, as far as there is some; each packet ends one."""
        for urb in self._urbs:
            if urb.endpoint is None:
                continue
            try:
                packet = self.board.bulk_in(urb.endpoint)
            except TransferNak:
                continue
            except DeviceGone:
                packet = b""
            if packet:
                urb.memory.resolve(BUFFER_AT, len(packet)).update(0, packet)
            self._finish(urb, len(packet))

    def _discard(self, address: int) -> None:
        for urb in self._urbs:
            if urb.memory.client_addr == address:
                urb.memory.update(STATUS_AT, struct.pack("<i", -errno.ENOENT))
                urb.due, urb.endpoint = 0.0, None
                return
        raise OSError(errno.EINVAL, "")

    def _reap(self, client: Any, *, patient: bool = True) -> bool:
        """Return a finished transfer. There is no poll() to wait with, so let the program wait here for a moment."""
        self._urbs = [urb for urb in self._urbs if urb.client.get_connected()]
        mine = [urb for urb in self._urbs if urb.client is client]
        done = next((urb for urb in mine if urb.due <= self._clock.monotonic()), None)
        if done is not None:
            self._urbs.remove(done)
            client.get_arg().resolve(0, 8).set_ptr(0, done.memory)
            client.complete(0, 0)
        elif mine and patient:
            wait = min(urb.due for urb in mine) - self._clock.monotonic()
            milliseconds = math.ceil(min(TICK, max(1, wait * 1000)))
            GLib.timeout_add(milliseconds, lambda: self._reap(client, patient=False))
        elif client.get_connected():
            client.complete(-1, errno.EAGAIN if self.present or mine else errno.ENODEV)
        return bool(GLib.SOURCE_REMOVE)


def _first_word(argument: Any) -> int:
    return int.from_bytes(bytes(argument.resolve(0, 4).retrieve()), "little")


def _make_boards(text: str, clock: BenchClock) -> list[Board]:
    """Return boards as ESP_DFU_SIMULATE takes them, or ``plain``, ``plain+dfu`` and ``dfuse+dfu`` of tests/kit."""
    boards: list[Board] = []
    for number, item in enumerate(text.split(","), 1):
        name, *options = item.split("+")
        if name in ("plain", "dfuse"):
            mode = Mode.DFU if "dfu" in options else Mode.RUN_TIME
            boards.append(plain_board(f"1-{number}", clock, mode, bcd_dfu=0x011A if name == "dfuse" else 0x0110))
        else:
            # Its port and serial number follow from its place in the list.
            filler = [load_targets()[0].name] * (number - 1)
            boards.append(simulate_text(",".join([*filler, item]), load_targets(), clock).boards[-1])
    addresses = [1]
    for board in boards:
        board.share_addresses(addresses)
    return boards


class Server:
    """The testbed with its boards."""

    def __init__(self, boards: str, gone_errno: int) -> None:
        self._clock = BenchClock()
        self._gone_errno = gone_errno
        self._boards = {b.path: b for b in _make_boards(boards, self._clock)}
        self._testbed = UMockdev.Testbed.new()
        self._nodes: dict[str, Node] = {}
        self._left: list[Node] = []  # nodes that programs may still have open
        self._add(HUB, 1, "0", HUB_DESCRIPTORS)
        self.update()

    @property
    def root(self) -> str:
        return str(self._testbed.get_root_dir())

    def update(self) -> bool:
        """Update sysfs to match the boards."""
        for path, board in self._boards.items():
            board.update()
            node = self._nodes.get(path)
            if node is not None and not node.present:
                self._remove(path)
                node = None
            if node is None and board.present:
                self._appear(path, board)
            if board.present:
                self._set_access(board)
        return bool(GLib.SOURCE_CONTINUE)

    def _update_soon(self) -> None:
        # umockdev answers ioctls in a thread of its own; two threads that change one sysfs folder stop the server.
        GLib.idle_add(lambda: self.update() and bool(GLib.SOURCE_REMOVE))

    def _appear(self, path: str, board: Board) -> None:
        node = self._nodes[path] = Node(board, self._clock, self._gone_errno, self._update_soon)
        descriptors = board.device.device_descriptor + board.device.configuration_descriptor
        # First the node: a program may open it as soon as it sees the board in sysfs.
        self._testbed.attach_ioctl(_devnode(board.address), node)
        self._add(f"{HUB}/{path}", board.address, path.partition("-")[2], descriptors)

    def _add(self, syspath: str, address: int, port: str, descriptors: bytes) -> None:
        vid, pid, version = struct.unpack_from("<HHH", descriptors, 8)
        devnode = _devnode(address)
        self._testbed.add_from_string(
            f"P: {syspath}\n"
            f"N: {devnode[5:]}={descriptors.hex().upper()}\n"
            f"E: DEVTYPE=usb_device\nE: SUBSYSTEM=usb\nE: DEVNAME={devnode}\nE: BUSNUM=001\nE: DEVNUM={address:03}\n"
            f"A: busnum=1\\n\nA: devnum={address}\\n\nA: devpath={port}\\n\nA: speed=12\\n\n"
            f"A: bConfigurationValue=1\\n\nA: bNumConfigurations=1\\n\nA: idVendor={vid:04x}\\n\n"
            f"A: idProduct={pid:04x}\\n\nA: bcdDevice={version:04x}\\n\nH: descriptors={descriptors.hex().upper()}\n"
        )

    def _remove(self, path: str) -> None:
        node = self._nodes.pop(path)
        self._left.append(node)
        syspath = f"/sys{HUB}/{path}"
        self._testbed.uevent(syspath, "remove")
        self._testbed.detach_ioctl(_devnode(node.address))
        self._testbed.remove_device(syspath)

    def _set_access(self, board: Board) -> None:
        try:
            board.check_access()
            mode = 0o666
        except AccessDenied:
            mode = 0
        node = Path(self.root + _devnode(board.address))
        before = node.stat().st_mode & 0o7777
        if before & 0o777 != mode:
            node.chmod(before & ~0o777 | mode)

    def command(self, line: str) -> Any:
        """Carry out `read PATH ADDRESS SIZE`, `memory PATH N`, `fill PATH`,
        `plug PATH MODE`, `unplug PATH`, `state`."""
        word, *rest = line.split()
        if word == "state":
            return {p: [b.present, b.address, str(b.rom.mode), str(b.rom.state)] for p, b in self._boards.items()}
        board = self._boards[rest[0]]
        if word == "read":
            return board.rom.flash.read(int(rest[1]), int(rest[2])).hex()
        if word == "memory":
            assert isinstance(board.rom, PlainDevice)
            return board.rom.memories[int(rest[1])].hex()
        if word == "plug":
            board.plug(Mode[rest[1]])
        elif word == "unplug":
            board.unplug()
        elif word == "fill":
            _fill(board)
        else:
            raise ValueError(line)
        self.update()
        return True


def _fill(board: Board) -> None:
    """Write another number into each word of the first 4 MiB of flash memory; put bytes into a plain device."""
    if isinstance(board.rom, PlainDevice):
        board.rom.memories = [bytes(range(256)) * 20, b"external"]
        return
    for address in range(0, 4 << 20, 4096):
        page = struct.pack("<1024I", *range(address // 4, address // 4 + 1024))
        board.rom.flash.erase(address, 4096)
        board.rom.flash.program(address, page)


def _devnode(address: int) -> str:
    return f"/dev/bus/usb/001/{address:03}"


def _end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """End the process: GLib would continue after an exception, and the tested programs would wait forever."""
    traceback.print_exception(kind, error, trace)
    sys.stderr.flush()
    os._exit(1)


def main() -> None:
    sys.excepthook = _end
    serial_loader.GIVE_UP_TIME = 10.0  # a program on a busy machine may come too late for the ROM's 100 ms
    server = Server(sys.argv[1], int(sys.argv[2]))
    loop = GLib.MainLoop()

    def say(answer: Any) -> None:
        print(json.dumps(answer), flush=True)

    def on_input(_fd: int, _condition: Any) -> bool:
        line = sys.stdin.readline()
        if not line:
            loop.quit()
            return bool(GLib.SOURCE_REMOVE)
        say(server.command(line))
        return bool(GLib.SOURCE_CONTINUE)

    GLib.timeout_add(TICK, server.update)
    GLib.unix_fd_add_full(GLib.PRIORITY_DEFAULT, 0, GLib.IOCondition.IN | GLib.IOCondition.HUP, on_input)
    say({"root": server.root})
    loop.run()
    shutil.rmtree(server.root)


if __name__ == "__main__":
    main()
