"""Start the server of simulated boards, and programs that see them through the real libusb.

By hand: ``python -m tests.real_usb.umockdev.bench esp32s3,esp32s2+dfu -- dfu-util -l``.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import esp_dfu_ext

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[2]
SERVER_PYTHON = HERE / ".venv/bin/python"
PRELOAD = "libumockdev-preload.so.0"
TIMEOUT = 240.0
# Without these two capabilities, file modes apply to root too.
AS_USER = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search")
ESP_DFU = (sys.executable, "-m", "esp_dfu_ext")


class UmockdevBench:
    """A bus with simulated boards; a context manager.

    Args:
        boards: Boards as ESP_DFU_SIMULATE takes them, such as ``esp32s3,esp32s2+dfu``; ``plain`` is another DFU device.
        gone: errno of a transfer during which the board leaves: ENODEV or, as on many host controllers, EPROTO.
    """

    def __init__(self, boards: str, *, gone: int = errno.ENODEV) -> None:
        self._boards = boards
        self._gone = gone

    def __enter__(self) -> UmockdevBench:
        if not SERVER_PYTHON.exists():
            raise RuntimeError(f"{SERVER_PYTHON} is missing: run {HERE / 'setup.sh'} as root first.")
        environment = {"PATH": os.environ["PATH"], "LD_PRELOAD": PRELOAD, "PYTHONPATH": str(CHECKOUT)}
        command = [str(SERVER_PYTHON), str(HERE / "server.py"), self._boards, str(self._gone)]
        self._server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )
        self.root = Path(self._answer()["root"])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.communicate()
        if kind is None and self._server.returncode != 0:
            raise RuntimeError(f"The bench ended with code {self._server.returncode}.")

    def _answer(self) -> Any:
        assert self._server.stdout is not None
        line = self._server.stdout.readline()
        if not line:
            raise RuntimeError(f"The bench ended with code {self._server.wait()}.")
        return json.loads(line)

    def _ask(self, command: str) -> Any:
        assert self._server.stdin is not None
        self._server.stdin.write(command + "\n")
        self._server.stdin.flush()
        return self._answer()

    def read(self, path: str, address: int, size: int) -> bytes:
        """Read a board's flash memory."""
        return bytes.fromhex(self._ask(f"read {path} {address} {size}"))

    def memory(self, path: str, number: int) -> bytes:
        """Read what a plain device received on an alternate setting."""
        return bytes.fromhex(self._ask(f"memory {path} {number}"))

    def fill(self, path: str) -> None:
        """Fill a board's memory, so that each word of it differs from the others."""
        self._ask(f"fill {path}")

    def plug(self, path: str, mode: str = "RUN_TIME") -> None:
        """Plug a board in, in the mode RUN_TIME or DFU."""
        self._ask(f"plug {path} {mode}")

    def unplug(self, path: str) -> None:
        """Unplug a board."""
        self._ask(f"unplug {path}")

    def state(self, path: str) -> tuple[bool, int, str, str]:
        """Return whether a board is on the bus, its device number, mode and DFU state."""
        present, address, mode, state = self._ask("state")[path]
        return present, address, mode, state

    def wait_for(self, condition: Callable[[], bool], seconds: float = 120.0) -> None:
        """Wait until `condition` holds.

        Raises:
            TimeoutError: It does not within `seconds`.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"The condition did not hold within {seconds:g} s.")

    def environment(self, *, debian_libusb: bool = True) -> dict[str, str]:
        """Return the environment of a program that sees the boards; `debian_libusb` hides libusb-package's library."""
        paths = [str(Path(esp_dfu_ext.__file__).parents[1])]
        if debian_libusb:
            paths.insert(0, str(HERE / "debian_libusb"))
        return {
            **os.environ,
            "LD_PRELOAD": PRELOAD,
            "UMOCKDEV_DIR": str(self.root),
            "PYTHONPATH": os.pathsep.join(paths),
            "COLUMNS": "200",
        }

    def start(
        self,
        *command: str | Path,
        debian_libusb: bool = True,
        more: Mapping[str, str] | None = None,
        user: bool = False,
    ) -> subprocess.Popen[str]:
        """Start a program that sees the boards; `user` applies file modes to it even if it runs as root."""
        if user and os.geteuid() == 0:
            command = (*AS_USER, *command)
        return subprocess.Popen(
            [str(part) for part in command],
            env={**self.environment(debian_libusb=debian_libusb), **(more or {})},
            cwd="/",  # not the checkout, and not the testbed: umockdev would hide its path
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program to its end; the options are those of `start`."""
        return finish(self.start(*command, **options))


def finish(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """Wait for a program to end, and kill it if that takes too long."""
    try:
        out, err = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def main() -> int:
    """Run a command or a shell on a bench."""
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 64
    command = sys.argv[3:] or [os.environ.get("SHELL", "sh")]
    with UmockdevBench(sys.argv[1]) as bench:
        return subprocess.run(command, env=bench.environment(), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
