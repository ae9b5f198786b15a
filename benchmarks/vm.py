"""Run a benchmark's guest module in the virtual machine and collect its results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent


def runs(module: str, rounds: int, *keys: str, real_time: bool = True) -> dict[Any, list[dict[str, Any]]]:
    """Run a module in the virtual machine; return its ``RUN`` lines by their values of `keys`. Exits if it fails.

    Without `real_time`, the guest's clock advances with the time of chips and bus, but not with computing time.
    """
    command = [sys.executable, "tests/real_usb/vm/boot.py", "-m", module]
    env = {
        **os.environ,
        "ESP_DFU_BENCH_ROUNDS": str(rounds),
        "ESP_DFU_VM_DEADLINE": "7200",
        "ESP_DFU_VM_REAL_TIME": "1" if real_time else "",
    }
    done = subprocess.run(command, cwd=REPOSITORY, env=env, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(done.stdout)
    found = defaultdict(list)
    for line in done.stdout.splitlines():
        if line.startswith("RUN "):
            run = json.loads(line[4:])
            found[tuple(run[key] for key in keys)].append(run)
    return found
