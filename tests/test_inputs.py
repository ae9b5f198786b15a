"""Builds of every tool: what is read from them, and that the chip gets what esptool would give it."""

from __future__ import annotations

import random
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from esp_dfu_ext.clock import SystemClock
from esp_dfu_ext.errors import (
    BuildFileError,
    EspDfuError,
    FirmwareError,
    LayoutError,
    NoBuildError,
    NoFlashSizeError,
    NoTargetError,
    OutsideProjectError,
    TargetNotSupportedError,
    UsageError,
    WrongInputError,
)
from esp_dfu_ext.events import Event
from esp_dfu_ext.image.format import parse_image
from esp_dfu_ext.image.partition_table import read_partition_table
from esp_dfu_ext.inputs.merged import Stretch, read_merged
from esp_dfu_ext.operations.build import ImageOptions, PreparedImage, build, prepare
from esp_dfu_ext.simulator import Board
from esp_dfu_ext.simulator.sample import write_sample_project

from .kit import builds
from .kit.builds import APP, ROWS, SECTOR
from .kit.chips import chip
from .kit.commands import run
from .kit.files import edit_json, write_file, write_json
from .kit.host import OK, new_rom, send
from .kit.projects import BOOTLOADER_OFFSET, app_description, esp_image, make_project, notices, project_sections
from .kit.serial_port import OLD_ESPTOOL, esptool, serial_port

MIB = 1 << 20
APP_SIZE = len(builds.app("esp32s3"))
OLD = b"\xa5"  # what flash memory held before

Capture = pytest.CaptureFixture[str]


@dataclass(frozen=True)
class Case:
    """An input: `make` writes it and returns the words for us, and those for esptool's write-flash."""

    name: str
    chip: str
    make: Callable[[Path, str], tuple[list[str], list[str]]]
    found: Sequence[tuple[int, str]]  # address and section or partition of each part
    left_out: Sequence[str] = ()  # partitions that keep what they hold, and that esptool erases

    def __str__(self) -> str:
        return f"{self.name}-{self.chip}"


def _esp_idf(folder: Path, name: str) -> tuple[list[str], list[str]]:
    sections = project_sections(name)
    build_dir = make_project(folder, name, sections=sections)
    return [str(build_dir)], [word for _, at, file, _ in sections for word in (hex(at), str(build_dir / file))]


def _pairs(folder: Path, name: str) -> tuple[list[str], list[str]]:
    words = builds.write_parts(folder, name)
    return words, words


def _merged(base: int | None, *options: str) -> Callable[[Path, str], tuple[list[str], list[str]]]:
    """Return the maker of a merged image that begins at `base`, None for the bootloader's offset."""

    def make(folder: Path, name: str) -> tuple[list[str], list[str]]:
        start = BOOTLOADER_OFFSET[name] if base is None else base
        words = [*builds.write_parts(folder, name), "0x50000", str(write_file(folder / "fs.bin", builds.storage()))]
        path = builds.merge_bin(folder / "merged.bin", name, words, "--target-offset", hex(start), *options)
        return [str(path)], [hex(start), str(path)]

    return make


def _hex(folder: Path, name: str) -> tuple[list[str], list[str]]:
    path = builds.merge_bin(folder / "merged.hex", name, builds.write_parts(folder, name), "--format", "hex")
    return [str(path)], ["0x0", str(path)]


def _flash_args(folder: Path, name: str) -> tuple[list[str], list[str]]:
    build_dir = builds.arduino_build(folder / "build", name)
    return [str(build_dir / "flash_args")], builds.write_parts(folder / "esptool", name)


def _arduino(flash_args: bool) -> Callable[[Path, str], tuple[list[str], list[str]]]:
    def make(folder: Path, name: str) -> tuple[list[str], list[str]]:
        words = builds.write_parts(folder / "esptool", name)
        return [str(builds.arduino_build(folder / "build", name, flash_args=flash_args))], words

    return make


