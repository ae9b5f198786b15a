"""The files that build tools leave: read within bounds, parsed, and kept to the folders they belong in."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from ..errors import BuildFileError, InputMissingError, ProjectError
from ..files import read_small
from ..units import parse_size

MOST_FILES = 1024  # far more than any ROM's index holds
LONGEST_FILE = 8 << 20  # bytes, eight times what large projects need; Python objects take 25 times as much


def is_folder(path: Path, role: str) -> bool:
    """Return whether a folder exists.

    Raises:
        InputMissingError: The path is something else, or cannot be examined.
    """
    return _exists_as(stat.S_ISDIR, path, role)


def is_regular_file(path: Path, role: str) -> bool:
    """Return whether a regular file exists.

    Raises:
        InputMissingError: The path is something else, or cannot be examined.
    """
    return _exists_as(stat.S_ISREG, path, role)


def _exists_as(kind: Callable[[int], bool], path: Path, role: str) -> bool:
    try:
        found = kind(path.stat().st_mode)
    except OSError as error:
        missing = InputMissingError.of(error, path, role)
        if missing.reason == "missing":
            return False
        raise missing from error
    if not found:
        what = "folder" if kind is stat.S_ISDIR else "regular file"
        raise InputMissingError(f"{path} is not a {what}.", path=path, role=role, reason="no-file")
    return True


def has_file(path: Path) -> bool:
    """Return whether a regular file exists; False if it cannot be examined, where Path.is_file() may raise."""
    return os.path.isfile(path)  # noqa: PTH113


def read_text(path: Path) -> str:
    """Return the text of a file; bytes that are not UTF-8 become U+FFFD.

    Raises:
        OSError: The file cannot be read or is too long.
        ValueError: No file system accepts this name.
    """
    return read_small(path, LONGEST_FILE).decode("utf-8", errors="replace")


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        ProjectError: The file cannot be read.
        BuildFileError: It is not JSON, not an object, or has a key twice: readers differ in which of the two they take.
    """
    try:
        data = read_small(path, LONGEST_FILE)
        value = msgspec.json.decode(data)
        twice: list[str] = []
        json.loads(data, object_pairs_hook=lambda pairs: _without_twice(pairs, twice))
    except OSError as error:
        raise ProjectError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BuildFileError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(value, dict):
        raise BuildFileError(f"{path} is not a JSON object.")
    if twice:
        raise BuildFileError(f"{path} has the key {twice[0]!r} twice in one object; expected each key once.")
    return value


def _without_twice(pairs: Iterable[tuple[str, Any]], twice: list[str]) -> None:
    """Add the keys that occur more than once to `twice`; the object itself is not needed."""
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            twice.append(key)
        seen.add(key)


def address(path: Path, key: str, text: str) -> int:
    """Return a flash address.

    Raises:
        BuildFileError: The text is not an address; the message names file and key.
    """
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value <= 0xFFFFFFFF:
        raise BuildFileError(f"{path}: {key}: invalid flash address {text!r}; expected a number such as 0x10000")
    return value


def size_or_none(text: object) -> int | None:
    """Return a size in bytes, or None for anything else, such as "detect" and "keep"."""
    try:
        return parse_size(text) if isinstance(text, str) else None
    except ValueError:
        return None


def local_path(text: object, beside: Path) -> Path | None:
    """Return a path that a build names if it is absolute and not on another machine than `beside`, or None.

    Windows would log in to another machine, and so send it the user's name and a hash of the password.
    """
    if not isinstance(text, str) or not os.path.isabs(text):  # noqa: PTH117
        return None
    drives = [os.path.splitdrive(path)[0].replace("/", "\\").lower() for path in (text, beside.absolute())]
    return None if drives[0].startswith("\\\\") and drives[0] != drives[1] else Path(text)


def is_below(path: Path, folders: Iterable[Path]) -> bool:
    """Return whether a path lies in one of the folders, by its text alone: a network drive is not accessed."""
    text = os.path.normcase(os.path.normpath(path))
    return any(text.startswith(os.path.normcase(os.path.join(folder.absolute(), ""))) for folder in folders)  # noqa: PTH118


def is_inside(path: Path, base: Path, folders: Iterable[Path]) -> bool:
    """Return whether a path lies in one of the folders, before and after following symbolic links.

    ESP-IDF writes paths relative to the build folder, with ``..`` for a file from the project's own sources
    (ESP-IDF, components/esptool_py/project_include.cmake).

    Args:
        path: The path.
        base: The folder that the build's relative paths start from.
        folders: The folders whose files may go into an image.
    """
    sources = [*folders, *(folder.resolve() for folder in folders)]
    with suppress(ValueError):  # a path that is not below the build folder stays as it is
        path = base.resolve() / path.relative_to(base)
    try:
        return is_below(path, sources) and is_below(Path(os.path.realpath(path)), sources)
    except ValueError:
        return True  # no file system accepts this name, so it leads nowhere
