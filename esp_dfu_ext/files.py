"""Reading small files that somebody else may have written."""

from __future__ import annotations

from pathlib import Path


def read_small(path: Path, longest: int) -> bytes:
    """Read a regular file, whole, of at most `longest` bytes.

    A pipe would keep the program waiting, and ``/dev/zero`` never ends.

    Raises:
        OSError: it cannot be read, is no regular file, or is longer.
    """
    if path.exists() and not path.is_file():
        raise OSError(f"it is no regular file: {path}")
    with path.open("rb") as file:
        data = file.read(longest + 1)
    if len(data) > longest:
        raise OSError(f"it has more than {longest} bytes")
    return data