def _platformio(folder: Path, name: str) -> tuple[list[str], list[str]]:
    builds.platformio_project(folder / "project", name, folder / "core" / "packages")
    return [str(folder / "project")], builds.write_parts(folder / "esptool", name)


def _platformio_by_names(folder: Path, name: str) -> tuple[list[str], list[str]]:
    env = builds.platformio_project(folder / "project", name, folder / "core" / "packages", idedata=False)
    words = builds.write_parts(folder / "esptool", name)
    del words[4:6]  # boot_app0.bin is not in the build folder
    return [str(env)], words


def _zephyr(folder: Path, name: str) -> tuple[list[str], list[str]]:
    build_dir = builds.zephyr_build(folder / "build", name)
    boot, signed = build_dir / "mcuboot/zephyr/zephyr.bin", build_dir / "hello/zephyr/zephyr.signed.bin"
    return [str(build_dir)], [hex(BOOTLOADER_OFFSET[name]), str(boot), "0x20000", str(signed)]


def _sections(name: str, *more: tuple[int, str], otadata: bool = True) -> list[tuple[int, str]]:
    found = [(BOOTLOADER_OFFSET[name], "bootloader"), (0x8000, "partition-table")]
    return [*found, *([(0xD000, "otadata")] if otadata else []), (APP, "app0"), *more]


