"""Draws docs/house.svg, docs/image-path.svg and docs/speed.svg, from what is committed.

    .venv/bin/python docs/diagrams.py

The house is the linter's contract in pyproject.toml, and the speeds are benchmarks/usb.json. A test holds that the
committed pictures are up to date.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from svg import GREY, MONO, arrow, box, document, element, text

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 760
DARK = "#10141a"  # letters on the boxes, which look the same on every page
COLOURS = {
    "entry points": "#f6c177",
    "people": "#94d8a0",
    "work": "#7fd1e0",
    "chip and bus": "#adc4f5",
    "ground": "#cbd2da",
}

# --- the house --------------------------------------------------------------------------------------------

ROOMS = {
    "__main__": ("entry points", "python -m esp_dfu_ext"),
    "cli": ("entry points", "the esp-dfu command"),
    "idf_actions": ("entry points", "actions of idf.py"),
    "labgrid": ("entry points", "a driver for test farms"),
    "commands": ("people", "one module for each command: parse, call, show"),
    "ui": ("people", "what people read: lines and bars; what programs read: JSON"),
    "doctor": ("people", "findings and advice"),
    "operations": ("work", "build, inspect, list, flash, watch"),
    "simulator": ("work", "the chip as a program"),
    "inputs": ("work", "builds: which file goes to which address"),
    "dfu": ("chip and bus", "DFU 1.1 on the host"),
    "linux": ("chip and bus", "udev, sysfs, permissions"),
    "loader": ("chip and bus", "the ROM's serial loader"),
    "image": ("chip and bus", "dfu.bin: archive, index, suffix"),
    "usb": ("chip and bus", "pyusb and libusb"),
    "target": ("chip and bus", "chips, as YAML"),
}


def layers() -> list[list[str]]:
    """Return the rooms of each floor, from the top, as the linter's contract has them."""
    contract = re.search(r"^layers = \[\n(.*?)^\]", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M | re.S)
    assert contract is not None
    return [re.findall(r"\w+", floor) for floor in re.findall(r'"(.*?)"', contract[1])]


def house() -> str:
    """Return the packages and modules of esp_dfu_ext; each may import what is below it."""
    gap, height, left, top = 8, 42, 46, 12
    parts, y = [], float(top)
    for floor in layers():
        width = (WIDTH - left - gap * (len(floor) - 1)) / len(floor)
        for number, room in enumerate(floor):
            parts += _room(room, left + number * (width + gap), y, width, height)
        y += height + gap
    bottom = y - gap
    parts += [
        arrow(20, top, 20, bottom),
        element(
            "text", "imports go down only",
            transform=f"translate(12 {(top + bottom) / 2:g}) rotate(-90)",
            font_size=12, fill=GREY, text_anchor="middle",
        ),
    ]  # fmt: skip
    title = "The packages and modules of esp_dfu_ext in layers; imports go down only"
    return document(WIDTH, bottom + top, title, parts)


def _room(name: str, x: float, y: float, width: float, height: float) -> list[str]:
    floor, words = ROOMS.get(name, ("ground", ""))
    label = f"{name}/" if (ROOT / "esp_dfu_ext" / name).is_dir() else name
    return _filled(label, [words] if len(words) * 6.3 < width and words else [], x, y, width, height, COLOURS[floor])


def _filled(
    name: str, lines: Sequence[str], x: float, y: float, width: float, height: float, fill: str, size: float = 13
) -> list[str]:
    """A box with a name, and lines about it below the name."""
    style = {"fill": DARK, "text_anchor": "middle"}
    below = [text(x + width / 2, y + 40 + 16 * (line - 1), words, 12, **style) for line, words in enumerate(lines, 1)]
    if len(lines) < 2:  # in the middle
        start = y + height / 2 + (-3 if lines else 5)
        below = [text(x + width / 2, start + 16, words, 12, **style) for words in lines]
    else:
        start = y + 22
    return [
        box(x, y, width, height, fill=fill),
        text(x + width / 2, start, name, size, font_family=MONO, font_weight=600, **style),
        *below,
    ]


# --- the way of an image ----------------------------------------------------------------------------------

BUILD = [
    ("flasher_args.json", "ground", ["ESP-IDF's list of files", "and flash addresses"]),
    ("inputs.esp_idf", "work", ["which file goes where;", "image.plan reads", "each file once"]),
    ("image.layout", "chip and bus", ["names, parts, sectors;", "refuses what the ROM", "would flash wrongly"]),
    ("image.writer", "chip and bus", ["MD5 of each part,", "a temporary file,", "renamed when complete"]),
]
FLASH = [
    ("operations.inspect", "work", ["reads the image once", "and checks all of it"]),
    ("dfu.discovery", "chip and bus", ["finds the board;", "dfu.detach puts it", "into DFU mode"]),
    ("dfu.download", "chip and bus", ["DFU_DNLOAD, in blocks", "of 64 bytes, over usb"]),
    ("ROM of the chip", "ground", ["writes the flash memory,", "compares every MD5,", "reports OK"]),
]


# What is in dfu.bin, in its order.
MEMBERS = [
    ("dfuinfo0.dat", "index: address, MD5"),
    ("flash_params.dat", "flash size"),
    ("bootloader.bin ...", "the files, in parts"),
    ("TRAILER!!!", "end for the ROM"),
    ("DFU suffix", "USB IDs, CRC-32"),
]


