"""Apps that hand the chip over to its ROM, and a USB-UART bridge that moves its pins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from esp_dfu_ext.clock import VirtualClock
from esp_dfu_ext.dfu.discovery import dfu_interfaces
from esp_dfu_ext.dfu.spec import Mode
from esp_dfu_ext.errors import UsageError
from esp_dfu_ext.simulator import Board, Simulation, simulate_text
from esp_dfu_ext.simulator.apps import App, ConsoleApp, DfuApp, TouchApp
from esp_dfu_ext.simulator.board import DeviceGone
from esp_dfu_ext.simulator.bridge import Bridge
from esp_dfu_ext.simulator.rom import ControlStall, ControlTimeout

from .kit.boards import make_rig
from .kit.chips import NAMES, chips
from .kit.host import DETACH, GETSTATE

SET_LINE_CODING, SET_CONTROL_LINE_STATE = 0x20, 0x22
DTR, RTS = 1, 2
BAUD_1200 = bytes.fromhex("b0040000 00 00 08")


def later(board: Board, seconds: float) -> App | Mode | None:
    """Return what is on the board's port after a while: an app, the ROM's mode, or None."""
    board.clock.sleep(seconds)
    board.update()
    if not board.present:
        return None
    return board.device if isinstance(board.device, App) else board.device.mode


def set_lines(board: Board, *values: int) -> None:
    for value in values:
        board.control(0x21, SET_CONTROL_LINE_STATE, value, b"", 0)


def console_board(name: str = "esp32s3") -> Board:
    board = make_rig(name).board
    board.start_app(ConsoleApp(board.rom))
    return board


# --- the ROM's USB console --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_console_app_detaches_straight_into_dfu_mode(name: str) -> None:
    board = console_board(name)
    app, address = board.device, board.address
    assert app.device_descriptor == board.rom.device_descriptor
    assert board.control(0x21, DETACH, 700, b"", 0) == b""
    assert later(board, 0.03) is app  # it stays for 50 ms
    with pytest.raises(ControlStall):
        board.control(0x21, DETACH, 700, b"", 0)
    assert later(board, 0.03) is None
    assert later(board, 0.5) is Mode.DFU
    assert board.address != address


def test_console_app_restarts_into_download_mode_when_rts_falls_while_dtr_is_set() -> None:
    board = console_board()
    app, address = board.device, board.address
    set_lines(board, DTR | RTS, DTR)
    assert later(board, 0.03) is app
    assert later(board, 0.03) is Mode.RUN_TIME
    assert board.address == address  # the host saw no new device
    assert board.rom.force_download


def test_rom_that_took_usb_over_is_deaf_after_detach() -> None:
    board = console_board()
    set_lines(board, RTS | DTR, DTR)
    assert later(board, 0.1) is Mode.RUN_TIME
    for request in (DETACH, GETSTATE):
        with pytest.raises(ControlTimeout):
            board.control(0x21, request, 700, b"", 1)
    assert later(board, 60) is Mode.RUN_TIME
    board.plug()
    assert board.control(0xA1, GETSTATE, 0, b"", 1) == b"\0"


def test_console_app_starts_again_when_rts_falls_without_dtr() -> None:
    board = console_board()
    app, address = board.device, board.address
    set_lines(board, RTS, 0)
    assert later(board, 0.1) is app
    assert isinstance(app, App)
    assert (app.restart, app.lines) == (None, 0)
    set_lines(board, RTS | DTR)  # it started afresh
    assert later(board, 0.1) is app
    assert (board.address, board.rom.force_download) == (address, False)


@pytest.mark.parametrize("values", [(RTS | DTR,), (DTR, 0), (DTR, DTR | RTS), (0,)], ids=str)
def test_console_app_ignores_other_line_states(values: tuple[int, ...]) -> None:
    board = console_board()
    app = board.device
    set_lines(board, *values)
    assert later(board, 1) is app


# --- apps with IDs of their own ---------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [Mode.RUN_TIME, Mode.DFU])
def test_app_with_dfu_interface_hands_over_upon_detach(mode: Mode) -> None:
    board = make_rig().board
    board.start_app(DfuApp(0xCAFE, 0x4000, "1234", mode))
    board.control(0x21, DETACH, 700, b"", 0)
    assert later(board, 0.1) is None
    assert later(board, 0.5) is mode
    assert board.rom.force_download


def test_app_is_found_with_its_own_ids_and_strings() -> None:
    simulation = simulate_text("esp32s3+app=cafe:4000,esp32s3+touch=2341:0070", chips(), VirtualClock())
    with_dfu, touch = simulation.bus.scan()
    assert [device.usb_id for device in (with_dfu, touch)] == ["cafe:4000", "2341:0070"]
    (interface,) = dfu_interfaces(with_dfu)
    assert (interface.mode, interface.descriptor.number) == (Mode.RUN_TIME, 2)
    assert interface.functional is not None
    assert interface.functional.will_detach
    assert interface.read_serial() == simulation.boards[0].rom.serial
    assert dfu_interfaces(touch) == []
    assert [i.class_ for i in touch.interfaces] == [2, 0x0A]


def test_port_closed_at_1200_baud_hands_over() -> None:
    board = make_rig().board
    board.start_app(TouchApp(0x2341, 0x0070, "1234"))
    set_lines(board, DTR | RTS, 0)
    assert isinstance(later(board, 1), TouchApp)  # closed at 115200 baud
    board.control(0x21, SET_LINE_CODING, 0, BAUD_1200, 0)
    set_lines(board, DTR)
    assert isinstance(later(board, 1), TouchApp)  # still open
    set_lines(board, 0)
    assert later(board, 0.1) is None
    assert later(board, 0.5) is Mode.RUN_TIME
    with pytest.raises(ControlStall):
        TouchApp(1, 2, "3").control(0x21, DETACH, 0, b"", 0)


def test_app_that_never_returns() -> None:
    board = make_rig().board
    board.faults.no_return = True
    board.start_app(DfuApp(0xCAFE, 0x4000, "1234"))
    board.control(0x21, DETACH, 700, b"", 0)
    assert later(board, 60) is None


# --- FORCE_DOWNLOAD_BOOT ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rtc", [False, True])
def test_only_reset_of_rtc_lets_app_start_again(rtc: bool) -> None:
    board = make_rig().board
    board.start_app(DfuApp(0xCAFE, 0x4000, "1234", Mode.DFU))
    board.control(0x21, DETACH, 700, b"", 0)
    assert later(board, 0.6) is Mode.DFU
    board.reset(rtc=rtc)
    now = later(board, 0.5)
    assert now is (board.app if rtc else Mode.RUN_TIME)
    assert board.rom.force_download is not rtc


def test_bus_reset_after_handover_returns_to_rom() -> None:
    board = console_board()
    board.control(0x21, DETACH, 700, b"", 0)
    assert later(board, 0.6) is Mode.DFU
    with pytest.raises(DeviceGone):
        board.reset_bus()
    assert later(board, 0.5) is Mode.RUN_TIME


def test_bus_reset_of_app_changes_nothing() -> None:
    board = console_board()
    board.reset_bus()
    assert later(board, 1) is board.app


# --- a USB-UART bridge ------------------------------------------------------------------------------------


class Lines:
    """Sets DTR and RTS of a bridge, one after the other, as pyserial does."""

    def __init__(self, bridge: Bridge, kind: str) -> None:
        self.bridge, self.kind = bridge, kind
        self.dtr = self.rts = False

    def set(self, dtr: bool | None = None, rts: bool | None = None) -> None:
        self.dtr, self.rts = self.dtr if dtr is None else dtr, self.rts if rts is None else rts
        if self.kind == "cp210x":
            value = 0x300 | self.dtr | self.rts << 1
            if dtr is None or rts is None:
                value &= ~0x200 if rts is None else ~0x100
            self.bridge.control(0x41, 0x07, value, b"", 0)
        elif self.kind == "cp210x flow":
            flow = (self.dtr).to_bytes(4, "little") + (self.rts << 6).to_bytes(4, "little") + bytes(8)
            self.bridge.control(0x41, 0x13, 0, flow, 0)
        else:
            self.bridge.control(0x40, 0xA4, ~(self.dtr << 5 | self.rts << 6) & 0xFFFF, b"", 0)


@contextmanager
def bridged(text: str = "esp32s3+app=cafe:4000,bridge=10c4:ea60") -> Iterator[tuple[Simulation, Board, Bridge]]:
    simulation = simulate_text(text, chips(), VirtualClock())
    yield simulation, simulation.boards[0], simulation.bridges[0]


KINDS = pytest.mark.parametrize("kind", ["cp210x", "cp210x flow", "ch341"])


@KINDS
def test_classic_reset_enters_download_mode(kind: str) -> None:
    """The order of esptool's ClassicReset."""
    with bridged() as (_, board, bridge):
        lines = Lines(bridge, kind)
        lines.set(dtr=False)
        lines.set(rts=True)
        assert later(board, 0.1) is None  # EN is low
        lines.set(dtr=True)
        lines.set(rts=False)
        assert later(board, 0.05) is None
        lines.set(dtr=False)
        assert later(board, 0.5) is Mode.RUN_TIME
        assert not board.rom.force_download


