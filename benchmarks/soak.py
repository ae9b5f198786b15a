"""Flash a thousand boards in a row with one watch, on the simulated bus in virtual time.

    .venv/bin/python -m benchmarks.soak [BOARDS]

There are four ports. A board is unplugged a second after its result, and the next one is plugged in once the watch has
seen the port empty. One in ten fails. Whatever grows from one line of the table to the next is a leak; the garbage
collector is off.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
import weakref
from itertools import count
from pathlib import Path
from typing import Any

from esp_dfu_ext import Flasher
from esp_dfu_ext.events import BoardLeft, Event
from esp_dfu_ext.operations.results import FlashOutcome, WatchResult
from esp_dfu_ext.simulator import Board
from esp_dfu_ext.simulator.board import vanish
from esp_dfu_ext.simulator.bus import SimulatedBackend
from tests.kit.archives import CHIP_SIZE, checked
from tests.kit.boards import Rig
from tests.kit.chips import chip, chips
from tests.kit.clocks import SharedClock

PORTS = 4
ALIVE: weakref.WeakSet[SimulatedBackend] = weakref.WeakSet()


class CountedRig(Rig):
    """Knows which of its backends are alive, and keeps no log."""

    def backend(self) -> SimulatedBackend:
        self.scans += 1
        backend = SimulatedBackend(self.boards, self.clock)
        ALIVE.add(backend)
        return backend


def resident() -> float:
    """Return the resident memory of this process in MiB."""
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    """Flash them all, and print a table."""
    boards = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    marks = {10, 100, boards // 2, boards}
    rig = CountedRig(clock=SharedClock())
    numbers = count()
    clock: Any = rig.clock

    def next_board(path: str) -> None:
        number = next(numbers)
        board = Board.make(chip(), path, rig.clock, number=number, flash_size=CHIP_SIZE)
        if number % 10 == 9:
            board.faults.plan(vanish, 40)
        rig.add(board)

    def note(event: Event) -> None:
        if isinstance(event, BoardLeft):
            next_board(event.path)

    def take(outcome: FlashOutcome, so_far: WatchResult) -> None:
        board = next(board for board in reversed(rig.boards) if board.path == outcome.path)
        clock.at(clock.monotonic() + 1, lambda: rig.remove(board))
        done = so_far.passed + so_far.failed
        if done in marks:
            seconds = (time.perf_counter() - started) / done
            files = len(list(Path("/proc/self/fd").iterdir()))
            print(
                f"| {done} | {so_far.failed} | {resident():.1f} MiB | {files} | {len(ALIVE)} | "
                f"{threading.active_count()} | {seconds * 1000:.0f} ms |",
                flush=True,
            )

    for port in range(1, PORTS + 1):
        next_board(f"1-{port}")
    print("| boards | failed | memory | files | backends alive | threads | real time a board |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    gc.collect()
    gc.disable()
    started = time.perf_counter()
    flasher = Flasher(bus=rig.bus, targets=chips(), clock=rig.clock, on_event=note)
    flasher.watch(checked(), count=boards, on_outcome=take)
    print(
        f"\nafterwards: {len(ALIVE)} of {rig.scans} backends alive, {threading.active_count()} thread, "
        f"{rig.clock.monotonic() / 60:.0f} minutes of virtual time"
    )


if __name__ == "__main__":
    main()
