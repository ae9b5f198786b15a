"""Build folders, dfu.bin files and devices from a stranger: what SECURITY.md promises about each."""

from __future__ import annotations

import ntpath
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from pytest_mock import MockerFixture

from esp_dfu_ext import __main__
from esp_dfu_ext.commands.list import dfu_util_line
from esp_dfu_ext.errors import FirmwareError, ImageError, OutputError, OutsideProjectError
from esp_dfu_ext.events import Event
from esp_dfu_ext.image.check import check_image
from esp_dfu_ext.image.format import parse_image
from esp_dfu_ext.inputs.build_files import local_path
from esp_dfu_ext.inputs.esp_idf import read_project
from esp_dfu_ext.operations.build import ImageOptions, build
from esp_dfu_ext.operations.inspect import load_image
from esp_dfu_ext.operations.list import list_devices
from esp_dfu_ext.target import builtin_folder, load_targets
from esp_dfu_ext.ui.console import Console

from .kit.archives import MIB, File, archive, content, dfu_file, dfu_image
from .kit.boards import make_rig
from .kit.chips import S3, chips
from .kit.commands import esp_dfu, run
from .kit.files import edit_json, write_file
from .kit.projects import make_project, notices

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def build_dir(tmp_path: Path) -> Path:
    """Return the build folder of a project whose CMakeLists.txt is missing, as if only the build had been copied."""
    write_file(tmp_path / "home" / "secret.bin", b"secret" * 100)
    return make_project(tmp_path / "home" / "project")


def add_flash_file(build_dir: Path, name: str) -> None:
    edit_json(build_dir / "flasher_args.json", flash_files={"0x100000": name})


# --- files from elsewhere ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../../secret.bin", "../build/../../secret.bin", "{home}/secret.bin", "link.bin"])
def test_file_outside_project_is_refused(name: str, build_dir: Path) -> None:
    home = build_dir.parent.parent
    (build_dir / "link.bin").symlink_to(home / "secret.bin")
    add_flash_file(build_dir, name.format(home=home))
    write_file(build_dir.parent / "CMakeLists.txt", b"project(hello)\n")
    for force in (False, True):  # --force is about firmware, not about files
        with pytest.raises(OutsideProjectError, match="outside") as caught:
            build(build_dir, force=force)
        assert "0x100000" in caught.value.notes[0]
        assert not (build_dir / "dfu.bin").exists()


@pytest.mark.parametrize("command", ["idf.py", "--allow-outside"])
def test_file_outside_own_project_is_accepted_with_notice(command: str, build_dir: Path) -> None:
    add_flash_file(build_dir, "../../secret.bin")
    events: list[Event] = []
    project = build_dir.parent if command == "idf.py" else None
    options = ImageOptions(allow_outside=command == "--allow-outside")
    result = build(build_dir, project_dir=project, options=options, on_event=events.append)
    assert b"secretsecret" in result.path.read_bytes()
    assert "secret.bin for 0x100000 is outside the project" in notices(events)["outside-project"]
    with pytest.raises(FirmwareError):  # and firmware is still checked
        write_file(build_dir / "hello.bin", b"no firmware")
        edit_json(build_dir / "flasher_args.json", flash_files={"0x20000": "hello.bin"})
        build(build_dir, project_dir=project, options=options)


@pytest.mark.parametrize("name", ["../assets.bin", "{project}/assets.bin", "assets"])
def test_file_in_project_folder_is_accepted(name: str, build_dir: Path) -> None:
    project = build_dir.parent
    write_file(project / "CMakeLists.txt", b"project(hello)\n")
    write_file(project / "assets.bin", b"assets" * 100)
    (build_dir / "assets").symlink_to(project / "assets.bin")
    add_flash_file(build_dir, name.format(project=project))
    assert b"assetsassets" in build(build_dir).path.read_bytes()


def test_separate_build_folder_is_trusted_only_with_project_dir(build_dir: Path, tmp_path: Path) -> None:
    project = build_dir.parent
    write_file(project / "CMakeLists.txt", b"project(hello)\n")
    write_file(project / "assets.bin", b"assets" * 100)
    out = build_dir.rename(tmp_path / "out")
    add_flash_file(out, "../home/project/assets.bin")
    assert b"assetsassets" in build(out, project_dir=project).path.read_bytes()
    with pytest.raises(OutsideProjectError):
        build(out)  # project_description.json alone is not trusted


def test_parent_of_copied_build_folder_is_not_trusted(build_dir: Path) -> None:
    add_flash_file(build_dir, "../sdkconfig")
    with pytest.raises(OutsideProjectError):
        build(build_dir)


def test_dfu_bin_link_out_of_project_is_not_followed(build_dir: Path) -> None:
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
    ("text", "build_dir", "accepted"),
    [
        ("C:/project", "C:\\project\\build", True),
        ("D:\\other", "C:\\project\\build", True),
        ("\\\\evil\\share", "C:\\project\\build", False),
        ("//evil/share/project", "C:\\project\\build", False),
        ("//WSL$/Debian/project", "\\\\wsl$\\Debian\\project\\build", True),
        ("project", "C:\\project\\build", False),
    ],
)
def test_windows_share_on_another_machine_is_not_opened(
    text: str, build_dir: str, accepted: bool, mocker: MockerFixture
) -> None:
    """Windows would send that machine the user's name and a hash of the password."""
    mocker.patch("esp_dfu_ext.inputs.build_files.os.path", ntpath)
    folder = mocker.Mock(absolute=lambda: build_dir)
    assert (local_path(text, folder) is not None) is accepted


