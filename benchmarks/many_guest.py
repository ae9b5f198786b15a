"""Flash boards with the same serial number together; benchmarks.many runs this in the virtual machine.

It prints a JSON object for each run: mode at the start, transfer time, boards, seconds, and the tool's peak memory in
KiB and highest number of threads.
"""

from __future__ import annotations

import json
import os
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
from esp_dfu_ext.units import KIB
from tests.kit.boards import assert_flashed
from tests.real_usb.usbip import Hub

TARGET = load_target("esp32s2")
PORTS = [f"{bus}-{port}" for bus in (1, 3) for port in range(1, 9)]
BOARDS = (1, 4, 16)
# Seconds per control transfer. The first is about that of a full-speed bus, but the tool and all boards share one CPU,
# so that with many boards it measures the CPU. The second leaves time enough for all.
FULL_SPEED, SLOW = 0.001, 0.03
APP_SIZE = 8 * KIB
LOOK_INTERVAL = 0.05


def figures(process: int) -> tuple[int, int]:
    """Return the peak memory in KiB and the threads of a process; zeros if it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0, 0
    values = dict(line.split(":", 1) for line in lines)
    return int(values.get("VmHWM", "0 kB").split()[0]), int(values["Threads"])


def measure(path: Path, mode: Mode, count: int, transfer_time: float) -> None:
    """Flash new boards together, and check their flash memory afterwards."""
    with Hub(transfer_time) as hub:
        made = [Board.make(TARGET, port, SystemClock(), flash_size=1 << 20) for port in PORTS[:count]]
        for board in made:
            board.rom.restart(mode)
            hub.add(board, board.path)
        options = ["--all", "--quiet", "--after", "no-reset", "--no-loader"]
        command = [sys.executable, "-m", "esp_dfu_ext", "flash", *options, str(path)]
        started, memory, threads = time.monotonic(), 0, 0
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        while process.poll() is None:
            now = figures(process.pid)
            memory, threads = max(memory, now[0]), max(threads, now[1])
            time.sleep(LOOK_INTERVAL)
        seconds = time.monotonic() - started
        assert process.stdout is not None
        if process.returncode != 0:
            raise SystemExit(process.stdout.read())
        image = parse_image(path.read_bytes())
        for board in made:
            assert_flashed(board.rom.flash.read, image)
    run = {"mode": str(mode), "transfer": transfer_time, "boards": count}
    print("RUN", json.dumps({**run, "seconds": seconds, "memory": memory, "threads": threads}), flush=True)


def main() -> None:
    """Run all measurements, ESP_DFU_BENCH_ROUNDS times."""
    path = build(write_sample_project(Path("/run/many"), TARGET, app_size=APP_SIZE)).path
    for _ in range(int(os.environ.get("ESP_DFU_BENCH_ROUNDS", "1"))):
        for mode, transfer_time in ((Mode.DFU, FULL_SPEED), (Mode.DFU, SLOW), (Mode.RUN_TIME, SLOW)):
            for count in BOARDS:
                measure(path, mode, count, transfer_time)


main()
