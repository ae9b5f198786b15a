"""inspect and load_image: reading a dfu.bin, and refusing what cannot be flashed; newer_inputs."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from esp_dfu_ext.errors import ImageError, InputMissingError, WrongTargetError
from esp_dfu_ext.operations.build import build
from esp_dfu_ext.operations.inspect import CheckedImage, inspect, load_image, newer_inputs
from esp_dfu_ext.target import TARGETS_VARIABLE, load_target

from .kit.archives import File, cpio_member, dfu_file, dfu_image, flash_params
from .kit.files import write_file
from .kit.projects import make_project, own_chip


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
    path = write_file(tmp_path / "dfu.bin", dfu_image([File(0, "a", b"abc")], pid=0x77))
    assert load_image(path, own).target == own
    assert load_image(path, None, [own]).target == own


def test_chip_file_of_project_wins_over_built_in_one(tmp_path: Path) -> None:
    """Both have the same name and USB ID."""
    folder = make_project(tmp_path)
    own_chip(tmp_path / "dfu_targets", "esp32s3", 9)
    own = load_target("esp32s3", tmp_path)
    assert own != load_target("esp32s3")
    assert load_image(build(folder).path, own).target == own


# --- newer inputs -----------------------------------------------------------------------------------------


def test_files_newer_than_image_are_found(tmp_path: Path) -> None:
    folder = make_project(tmp_path)
    path = build(folder).path
    made = path.stat().st_mtime
    for file in ("hello.bin", "ota_data_initial.bin", "bootloader/bootloader.bin"):
        os.utime(folder / file, (made - 10, made - 10))
    os.utime(folder / "partition_table/partition-table.bin", (made, made))
    assert newer_inputs(path, folder) == []
    os.utime(folder / "hello.bin", (made + 10, made + 10))
    assert newer_inputs(path, folder) == [folder / "hello.bin"]
    os.utime(folder / "bootloader/bootloader.bin", (made + 1, made + 1))
    assert newer_inputs(path, folder) == [folder / "bootloader/bootloader.bin", folder / "hello.bin"]


@pytest.mark.parametrize("gone", ["dfu.bin", "flasher_args.json", "hello.bin"])
def test_files_that_cannot_be_compared_are_not_newer(gone: str, tmp_path: Path) -> None:
    folder = make_project(tmp_path)
    path = build(folder).path
    for file in folder.rglob("*.bin"):
        os.utime(file, (1, 1))
    (folder / gone).unlink()
    assert newer_inputs(path, folder) == []


def test_broken_project_does_not_stop_flash(tmp_path: Path) -> None:
    path = write_file(tmp_path / "dfu.bin", b"x")
    write_file(tmp_path / "flasher_args.json", b"{")
    assert newer_inputs(path, tmp_path) == []
