"""Read small files whose contents are not trusted, and replace files as a whole."""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
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

    If anything fails, `path` stays as it was and the temporary file is deleted. One that a killed process left behind
    is deleted the next time.

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
            _lock(file.fileno())
            _remove_abandoned(path, os.fstat(file.fileno()).st_mtime)
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


_ABANDONED_AGE = 60.0  # seconds; a process locks its temporary file right after it was created


def _remove_abandoned(path: Path, now: float) -> None:
    """Delete temporary files for `path` that no process writes any more; never fails.

    Args:
        path: Path of the file.
        now: Time by the clock of its file system, in seconds.
    """
    with suppress(OSError):
        pattern = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.tmp")
        with os.scandir(path.parent) as entries:
            found = [Path(entry.path) for entry in entries if pattern.fullmatch(entry.name)]
        for temporary in found:
            with suppress(OSError):
                info = temporary.lstat()
                if stat.S_ISREG(info.st_mode) and now - info.st_mtime > _ABANDONED_AGE:
                    _unlink_if_unlocked(temporary)


def _unlink_if_unlocked(path: Path) -> None:
    with path.open("rb") as file:
        _lock(file.fileno())
        if sys.platform != "win32":
            path.unlink()
    if sys.platform == "win32":  # which refuses to delete a file that is open, here or in another process
        path.unlink()


def _lock(descriptor: int) -> None:
    """Lock an open file; OSError if another process has locked it, but not on file systems without locks."""
    if sys.platform == "win32":
        return
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise
