"""Cost on the host: time that idf.py takes to load us, and building images. Run: python -m benchmarks.host."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from esp_dfu_ext import build, load_target
from esp_dfu_ext.simulator.sample import write_sample_project
from esp_dfu_ext.units import MIB, format_size

_LOAD = """
import time
start = time.perf_counter()
from esp_dfu_ext import action_extensions
action_extensions({"actions": {}}, ".")
print((time.perf_counter() - start) * 1000)
"""


def load_cost(runs: int = 20) -> float:
    """Return the median of the milliseconds that each idf.py call spends on our import and registration."""
    times = [
        float(subprocess.run([sys.executable, "-c", _LOAD], capture_output=True, text=True, check=True).stdout)
        for _ in range(runs)
    ]
    return statistics.median(times)


def build_repeatedly(build_dir: Path) -> None:
    """Build several times; print the shortest time in seconds, the size, and the process's peak memory in KiB."""
    build(build_dir)  # imports everything
    times = []
    for _ in range(5):
        start = time.perf_counter()
        result = build(build_dir)
        times.append(time.perf_counter() - start)
    # Not getrusage(): its maximum is inherited from the parent, through fork and exec.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    print(min(times), result.size, next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def main() -> None:
    """Print the results."""
    if len(sys.argv) > 1:
        build_repeatedly(Path(sys.argv[1]))
        return
    print(f"load by idf.py: {load_cost():.1f} ms")
    for app_size in (MIB, 8 * MIB):
        with tempfile.TemporaryDirectory() as folder:
            target = load_target("esp32s3")
            build_dir = write_sample_project(Path(folder), target, app_size=app_size - 4096, flash_size="16MB")
            # In a process of its own, because peak memory never decreases.
            command = [sys.executable, "-m", "benchmarks.host", str(build_dir)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds, size, peak = map(float, done.stdout.split())
        print(
            f"image of {format_size(int(size))}: {seconds * 1000:.0f} ms, {size / seconds / 1e6:.0f} MB/s, "
            f"peak memory {peak / 1024:.1f} MiB"
        )


if __name__ == "__main__":
    main()
