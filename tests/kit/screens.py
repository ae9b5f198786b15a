"""Run a command in a pseudo-terminal or in pipes, and return what its user sees.

Each command runs in a fork of this process, which has imported everything, so that it takes milliseconds. Time is
virtual, the boards are simulated, and the facts of the machine are fixed, so that a command always shows the same.
"""

from __future__ import annotations

import fcntl
import gc
import importlib
import os
import pkgutil
import platform
import pty
import signal
import struct
import sys
import tempfile
import termios
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any
from unittest import mock

import pyte
import rich.console
import rich.progress
import rich.table

import esp_dfu_ext
from esp_dfu_ext import cli, idf_actions
from esp_dfu_ext.commands import session
from esp_dfu_ext.commands.host import Host
from esp_dfu_ext.doctor import advice_machine, environment
from esp_dfu_ext.doctor.findings import ok
from esp_dfu_ext.simulator import Board, simulate, simulate_text
from esp_dfu_ext.target import load_targets
from esp_dfu_ext.ui import bars

from .. import idf_py
from .clocks import SharedClock
from .machine import FolderMachine

# Imported once, before the forks.
for _module in pkgutil.walk_packages(esp_dfu_ext.__path__, "esp_dfu_ext."):
    if not _module.name.startswith(("esp_dfu_ext.__main__", "esp_dfu_ext.labgrid", "esp_dfu_ext.extra_actions")):
        importlib.import_module(_module.name)

PIPED = 0  # columns
ROOT = Path(__file__).resolve().parents[2]
_FACTS = {"python_version": "3.13.0", "system": "Linux", "release": "6.1.0", "machine": "x86_64"}
_TRACEBACK = 99  # exit code
_PATIENCE = 240  # real seconds, for a command that hangs


@dataclass(frozen=True)
class Command:
    """A command line and its terminal.

    Attributes:
        words: Words of the command line, "esp-dfu" or "idf.py" first.
        columns: Columns of the terminal; PIPED for pipes.
        boards: Simulated boards as ESP_DFU_SIMULATE takes them.
        stop: Seconds after which the screen is captured; None to capture it at the end.
        lines: Lines of the terminal.
        encoding: Encoding of the terminal or the pipes.
        env: More environment variables.
        linux: Prepares the Linux machine that has the boards as real ones; None if the command knows that they are
            simulated.
        plug: Second at which each board is plugged in; a board without one is plugged in from the start.
        styles: Show colours too.
    """

    words: Sequence[str]
    columns: int
    boards: str = "esp32s3+slow"
    stop: float | None = None
    lines: int = 80
    encoding: str = "utf-8"
    env: Mapping[str, str] = field(default_factory=dict)
    linux: Callable[[FolderMachine], object] | None = lambda machine: None
    plug: Sequence[float] = ()
    styles: bool = False


@dataclass(frozen=True)
class Shown:
    """The output of a command.

    Attributes:
        out: Lines of the screen or of stdout.
        err: Lines of stderr, if there was no terminal.
        styles: Lines of the screen, with the style before each part, such as ``{bold red}``.
        colours: Pairs of foreground and background colours that were used.
        exit_code: Exit code; None if the screen was captured before the end.
    """

    out: list[str]
    err: list[str]
    styles: list[str]
    colours: set[tuple[str, str]]
    exit_code: int | None


def show(command: Command, folder: Path, machine: Path) -> Shown:
    """Run the command in `folder`, on the Linux machine whose files are in the folder `machine`."""
    if command.columns == PIPED:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = _fork(lambda: (os.dup2(out.fileno(), 1), os.dup2(err.fileno(), 2)), command, folder, machine)
            code = _exit_code(process)
            out.seek(0)
            err.seek(0)
            texts = [file.read().decode(command.encoding).splitlines() for file in (out, err)]
        return Shown(texts[0], texts[1], [], set(), code)
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", command.lines, command.columns, 0, 0))
    process = _fork(lambda: [os.dup2(terminal, number) for number in range(3)], command, folder, machine)
    os.close(terminal)
    screen = pyte.Screen(command.columns, command.lines)
    stream = pyte.Stream(screen)
    written = bytearray()
    try:
        while part := os.read(main, 65536):
            written += part
    except OSError:
        pass  # the program of the pseudo-terminal has ended
    os.close(main)
    stream.feed(written.decode(command.encoding))
    code = _exit_code(process)
    rows = [[screen.buffer[y][x] for x in range(screen.columns)] for y in range(screen.lines)]
    used = max((y for y, row in enumerate(rows) if any(cell.data.strip() or cell.reverse for cell in row)), default=-1)
    rows = rows[: used + 1]
    colours = {(cell.fg, cell.bg) for row in rows for cell in row if cell.data.strip()}
    return Shown(
        ["".join(map(_letter, row)).rstrip() for row in rows],
        [],
        [_styled(row) for row in rows],
        colours,
        None if command.stop is not None else code,
    )


def _letter(cell: Any) -> str:
    # Without colours, the grey rest of a bar would look like its beginning.
    return "┄" if cell.data in "━╺-" and cell.fg == "brightblack" else str(cell.data)


def _styled(row: Sequence[Any]) -> str:
    line = ""
    for style, cells in groupby(row, key=_style):
        text = "".join(str(cell.data) for cell in cells)
        line += f"{{{style}}}{text}{{}}" if style else text
    return line.rstrip()


