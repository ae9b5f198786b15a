"""`esp-dfu enable` and `disable`, and that idf.py follows them."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from esp_dfu_ext import extra_actions_path
from esp_dfu_ext.commands.enable import BLOCK, disable, enable, enable_shell
from esp_dfu_ext.commands.session import Session
from esp_dfu_ext.doctor.advice import ESP_DFU
from esp_dfu_ext.ui.console import Console

from .kit.commands import esp_dfu, idf_py
from .test_idf_actions import VERSIONS, doctor, idf_py_lists, project, site_packages

__all__ = ["project"]  # the fixture
Capture = pytest.CaptureFixture[str]


def session() -> Session:
    return Session(Console(), ESP_DFU)


@pytest.fixture
def idf_project(project: Path) -> Path:
    (project / "CMakeLists.txt").write_text("include($ENV{IDF_PATH}/tools/cmake/project.cmake)\n")
    return project


@pytest.mark.parametrize("version", VERSIONS)
def test_idf_py_has_actions_only_while_enabled(version: str, idf_project: Path, capsys: Capture) -> None:
    env = {"PYTHONPATH": str(site_packages(idf_project.parent / "site", entry_point=False))}
    for command, file_there in (("enable", True), ("enable", True), ("disable", False), ("disable", False)):
        done = esp_dfu(command, idf_project)
        assert (done.returncode, done.stderr) == (0, "")
        assert (idf_project / "idf_ext.py").exists() == file_there
        if file_there:
            idf_py_lists(idf_project, env, version)
    assert "built-in dfu-list" in idf_py(idf_project, env, version, "dfu-list").stdout


OWN = """\
def action_extensions(base_actions, project_path):
    return {"version": "1", "actions": {"mine": {"callback": lambda *args: print("mine!")}}}
