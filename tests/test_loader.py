"""The ROM's serial loader from the host's side: the port of bulk transfers, SYNC, and what the board says of itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress

import pytest

from esp_dfu_ext.dfu.discovery import find
from esp_dfu_ext.dfu.spec import Mode
from esp_dfu_ext.errors import DeviceBusyError, DeviceGoneError, SerialLoaderError
from esp_dfu_ext.loader import rom_loader
from esp_dfu_ext.loader.port import BulkSerialPort, serial_interfaces
from esp_dfu_ext.loader.rom_loader import RomLoader
from esp_dfu_ext.loader.sync import ANSWER_SIZE, ANSWERS, TIMEOUT, synchronize
from esp_dfu_ext.simulator import Board
from esp_dfu_ext.simulator.board import Answer, Effect, Moment, vanish
from esp_dfu_ext.usb.handle import UsbHandle

from .kit.boards import Rig, make_rig, open_board, serial_jtag
from .kit.chips import chips
from .kit.esptool_chips import KNOWN

NAMES = [target.name for target in chips()]


def opened(rig: Rig) -> tuple[UsbHandle, BulkSerialPort]:
    """Open the only board, and its serial port."""
    (interface,) = find(rig.bus, rig.board.target)
    ports = serial_interfaces(interface.device)
    assert ports is not None
    handle = interface.device.open(interface.descriptor.number)
    try:
        return handle, BulkSerialPort(handle, ports, rig.clock)
    except BaseException:
        handle.close()
        raise


@pytest.fixture
def rig() -> Rig:
    return make_rig("esp32s3", mode=Mode.DFU)


@pytest.fixture
def port(rig: Rig) -> Iterator[BulkSerialPort]:
    handle, port = opened(rig)
    with handle:
        yield port


def is_fast(board: Board) -> bool:
    """Return True if the ROM has left its first loop."""
    return board.rom.loader is not None and board.rom.loader.active


def answering(data: bytes) -> Effect:
    """Return an effect: the device's next packet is this one."""

    def effect(board: Board, answer: Answer) -> bytes:
        with suppress(Exception):
            answer()
        return data

    return effect


# --- the port -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_serial_port_of_each_rom_is_found(name: str) -> None:
    (interface,) = find(make_rig(name).bus, make_rig(name).board.target)
    ports = serial_interfaces(interface.device)
    assert ports is not None
    assert (ports.control, ports.data, ports.bulk_out, ports.bulk_in, ports.packet) == (0, 1, 0x03, 0x84, 64)


def test_device_without_serial_port_has_none() -> None:
    rig = make_rig(others=[serial_jtag("1-9")])
    (device,) = rig.bus.scan(path="1-9")
    assert serial_interfaces(device) is None


def test_kernel_driver_is_back_after_close(rig: Rig) -> None:
    handle, _ = opened(rig)
    assert not rig.board.kernel_driver
    handle.close()
    assert rig.board.kernel_driver
    assert not rig.board.holders


def test_interfaces_held_by_another_program_are_left_alone(rig: Rig) -> None:
    other, _ = opened(rig)
    with other:
        with pytest.raises(DeviceBusyError):
            opened(rig)
        assert set(rig.board.holders) == {0, 1, 2}


def test_dfu_works_after_interfaces_were_refused(rig: Rig) -> None:
    rig.board.holders[1] = object()
    (interface,) = find(rig.bus, rig.board.target)
    ports = serial_interfaces(interface.device)
    assert ports is not None
    with open_board(rig)._handle as handle:
        with pytest.raises(DeviceBusyError):
            BulkSerialPort(handle, ports, rig.clock)
        assert handle.control_in(0xA1, 3, 0, 6, 1.0)[4] == 2


def test_read_returns_what_came_before_the_time_out(rig: Rig, port: BulkSerialPort) -> None:
    assert synchronize(port, rig.clock)
    before = rig.clock.monotonic()
    port.timeout = 0.3
    assert port.read(5) == b""
    assert rig.clock.monotonic() - before == pytest.approx(0.3)


def test_port_sends_no_line_state(rig: Rig) -> None:
    handle, port = opened(rig)
    with handle:
        synchronize(port, rig.clock)
        RomLoader(port, rig.board.target).identity()
        port.rts = port.dtr = False
    assert [t for t in rig.log if t.request_type == 0x21 and t.request in (0x20, 0x22)] == []


# --- SYNC ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", [Mode.RUN_TIME, Mode.DFU])
def test_sync_takes_rom_into_fast_loop(name: str, mode: Mode) -> None:
    rig = make_rig(name, mode=mode)
    handle, port = opened(rig)
    with handle:
        assert not is_fast(rig.board)
        assert synchronize(port, rig.clock)
        assert is_fast(rig.board)


def test_every_answer_is_read(rig: Rig, port: BulkSerialPort) -> None:
    reads: list[int] = []

    def effect(board: Board, answer: Answer) -> bytes:
        reads.append(1)
        rig.board.faults.plan(effect, at=Moment.SERIAL_IN)
        return answer()

    rig.board.faults.plan(effect, at=Moment.SERIAL_IN)
    assert synchronize(port, rig.clock)
    assert len(reads) == ANSWERS * ANSWER_SIZE
    assert port.in_waiting == 0


