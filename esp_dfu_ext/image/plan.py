"""What a build wants in flash memory, and its files, each read once.

The readers of `esp_dfu_ext.inputs` make plans; nothing in a plan depends on the build tool.
"""

from __future__ import annotations

import stat
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputMissingError, UsageError
from ..events import Notice
from .partition_table import Partition
from .security import Security


@dataclass(frozen=True)
class FlashFile:
    """A file of the build, or a stretch of one, and the flash address it goes to.

    Attributes:
        address: Bytes from the start of flash memory.
        path: Path of the file.
        section: Its part: ``app``, ``bootloader``, ``partition-table``, ``otadata``, or another name that the build has
            for it; empty if it has none.
        encrypted: Whether the build marks the file to be encrypted.
        partition: Name of the partition that it goes to, empty if that is unknown or there is none.
        data: Its contents, if a reader had to read them; None if they are still to be read.
        is_stretch: Whether it is only a stretch of the file.
    """

    address: int
    path: Path
    section: str = ""
    encrypted: bool = False
    partition: str = ""
    data: bytes | None = field(default=None, repr=False)
    is_stretch: bool = False

    @property
    def name(self) -> str:
        """Its file name; that of a stretch is made from what is in it."""
        if not self.is_stretch:
            return self.path.name
        return f"{self.partition or self.section or f'{self.address:#x}'}.bin".replace("/", "_").replace("\\", "_")

    def __str__(self) -> str:
        what = f"{self.name.removesuffix('.bin')} in " if self.is_stretch else ""
        return f"{what}{self.path} for {self.address:#x}"


@dataclass(frozen=True)
class FlashPlan:
    """What a build wants in flash memory.

    Attributes:
        origin: The folder or file that it was read from; relative paths in it start from that folder.
        chip: The chip's name, as `idf.py set-target` takes it; empty if nothing in the build says it.
        chip_size: Bytes of flash memory on the board, None if nothing in the build says it.
        files: The files, by address.
        name: The project's name, empty if unknown.
        kind: What was read, for people, such as ``ESP-IDF build``.
        sources: The folders whose files may go into an image; None if the user named each file.
        project_dir: The project folder, which may have chips of its own; None if there is none.
        table: The partition table, empty if there is none.
        security: The security features that the bootloader enables.
        notices: What the user should know about the input.
        before: The project's reset before a flash, in esptool's words; empty if it does not say.
        after: The project's reset after a flash.
    """

    origin: Path
    chip: str
    chip_size: int | None
    files: tuple[FlashFile, ...]
    name: str = ""
    kind: str = ""
    sources: tuple[Path, ...] | None = None
    project_dir: Path | None = None
    table: tuple[Partition, ...] = ()
    security: Security = field(default_factory=Security)
    notices: tuple[Notice, ...] = ()
    before: str = ""
    after: str = ""

    @property
    def folder(self) -> Path:
        """The folder that relative paths start from, and where dfu.bin goes."""
        return self.origin if self.origin.is_dir() else self.origin.parent

    def select(self, names: Collection[str]) -> tuple[FlashFile, ...]:
        """Return the files of some sections or partitions, or all files if `names` is empty.

        Raises:
            UsageError: The plan has nothing of that name; the message lists what it has.
        """
        available = sorted({name for file in self.files for name in (file.section, file.partition) if name})
        for name in names:
            if name not in available:
                listed = f"its sections are {', '.join(available)}" if available else "it has no sections"
                raise UsageError(f"The build has no section {name!r}; {listed}.")
        return tuple(file for file in self.files if not names or {file.section, file.partition} & set(names))


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
    if file.data is not None:
        return LoadedFile(file, len(file.data), file.data if len(file.data) <= room else b"")
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
