"""Completion on TAB: the answers to click, and a real shell."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from esp_dfu_ext.cli import cli
from esp_dfu_ext.usb.bus import UsbDevice

from .kit.chips import chip
from .kit.commands import TAB_BOARDS, complete
from .kit.files import forbid


def test_commands_and_options_are_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [line.split(":")[0] for line in complete(monkeypatch, "esp-dfu ")]
    assert {"build", "flash", "list", "doctor", "demo"} <= set(names)
    assert any(line.startswith("--strict") for line in complete(monkeypatch, "esp-dfu flash x --st"))


def test_paths_of_boards_with_dfu_are_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    offered = complete(monkeypatch, "esp-dfu flash dfu.bin --path ")
    assert [line.split(":")[0] for line in offered] == ["1-1", "1-2", "1-3"]
    assert "ESP32-S3 with DFU in run-time mode" in offered[0]
    assert complete(monkeypatch, "esp-dfu flash dfu.bin --path 2") == []


def test_given_path_is_not_offered_again(monkeypatch: pytest.MonkeyPatch) -> None:
    offered = complete(monkeypatch, "esp-dfu flash dfu.bin --path 1-1 --path ")
    assert [line.split(":")[0] for line in offered] == ["1-2", "1-3"]


def test_readable_serials_are_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    offered = complete(monkeypatch, "esp-dfu flash dfu.bin --serial ")
    assert offered == ["7c:df:a1:00:00:01: port 1-1", "0: port 1-2"]


@pytest.mark.parametrize(
    "serial", ["$(id)", "`id`", "a b", "*", "a;id", "'", '"', "-x", "a\\b", "~", "a\nb", "ž", "&", ""]
)
def test_serial_that_a_shell_would_expand_is_left_out(serial: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UsbDevice, "read_serial", lambda device: serial)
    assert complete(monkeypatch, "esp-dfu flash dfu.bin --serial ") == []
    monkeypatch.setattr(UsbDevice, "read_serial", lambda device: "A:1-2_3.4")
    assert len(complete(monkeypatch, "esp-dfu flash dfu.bin --serial ")) == 3


def test_chip_that_a_shell_would_expand_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = Path(chip("esp32s2").source or "").read_text(encoding="utf-8")
    for name in ("$(id)", "esp32x2"):
        (tmp_path / f"{name}.yaml").write_text(text.replace("name: esp32s2", f"name: {name}"))
    monkeypatch.setenv("ESP_DFU_TARGETS", str(tmp_path))
    names = [line.partition(":")[0] for line in complete(monkeypatch, "esp-dfu demo --target ")]
    assert names == ["esp32p4", "esp32s2", "esp32s3", "esp32s31", "esp32x2"]


def test_chips(monkeypatch: pytest.MonkeyPatch) -> None:
    assert complete(monkeypatch, "esp-dfu demo --target esp32s3") == ["esp32s31: ESP32-S31", "esp32s3: ESP32-S3"][::-1]


@pytest.mark.parametrize("word", ["--path", "--serial"])
def test_errors_are_silent(word: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert complete(monkeypatch, f"esp-dfu flash x {word} ", boards="nonsense") == []
    monkeypatch.setenv("ESP_DFU_TARGETS", str(tmp_path / "missing"))
    assert complete(monkeypatch, f"esp-dfu flash x {word} ") == []
    monkeypatch.setenv("ESP_DFU_TARGETS", str(tmp_path))
    with monkeypatch.context() as refused:
        forbid(refused, tmp_path)
        assert complete(refused, f"esp-dfu flash x {word} ") == []
    broken = tmp_path / "esp32s3.yaml"
    broken.write_text("nonsense")
    monkeypatch.setenv("ESP_DFU_TARGETS", str(tmp_path))
    assert [line.split(":")[0] for line in complete(monkeypatch, f"esp-dfu flash x {word} ", "esp32s2")] != []


def esp_dfu(folder: Path) -> None:
    """An `esp-dfu` on PATH that is this checkout's."""
    program = folder / "esp-dfu"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m esp_dfu_ext "$@"\n')
    program.chmod(0o755)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_names_its_shell(shell: str) -> None:
    done = CliRunner().invoke(cli, ["completion", shell])
    assert done.exit_code == 0
    assert f"_ESP_DFU_COMPLETE={shell}_complete" in done.stdout


def test_bash_completes_port(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    assert bash is not None
    esp_dfu(tmp_path)
    script = (
        'eval "$(esp-dfu completion bash)"; COMP_WORDS=(esp-dfu flash x --path 1); COMP_CWORD=4;'
        'complete -p esp-dfu >/dev/null && _esp_dfu_completion esp-dfu; echo "${COMPREPLY[@]}"'
    )
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "ESP_DFU_SIMULATE": TAB_BOARDS}
    done = subprocess.run([bash, "--norc", "-c", script], env=env, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("1-1 1-2 1-3\n", "")