@KINDS
def test_pulse_on_en_starts_app(kind: str) -> None:
    with bridged() as (_, board, bridge):
        board.control(0x21, DETACH, 700, b"", 0)
        assert later(board, 0.6) is Mode.RUN_TIME
        lines = Lines(bridge, kind)
        lines.set(rts=True)
        assert later(board, 10) is None
        lines.set(rts=False)
        assert later(board, 0.5) is board.app
        assert not board.rom.force_download  # EN resets the RTC


@pytest.mark.parametrize("state", [(False, False), (True, True), (True, False)])
def test_other_line_states_reset_nothing(state: tuple[bool, bool]) -> None:
    with bridged() as (_, board, bridge):
        address = board.address
        Lines(bridge, "cp210x").set(*state)
        assert later(board, 1) is board.app
        assert board.address == address


@pytest.mark.parametrize("pieces", [[b"\xc0\x00\x08\x24"], [b"xx\xc0", b"\x00", b"\x08"]], ids=str)
def test_sync_on_uart_makes_rom_deaf_until_reset(pieces: list[bytes]) -> None:
    with bridged("esp32s3+held,bridge=1a86:7523") as (_, board, bridge):
        for piece in pieces:
            board.control(0xA1, GETSTATE, 0, b"", 1)
            bridge.write(piece)
        with pytest.raises(ControlTimeout):
            board.control(0xA1, GETSTATE, 0, b"", 1)
        assert board.present
        lines = Lines(bridge, "ch341")
        lines.set(rts=True)
        lines.set(rts=False)
        assert later(board, 0.5) is Mode.RUN_TIME
        assert board.control(0xA1, GETSTATE, 0, b"", 1) == b"\0"