FULL = ("esp32s2", "esp32s3", "esp32p4", "esp32s31")
CASES = [
    Case("esp-idf", "esp32s3", _esp_idf, [(0, "bootloader"), (0x8000, "partition-table"), (0xD000, "otadata"),
                                          (0x20000, "app")]),
    Case("pairs", "esp32p4", _pairs, _sections("esp32p4")),
    Case("merged", "esp32s2", _merged(0), _sections("esp32s2", (0x50000, "storage")), ("nvs", "phy_init", "app1")),
    Case("merged-at-bootloader", "esp32s2", _merged(None), _sections("esp32s2", (0x50000, "storage")),
         ("nvs", "phy_init", "app1")),
    Case("merged-padded", "esp32s3", _merged(0, "--pad-to-size", "1MB"), _sections("esp32s3", (0x50000, "storage")),
         ("nvs", "phy_init", "app1")),
    Case("hex", "esp32s3", _hex, _sections("esp32s3")),
    Case("flash-args", "esp32s2", _flash_args, _sections("esp32s2")),
    Case("arduino-3", "esp32s3", _arduino(True), _sections("esp32s3")),
    Case("arduino-2", "esp32s2", _arduino(False), _sections("esp32s2")),
    Case("platformio", "esp32s2", _platformio, _sections("esp32s2")),
    Case("platformio-without-idedata", "esp32s3", _platformio_by_names, _sections("esp32s3", otadata=False)),
    Case("zephyr", "esp32s3", _zephyr, [(0, "bootloader"), (0x20000, "")]),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATFORMIO_CORE_DIR", str(tmp_path / "core"))
    monkeypatch.setenv("ESPTOOL_CFGFILE", str(tmp_path / "none.cfg"))


def flashed(prepared: PreparedImage) -> bytes:
    """Return the flash memory of a chip, not empty before, after a download."""
    rom = new_rom(prepared.target.name)
    rom.flash.program(0, OLD * rom.flash.size)
    assert send(rom, bytes(parse_image(prepared.encode()).stream)) == OK
    return rom.flash.read(0, MIB)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_chip_gets_what_esptool_would_write(case: Case, tmp_path: Path) -> None:
    if OLD_ESPTOOL and case.name in ("hex", "merged-padded"):
        pytest.skip("esptool 4 merges and writes no Intel HEX, and pads otherwise")
    ours, theirs = case.make(tmp_path, case.chip)
    prepared = prepare(ours, ImageOptions())
    assert [(file.address, file.partition or file.section) for file, _ in prepared.files] == list(case.found)
    memory = flashed(prepared)
    board = Board.make(chip(case.chip), "1-1", SystemClock(), flash_size=4 * MIB)
    board.rom.flash.program(0, OLD * board.rom.flash.size)
    with serial_port(board) as port:
        done: Any = esptool(port, "write-flash", *theirs)
    assert "Hash of data verified" in getattr(done, "stdout", done), done
    expected = bytearray(board.rom.flash.read(0, MIB))
    kept = [(offset, size) for name, _, _, offset, size in ROWS if name in case.left_out]
    kept += [(builds.END, MIB - builds.END)] if case.name == "merged-padded" else []
    gaps = [] if not case.left_out else _gaps(memory, expected)
    for offset, size in [*kept, *gaps]:
        expected[offset : offset + size] = OLD * size
    assert memory == bytes(expected)


def _gaps(memory: bytes, expected: bytes | bytearray) -> list[tuple[int, int]]:
    """Return the sectors outside all partitions that a merged image filled with FF, and that we leave alone."""
    inside = [(offset, offset + size) for _, _, _, offset, size in ROWS]
    return [
        (start, SECTOR)
        for start in range(0, MIB, SECTOR)
        if expected[start : start + SECTOR] == b"\xff" * SECTOR and memory[start : start + SECTOR] == OLD * SECTOR
        and (not any(begin <= start < end for begin, end in inside) or APP + APP_SIZE <= start < 0x30000)
    ]  # fmt: skip


# --- merged images ----------------------------------------------------------------------------------------


def merged(name: str = "esp32s3", base: int = 0, size: int = builds.END, **more: bytes) -> bytes:
    """Return a merged image without esptool; `more` has the contents of further partitions."""
    image = bytearray(b"\xff" * size)
    contents = {address: content for address, (_, content) in builds.parts(name).items()}
    contents.update({offset: more[row] for row, _, _, offset, _ in ROWS if row in more})
    for address, content in contents.items():
        image[address : address + len(content)] = content
    return bytes(image[base:])


@pytest.mark.parametrize("base", [0, BOOTLOADER_OFFSET["esp32s2"]])
def test_header_of_bootloader_gives_size_of_merged_image(base: int, tmp_path: Path) -> None:
    data = merged("esp32s2", base)
    plan = read_merged(tmp_path / "merged.bin", [Stretch(base, data)], chip("esp32s2"))
    assert plan.chip_size == 4 * MIB


def parts_of(prepared: PreparedImage) -> dict[str, tuple[int, int]]:
    return {file.partition or file.section or file.name: (file.address, size) for file, size in prepared.files}


def test_erased_partition_keeps_what_it_holds_unless_included(tmp_path: Path) -> None:
    path = write_file(tmp_path / "merged.bin", merged())
    assert "nvs" not in parts_of(prepare(path, ImageOptions()))
    assert flashed(prepare(path, ImageOptions()))[0x9000:0xD000] == OLD * 0x4000
    included = prepare(path, ImageOptions(include=["nvs"]))
    assert parts_of(included)["nvs"] == (0x9000, 0x4000)
    assert flashed(included)[0x9000:0xD000] == b"\xff" * 0x4000


def test_data_with_content_is_written_whole(tmp_path: Path) -> None:
    """Old blocks of a file system or of NVS would be taken for new ones."""
    path = write_file(tmp_path / "merged.bin", merged(nvs=b"\1" * 32, storage=builds.storage()))
    found = parts_of(prepare(path, ImageOptions()))
    assert (found["nvs"], found["storage"]) == ((0x9000, 0x4000), (0x50000, 0x4000))


def test_erased_otadata_is_written(tmp_path: Path) -> None:
    """Else the app of an older firmware in the other partition would start."""
    path = write_file(tmp_path / "merged.bin", merged(otadata=b"\xff" * 0x2000))
    assert parts_of(prepare(path, ImageOptions()))["otadata"] == (0xD000, 0x2000)


def test_content_outside_partitions_is_kept(tmp_path: Path) -> None:
    image = bytearray(merged(size=0x60000))
    image[0x58010] = 0
    prepared = prepare(write_file(tmp_path / "merged.bin", bytes(image)), ImageOptions())
    assert parts_of(prepared)["0x58000.bin"] == (0x58000, SECTOR)
    assert flashed(prepared)[0x58010] == 0


@pytest.mark.parametrize("place", [0x9000, 0xE000, 0x10000])
def test_partition_table_is_found_elsewhere(place: int, tmp_path: Path) -> None:
    table = builds.partition_table([("app0", 0, 0, 0x20000, 0x10000)])
    image = bytearray(b"\xff" * 0x30000)
    for address, content in ((0, builds.bootloader("esp32s3")), (place, table), (0x20000, builds.app("esp32s3"))):
        image[address : address + len(content)] = content
    prepared = prepare(write_file(tmp_path / "merged.bin", bytes(image)), ImageOptions())
    assert sorted(parts_of(prepared)) == ["app0", "bootloader", "partition-table"]
    assert prepared.app is not None and prepared.app.project == "blink"


def test_without_partition_table_rest_is_one_block(tmp_path: Path) -> None:
    image = bytearray(merged())
    image[0x8000:0x9000] = b"\xff" * SECTOR
    events: list[Event] = []
    prepared = prepare(write_file(tmp_path / "merged.bin", bytes(image)), ImageOptions(), on_event=events.append)
    assert [(file.section, file.address) for file, _ in prepared.files] == [("bootloader", 0), ("", 0xD000)]
    assert "no partition table" in notices(events)["no-partition-table"]


def test_cut_app_in_merged_image_is_refused(tmp_path: Path) -> None:
    path = write_file(tmp_path / "merged.bin", merged()[: APP + 2000])
    with pytest.raises(FirmwareError) as caught:
        prepare(path, ImageOptions())
    assert "app0 in" in caught.value.notes[0]


@pytest.mark.parametrize(
    ("include", "size", "said"),
    [("spiffs", builds.END, "it has nvs, otadata"), ("storage", 0x30000, "it ends at 0x30000")],
)
def test_include_of_what_is_not_there_is_refused(include: str, size: int, said: str, tmp_path: Path) -> None:
    path = write_file(tmp_path / "merged.bin", merged(size=size))
    with pytest.raises(UsageError, match=said):
        prepare(path, ImageOptions(include=[include]))
    with pytest.raises(UsageError, match="for merged images"):
        prepare(make_project(tmp_path / "project"), ImageOptions(include=[include]))


# --- chip and flash size ----------------------------------------------------------------------------------


def test_input_that_names_no_chip_takes_target_and_size(tmp_path: Path) -> None:
    words = ["0x310000", str(write_file(tmp_path / "fs.bin", b"\1" * 100))]
    with pytest.raises(NoTargetError):
        prepare(words, ImageOptions())
    with pytest.raises(NoFlashSizeError):
        prepare(words, ImageOptions(target="ESP32-S2"))
    prepared = prepare(words, ImageOptions(target="ESP32-S2", flash_size=8 * MIB))
    assert (prepared.target.name, prepared.chip_size) == ("esp32s2", 8 * MIB)


def test_target_and_size_that_contradict_are_refused_unless_forced(tmp_path: Path) -> None:
    words: list[Any] = [*builds.write_parts(tmp_path, "esp32s3")]
    with pytest.raises(UsageError, match=r"--target esp32s2 contradicts .* which is for esp32s3"):
        prepare(words, ImageOptions(target="esp32s2"))
    with pytest.raises(UsageError, match=r"--flash-size 8 MiB contradicts .* built for 4 MiB"):
        prepare(words, ImageOptions(flash_size=8 * MIB))
    assert prepare(words, ImageOptions(flash_size=8 * MIB, force=True)).chip_size == 8 * MIB
    assert prepare(words, ImageOptions(target="esp32s3", flash_size=4 * MIB)).target.name == "esp32s3"


@pytest.mark.parametrize(("name", "meant"), [("esp32s33", "esp32s3"), ("esp-32-p5", "esp32p4"), ("esp32c3", "")])
def test_similar_chip_is_named(name: str, meant: str, tmp_path: Path) -> None:
    with pytest.raises(TargetNotSupportedError) as caught:
        prepare(builds.write_parts(tmp_path, "esp32s3"), ImageOptions(target=name))
    assert caught.value.meant == meant


def test_detected_flash_size_comes_from_bootloader(tmp_path: Path) -> None:
    folder = make_project(tmp_path / "project", flash_size="detect").rename(tmp_path / "artefacts")
    (folder / "project_description.json").unlink()
    assert prepare(folder, ImageOptions()).chip_size == 4 * MIB


@pytest.mark.parametrize("chip_id", [0, 5])
def test_merged_image_of_another_chip_is_named(chip_id: int, tmp_path: Path) -> None:
    image = bytearray(merged("esp32s2"))
    image[0x1000 + 12] = chip_id
    path = write_file(tmp_path / "merged.bin", bytes(image) if chip_id == 0 else bytes(image)[0x1000:])
    with pytest.raises(TargetNotSupportedError) as caught:
        prepare(path, ImageOptions())
    assert caught.value.target == {0: "esp32", 5: "esp32c3"}[chip_id]


# --- what is added and chosen -----------------------------------------------------------------------------


def test_files_are_added_by_partition_and_address(tmp_path: Path) -> None:
    words = builds.write_parts(tmp_path, "esp32s3")
    nvs, blob = write_file(tmp_path / "nvs.bin", b"\2" * SECTOR), write_file(tmp_path / "blob", b"\3")
    prepared = prepare(words, ImageOptions(add=[("nvs", nvs), ("0x60000", blob)], sections=["app0"]))
    assert [(file.address, file.path.name) for file, _ in prepared.files] == [
        (0x9000, "nvs.bin"), (APP, "firmware.bin"), (0x60000, "blob")
    ]  # fmt: skip
    big = write_file(tmp_path / "big.bin", bytes(0x4001))
    for where, file, said in (("nvs", big, "16.0 KiB|the partition 16 KiB"), ("fs", nvs, "partitions are nvs")):
        with pytest.raises(UsageError, match=said):
            prepare(words, ImageOptions(add=[(where, file)]))
    with pytest.raises(LayoutError):
        prepare(words, ImageOptions(add=[("app0", nvs)]))


def test_app_alone_goes_where_user_says(tmp_path: Path) -> None:
    build_dir = builds.platformio_project(tmp_path / "project", "esp32s3", tmp_path / "core" / "packages")
    app = build_dir / "firmware.bin"
    with pytest.raises(WrongInputError) as caught:
        prepare(app, ImageOptions())
    assert (caught.value.kind, caught.value.places) == ("app", ("app0", "app1"))
    assert "an app alone (blink 1.2.3 for ESP32-S3)" in caught.value.message
    for at, address in (("app1", 0x30000), ("0x20000", 0x20000)):
        events: list[Event] = []
        prepared = prepare(app, ImageOptions(at=at), on_event=events.append)
        assert [(file.address, size) for file, size in prepared.files] == [(address, len(app.read_bytes()))]
        assert "bootloader and the partition table on the board stay" in notices(events)["app-alone"]
    with pytest.raises(UsageError, match="the partitions are nvs"):
        prepare(app, ImageOptions(at="factory"))


def test_other_chips_firmware_in_data_partition_is_left_alone(tmp_path: Path) -> None:
    table = builds.partition_table([*ROWS[:4], ("slave_fw", 1, 0x40, 0x60000, 0x10000)])
    slave = esp_image(13, app=app_description("network_adapter", "2"))
    sections = [
        ("bootloader", 0x2000, "bootloader.bin", builds.bootloader("esp32p4")),
        ("partition-table", 0x8000, "partition-table.bin", table),
        ("app", APP, "host.bin", builds.app("esp32p4", "host")),
        ("slave_fw", 0x60000, "slave.bin", slave),
    ]
    prepared = prepare(make_project(tmp_path, "esp32p4", sections=sections), ImageOptions())
    assert prepared.app is not None and prepared.app.project == "host"
    write_file(tmp_path / "build" / "host.bin", slave)
    with pytest.raises(FirmwareError, match="not for ESP32-P4"):
        prepare(tmp_path / "build", ImageOptions())


# --- what it is not ---------------------------------------------------------------------------------------

NOT_FIRMWARE = {
    "elf": (b"\x7fELF\1\1\1" + bytes(100), "an ELF file"),
    "uf2": (struct.pack("<II", 0x0A324655, 0x9E5D5157) + bytes(504), "a UF2 file"),
    "encrypted": (random.Random(1).randbytes(20000), "encrypted"),
    "bootloader": (builds.bootloader("esp32s3"), "a single ESP image for ESP32-S3 that is not an app"),
    "table": (builds.partition_table(), "a partition table alone"),
    "dfu": (b"070701" + bytes(300), "a DFU image already"),
    "archive": (b"PK\3\4" + bytes(100), "a ZIP archive"),
}


@pytest.mark.parametrize("kind", NOT_FIRMWARE)
def test_file_is_named_for_what_it_is(kind: str, tmp_path: Path, capsys: Capture) -> None:
    content, said = NOT_FIRMWARE[kind]
    path = write_file(tmp_path / "file.bin", content)
    with pytest.raises(WrongInputError) as caught:
        prepare(path, ImageOptions())
    assert (caught.value.kind, caught.value.path) == (kind, path)
    assert caught.value.message.startswith(f"{path} is {said}")
    assert run("build", path) == 65
    assert "[wrong-input]" in (err := capsys.readouterr().err) and "\n  > " in err
    assert not (tmp_path / "dfu.bin").exists()


def test_folders_without_or_with_several_builds_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoBuildError, match="no build of ESP-IDF, Arduino, PlatformIO or Zephyr"):
        prepare(tmp_path / "empty", ImageOptions())
    write_file(tmp_path / "pio" / "platformio.ini", b"")
    with pytest.raises(NoBuildError, match="PlatformIO project that has not been built") as caught:
        prepare(tmp_path / "pio", ImageOptions())
    assert caught.value.tool == "platformio"
    for name in ("build_s2", "build_s3"):
        make_project(tmp_path / "idf").rename(tmp_path / "idf" / name)
    with pytest.raises(NoBuildError) as several:
        prepare(tmp_path / "idf", ImageOptions())
    assert [build.name for build in several.value.builds] == ["build_s2", "build_s3"]


