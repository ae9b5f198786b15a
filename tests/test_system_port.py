"""The serial loader through a serial port of the system, as on Windows and macOS; here a pty carries it."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import sys
import termios
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from esp_dfu_ext import Flasher, FlashOptions
from esp_dfu_ext.clock import SystemClock, VirtualClock
from esp_dfu_ext.dfu.discovery import Selector
from esp_dfu_ext.dfu.spec import Mode
from esp_dfu_ext.errors import DeviceGoneError, SerialPortError
from esp_dfu_ext.events import Event, Notice, Phase, PhaseStarted
from esp_dfu_ext.loader import system_port
from esp_dfu_ext.loader.sync import REQUEST
from esp_dfu_ext.operations.restart import BUS_RESET, NO_RESET
from esp_dfu_ext.operations.verify import verify_board
from esp_dfu_ext.simulator import Board
from esp_dfu_ext.usb.serial_ports import SerialPort, of_device
from esp_dfu_ext.usb.system_port import open_serial_port
from esp_dfu_ext.usb.trace import BulkTransfer, SerialTransfer, Step, Trace, TraceEntry

from .kit.archives import CHIP_SIZE, checked, small_image
from .kit.boards import Rig, assert_flashed, make_rig
from .kit.chips import chip
from .kit.esptool_chips import KNOWN
from .kit.files import write_file
from .kit.serial_port import serial_port, share

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")


def make_board(name: str = "esp32s3", number: int = 1) -> Board:
    board = Board.make(chip(name), f"1-{number}", SystemClock(), number=number, flash_size=CHIP_SIZE)
    board.rom.restart(Mode.DFU)
    share(board)
    return board


def mac(number: int) -> str:
    return f"7c:df:a1:00:00:{number:02x}"


@contextmanager
def ported(*boards: Board) -> Iterator[Rig]:
    """Provide boards whose serial ports the system keeps, and a pty as the serial port of each."""
    rig = Rig(boards, boards[0].clock)
    with ExitStack() as stack:
        rig.system_ports = [of(board, stack.enter_context(serial_port(board))) for board in boards]
        yield rig


def of(board: Board, name: str) -> SerialPort:
    usb = board.target.usb
    return SerialPort(name, usb.vid, usb.pid, board.rom.serial, board.path)


def fast(board: Board) -> bool:
    return board.rom.serial_loader_active


def notices(rig: Rig) -> list[str]:
    return [event.message for event in rig.events if isinstance(event, Notice)]


@pytest.mark.parametrize("name", KNOWN)
def test_flash_takes_chip_into_fast_loop(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    board = make_board(name)
    with ported(board) as rig:
        result = rig.flash()
        assert rig.system_ports is not None
        os.close(open_again(rig.system_ports[0].name))
    assert result.mac == mac(1)
    assert fast(board)
    assert notices(rig) == []
    rig.assert_flashed()
    assert board.kernel_driver
    assert capfd.readouterr() == ("", "")


def open_again(name: str) -> int:
    """Open a port that nobody else may have open."""
    port = os.open(name, os.O_RDWR | os.O_NOCTTY)
    fcntl.flock(port, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return port


def test_only_what_changed_is_sent_and_verified() -> None:
    with ported(make_board()) as rig:
        rig.flash(verify=True)
        result = rig.flash(skip_flashed=True, verify=True)
        assert verify_board(checked(), Selector(), rig.bus, [chip()], rig.clock, rig.handle).size > 0
    assert result.size == 0
    assert notices(rig) == []


def test_port_is_closed_before_the_bus_is_reset() -> None:
    board = make_board()
    free: list[int] = []
    with ported(board) as rig:
        assert rig.system_ports is not None
        name = rig.system_ports[0].name

        reset_bus = board.reset_bus

        def reset() -> None:
            free.append(open_again(name))
            reset_bus()

        board.reset_bus = reset  # type: ignore[method-assign]
        rig.flash(after=BUS_RESET)
    assert len(free) == 1
    os.close(free[0])


def test_several_boards_at_once() -> None:
    boards = [make_board(number=1), make_board(number=2)]
    with ported(*boards) as rig:
        flasher = Flasher(FlashOptions(after=NO_RESET), bus=rig.bus, clock=rig.clock, on_event=rig.handle)
        outcomes = flasher.flash_all(checked())
    assert [outcome.result.mac for outcome in outcomes if outcome.result] == [mac(1), mac(2)]
    assert all(fast(board) for board in boards)
    assert notices(rig) == []


# --- what may be wrong with it ------------------------------------------------------------------------------


def flashed_without(rig: Rig) -> str:
    """Flash the board, and return the only notice, which says why its loader was not used."""
    rig.flash()
    assert_flashed(rig.boards[0].rom.flash.read, small_image())
    (notice,) = notices(rig)
    return notice


def test_missing_port_is_a_notice_after_a_second() -> None:
    rig = make_rig(mode=Mode.DFU)
    rig.system_ports = []
    before = rig.clock.monotonic()
    assert flashed_without(rig) == "Port 1-1: the system shows no serial port of this board. Flashing without it."
    assert rig.clock.monotonic() - before <= 1.1
    assert not fast(rig.board)


def test_port_that_appears_late_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with ported(make_board()) as rig:
        ports, rig.system_ports = rig.system_ports, []
        sleep = rig.clock.sleep

        def appear(seconds: float) -> None:
            rig.system_ports = ports
            sleep(0.0)

        monkeypatch.setattr(rig.clock, "sleep", appear)
        assert rig.flash().mac is not None


def test_busy_port_is_a_notice() -> None:
    with ported(make_board()) as rig:
        assert rig.system_ports is not None
        name = rig.system_ports[0].name
        other = open_again(name)
        notice = flashed_without(rig)
        os.close(other)
    assert notice == f"Port 1-1: the serial port {name} is used by another program. Flashing without it."
    assert not fast(rig.board)


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_port_that_cannot_be_opened_is_a_notice(kind: str, tmp_path: Path) -> None:
    rig = make_rig(mode=Mode.DFU)
    name = str(tmp_path / "missing") if kind == "missing" else write_file(tmp_path / "file", b"")
    rig.system_ports = [of(rig.board, str(name))]
    assert ("does not exist" if kind == "missing" else "cannot be opened") in flashed_without(rig)


def test_system_that_lists_no_ports_is_a_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = make_rig(mode=Mode.DFU)

    class Broken:
        def __bool__(self) -> bool:
            raise OSError(errno.EIO, "no answer from the registry")

    rig.system_ports = Broken()  # type: ignore[assignment]
    assert "cannot be listed" in flashed_without(rig)


def test_silent_port_costs_two_seconds_and_one_notice() -> None:
    board = make_board()
    rig = Rig([board], board.clock)
    ours, theirs = pty.openpty()
    rig.system_ports = [of(board, os.ttyname(theirs))]
    before = rig.clock.monotonic()
    assert "does not answer. Flashing" in flashed_without(rig)
    os.close(ours)
    os.close(theirs)
    assert rig.clock.monotonic() - before <= 3.0  # with the flash, on a busy machine


def test_port_of_another_board_does_not_tell_who_this_is() -> None:
    board, other = make_board(), make_board(number=2)
    rig = Rig([board], board.clock)
    with serial_port(other) as port:
        rig.system_ports = [SerialPort(port, *usb_id(board), None, "1-1")]
        notice = flashed_without(rig)
    assert f"{port} is that of another board, with MAC address {mac(2)}" in notice


def usb_id(board: Board) -> tuple[int, int]:
    return board.target.usb.vid, board.target.usb.pid


def test_port_that_leaves_before_an_md5_is_the_board_gone(tmp_path: Path) -> None:
    board, link = make_board(), tmp_path / "ttyACM0"
    with ported(board) as rig:
        assert rig.system_ports is not None
        link.symlink_to(rig.system_ports[0].name)
        rig.system_ports = [of(board, str(link))]

        def leave(event: Event) -> None:
            if isinstance(event, PhaseStarted) and event.phase is Phase.CHECK:
                board.unplug()
                link.unlink()

        rig.on_event = leave
        with pytest.raises(DeviceGoneError, match="left the bus"):
            rig.flash(verify=True)


# --- which port -------------------------------------------------------------------------------------------

MAC, OTHER = "7C:DF:A1:00:00:01", "7c:df:a1:00:00:02"


@pytest.mark.parametrize(
    ("ports", "serial", "same_buses", "found"),
    [
        ([("COM5", "1-2", MAC)], "7c:df:a1:00:00:01", False, "COM5"),
        ([("COM5", "4-2", None)], None, False, "COM5"),  # Windows numbers buses in its own way
        ([("COM5", "4-2", None)], None, True, None),
        ([("COM5", "1-2", None), ("COM6", "2-2", None)], None, False, None),  # of two host controllers
        ([("COM5", "1-2", OTHER), ("COM6", "2-2", MAC)], MAC, False, "COM6"),
        ([("COM5", "1-2", OTHER)], MAC, False, None),
        ([("COM5", None, MAC)], MAC, False, "COM5"),
        ([("COM5", None, None)], MAC, False, None),
        ([("COM5", None, "0")], None, False, None),
        ([("COM5", "1-3", MAC)], MAC, False, None),
    ],
)
def test_port_that_belongs_to_a_device(
    ports: list[tuple[str, str, str]], serial: str, same_buses: bool, found: str
) -> None:
    listed = [SerialPort(name, 0x303A, 9, number, path) for name, path, number in ports]
    listed.append(SerialPort("COM9", 0x303A, 2, MAC, "1-2"))
    port = of_device(listed, 0x303A, 9, "1-2", same_buses=same_buses, serial=serial)
    assert (port.name if port else None) == found


# --- line state, and the trace ----------------------------------------------------------------------------


@pytest.mark.parametrize("keeps_lines", [False, True])
def test_rts_stays_low_where_a_system_lowers_it_at_the_end(keeps_lines: bool) -> None:
    ours, theirs = pty.openpty()
    attributes = termios.tcgetattr(theirs)
    attributes[2] |= termios.HUPCL
    termios.tcsetattr(theirs, termios.TCSANOW, attributes)
    port = open_serial_port(os.ttyname(theirs), timeout=0.1, keeps_lines=keeps_lines)
    assert (port.rts, port.dtr) == (keeps_lines, keeps_lines)
    hangs_up = bool(termios.tcgetattr(theirs)[2] & termios.HUPCL)
    port.close()
    os.close(ours)
    os.close(theirs)
    assert hangs_up != keeps_lines


def test_trace_shows_what_went_over_the_port() -> None:
    entries: list[TraceEntry] = []
    with ported(make_board()) as rig:
        rig.bus.trace = Trace(entries.append, rig.clock)
        rig.flash()
        assert rig.system_ports is not None
        name = rig.system_ports[0].name
    steps = [(e.name, e.text, e.error) for e in entries if isinstance(e, Step) and "serial" in e.name]
    assert steps == [("open serial port", name, None), ("close serial port", name, None)]
    sent = [e.data for e in entries if isinstance(e, SerialTransfer) and not e.is_in]
    assert sent[0] == REQUEST
    received = b"".join(e.data for e in entries if isinstance(e, SerialTransfer) and e.is_in)
    assert received.startswith(b"\xc0\x01\x08")
    assert not [e for e in entries if isinstance(e, BulkTransfer)]
    text = str(next(e for e in entries if isinstance(e, SerialTransfer)))
    assert text.startswith("1-1     serial OUT")
    assert "-> c0 00 08 24" in text


def test_trace_shows_port_that_cannot_be_opened(tmp_path: Path) -> None:
    entries: list[TraceEntry] = []
    with pytest.raises(SerialPortError):
        open_serial_port(str(tmp_path / "x"), timeout=0.1, path="1-2", trace=Trace(entries.append, VirtualClock()))
    assert [str(entry) for entry in entries] == [f"1-2     open serial port      {tmp_path / 'x'} failed: serial-port"]


def test_wait_for_a_port_has_an_end() -> None:
    rig = make_rig()
    (device,) = rig.bus.scan()
    before = rig.clock.monotonic()
    listed: list[Any] = []

    def list_ports() -> list[SerialPort]:
        listed.append(rig.clock.monotonic() - before)
        return []

    assert system_port.find_system_port(list_ports, device, rig.clock, patience=1.0) is None
    assert listed == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
