"""Files: written, edited, and out of reach."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


def write_file(path: Path, data: bytes) -> Path:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def sparse_file(path: Path, size: int) -> Path:
    """Make a file of zeros that takes neither space nor time."""
    with path.open("wb") as file:
        file.truncate(size)
    return path


def write_json(path: Path, data: object) -> None:
    """Write a JSON file and the folders above it."""
    write_file(path, json.dumps(data, indent=4).encode())


def edit_json(path: Path, **changes: object) -> None:
    """Change keys of a JSON object on disk; None removes a key."""
    data = {**json.loads(path.read_text()), **changes}
    write_json(path, {key: value for key, value in data.items() if value is not None})


def forbid(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Deny access to a path and everything below it, which also works when the tests run as root."""

    def refusing(function: Any) -> Any:
        def refuse(path: Path, *args: Any, **kwargs: Any) -> Any:
            if folder in (path, *path.parents):
                raise PermissionError(13, "Permission denied", str(path))
            return function(path, *args, **kwargs)

        return refuse

    for name in ("stat", "iterdir", "open"):
        monkeypatch.setattr(Path, name, refusing(getattr(Path, name)))