def _style(cell: Any) -> str:
    words = [name for name in ("bold", "reverse") if getattr(cell, name)]
    words += [cell.fg] if cell.fg != "default" else []
    words += [f"on {cell.bg}"] if cell.bg != "default" else []
    return " ".join(words)


def _exit_code(process: int) -> int:
    _, status = os.waitpid(process, 0)
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)


def _fork(connect: Callable[[], object], command: Command, folder: Path, machine: Path) -> int:
    with warnings.catch_warnings():
        # Python 3.12 and newer warn about threads; the child does not need those of the test runner.
        warnings.simplefilter("ignore", DeprecationWarning)
        process = os.fork()
    if process:
        return process
    gc.disable()  # it would touch, and so copy, every page
    code = _TRACEBACK
    try:
        connect()
        _streams(command.encoding)
        os.chdir(folder)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_PATIENCE)
        code = _run(command, machine)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(code)


def _streams(encoding: str) -> None:
    """Open Python's standard streams on the new file descriptors 0, 1 and 2."""
    numbers = {"stdin": (0, "r", "strict"), "stdout": (1, "w", "strict"), "stderr": (2, "w", "backslashreplace")}
    for name, (number, mode, errors) in numbers.items():
        stream = open(number, mode, encoding=encoding, errors=errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _run(command: Command, machine: Path) -> int:
    program, *words = command.words
    environment = {"TERM": "xterm-256color", "PATH": "", "HOME": "/home/ada", "SHELL": "/bin/bash"}
    environment.update(TZ="UTC", LC_ALL="C.UTF-8")
    os.environ.clear()
    os.environ.update({**environment, "ESP_DFU_SIMULATE": command.boards, **command.env})
    time.tzset()
    clock = _Clock(len(command.boards.split(",")) if "--all" in words else 0)
    _fix_this_machine(clock)
    _plug_in(command, clock, FolderMachine(machine))
    if {"--port", "-p"} & set(words):
        mock.patch.object(time, "sleep", clock.sleep).start()  # esptool's, between two states of the lines
    if command.stop is not None:
        _stop_at(command.stop, clock)
    sys.argv = [program, *words]
    try:
        if program == "idf.py":
            os.environ["IDF_EXTRA_ACTIONS_PATH"] = str(ROOT)
            idf_py.VERSION = (5, 5)
            idf_py.main()
        else:
            cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def _fix_this_machine(clock: SharedClock) -> None:
    """Fix what depends on the machine; never undone, because this process ends soon."""
    for name, value in _FACTS.items():
        mock.patch.object(platform, name, lambda value=value: value).start()
    mock.patch.object(sys, "executable", "/opt/venv/bin/python").start()
    # Commands shown are those of an installed package, and the path in idf.py's environment has a fixed length.
    mock.patch.object(advice_machine, "own_command", _own_command).start()
    mock.patch.object(environment, "_way", lambda *_: "IDF_EXTRA_ACTIONS_PATH, /home/ada/esp-dfu-ext").start()
    mock.patch.object(environment, "_FOLDER", "/opt/venv/lib/esp_dfu_ext").start()
    idf_actions._ROUTES.clear()
    mock.patch.object(rich.console, "monotonic", clock.monotonic).start()


def _plug_in(command: Command, clock: SharedClock, machine: FolderMachine) -> None:
    """Provide the boards, as simulated ones or as real boards of the machine."""
    make: Any = Board.make
    # As large as in the projects: allocating all that a chip can address takes longer than the rest.
    mock.patch.object(
        Board, "make", lambda *args, **settings: make(*args, **{"flash_size": 4 << 20, **settings})
    ).start()
    targets = load_targets()
    simulation = simulate_text(command.boards, targets, clock) if command.boards else simulate([], clock)
    for board, seconds in zip(simulation.boards, command.plug):
        board.unplug()
        clock.at(seconds, board.plug)
    host = Host(clock, simulate=lambda *args: simulation)
    if command.linux is not None:
        command.linux(machine)
        host = Host(clock, machine, open_usb=lambda: simulation.bus)
    mock.patch.object(session, "this_host", lambda: host).start()
    library = [ok("pyusb", "1.3.1"), ok("libusb", "1.0.29, /opt/venv/lib/libusb-1.0.so")]
    mock.patch("esp_dfu_ext.doctor.usb.library", lambda machine: library).start()


def _own_command(arguments: str, *, root: bool = False) -> str:
    return f"{'sudo ' if root else ''}/opt/venv/bin/esp-dfu {arguments}"


def _stop_at(seconds: float, clock: SharedClock) -> None:
    shown: list[Any] = []
    start = bars._Progress.start

    def begin(progress: Any) -> None:
        shown.append(progress)
        start(progress)

    def stop() -> None:
        for progress in shown:
            progress.refresh()
        sys.stdout.flush()
        os._exit(0)

    mock.patch.object(bars._Progress, "start", begin).start()
    clock.at(seconds, stop)


class _Clock(SharedClock):
    """Time stands still until all boards' threads exist; then the main thread only waits for them."""

    def __init__(self, boards: int) -> None:
        super().__init__()
        self._boards = boards
        self._seen: set[str] = set()

    def _counts(self, thread: threading.Thread) -> bool:
        if thread is threading.main_thread():
            return not self._boards or len(self._seen) < self._boards
        return super()._counts(thread)

    def _pass(self) -> bool:
        # By name, because a thread that is just starting has no identifier.
        self._seen.update(thread.name for thread in threading.enumerate() if thread.name.startswith("dfu-"))
        return super()._pass()
