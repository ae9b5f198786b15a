"""Read small files whose contents are not trusted, and replace files as a whole."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


def read_small(path: Path, longest: int) -> bytes:
    """Return the contents of a regular file of at most `longest` bytes.

    Other files are refused because reading from a pipe may wait forever and ``/dev/zero`` never ends.

    Raises:
        OSError: The file cannot be read, is longer, or is not a regular file.
    """
    if path.exists() and not path.is_file():
        raise OSError("it is not a regular file")
    with path.open("rb") as file:
        data = file.read(longest + 1)
    if len(data) > longest:
        raise OSError(f"it is longer than {longest} bytes")
    return data


@contextmanager
def replace_file(path: Path, mode: int | None = None) -> Iterator[BinaryIO]:
    """Open a temporary file next to `path`; once the block is done, write it to the disk and rename it to `path`.

    If anything fails, `path` stays as it was and the temporary file is deleted.

    Args:
        path: Path of the file, which need not exist.
        mode: Its permissions, or None for those of the old file, and of any new file if there is none.

    Raises:
        OSError: The file cannot be written.
    """
    if mode is None:
        with suppress(OSError):
            mode = path.stat().st_mode & 0o777
    # Hidden, and in the same folder so that the rename stays inside one file system.
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    handle = os.open(temporary, flags, 0o666 if mode is None else 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            temporary.chmod(mode)
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file next to `path`; once the block is done, give it the name `path`, which must be free.

    Raises:
        FileExistsError: `path` exists, at the start or at the end.
        OSError: The file cannot be written.
    """
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if os.name == "nt":
            temporary.rename(path)  # which fails on Windows if `path` exists
        else:
            os.link(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
