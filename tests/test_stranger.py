"""A build folder, a dfu.bin or a device of somebody else: what SECURITY.md promises about each."""

from __future__ import annotations

import ntpath
from pathlib import Path

import pytest
import yaml
from pytest_mock import MockerFixture

from esp_dfu_ext.commands.list import dfu_util_line
from esp_dfu_ext.errors import OutputError, OutsideProjectError
from esp_dfu_ext.events import Event
from esp_dfu_ext.image.check import check_image
from esp_dfu_ext.image.format import parse_image
from esp_dfu_ext.operations.build import build
from esp_dfu_ext.operations.list import list_devices
from esp_dfu_ext.project import _local_path, read_project
from esp_dfu_ext.ui.console import Console

from .kit.archives import MIB, File, archive, content, dfu_file
from .kit.boards import bench
from .kit.chips import S3, chips
from .kit.commands import run
from .kit.files import edit_json, write_file
from .kit.projects import make_project, notices

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def build_dir(tmp_path: Path) -> Path:
    """A project that came alone: no CMakeLists.txt above it."""
    write_file(tmp_path / "home" / "secret.bin", b"secret" * 100)
    return make_project(tmp_path / "home" / "project")


def add_flash_file(build_dir: Path, name: str) -> None:
    edit_json(build_dir / "flasher_args.json", flash_files={"0x100000": name})


# --- files from elsewhere ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../../secret.bin", "../build/../../secret.bin", "{home}/secret.bin", "link.bin"])
@pytest.mark.parametrize("face", ["esp-dfu", "idf.py"])
def test_no_file_from_elsewhere_gets_into_the_image(name: str, face: str, build_dir: Path) -> None:
    home = build_dir.parent.parent
    (build_dir / "link.bin").symlink_to(home / "secret.bin")
    add_flash_file(build_dir, name.format(home=home))
    write_file(build_dir.parent / "CMakeLists.txt", b"project(hello)\n")
    with pytest.raises(OutsideProjectError, match="outside") as caught:
        build(build_dir, project_dir=build_dir.parent if face == "idf.py" else None)
    assert "0x100000" in caught.value.notes[0]
    assert not (build_dir / "dfu.bin").exists()


def test_force_takes_it_and_says_so(build_dir: Path) -> None:
    add_flash_file(build_dir, "../../secret.bin")
    events: list[Event] = []
    result = build(build_dir, force=True, on_event=events.append)
    assert b"secretsecret" in result.path.read_bytes()
    assert "secret.bin" in notices(events)["forced"]


@pytest.mark.parametrize("name", ["../assets.bin", "{project}/assets.bin", "assets"])
def test_a_file_that_the_project_brings_along_is_taken(name: str, build_dir: Path) -> None:
    project = build_dir.parent
    write_file(project / "CMakeLists.txt", b"project(hello)\n")
    write_file(project / "assets.bin", b"assets" * 100)
    (build_dir / "assets").symlink_to(project / "assets.bin")
    add_flash_file(build_dir, name.format(project=project))
    assert b"assetsassets" in build(build_dir).path.read_bytes()


def test_a_build_folder_in_another_place_is_the_projects_when_idf_py_says_so(build_dir: Path, tmp_path: Path) -> None:
    project = build_dir.parent
    write_file(project / "CMakeLists.txt", b"project(hello)\n")
    write_file(project / "assets.bin", b"assets" * 100)
    out = build_dir.rename(tmp_path / "out")
    add_flash_file(out, "../home/project/assets.bin")
    assert b"assetsassets" in build(out, project_dir=project).path.read_bytes()
    with pytest.raises(OutsideProjectError):
        build(out)  # its own word is not enough


def test_around_a_build_folder_that_came_alone_nothing_is_taken(build_dir: Path) -> None:
    add_flash_file(build_dir, "../sdkconfig")
    with pytest.raises(OutsideProjectError):
        build(build_dir)


