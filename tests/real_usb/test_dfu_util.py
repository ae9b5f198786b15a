"""Debian's dfu-util and `esp-dfu dfu-util`, call by call, on the same simulated boards under the real libusb."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from esp_dfu_ext.image.format import DfuImage, parse_image
from esp_dfu_ext.image.suffix import Suffix, encode
from esp_dfu_ext.operations.build import build
from esp_dfu_ext.simulator.sample import write_sample_project
from esp_dfu_ext.target import load_target

from ..kit.archives import File
from ..kit.boards import holds
from .dfu_util_cases import CASES, Case
from .umockdev.bench import ESP_DFU, UmockdevBench

pytestmark = pytest.mark.umockdev

DFU_UTIL, OURS = ("dfu-util",), (*ESP_DFU, "dfu-util")
BANNER = "dfu-util 0.11\n\n"
PAYLOAD = bytes(range(256)) * 10
FILES = ("IMAGE", "DIFFERS", "DAMAGED", "FILE", "DFUFILE", "OTHERFILE", "NONE", "NEW", "OLD")
UPLOADED = bytes(range(256)) * 20  # what server.py puts into a plain device


class Files:
    """The files that stand for the words in capitals."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        project = write_sample_project(folder, load_target("esp32s3"), app_size=8_000, bootloader_size=4_000)
        self.image = parse_image(build(project, output=folder / "IMAGE").path.read_bytes())
        content = (folder / "IMAGE").read_bytes()
        app = self.image.flash_members[-1]
        changed = bytearray(content[:-16])
        changed[app.offset + 4000] ^= 1
        self._write("DIFFERS", bytes(changed), 0x303A, 9)
        (folder / "DAMAGED").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        (folder / "FILE").write_bytes(PAYLOAD)
        self._write("DFUFILE", PAYLOAD, 0x1209, 1)
        self._write("OTHERFILE", PAYLOAD, 0x1234, 5)
        (folder / "OLD").write_bytes(b"old")

    def _write(self, name: str, payload: bytes, vid: int, pid: int) -> None:
        (self.folder / name).write_bytes(payload + encode(Suffix(vid, pid), zlib.crc32(payload)))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    assert shutil.which("dfu-util") is not None
    return Files(tmp_path_factory.mktemp("files"))


class Outcome:
    """What one program did with the boards.

    Attributes:
        text: As in the table.
        lines: Its lines of --list, sorted.
    """

    def __init__(self, program: Sequence[str], case: Case, files: Files) -> None:
        self._files = files
        new = files.folder / "NEW"
        new.unlink(missing_ok=True)
        words = [
            str(files.folder / word) if word in FILES else word for word in shlex.split(case.call.replace("<", ""))
        ]
        command = [*program, *words]
        if "<" in case.call:
            line = f"{shlex.join(command[:-1])} < {command[-1]}"
            command = ["sh", "-c", line]
        with UmockdevBench(case.boards) as bench:
            paths = [f"1-{number}" for number in range(1, case.boards.count(",") + 2)]
            if "-U NEW" in case.call:
                bench.fill(paths[0])
            before = {path: bench.state(path) for path in paths}
            self.done = bench.run(*command, user="no-access" in case.boards)
            if not {"vanish", "return"} & set(re.split(r"[^a-z]", case.boards)):
                self._settle(bench, paths, 1.0 if {"-R", "-e"} & set(words) else 0.0)
            effects = [
                self._effect(bench, path, before[path], "plain" in case.boards.split(",")[int(path[2:]) - 1])
                for path in paths
            ]
            if new.exists():
                data = new.read_bytes()
                expected = UPLOADED if "plain" in case.boards else self._filled()[: len(data)]
                effects.append(f"{len(data)} bytes, {'right' if data == expected else 'wrong'}")
        self.lines = sorted(line for line in self.done.stdout.splitlines() if line.startswith("Found"))
        effects += ["listed " + ", ".join(sorted(set(re.findall('path="(.*?)"', "".join(self.lines)))))] * bool(
            self.lines
        )
        assert (files.folder / "OLD").read_bytes() == b"old"
        self.text = "; ".join([str(self.done.returncode), *filter(None, effects)])

    @staticmethod
    def _settle(bench: UmockdevBench, paths: Sequence[str], seconds: float) -> None:
        """Wait until all boards are on the bus and have been as they are for some seconds."""
        seen: list[tuple[tuple[bool, int, str, str], ...]] = []
        since: list[float] = []

        def settled() -> bool:
            now = tuple(bench.state(path) for path in paths)
            if seen[-1:] != [now]:
                seen.append(now)
                since.append(time.monotonic())
            return all(state[0] for state in now) and time.monotonic() - since[-1] >= seconds

        bench.wait_for(settled)

    @staticmethod
    def _filled() -> bytes:
        return b"".join(number.to_bytes(4, "little") for number in range(1 << 20))

    def _effect(self, bench: UmockdevBench, path: str, before: tuple[bool, int, str, str], plain: bool) -> str:
        present, address, mode, state = bench.state(path)
        found = []
        if plain:
            names = [name for number, name in enumerate(("0", "1")) if bench.memory(path, number) == PAYLOAD]
            found += [f"wrote alternate setting {name} of {path}" for name in names]
        elif holds(lambda a, n: bench.read(path, a, n), _files_of(self._files.image)):
            found.append(f"flashed {path}")
        elif bench.read(path, 0, 0x20000).strip(b"\xff") and bench.read(path, 0, 8) != bytes([0, 0, 0, 0, 1, 0, 0, 0]):
            found.append(f"wrote other bytes to {path}")
        if not present:
            found.append(f"{path} gone")
        elif mode != before[2]:
            found.append(f"{path} in {mode} mode")
        elif address != before[1]:
            found.append(f"{path} restarted")
        if present and state not in ("dfuIDLE", "appIDLE" if mode == "run-time" else ""):
            found.append(f"{path} left in {state}")
        return ", ".join(found)


def _files_of(image: DfuImage) -> list[File]:
    return [File(m.record.address, m.name, bytes(m.data)) for m in image.flash_members if m.record is not None]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.call} {case.boards}")
def test_both_programs(case: Case, files: Files) -> None:
    theirs, ours = Outcome(DFU_UTIL, case, files), Outcome(OURS, case, files)
    seen = (theirs.text, ours.text)
    assert seen == (case.theirs, case.ours or case.theirs), (theirs.done, ours.done)
    if not case.ours:
        assert ours.lines == theirs.lines
        if theirs.done.stdout.startswith(BANNER):
            assert ours.done.stdout.startswith(BANNER)
        else:
            assert ours.done.stdout == ""
    if "flashed" in ours.text and "flashed" in theirs.text:
        assert _last(ours.done) == _last(theirs.done)


def _last(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the lines that say how a download ended."""
    ends = ("Download done.", "DFU state(2)", "Done!")
    return [line for line in done.stdout.replace("\r", "\n").splitlines() if line.startswith(ends)][-3:]
