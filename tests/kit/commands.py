"""Run esp-dfu, in this process or in one of its own."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import esp_dfu_ext
from esp_dfu_ext import cli

PACKAGE = Path(esp_dfu_ext.__file__).parent
CHECKOUT = Path(__file__).resolve().parents[2]
IDF_PY = CHECKOUT / "tests" / "idf_py.py"
TIMEOUT = 240.0  # seconds; for a process that should take one, on a busy machine
MAIN = "\nfrom esp_dfu_ext.cli import main; main()"
TAB_BOARDS = "esp32s3,esp32s2,esp32p4+no-access,303a:1001"


def run(*words: object) -> int:
    """Run esp-dfu in this process; return its exit code."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(sys, "argv", ["esp-dfu", *map(str, words)])
        cli.main()
    return int(stop.value.code or 0)


def environment(boards: str | None = None, **more: str) -> dict[str, str]:
    """Return the environment of a process that imports this package, with these simulated boards."""
    simulate = {} if boards is None else {"ESP_DFU_SIMULATE": boards}
    return {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "TERM": "xterm", **simulate, **more}


def esp_dfu(
    *words: object,
    boards: str | None = None,
    code: str | None = None,
    prefix: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    unread: str | None = None,
    **options: Any,
) -> subprocess.CompletedProcess[str]:
    """Run esp-dfu in a process of its own; its output is text.

    Args:
        words: the command's arguments.
        boards: simulated boards, as ESP_DFU_SIMULATE takes them.
        code: Python code to run in place of `python -m esp_dfu_ext`.
        prefix: a command that runs another one, such as `nice`.
        env: more environment variables.
        unread: where stdout goes: "pipe" for one whose reader has left, or a file such as /dev/full.
        options: more options of subprocess.run.
    """
    program = [sys.executable, *(["-m", "esp_dfu_ext"] if code is None else ["-c", code])]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "timeout": TIMEOUT, **options}
    if unread == "pipe":
        read_end, options["stdout"] = os.pipe()
        os.close(read_end)
    elif unread is not None:
        options["stdout"] = os.open(unread, os.O_WRONLY)
    done = subprocess.run([*prefix, *program, *map(str, words)], env=environment(boards, **(env or {})), **options)
    if unread is not None:
        os.close(options["stdout"])
    return done


def idf_py(project: Path, env: Mapping[str, str], version: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the stand-in for idf.py in a project, as ESP-IDF `version` would."""
    return subprocess.run(
        [sys.executable, str(IDF_PY), *words],
        cwd=project,
        env={**os.environ, "PYTHONPATH": "", **env, "FAKE_IDF_VERSION": version},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )


def complete(monkeypatch: pytest.MonkeyPatch, words: str, boards: str = TAB_BOARDS) -> list[str]:
    """Return what TAB offers for the last of the words, with descriptions."""
    monkeypatch.setenv("ESP_DFU_SIMULATE", boards)
    count = len(shlex.split(words)) - (not words.endswith(" "))
    env = {"_ESP_DFU_COMPLETE": "zsh_complete", "COMP_WORDS": words, "COMP_CWORD": str(count)}
    done = CliRunner().invoke(cli.cli, [], env=env, prog_name="esp-dfu")
    assert done.stderr_bytes in (None, b"")
    assert done.exception is None or isinstance(done.exception, SystemExit)
    lines = done.stdout.replace("\\:", ":").splitlines()
    return [f"{value}: {text}" if kind == "plain" else kind for kind, value, text in zip(*[iter(lines)] * 3)]
