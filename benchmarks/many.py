"""Measure 1, 4 and 16 boards flashed together, on the real Linux USB stack of the virtual machine.

    tests/real_usb/vm/setup.sh
    .venv/bin/python -m benchmarks.many [ROUNDS]

The boards are ESP32-S2, which all have the serial number "0". A board in run-time mode leaves the bus once and comes
back, and Linux sets up one board after the other. Prints medians.
"""

from __future__ import annotations

import platform
import statistics
import sys
import time

from .vm import runs

GOAL = 1.5  # times the seconds of one board, while the bus is fast enough for all of them


def main() -> None:
    """Measure and print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    by_case = runs("benchmarks.many_guest", rounds, "mode", "transfer", "boards")
    print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, one CPU, medians of {rounds} rounds\n")
    print("| from | transfer | boards | seconds | of one | goal | peak memory | threads |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for (mode, transfer, boards), of_one in by_case.items():
        seconds = statistics.median(run["seconds"] for run in of_one)
        ratio = seconds / statistics.median(run["seconds"] for run in by_case[mode, transfer, 1])
        memory = statistics.median(run["memory"] for run in of_one) / 1024
        threads = max(run["threads"] for run in of_one)
        print(
            f"| {mode} mode | {transfer * 1000:g} ms | {boards} | {seconds:.1f} | {ratio:.2f} | {GOAL} | "
            f"{memory:.1f} MiB | {threads} |"
        )


if __name__ == "__main__":
    main()
