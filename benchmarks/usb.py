"""Compare whole flashes with dfu-util, side by side on the real Linux USB stack of the virtual machine.

    tests/real_usb/vm/setup.sh
    .venv/bin/python -m benchmarks.usb [--real-time] [ROUNDS] [MEDIANS.json]

Both tools flash the same simulated chips behind USB/IP, in turns. The chips take their own time: what a request took
in the executed ROM, with the bus, and what a data sheet says about the flash memory. The virtual machine's clock stands
still while programs compute, so the figures do not depend on the computer or on what else it does. With
``--real-time``, the computing time of the tools, the simulation and the virtual machine is included, and the table of
all runs has CPU seconds; a round takes 15 minutes on an idle computer.
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

from esp_dfu_ext.units import MIB

from .vm import runs


class Median(NamedTuple):
    """Medians over the rounds: wall seconds, CPU seconds, and the bytes of one run."""

    seconds: float
    cpu: float
    size: int


GOALS = {  # ours / dfu-util
    ("ESP32-S2", "256 KiB from run-time mode", "esp-dfu"): 0.45,
    ("ESP32-S2", "1 MiB in DFU mode", "esp-dfu"): 0.55,
    ("ESP32-S2", "1 MiB in DFU mode", "esp-dfu --strict"): 1.1,
    ("ESP32-S3", "256 KiB from run-time mode", "esp-dfu"): 0.15,
    ("ESP32-S3", "1 MiB in DFU mode", "esp-dfu"): 0.1,
    ("ESP32-S3", "1 MiB in DFU mode, 1 ms more per transfer", "esp-dfu"): 0.2,
    ("ESP32-S3", "1 MiB that is flashed already", "esp-dfu --skip-flashed"): 0.03,
    ("ESP32-S3", "4 boards, 256 KiB each", "esp-dfu"): 0.06,
}
CONDITIONS = "the chips' own time"
Key = tuple[str, str, str]  # chip, work, tool


def measure(rounds: int, *, real_time: bool) -> dict[Key, Median]:
    """Boot the virtual machine, and run every case in it."""
    return {
        key: Median(
            statistics.median(run["seconds"] for run in of_one),
            statistics.median(run["cpu"] for run in of_one),
            of_one[0]["bytes"],
        )
        for key, of_one in runs("benchmarks.usb_guest", rounds, "chip", "work", "tool", real_time=real_time).items()
    }


def tables(medians: dict[Key, Median]) -> str:
    """Return the README's table of each chip, in Markdown, and what missed its goal."""
    lines: list[str] = []
    missed: list[str] = []
    for chip in dict.fromkeys(chip for chip, _, _ in medians):
        lines += [f"\n{chip}:\n", "| task | esp-dfu | dfu-util | ratio |", "|---|---:|---:|---:|"]
        for (of_chip, work, tool), mine in medians.items():
            if of_chip != chip or not tool.startswith("esp-dfu"):
                continue
            theirs = medians[chip, work, "dfu-util"]
            ratio = mine.seconds / theirs.seconds
            task = "".join([work, *(f", `{option}`" for option in tool.split()[1:])])
            lines.append(f"| {task} | {mine.seconds:.1f} s | {theirs.seconds:.1f} s | {ratio:.2f} |")
            if ratio > GOALS.get((chip, work, tool), ratio):
                missed.append(f"{chip}, {task}: {ratio:.3f}, the goal is {GOALS[chip, work, tool]}")
    return "\n".join([*lines, "", *missed])


def every_run(medians: dict[Key, Median]) -> str:
    """Return all medians with CPU seconds, in Markdown."""
    rows = [
        f"| {chip} | {work} | {tool} | {median.seconds:.1f} | {median.cpu / (median.size / MIB):.1f} |"
        for (chip, work, tool), median in medians.items()
    ]
    return "\n".join(["| chip | task | tool | seconds | CPU seconds per MiB |", "|---|---|---|---:|---:|", *rows])


def save(medians: dict[Key, Median], rounds: int, path: Path) -> None:
    """Write the medians as JSON; docs/diagrams.py draws docs/speed.svg from benchmarks/usb.json."""
    runs = [
        {"chip": chip, "work": work, "tool": tool, "seconds": round(median.seconds, 1)}
        for (chip, work, tool), median in medians.items()
        if not tool.startswith("bare")  # docs/how-it-works.md has it
    ]
    machine = platform.machine().replace("_", "-")
    document = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine,
        "rounds": rounds,
        "conditions": CONDITIONS,
        "medians": runs,
    }
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Measure, print the tables, and save the medians if a file is named."""
    arguments = [word for word in sys.argv[1:] if word != "--real-time"]
    rounds = int(arguments[0]) if arguments else 1
    medians = measure(rounds, real_time="--real-time" in sys.argv)
    print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} CPUs, medians of {rounds} rounds\n")
    print(tables(medians))
    print(every_run(medians))
    if len(arguments) > 1:
        save(medians, rounds, Path(arguments[1]))


if __name__ == "__main__":
    main()