def test_a_link_does_not_bring_dfu_bin_to_another_place(build_dir: Path) -> None:
    target = write_file(build_dir.parent.parent / ".profile", b"PATH=...")
    (build_dir / "dfu.bin").symlink_to(target)
    with pytest.raises(OutputError, match="leads out of the project"):
        build(build_dir)
    assert target.read_bytes() == b"PATH=..."
    with pytest.raises(OutputError, match="not a DFU image"):
        build(build_dir, output=build_dir / "dfu.bin")
    assert target.read_bytes() == b"PATH=..."
    target.write_bytes(b"")
    build(build_dir, output=build_dir / "dfu.bin")
    assert target.read_bytes().startswith(b"070701")


@pytest.mark.parametrize(
    ("said", "build_dir", "taken"),
    [
        ("C:/project", "C:\\project\\build", True),
        ("D:\\other", "C:\\project\\build", True),
        ("\\\\evil\\share", "C:\\project\\build", False),
        ("//evil/share/project", "C:\\project\\build", False),
        ("//WSL$/Debian/project", "\\\\wsl$\\Debian\\project\\build", True),
        ("project", "C:\\project\\build", False),
    ],
)
def test_windows_is_not_asked_for_a_share_on_another_machine(
    said: str, build_dir: str, taken: bool, mocker: MockerFixture
) -> None:
    """It would introduce itself there with its user's name and the hash of the password."""
    mocker.patch("esp_dfu_ext.project.os.path", ntpath)
    folder = mocker.Mock(absolute=lambda: build_dir)
    assert (_local_path(said, folder) is not None) is taken


def test_a_relative_project_path_is_not_looked_for_where_one_happens_to_stand(
    build_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_file(tmp_path / "sdkconfig", b"CONFIG_SECURE_BOOT=y\n")
    monkeypatch.chdir(tmp_path)
    edit_json(build_dir / "project_description.json", project_path=".", config_file="sdkconfig")
    project = read_project(build_dir)
    assert (project.project_dir, project.secure_boot) == (build_dir.parent, False)


def test_a_file_name_that_is_too_long_is_an_error_like_any_other(build_dir: Path, capsys: Capture) -> None:
    add_flash_file(build_dir, "a" * 300)
    assert run("build", str(build_dir)) == 66
    assert "does not exist" in capsys.readouterr().err


# --- images -----------------------------------------------------------------------------------------------


def test_a_second_index_is_refused() -> None:
    """The ROM would take it for its index: success is reported, and the file is in no flash."""
    stream = archive([File(0x1000, "dfuinfo0.dat", b"data" * 22)], MIB)
    problems = check_image(parse_image(dfu_file(stream)), S3)
    assert problems == ["There are several members named dfuinfo0.dat: the ROM would use the last as its index."]


def test_inspect_fails_when_the_simulated_rom_does(tmp_path: Path, capsys: Capture) -> None:
    """Host and ROM disagree here because the project's chip file is wrong."""
    chip = yaml.safe_load(Path(S3.source or "").read_text(encoding="utf-8"))
    chip["flash"]["assumed_size"] = 16 * MIB
    write_file(tmp_path / "dfu_targets" / "esp32s3.yaml", yaml.safe_dump(chip).encode())
    stream = archive([File(3 * MIB, "far.bin", content(100))], None)
    dfu_bin = write_file(tmp_path / "build" / "dfu.bin", dfu_file(stream))
    assert run("inspect", str(dfu_bin)) == 65
    assert "The simulated ROM reports errFIRMWARE." in capsys.readouterr().out


# --- what people see --------------------------------------------------------------------------------------


def test_a_serial_number_cannot_pose_as_another_port() -> None:
    rig = bench()
    rig.board.rom.serial = '0", path="1-7'
    (listed,) = list_devices(rig.bus, chips())
    line = dfu_util_line(listed, 0)
    assert line.count('path="') == 1
    assert line.endswith('serial="0?, path=?1-7"')


def test_a_line_on_the_screen_ends(capsys: Capture) -> None:
    Console().info("a" * 100_000)
    out = capsys.readouterr().out
    assert len(out) < 9000
    assert out.endswith("... and 92000 more characters\n")
