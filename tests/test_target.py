"""Chips as YAML files: built-in, a user's own, and invalid ones."""

from __future__ import annotations

import copy
import re
from importlib.metadata import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

import esp_dfu_ext
from esp_dfu_ext.errors import EspDfuError, TargetFileError, TargetNotSupportedError
from esp_dfu_ext.target import (
    TARGETS_VARIABLE,
    builtin_folder,
    find_target_by_usb_id,
    load_target,
    load_targets,
    read_target,
    target_folders,
    target_names,
)
from esp_dfu_ext.units import parse_size

from .kit.files import write_file

BUILTIN = ["esp32p4", "esp32s2", "esp32s3", "esp32s31"]
GOOD: dict[str, Any] = yaml.safe_load((builtin_folder() / "esp32s3.yaml").read_text())


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TARGETS_VARIABLE, raising=False)
    read_target.cache_clear()


def chip(folder: Path, name: str = "esp32s3", /, **changes: object) -> Path:
    """Write a chip's file like the ESP32-S3's, with changes such as ``usb__pid=1``; None removes the key."""
    data = copy.deepcopy({**GOOD, "name": name})
    for key, value in changes.items():
        *groups, last = key.split("__")
        place = data
        for group in groups:
            place = place[group]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return write_file(folder / f"{name}.yaml", yaml.safe_dump(data).encode())


# --- built-in ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "chip_name", "pid", "bcd_device", "serial", "bootloader"),
    [
        ("esp32s2", "ESP32-S2", 0x0002, 0x0723, "fixed", 0x1000),
        ("esp32s3", "ESP32-S3", 0x0009, 0x0728, "mac", 0x0),
        ("esp32p4", "ESP32-P4", 0x0012, 0x0912, "mac", 0x2000),
        ("esp32s31", "ESP32-S31", 0x0020, 0x0764, "mac", 0x2000),
    ],
)
def test_built_in_chips_match_their_roms(
    name: str, chip_name: str, pid: int, bcd_device: int, serial: str, bootloader: int
) -> None:
    target = load_target(name)
    assert (target.name, target.chip) == (name, chip_name)
    assert (target.usb.vid, target.usb.pid, target.usb.bcd_device) == (0x303A, pid, bcd_device)
    assert target.usb_id == f"303a:{pid:04x}"
    assert target.usb.serial == serial
    assert target.usb.transfer_size == 64
    assert (target.firmware.chip_id, target.firmware.bootloader_offset) == (pid, bootloader)
    assert (target.flash.assumed_size, target.flash.limit) == (2 << 20, 16 << 20)
    assert (target.flash.block, target.flash.sector, target.flash.page) == (65536, 4096, 256)
    assert (target.dfu.part_size, target.dfu.index_records, target.dfu.name_length) == (512 << 10, 64, 63)
    assert target.dfu.raw_below == 232
    assert "4MB" in target.flash.sizes
    assert sorted(target.flash.sizes, key=parse_size) == list(target.flash.sizes)


def test_each_chip_describes_download_mode_and_disabled_dfu() -> None:
    straps = {target.name: target.download_mode.strap for target in load_targets()}
    assert "GPIO0" in straps["esp32s2"] and "GPIO0" in straps["esp32s3"]
    assert "GPIO35" in straps["esp32p4"] and "GPIO61" in straps["esp32s31"]
    for target in load_targets():
        assert target.download_mode.steps
        assert target.download_mode.d_plus != target.download_mode.d_minus


# As the executed ROMs answered with each bit of RD_REPEAT_DATA set alone: no other bit keeps DFU from appearing.
CLOSING_EFUSES = {
    "esp32p4": {"DIS_DOWNLOAD_MODE", "DIS_USB_OTG_DOWNLOAD_MODE", "ENABLE_SECURITY_DOWNLOAD"},
    "esp32s2": {"DIS_DOWNLOAD_MODE", "DIS_USB", "DIS_USB_DOWNLOAD_MODE", "ENABLE_SECURITY_DOWNLOAD"},
    "esp32s3": {"DIS_DOWNLOAD_MODE", "DIS_USB_OTG", "DIS_USB_OTG_DOWNLOAD_MODE", "ENABLE_SECURITY_DOWNLOAD"},
    "esp32s31": {"DIS_DOWNLOAD_MODE", "DIS_USB_OTG_DOWNLOAD_MODE", "ENABLE_SECURITY_DOWNLOAD"},
}


