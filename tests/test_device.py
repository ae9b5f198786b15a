"""The seven requests, as they go over."""

from __future__ import annotations

import pytest

from esp_dfu_ext.dfu.device import DfuDevice
from esp_dfu_ext.dfu.spec import Mode, Request
from esp_dfu_ext.errors import DeviceGoneError, DfuError, StallError, TransferTimeoutError, UsbError
from esp_dfu_ext.simulator.board import Effect, hang, stall
from esp_dfu_ext.usb.handle import UsbHandle

from .kit.archives import FILES, archive
from .kit.boards import Transfer, make_rig, open_board
from .kit.host import DNLOAD, ERROR, IDLE, UPLOAD


class FakeHandle(UsbHandle):
    """Answers with what it was given, and remembers the requests."""

    def __init__(self, answer: bytes = b"") -> None:
        super().__init__(None, 2, "1-1")
        self.answer = answer
        self._sent: list[tuple[object, ...]] = []

    def sent(self) -> tuple[object, ...]:
        """The last request."""
        return self._sent[-1]

    def control_out(self, request_type: int, request: int, value: int, data: bytes, timeout: float) -> int:
        self._sent.append((request_type, request, value, data, timeout))
        return len(data)

    def control_in(self, request_type: int, request: int, value: int, length: int, timeout: float) -> bytes:
        self._sent.append((request_type, request, value, length, timeout))
        return self.answer

    def reset(self) -> None:
        self._sent.append(("reset",))


def test_requests_are_exact() -> None:
    handle = FakeHandle(b"\x02")
    device = DfuDevice(handle, timeout=3.0)
    device.detach(700)
    assert handle.sent() == (0x21, 0, 700, b"", 3.0)
    device.download(5, b"abc", 30.0)
    assert handle.sent() == (0x21, 1, 5, b"abc", 30.0)
    device.download(6, memoryview(b"xyz"))
    assert handle.sent() == (0x21, 1, 6, b"xyz", 3.0)
    device.upload(7, 64)
    assert handle.sent() == (0xA1, 2, 7, 64, 3.0)
    device.clear_status()
    assert handle.sent() == (0x21, 4, 0, b"", 3.0)
    device.abort()
    assert handle.sent() == (0x21, 6, 0, b"", 3.0)
    handle.answer = bytes.fromhex("0e 000100 0a 00")
    assert device.get_status() == (14, 0.256, 10)
    assert handle.sent() == (0xA1, 3, 0, 6, 3.0)
    device.reset_bus()
    assert handle.sent() == ("reset",)


@pytest.mark.parametrize(("block", "value"), [(65535, 65535), (65536, 0), (65537, 1), (131072 + 9, 9)])
def test_block_number_wraps_after_16_bits(block: int, value: int) -> None:
    handle = FakeHandle()
    DfuDevice(handle).download(block, b"x")
    assert handle.sent()[2] == value
    DfuDevice(handle).upload(block, 64)
    assert handle.sent()[2] == value


@pytest.mark.parametrize("answer", [b"", b"\0" * 5, b"\0" * 7])
def test_malformed_status_is_dfu_error(answer: bytes) -> None:
    with pytest.raises(DfuError, match=rf"DFU_GETSTATUS.*{len(answer)} bytes"):
        DfuDevice(FakeHandle(answer)).get_status()


def test_requests_reach_rom_through_pyusb() -> None:
    rig = make_rig(mode=Mode.DFU)
    device = open_board(rig)
    assert device.get_status() == (0, 0.256, IDLE)
    stream = archive(FILES, 1 << 20)
    for block, position in enumerate(range(0, len(stream), 64)):
        device.download(block, stream[position : position + 64])
    device.download(99, b"")
    assert device.get_status().state == IDLE
    assert device.upload(0, 64) == b"\xff" * 64
    device.abort()
    assert rig.board.rom.state == IDLE
    sent = rig.dfu(DNLOAD)
    assert b"".join(t.data for t in sent) == stream
    assert {t.index for t in sent + rig.dfu(UPLOAD)} == {2}  # wIndex: the DFU interface
    for file in FILES:
        assert rig.board.rom.flash.read(file.address, len(file.data)) == file.data


def test_refused_request_is_stall() -> None:
    rig = make_rig(mode=Mode.DFU)
    device = open_board(rig)
    device.download(0, b"x")
    with pytest.raises(StallError, match=r"1-1.*[a-z] \(DFU_UPLOAD\)\.$"):
        device.upload(0, 64)
    assert rig.board.rom.state == ERROR
    device.clear_status()
    assert rig.board.rom.state == IDLE


@pytest.mark.parametrize(("fault", "kind"), [(stall, StallError), (hang, TransferTimeoutError)])
@pytest.mark.parametrize("request_", [Request.DFU_GETSTATUS, Request.DFU_UPLOAD, Request.DFU_ABORT])
def test_failed_request_is_named(fault: Effect, kind: type[UsbError], request_: Request) -> None:
    rig = make_rig(mode=Mode.DFU)
    device = open_board(rig)
    rig.board.faults.plan(fault, at=request_)
    calls = {Request.DFU_GETSTATUS: device.get_status, Request.DFU_UPLOAD: lambda: device.upload(0, 64)}
    with pytest.raises(kind, match=rf"1-1.*[a-z] \({request_.name}\)\.$"):
        calls.get(request_, device.abort)()


def test_requested_timeout_is_used() -> None:
    rig = make_rig(mode=Mode.DFU, start=0)
    device = open_board(rig)
    rig.board.faults.plan(hang)
    with pytest.raises(TransferTimeoutError, match="1-1"):
        device.download(0, b"x", 7.5)
    assert rig.clock.monotonic() == pytest.approx(7.5)


def test_unplugged_board_is_gone() -> None:
    rig = make_rig(mode=Mode.DFU)
    device = open_board(rig)
    rig.board.unplug()
    with pytest.raises(DeviceGoneError, match="1-1"):
        device.get_status()
    rig.board.plug(Mode.DFU)
    with pytest.raises(DeviceGoneError):  # a new device with a new address
        device.get_status()


def test_default_timeout_is_five_seconds() -> None:
    rig = make_rig(mode=Mode.DFU)
    open_board(rig).get_status()
    last: Transfer = rig.log[-1]
    assert (last.request_type, last.request, last.timeout) == (0xA1, 3, 5.0)
