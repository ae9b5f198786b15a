"""Replacing files as a whole, and what a killed process leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from esp_dfu_ext.files import replace_file

from .kit.commands import environment

WRITER = """
import sys
from pathlib import Path
from esp_dfu_ext.files import replace_file
with replace_file(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    sys.stdin.readline()
"""


def writer(path: Path) -> subprocess.Popen[str]:
    """Start a process that writes the file, and stays in the middle of it until its stdin is closed."""
    words = [sys.executable, "-c", WRITER, str(path)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment())
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def temporary(folder: Path) -> list[Path]:
    return sorted(folder.glob(".dfu.bin.*.tmp"))


def replace(path: Path) -> None:
    with replace_file(path) as file:
        file.write(b"whole")


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_file_of_killed_process_is_deleted_the_next_time(tmp_path: Path) -> None:
    path = tmp_path / "dfu.bin"
    process = writer(path)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (left,) = temporary(tmp_path)
    replace(path)
    assert temporary(tmp_path) == [left]  # it may have been created just now
    os.utime(left, (1, 1))
    others = [tmp_path / name for name in (".dfu.bin.tmp", ".dfu.bin.0123456z.tmp", ".other.bin.01234567.tmp")]
    for other in others:
        other.touch()
        os.utime(other, (1, 1))
    replace(path)
    assert temporary(tmp_path) == others[1:2]
    assert all(other.exists() for other in others)
    assert path.read_bytes() == b"whole"


@pytest.mark.skipif(sys.platform == "win32", reason="locks")
def test_file_that_is_being_written_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "dfu.bin"
    process = writer(path)
    (left,) = temporary(tmp_path)
    os.utime(left, (1, 1))  # a process that was stopped for an hour
    replace(path)
    assert temporary(tmp_path) == [left]
    process.communicate("go on\n")
    assert process.returncode == 0
    assert path.read_bytes() == b"half"
    assert temporary(tmp_path) == []


def test_links_and_folders_are_kept(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.touch()
    link, folder = (tmp_path / f".dfu.bin.0123456{n}.tmp" for n in (1, 2))
    link.symlink_to(target)
    folder.mkdir()
    os.utime(link, (1, 1), follow_symlinks=False)
    os.utime(folder, (1, 1))
    replace(tmp_path / "dfu.bin")
    assert temporary(tmp_path) == [link, folder]
    assert target.exists()
