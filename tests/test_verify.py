"""`--verify` and `esp-dfu verify`: the serial loader's MD5s, independent of DFU's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from esp_dfu_ext import build, load_target
from esp_dfu_ext.commands.flash_run import FlashArguments
from esp_dfu_ext.dfu.discovery import Selector
from esp_dfu_ext.dfu.spec import Mode
from esp_dfu_ext.errors import (
    DeviceBusyError,
    DeviceGoneError,
    FlashDiffersError,
    OtherChipError,
    SerialLoaderError,
    UsageError,
)
from esp_dfu_ext.events import Phase, PhaseFinished
from esp_dfu_ext.operations.verify import VerifyResult, verify_board
from esp_dfu_ext.simulator.sample import write_sample_project
from esp_dfu_ext.target import Target

from .kit.archives import CHIP_SIZE, FILES, checked, image_of, small_image
from .kit.boards import Rig, make_rig
from .kit.chips import chip, chips
from .kit.commands import esp_dfu
from .kit.esptool_chips import KNOWN
from .kit.host import DNLOAD
from .test_acquaint import burn

CHECKOUT = Path(__file__).resolve().parent.parent


def verify(rig: Rig, target: Target | None = None) -> VerifyResult:
    """Compare the flash memory of the only board with the small image."""
    target = target or rig.board.target
    image = checked(image_of(FILES, target, CHIP_SIZE), target)
    return verify_board(image, Selector(), rig.bus, chips(), rig.clock, rig.handle)


def damage(rig: Rig, address: int) -> None:
    """Change a byte in the flash memory."""
    rig.board.rom.flash.program(address, b"\0")


def damage_after_download(rig: Rig) -> None:
    """Change a byte of the app after the chip has compared its own MD5s."""

    def on_event(event: Any) -> None:
        if isinstance(event, PhaseFinished) and event.phase is Phase.VERIFY:
            damage(rig, FILES[2].address)

    rig.on_event = on_event


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("mode", [Mode.RUN_TIME, Mode.DFU])
@pytest.mark.parametrize("skip_flashed", [False, True])
def test_flash_is_compared_once_more(name: str, mode: Mode, skip_flashed: bool) -> None:
    rig = make_rig(name, mode=mode)
    rig.flash(verify=True, skip_flashed=skip_flashed)
    rig.assert_flashed()
    assert rig.phases()[-3:] == ["download", "verify", "check"]


@pytest.mark.parametrize("name", KNOWN)
def test_byte_that_changed_after_dfus_own_check_is_found(name: str) -> None:
    rig = make_rig(name)
    damage_after_download(rig)
    with pytest.raises(FlashDiffersError, match=r"does not hold app\.bin") as caught:
        rig.flash(verify=True)
    assert caught.value.files == ("app.bin",)
    assert any("app.bin at 0x10000 has MD5 " in note for note in caught.value.notes)
    assert rig.board.kernel_driver


def test_flash_without_the_option_is_not_compared() -> None:
    rig = make_rig()
    damage_after_download(rig)
    rig.flash()
    assert "check" not in rig.phases()


def test_parts_that_were_skipped_are_compared_too() -> None:
    rig = make_rig()
    for file in FILES[:2]:  # so that the app is sent
        rig.board.rom.flash.program(file.address, file.data)

    def on_event(event: Any) -> None:
        if isinstance(event, PhaseFinished) and event.phase is Phase.COMPARE:
            damage(rig, FILES[1].address)

    rig.on_event = on_event
    with pytest.raises(FlashDiffersError, match=r"does not hold partition-table\.bin"):
        rig.flash(verify=True, skip_flashed=True)


@pytest.mark.parametrize("cause", ["held", "off"])
def test_nothing_is_written_if_loader_cannot_be_asked(cause: str) -> None:
    rig = make_rig(mode=Mode.DFU)
    if cause == "held":
        rig.board.holders[1] = object()
    with pytest.raises((DeviceBusyError, SerialLoaderError)) as caught:
        rig.flash(verify=True, no_loader=cause == "off")
    assert isinstance(caught.value, DeviceBusyError) == (cause == "held")
    assert caught.value.notes[-1] == "Nothing was written."
    assert rig.notices() == []
    assert rig.dfu(DNLOAD) == []


@pytest.mark.parametrize("options", [{"no_loader": True}, {"over": "serial"}])
def test_options_that_contradict_it(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--verify"):
        FlashArguments(verify=True, **options).check()


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("mode", [Mode.RUN_TIME, Mode.DFU])
def test_board_that_holds_the_image(name: str, mode: Mode) -> None:
    rig = make_rig(name, mode=mode)
    for file in FILES:
        rig.board.rom.flash.program(file.address, file.data)
    result = verify(rig)
    assert (result.path, result.identity.mac, result.size) == (
        "1-1",
        "7c:df:a1:00:00:01",
        small_image(name).payload_size,
    )
    assert rig.board.rom.mode is mode
    assert [t for t in rig.log if t.is_dfu] == []
    assert rig.board.kernel_driver


@pytest.mark.parametrize("name", KNOWN)
def test_board_that_holds_something_else(name: str) -> None:
    rig = make_rig(name)
    difference = verify(rig).difference
    assert difference is not None
    assert "does not hold the image" in difference.message
    assert difference.files == tuple(file.name for file in FILES)
    assert not any("encryption" in note for note in difference.notes)


def test_encrypted_board_is_said_to_differ_always() -> None:
    rig = make_rig()
    burn(rig)
    difference = verify(rig).difference
    assert difference is not None
    assert "Flash encryption is enabled" in difference.notes[-1]


def test_verify_of_board_without_loader_is_an_error() -> None:
    rig = make_rig()
    rig.board.holders[1] = object()
    with pytest.raises(DeviceBusyError):
        verify(rig)


def test_chip_whose_file_turns_the_loader_off_is_not_asked() -> None:
    rig = make_rig()
    target = rig.board.target
    assert target.serial_loader is not None
    off = msgspec.structs.replace(target.serial_loader, use=False)
    with pytest.raises(SerialLoaderError, match="is not used") as caught:
        verify(rig, msgspec.structs.replace(target, serial_loader=off))
    assert caught.value.reason == "off"
    assert not rig.board.rom.serial_loader_active


def test_board_that_leaves_in_verify_is_gone() -> None:
    rig = make_rig()
    rig.on_event = lambda event: rig.board.unplug() if getattr(event, "phase", None) is Phase.CHECK else None
    with pytest.raises(DeviceGoneError):
        verify(rig)


def test_chip_is_the_one_of_the_image() -> None:
    rig = make_rig("esp32s2")
    with pytest.raises(OtherChipError):
        verify(rig, chip("esp32s3"))


# --- the command ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s2_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dfu.bin for chips whose serial number is always "0"."""
    folder = tmp_path_factory.mktemp("project")
    return build(write_sample_project(folder, load_target("esp32s2"), app_size=8_000, bootloader_size=4_000)).path


