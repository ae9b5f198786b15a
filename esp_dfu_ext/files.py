"""Read small files whose contents are not trusted."""

from __future__ import annotations

from pathlib import Path


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
