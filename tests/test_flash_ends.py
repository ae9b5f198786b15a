"""How a flash ends when something fails, and that messages claim only what was seen."""

from __future__ import annotations

import errno
from typing import Any

import msgspec
import pytest
import usb.core

from esp_dfu_ext.dfu.spec import Mode
from esp_dfu_ext.errors import DeviceGoneError, DfuError, InterruptedByUserError
from esp_dfu_ext.events import DeviceFound, Event, Phase, PhaseStarted, Progress
from esp_dfu_ext.operations.restart import BUS_RESET
from esp_dfu_ext.simulator.bus import SimulatedBackend

from .kit.archives import MIB, File, content, image_of
from .kit.boards import Transfer, make_rig
from .kit.chips import chip
from .kit.host import ABORT, DNLOAD


def test_second_ctrl_c_leaves_state_unknown() -> None:
    rig = make_rig(mode=Mode.DFU)

    def interrupt(transfer: Transfer) -> None:
        if transfer.is_dfu and (transfer.request == ABORT or len(rig.dfu(DNLOAD)) == 50):
            raise KeyboardInterrupt

    rig.before = interrupt
    with pytest.raises(InterruptedByUserError) as caught:
        rig.flash()
    assert caught.value.incomplete
    assert "is unknown" in caught.value.message
    assert "nothing" not in caught.value.message


def test_ctrl_c_during_reset_reports_complete_flash() -> None:
    rig = make_rig(mode=Mode.DFU)

    def interrupt(event: Event) -> None:
        if isinstance(event, PhaseStarted) and event.phase is Phase.RESET:
            raise KeyboardInterrupt

    rig.on_event = interrupt
    with pytest.raises(InterruptedByUserError) as caught:
        rig.flash(after=BUS_RESET)
    assert not caught.value.incomplete
    assert "after the flash" in caught.value.message
    rig.assert_flashed()


def test_failing_event_sink_leaves_chip_idle() -> None:
    rig = make_rig(mode=Mode.DFU)

    def full(event: Event) -> None:
        if isinstance(event, Progress) and event.done:
            raise OSError(errno.ENOSPC, "No space left on device")

    rig.on_event = full
    with pytest.raises(OSError, match="No space"):
        rig.flash()
    assert str(rig.board.rom.state) == "dfuIDLE"


@pytest.mark.parametrize(
    "error",
    [NotImplementedError("not supported"), usb.core.USBError("Entity not found", -5, errno.ENOENT)],
)
def test_reset_without_effect_is_reported(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse(self: SimulatedBackend, handle: Any) -> None:
        raise error

    monkeypatch.setattr(SimulatedBackend, "reset_device", refuse)
    rig = make_rig(mode=Mode.DFU)
    result = rig.flash(after=BUS_RESET)
    assert result.after_reset is not None
    assert result.after_reset.startswith("still the same")
    assert "did not restart it" in result.after_reset


@pytest.mark.parametrize(("size", "factor"), [(4096, 1), (512 << 10, 1), (768 << 10, 1.5), (1 * MIB, 2)])
def test_larger_part_gets_longer_erase_timeout(size: int, factor: float) -> None:
    rig = make_rig(mode=Mode.DFU)
    image = image_of([File(0, "app.bin", content(size))], chip())
    rig.flash(image)
    rig.assert_flashed(image)
    longest = max(transfer.timeout for transfer in rig.dfu(DNLOAD) if transfer.data)
    assert longest == chip().dfu.erase_timeout * factor
    # And only while it erases: a chip that hangs later is not waited for so long.
    late = [t.timeout for t in rig.dfu(DNLOAD) if t.data][-10:]
    assert size < 8192 or max(late) == 5.0


def test_gone_device_still_on_bus_is_reported() -> None:
    rig = make_rig(mode=Mode.DFU)

    def gone(transfer: Transfer) -> None:
        if transfer.is_dfu and transfer.request == DNLOAD:
            raise usb.core.USBError("No such device", -4, errno.ENODEV)

    rig.before = gone
    with pytest.raises(DeviceGoneError) as caught:
        rig.flash()
    assert caught.value.notes == ("Nothing was written.", "Still the same device is on port 1-1 now.")
    assert not caught.value.restarted


def test_device_without_download_gets_no_dfu_request(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = make_rig()
    original = rig.board.rom.configuration_descriptor
    no_download = original[:-7] + b"\x0e" + original[-6:]
    monkeypatch.setattr(type(rig.board.rom), "configuration_descriptor", property(lambda rom: no_download))
    with pytest.raises(DfuError, match="bitCanDnload"):
        rig.flash()
    assert [transfer for transfer in rig.log if transfer.is_dfu] == []
    assert [type(event) for event in rig.events] == [DeviceFound]


def test_windows_waits_longer_for_return(monkeypatch: pytest.MonkeyPatch) -> None:
    target = chip()
    assert (target.dfu.return_timeout, target.dfu.return_timeout_windows) == (15, 30)
    monkeypatch.setattr("sys.platform", "win32")
    rig = make_rig()
    rig.board.faults.no_return = True
    with pytest.raises(DfuError, match="within 30 s"):
        rig.flash(image_of([File(0, "x", content(100))], target), msgspec.structs.replace(target))


@pytest.mark.parametrize(
    "error",
    [
        usb.core.USBTimeoutError("Operation timed out", -7, errno.ETIMEDOUT),
        usb.core.USBError("Input/Output Error", -1, errno.EIO),
    ],
    ids=["time-out", "I/O error"],
)
def test_error_of_board_that_has_left_says_that_it_is_gone(error: usb.core.USBError) -> None:
    rig = make_rig(mode=Mode.DFU)

    def pull(transfer: Transfer) -> None:
        if transfer.request == DNLOAD and transfer.value == 40:
            rig.board.unplug()
            raise error

    rig.before = pull
    with pytest.raises(DeviceGoneError) as gone:
        rig.flash()
    assert "Nothing is on port 1-1 now." in gone.value.notes
