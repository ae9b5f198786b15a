"""Bringing the ROM, and other devices, back to dfuIDLE after a failure."""

from __future__ import annotations

import errno

import pytest
import usb.core

from esp_dfu_ext.clock import VirtualClock
from esp_dfu_ext.dfu.device import DfuDevice
from esp_dfu_ext.dfu.recovery import back_to_idle, recover
from esp_dfu_ext.dfu.spec import Mode
from esp_dfu_ext.errors import DfuError, StallError

from .kit.archives import FILES, MIB, archive
from .kit.boards import Rig, Transfer, make_rig, open_board
from .kit.host import (
    ABORT,
    APP_DETACH,
    CLRSTATUS,
    DNBUSY,
    DNLOAD_IDLE,
    DNLOAD_SYNC,
    ERROR,
    IDLE,
    MANIFEST,
    MANIFEST_SYNC,
    OK,
    UPLOAD_IDLE,
    WAIT_RESET,
)
from .kit.scripted import Scripted


def _bring_to(rig: Rig, device: DfuDevice, state: int) -> None:
    stream = archive(FILES, MIB)
    if state == DNLOAD_IDLE:
        device.download(0, stream[:64])
    elif state == MANIFEST_SYNC:
        for position in range(0, len(stream), 64):
            device.download(0, stream[position : position + 64])
        device.download(0, b"")
    elif state == UPLOAD_IDLE:
        device.upload(0, 64)
    elif state == ERROR:
        device.upload(1, 64)  # the ROM expects block 0
    assert rig.board.rom.state == state


@pytest.mark.parametrize("state", [IDLE, DNLOAD_IDLE, MANIFEST_SYNC, UPLOAD_IDLE, ERROR])
def test_recovers_from_every_rom_state(state: int) -> None:
    rig = make_rig(mode=Mode.DFU, start=0)
    device = open_board(rig)
    _bring_to(rig, device, state)
    recovered = recover(device, rig.clock)
    if state != MANIFEST_SYNC:  # which its first DFU_GETSTATUS ends
        assert recovered is (state != IDLE)
    assert device.get_status() == (OK, 0.256, IDLE)
    assert rig.resets == []
    device._handle.close()
    rig.flash()
    rig.assert_flashed()


def test_idle_is_left_alone() -> None:
    rig = make_rig(mode=Mode.DFU, start=0)
    device = open_board(rig)
    assert recover(device, rig.clock) is False
    assert rig.dfu(ABORT) == rig.dfu(CLRSTATUS) == []


def test_app_idle_needs_reset() -> None:
    rig = make_rig(mode=Mode.DFU, start=0)
    device = open_board(rig)
    with pytest.raises(StallError):
        device.detach(700)
    with pytest.raises(DfuError, match=r"appIDLE.*reset"):
        recover(device, rig.clock)


def test_back_to_idle_describes_device() -> None:
    rig = make_rig(mode=Mode.DFU, start=0)
    device = open_board(rig)
    _bring_to(rig, device, DNLOAD_IDLE)
    assert "dfuIDLE" in back_to_idle(device, rig.clock)
    assert rig.board.rom.state == IDLE
    assert "ready for another download" in back_to_idle(device, rig.clock)
    rig.board.unplug()
    assert "can no longer be reached" in back_to_idle(device, rig.clock)


def test_back_to_idle_never_fails() -> None:
    rig = make_rig(mode=Mode.DFU, start=0)
    device = open_board(rig)
    with pytest.raises(StallError):
        device.detach(700)
    assert "appIDLE" in back_to_idle(device, rig.clock)


def test_back_to_idle_waits_for_busy_device() -> None:
    handle = Scripted(VirtualClock(), (DNBUSY, 0.5), (IDLE, 0.0))
    assert "in dfuIDLE" in back_to_idle(DfuDevice(handle), handle.clock)
    assert handle.clock.monotonic() == 0.5


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (usb.core.USBError("Pipe error", -9, errno.EPIPE), "refuses to return to dfuIDLE"),
        (usb.core.USBTimeoutError("Operation timed out", -7, errno.ETIMEDOUT), "no longer answers"),
        (usb.core.USBError("Input/Output Error", -1, errno.EIO), "can no longer be reached"),
        (None, "malformed"),
    ],
    ids=str,
)
def test_back_to_idle_says_why_not(error: usb.core.USBError | None, says: str) -> None:
    rig = make_rig(mode=Mode.DFU, start=0)
    device = open_board(rig)
    rig.board.control = lambda *_: bytes(5)  # type: ignore[method-assign]

    def before(transfer: Transfer) -> None:
        if error is not None:
            raise error

    rig.before = before
    assert says in back_to_idle(device, rig.clock)


@pytest.mark.parametrize(
    ("states", "requests"),
    [
        ([(DNBUSY, 0.5), (DNLOAD_IDLE, 0.0), (IDLE, 0.0)], [ABORT]),
        ([(MANIFEST, 0.5), (MANIFEST_SYNC, 0.1), (IDLE, 0.0)], []),
        ([(UPLOAD_IDLE, 0.5), (IDLE, 0.0)], [ABORT]),
        ([(DNLOAD_SYNC, 0.5), (IDLE, 0.0)], [ABORT]),
        ([(ERROR, 0.5), (IDLE, 0.0)], [CLRSTATUS]),
    ],
)
def test_recovers_other_devices(states: list[tuple[int, float]], requests: list[int]) -> None:
    handle = Scripted(VirtualClock(), *states)
    assert recover(DfuDevice(handle), handle.clock) is True
    assert handle.sent == requests


@pytest.mark.parametrize("state", [DNLOAD_IDLE, ERROR, DNBUSY, MANIFEST, WAIT_RESET, APP_DETACH])
def test_gives_up_in_other_states(state: int) -> None:
    handle = Scripted(VirtualClock(), (state, 0.1))
    with pytest.raises(DfuError, match="dfuIDLE without a reset"):
        recover(DfuDevice(handle), handle.clock)
    assert len(handle.sent) <= 8
    assert handle.clock.monotonic() == pytest.approx(5.0 if state in (DNBUSY, MANIFEST) else 0.0)


def test_busy_device_without_poll_timeout() -> None:
    handle = Scripted(VirtualClock(), *[(DNBUSY, 0.0)] * 100, (DNLOAD_IDLE, 0.0), (IDLE, 0.0))
    assert recover(DfuDevice(handle), handle.clock) is True
    assert handle.sent == [ABORT]