def test_sync_that_was_lost_is_sent_again() -> None:
    rig = make_rig("esp32s2", mode=Mode.DFU)
    handle, port = opened(rig)
    with handle:
        before = rig.clock.monotonic()
        assert synchronize(port, rig.clock)
        assert rig.clock.monotonic() - before == pytest.approx(0.06)


def test_loader_that_is_silent_costs_two_seconds_at_most(rig: Rig, port: BulkSerialPort) -> None:
    rig.board.deaf = True
    before = rig.clock.monotonic()
    assert not synchronize(port, rig.clock)
    assert 1.0 < rig.clock.monotonic() - before <= TIMEOUT


@pytest.mark.parametrize("noise", [b"AT\r\n", b"\xc0\xc0\xc0", bytes(range(64)), b"\xc0\x01\x0a" + bytes(11)])
def test_noise_is_no_answer(rig: Rig, port: BulkSerialPort, noise: bytes) -> None:
    def effect(board: Board, answer: Answer) -> bytes:
        with suppress(Exception):
            answer()
        rig.board.faults.plan(effect, at=Moment.SERIAL_IN)
        rig.clock.sleep(0.01)
        return noise

    rig.board.faults.plan(effect, at=Moment.SERIAL_IN)
    before = rig.clock.monotonic()
    assert not synchronize(port, rig.clock)
    assert rig.clock.monotonic() - before <= TIMEOUT + 0.1


def test_noise_before_the_answers_is_skipped(rig: Rig, port: BulkSerialPort) -> None:
    rig.board.faults.plan(answering(b"\x00\xff"), at=Moment.SERIAL_IN)
    assert synchronize(port, rig.clock)


def test_board_that_leaves_in_sync_is_gone(rig: Rig, port: BulkSerialPort) -> None:
    rig.board.faults.plan(vanish, at=Moment.SERIAL_IN)
    with pytest.raises(DeviceGoneError):
        synchronize(port, rig.clock)


# --- who the board is -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KNOWN)
def test_identity_of_each_chip(name: str) -> None:
    rig = make_rig(name, mode=Mode.DFU)
    handle, port = opened(rig)
    with handle:
        assert synchronize(port, rig.clock)
        identity = RomLoader(port, rig.board.target).identity()
    assert identity.mac == "7c:df:a1:00:00:01"
    assert identity.flash_size == rig.board.rom.flash.size
    assert not identity.security.secure_boot
    assert not identity.security.flash_encryption


@pytest.mark.parametrize("name", KNOWN)
def test_md5_is_that_of_flash_memory(name: str) -> None:
    rig = make_rig(name, mode=Mode.DFU)
    rig.board.rom.flash.program(0x10000, b"firmware" * 100)
    handle, port = opened(rig)
    with handle:
        assert synchronize(port, rig.clock)
        digest = RomLoader(port, rig.board.target).md5(0x10000, 800)
    assert digest == hashlib.md5(b"firmware" * 100, usedforsecurity=False).digest()


def test_loader_prints_nothing(rig: Rig, port: BulkSerialPort, capfd: pytest.CaptureFixture[str]) -> None:
    assert synchronize(port, rig.clock)
    RomLoader(port, rig.board.target).identity()
    assert capfd.readouterr() == ("", "")


def test_unknown_chip_is_an_error_of_the_loader(rig: Rig, port: BulkSerialPort) -> None:
    import msgspec

    with pytest.raises(SerialLoaderError, match="does not know"):
        RomLoader(port, msgspec.structs.replace(rig.board.target, name="esp32s9", chip="ESP32-S9"))


@pytest.mark.parametrize("answer", [b"", b"\xc0", b"\xc0\x01\x0a\x02\x00\xc0", b"\xc0" + b"\xff" * 80 + b"\xc0"])
def test_answer_that_makes_no_sense_is_an_error_of_the_loader(rig: Rig, port: BulkSerialPort, answer: bytes) -> None:
    assert synchronize(port, rig.clock)
    loader = RomLoader(port, rig.board.target)
    rig.board.deaf = not answer
    for byte in answer:
        rig.board.faults.plan(answering(bytes([byte])), at=Moment.SERIAL_IN)
    before = rig.clock.monotonic()
    with suppress(SerialLoaderError):
        identity = loader.identity()
        assert identity.mac.count(":") == 5
    assert rig.clock.monotonic() - before <= 2.0


def test_board_that_leaves_while_it_is_asked_is_gone(rig: Rig, port: BulkSerialPort) -> None:
    assert synchronize(port, rig.clock)
    loader = RomLoader(port, rig.board.target)
    rig.board.faults.plan(vanish, at=Moment.SERIAL_OUT)
    with pytest.raises(DeviceGoneError):
        loader.identity()


@pytest.mark.parametrize(
    ("flash_id", "size"), [(0x1640EF, 4 << 20), (0x18A1C8, 16 << 20), (0x01861F, None), (0x14861F, None), (0, None)]
)
def test_size_of_flash_memory_by_its_id(flash_id: int, size: int | None) -> None:
    assert rom_loader.flash_size_of(flash_id) == size  # 0x1F is Adesto, whose IDs do not end with the size


@pytest.mark.parametrize("name", KNOWN)
def test_revision_of_each_chip(name: str) -> None:
    rig = make_rig(name, mode=Mode.DFU)
    handle, port = opened(rig)
    with handle:
        assert synchronize(port, rig.clock)
        assert RomLoader(port, rig.board.target).revision() >= 0