def test_relative_project_path_is_ignored(build_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file(tmp_path / "sdkconfig", b"CONFIG_SECURE_BOOT=y\n")
    monkeypatch.chdir(tmp_path)
    edit_json(build_dir / "project_description.json", project_path=".", config_file="sdkconfig")
    project = read_project(build_dir)
    assert (project.project_dir, project.security.secure_boot) == (build_dir.parent, False)


def test_too_long_file_name_is_reported(build_dir: Path, capsys: Capture) -> None:
    add_flash_file(build_dir, "a" * 300)
    assert run("build", str(build_dir)) == 66
    assert "does not exist" in capsys.readouterr().err


# --- the current folder -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["esptool.cfg", "setup.cfg", "tox.ini"])
@pytest.mark.parametrize("text", ["[esptool]\ntimeout = abc\n", None], ids=["wrong", "fifo"])
def test_esptool_reads_no_configuration_of_current_folder(
    name: str, text: str | None, build_dir: Path, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / name) if text is None else (tmp_path / name).write_text(text)
    done = esp_dfu("build", build_dir, cwd=tmp_path, timeout=30)
    assert (done.stderr, done.returncode) == ("", 0)


def test_python_m_imports_nothing_of_current_folder(tmp_path: Path) -> None:
    for name in ("click", "msgspec", "yaml", "usb", "rich", "json", "dataclasses", "esptool"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('hijacked')")
    for words in (["demo"], ["list"], ["--help"]):
        done = esp_dfu(*words, boards="esp32s3", cwd=tmp_path)
        assert (done.stderr, done.returncode) == ("", 0)


@pytest.mark.parametrize("safe_path", [False, True])
def test_only_current_folder_is_taken_off_the_path(safe_path: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for first in (str(Path.cwd()), "", "/elsewhere"):
        monkeypatch.setattr(sys, "flags", SimpleNamespace(safe_path=safe_path))
        monkeypatch.setattr(sys, "path", [first, "/rest"])
        __main__._leave_out_current_folder()
        kept = safe_path or first == "/elsewhere"
        assert sys.path == ([first, "/rest"] if kept else ["/rest"])


# --- images -----------------------------------------------------------------------------------------------


def test_second_index_is_refused() -> None:
    """The ROM would use it as its index and report success, but not write the file."""
    stream = archive([File(0x1000, "dfuinfo0.dat", b"data" * 22)], MIB)
    problems = check_image(parse_image(dfu_file(stream)), S3)
    assert problems == ["There are several members named dfuinfo0.dat: the ROM would use the last as its index."]


def test_inspect_fails_if_simulated_rom_does(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Host and ROM disagree here because the user's own chip file is wrong."""
    chip = yaml.safe_load(Path(S3.source or "").read_text(encoding="utf-8"))
    chip["flash"]["limit"] = 32 * MIB
    write_file(tmp_path / "dfu_targets" / "esp32s3.yaml", yaml.safe_dump(chip).encode())
    monkeypatch.setenv("ESP_DFU_TARGETS", str(tmp_path / "dfu_targets"))
    # Above 16 MiB the ROM wraps to address 0, onto the first file.
    stream = archive([File(0x1000, "a.bin", content(100)), File(16 * MIB + 0x1000, "b.bin", content(100, 1))], 32 * MIB)
    dfu_bin = write_file(tmp_path / "build" / "dfu.bin", dfu_file(stream))
    assert run("inspect", str(dfu_bin)) == 65
    assert "The simulated ROM reports errFIRMWARE." in capsys.readouterr().out


# --- what people see --------------------------------------------------------------------------------------


def test_serial_number_cannot_look_like_another_port() -> None:
    rig = make_rig()
    rig.board.rom.serial = '0", path="1-7'
    (listed,) = list_devices(rig.bus, chips())
    line = dfu_util_line(listed, 0)
    assert line.count('path="') == 1
    assert line.endswith('serial="0?, path=?1-7"')


def test_long_line_on_screen_is_cut(capsys: Capture) -> None:
    Console().info("a" * 100_000)
    out = capsys.readouterr().out
    assert len(out) < 9000
    assert out.endswith("... and 92000 more characters\n")


def test_chip_file_beside_image_lifts_no_limit_of_the_rom(build_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """project_description.json beside a dfu.bin leads to chips that come from the same stranger."""
    beyond = File(0x1000000 - 0x1000, "beyond.bin", b"\1" * 0x2000)
    dfu_bin = write_file(build_dir / "dfu.bin", dfu_image([beyond], pid=9, chip_size=32 << 20))
    with pytest.raises(ImageError) as alone:
        load_image(dfu_bin)
    text = (builtin_folder() / "esp32s3.yaml").read_text().replace("limit: 0x1000000", "limit: 0x8000000")
    for name in ("esp32s3", "a_chip"):  # by name, or by USB ID
        folder = build_dir.parent / "dfu_targets"
        own = write_file(folder / f"{name}.yaml", text.replace("name: esp32s3", f"name: {name}").encode())
        with pytest.raises(ImageError) as caught:
            load_image(dfu_bin, targets=load_targets(build_dir.parent))
        assert set(alone.value.notes) <= set(caught.value.notes)
        assert run("flash", dfu_bin, "--simulate") == 65
        assert run("build", build_dir, "-o", build_dir / "good.bin") == 0
        said = f"{own} describes the chip, in place of the built-in esp32s3 (303a:0009)."
        assert (said in " ".join(capsys.readouterr().err.split())) == (name == "esp32s3")
        own.unlink()
