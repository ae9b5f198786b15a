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
from typing import NamedTuple

from esp_dfu_ext import build
from esp_dfu_ext.clock import SystemClock
from esp_dfu_ext.dfu.spec import Mode
from esp_dfu_ext.image.format import DfuImage, parse_image
from esp_dfu_ext.simulator import Board, program
from esp_dfu_ext.simulator.sample import write_sample_project
from esp_dfu_ext.target import Target, load_target
from esp_dfu_ext.units import KIB, MIB
from tests.kit.boards import assert_flashed
from tests.real_usb.usbip import Hub

# One chip without waits in its download loop, and one with them, as three of the four have. What a control transfer
# takes on a full-speed bus is part of their time; a hub or a slow host adds to it.
S2, S3 = "esp32s2", "esp32s3"
SLOW_BUS = 0.001
SMALL, LARGE = 256 * KIB, MIB
OURS = [sys.executable, "-m", "esp_dfu_ext", "flash", "--quiet", "--after", "no-reset"]
GANG = 4


class Case(NamedTuple):
    """What every tool does in turns: so many new boards in a mode, an image of `size` bytes in all.

    `flashed` is true if the flash memory holds the image already; dfu-util writes it again all the same.
    """

    chip: str
    work: str
    size: int
    mode: Mode
    tools: tuple[str, ...]
    boards: int = 1
    transfer_time: float = 0.0
    flashed: bool = False


BOTH = ("esp-dfu", "dfu-util")
CASES = (
    Case(S2, "256 KiB from run-time mode", SMALL, Mode.RUN_TIME, BOTH),
    Case(S2, "1 MiB in DFU mode", LARGE, Mode.DFU, (*BOTH, "esp-dfu --strict", "bare ctypes loop, as --strict")),
    Case(S2, f"{GANG} boards, 256 KiB each", SMALL, Mode.RUN_TIME, BOTH, boards=GANG),
    Case(S3, "256 KiB from run-time mode", SMALL, Mode.RUN_TIME, BOTH),
    Case(S3, "1 MiB in DFU mode", LARGE, Mode.DFU, (*BOTH, "esp-dfu --strict", "esp-dfu --no-loader")),
    Case(S3, "1 MiB in DFU mode, 1 ms more per transfer", LARGE, Mode.DFU, BOTH, transfer_time=SLOW_BUS),
    Case(S3, "1 MiB that is flashed already", LARGE, Mode.DFU, ("esp-dfu --skip-flashed", "dfu-util"), flashed=True),
    Case(S3, f"{GANG} boards, 256 KiB each", SMALL, Mode.RUN_TIME, BOTH, boards=GANG),
)


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


def commands(case: Case, tool: str, target: Target, image: Path) -> list[list[str]]:
    """Return what to run, one after the other."""
    if tool.startswith("bare"):
        return [[sys.executable, "benchmarks/bare_loop.py", str(image)]]
    paths = [f"1-{number}" for number in range(1, case.boards + 1)]
    if tool == "dfu-util":
        download = ["dfu-util", "-d", target.usb_id, "-a", "0", "-D", str(image)]
        return [[*download, "-p", path] for path in paths]
    return [[*OURS, *tool.split()[1:], *(word for path in paths for word in ("--path", path)), str(image)]]


def boards(hub: Hub, case: Case, target: Target, image: DfuImage) -> list[Board]:
    """Plug in new boards, which take the chip's own time."""
    made = []
    for number in range(1, case.boards + 1):
        board = Board.make(target, f"1-{number}", SystemClock(), number=number, flash_size=4 * MIB)
        board.timing = target.timing
        board.rom.restart(case.mode)
        if case.flashed:
            program(board, image)
        hub.add(board, board.path)
        made.append(board)
    return made


def measure(case: Case) -> None:
    """Flash new boards by every tool, and check their flash memory afterwards; print one line for each for the host."""
    target = load_target(case.chip)
    file = image_of(target, case.size - 24 * KIB, Path(f"/run/{target.name}-{case.size}"))
    image = parse_image(file.read_bytes())
    for tool in case.tools:
        with Hub(case.transfer_time) as hub:
            made = boards(hub, case, target, image)
            times = [run(command) for command in commands(case, tool, target, file)]
            for board in made:
                assert_flashed(board.rom.flash.read, image)
        line = {
            "chip": target.chip,
            "work": case.work,
            "tool": tool,
            "seconds": sum(seconds for seconds, _ in times),
            "cpu": sum(cpu for _, cpu in times),
            "bytes": image.payload_size * case.boards,
        }
        print("RUN", json.dumps(line), flush=True)


def main() -> None:
    """Run all measurements, ESP_DFU_BENCH_ROUNDS times."""
    for _ in range(int(os.environ.get("ESP_DFU_BENCH_ROUNDS", "3"))):
        for case in CASES:
            measure(case)


if __name__ == "__main__":
    main()
