"""The files of an image as a table, and as a map of the flash memory: blocks on a terminal, letters in a log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..units import format_size
from .console import Console
from .text import Styled

_COLOURS = ("cyan", "magenta", "green")  # neighbours differ; red means that something failed
_WIDEST = 64  # characters


class MapRow(NamedTuple):
    """One file in the flash memory; `address` and `size` in bytes."""

    address: int
    size: int
    sectors: int
    name: str


def show_flash_map(console: Console, rows: Sequence[MapRow], chip_size: int) -> None:
    """Print a table of the files and a map of the flash memory.

    Args:
        console: Where to print them.
        rows: The files by address.
        chip_size: Size of the flash memory in bytes.
    """
    if console.quiet:
        return
    out = console.out
    letters = [chr(ord("A") + number) if number < 26 else "#" for number in range(len(rows))]
    marks = [Styled(letter, _colour(number, out.blocks)) for number, letter in enumerate(letters)]
    console.table(
        ["", ">Address", ">Size", ">Sectors", "File"],
        [
            (mark, f"{row.address:#x}", format_size(row.size), str(row.sectors), row.name)
            for mark, row in zip(marks, rows)
        ],
    )
    end = f" {chip_size:#x}"
    size = _cell_size(chip_size, min(out.width - len("0x0 ") - len(end) - 1, _WIDEST))
    cells = -(-chip_size // size)
    if len(rows) > cells:
        return
    console.info()
    unit = "block" if out.blocks else "character"
    out.put(Styled("0x0 ", "dim"), *_cells(rows, marks, cells, size, out.blocks), Styled(end, "dim"), wrap=False)
    out.put(Styled(f"    1 {unit} = {format_size(size)}, at least one per file", "dim"), hang=4)
    console.info()


def _colour(number: int, blocks: bool) -> str:
    colour = _COLOURS[number % len(_COLOURS)]
    return f"black on {colour}" if blocks else colour


def _cell_size(chip_size: int, width: int) -> int:
    """Return the bytes that a character stands for: the smallest power of two with which the map fits."""
    size = 4096
    while chip_size > size * max(8, width):
        size *= 2
    return size


def _cells(rows: Sequence[MapRow], marks: Sequence[Styled], cells: int, size: int, blocks: bool) -> Iterator[Styled]:
    """Yield the map: each file's letter, the rest of the file, and the free space after it."""
    free = "░" if blocks else "."
    at = 0
    for number, (row, mark) in enumerate(zip(rows, marks)):
        # Every file is seen: small neighbours push each other along, and leave room for those that follow.
        most = cells - len(rows) + number
        first = min(max(at, row.address // size), most)
        last = min(max(first, (row.address + row.size - 1) // size), most)
        yield Styled(free * (first - at), "dim")
        yield mark
        yield Styled(("█" if blocks else mark) * (last - first), _COLOURS[number % len(_COLOURS)])
        at = last + 1
    yield Styled(free * (cells - at), "dim")
