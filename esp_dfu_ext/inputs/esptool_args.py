"""Files with their addresses, as esptool's write-flash and ESP-IDF's mkdfu.py take them.

On the command line, or in the file flash_args that ESP-IDF and Arduino (arduino-esp32 3.x) write into the build folder:
esptool's options first, then a line ``0x10000 app.bin`` for each file.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from ..errors import BuildFileError, ProjectError, UsageError
from ..image.plan import FlashFile, FlashPlan
from . import build_files as files

FLASH_ARGS = "flash_args"

_ADDRESS = re.compile(r"0[xX][0-9a-fA-F]+|[0-9]+")
_SIZE_OPTIONS = ("--flash_size", "--flash-size", "-fs")


def is_address(word: str) -> bool:
    """Return whether a word is a flash address."""
    return _ADDRESS.fullmatch(word) is not None


def read_pairs(words: Sequence[str]) -> list[tuple[int, Path]]:
    """Return the pairs of ADDRESS and FILE in the words of a command line.

    Raises:
        UsageError: They are not such pairs.
    """
    if len(words) % 2:
        raise UsageError(f"Expected pairs of ADDRESS and FILE, found {len(words)} words: {' '.join(words)}.")
    pairs = []
    for address, file in zip(words[::2], words[1::2]):
        if not is_address(address):
            raise UsageError(f"Invalid flash address {address!r}: expected a number such as 0x10000 before {file}.")
        pairs.append((int(address, 0) if address[:1] == "0" and address[1:2] in "xX" else int(address), Path(file)))
    return pairs


def read_flash_args(path: Path) -> FlashPlan:
    """Read a file of esptool's arguments; its files are relative to its folder.

    Raises:
        InputMissingError, ProjectError: It cannot be read.
        BuildFileError: It is damaged.
    """
    try:
        text = files.read_text(path)
    except (OSError, ValueError) as error:
        raise ProjectError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    try:
        words = [word for line in text.splitlines() for word in shlex.split(line, comments=True)]
    except ValueError as error:
        raise BuildFileError(f"{path}: {error}") from error
    start = next((number for number, word in enumerate(words) if word.lower().startswith("0x")), len(words))
    options, pairs = words[:start], words[start:]
    if len(pairs) % 2 or len(pairs) > 2 * files.MOST_FILES:
        raise BuildFileError(f"{path}: expected pairs such as 0x10000 app.bin after the options")
    found: dict[int, FlashFile] = {}
    for word, name in zip(pairs[::2], pairs[1::2]):
        at = files.address(path, name, word)
        if at in found:
            raise BuildFileError(f"{path}: two files for {at:#x}: {found[at].path.name} and {Path(name).name}")
        found[at] = FlashFile(at, path.parent / name)
    ordered = tuple(found[at] for at in sorted(found))
    size = files.size_or_none(_option(options, _SIZE_OPTIONS))
    chip = _option(options, ("--chip", "-c"))
    return FlashPlan(
        path.parent, chip if chip != "auto" else "", size, ordered, kind="flash_args", sources=(path.parent,)
    )


def _option(words: Sequence[str], names: Sequence[str]) -> str:
    """Return the value of an option, empty if it is not given."""
    for number, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in names:
            return value if equals else next(iter(words[number + 1 :]), "")
    return ""