"""
ASKED = "idf.py uses dfu-util, as esp-dfu-ext is not installed. To install it: pip install esp-dfu-ext\n"


@pytest.mark.parametrize("targetless", ["", "1"], ids=["built-in", "no built-in"])
@pytest.mark.parametrize("version", VERSIONS)
def test_own_actions_and_ours_work_side_by_side(
    version: str, targetless: str, idf_project: Path, capsys: Capture
) -> None:
    file = idf_project / "idf_ext.py"
    file.write_text(OWN)
    assert enable(session(), idf_project) == 0
    assert "your own actions stay" in capsys.readouterr().out
    env = {"FAKE_IDF_TARGETLESS": targetless, "PYTHONPATH": str(without_package(idf_project))}
    done = idf_py(idf_project, env, version, "mine")
    assert ("mine!" in done.stdout, done.stderr, done.returncode) == (True, "", 0)
    if not targetless:
        done = idf_py(idf_project, env, version, "dfu", "dfu-flash")
        assert ("built-in dfu-flash" in done.stdout, done.stderr, done.returncode) == (True, ASKED, 0)
    env["PYTHONPATH"] = str(site_packages(idf_project.parent / "site", entry_point=False))
    idf_py_lists(idf_project, env, version)
    assert "mine!" in idf_py(idf_project, env, version, "mine").stdout
    assert idf_py(idf_project, env, version, "dfu-doctor", "--help").returncode == 0
    _, facts = doctor(idf_project, {**env, "ESP_DFU_SIMULATE": "esp32s3"}, version)
    assert facts["plugin"]["text"] == f"loaded by {file}, which calls the installed package"
    shutil.rmtree(idf_project / "build")
    (idf_project / "sdkconfig").unlink()
    done = idf_py(idf_project, env, version, "dfu")
    assert ("[no-target]" in done.stderr, done.returncode) == (True, 65)


@pytest.mark.parametrize("own", [OWN, OWN.replace("\n", "\r\n"), "\ufeff" + OWN, "# ü\n", OWN + "\n\n"])
def test_own_file_is_as_before_after_disable(own: str, idf_project: Path, capsys: Capture) -> None:
    file = idf_project / "idf_ext.py"
    file.write_bytes(own.encode())
    file.chmod(0o640)
    for _ in range(2):
        assert enable(session(), idf_project) == 0
    text = file.read_bytes().decode()
    assert text.startswith(own)
    assert text.count("esp_dfu_ext") == 1
    assert text.count("\r\n") in (0, text.count("\n"))
    assert disable(session(), idf_project) == 0
    assert "Removed the dfu actions from" in capsys.readouterr().out
    assert (file.read_bytes().decode(), file.stat().st_mode & 0o777) == (own, 0o640)


def test_last_line_without_end_and_link_are_kept(idf_project: Path, capsys: Capture) -> None:
    shared, file = idf_project / "shared.py", idf_project / "idf_ext.py"
    shared.write_text("x = 1")
    file.symlink_to(shared)
    assert enable(session(), idf_project) == 0
    assert file.is_symlink()
    assert shared.read_text() == f"x = 1\n\n\n{BLOCK}"
    assert disable(session(), idf_project) == 0
    assert shared.read_text() == "x = 1\n"


def without_package(project: Path, error: str = "ModuleNotFoundError") -> Path:
    """Return a folder for PYTHONPATH in which the package, before an installed one, cannot be imported."""
    package = project.parent / "without" / "esp_dfu_ext"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"raise {error}\n")
    return package.parent


@pytest.mark.parametrize("error", ["ModuleNotFoundError", "ValueError"])
@pytest.mark.parametrize("version", VERSIONS)
def test_file_of_enable_never_stops_idf_py(version: str, error: str, idf_project: Path) -> None:
    (idf_project / "idf_ext.py").write_text(BLOCK)
    env = {"PYTHONPATH": str(without_package(idf_project, error))}
    done = idf_py(idf_project, env, version, "flash")
    assert ("built-in flash" in done.stdout, done.stderr, done.returncode) == (True, "", 0)
    done = idf_py(idf_project, env, version, "dfu", "dfu-flash")
    assert ("built-in dfu-flash" in done.stdout, done.stderr, done.returncode) == (True, ASKED, 0)


def test_folder_without_project_gets_no_file(tmp_path: Path, capsys: Capture) -> None:
    assert session().run(lambda s: enable(s, tmp_path)) == 65
    assert "not an ESP-IDF project" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", [enable, disable])
@pytest.mark.parametrize("endless", ["fifo", "/dev/zero"])
def test_file_without_end_is_refused(
    endless: str, verb: Callable[..., int], idf_project: Path, capsys: Capture
) -> None:
    file = idf_project / "idf_ext.py"
    os.mkfifo(file) if endless == "fifo" else file.symlink_to(endless)
    assert session().run(lambda s: verb(s, idf_project)) == 65
    assert "idf_ext.py cannot be read: it is not a regular file." in capsys.readouterr().err


def test_unreadable_file_is_kept(idf_project: Path, capsys: Capture) -> None:
    (idf_project / "idf_ext.py").write_bytes(b"\xff\xfe")
    assert session().run(lambda s: enable(s, idf_project)) == 65
    assert (idf_project / "idf_ext.py").read_bytes() == b"\xff\xfe"
    capsys.readouterr()


def test_unwritable_folder_is_output_error(idf_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert session().run(lambda s: enable(s, idf_project)) == 73


@pytest.mark.parametrize(
    ("shell", "before", "line"),
    [
        ("/bin/bash", "", "export IDF_EXTRA_ACTIONS_PATH={quoted}"),
        ("/bin/zsh", "/my own", "export IDF_EXTRA_ACTIONS_PATH='/my own;{ours}'"),
        ("/bin/bash", "{ours};/mine", "export IDF_EXTRA_ACTIONS_PATH='{ours};/mine'"),
        ("/usr/bin/fish", "", "set -gx IDF_EXTRA_ACTIONS_PATH {quoted}"),
    ],
)
def test_command_is_in_syntax_of_shell(
    shell: str, before: str, line: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    ours = extra_actions_path()
    monkeypatch.setenv("SHELL", shell)
    monkeypatch.setenv("IDF_EXTRA_ACTIONS_PATH", before.format(ours=ours))
    assert enable_shell(session()) == 0
    assert capsys.readouterr().out == line.format(ours=ours, quoted=shlex.quote(ours)) + "\n"


def test_command_is_in_syntax_of_powershell(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("IDF_EXTRA_ACTIONS_PATH", "C:\\it's")
    enable_shell(session())
    assert capsys.readouterr().out == f"$env:IDF_EXTRA_ACTIONS_PATH = 'C:\\it''s;{extra_actions_path()}'\n"


def test_shell_command_can_be_undone(idf_project: Path, capsys: Capture) -> None:
    python = shlex.quote(sys.executable)
    script = (
        f'eval "$({python} -m esp_dfu_ext enable --shell)"; echo "$IDF_EXTRA_ACTIONS_PATH";'
        f'eval "$({python} -m esp_dfu_ext disable --shell)"; echo "$IDF_EXTRA_ACTIONS_PATH"'
    )
    env = {"IDF_EXTRA_ACTIONS_PATH": "/mine", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(["sh", "-c", script], env=env, capture_output=True, text=True, cwd=idf_project)
    assert done.stdout.splitlines() == [f"/mine;{extra_actions_path()}", "/mine"]


EARLIER = [
    *(
        f"# idf.py dfu, {others}\nfrom esp_dfu_ext import action_extensions\n"
        for others in (
            "dfu-list, dfu-flash and dfu-doctor without dfu-util; `esp-dfu disable` removes this file.",
            "dfu-list and dfu-flash without dfu-util; `esp-dfu disable` takes this file away again.",
        )
    ),
    """\
