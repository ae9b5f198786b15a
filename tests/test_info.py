"""What `esp-dfu info` learns of the boards."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from esp_dfu_ext import Flasher, FlashOptions, FlashResult
from esp_dfu_ext.clock import VirtualClock
from esp_dfu_ext.commands.flash_run import FlashArguments
from esp_dfu_ext.commands.info import _jedec, board_document, revision_of
from esp_dfu_ext.dfu.discovery import Selector
from esp_dfu_ext.dfu.spec import Mode
from esp_dfu_ext.errors import OtherMacError, SerialLoaderError, UsageError
from esp_dfu_ext.events import Event, Waiting, ignore
from esp_dfu_ext.operations.flash import flash_board
from esp_dfu_ext.operations.flash_setup import FlashSetup
from esp_dfu_ext.operations.info import BoardInfo, board_infos
from esp_dfu_ext.operations.verify import verify_board
from esp_dfu_ext.simulator import Board, simulate_text

from .kit.archives import CHIP_SIZE, checked
from .kit.boards import Rig, make_rig
from .kit.chips import chips
from .kit.esptool_chips import KNOWN
from .kit.host import DNLOAD
from .test_acquaint import burn


def infos(rig: Rig, *paths: str) -> list[BoardInfo]:
    """Return what is known of the boards."""
    return list(board_infos(rig.bus, chips(), rig.clock, paths))


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("mode", [Mode.RUN_TIME, Mode.DFU])
@pytest.mark.parametrize("encryption", [False, True])
def test_board_says_who_it_is(name: str, mode: Mode, encryption: bool) -> None:
    rig = make_rig(name, mode=mode)
    if encryption:
        burn(rig)
    (board,) = infos(rig)
    assert board.problem is None
    assert board.identity is not None and board.revision is not None
    assert (board.path, board.target.name, board.mode) == ("1-1", name, mode)
    assert (board.identity.mac, board.identity.flash_size) == ("7c:df:a1:00:00:01", CHIP_SIZE)
    assert board.identity.security.flash_encryption is encryption
    document = board_document(board)
    assert (document.mac, document.flash_size, document.flash_encryption) == (
        "7c:df:a1:00:00:01",
        CHIP_SIZE,
        encryption,
    )
    assert rig.board.rom.mode is mode
    assert [t for t in rig.log if t.is_dfu] == []
    assert rig.board.kernel_driver
    assert rig.handles == 0


def test_boards_with_one_serial_number_differ_by_mac() -> None:
    rig = make_rig("esp32s2", "esp32s2")
    boards = infos(rig)
    assert [board.serial for board in boards] == ["0", "0"]
    assert [b.identity.mac for b in boards if b.identity] == ["7c:df:a1:00:00:01", "7c:df:a1:00:00:02"]


def test_only_named_boards_are_asked() -> None:
    rig = make_rig("esp32s3", "esp32s3")
    assert [board.path for board in infos(rig, "1-2")] == ["1-2"]
    asked = [board.rom.loader is not None and board.rom.loader.active for board in rig.boards]
    assert asked == [False, True]


def test_board_that_cannot_be_asked_does_not_stop_the_others() -> None:
    simulation = simulate_text("esp32s3+no-access,esp32s3+app,esp32s3", chips(), VirtualClock())
    boards = list(board_infos(simulation.bus, chips(), simulation.boards[0].clock))
    assert [board.problem.code if board.problem else "" for board in boards] == ["no-permission", "serial-loader", ""]
    assert isinstance(boards[1].problem, SerialLoaderError)
    assert boards[0].identity is None and board_document(boards[0]).mac is None


def test_numbers_are_shown_as_esptool_shows_them() -> None:
    (board,) = infos(make_rig())
    assert revision_of(replace(board, revision=102)) == "v1.2"
    assert revision_of(replace(board, revision=None)) is None
    assert _jedec(0x1640EF) == ("ef", "4016")


# --- --mac ------------------------------------------------------------------------------------------------


def flash_mac(rig: Rig, mac: str, wait: float = 0.0) -> FlashResult:
    """Flash the board with this MAC address."""
    flasher = Flasher(FlashOptions(wait=wait), bus=rig.bus, targets=chips(), clock=rig.clock, on_event=rig.handle)
    return flasher.flash(checked(target=rig.boards[0].target), mac=mac)


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("mode", [Mode.RUN_TIME, Mode.DFU])
def test_mac_selects_a_board(name: str, mode: Mode) -> None:
    rig = make_rig(name, name, name, mode=mode)
    result = flash_mac(rig, "7C:DF:A1:00:00:02")
    assert (result.path, result.mac) == ("1-2", "7c:df:a1:00:00:02")
    rig.assert_flashed(board=rig.boards[1])
    assert {t.path for t in rig.dfu(DNLOAD)} == {"1-2"}


@pytest.mark.parametrize("name", ["esp32s2", "esp32s3"])
def test_board_that_took_the_place_of_the_chosen_one_is_refused(name: str) -> None:
    rig = make_rig(name, name, mode=Mode.DFU)
    options = FlashOptions()
    setup = FlashSetup(checked(target=rig.boards[0].target), options, rig.bus, chips(), rig.clock, ignore)
    with pytest.raises(OtherMacError, match=r"port 1-1 has the MAC address 7c:df:a1:00:00:01; 7c:df:a1:00:00:02 was"):
        flash_board(setup, Selector(path="1-1", mac="7c:df:a1:00:00:02"))
    assert not rig.dfu(DNLOAD)
    with pytest.raises(OtherMacError, match=r"port 1-1 has the MAC address 7c:df:a1:00:00:01; 7c:df:a1:00:00:02 was"):
        verify_board(setup.image, Selector("1-1", mac="7c:df:a1:00:00:02"), rig.bus, chips(), rig.clock, ignore)


def test_no_board_with_this_mac() -> None:
    rig = make_rig("esp32s2", "esp32s2")
    rig.boards[1].holders[1] = object()
    with pytest.raises(OtherMacError, match="7c:df:a1:00:00:09") as caught:
        flash_mac(rig, "7c:df:a1:00:00:09")
    assert any("MAC 7c:df:a1:00:00:01" in note for note in caught.value.notes)
    assert any("1-2: ESP32-S2, MAC unknown" in note for note in caught.value.notes)
    assert rig.dfu(DNLOAD) == []


def test_board_with_this_mac_is_waited_for() -> None:
    rig = make_rig("esp32s2", "esp32s2")
    late = rig.boards[1]
    rig.remove(late)
    added: list[Board] = []

    def on_event(event: Event) -> None:
        if isinstance(event, Waiting) and not added:
            added.append(Board.make(late.target, "1-2", rig.clock, number=2, flash_size=CHIP_SIZE))
            rig.add(added[0])

    rig.on_event = on_event
    assert flash_mac(rig, "7c:df:a1:00:00:02", wait=5).path == "1-2"


@pytest.mark.parametrize(
    "options",
    [{"mac": "7c"}, *({"mac": "7c:df:a1:00:00:02", **more} for more in (
        {"paths": ("1-1",)}, {"all": True}, {"serial": "1"}, {"watch": True}, {"no_loader": True}, {"over": "serial"},
    ))],
)  # fmt: skip
def test_options_that_contradict_mac(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"MAC|--mac"):
        FlashArguments(**options).check()
