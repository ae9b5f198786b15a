"""Measure whole flash operations of esp-dfu and dfu-util alternately; benchmarks.usb runs this in the virtual machine.

It prints a JSON object for each run: chip, work, tool, seconds, CPU seconds of the tool, bytes.
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
from esp_dfu_ext.target import Target, load_target
from esp_dfu_ext.units import KIB, MIB
from tests.kit.boards import assert_flashed
from tests.real_usb.usbip import Hub

# One chip without waits in its download loop, and one with them, as three of the four have. What a control transfer
# takes on a full-speed bus is part of their time.
CHIPS = ("esp32s2", "esp32s3")
OURS = [sys.executable, "-m", "esp_dfu_ext", "flash", "--quiet"]
GANG = 4


def image_of(target: Target, app_size: int, folder: Path) -> Path:
    """Build a dfu.bin with an app of this size; return its path."""
    return build(write_sample_project(folder, target, app_size=app_size)).path


def run(command: list[str]) -> tuple[float, float]:
    """Run a program, which must succeed; return its wall and CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    seconds = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def report(target: Target, work: str, tool: str, seconds: float, cpu: float, size: int) -> None:
    """Print one line for the host."""
    line = {"chip": target.chip, "work": work, "tool": tool, "seconds": seconds, "cpu": cpu, "bytes": size}
    print("RUN", json.dumps(line), flush=True)


def boards(hub: Hub, target: Target, mode: Mode, count: int = 1) -> list[Board]:
    """Plug in new boards, which take the chip's own time."""
    made = []
    for number in range(1, count + 1):
        board = Board.make(target, f"1-{number}", SystemClock(), number=number, flash_size=4 * MIB)
        board.timing = target.timing
        board.rom.restart(mode)
        hub.add(board, board.path)
        made.append(board)
    return made


def measure(
    target: Target, work: str, tool: str, commands: list[list[str]], mode: Mode, image: Path, count: int = 1
) -> None:
    """Flash new boards, and check their flash memory afterwards."""
    with Hub() as hub:
        made = boards(hub, target, mode, count)
        times = [run(command) for command in commands]
        parsed = parse_image(image.read_bytes())
        for board in made:
            assert_flashed(board.rom.flash.read, parsed)
    report(target, work, tool, sum(t for t, _ in times), sum(c for _, c in times), parsed.payload_size * count)


def measure_chip(target: Target) -> None:
    """Run all measurements of one chip once."""
    small = image_of(target, 256 * KIB - 24 * KIB, Path(f"/run/{target.name}-small"))
    large = image_of(target, MIB - 24 * KIB, Path(f"/run/{target.name}-large"))
    dfu_util = ["dfu-util", "-d", target.usb_id, "-a", "0", "-D"]
    paths = [word for number in range(1, GANG + 1) for word in ("--path", f"1-{number}")]
    for tool, command in (("esp-dfu", [*OURS, str(small)]), ("dfu-util", [*dfu_util, str(small)])):
        measure(target, "256 KiB from run-time mode", tool, [command], Mode.RUN_TIME, small)
    for tool, command in (
        ("esp-dfu", [*OURS, str(large)]),
        ("dfu-util", [*dfu_util, str(large)]),
        ("esp-dfu --strict", [*OURS, "--strict", str(large)]),
        ("bare ctypes loop, as --strict", [sys.executable, "benchmarks/bare_loop.py", str(large)]),
    ):
        if not tool.startswith("bare") or target.name == CHIPS[0]:
            measure(target, "1 MiB in DFU mode", tool, [command], Mode.DFU, large)
    one_by_one = [["dfu-util", "-p", f"1-{number}", *dfu_util[1:], str(small)] for number in range(1, GANG + 1)]
    for tool, commands in (("esp-dfu", [[*OURS, *paths, str(small)]]), ("dfu-util", one_by_one)):
        measure(target, f"{GANG} boards, 256 KiB each", tool, commands, Mode.RUN_TIME, small, GANG)


def main() -> None:
    """Run all measurements, ESP_DFU_BENCH_ROUNDS times."""
    for _ in range(int(os.environ.get("ESP_DFU_BENCH_ROUNDS", "3"))):
        for name in CHIPS:
            measure_chip(load_target(name))


main()
