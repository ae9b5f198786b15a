"""First process in the virtual machine: set the system up, run the job, and power off.

The host's files are the read-only lower layer of the root; everything written stays in memory. It imports only the
standard library, because it runs before anything is set up.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path

_POWER_OFF = 0x4321FEDC  # linux/reboot.h
_NEW_ROOT = "/run/root"


def _mount(kind: str, target: str, options: str = "") -> None:
    Path(target).mkdir(exist_ok=True, parents=True)
    subprocess.run(["mount", "-t", kind, *(["-o", options] if options else []), kind, target], check=True)


def _enter_writable_root() -> None:
    _mount("tmpfs", "/run")
    for name in ("upper", "work"):
        Path("/run", name).mkdir()
    _mount("overlay", _NEW_ROOT, "lowerdir=/,upperdir=/run/upper,workdir=/run/work")
    os.chroot(_NEW_ROOT)
    os.chdir("/")
    _mount("proc", "/proc")
    _mount("sysfs", "/sys")
    _mount("devtmpfs", "/dev")
    _mount("devpts", "/dev/pts")
    _mount("tmpfs", "/dev/shm")
    _mount("tmpfs", "/run")
    Path("/run/tmp").mkdir(mode=0o1777)


def _start_udev() -> None:
    subprocess.run(["/lib/systemd/systemd-udevd", "--daemon"], check=True)
    subprocess.run(["udevadm", "trigger", "--action=add"], check=True)
    subprocess.run(["udevadm", "settle", "--timeout=20"], check=True)


def _run(folder: str) -> None:
    _mount("hostfs", "/run/job", folder)
    job = json.loads(Path("/run/job/job.json").read_text())
    Path("/run/job/started").touch()
    Path("/proc/sys/kernel/printk").write_text("2")  # from now on, the console is the job's
    for directory in job["public"]:
        Path(directory).chmod(0o755)
    _start_udev()
    result = subprocess.run(job["command"], cwd=job["cwd"], env=job["environment"])
    if result.returncode != 0:
        sys.stdout.flush()
        subprocess.run("dmesg | tail -n 60", shell=True)
    Path("/run/job/exit_code").write_text(str(result.returncode))


def main() -> None:
    """Run everything; does not return."""
    os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    try:
        _enter_writable_root()
        subprocess.run(["stty", "raw", "-echo"], check=False)
        _run(os.environ["JOB"])
    except Exception:
        traceback.print_exc()
    sys.stdout.flush()
    ctypes.CDLL(None).reboot(_POWER_OFF)


main()
