"""What a build wants in flash memory, and its files, each read once.

The readers of `esp_dfu_ext.inputs` make plans; nothing in a plan depends on the build tool.
"""

from __future__ import annotations

import stat
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputMissingError, UsageError
from .security import Security


@dataclass(frozen=True)
class FlashFile:
    """A file of the build and the flash address it goes to.

    Attributes:
        address: Bytes from the start of flash memory.
        path: Path of the file.
        section: Name in flasher_args.json (``app``, ``bootloader``, ...), empty if it has none.
        encrypted: Whether the build marks the file to be encrypted.
    """

    address: int
    path: Path
    section: str = ""
    encrypted: bool = False

    def __str__(self) -> str:
        return f"{self.path} for {self.address:#x}"


@dataclass(frozen=True)
class FlashPlan:
    """What a build wants in flash memory.

    Attributes:
        origin: The folder or file that it was read from; relative paths in it start from there.
        chip: The chip's name, as `idf.py set-target` takes it.
        chip_size: Bytes of flash memory on the board.
        files: The files, by address.
        name: The project's name, empty if unknown.
        sources: The folders whose files may go into an image.
        security: The security features that the bootloader enables.
    """

    origin: Path
    chip: str
    chip_size: int
    files: tuple[FlashFile, ...]
    name: str = ""
    sources: tuple[Path, ...] = ()
    security: Security = field(default_factory=Security)

    def select(self, sections: Collection[str]) -> tuple[FlashFile, ...]:
        """Return the files of some sections, or all files if `sections` is empty.

        Raises:
            UsageError: The plan has no such section; the message lists those it has.
        """
        available = sorted({file.section for file in self.files if file.section})
        for section in sections:
            if section not in available:
                listed = f"its sections are {', '.join(available)}" if available else "it has no sections"
                raise UsageError(f"The build has no section {section!r}; {listed}.")
        return tuple(file for file in self.files if not sections or file.section in sections)


@dataclass(frozen=True)
class LoadedFile:
    """A flash file in memory.

    Attributes:
        file: Where it comes from and where it goes.
        size: Size in bytes.
        data: Its contents, empty if the file does not fit into flash memory.
    """

    file: FlashFile
    size: int
    data: bytes = field(repr=False)


def load_files(files: Iterable[FlashFile], limit: int) -> list[LoadedFile]:
    """Read each file once; what follows checks and writes these bytes, whatever happens to the file.

    Args:
        files: In any order; one that is listed twice with the same address is read once.
        limit: Bytes of flash memory. A file that does not fit after those before it is measured but not read, so no
            build fills memory; `check_regions` refuses it.

    Raises:
        InputMissingError: A file does not exist or cannot be read.
    """
    loaded = []
    for file in sorted(dict.fromkeys(files), key=lambda file: file.address):
        loaded.append(_load(file, limit))
        limit = max(0, limit - loaded[-1].size)
    return loaded


def _load(file: FlashFile, room: int) -> LoadedFile:
    path = file.path
    try:
        found = path.stat()
    except PermissionError as error:
        raise InputMissingError.of(error, path, "flash file") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise InputMissingError(f"{file} does not exist.", path=path, role="flash file") from error
    if not stat.S_ISREG(found.st_mode):  # a pipe would block
        raise InputMissingError(f"{file} is not a regular file.", path=path, role="flash file", reason="no-file")
    if found.st_size > room:
        return LoadedFile(file, found.st_size, b"")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputMissingError.of(error, path, "flash file") from error
    return LoadedFile(file, len(data), data)
