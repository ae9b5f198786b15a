"""Run Python in a virtual machine with its own USB: User-Mode Linux, which boots in half a second.

By hand, with any arguments of Python:

    tests/real_usb/vm/setup.sh                                     # once; builds the kernel
    .venv/bin/python tests/real_usb/vm/boot.py -m pytest -m '' tests/real_usb/guest/checks.py

The guest sees this machine's files, including this Python; what it writes goes to a copy of its own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
MEMORY = 1024  # MiB
START_DEADLINE = 120.0  # seconds; it takes one on an idle machine
_INIT = Path(__file__).with_name("init.py")
_SETUP = Path(__file__).with_name("setup.sh")
_PASSED_ON = ("ESP_DFU_BENCH_ROUNDS", "ESP_DFU_SOAK_BOARDS", "PYTEST_ADDOPTS")


def boot(arguments: Sequence[str], deadline: float, *, python: str = sys.executable, real_time: bool = False) -> int:
    """Run ``python *arguments`` in the guest, with its output on this process's stdout.

    Args:
        arguments: Arguments of Python.
        deadline: Real seconds after which the machine is stopped.
        python: Path of Python.
        real_time: Run the guest's clock like the host's, to measure something. Otherwise it stands still while the
            guest computes, and jumps to the next timer when the guest waits, so that no time-out depends on how busy
            the host is.

    Returns:
        Exit code of the guest's Python.

    Raises:
        CannotRunError: The kernel is missing or does not start here; the message says why, in one line.
        TimeoutError: It took longer than `deadline` seconds.
        RuntimeError: The guest ended without an exit code.
    """
    kernel = _kernel()
    with tempfile.TemporaryDirectory(prefix="esp-dfu-vm-") as name:
        folder = Path(name)
        job = {
            "command": [python, *arguments],
            "cwd": str(REPOSITORY),
            "environment": _environment(),
            "public": _closed_folders(Path(python).absolute(), Path(python).resolve(), REPOSITORY),
        }
        (folder / "job.json").write_text(json.dumps(job))
        # On one CPU: the virtual machine has one, and its processes switch at every system call.
        pinned = ["taskset", "-c", str(max(os.sched_getaffinity(0)))]
        command = [
            *pinned, str(kernel), f"mem={MEMORY}M", "rootfstype=hostfs", "hostfs=/", "ro", "quiet", "loglevel=4",
            "con=null", "con0=null,fd:1", *([] if real_time else ["time-travel=inf-cpu"]),
            f"JOB={folder}", f"init={python}", "--", str(_INIT),
        ]  # fmt: skip
        # SIGTERM must reach `finally` too: the machine is a session of its own and would keep running.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        with (folder / "kernel.log").open("wb") as log:
            machine = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=_host_environment(),
                start_new_session=True,
            )
        screen = threading.Thread(target=_show, args=(machine, folder))
        screen.start()
        try:
            started = _wait_for_start(machine, folder)
            if started:
                machine.wait(deadline)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"The virtual machine was stopped after {deadline:.0f} s.") from None
        finally:
            if machine.poll() is None:
                os.killpg(machine.pid, signal.SIGKILL)
                machine.wait()
            screen.join()
            signal.signal(signal.SIGTERM, before)
        if not started:
            raise CannotRunError(f"User-Mode Linux does not run on this machine{_said(folder)}")
        exit_code = folder / "exit_code"
        if not exit_code.exists():
            raise RuntimeError(
                f"The virtual machine ended with {machine.returncode} before the command did{_said(folder)}."
            )
        return int(exit_code.read_text())


class CannotRunError(Exception):
    """User-Mode Linux does not run on this machine."""


def _kernel() -> Path:
    """Return the kernel that setup.sh built from its recipe as it is now."""
    kernel = Path(subprocess.run([_SETUP, "--path"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip())
    if not kernel.exists():
        raise CannotRunError(f"{kernel} does not exist; run tests/real_usb/vm/setup.sh")
    return kernel


def _wait_for_start(machine: subprocess.Popen[bytes], folder: Path) -> bool:
    """Wait until init.py has read its job; return False if the machine ends before or takes too long."""
    end = time.monotonic() + START_DEADLINE
    while not (folder / "started").exists():
        if machine.poll() is not None or time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def _show(machine: subprocess.Popen[bytes], folder: Path) -> None:
    """Copy the machine's console to this process's stdout; what comes before the job has begun is kept for `_said`."""
    assert machine.stdout is not None
    with machine.stdout, (folder / "kernel.log").open("ab") as log:
        while text := os.read(machine.stdout.fileno(), 1 << 16):
            if (folder / "started").exists():
                os.write(1, text)
            else:
                log.write(text)
                log.flush()


def _said(folder: Path) -> str:
    """Return what the kernel said about its end, to be appended to a sentence."""
    lines = [line.strip() for line in (folder / "kernel.log").read_text(errors="replace").splitlines()]
    words = re.compile("fail|must|can.?not|panic|errno|not permitted|denied", re.IGNORECASE)
    telling = [line for line in lines if words.search(line) and "[<" not in line]  # no call traces
    return "".join(f": {line}" for line in (telling or lines)[:3])


def _host_environment() -> dict[str, str]:
    """Return the environment of the machine itself, whose memory is a file in /dev/shm if there is room for it."""
    try:
        room = shutil.disk_usage("/dev/shm").free > MEMORY << 20
    except OSError:
        room = False
    return {**os.environ, "TMPDIR": "/dev/shm" if room else tempfile.gettempdir()}


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
    real_time = bool(os.environ.get("ESP_DFU_VM_REAL_TIME"))
    sys.exit(boot(sys.argv[1:], float(os.environ.get("ESP_DFU_VM_DEADLINE", "600")), real_time=real_time))
