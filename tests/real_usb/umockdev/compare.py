"""Compare the speed of esp-dfu and dfu-util: 256 KiB from DFU mode, alternately on one bench.

``python -m tests.real_usb.umockdev.compare [ROUNDS]``. Both programs mostly wait for the simulated board, so that the
ratio shows the number of transfers. The virtual machine measures the time of a transfer.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from esp_dfu_ext.operations.build import build
from esp_dfu_ext.simulator.sample import write_sample_project
from esp_dfu_ext.target import load_target

from .bench import ESP_DFU, UmockdevBench

APP_SIZE = (256 << 10) - 24_000  # with bootloader and partition table: 256 KiB


def timed(bench: UmockdevBench, command: tuple[str, ...]) -> tuple[float, float]:
    """Return the seconds and the CPU seconds that a program took."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    result = bench.run(*command)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if result.returncode != 0:
        raise RuntimeError(result.stderr)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure and print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with TemporaryDirectory() as folder, UmockdevBench("esp32s3+dfu") as bench:
        project = write_sample_project(Path(folder), load_target("esp32s3"), app_size=APP_SIZE)
        image = str(build(project).path)
        commands = {
            "dfu-util": ("dfu-util", "-d", "303a:9", "-D", image),
            "esp-dfu": (*ESP_DFU, "flash", "-q", image),
            "esp-dfu --strict": (*ESP_DFU, "flash", "-q", "--strict", image),
        }
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, command in commands.items():
                taken[name].append(timed(bench, command))
        size = Path(image).stat().st_size
    print(f"{size} bytes of dfu.bin, medians of {rounds} rounds")
    base = [statistics.median(values) for values in zip(*taken["dfu-util"])]
    for name, values in taken.items():
        seconds, cpu = (statistics.median(column) for column in zip(*values))
        print(f"{name:18}{seconds:7.2f} s  x {seconds / base[0]:.2f}   CPU{cpu:6.2f} s  x {cpu / base[1]:.2f}")


if __name__ == "__main__":
    main()