@pytest.mark.parametrize("name", CLOSING_EFUSES)
def test_disabled_dfu_names_efuses_that_close_it(name: str) -> None:
    reasons = load_target(name).closed_by
    named = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", " ".join(reasons)))
    assert named == CLOSING_EFUSES[name]
    security = [reason for reason in reasons if "Secure Boot" in reason or "encryption" in reason]
    assert [reason.partition(", ")[0] for reason in security] == ["the eFuse ENABLE_SECURITY_DOWNLOAD"]


def test_only_chips_without_dfu_as_delivered_have_notice() -> None:
    notices = {target.name: target.notice for target in load_targets()}
    assert [name for name, notice in notices.items() if notice] == ["esp32s3"]
    assert notices["esp32s3"].startswith("ESP32-S3: as delivered, its USB pins belong to USB-Serial/JTAG")


def test_efuse_names_exist_in_esptool() -> None:
    spec = find_spec("espefuse")
    assert spec is not None and spec.origin is not None
    known = {path.stem: path.read_text() for path in (Path(spec.origin).parent / "efuse_defs").glob("*.yaml")}
    named = {
        (target.name, word)
        for target in load_targets()
        if target.name in known  # an older esptool knows fewer chips
        for word in re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", " ".join(target.closed_by))
    }
    assert {("esp32s2", "DIS_USB_DOWNLOAD_MODE"), ("esp32s3", "DIS_USB_OTG_DOWNLOAD_MODE")} <= named
    assert [(name, fuse) for name, fuse in sorted(named) if f" {fuse} " not in known[name]] == []


def test_s3_lists_usb_serial_jtag() -> None:
    assert [(other.vid, other.pid) for other in load_target("esp32s3").other_usb] == [(0x303A, 0x1001)]


def test_built_in_chips_are_sorted_by_name() -> None:
    assert target_names() == BUILTIN
    assert [target.name for target in load_targets()] == BUILTIN


def test_source_is_path_of_file() -> None:
    assert load_target("esp32s2").source == str(builtin_folder() / "esp32s2.yaml")


@pytest.mark.parametrize(
    ("vid", "pid", "name"),
    [(0x303A, 2, "esp32s2"), (0x303A, 0x20, "esp32s31"), (0x303A, 0x1001, None), (0x1234, 2, None)],
)
def test_chip_is_found_by_vid_and_pid(vid: int, pid: int, name: str | None) -> None:
    found = find_target_by_usb_id(vid, pid, load_targets())
    assert (found.name if found else None) == name


@pytest.mark.parametrize("name", ["esp32", "esp32c3", "linux", "", "../targets/esp32s3", "ESP32S3"])
def test_unsupported_chip_error_lists_supported_ones(name: str) -> None:
    with pytest.raises(TargetNotSupportedError) as caught:
        load_target(name)
    assert (caught.value.target, caught.value.supported) == (name, tuple(BUILTIN))
    assert name in caught.value.message
    assert caught.value.exit_code == 65


def test_package_code_names_no_chip() -> None:
    files = sorted(Path(esp_dfu_ext.__file__).parent.rglob("*.py"))
    assert len(files) > 50
    named = re.compile(r"esp32[-_]?[a-z]\d|(?<!\w)-[schp]\d", re.IGNORECASE)
    found = [f"{path}: {match[0]}" for path in files for match in named.finditer(path.read_text(encoding="utf-8"))]
    assert found == []


def test_package_metadata_names_every_chip() -> None:
    about = metadata("esp-dfu-ext")
    for target in load_targets():
        assert target.chip.removeprefix("ESP32") in about["Summary"]
        assert target.chip.lower() in about["Keywords"].split(",")


# --- a user's own -----------------------------------------------------------------------------------------


def test_project_chip_overrides_built_in(tmp_path: Path) -> None:
    path = chip(tmp_path / "dfu_targets", chip="Mine", usb__pid=0x99)
    target = load_target("esp32s3", tmp_path)
    assert (target.chip, target.usb_id, target.source) == ("Mine", "303a:0099", str(path))
    assert load_target("esp32s3").chip == "ESP32-S3"
    assert [t.chip for t in load_targets(tmp_path)] == ["ESP32-P4", "ESP32-S2", "Mine", "ESP32-S31"]


