"""A device that insists on every step of DFU 1.1 is flashed like any other."""

from __future__ import annotations

import msgspec
import pytest

from esp_dfu_ext import Flasher, FlashOptions
from esp_dfu_ext.clock import VirtualClock
from esp_dfu_ext.dfu.spec import Mode, State
from esp_dfu_ext.events import Event, Notice, Phase, PhaseStarted
from esp_dfu_ext.simulator import Board, simulate
from esp_dfu_ext.simulator.rom import ControlStall
from esp_dfu_ext.target import Target

from .kit.archives import checked, small_image
from .kit.chips import chip
from .kit.strict_device import FUNCTIONAL, StrictDevice


def strict_target() -> Target:
    """Return the ESP32-S3's data with a transfer size above that of the strict device."""
    target = chip("esp32s3")
    return msgspec.structs.replace(target, usb=msgspec.structs.replace(target.usb, transfer_size=8192))


@pytest.mark.parametrize("mode", [Mode.RUN_TIME, Mode.DFU])
@pytest.mark.parametrize("strict", [False, True])
def test_strict_device_is_flashed_and_reset(mode: Mode, strict: bool) -> None:
    clock = VirtualClock()
    device = StrictDevice(strict_target(), clock, block_time=0.05, manifest_time=3.0)
    device.mode = mode
    simulation = simulate([Board(strict_target(), "1-1", clock, device)], clock)
    events: list[Event] = []
    image = small_image("esp32s3")
    started = clock.monotonic()
    options, known = FlashOptions(strict=strict), [strict_target()]
    flasher = Flasher(options, bus=simulation.bus, targets=known, clock=clock, on_event=events.append)
    result = flasher.flash(checked(image, strict_target()))
    assert bytes(device.received) == bytes(image.stream)
    blocks = -(-len(image.stream) // FUNCTIONAL.transfer_size)
    assert clock.monotonic() - started >= blocks * 0.05 + 3.0
    # It needs a bus reset to leave manifestation, and gets one without --reset.
    assert result.state == "dfuMANIFEST"
    assert result.after_reset is not None
    assert "run-time" in result.after_reset
    assert (device.mode, device.state) == (Mode.RUN_TIME, State.appIDLE)
    phases = [event.phase for event in events if isinstance(event, PhaseStarted)]
    assert (Phase.DETACH in phases) == (mode is Mode.RUN_TIME)
    assert phases[-1] is Phase.RESET
    # Without --strict, the second block must have failed for want of DFU_GETSTATUS.
    restarted = any(isinstance(event, Notice) and event.code == "strict-restart" for event in events)
    assert restarted == (not strict and blocks > 1)


def test_block_without_getstatus_stalls() -> None:
    clock = VirtualClock()
    device = StrictDevice(strict_target(), clock)
    device.restart(Mode.DFU)
    device.control(0x21, 1, 0, b"x", 0)
    with pytest.raises(ControlStall):
        device.control(0x21, 1, 1, b"y", 0)
    assert device.state is State.dfuERROR
