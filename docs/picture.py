"""Draws docs/run-light.svg and docs/run-dark.svg: real commands in a real pseudo-terminal, on a simulated chip.

    .venv/bin/pip install -e '.[docs]' && .venv/bin/python docs/picture.py

A terminal emulator (pyte) takes what the commands write, bars and colours included, and rich draws its screen.
"""

from __future__ import annotations

import io
import os
import pty
import sys
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import pyte
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import DEFAULT_TERMINAL_THEME, DIMMED_MONOKAI, TerminalTheme
from rich.text import Text

from esp_dfu_ext.simulator.sample import write_sample_project
from esp_dfu_ext.target import load_target

HERE = Path(__file__).resolve().parent
COLUMNS = 108  # a line of the list is not broken
COMMANDS = ("build hello_world/build", "list", "flash hello_world/build/dfu.bin")
ENVIRONMENT = {"ESP_DFU_SIMULATE": "esp32s2+slow", "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": "40"}
THEMES: dict[str, TerminalTheme] = {"light": DEFAULT_TERMINAL_THEME, "dark": DIMMED_MONOKAI}


def run(command: str, folder: Path) -> bytes:
    """Everything that the command writes to its terminal."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(folder)
        os.execve(
            sys.executable, [sys.executable, "-m", "esp_dfu_ext", *command.split()], {**os.environ, **ENVIRONMENT}
        )
    written = bytearray()
    try:
        while part := os.read(terminal, 65536):
            written += part
    except OSError:
        pass  # how a pseudo-terminal says that its program ended
    _, status = os.waitpid(process, 0)
    if status:
        sys.exit(f"esp-dfu {command} failed:\n{written.decode()}")
    return bytes(written)


def screen_of(folder: Path) -> list[Text]:
    """The terminal after all commands, line by line."""
    screen = pyte.Screen(COLUMNS, 60)
    stream = pyte.ByteStream(screen)
    for command in COMMANDS:
        stream.feed(b"\x1b[1m$ esp-dfu " + command.encode() + b"\x1b[0m\r\n" + run(command, folder))
    lines = []
    for row in range(screen.cursor.y):
        line = Text()
        cells = (screen.buffer[row][column] for column in range(COLUMNS))
        for (colour, bold), run_of_cells in groupby(cells, key=lambda cell: (cell.fg, cell.bold)):
            style = Style(color=None if colour == "default" else _colour(colour), bold=bold)
            line.append("".join(cell.data for cell in run_of_cells), style)
        line.rstrip()
        lines.append(line)
    return lines


def _colour(name: str) -> str:
    """Rich's name for pyte's."""
    if len(name) == 6 and not name.startswith("bright"):
        try:
            int(name, 16)
        except ValueError:
            return name
        return f"#{name}"
    return {"brown": "yellow", "brightbrown": "bright_yellow"}.get(name, name.replace("bright", "bright_"))


def main() -> None:
    """Run the commands once and draw both pictures."""
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_sample_project(folder / "hello_world", load_target("esp32s2"), app_size=200_000)
        lines = screen_of(folder)
    for name, theme in THEMES.items():
        console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
        for line in lines:
            console.print(line, no_wrap=True, overflow="crop")
        console.save_svg(str(HERE / f"run-{name}.svg"), title="esp-dfu on a simulated ESP32-S2", theme=theme)


if __name__ == "__main__":
    main()
