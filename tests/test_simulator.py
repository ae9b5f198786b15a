"""Simulated boards on a bus, and the lists that describe them."""

from __future__ import annotations

import msgspec
import pytest

from esp_dfu_ext import Flasher
from esp_dfu_ext.clock import Clock, VirtualClock
from esp_dfu_ext.dfu.spec import Mode
from esp_dfu_ext.errors import SimulationError, UsageError
from esp_dfu_ext.simulator import Board, simulate, simulate_text
from esp_dfu_ext.simulator.apps import ConsoleApp
from esp_dfu_ext.simulator.board import AccessDenied, DeviceGone, Fault, bus_reset, hang, stall, vanish
from esp_dfu_ext.simulator.rom import ControlStall, ControlTimeout
from esp_dfu_ext.usb.bus import Bus

from .kit.archives import FILES, MIB, archive, checked, image_of
from .kit.boards import make_rig
from .kit.chips import NAMES, chip, chips
from .kit.host import DETACH, DNLOAD
from .kit.loader import GET_SECURITY_INFO, ask, frame, sync


def _board(name: str = "esp32s3", mode: Mode = Mode.RUN_TIME) -> tuple[Board, Clock]:
    rig = make_rig(name, mode=mode, start=0)
    return rig.board, rig.clock


def _paths(bus: Bus) -> list[str]:
    return [device.path for device in bus.scan()]


# --- boards -----------------------------------------------------------------------------------------------


def test_detach_leaves_bus_during_request_and_returns() -> None:
    board, clock = _board()
    address = board.address
    with pytest.raises(DeviceGone):
        board.control(0x21, DETACH, 700, b"", 0)
    assert not board.present
    for _ in range(5):
        clock.sleep(0.05)
        board.update()
        assert not board.present
    clock.sleep(0.35)  # 0.6 s at the most
    board.update()
    assert board.present
    assert board.rom.mode is Mode.DFU
    assert board.address != address


def test_detach_in_dfu_mode_stalls_and_stays_on_bus() -> None:
    board, _ = _board(mode=Mode.DFU)
    with pytest.raises(ControlStall):
        board.control(0x21, DETACH, 700, b"", 0)
    assert board.present


@pytest.mark.parametrize("blocks", [0, 20])
@pytest.mark.parametrize("detached", [False, True])
def test_bus_reset_in_dfu_mode_restarts_chip(blocks: int, detached: bool) -> None:
    board, clock = _board(mode=Mode.DFU)
    stream = archive(FILES, MIB)
    for number in range(blocks):
        board.control(0x21, DNLOAD, number, stream[64 * number : 64 * number + 64], 0)
    if detached:
        with pytest.raises(ControlStall):
            board.control(0x21, DETACH, 700, b"", 0)
    with pytest.raises(DeviceGone):
        board.reset_bus()
    clock.sleep(1)
    board.update()
    assert board.present
    assert board.rom.mode is Mode.RUN_TIME


def test_bus_reset_in_run_time_mode_restarts_nothing() -> None:
    board, _ = _board()
    board.reset_bus()
    assert board.present


def test_board_that_boots_app_stays_off_bus_after_reset() -> None:
    board, clock = _board(mode=Mode.DFU)
    board.boots_app = True
    with pytest.raises(DeviceGone):
        board.reset_bus()
    clock.sleep(100)
    board.update()
    assert not board.present


def test_serial_numbers_are_unique_unless_chip_has_fixed_one() -> None:
    assert [b.rom.serial for b in make_rig("esp32s2", "esp32s2").boards] == ["0", "0"]
    serials = [b.rom.serial for b in make_rig("esp32s3", "esp32p4", "esp32s31").boards]
    assert len(set(serials)) == 3
    assert all(len(serial) == 17 and serial.count(":") == 5 for serial in serials)


def test_fault_strikes_once() -> None:
    board, _ = _board(mode=Mode.DFU)
    board.faults.plan(stall, 0)
    board.faults.plan(hang, 1)
    with pytest.raises(ControlStall):
        board.control(0x21, DNLOAD, 0, b"x", 0)
    with pytest.raises(ControlTimeout):
        board.control(0x21, DNLOAD, 0, b"x", 0)
    board.control(0x21, DNLOAD, 0, b"x", 0)


# --- lists ------------------------------------------------------------------------------------------------


