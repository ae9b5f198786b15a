"""`list_devices`: every device of the chips' vendors, including those that cannot be opened."""

from __future__ import annotations

import pytest

from esp_dfu_ext.clock import VirtualClock
from esp_dfu_ext.commands.list import _document as documents_of
from esp_dfu_ext.dfu.spec import Mode
from esp_dfu_ext.errors import AccessDeniedError, UsbUnavailableError
from esp_dfu_ext.operations.list import list_devices
from esp_dfu_ext.simulator import simulate_text

from .kit.boards import app_with_dfu, make_rig, serial_jtag, stranger
from .kit.chips import chips


def test_devices_are_listed_in_both_modes() -> None:
    rig = make_rig("esp32s2", "esp32p4", others=[serial_jtag()])
    rig.boards[1].plug(Mode.DFU)
    first, second, other = list_devices(rig.bus, chips())
    assert (first.device.path, first.serial, first.problem) == ("1-1", "0", None)
    assert [i.mode for i in first.interfaces] == [Mode.RUN_TIME]
    assert first.target is not None
    assert first.target.name == "esp32s2"
    assert first.names == (None,)
    assert (second.device.path, second.serial) == ("1-2", "7c:df:a1:00:00:02")
    assert [i.mode for i in second.interfaces] == [Mode.DFU]
    assert second.target is not None
    assert second.target.name == "esp32p4"
    assert (other.device.usb_id, other.interfaces, other.names) == ("303a:1001", (), ())
    assert (other.target, other.serial, other.problem) == (None, None, None)
    assert "USB-Serial/JTAG" in other.description


def test_inaccessible_device_is_listed_with_problem() -> None:
    rig = make_rig("esp32s3", "esp32s3")
    rig.boards[0].faults.no_access = True
    first, second = list_devices(rig.bus, chips())
    assert isinstance(first.problem, AccessDeniedError)
    assert first.serial is None
    assert [i.mode for i in first.interfaces] == [Mode.RUN_TIME]
    assert (second.problem, second.serial) == (None, "7c:df:a1:00:00:02")


def test_busy_board_is_listed() -> None:
    rig = make_rig()
    rig.board.faults.busy = True
    (listed,) = list_devices(rig.bus, chips())
    assert (listed.serial, listed.problem) == ("7c:df:a1:00:00:01", None)


def test_dfu_devices_of_others_are_listed_for_what_they_are() -> None:
    rig = make_rig(others=[app_with_dfu(0x303A, 0x4001), app_with_dfu(0x2341, 0x0070, "2-2"), stranger(0x046D, 1)])
    board, app, foreign = list_devices(rig.bus, chips())
    assert [listed.is_chip for listed in (board, app, foreign)] == [True, False, False]
    asked = "with DFU in run-time mode: a flash asks it to enter download mode"
    assert app.description == f"303a:4001, an app {asked}"
    assert foreign.description == f"2341:0070, an app or device of another vendor {asked}, if --path names it"
    assert (len(app.interfaces), len(foreign.interfaces)) == (1, 1)


def test_app_is_listed_with_its_name() -> None:
    simulation = simulate_text("esp32s3+app=2341:0070", chips(), VirtualClock())
    (listed,) = list_devices(simulation.bus, chips())
    assert (listed.device.usb_id, listed.product, listed.is_chip) == ("2341:0070", "App", False)
    (document,) = documents_of([listed], {}).devices
    assert (document.product, document.target) == ("App", None)


def test_rom_of_unknown_chip_is_not_called_an_app() -> None:
    (_, unknown) = list_devices(make_rig(others=[app_with_dfu(0x303A, 0x0040)]).bus, chips())
    assert unknown.description == "303a:0040, an unknown chip with DFU in run-time mode"


def test_empty_bus_gives_empty_list() -> None:
    rig = make_rig()
    rig.board.unplug()
    assert list_devices(rig.bus, chips()) == []


def test_listing_sends_no_dfu_request() -> None:
    rig = make_rig("esp32s3", "esp32s2")
    for _ in range(2):
        assert [d.device.path for d in list_devices(rig.bus, chips())] == ["1-1", "1-2"]
    assert [t for t in rig.log if t.is_dfu] == []
    assert [board.rom.mode for board in rig.boards] == [Mode.RUN_TIME] * 2


def test_missing_libusb_is_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def backend() -> None:
        raise UsbUnavailableError("libusb is not installed.", missing="libusb")

    monkeypatch.setattr("esp_dfu_ext.usb.bus.libusb_backend", backend)
    with pytest.raises(UsbUnavailableError):
        list_devices(None, chips())