def test_environment_chip_overrides_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chip(tmp_path / "dfu_targets", chip="Projects")
    chip(tmp_path / "elsewhere", chip="Environments")
    monkeypatch.setenv(TARGETS_VARIABLE, str(tmp_path / "elsewhere"))
    assert load_target("esp32s3", tmp_path).chip == "Environments"
    assert load_target("esp32s3").chip == "Environments"
    assert target_folders(tmp_path) == [tmp_path / "elsewhere", tmp_path / "dfu_targets", builtin_folder()]


def test_new_chip_is_found_by_every_lookup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chip(tmp_path, "esp32x9", usb__pid=0x77)
    write_file(tmp_path / "README.md", b"no chip")
    write_file(tmp_path / "esp32y.yml", (builtin_folder() / "esp32s2.yaml").read_bytes().replace(b"esp32s2", b"esp32y"))
    monkeypatch.setenv(TARGETS_VARIABLE, str(tmp_path))
    assert target_names() == [*BUILTIN, "esp32x9", "esp32y"]
    assert load_target("esp32x9").usb_id == "303a:0077"
    assert load_target("esp32y").source == str(tmp_path / "esp32y.yml")
    found = find_target_by_usb_id(0x303A, 0x77, load_targets())
    assert found is not None and found.name == "esp32x9"


def test_project_without_chips_uses_built_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TARGETS_VARIABLE, "")
    assert target_folders(tmp_path) == [builtin_folder()]
    assert load_target("esp32p4", tmp_path).chip == "ESP32-P4"


@pytest.mark.parametrize("name", ["missing", "file.txt"])
def test_environment_variable_must_name_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file(tmp_path / "file.txt", b"")
    monkeypatch.setenv(TARGETS_VARIABLE, str(tmp_path / name))
    with pytest.raises(TargetFileError, match="ESP_DFU_TARGETS") as caught:
        load_target("esp32s3")
    assert str(tmp_path / name) in caught.value.message


def test_broken_file_affects_only_its_chip(tmp_path: Path) -> None:
    write_file(tmp_path / "dfu_targets" / "esp32s2.yaml", b"{")
    assert load_target("esp32s3", tmp_path).name == "esp32s3"
    with pytest.raises(TargetFileError):
        load_target("esp32s2", tmp_path)
    with pytest.raises(TargetFileError):
        load_targets(tmp_path)