def test_project_folder_is_as_good_as_its_build_folder(tmp_path: Path) -> None:
    folder = make_project(tmp_path / "project")
    assert build(tmp_path / "project").path == folder / "dfu.bin"
    assert build(folder / "flasher_args.json").path == folder / "dfu.bin"


# --- strangers --------------------------------------------------------------------------------------------


def test_no_list_of_a_stranger_names_files_outside(tmp_path: Path) -> None:
    write_file(tmp_path / "secret.bin", b"secret" * 100)
    arduino = builds.arduino_build(tmp_path / "arduino", "esp32s3")
    with (arduino / "flash_args").open("a") as file:
        file.write("0x100000 ../secret.bin\n")
    pio = builds.platformio_project(tmp_path / "pio", "esp32s3", tmp_path / "core" / "packages")
    images = [{"offset": "0x100000", "path": str(tmp_path / "secret.bin")}]
    edit_json(pio / "idedata.json", extra={"flash_images": images, "application_offset": "0x10000"})
    zephyr = builds.zephyr_build(tmp_path / "zephyr", "esp32s3")
    runners = zephyr / "hello" / "zephyr" / "runners.yaml"
    runners.write_text(runners.read_text().replace("zephyr.signed.bin", str(tmp_path / "secret.bin")))
    for folder in (arduino, pio, zephyr):
        with pytest.raises(OutsideProjectError):
            prepare(folder, ImageOptions())
        prepare(folder, ImageOptions(allow_outside=True))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("flash_args", "--flash_size 4MB\n0x0"),
        ("flash_args", "0x0 a.bin\n0x0 b.bin"),
        ("flash_args", "0x10000 'a.bin"),
        ("flash_args", "0x1000000000 a.bin"),
        ("idedata.json", "{}"),
        ("idedata.json", '{"prog_path": "a.elf", "extra": {"flash_images": [5]}}'),
        ("zephyr/runners.yaml", "config: {}"),
        ("zephyr/runners.yaml", "a: &a [1]\nb: *a"),
        ("zephyr/runners.yaml", "config: {bin_file: 5}\nargs: {esp32: []}"),
        ("domains.yaml", "domains: [{name: ../..}]"),
        ("domains.yaml", "domains: []"),
    ],
)
def test_damaged_list_is_refused(name: str, text: str, tmp_path: Path) -> None:
    write_file(tmp_path / name, text.encode())
    with pytest.raises(BuildFileError):
        prepare(tmp_path, ImageOptions())


