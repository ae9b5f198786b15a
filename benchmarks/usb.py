"""Compare whole flashes with dfu-util, side by side on the real Linux USB stack of the virtual machine.

    tests/real_usb/vm/setup.sh
    .venv/bin/python -m benchmarks.usb [ROUNDS] [MEDIANS.json]

Both tools flash the same simulated chip behind USB/IP, in turns, over a bus that takes 1 ms for a control transfer;
the table shows medians and their ratio.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

from .vm import runs


class Median(NamedTuple):
    """Medians over the rounds: wall seconds, CPU seconds, and the bytes of one run."""

    seconds: float
    cpu: float
    size: int


GOALS = {
    ("256 KiB from run-time mode", "esp-dfu"): 0.45,
    ("1 MiB in DFU mode", "esp-dfu"): 0.55,
    ("1 MiB in DFU mode", "esp-dfu --strict"): 1.0,
    ("4 boards, 256 KiB each", "esp-dfu"): 0.3,
}
CPU_GOAL = 1.0


def measure(rounds: int) -> dict[tuple[str, str], Median]:
    """Boot the virtual machine, and run every case in it."""
    return {
        key: Median(
            statistics.median(run["seconds"] for run in of_one),
            statistics.median(run["cpu"] for run in of_one),
            of_one[0]["bytes"],
        )
        for key, of_one in runs("benchmarks.usb_guest", rounds, "work", "tool").items()
    }


def table(medians: dict[tuple[str, str], Median]) -> str:
    """Return the table in Markdown."""
    lines = [
        "| work | tool | seconds | of dfu-util | goal | CPU s/MiB | of dfu-util | goal |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for (work, tool), mine in medians.items():
        peer = medians[work, "dfu-util"]
        mib = mine.size / 2**20
        goal = GOALS.get((work, tool))
        lines.append(
            f"| {work} | {tool} | {mine.seconds:.2f} | {mine.seconds / peer.seconds:.2f} | "
            f"{goal if goal is not None else ''} | {mine.cpu / mib:.2f} | {mine.cpu / peer.cpu:.2f} | "
            f"{CPU_GOAL if goal is not None else ''} |"
        )
    return "\n".join(lines)


def save(medians: dict[tuple[str, str], Median], rounds: int, path: Path) -> None:
    """Write the medians as JSON; docs/diagrams.py draws docs/speed.svg from benchmarks/usb.json."""
    runs = [{"work": work, "tool": tool, **median._asdict()} for (work, tool), median in medians.items()]
    machine = platform.machine().replace("_", "-")
    document = {"date": time.strftime("%Y-%m-%d"), "machine": machine, "rounds": rounds, "medians": runs}
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Measure, print the table, and save the medians if a file is named."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    medians = measure(rounds)
    print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} CPUs, medians of {rounds} rounds\n")
    print(table(medians))
    if len(sys.argv) > 2:
        save(medians, rounds, Path(sys.argv[2]))


if __name__ == "__main__":
    main()