@pytest.mark.parametrize(("text", "data"), [("esp32s3", b"AT\r\n"), ("esp32s3+app=cafe:4000", b"\xc0\x00\x08")])
def test_other_bytes_and_apps_stay_responsive(text: str, data: bytes) -> None:
    with bridged(f"{text},bridge=10c4:ea60") as (_, board, bridge):
        bridge.write(data)
        board.control(0x80, 0x06, 0x0100, b"", 18)


def test_bridge_is_a_device_on_the_bus() -> None:
    with bridged() as (simulation, _, direct):
        assert direct.control(0x80, 6, 0x0100, b"", 18) == direct.device_descriptor
        assert direct.control(0x80, 6, 0x0200, b"", 255) == direct.configuration_descriptor
        for request_type, request, value in ((0x80, 6, 0x0300), (0x21, 0x20, 0)):  # strings, CDC
            with pytest.raises(ControlStall):
                direct.control(request_type, request, value, b"", 255)
        board, bridge = simulation.bus.scan()
        assert [board.path, bridge.path] == ["1-1", "1-2"]
        assert bridge.usb_id == "10c4:ea60"
        assert [i.class_ for i in bridge.interfaces] == [0xFF]


@pytest.mark.parametrize(
    "text",
    ["bridge=10c4:ea60", "esp32s3,bridge=10c4", "esp32s3,bridge=10c4:ea60+dfu", "esp32s3+app=1:2", "esp32s3+touch=xyz"],
)
def test_wrong_words_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="simulate"):
        simulate_text(text, chips(), VirtualClock())


@pytest.mark.parametrize("text", ["esp32s3", "esp32s3+app", "esp32s3+app=cafe:4000"])
def test_request_with_data_to_device_has_none_in_return(text: str) -> None:
    """USB/IP sends the length of wLength in both directions."""
    (board,) = simulate_text(text, chips(), VirtualClock()).boards
    assert board.control(0x21, SET_LINE_CODING, 0, BAUD_1200, len(BAUD_1200)) == b""