def test_overlapping_partitions_of_a_stranger_do_not_fill_memory(tmp_path: Path) -> None:
    table = builds.partition_table([(f"p{n}", 1, 0x40, 0x9000, 0xFFFF0000) for n in range(90)])
    image = bytearray(merged())
    image[0x8000 : 0x8000 + len(table)] = table
    prepared = prepare(write_file(tmp_path / "merged.bin", bytes(image)), ImageOptions())
    assert len(prepared.files) == 3  # bootloader, table, the first partition


def test_partition_table_with_wrong_md5_is_none() -> None:
    table = bytearray(builds.partition_table())
    assert [partition.name for partition in read_partition_table(bytes(table))] == [row[0] for row in ROWS]
    table[12] ^= 1
    assert read_partition_table(bytes(table)) == ()


# --- commands ---------------------------------------------------------------------------------------------


def test_flash_and_inspect_build_without_leaving_a_file(tmp_path: Path, capsys: Capture) -> None:
    path = write_file(tmp_path / "merged.bin", merged())
    assert run("flash", path, "--simulate") == 0
    assert "Dry run of blink 1.2.3" in capsys.readouterr().out
    assert run("inspect", path) == 0
    assert "app0.bin" in capsys.readouterr().out
    assert [entry.name for entry in tmp_path.iterdir()] == ["merged.bin"]
    assert run("flash", *builds.write_parts(tmp_path / "parts", "esp32s3"), "--simulate", "--only", "app0") == 0
    assert run("build", path, "--quiet") == 0
    assert run("flash", tmp_path / "dfu.bin", "--simulate", "--only", "app0") == 64
    assert "is a dfu.bin already; --only cannot change it" in " ".join(capsys.readouterr().err.split())


def test_image_of_merged_file_does_not_replace_other_file(tmp_path: Path) -> None:
    path = write_file(tmp_path / "merged.bin", merged())
    write_file(tmp_path / "dfu.bin", b"something else of the user's")
    with pytest.raises(EspDfuError, match="is not a DFU image"):
        build(path)
    write_json(tmp_path / "x.json", {})


@pytest.mark.parametrize("more", [[], ["--all"], ["--json"], ["--watch", "--count", "1"]])
def test_flash_of_a_folder_warns_of_missing_parts(
    more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ESP_DFU_SIMULATE", "esp32s3")
    folder = write_sample_project(tmp_path, chip("esp32s3"), app_size=5000)
    assert run("flash", folder, "--only", "app", *more) == 0
    text = "warning: The image has no bootloader and no partition table: the board keeps"
    assert capsys.readouterr().err.startswith(text)
