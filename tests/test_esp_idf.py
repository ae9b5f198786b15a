"""Project folders, as ESP-IDF leaves them and damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esp_dfu_ext.errors import BuildFileError, EspDfuError, InputMissingError, NoTargetError, ProjectError
from esp_dfu_ext.image.plan import FlashFile
from esp_dfu_ext.inputs.esp_idf import project_dir_of, project_dir_of_image, read_flasher_args, read_plan, read_project

from .kit.files import edit_json, forbid, write_file, write_json
from .kit.projects import make_project

IDF = pytest.mark.parametrize("idf", [5, 6])


# --- projects ---------------------------------------------------------------------------------------------


@IDF
def test_project_is_read(idf: int, tmp_path: Path) -> None:
    build = make_project(tmp_path, "esp32p4", idf=idf)
    project = read_project(build)
    assert (project.project_dir, project.build_dir) == (tmp_path, build)
    assert (project.name, project.target) == ("hello", "esp32p4")
    assert project.sdkconfig["CONFIG_ESPTOOLPY_FLASHSIZE"] == "4MB"
    assert (project.security.secure_boot, project.security.flash_encryption) == (False, False)


def test_project_of_build_folder_and_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = make_project(tmp_path / "project")
    assert project_dir_of(build) == project_dir_of_image(build / "dfu.bin") == tmp_path / "project"
    (tmp_path / "latest.bin").symlink_to(build / "dfu.bin")
    assert project_dir_of_image(tmp_path / "latest.bin") == tmp_path / "project"
    build.rename(tmp_path / "elsewhere")
    assert project_dir_of(tmp_path / "elsewhere") == tmp_path / "project"
    description = tmp_path / "elsewhere" / "project_description.json"
    for text in ("{", "{}", '{"project_path": "/nowhere"}'):
        description.write_text(text)
        assert project_dir_of(tmp_path / "elsewhere") == tmp_path
    monkeypatch.chdir(tmp_path / "elsewhere")
    for folder in (Path(), tmp_path / "elsewhere"):
        assert project_dir_of(folder) == tmp_path
    (tmp_path / "elsewhere" / "below").mkdir()
    monkeypatch.chdir("below")
    assert project_dir_of(Path("..")) == tmp_path
    assert project_dir_of_image(Path("dfu.bin")) == tmp_path / "elsewhere"
    with monkeypatch.context() as refused:
        forbid(refused, tmp_path / "elsewhere")
        assert project_dir_of(tmp_path / "elsewhere") == tmp_path


@IDF
def test_flash_files_are_sorted_by_address(idf: int, tmp_path: Path) -> None:
    build = make_project(tmp_path, "esp32s2", idf=idf, flash_size="8MB", encrypted=["app"])
    args = read_flasher_args(build)
    assert args.chip_size == 8 << 20
    assert args.files == (
        FlashFile(0x1000, build / "bootloader/bootloader.bin", "bootloader"),
        FlashFile(0x8000, build / "partition_table/partition-table.bin", "partition-table"),
        FlashFile(0xD000, build / "ota_data_initial.bin", "otadata"),
        FlashFile(0x20000, build / "hello.bin", "app", encrypted=True),
    )


@pytest.mark.parametrize(
    ("mark", "encrypted"),
    [("true", True), (True, True), ("false", False), (False, False), ("yes", False), (None, False), ([], False)],
)
def test_only_true_means_encrypted(mark: object, encrypted: bool, tmp_path: Path) -> None:
    build = make_project(tmp_path)
    edit_json(build / "flasher_args.json", app={"offset": "0x20000", "file": "hello.bin", "encrypted": mark})
    marks = {file.section: file.encrypted for file in read_flasher_args(build).files}
    assert marks == {"bootloader": False, "partition-table": False, "otadata": False, "app": encrypted}


def test_file_without_section_is_flashed_too(tmp_path: Path) -> None:
    write_json(tmp_path / "flasher_args.json", {"flash_files": {"0x310000": "/abs/storage.bin", "8": "b.bin"}})
    assert read_flasher_args(tmp_path).files == (
        FlashFile(8, tmp_path / "b.bin"),
        FlashFile(0x310000, Path("/abs/storage.bin")),
    )


def test_section_belongs_to_its_address_and_file(tmp_path: Path) -> None:
    both = {"0x10000": "app.bin", "0x110000": "app.bin"}
    write_json(tmp_path / "flasher_args.json", {"flash_files": both, "app": {"offset": "0x10000", "file": "app.bin"}})
    assert [(f.address, f.section) for f in read_flasher_args(tmp_path).files] == [(0x10000, "app"), (0x110000, "")]


@pytest.mark.parametrize(
    ("description", "flasher_args", "sdkconfig", "cache", "target"),
    [
        ("esp32s2", "esp32s31", "esp32s3", "esp32p4", "esp32s2"),
        (None, "esp32s31", "esp32s3", "esp32p4", "esp32s31"),
        ("", None, "esp32s3", "esp32p4", "esp32s3"),
        (None, None, None, "esp32p4", "esp32p4"),
    ],
)
def test_target_comes_from_strongest_source(
    description: str | None, flasher_args: str | None, sdkconfig: str | None, cache: str, target: str, tmp_path: Path
) -> None:
    build = make_project(tmp_path)
    edit_json(build / "flasher_args.json", extra_esptool_args={"chip": flasher_args})
    edit_json(build / "project_description.json", target=description)
    write_file(tmp_path / "sdkconfig", f'CONFIG_IDF_TARGET="{sdkconfig}"\n'.encode() if sdkconfig else b"")
    write_file(build / "CMakeCache.txt", f"A:STRING=esp32\nIDF_TARGET:STRING={cache}\nB:BOOL=ON\n".encode())
    assert read_project(build).target == target


@pytest.mark.parametrize("chip", ["esp32s2", "auto", "", 5, None])
def test_build_folder_alone_names_its_chip_for_esptool(chip: object, tmp_path: Path) -> None:
    """What CI hands on: flasher_args.json and the images, without sdkconfig and project_description.json."""
    build = make_project(tmp_path / "project", "esp32s2").rename(tmp_path / "artefacts")
    (build / "project_description.json").unlink()
    edit_json(build / "flasher_args.json", extra_esptool_args={"chip": chip})
    if chip == "esp32s2":
        project = read_project(build)
        assert (project.target, project.sdkconfig, project.project_dir) == ("esp32s2", {}, tmp_path)
        assert read_plan(project).chip == "esp32s2"
    else:
        with pytest.raises(NoTargetError):
            read_project(build)


def test_build_folder_alone_has_configuration(tmp_path: Path) -> None:
    build = make_project(tmp_path / "project", "esp32s2", flash_size="detect").rename(tmp_path / "artefacts")
    (build / "project_description.json").unlink()
    options = {"IDF_TARGET": "esp32s2", "ESPTOOLPY_FLASHSIZE": "8MB", "SECURE_BOOT": True, "A": False, "N": 5, "L": []}
    write_json(build / "config" / "sdkconfig.json", options)
    project = read_project(build)
    assert (project.target, project.security.secure_boot, read_plan(project).chip_size) == ("esp32s2", True, 8 << 20)
    assert (project.sdkconfig["CONFIG_A"], project.sdkconfig["CONFIG_N"]) == ("n", "5")
    assert "CONFIG_L" not in project.sdkconfig


@pytest.mark.parametrize(("chip", "size"), [("esp32s2", 16 << 20), ("esp32p4", 4 << 20)])
def test_sdkconfig_of_another_chip_is_of_another_build(chip: str, size: int, tmp_path: Path) -> None:
    """A build folder that was unpacked in the folder of another project."""
    build = make_project(tmp_path / "project", "esp32s2").rename(tmp_path / "artefacts")
    (build / "project_description.json").unlink()
    text = f'CONFIG_IDF_TARGET="{chip}"\nCONFIG_ESPTOOLPY_FLASHSIZE="16MB"\n'
    write_file(tmp_path / "sdkconfig", text.encode())
    assert read_plan(read_project(build)).chip_size == size


def test_without_description_parent_folder_is_project(tmp_path: Path) -> None:
    build = make_project(tmp_path, "esp32s2")
    (build / "project_description.json").unlink()
    project = read_project(build)
    assert (project.project_dir, project.target, project.name) == (tmp_path, "esp32s2", "")


def test_given_project_folder_wins(tmp_path: Path) -> None:
    build = make_project(tmp_path / "a")
    (tmp_path / "b").mkdir()
    assert read_project(build, tmp_path / "b").project_dir == tmp_path / "b"


def test_build_folder_elsewhere_names_its_project(tmp_path: Path) -> None:
    build = make_project(tmp_path / "project").rename(tmp_path / "out")
    assert read_project(build).project_dir == tmp_path / "project"


def test_description_names_sdkconfig(tmp_path: Path) -> None:
    build = make_project(tmp_path)
    other = write_file(tmp_path / "sdkconfig.release", b"CONFIG_SECURE_BOOT=y\n")
    edit_json(build / "project_description.json", config_file=str(other))
    assert read_project(build).sdkconfig == {"CONFIG_SECURE_BOOT": "y"}


@pytest.mark.parametrize("said", ["/gone/sdkconfig", ""])
def test_moved_project_is_still_read(said: str, tmp_path: Path) -> None:
    """After a build in a container, say, where it had another path."""
    build = make_project(tmp_path, sdkconfig={"CONFIG_SECURE_BOOT": "y"})
    edit_json(build / "project_description.json", project_path=str(Path(said).parent) if said else "", config_file=said)
    project = read_project(build)
    assert project.project_dir == tmp_path
    assert project.security.secure_boot


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ('CONFIG_A="4MB"', "CONFIG_A", "4MB"),
        ("CONFIG_A=y", "CONFIG_A", "y"),
        ("CONFIG_A=y\r", "CONFIG_A", "y"),
        ("CONFIG_A=y  ", "CONFIG_A", "y"),
        ("CONFIG_A=0x1000", "CONFIG_A", "0x1000"),
        ('CONFIG_A=""', "CONFIG_A", ""),
        ("CONFIG_A=\nCONFIG_B=y", "CONFIG_A", ""),
        ('CONFIG_A="a=b # c"', "CONFIG_A", "a=b # c"),
        ("# CONFIG_A is not set", "CONFIG_A", None),
        ("#CONFIG_A=y", "CONFIG_A", None),
        (" CONFIG_A=y", "CONFIG_A", None),
    ],
)
def test_sdkconfig_lines(line: str, key: str, value: str | None, tmp_path: Path) -> None:
    build = make_project(tmp_path)
    write_file(tmp_path / "sdkconfig", f"# Some\n{line}\nCONFIG_LAST=n\n".encode())
    sdkconfig = read_project(build).sdkconfig
    assert sdkconfig.get(key) == value
    assert sdkconfig["CONFIG_LAST"] == "n"


@pytest.mark.parametrize(
    ("options", "secure_boot", "flash_encryption"),
    [
        ({"CONFIG_SECURE_BOOT": "y"}, True, False),
        ({"CONFIG_SECURE_FLASH_ENC_ENABLED": "y"}, False, True),
        ({"CONFIG_SECURE_BOOT": "n", "CONFIG_SECURE_FLASH_ENC_ENABLED": "n"}, False, False),
    ],
)
def test_secure_boot_and_flash_encryption_are_read(
    options: dict[str, str], secure_boot: bool, flash_encryption: bool, tmp_path: Path
) -> None:
    project = read_project(make_project(tmp_path, sdkconfig=options))
    assert (project.security.secure_boot, project.security.flash_encryption) == (secure_boot, flash_encryption)


# --- flash size -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sdkconfig", "flasher_args", "size"),
    [
        ("16MB", "detect", 16 << 20),
        ("2MB", "8MB", 2 << 20),
        (None, "8MB", 8 << 20),
        ("", "8MB", 8 << 20),
        ("detect", "512KB", 512 << 10),
    ],
)
def test_flash_size_in_sdkconfig_wins_over_flasher_args(
    sdkconfig: str | None, flasher_args: str, size: int, tmp_path: Path
) -> None:
    build = make_project(tmp_path, flash_size=flasher_args)
    line = f'CONFIG_ESPTOOLPY_FLASHSIZE="{sdkconfig}"\n' if sdkconfig is not None else ""
    write_file(tmp_path / "sdkconfig", line.encode())
    assert read_plan(read_project(build)).chip_size == size


@pytest.mark.parametrize("flash_size", ["detect", "keep", 4, None, [], "-4MB"])
def test_unknown_flash_size_is_none(flash_size: object, tmp_path: Path) -> None:
    build = make_project(tmp_path)
    write_file(tmp_path / "sdkconfig", b"")
    edit_json(build / "flasher_args.json", flash_settings={"flash_size": flash_size})
    assert read_flasher_args(build).chip_size is None
    assert read_plan(read_project(build)).chip_size is None


def test_plan_holds_files_size_and_security(tmp_path: Path) -> None:
    build = make_project(tmp_path, sdkconfig={"CONFIG_SECURE_BOOT": "y"})
    plan = read_plan(read_project(build))
    assert plan.files == read_flasher_args(build).files
    assert (plan.chip_size, plan.security.secure_boot, plan.security.flash_encryption) == (4 << 20, True, False)


# --- missing and broken files -----------------------------------------------------------------------------


@pytest.mark.parametrize("is_file", [False, True])
def test_missing_build_folder_is_reported(is_file: bool, tmp_path: Path) -> None:
    if is_file:
        write_file(tmp_path / "build", b"")
    with pytest.raises(InputMissingError) as caught:
        read_project(tmp_path / "build")
    assert (caught.value.path, caught.value.role) == (tmp_path / "build", "build folder")
    assert caught.value.reason == ("no-file" if is_file else "missing")


def test_project_that_is_not_built_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError) as caught:
        read_flasher_args(tmp_path)
    assert caught.value.path == tmp_path / "flasher_args.json"
    assert caught.value.role == "flasher_args.json"
    assert caught.value.exit_code == 66


def test_build_folder_without_target_is_reported(tmp_path: Path) -> None:
    (tmp_path / "build").mkdir()
    with pytest.raises(NoTargetError, match="target chip") as caught:
        read_project(tmp_path / "build")
    assert str(tmp_path / "build") in caught.value.message


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"{}x", b"[" * 100000, b'{"a": "\\ud800"}']
)
@pytest.mark.parametrize("name", ["flasher_args.json", "project_description.json"])
def test_invalid_json_is_refused(name: str, text: bytes, tmp_path: Path) -> None:
    build = make_project(tmp_path)
    write_file(build / name, text)
    with pytest.raises(ProjectError, match=r"is not (valid JSON|a JSON object)") as caught:
        read_project(build)
        read_flasher_args(build)
    assert str(build / name) in caught.value.message
    assert caught.value.exit_code == 65


@pytest.mark.parametrize("name", ["flasher_args.json", "project_description.json", "config/sdkconfig.json"])
def test_key_that_occurs_twice_is_refused(name: str, tmp_path: Path) -> None:
    build = make_project(tmp_path, "esp32s2")
    text = '{"flash_files": {"0x20000": "hello.bin", "0x8000": "a", "0x20000": "second.bin"}, "target": "esp32s2"}'
    write_file(build / name, text.encode())
    with pytest.raises(BuildFileError, match="has the key '0x20000' twice in one object") as caught:
        read_plan(read_project(build))
    assert caught.value.message.startswith(str(build / name))


@pytest.mark.parametrize("offset", ["", "app", "-4", "0x100000000", "1.5", "9" * 5000])
def test_invalid_address_is_refused_with_its_key(offset: str, tmp_path: Path) -> None:
    path = tmp_path / "flasher_args.json"
    write_json(path, {"flash_files": {offset: "app.bin"}})
    with pytest.raises(ProjectError, match="0x10000") as caught:
        read_flasher_args(tmp_path)
    assert caught.value.message.startswith(f"{path}: flash_files: invalid flash address {offset!r}")
    write_json(path, {"flash_files": {}, "app": {"offset": offset, "file": "app.bin"}})
    with pytest.raises(ProjectError) as caught:
        read_flasher_args(tmp_path)
    assert caught.value.message.startswith(f"{path}: app.offset: invalid flash address {offset!r}")


@pytest.mark.parametrize("flash_files", [[], "app.bin", {"0x10000": 5}, {"0x10000": {"file": "app.bin"}}, 1])
def test_flash_files_of_wrong_type_are_refused(flash_files: object, tmp_path: Path) -> None:
    write_json(tmp_path / "flasher_args.json", {"flash_files": flash_files})
    with pytest.raises(ProjectError, match=r"flasher_args\.json: flash_files: expected an object such as"):
        read_flasher_args(tmp_path)


def test_impossible_project_path_is_ignored(tmp_path: Path) -> None:
    build = make_project(tmp_path)
    for path in ("a" * 5000, "a\0b"):
        edit_json(build / "project_description.json", project_path=path, config_file=path)
        assert read_project(build).project_dir == tmp_path


# --- hypothesis -------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
offsets = st.sampled_from(["0x0", "0x10000", "4096", "0x", "-1"]) | st.text(max_size=6)
paths = st.sampled_from(["app.bin", "", ".", "/", "a\0b", "a" * 5000]) | st.text(max_size=6)
flasher_args = st.fixed_dictionaries(
    {},
    optional={
        "flash_files": st.dictionaries(offsets, paths | json_values, max_size=3) | json_values,
        "flash_settings": st.fixed_dictionaries({"flash_size": json_values}) | json_values,
        "app": st.fixed_dictionaries({"offset": offsets, "file": paths, "encrypted": json_values}) | json_values,
        "bootloader": json_values,
    },
)
descriptions = st.fixed_dictionaries(
    {},
    optional={
        "target": st.sampled_from(["esp32s3", "esp32"]) | json_values,
        "project_path": paths | json_values,
        "config_file": paths | json_values,
        "project_name": json_values,
    },
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "build").mkdir()
    return folder


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=40) | flasher_args.map(json.dumps).map(str.encode))
def test_reader_survives_any_flasher_args(folder: Path, text: bytes) -> None:
    (folder / "flasher_args.json").write_bytes(text)
    try:
        args = read_flasher_args(folder)
    except EspDfuError as error:
        assert str(folder / "flasher_args.json") in error.message
    else:
        addresses = [file.address for file in args.files]
        assert addresses == sorted(addresses)
        assert all(0 <= address <= 0xFFFFFFFF for address in addresses)


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=40) | descriptions.map(json.dumps).map(str.encode))
def test_reader_survives_any_project_description(folder: Path, text: bytes) -> None:
    (folder / "build" / "project_description.json").write_bytes(text)
    (folder / "sdkconfig").write_bytes(b"")
    try:
        project = read_project(folder / "build")
    except EspDfuError as error:
        assert isinstance(error, ProjectError)
    else:
        assert project.target
        assert isinstance(project.name, str)


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=60) | st.text('CONFIG_ABYn="= \r\n#', max_size=40).map(str.encode))
def test_reader_survives_any_sdkconfig(folder: Path, text: bytes) -> None:
    write_json(folder / "build" / "project_description.json", {"target": "esp32s3"})
    (folder / "sdkconfig").write_bytes(text)
    project = read_project(folder / "build")
    assert project.target == "esp32s3"
    assert all(key.startswith("CONFIG_") and "\n" not in value for key, value in project.sdkconfig.items())


def test_unreadable_sdkconfig_is_refused(tmp_path: Path) -> None:
    build_dir = make_project(tmp_path / "project")
    sdkconfig = build_dir.parent / "sdkconfig"
    if sdkconfig.exists():
        sdkconfig.unlink()
    sdkconfig.mkdir()
    edit_json(build_dir / "project_description.json", config_file=None)
    with pytest.raises(ProjectError, match="sdkconfig cannot be read"):
        read_project(build_dir)