# --- invalid files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"usb__pid": 0x1FFFF}, ["usb.pid", "65535"]),
        ({"usb__vid": -1}, ["usb.vid", "0"]),
        ({"usb__vid": "303a"}, ["usb.vid", "int", "str"]),
        ({"usb__vid": None}, ["usb", "vid", "missing"]),
        ({"usb__pidd": 9}, ["usb", "pidd", "bcd_device", "transfer_size"]),
        ({"usb__serial": "random"}, ["usb.serial", "random", "mac", "fixed"]),
        ({"usb__transfer_size": 0}, ["usb.transfer_size", "1"]),
        ({"firmware__chip_id": 1 << 80}, ["firmware.chip_id", "65535"]),
        ({"firmware": 5}, ["firmware", "int"]),
        ({"flash__sizes": []}, ["flash.sizes", "1"]),
        ({"flash__sizes": ["4MB", "8G"]}, ["flash", "sizes", "8G", "1M"]),
        ({"flash__sizes": [4]}, ["flash.sizes", "str"]),
        ({"flash__sector": 5000}, ["flash", "block must be a multiple of sector"]),
        ({"flash__page": 300}, ["flash", "sector a multiple of page"]),
        ({"flash__sector": 0}, ["flash.sector", "1"]),
        ({"flash__block": 1 << 32}, ["flash.block", str(0xFFFFFFFF)]),
        ({"dfu__part_size": 5000}, ["dfu", "part_size", "4096"]),
        ({"dfu__name_length": 64}, ["dfu.name_length", "63"]),
        ({"dfu__erase_timeout": 0}, ["dfu.erase_timeout", "> 0"]),
        ({"dfu__erase_timeout": float("inf")}, ["dfu.erase_timeout", "3600"]),
        ({"dfu__status_interval": 1.5}, ["dfu.status_interval", "int"]),
        ({"download_mode__steps": []}, ["download_mode.steps", "1"]),
        ({"download_mode__steps": [""]}, ["download_mode.steps", "1"]),
        ({"closed_by": "everything"}, ["closed_by", "array"]),
        ({"serial_loader": {"mac": 1}}, ["serial_loader", "chip_magic"]),
        ({"serial_loader": {"mca": 1}}, ["serial_loader", "mca", "allowed", "watchdog", "mac"]),
        ({"other_usb": [{"vid": 1}]}, ["other_usb", "pid"]),
        ({"schema": 2}, ["schema", "2", "1"]),
        ({"schema": None}, ["schema", "missing"]),
        ({"chip": ""}, ["chip", "1"]),
        ({"nmae": "x"}, ["nmae", "name", "download_mode"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_schema_error_names_file_key_and_allowed_values(
    changes: dict[str, object], said: list[str], tmp_path: Path
) -> None:
    path = chip(tmp_path, **changes)
    with pytest.raises(TargetFileError) as caught:
        read_target(path)
    file, _, rest = caught.value.message.partition(": ")
    assert file == str(path)
    for word in said:
        assert word in rest


def test_name_must_match_file(tmp_path: Path) -> None:
    path = chip(tmp_path, "esp32x").rename(tmp_path / "esp32y.yaml")
    with pytest.raises(TargetFileError, match=r"name: is 'esp32x'.*'esp32y'"):
        read_target(path)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"- 1",
        b"5",
        b"{",
        b"a: b: c",
        b"\xff\xfe\x00",
        b"\x00",
        b"[" * 600,
        b"&a [*a]",
        b"&a {schema: *a}",
        b"? [a]\n: b",
        b"1: 2",
        b"!!python/object:os.system x",
        b"2001-13-01",
        b"0x_",
        b"!!bool x",
        b"!!int ''",
        b"!!float x",
        b"!!timestamp x",
        b'"\\U00110000"',
        b'"\\ud800": 1',
        b'schema: "\\ud800"',
    ],
)
def test_invalid_file_is_refused_by_path(text: bytes, tmp_path: Path) -> None:
    path = write_file(tmp_path / "esp32s3.yaml", text)
    with pytest.raises(TargetFileError) as caught:
        read_target(path)
    assert str(path) in caught.value.message


def test_folder_instead_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "esp32s3.yaml").mkdir()
    with pytest.raises(TargetFileError, match=r"esp32s3\.yaml: cannot be read"):
        read_target(tmp_path / "esp32s3.yaml")


Path_ = tuple[str, ...]


def _places(data: object, path: Path_ = ()) -> list[Path_]:
    if not isinstance(data, dict):
        return [path]
    return [path] + [place for key, value in data.items() for place in _places(value, (*path, key))]


scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.dates())
junk = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(scalars, inner, max_size=3), max_leaves=5
)


@settings(deadline=None, max_examples=35)
@given(st.sampled_from(_places(GOOD)[1:]), junk)
def test_no_value_crashes_reader(tmp_path_factory: pytest.TempPathFactory, place: Path_, value: object) -> None:
    data = copy.deepcopy(GOOD)
    group = data
    for key in place[:-1]:
        group = group[key]
    group[place[-1]] = value
    _is_read_or_refused(tmp_path_factory.getbasetemp() / "esp32s3.yaml", yaml.safe_dump(data).encode())


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=60) | st.text("{}[]:-,&*!?|>'\"%@ \n#ab01", max_size=30).map(str.encode))
@example(b"%YAML 9.9\n---\n")
@example(b"<<: 1")
def test_no_text_crashes_reader(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    _is_read_or_refused(tmp_path_factory.getbasetemp() / "esp32s3.yaml", text)


def _is_read_or_refused(path: Path, text: bytes) -> None:
    path.write_bytes(text)
    read_target.cache_clear()
    try:
        target = read_target(path)
    except EspDfuError as error:
        assert isinstance(error, TargetFileError)
        assert error.message.startswith(f"{path}: ")
    else:
        assert target.name == "esp32s3"


@pytest.mark.parametrize("group", sorted(key for key, value in GOOD.items() if isinstance(value, dict)))
def test_each_group_refuses_unknown_keys(group: str, tmp_path: Path) -> None:
    with pytest.raises(TargetFileError, match="frobnicate"):
        read_target(chip(tmp_path, **{f"{group}__frobnicate": 1}))
