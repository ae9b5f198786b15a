"""build: a project becomes a dfu.bin, or is refused."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esp_dfu_ext.errors import (
    EspDfuError,
    FirmwareError,
    InputMissingError,
    LayoutError,
    OutputError,
    ProjectError,
    TargetNotSupportedError,
    UsageError,
)
from esp_dfu_ext.events import Event
from esp_dfu_ext.image.format import read_image
from esp_dfu_ext.operations.build import build
from esp_dfu_ext.operations.inspect import inspect
from esp_dfu_ext.target import TARGETS_VARIABLE, load_target

from .fuzz.guard import opened_files
from .kit.archives import File, dfu_image
from .kit.commands import esp_dfu, run
from .kit.files import edit_json, write_file, write_json
from .kit.projects import CHIP_ID, app_description, esp_image, make_project, notices, own_chip, project_sections


@pytest.fixture(autouse=True)
def _only_our_chips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TARGETS_VARIABLE, raising=False)


@pytest.mark.parametrize("idf", [5, 6])
@pytest.mark.parametrize("target", sorted(CHIP_ID))
def test_image_holds_exactly_files_of_project(target: str, idf: int, tmp_path: Path) -> None:
    folder = make_project(tmp_path, target, idf=idf)
    events: list[Event] = []
    result = build(folder, on_event=events.append)
    sections = sorted(project_sections(target), key=lambda section: section[1])
    expected = dfu_image([File(at, Path(file).name, data) for _, at, file, data in sections], pid=CHIP_ID[target])
    assert (folder / "dfu.bin").read_bytes() == expected
    assert (result.path, result.size) == (folder / "dfu.bin", len(expected))
    assert (result.target.name, result.chip_size, result.plan.name) == (target, 4 << 20, "hello")
    assert result.app is not None and result.app[:2] == ("hello", "1.2.3")
    assert [file.section for file, _ in result.files] == [section for section, *_ in sections]
    assert events == []
    assert inspect(result.path).problems == ()


def test_flash_size_of_project_is_written_into_image(tmp_path: Path) -> None:
    folder = make_project(tmp_path, flash_size="detect", sdkconfig={"CONFIG_ESPTOOLPY_FLASHSIZE": '"32MB"'})
    assert build(folder).chip_size == 32 << 20
    params = read_image(folder / "dfu.bin").flash_params
    assert params is not None and params.chip_size == 32 << 20


@pytest.mark.parametrize("size", ["4096MB", "99999999999999999999MB", "3MB"])
def test_impossible_flash_size_is_refused(size: str, tmp_path: Path) -> None:
    folder = make_project(tmp_path, sdkconfig={"CONFIG_ESPTOOLPY_FLASHSIZE": f'"{size}"'})
    with pytest.raises(ProjectError, match=r"flash size is set to .* can have 1MB, 2MB"):
        build(folder)


@pytest.mark.parametrize(
    ("sections", "names"),
    [
        (["app"], ["hello.bin"]),
        (["app", "otadata"], ["ota_data_initial.bin", "hello.bin"]),
        ([], ["bootloader.bin", "partition-table.bin", "ota_data_initial.bin", "hello.bin"]),
    ],
)
def test_sections_choose_what_is_flashed(sections: list[str], names: list[str], tmp_path: Path) -> None:
    result = build(make_project(tmp_path), sections=sections)
    assert [member.name for member in read_image(result.path).flash_members] == names


def test_files_of_other_sections_are_not_checked(tmp_path: Path) -> None:
    folder = make_project(tmp_path)
    (folder / "bootloader/bootloader.bin").write_bytes(esp_image(2))
    (folder / "ota_data_initial.bin").unlink()
    assert [file.path.name for file, _ in build(folder, sections=["app"]).files] == ["hello.bin"]


def test_unknown_section_writes_nothing(tmp_path: Path) -> None:
    folder = make_project(tmp_path)
    with pytest.raises(UsageError, match=r"'storage'.*app, bootloader, otadata, partition-table"):
        build(folder, sections=["storage"])
    assert not (folder / "dfu.bin").exists()


def test_part_size_and_output_are_used(tmp_path: Path) -> None:
    folder = make_project(tmp_path)
    result = build(folder, output=tmp_path / "out.bin", part_size=4096)
    assert result.path == tmp_path / "out.bin"
    assert not (folder / "dfu.bin").exists()
    names = [member.name for member in read_image(result.path).flash_members]
    assert "ota_data_initial.bin.1" in names


def test_raised_part_size_and_new_name_are_noticed(tmp_path: Path) -> None:
    storage = ("storage", 0x100000, "data/hello.bin", bytes(300 << 10))
    folder = make_project(tmp_path, sections=[*project_sections("esp32s3"), storage])
    events: list[Event] = []
    build(folder, part_size=4096, on_event=events.append)
    messages = notices(events)
    assert "4 KiB to 8 KiB" in messages["part-size-raised"]
    assert "data/hello.bin" in messages["renamed"].replace(os.sep, "/")
    assert inspect(folder / "dfu.bin").problems == ()


def test_app_is_first_by_address_for_build_and_inspect(tmp_path: Path) -> None:
    other = esp_image(app=app_description("rescue", "9"))
    above = make_project(
        tmp_path / "above", sections=[*project_sections("esp32s3"), ("rescue", 0x200000, "r.bin", other)]
    )
    below = make_project(
        tmp_path / "below", sections=[*project_sections("esp32s3"), ("rescue", 0x9000, "r.bin", other)]
    )
    for folder, name in ((above, "hello"), (below, "rescue")):
        built, read = build(folder), inspect(folder / "dfu.bin")
        assert built.app is not None and built.app == read.app
        assert built.app.project == name


@pytest.mark.parametrize("name", ["main.c", "build/bootloader/bootloader.bin", "build/flasher_args.json", "sdkconfig"])
def test_output_that_is_not_dfu_image_is_kept(tmp_path: Path, name: str) -> None:
    folder = make_project(tmp_path)
    path = folder.parent / name
    if not path.exists():
        path.write_text("int main;\n" * 9)
    before = path.read_bytes()
    with pytest.raises(OutputError, match="will not be overwritten"):
        build(folder, output=path, sections=["app"])
    assert path.read_bytes() == before


def test_old_or_empty_image_is_overwritten(tmp_path: Path) -> None:
    folder = make_project(tmp_path)
    empty = tmp_path / "empty.bin"
    empty.touch()
    first = build(folder, output=empty).path.read_bytes()
    assert build(folder, output=empty, sections=["app"]).path.read_bytes() != first
    (folder / "dfu.bin").write_bytes(b"a half written one")
    assert build(folder).path.read_bytes() == first


def test_paths_may_be_strings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_project(tmp_path / "project")
    monkeypatch.chdir(tmp_path)
    assert build("project/build", project_dir="project", output="out.bin").path == Path("out.bin")
    assert read_image(Path("out.bin")).flash_members


def test_every_input_is_read_once(tmp_path: Path) -> None:
    """Checks, MD5 and the bytes written come from one reading, so a build running at the same time cannot interfere."""
    folder = make_project(tmp_path)
    inputs = [folder / "flasher_args.json", folder / "project_description.json", tmp_path / "sdkconfig"]
    inputs += [folder / file for _, _, file, _ in project_sections("esp32s3")]
    with opened_files() as opened:
        assert run("build", str(folder)) == 0
    counts = Counter(path for path, purpose in opened if purpose == "read")
    assert {path.name: counts[str(path)] for path in inputs} == {path.name: 1 for path in inputs}


# --- refusals ---------------------------------------------------------------------------------------------


def test_missing_file_is_named_and_old_image_kept(tmp_path: Path) -> None:
    folder = make_project(tmp_path)
    write_file(folder / "dfu.bin", b"old")
    (folder / "hello.bin").unlink()
    with pytest.raises(InputMissingError) as caught:
        build(folder)
    assert caught.value.path == folder / "hello.bin"
    assert "0x20000" in caught.value.message
    assert (folder / "dfu.bin").read_bytes() == b"old"


def test_empty_file_is_refused_even_with_force(tmp_path: Path) -> None:
    folder = make_project(tmp_path)
    (folder / "hello.bin").write_bytes(b"")
    with pytest.raises(LayoutError) as caught:
        build(folder, force=True)
    assert caught.value.notes == ("hello.bin for 0x20000 is empty.",)


OTHER_CHIP = esp_image(2, app=app_description("a", "1"))
DAMAGED = esp_image(9, sha256=False, checksum_error=1)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("hello.bin", OTHER_CHIP, ["0x20000", "chip ID 2", "ESP32-S3 is chip ID 9"]),
        ("bootloader/bootloader.bin", OTHER_CHIP, ["0x0", "chip ID 2"]),
        ("hello.bin", DAMAGED, ["0x20000", "checksum"]),
        ("hello.bin", esp_image(9)[:200], ["0x20000", "damaged"]),
        ("hello.bin", b"\0" * 1000, ["0x20000", "is the app but not an ESP image"]),
        ("bootloader/bootloader.bin", b"\xff" * 1000, ["0x0", "is the bootloader but not an ESP image"]),
    ],
)
def test_wrong_esp_image_is_refused_unless_forced(file: str, content: bytes, said: list[str], tmp_path: Path) -> None:
    folder = make_project(tmp_path)
    write_file(folder / file, content)
    with pytest.raises(FirmwareError) as caught:
        build(folder)
    [problem] = caught.value.notes
    for word in [str(folder / file), *said]:
        assert word in problem
    assert "ESP32-S3" in caught.value.message
    assert not (folder / "dfu.bin").exists()

    events: list[Event] = []
    build(folder, force=True, on_event=events.append)
    assert notices(events) == {"forced": problem}
    assert content in (folder / "dfu.bin").read_bytes()


def test_bootloader_at_wrong_address_is_refused_unless_forced(tmp_path: Path) -> None:
    sections = [("bootloader", 0x1000, "bootloader.bin", esp_image(9))]
    folder = make_project(tmp_path, sections=sections)
    with pytest.raises(FirmwareError) as caught:
        build(folder)
    assert "0x1000" in caught.value.notes[0] and "expects it at 0x0" in caught.value.notes[0]
    assert build(folder, force=True).size > 0


def test_all_wrong_esp_images_are_named_at_once(tmp_path: Path) -> None:
    folder = make_project(tmp_path)
    for file in ("hello.bin", "bootloader/bootloader.bin"):
        write_file(folder / file, OTHER_CHIP)
    with pytest.raises(FirmwareError) as caught:
        build(folder)
    assert len(caught.value.notes) == 2


@pytest.mark.parametrize(
    ("address", "content", "word"),
    [
        (0x8C00, b"x", "share"),
        (0x8004, b"x", "overlap"),
        (0x300002, b"x", "multiple of 4"),
        (0x400000, b"x", "beyond"),
        (0x1000000, b"x", "beyond"),
    ],
)
def test_layout_that_loses_data_is_refused_even_with_force(
    address: int, content: bytes, word: str, tmp_path: Path
) -> None:
    extra = ("storage", address, "storage.bin", content)
    folder = make_project(tmp_path, sections=[*project_sections("esp32s3")[:3], extra])
    with pytest.raises(LayoutError) as caught:
        build(folder, force=True)
    [problem] = caught.value.notes
    assert word in problem and "storage.bin" in problem and f"{address:#x}" in problem
    assert not (folder / "dfu.bin").exists()


@pytest.mark.parametrize("target", ["esp32", "esp32c3"])
def test_chip_without_dfu_is_refused_by_name(target: str, tmp_path: Path) -> None:
    folder = make_project(tmp_path)
    edit_json(folder / "project_description.json", target=target)
    with pytest.raises(TargetNotSupportedError) as caught:
        build(folder)
    assert caught.value.target == target
    assert "esp32s3" in caught.value.supported


def test_unwritable_output_is_refused(tmp_path: Path) -> None:
    folder = make_project(tmp_path)
    for output, word in [
        (tmp_path, "is a folder; expected the file to write, such as .*dfu.bin"),
        (tmp_path / "gone" / "dfu.bin", "cannot be written"),
        (folder / "hello.bin", "one of the files to flash"),
    ]:
        before = (folder / "hello.bin").read_bytes()
        with pytest.raises(OutputError, match=word):
            build(folder, output=output)
        assert (folder / "hello.bin").read_bytes() == before


def test_folder_in_place_of_image_is_kept(tmp_path: Path) -> None:
    folder = make_project(tmp_path)
    (folder / "dfu.bin").mkdir()
    with pytest.raises(OutputError, match="is not a regular file"):
        build(folder)


def test_only_first_build_says_what_chip_needs_as_delivered(tmp_path: Path) -> None:
    folder = make_project(tmp_path)
    first, second = (esp_dfu("build", str(folder)) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0)
    assert load_target("esp32s3").notice in first.stdout
    assert "as delivered" not in second.stdout
    assert (build(folder).is_new, build(folder, output=tmp_path / "other.bin").is_new) == (False, True)


@pytest.mark.parametrize(
    ("sdkconfig", "encrypted", "codes"),
    [
        ({}, [], set()),
        ({"CONFIG_SECURE_BOOT": "y"}, [], {"secure-boot"}),
        ({"CONFIG_SECURE_FLASH_ENC_ENABLED": "y"}, [], {"encryption"}),
        ({}, ["app"], {"encryption"}),
        ({"CONFIG_SECURE_BOOT": "y"}, ["app", "bootloader"], {"secure-boot", "encryption"}),
    ],
)
def test_security_options_are_noticed_and_accepted(
    sdkconfig: dict[str, str], encrypted: list[str], codes: set[str], tmp_path: Path
) -> None:
    folder = make_project(tmp_path, sdkconfig=sdkconfig, encrypted=encrypted)
    events: list[Event] = []
    build(folder, on_event=events.append)
    messages = notices(events)
    assert set(messages) == codes
    consequences = [message for message in messages.values() if "its first boot closes USB DFU permanently" in message]
    assert len(consequences) == bool(codes)


def test_chip_file_of_project_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_project(tmp_path / "project")
    own_chip(tmp_path / "project" / "dfu_targets", "esp32s3", 0x77)
    assert read_image(build(folder).path).suffix.pid == 0x77
    own_chip(tmp_path / "everywhere", "esp32s3", 0x78)
    monkeypatch.setenv(TARGETS_VARIABLE, str(tmp_path / "everywhere"))
    assert read_image(build(folder).path).suffix.pid == 0x78


offsets = st.sampled_from(["0x0", "0x8000", "0x10000", "0x8001", "0xffffffff", "x"])
some_files = st.sampled_from(["hello.bin", "bootloader/bootloader.bin", "gone", "", "/", "..", "a\0", "a" * 5000])


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(offsets, some_files, max_size=4),
    st.sampled_from(["4MB", "16MB", "9999999MB", "0MB", "detect", None]),
    st.sampled_from(["esp32s3", "esp32s3", "esp32s3", "esp32s2", "esp32", 5]),
    st.booleans(),
)
def test_build_survives_any_flasher_args(
    tmp_path: Path, files: dict[str, str], flash_size: str | None, target: object, force: bool
) -> None:
    folder = make_project(tmp_path)
    write_file(tmp_path / "sdkconfig", b"")
    write_json(folder / "flasher_args.json", {"flash_files": files, "flash_settings": {"flash_size": flash_size}})
    edit_json(folder / "project_description.json", target=target)
    (folder / "dfu.bin").unlink(missing_ok=True)
    try:
        build(folder, force=force)
    except EspDfuError:
        assert not (folder / "dfu.bin").exists()
    else:
        assert inspect(folder / "dfu.bin").problems == ()


# --- parts that are missing -------------------------------------------------------------------------------


def test_missing_bootloader_is_named(tmp_path: Path) -> None:
    """ESP-IDF lists no bootloader under Secure Boot, but builds it."""
    sections = [section for section in project_sections("esp32s2") if section[0] != "bootloader"]
    folder = make_project(tmp_path, "esp32s2", sections=sections, sdkconfig={"CONFIG_SECURE_BOOT": "y"})
    loader = write_file(folder / "bootloader" / "bootloader.bin", esp_image(2))
    events: list[Event] = []
    build(folder, on_event=events.append)
    assert notices(events)["missing-parts"] == (
        "The image has no bootloader: the board keeps what its flash memory holds there, and a new board does not "
        f"start. The build has a bootloader, which goes to 0x1000: {loader}"
    )


@pytest.mark.parametrize(
    ("only", "says"),
    [
        (["app"], "no bootloader, no partition table and no otadata: the board keeps"),
        (
            ["app", "bootloader", "partition-table"],
            "no otadata: if a board was updated over the air, its own may",
        ),
        (["otadata"], ""),
        ([], ""),
    ],
)
def test_parts_that_are_left_out_are_named(only: list[str], says: str, tmp_path: Path) -> None:
    events: list[Event] = []
    build(make_project(tmp_path), sections=only, on_event=events.append)
    assert says in notices(events).get("missing-parts", "")
    assert ("missing-parts" in notices(events)) == bool(says)