def image_path() -> str:
    """Return the way of an image from a build's flasher_args.json to the chip."""
    first, second, height = 34, 274, 92
    parts = [*_steps("idf.py dfu", first, height, BUILD), *_steps("idf.py dfu-flash", second, height, FLASH)]
    left, top, bottom = 84.0, 168.0, 228.0
    parts += [
        text(0, top + 34, "dfu.bin", 14, fill=GREY, font_family=MONO, font_weight=600),
        box(left, top, WIDTH - left - 1, bottom - top, 8, fill="none", stroke=GREY, stroke_width=1.5),
        arrow(WIDTH - 80, first + height + 5, WIDTH - 80, top - 5),
        arrow(150, bottom + 5, 150, second - 5),
    ]
    each = (WIDTH - left - 5) / len(MEMBERS)
    for number, (name, words) in enumerate(MEMBERS):
        parts += _filled(name, [words], left + 4 + number * each, top + 4, each - 4, bottom - top - 8, "#d8b4fe", 11.5)
    return document(WIDTH, second + height + 2, "One image, from flasher_args.json to the chip", parts)


def _steps(heading: str, y: float, height: float, steps: Sequence[tuple[str, str, list[str]]]) -> list[str]:
    width, gap = 172.0, 24.0
    parts = [text(0, y - 14, heading, 14, fill=GREY, font_family=MONO, font_weight=600)]
    for number, (name, colour, lines) in enumerate(steps):
        x = number * (width + gap)
        parts += _filled(name, lines, x, y, width, height, COLOURS[colour])
        if number:
            parts.append(arrow(x - gap + 5, y + height / 2, x - 5, y + height / 2))
    return parts


# --- the speed --------------------------------------------------------------------------------------------

SPEEDS = ROOT / "benchmarks" / "usb.json"
LINES = {  # work, in two lines
    "4 boards, 256 KiB each": ("4 boards, 256 KiB each", "(dfu-util: one after the other)"),
    "1 MiB in DFU mode, 1 ms more per transfer": ("1 MiB in DFU mode", "(1 ms more per transfer)"),
}
CHIPS = {"ESP32-S2": "ESP32-S2", "ESP32-S3": "ESP32-S3 (-P4 and -S31 alike)"}
TOOLS = {  # colours
    "esp-dfu": "#2f81f7",
    "esp-dfu --skip-flashed": "#1f6f43",
    "esp-dfu --strict": "#8dbbf5",
    "esp-dfu --no-loader": "#c4dcf9",
    "dfu-util": "#8b949e",
}


def speed() -> str:
    """Return the seconds of both tools, as the README's tables have them."""
    measured = json.loads(SPEEDS.read_text(encoding="utf-8"))
    seconds = {(run["chip"], run["work"], run["tool"]): run["seconds"] for run in measured["medians"]}
    left, right, bar, gap, group = 226, 60, 16, 3, 22
    scale = (WIDTH - left - right) / max(time for (_, _, tool), time in seconds.items() if tool in TOOLS)
    parts = [
        text(0, 18, "Time to flash simulated chips, in seconds (less is better)", 15, fill=GREY, font_weight=600),
        text(0, 38, _conditions(measured), 12, fill=GREY),
        *_legend(62, [tool for tool in TOOLS if any(of == tool for _, _, of in seconds)]),
    ]
    y = 84.0
    for chip in dict.fromkeys(chip for chip, _, _ in seconds):
        parts.append(text(0, y + 12.5, CHIPS.get(chip, chip), 13, fill=GREY, font_weight=600))
        y += bar + group / 2
        begin = y
        for work in dict.fromkeys(work for of, work, _ in seconds if of == chip):
            bars = [(tool, seconds[chip, work, tool]) for tool in TOOLS if (chip, work, tool) in seconds]
            middle = y + (len(bars) * (bar + gap) - gap) / 2
            label, note = LINES.get(work, (work, ""))
            parts.append(text(left - 12, middle + (-3 if note else 4.5), label, 13, fill=GREY, text_anchor="end"))
            if note:
                parts.append(text(left - 12, middle + 13, note, 12, fill=GREY, text_anchor="end"))
            for tool, time in bars:
                parts.append(box(left, y, time * scale, bar, 2, fill=TOOLS[tool]))
                parts.append(text(left + time * scale + 7, y + 12.5, f"{time:.1f} s", 12, fill=GREY))
                y += bar + gap
            y += group
        parts.append(element("path", d=f"M{left}.5 {begin - 6:g}V{y - group + 4:g}", stroke=GREY))
    return document(WIDTH, y - group + 10, "Time to flash simulated chips with esp-dfu and with dfu-util", parts)


def _conditions(measured: dict[str, Any]) -> str:
    rounds = "One round" if measured["rounds"] == 1 else f"Median of {measured['rounds']} rounds"
    return (
        f"{rounds}, {measured['date']}, on the Linux USB stack of a virtual machine "
        f"({measured['machine']}); {measured['conditions']}"
    )


def _legend(y: float, tools: list[str]) -> list[str]:
    parts, x = [], 0.0
    for tool in tools:
        words = "dfu-util 0.11" if tool == "dfu-util" else tool
        parts += [box(x, y - 11, 12, 12, 2, fill=TOOLS[tool]), text(x + 18, y, words, 13, fill=GREY)]
        x += 18 + 7.2 * len(words) + 18
    return parts


def main() -> None:
    """Draw all three."""
    for name, draw in PICTURES.items():
        (ROOT / "docs" / name).write_text(draw(), encoding="utf-8")


PICTURES = {"house.svg": house, "image-path.svg": image_path, "speed.svg": speed}

if __name__ == "__main__":
    main()
