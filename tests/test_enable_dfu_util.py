"""`enable --dfu-util`: a program called dfu-util, which of several answers, and how it goes away again."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from esp_dfu_ext.doctor.dfu_util import answering
from esp_dfu_ext.doctor.findings import Level
from esp_dfu_ext.launcher import launcher_folder, on_path, write_launcher
from esp_dfu_ext.linux.machine import Machine

from .kit.commands import environment, run

Capture = pytest.CaptureFixture[str]
SYSTEM = os.environ["PATH"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder, and a PATH without dfu-util."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", "/bin/bash")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for name in ("XDG_DATA_HOME", "IDF_PYTHON_ENV_PATH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def install(folder: Path) -> Path:
    """Install a dfu-util that is not ours."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "dfu-util"
    program.write_text("#!/bin/sh\necho real\n")
    program.chmod(0o755)
    return program


def path_after(line: str) -> list[str]:
    """Return PATH in a shell after it has evaluated the line."""
    done = subprocess.run(
        ["/bin/sh", "-c", f'{line.strip()}; printf %s "$PATH"'], capture_output=True, text=True, check=True
    )
    return done.stdout.split(":")


def test_launcher_answers_and_goes_away(home: Path, capsys: Capture) -> None:
    assert run("enable", "--dfu-util") == 0
    out, err = capsys.readouterr()
    folder = home / ".local/share/esp-dfu-ext/bin"
    assert (path_after(out), err) == ([str(folder), str(home / "bin")], "")
    assert [path.name for path in folder.iterdir()] == ["dfu-util"]
    done = subprocess.run(
        ["/bin/sh", "-c", f"{out}\ndfu-util -l -d 303a:9"],
        env=environment("esp32s3,esp32s2", PATH=f"{home / 'bin'}:{SYSTEM}", HOME=str(home)),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout.count("Found Runtime: [303a:0009]"), done.stderr) == (0, 1, "")
    assert run("disable", "--dfu-util") == 0
    out, err = capsys.readouterr()
    assert path_after(out) == [str(home / "bin")]
    assert "Removed" in err
    assert not folder.exists()
    assert run("disable", "--dfu-util") == 0


def test_line_is_the_same_when_it_was_evaluated_before(
    home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("enable", "--dfu-util")
    first = capsys.readouterr().out
    monkeypatch.setenv("PATH", ":".join(path_after(first)))
    run("enable", "--dfu-util")
    assert capsys.readouterr().out == first


def test_installed_dfu_util_is_hidden_only_with_force(home: Path, capsys: Capture) -> None:
    real = install(home / "bin")
    ours = str(launcher_folder())
    assert run("enable", "--dfu-util") == 0
    out, err = capsys.readouterr()
    assert path_after(out) == [str(home / "bin"), ours]
    assert f"{real} still comes first" in err
    assert run("enable", "--dfu-util", "--force") == 0
    out, err = capsys.readouterr()
    assert (path_after(out), err) == ([ours, str(home / "bin")], "")
    run("disable", "--dfu-util")
    assert real.read_text() == "#!/bin/sh\necho real\n"


def test_a_project_in_the_current_folder_is_not_imported(home: Path, capsys: Capture) -> None:
    run("enable", "--dfu-util")
    (home / "esp_dfu_ext.py").write_text("raise SystemExit(99)")
    (home / "click.py").write_text("raise SystemExit(98)")
    program = launcher_folder() / "dfu-util"
    done = subprocess.run([program, "-V"], cwd=home, env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_python_with_a_space_in_its_path(tmp_path: Path) -> None:
    python = tmp_path / "a python's" / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    program = write_launcher(tmp_path / "bin", str(python))
    lines = program.read_text().splitlines()
    assert (lines[0], shlex.split(lines[2])[1]) == ("#!/bin/sh", str(python))


def test_launcher_for_windows(tmp_path: Path) -> None:
    """It was never run on Windows."""
    program = write_launcher(tmp_path, r"C:\py\python.exe", "win32")
    assert program.name == "dfu-util.cmd"
    assert program.read_text().splitlines()[1].startswith(r'@"C:\py\python.exe" -c "')
    assert on_path([str(tmp_path)], "win32") == [program]
    environ = {"LOCALAPPDATA": str(tmp_path)}
    assert launcher_folder(environ, "win32") == tmp_path / "esp-dfu-ext" / "bin"
    assert launcher_folder({"HOME": "/u"}, "darwin") == Path("/u/Library/Application Support/esp-dfu-ext/bin")


def test_another_program_is_not_replaced(home: Path, capsys: Capture) -> None:
    real = install(launcher_folder())
    assert run("enable", "--dfu-util") == 73
    assert "is another program" in capsys.readouterr().err
    assert run("disable", "--dfu-util") == 0
    assert real.exists()


def test_vscode_finds_it_in_the_python_environment_of_esp_idf(
    home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("enable", "--vscode") == 64
    monkeypatch.setenv("IDF_PYTHON_ENV_PATH", str(home / "idf_env"))
    assert run("enable", "--vscode") == 0
    program = home / "idf_env" / "bin" / "dfu-util"
    # As the extension makes it: this folder first, then the PATH of VS Code.
    path = f"{home}/idf_env/bin:{SYSTEM}"
    done = subprocess.run(["dfu-util", "-V"], env=environment(PATH=path), capture_output=True, text=True)
    assert (done.returncode, "esp-dfu-ext" in done.stdout) == (0, True)
    assert run("disable", "--dfu-util") == 0
    assert not program.exists()
    capsys.readouterr()
    real = install(home / "bin")
    assert run("enable", "--vscode") == 64
    assert str(real) in capsys.readouterr().err
    assert run("enable", "--vscode", "--force") == 0


def test_doctor_names_the_dfu_util_that_answers(tmp_path: Path) -> None:
    def find(*folders: Path) -> tuple[Level, str]:
        machine = Machine(tmp_path, environ={"PATH": ":".join(map(str, folders))})
        (finding,) = answering(machine)
        assert finding.topic == "dfu-util"
        return finding.level, finding.text.replace(str(tmp_path), "")

    real, ours = tmp_path / "real", tmp_path / "ours"
    assert find(real, ours) == (Level.NOT_APPLICABLE, "not on PATH; esp-dfu does not need it")
    install(real)
    write_launcher(ours)
    assert find(real) == (Level.OK, "dfu-util itself answers to it: /real/dfu-util")
    assert find(ours) == (Level.OK, "esp-dfu answers to it: /ours/dfu-util")
    assert find(real, ours) == (
        Level.OK,
        "dfu-util itself answers to it: /real/dfu-util; esp-dfu's comes after it on PATH",
    )
    assert find(ours, real) == (Level.OK, "esp-dfu answers to it: /ours/dfu-util, which hides /real/dfu-util")
