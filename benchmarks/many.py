"""1, 4 and 16 boards flashed together, on the real Linux USB stack of the virtual machine.

    tests/real_usb/vm/setup.sh
    .venv/bin/python -m benchmarks.many [ROUNDS]

The boards are ESP32-S2, which all have the serial number "0"; from run-time mode on each leaves the bus once and comes
back, and Linux sets up one after the other. Prints medians.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
GOAL = 1.5  # times the seconds of one board, as long as the bus has time for all


def measure(rounds: int) -> dict[tuple[str, float, int], list[dict[str, Any]]]:
    """Boot the virtual machine and run everything in it; runs by mode, transfer time and number of boards."""
    command = [sys.executable, "tests/real_usb/vm/boot.py", "-m", "benchmarks.many_guest"]
    env = {**os.environ, "ESP_DFU_BENCH_ROUNDS": str(rounds), "ESP_DFU_VM_DEADLINE": "3000"}
    done = subprocess.run(command, cwd=REPOSITORY, env=env, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(done.stdout)
    runs = defaultdict(list)
    for line in done.stdout.splitlines():
        if line.startswith("RUN "):
            run = json.loads(line[4:])
            runs[run["mode"], run["transfer"], run["boards"]].append(run)
    return runs


def main() -> None:
    """Measure and print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    runs = measure(rounds)
    print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, one CPU, medians of {rounds} rounds\n")
    print("| from | transfer | boards | seconds | of one | goal | peak memory | threads |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for (mode, transfer, boards), of_one in runs.items():
        seconds = statistics.median(run["seconds"] for run in of_one)
        ratio = seconds / statistics.median(run["seconds"] for run in runs[mode, transfer, 1])
        memory = statistics.median(run["memory"] for run in of_one) / 1024
        threads = max(run["threads"] for run in of_one)
        print(
            f"| {mode} mode | {transfer * 1000:g} ms | {boards} | {seconds:.1f} | {ratio:.2f} | {GOAL} | "
            f"{memory:.1f} MiB | {threads} |"
        )


if __name__ == "__main__":
    main()