def document(dfu_bin: Path, boards: str, *options: str) -> tuple[int, dict[str, Any]]:
    """Run the command with --json; return its exit code and the document, which fits the schema."""
    done = esp_dfu("verify", dfu_bin, "--json", *options, boards=boards)
    schema = json.loads((CHECKOUT / "docs" / "verify.schema.json").read_text(encoding="utf-8"))
    found = json.loads(done.stdout)
    jsonschema.Draft202012Validator({**schema, "additionalProperties": False}).validate(found)
    return done.returncode, found


def test_mac_selects_the_board_and_document_says_what_it_holds(s2_image: Path) -> None:
    boards = f"esp32s2,esp32s2+holds={s2_image}"
    code, held = document(s2_image, boards, "--mac", "7C:DF:A1:00:00:02")
    assert (code, held["ok"], held["different"], held["problem"]) == (0, True, [], None)
    assert (held["path"], held["serial"], held["mac"]) == ("1-2", "0", "7c:df:a1:00:00:02")
    code, empty = document(s2_image, boards, "--mac", "7c:df:a1:00:00:01")
    assert (code, empty["path"], empty["ok"], empty["problem"]["code"]) == (74, "1-1", False, "flash-differs")
    assert "hello_world.bin" in empty["different"]
    assert empty["size"] == held["size"] > 12_000


def test_no_document_of_board_that_cannot_be_asked(s2_image: Path) -> None:
    done = esp_dfu("verify", s2_image, "--json", boards="esp32s2+app")
    assert (done.returncode, done.stdout) == (74, "")
    assert "[serial-loader]" in done.stderr
    done = esp_dfu("verify", s2_image, "--json", "--mac", "7c:df:a1:00:00:09", boards="esp32s2")
    assert (done.returncode, done.stdout) == (69, "")
    assert "[other-mac]" in done.stderr


@pytest.mark.parametrize("options", [("--mac", "7c"), ("--mac", "7c:df:a1:00:00:01", "--path", "1-1")])
def test_mac_that_cannot_be_used(s2_image: Path, options: tuple[str, ...]) -> None:
    done = esp_dfu("verify", s2_image, *options, boards="esp32s2")
    assert done.returncode == 64
    assert "MAC" in done.stderr.upper()
