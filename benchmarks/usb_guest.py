"""Measure whole flash operations of esp-dfu and dfu-util alternately; benchmarks.usb runs this in the virtual machine.

It prints a JSON object for each run: work, tool, seconds, CPU seconds of the tool, bytes.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from esp_dfu_ext import build
from esp_dfu_ext.clock import SystemClock
from esp_dfu_ext.dfu.spec import Mode
from esp_dfu_ext.image.format import parse_image
from esp_dfu_ext.simulator import Board
from esp_dfu_ext.simulator.sample import write_sample_project
from esp_dfu_ext.target import load_target
from esp_dfu_ext.units import KIB, MIB
from tests.kit.boards import assert_flashed
from tests.real_usb.usbip import Hub

TARGET = load_target("esp32s3")
OURS = [sys.executable, "-m", "esp_dfu_ext", "flash", "--quiet"]
DFU_UTIL = ["dfu-util", "-d", TARGET.usb_id, "-a", "0", "-D"]
GANG = 4
# Seconds per control transfer on the bus. A real full-speed bus takes 1 to 1.5 ms; without this time the comparison
# would be one of start-up times.
TRANSFER_TIME = 0.001


def image_of(app_size: int, folder: Path) -> Path:
    """Build a dfu.bin with an app of this size; return its path."""
    return build(write_sample_project(folder, TARGET, app_size=app_size)).path


def run(command: list[str]) -> tuple[float, float]:
    """Run a program, which must succeed; return its wall and CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    seconds = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def report(work: str, tool: str, seconds: float, cpu: float, size: int) -> None:
    """Print one line for the host."""
    print("RUN", json.dumps({"work": work, "tool": tool, "seconds": seconds, "cpu": cpu, "bytes": size}), flush=True)


def boards(hub: Hub, mode: Mode, count: int = 1) -> list[Board]:
    """Plug in new boards."""
    made = []
    for number in range(1, count + 1):
        board = Board.make(TARGET, f"1-{number}", SystemClock(), number=number, flash_size=4 * MIB)
        board.rom.restart(mode)
        hub.add(board, board.path)
        made.append(board)
    return made


def measure(work: str, tool: str, commands: list[list[str]], mode: Mode, image: Path, count: int = 1) -> None:
    """Flash new boards, and check their flash memory afterwards."""
    with Hub(TRANSFER_TIME) as hub:
        made = boards(hub, mode, count)
        times = [run(command) for command in commands]
        parsed = parse_image(image.read_bytes())
        for board in made:
            assert_flashed(board.rom.flash.read, parsed)
    report(work, tool, sum(t for t, _ in times), sum(c for _, c in times), parsed.payload_size * count)


def main() -> None:
    """Run all measurements, ESP_DFU_BENCH_ROUNDS times."""
    rounds = int(os.environ.get("ESP_DFU_BENCH_ROUNDS", "3"))
    small = str(image_of(256 * KIB - 24 * KIB, Path("/run/small")))
    large = str(image_of(MIB - 24 * KIB, Path("/run/large")))
    paths = [word for number in range(1, GANG + 1) for word in ("--path", f"1-{number}")]
    for _ in range(rounds):
        for tool, command in (("esp-dfu", [*OURS, small]), ("dfu-util", [*DFU_UTIL, small])):
            measure("256 KiB from run-time mode", tool, [command], Mode.RUN_TIME, Path(small))
        for tool, command in (
            ("esp-dfu", [*OURS, large]),
            ("dfu-util", [*DFU_UTIL, large]),
            ("esp-dfu --strict", [*OURS, "--strict", large]),
            ("bare ctypes loop, as --strict", [sys.executable, "benchmarks/bare_loop.py", large]),
        ):
            measure("1 MiB in DFU mode", tool, [command], Mode.DFU, Path(large))
        one_by_one = [["dfu-util", "-p", f"1-{number}", *DFU_UTIL[1:], small] for number in range(1, GANG + 1)]
        for tool, commands in (("esp-dfu", [[*OURS, *paths, small]]), ("dfu-util", one_by_one)):
            measure(f"{GANG} boards, 256 KiB each", tool, commands, Mode.RUN_TIME, Path(small), GANG)


main()