# idf.py dfu, dfu-list, dfu-flash and dfu-doctor without dfu-util; `esp-dfu disable` removes this file.
try:
    from esp_dfu_ext import action_extensions
except Exception:  # idf.py must work for those who have not installed it

    def action_extensions(base_actions, project_path):
        def before_actions(ctx, args, tasks):
            if any(getattr(task, "name", "").startswith("dfu") for task in tasks):
                import sys

                text = "idf.py uses dfu-util, as esp-dfu-ext is not installed. To install it: pip install esp-dfu-ext"
                print(text, file=sys.stderr)

        return {"version": "1", "global_action_callbacks": [before_actions]}
""",
]


@pytest.mark.parametrize("text", [BLOCK, BLOCK.replace("\n", "\r\n"), *EARLIER])
def test_file_of_any_version_is_removed(text: str, idf_project: Path, capsys: Capture) -> None:
    file = idf_project / "idf_ext.py"
    file.write_text(text)
    assert disable(session(), idf_project) == 0
    assert not file.exists()


@pytest.mark.parametrize("text", EARLIER)
def test_enable_replaces_file_of_earlier_version(text: str, idf_project: Path, capsys: Capture) -> None:
    (idf_project / "idf_ext.py").write_text(text)
    assert enable(session(), idf_project) == 0
    assert (idf_project / "idf_ext.py").read_text() == BLOCK


BY_HAND = "from esp_dfu_ext import action_extensions as dfu\n"


@pytest.mark.parametrize("text", [BY_HAND, EARLIER[2].replace("#", "x = 1  #", 1), f"{BY_HAND}\n\n{BLOCK}"])
def test_lines_of_others_that_name_us_are_kept(text: str, idf_project: Path, capsys: Capture) -> None:
    file = idf_project / "idf_ext.py"
    file.write_text(text)
    assert enable(session(), idf_project) == 0
    assert disable(session(), idf_project) == 65
    assert file.read_text() == text
    out = capsys.readouterr().out
    assert ("was not changed" in out, "Remove the lines that name esp_dfu_ext." in out) == (True, True)


def test_enable_names_a_missing_folder(tmp_path: Path) -> None:
    done = esp_dfu("enable", "nofolder", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (65, "error: The folder nofolder does not exist. [project]\n")