def test_board_list() -> None:
    simulation = simulate_text("esp32s3, esp32s2+dfu,303a:1001,esp32p4", chips(), VirtualClock())
    seen = [(d.path, d.usb_id) for d in simulation.bus.scan()]
    assert seen == [
        ("1-1", "303a:0009"), ("1-2", "303a:0002"), ("1-3", "303a:1001"), ("1-4", "303a:0012"),
    ]  # fmt: skip
    assert [b.rom.mode for b in simulation.boards] == [Mode.RUN_TIME, Mode.DFU, Mode.RUN_TIME]
    assert [b.path for b in simulation.boards] == ["1-1", "1-2", "1-4"]


@pytest.mark.parametrize("name", NAMES)
def test_each_chip_can_be_simulated(name: str) -> None:
    clock = VirtualClock()
    simulation = simulate_text(name, chips(), clock)
    image = image_of(FILES, chip(name))
    Flasher(bus=simulation.bus, targets=chips(), clock=clock).flash(checked(image, chip(name)))
    assert simulation.compare(image, "1-1") == image.payload_size


def test_board_options() -> None:
    text = "esp32s3+app+held,esp32s3+strict,esp32s3+no-access,esp32s3+busy+no-return,esp32s3+vanish@3+hang@0"
    a, b, c, d, e = simulate_text(text, chips(), VirtualClock()).boards
    assert isinstance(a.device, ConsoleApp)
    assert not a.boots_app
    assert b.rom.wants_status
    with pytest.raises(AccessDenied):
        c.check_access()
    assert (d.faults.busy, d.faults.no_return) == (True, True)
    assert e.faults.planned == [Fault(vanish, 3), Fault(hang, 0)]
    (f,) = simulate_text("esp32s3+stall@7+error@12+reset@13", chips(), VirtualClock()).boards
    assert [(fault.effect, fault.block) for fault in f.faults.planned[::2]] == [(stall, 7), (bus_reset, 13)]
    assert f.faults.planned[1].block == 12
    assert (f.app, f.boots_app, f.rom.wants_status, f.faults.busy) == (None, True, False, False)


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("esp32c3", "esp32c3"),
        ("", "''"),
        ("esp32s3,", "''"),
        ("esp32s3+nonsense", "nonsense"),
        ("esp32s3+vanish", "vanish"),
        ("esp32s3+vanish@", "vanish"),
        ("esp32s3+vanish@x", "vanish@x"),
        ("esp32s3+vanish@-1", "vanish@-1"),
        ("esp32s3+vanish@²", "vanish@²"),
        ("esp32s3+busy@1", "busy@1"),
        ("303a:1001+dfu", "303a:1001"),
    ],
)
def test_bad_board_list_is_refused(text: str, fact: str) -> None:
    with pytest.raises(UsageError) as caught:
        simulate_text(text, chips(), VirtualClock())
    assert fact in caught.value.message


def test_other_devices_by_path() -> None:
    known = next(o for target in chips() for o in target.other_usb)
    clock = VirtualClock()
    simulation = simulate([Board.make(chip(), "1-2.3", clock)], clock, [("1-2.1", known)])
    assert _paths(simulation.bus) == ["1-2.1", "1-2.3"]


def test_compare_finds_unwritten_flash() -> None:
    clock = VirtualClock()
    simulation = simulate_text("esp32s3", chips(), clock)
    with pytest.raises(SimulationError, match=r"bootloader.bin at 0x1000"):
        simulation.compare(image_of(FILES, chip()), "1-1")


def test_addresses_are_unique() -> None:
    rig = make_rig("esp32s3", "esp32s3", "esp32s3")
    rig.boards[1].plug()
    addresses = [d.address for d in rig.bus.scan()]
    assert len(set(addresses)) == 3


@pytest.mark.parametrize(("option", "flags", "count"), [("secure-boot", 1, 0), ("flash-encryption", 0, 7)])
def test_burned_efuses_are_told_by_the_serial_loader(option: str, flags: int, count: int) -> None:
    (board,) = simulate_text(f"esp32s3+{option}", chips(), VirtualClock()).boards
    sync(board)
    info = bytes.fromhex(ask(board, frame(GET_SECURITY_INFO)))[9:]
    assert (info[0], info[4]) == (flags, count)


def test_board_whose_efuses_disable_usb_does_not_appear() -> None:
    simulation = simulate_text("esp32s3+no-usb,esp32s2", chips(), VirtualClock())
    assert [device.path for device in simulation.bus.scan()] == ["1-2"]


def test_efuses_need_loader_data() -> None:
    target = msgspec.structs.replace(chips()[0], serial_loader=None)
    with pytest.raises(UsageError, match="no serial_loader section"):
        simulate_text(f"{target.name}+secure-boot", [target])
