"""Draws docs/run-light.svg and docs/run-dark.svg: real commands in a real pseudo-terminal, on a simulated chip.

    .venv/bin/pip install -e '.[docs]' && .venv/bin/python docs/picture.py

A terminal emulator (pyte) takes what the commands write, bars and colours included; its screen becomes the picture.
"""

from __future__ import annotations

import os
import pty
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pyte
from svg import MONO, box, document, element, text

from esp_dfu_ext.simulator.sample import write_sample_project
from esp_dfu_ext.target import load_target

HERE = Path(__file__).resolve().parent
TITLE = "esp-dfu builds an image and flashes it onto a simulated ESP32-S2"
COLUMNS = 84
COMMANDS = ("build hello_world/build", "flash hello_world/build/dfu.bin")
ENVIRONMENT = {"ESP_DFU_SIMULATE": "esp32s2+slow", "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": "40"}

CELL, LINE, SIZE = 8.4, 20, 14  # width of a character, height of a line, size of the letters
MARGIN, BAR = 20, 36  # around the text, and the height of the title bar


class Theme(NamedTuple):
    """Colours of a terminal."""

    background: str
    edge: str
    text: str
    colours: dict[str, str]


# Blocks of the flash map look the same in both: the letters on them are dark.
BLOCKS = {"cyan": "#56c2d6", "magenta": "#c792ea", "green": "#7ccf8a", "black": "#10141a"}
THEMES = {
    "light": Theme(
        "#ffffff", "#d0d7de", "#1f2328",
        {"green": "#1a7f37", "magenta": "#8250df", "cyan": "#0b7285", "red": "#cf222e", "brightblack": "#59636e"},
    ),
    "dark": Theme(
        "#0d1117", "#3d444d", "#e6edf3",
        {"green": "#3fb950", "magenta": "#bc8cff", "cyan": "#39c5cf", "red": "#ff7b72", "brightblack": "#9198a1"},
    ),
}  # fmt: skip
Row = Sequence[Any]  # pyte's characters


def run(command: str, folder: Path) -> bytes:
    """Return everything that the command writes to its terminal."""
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


def screen(command: str, folder: Path) -> list[Row]:
    """Return the lines of the terminal after the command."""
    emulator = pyte.Screen(COLUMNS, 60)
    # pyte does not know faint letters; grey ones come close.
    pyte.ByteStream(emulator).feed(run(command, folder).replace(b"\x1b[2m", b"\x1b[90m"))
    return [[emulator.buffer[row][column] for column in range(COLUMNS)] for row in range(emulator.cursor.y)]


def draw(screens: Sequence[Sequence[Row]], theme: Theme) -> str:
    """Return the picture: each command behind its prompt, and what it printed."""
    y = BAR + MARGIN + SIZE
    parts = []
    for command, rows in zip(COMMANDS, screens):
        parts.append(text(MARGIN, y, "$", SIZE, fill=theme.colours["green"], font_weight="bold"))
        parts.append(_letters(2, y, f"esp-dfu {command}", fill=theme.text, font_weight="bold"))
        y += LINE + 6
        for row in rows:
            parts += _row(row, y, theme)
            y += LINE
        y += LINE
    width, height = 2 * MARGIN + COLUMNS * CELL, y - LINE - SIZE + MARGIN
    window = [
        box(0.5, 0.5, width - 1, height - 1, 10, fill=theme.background, stroke=theme.edge),
        element("path", d=f"M0.5 {BAR}.5H{width - 0.5:g}", stroke=theme.edge),
        *(element("circle", cx=MARGIN + 4 + 18 * n, cy=BAR / 2, r=5, fill=theme.edge) for n in range(3)),
        text(
            width / 2,
            BAR / 2 + 4.5,
            "esp-dfu, on a simulated ESP32-S2",
            13,
            fill=theme.colours["brightblack"],
            text_anchor="middle",
        ),
    ]
    return document(width, height, TITLE, window + parts, MONO)


def _row(row: Row, y: float, theme: Theme) -> Iterator[str]:
    column = 0
    for (colour, below, bold, shape), cells in groupby(row, key=_kind):
        letters = "".join(cell.data for cell in cells)
        x, width = MARGIN + column * CELL, len(letters) * CELL
        if shape == "━":
            yield box(x, y - 6, width, 4, 2, fill=theme.edge if colour == "brightblack" else theme.colours[colour])
        elif shape:
            yield _block(x, y, width, theme.edge if shape == "░" else BLOCKS[colour])
        elif letters.strip():
            if below != "default":
                yield _block(x, y, width, BLOCKS[below])
            fill = {"default": theme.text, **BLOCKS, **theme.colours}[colour]
            yield _letters(column, y, letters, fill=fill, **({"font_weight": "bold"} if bold else {}))
        column += len(letters)


def _kind(cell: Any) -> tuple[str, str, bool, str]:
    """What may be drawn in one piece: blocks and bars as shapes, because fonts leave gaps between them."""
    return cell.fg, cell.bg, cell.bold, cell.data if cell.data in "█░━" else ""


def _block(x: float, y: float, width: float, fill: str) -> str:
    return box(x, y - 14, width, LINE - 2, 0, fill=fill, shape_rendering="crispEdges")


def _letters(column: int, y: float, letters: str, **attributes: object) -> str:
    """Letters as wide as their columns, whichever font the reader has."""
    start = column + len(letters) - len(letters.lstrip())
    letters = letters.strip()
    return text(
        MARGIN + start * CELL, y, letters.replace(" ", "\N{NO-BREAK SPACE}"), SIZE,
        textLength=len(letters) * CELL, lengthAdjust="spacingAndGlyphs", **attributes,
    )  # fmt: skip


def main() -> None:
    """Run the commands once and draw both pictures."""
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_sample_project(folder / "hello_world", load_target("esp32s2"), app_size=900_000)
        screens = [screen(command, folder) for command in COMMANDS]
    for name, theme in THEMES.items():
        (HERE / f"run-{name}.svg").write_text(draw(screens, theme), encoding="utf-8")


if __name__ == "__main__":
    main()
