"""inspect and load_image: reading a dfu.bin, and refusing what cannot be flashed, or is outdated."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import msgspec
import pytest

from esp_dfu_ext.errors import FirmwareError, ImageError, InputMissingError, WrongTargetError
from esp_dfu_ext.events import Event
from esp_dfu_ext.image.firmware import image_files, missing_names
from esp_dfu_ext.operations.build import build
from esp_dfu_ext.operations.inspect import CheckedImage, inspect, load_image, outdated_files
from esp_dfu_ext.target import TARGETS_VARIABLE, load_target

from .kit.archives import File, cpio_member, dfu_file, dfu_image, flash_params
from .kit.commands import run
from .kit.files import write_file
from .kit.projects import CHIP_ID, app_description, esp_image, make_project, notices, own_chip


@pytest.fixture(autouse=True)
def _only_our_chips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TARGETS_VARIABLE, raising=False)


def test_image_is_read_with_its_chip(tmp_path: Path) -> None:
    path = write_file(tmp_path / "dfu.bin", dfu_image([File(0x1000, "a.bin", b"abc")], pid=0x12))
    result = inspect(path)
    assert (result.path, result.problems) == (path, ())
    assert result.target is not None and result.target.name == "esp32p4"
    assert [(m.name, bytes(m.data)) for m in result.image.flash_members] == [("a.bin", b"abc")]
    checked = CheckedImage(path, result.image, result.target)
    assert load_image(path) == checked
    assert load_image(str(path), load_target("esp32p4")) == checked


def test_image_for_unknown_chip_is_read_but_not_flashed(tmp_path: Path) -> None:
    path = write_file(tmp_path / "dfu.bin", dfu_image([File(0, "a.bin", b"abc")], pid=0x1001))
    result = inspect(path)
    assert result.target is None
    assert result.problems == ("No known chip has the USB ID 303a:1001.",)
    with pytest.raises(ImageError) as caught:
        load_image(path)
    assert "303a:1001" in caught.value.notes[0]


@pytest.mark.parametrize(
    ("pid", "vid", "made_for"), [(2, 0x303A, "esp32s2"), (9, 0x1234, "1234:0009"), (0xABC, 0x303A, "303a:0abc")]
)
def test_image_for_another_chip_is_not_flashed(pid: int, vid: int, made_for: str, tmp_path: Path) -> None:
    path = write_file(tmp_path / "dfu.bin", dfu_image([File(0, "a.bin", b"abc")], pid=pid, vid=vid))
    with pytest.raises(WrongTargetError) as caught:
        load_image(path, load_target("esp32s3"))
    assert (caught.value.image_target, caught.value.target) == (made_for, "esp32s3")
    assert str(path) in caught.value.message


def test_image_that_rom_would_flash_wrongly_is_not_flashed(tmp_path: Path) -> None:
    files = [File(0x2, "a.bin", b"abc"), File(0x100, "b.bin", b"abc")]
    path = write_file(tmp_path / "dfu.bin", dfu_image(files))
    assert len(inspect(path).problems) == 2
    with pytest.raises(ImageError) as caught:
        load_image(path, load_target("esp32s3"))
    assert caught.value.notes == inspect(path).problems
    assert str(path) in caught.value.message


def test_damaged_or_missing_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError):
        load_image(tmp_path / "dfu.bin")
    for data in (b"", b"\0" * 10256, dfu_image([File(0, "a", b"abc")])[:-1]):
        path = write_file(tmp_path / "dfu.bin", data)
        with pytest.raises(ImageError, match="damaged or not a DFU image") as caught:
            load_image(path)
        assert str(path) in caught.value.message


def test_flash_params_of_wrong_length_are_refused_with_file_name(tmp_path: Path) -> None:
    data = dfu_image([File(0, "a", b"abc")])[:-16].replace(
        cpio_member("flash_params.dat", flash_params()), cpio_member("flash_params.dat", flash_params()[:28])
    )
    path = write_file(tmp_path / "dfu.bin", dfu_file(data))
    with pytest.raises(ImageError) as caught:
        load_image(path)
    shown = "\n".join([caught.value.message, *caught.value.notes])
    assert str(path) in shown and "28 bytes instead of 32" in shown


def test_own_chip_is_found_by_its_usb_id(tmp_path: Path) -> None:
    own = msgspec.structs.replace(load_target("esp32s3"), name="mine", source=None)
    own = msgspec.structs.replace(own, usb=msgspec.structs.replace(own.usb, pid=0x77))
    path = write_file(tmp_path / "dfu.bin", dfu_image([File(0x8000, "a", b"abc")], pid=0x77))
    assert load_image(path, own).target == own
    assert load_image(path, None, [own]).target == own


def test_chip_file_of_project_wins_over_built_in_one(tmp_path: Path) -> None:
    """Both have the same name and USB ID."""
    folder = make_project(tmp_path)
    own_chip(tmp_path / "dfu_targets", "esp32s3", 9)
    own = load_target("esp32s3", tmp_path)
    assert own != load_target("esp32s3")
    assert load_image(build(folder).path, own).target == own


# --- outdated images --------------------------------------------------------------------------------------


def test_files_that_changed_since_are_found(tmp_path: Path) -> None:
    folder = make_project(tmp_path)
    image = load_image(build(folder, part_size=4096).path).image
    os.utime(folder / "hello.bin", (4e9, 4e9))  # touched, copied, or checked out: it is the same
    assert outdated_files(image, folder) == []
    for file in ("hello.bin", "bootloader/bootloader.bin"):
        changed = bytearray((folder / file).read_bytes())
        changed[-40] ^= 1
        write_file(folder / file, bytes(changed))
        os.utime(folder / file, (1, 1))
    assert outdated_files(image, folder) == [folder / "bootloader/bootloader.bin", folder / "hello.bin"]
    write_file(folder / "bootloader/bootloader.bin", b"longer" * 1000)
    assert outdated_files(image, folder) == [folder / "bootloader/bootloader.bin", folder / "hello.bin"]


def test_image_of_a_part_of_the_build_is_not_outdated(tmp_path: Path) -> None:
    folder = make_project(tmp_path)
    image = load_image(build(folder, sections=["app"]).path).image
    write_file(folder / "ota_data_initial.bin", b"another")
    assert outdated_files(image, folder) == []


@pytest.mark.parametrize("gone", ["flasher_args.json", "hello.bin"])
def test_files_that_cannot_be_compared_are_not_outdated(gone: str, tmp_path: Path) -> None:
    folder = make_project(tmp_path)
    image = load_image(build(folder).path).image
    (folder / gone).unlink()
    assert outdated_files(image, folder) == []


def test_broken_project_does_not_stop_flash(tmp_path: Path) -> None:
    image = load_image(build(make_project(tmp_path)).path).image
    write_file(tmp_path / "flasher_args.json", b"{")
    assert outdated_files(image, tmp_path) == []


# --- the firmware in an image -----------------------------------------------------------------------------


def _image(folder: Path, *files: tuple[int, str, bytes], chip: str = "esp32s2") -> Path:
    """Write a dfu.bin without the package, for a chip."""
    made = dfu_image([File(address, name, data) for address, name, data in files], CHIP_ID[chip])
    return write_file(folder / "dfu.bin", made)


def _app(chip: str = "esp32s2", version: str = "1.2.3") -> bytes:
    return esp_image(CHIP_ID[chip], app=app_description("hello", version))


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ([(0x10000, "a.bin", _app("esp32s3"))], "a.bin for 0x10000 is for chip ID 9, but ESP32-S2 is chip ID 2."),
        ([(0x10000, "a.bin", _app()[:-50])], "a.bin for 0x10000 is damaged: "),
        ([(0x1000, "b.bin", esp_image(9)), (0x10000, "a.bin", _app())], "b.bin for 0x1000 is for chip ID 9, "),
        ([(0x1000, "b.bin", b"text" * 200)], "b.bin for 0x1000 is the bootloader but not an ESP image."),
    ],
)
def test_firmware_that_the_chip_cannot_run_is_refused(
    files: list[tuple[int, str, bytes]], says: str, tmp_path: Path
) -> None:
    path = _image(tmp_path, *files)
    with pytest.raises(FirmwareError, match=r"dfu.bin contains images that are damaged or not for ESP32-S2") as caught:
        load_image(path)
    (note,) = caught.value.notes
    assert note.startswith(says)
    assert inspect(path).firmware_problems == (note,)
    events: list[Event] = []
    load_image(path, force=True, on_event=events.append)
    assert notices(events) == {"forced": note}


def test_firmware_of_a_co_processor_is_data(tmp_path: Path) -> None:
    files = [(0x10000, "app.bin", _app()), (0x100000, "slave_fw.bin", _app("esp32s3", "9.9.9"))]
    for order in (files, files[::-1]):
        image = load_image(_image(tmp_path, *order))
        assert image.app is not None
        assert image.app.version == "1.2.3"


def test_app_in_parts_is_checked_as_one(tmp_path: Path) -> None:
    sections = [("app", 0x10000, "hello.bin", esp_image(9, [b"x" * 9000], app=app_description("hello", "1.2.3")))]
    path = build(make_project(tmp_path, sections=sections), part_size=4096).path
    assert len(inspect(path).image.flash_members) == 3
    image = load_image(path)
    assert str(image.app) == "hello 1.2.3 (ESP-IDF v5.5.4, built Jul 1 2026 12:34:56)"


def test_image_without_any_file_is_refused(tmp_path: Path) -> None:
    path = _image(tmp_path)
    with pytest.raises(ImageError) as caught:
        load_image(path)
    assert caught.value.notes == ("The image has no flash file: the ROM would report success and write nothing.",)


@pytest.mark.parametrize(
    ("only", "missing"),
    [
        ([], ["partition-table"]),  # that of the project in this test is no table
        (["app"], ["bootloader", "partition-table", "otadata"]),
        (["app", "otadata"], ["bootloader", "partition-table"]),
        (["otadata"], []),
    ],
)
def test_parts_that_an_image_lacks_are_found(only: list[str], missing: list[str], tmp_path: Path) -> None:
    image = load_image(build(make_project(tmp_path), sections=only).path)
    assert missing_names(image_files(image.image), image.target) == missing


def test_otadata_is_missed_where_the_table_has_it(tmp_path: Path) -> None:
    row = struct.pack("<2sBBII16sI", b"\xaa\x50", 1, 0, 0xD000, 0x2000, b"otadata", 0)
    files = [(0x1000, "b.bin", esp_image(2)), (0x8000, "t.bin", row.ljust(0xC00, b"\xff")), (0x10000, "a.bin", _app())]
    image = load_image(_image(tmp_path, *files))
    assert missing_names(image_files(image.image), image.target) == ["otadata"]
    image = load_image(_image(tmp_path, *files[:2], (0xD000, "o.bin", b"\xff" * 8192), files[2]))
    assert missing_names(image_files(image.image), image.target) == []


def test_json_holds_chip_firmware_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_project(
        tmp_path, sections=[("app", 0x10000, "app.bin", esp_image(app=app_description("blink", "1.2.3")))]
    )
    written = build(folder)
    assert run("inspect", written.path, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    (member,) = inspect(written.path).image.flash_members
    assert member.record is not None
    assert (document["target"], document["vid"], document["pid"]) == ("esp32s3", "303a", "0009")
    assert document["flash_size"] == 4 << 20
    assert document["app"] == {
        "project": "blink",
        "version": "1.2.3",
        "idf_version": "v5.5.4",
        "built": "Jul 1 2026 12:34:56",
    }
    assert document["files"] == [
        {"name": "app.bin", "address": 0x10000, "size": len(member.data), "md5": member.record.md5.hex()}
    ]
    assert (document["problems"], document["rom_status"]) == ([], "OK")


def test_json_of_build_is_that_of_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_project(tmp_path)
    assert run("build", folder, "--json") == 0
    made = capsys.readouterr().out
    assert run("inspect", folder / "dfu.bin", "--json") == 0
    assert json.loads(made) == json.loads(capsys.readouterr().out)


def test_json_names_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_file(tmp_path / "dfu.bin", dfu_image([File(0, "a.bin", b"abc")], pid=0x1001))
    assert run("inspect", path, "--json") == 65
    document = json.loads(capsys.readouterr().out)
    assert (document["target"], document["rom_status"]) == (None, None)
    assert document["problems"] == ["No known chip has the USB ID 303a:1001."]
