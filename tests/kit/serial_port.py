"""A simulated board's serial port as a tty that other programs can open."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import subprocess
import sys
import threading
import tty
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any
from unittest import mock

from esp_dfu_ext.simulator import Board, serial_loader
from esp_dfu_ext.simulator.board import DeviceGone
from esp_dfu_ext.simulator.rom import SERIAL_IN, SERIAL_OUT, TransferNak

PACKET = 64
OLD_ESPTOOL = version("esptool").startswith("4.")
DEADLINE = 60.0


def share(board: Board) -> None:
    """Let the bridge of `serial_port` and other threads use a board, one at a time."""
    lock = threading.RLock()

    def locked(call: Callable[..., Any]) -> Callable[..., Any]:
        def one_at_a_time(*arguments: Any) -> Any:
            with lock:
                return call(*arguments)

        return one_at_a_time

    for name in ("open", "control", "bulk_in", "bulk_out", "update", "reset_bus"):
        setattr(board, name, locked(getattr(board, name)))


@contextlib.contextmanager
def serial_port(board: Board) -> Iterator[str]:
    """Provide the path of a tty that is bridged to the board, as the kernel's serial driver does it.

    The board's clock must be the real one, and only the bridge may use the board meanwhile; see `share`. A tty of this
    kind has no DTR and RTS. It goes away with the board.
    """
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    stop, stopped = os.pipe()
    bridge = threading.Thread(target=_bridge, args=(board, ours, stop), daemon=True)
    # The kernel's driver always has a read waiting; on a busy machine this thread may come too late for the ROM.
    with mock.patch.object(serial_loader, "GIVE_UP_TIME", DEADLINE):
        bridge.start()
        try:
            yield os.ttyname(theirs)
        finally:
            os.close(stopped)
            bridge.join(DEADLINE)
            for end in (theirs, stop):
                os.close(end)


def _bridge(board: Board, ours: int, stop: int) -> None:
    try:
        while True:
            ready, _, _ = select.select([ours, stop], [], [], 0.01)
            if stop in ready:
                return
            if ours in ready:
                data = os.read(ours, 4096)
                for start in range(0, len(data), PACKET):
                    board.bulk_out(SERIAL_OUT, data[start : start + PACKET])
                    _send_answers(board, ours)
            else:
                board.update()
                if not board.present:
                    return
    except (DeviceGone, OSError):
        return
    finally:
        os.close(ours)


def _send_answers(board: Board, ours: int) -> None:
    answer = b""
    with contextlib.suppress(TransferNak):
        while True:
            answer += board.bulk_in(SERIAL_IN)
    os.write(ours, answer)


def start_esptool(port: str, *arguments: str, after: str = "no-reset") -> subprocess.Popen[str]:
    """Start esptool on a port whose chip is in download mode, without its stub; words are written as in version 5."""
    words = ["--port", port, "--before", "no-reset", "--after", after, "--no-stub", *arguments]
    if OLD_ESPTOOL:
        words = [word if word.startswith(("-", "/")) else word.replace("-", "_") for word in words]
    command = [sys.executable, "-m", "esptool", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for esptool; return what it printed, and raise AssertionError if it failed."""
    try:
        out, _ = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
    assert process.returncode == 0, out
    return out


def esptool(port: str, *arguments: str, after: str = "no-reset") -> str:
    """Run esptool to its end; see `start_esptool` and `finish`."""
    return finish(start_esptool(port, *arguments, after=after))
