"""Run Python in a virtual machine with its own USB: User-Mode Linux, which boots in half a second.

By hand, with any arguments of Python:

    tests/real_usb/vm/setup.sh                                     # once; builds the kernel
    .venv/bin/python tests/real_usb/vm/boot.py -m pytest -m '' tests/real_usb/guest/checks.py

The guest sees this machine's files, including this Python; what it writes goes to a copy of its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
MEMORY = "1024M"
_INIT = Path(__file__).with_name("init.py")
_PASSED_ON = ("ESP_DFU_BENCH_ROUNDS", "ESP_DFU_SOAK_BOARDS", "PYTEST_ADDOPTS")


def cache_folder() -> Path:
    """Return the folder in which setup.sh puts the kernel."""
    return Path(os.environ.get("ESP_DFU_VM_CACHE") or Path.home() / ".cache" / "esp-dfu-ext")


def boot(arguments: Sequence[str], deadline: float, python: str = sys.executable) -> int:
    """Run ``python *arguments`` in the guest, with its output on this process's stdout.

    Returns:
        Exit code of the guest's Python.

    Raises:
        FileNotFoundError: The kernel is missing, because setup.sh was not run.
        TimeoutError: It took longer than `deadline` seconds.
        RuntimeError: The guest ended without an exit code.
    """
    kernel = cache_folder() / "linux"
    if not kernel.exists():
        raise FileNotFoundError(f"{kernel} does not exist; run tests/real_usb/vm/setup.sh")
    with tempfile.TemporaryDirectory(prefix="esp-dfu-vm-") as folder:
        job = {
            "command": [python, *arguments],
            "cwd": str(REPOSITORY),
            "environment": _environment(),
            "public": _closed_folders(Path(python).absolute(), Path(python).resolve(), REPOSITORY),
        }
        Path(folder, "job.json").write_text(json.dumps(job))
        # On one CPU: the virtual machine has one, and its processes switch at every system call.
        pinned = ["taskset", "-c", str(max(os.sched_getaffinity(0)))]
        command = [
            *pinned, str(kernel), f"mem={MEMORY}", "rootfstype=hostfs", "hostfs=/", "ro", "quiet", "loglevel=2",
            "con=null", "con0=null,fd:1", f"JOB={folder}", f"init={python}", "--", str(_INIT),
        ]  # fmt: skip
        # SIGTERM must reach `finally` too: the machine is a session of its own and would keep running.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        machine = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            machine.wait(deadline)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"The virtual machine was stopped after {deadline:.0f} s.") from None
        finally:
            if machine.poll() is None:
                os.killpg(machine.pid, signal.SIGKILL)
                machine.wait()
            signal.signal(signal.SIGTERM, before)
        exit_code = Path(folder, "exit_code")
        if not exit_code.exists():
            raise RuntimeError(f"The virtual machine ended with {machine.returncode} before the command did.")
        return int(exit_code.read_text())


def _environment() -> dict[str, str]:
    environment = {
        "HOME": "/root",
        "PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "TMPDIR": "/run/tmp",  # not the host's, which has files of earlier runs
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONUNBUFFERED": "1",
        "ESP_DFU_VM": "1",
    }
    return environment | {name: os.environ[name] for name in _PASSED_ON if name in os.environ}


def _closed_folders(*paths: Path) -> list[str]:
    """Return the folders above `paths` that an ordinary user cannot enter; the guest opens them."""
    folders = {parent for path in paths for parent in path.parents}
    return sorted(str(folder) for folder in folders if folder.stat().st_mode & 0o005 != 0o005)


if __name__ == "__main__":
    sys.exit(boot(sys.argv[1:], float(os.environ.get("ESP_DFU_VM_DEADLINE", "600"))))
