"""Inputs too large for a corpus: every command must refuse them in bounded memory and time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..kit import commands
from ..kit.archives import cpio_member, dfu_file, flash_params, index_record
from ..kit.chips import S3
from ..kit.files import sparse_file, write_file
from ..kit.projects import make_project
from .guard import check_output

MEMORY = 768 << 20  # bytes of address space, of which an empty run takes a third
SECONDS = 20  # of CPU time

# Limits hold for this one process only; both end it with a code that no error has.
_RUN = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, ({memory}, {memory}))
resource.setrlimit(resource.RLIMIT_CPU, ({seconds}, {seconds}))
from esp_dfu_ext.cli import main
sys.argv = ["esp-dfu", *sys.argv[1:]]
main()
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limits for a process of one's own")


def esp_dfu(*arguments: str | Path) -> tuple[int, str]:
    """Run the command under limits; return its exit code and output."""
    done = commands.esp_dfu(
        *arguments,
        code=_RUN.format(memory=MEMORY, seconds=SECONDS),
        stderr=subprocess.STDOUT,
        env={"PYTHONIOENCODING": "utf-8"},
        encoding="utf-8",
        timeout=10 * SECONDS,
    )
    check_output(done.stdout.encode())
    return done.returncode, done.stdout


@pytest.fixture
def build_dir(tmp_path: Path) -> Path:
    return make_project(tmp_path / "project")


@pytest.mark.parametrize("file", ["flasher_args.json", "project_description.json"])
def test_json_of_100_mb_is_refused(file: str, build_dir: Path) -> None:
    (build_dir / file).write_bytes(b'{"a":[' + b"[]," * 33_000_000 + b"[]]}")
    code, output = esp_dfu("build", build_dir)
    assert code == 65
    assert f"{file} cannot be read: it is longer than" in output


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":' * 1_600_000,
        b'{"a":[' + b"[]," * 2_700_000 + b"[]]}",
        b'{"flash_files":{"0x0":"' + b"a" * 8_000_000 + b'"}}',
        b'{"flash_files":{"' + b"9" * 8_000_000 + b'":"app.bin"}}',
        b'{"flash_files":{' + b",".join(b'"%d":"hello.bin"' % n for n in range(300_000)) + b"}}",
        b'{"flash_files":' + b"9" * 8_000_000 + b"}",
    ],
    ids=["nested", "empty lists", "long name", "long address", "many files", "long number"],
)
def test_json_just_below_limit_is_refused(text: bytes, build_dir: Path) -> None:
    (build_dir / "flasher_args.json").write_bytes(text)
    code, output = esp_dfu("build", build_dir)
    assert code in (65, 66)
    assert "error: " in output


def test_sdkconfig_of_spaces_is_read_in_linear_time(build_dir: Path) -> None:
    sdkconfig = build_dir.parent / "sdkconfig"
    sdkconfig.write_bytes(sdkconfig.read_bytes() + b"CONFIG_A=" + b" " * 4_000_000 + b"x\n")
    code, output = esp_dfu("build", build_dir)
    assert (code, "Wrote" in output) == (0, True)


@pytest.mark.parametrize("where", ["sdkconfig", "dfu_targets/esp32s3.yaml", "build/flasher_args.json"])
@pytest.mark.parametrize("kind", ["pipe", "endless"])
def test_pipe_or_endless_file_does_not_block_build(where: str, kind: str, build_dir: Path) -> None:
    path = build_dir.parent / where
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    code, output = esp_dfu("build", build_dir)
    assert code in (65, 66)
    assert path.name in output


def merge_keys(levels: int) -> str:
    """A "billion laughs" of YAML: each line has eight times what the line before has."""
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 8)}]}}" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [merge_keys(12), "[" * 32_000, "{a: " * 8000, "? " * 16_000, "x" * (64 << 10)],
    ids=["merge keys", "lists", "maps", "keys", "too long"],
)
def test_exploding_chip_file_is_refused(text: str, build_dir: Path) -> None:
    path = write_file(build_dir.parent / "dfu_targets" / "esp32s3.yaml", text.encode())
    code, output = esp_dfu("build", build_dir)
    assert code == 65
    assert str(path) in output


def test_chip_with_4_gib_is_simulated_in_bounded_memory(build_dir: Path) -> None:
    text = Path(S3.source or "").read_text(encoding="utf-8").replace("limit: 0x1000000", "limit: 0xFFFFFFFF")
    assert "0xFFFFFFFF" in text
    write_file(build_dir.parent / "dfu_targets" / "esp32s3.yaml", text.encode())
    assert esp_dfu("build", build_dir)[0] == 0
    assert esp_dfu("inspect", build_dir / "dfu.bin")[0] == 0


def hostile_archive(kind: str) -> bytes:
    """About 30 MB."""
    params = flash_params()
    good = index_record(0, "flash_params.dat", params, 28)
    head = cpio_member("dfuinfo0.dat", good) + cpio_member("flash_params.dat", params)
    if kind == "many members":
        return head + cpio_member("a", b"") * 200_000
    if kind == "many records":
        index = cpio_member("dfuinfo0.dat", good + index_record(0x1000, "a", b"") * 300_000)
        return index + cpio_member("flash_params.dat", params)
    if kind == "long name":
        return head + cpio_member("n" * 30_000_000, b"x")
    if kind == "many wide names":
        return head + cpio_member("".join(chr(0x4E00 + n) for n in range(80)), b"x") * 900
    assert kind == "4 GiB"
    claim = bytearray(cpio_member("a", b"x"))
    claim[54:62] = b"ffffffff"
    return head + bytes(claim)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("many members", "more than 1024 members"),
        ("many records", "more than 1024 records"),
        ("long name", "name in the CPIO header"),
        ("many wide names", "members are named"),
        ("4 GiB", "should have 4294967295 bytes"),
    ],
)
def test_hostile_archive_fills_neither_memory_nor_screen(kind: str, said: str, tmp_path: Path) -> None:
    stream = hostile_archive(kind)
    path = write_file(tmp_path / "dfu.bin", dfu_file(stream + cpio_member("TRAILER!!!", b"", mode=0, links=1)))
    code, output = esp_dfu("inspect", path)
    assert code == 65
    assert said in output


@pytest.mark.parametrize(
    ("size", "said"), [(4 << 30, "no chip has that much flash memory"), ((64 << 20) + 1, "no DFU image is that large")]
)
def test_too_large_dfu_bin_is_not_read(size: int, said: str, tmp_path: Path) -> None:
    code, output = esp_dfu("inspect", sparse_file(tmp_path / "dfu.bin", size))
    assert code == 65
    assert said in output


def test_app_of_4_gib_is_not_read(build_dir: Path) -> None:
    sparse_file(build_dir / "hello.bin", 4 << 30)
    code, output = esp_dfu("build", build_dir)
    assert code == 65
    assert "extends beyond the chip's flash memory" in output
