"""Read YAML files whose contents are not trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .files import read_small

# The safe loader in C is ten times faster, but PyYAML may have been built without it.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path, longest: int, deepest: int) -> Any:
    """Return what is in a YAML file.

    Args:
        path: Path of the file.
        longest: Bytes that it may have.
        deepest: Levels that it may have: PyYAML composes nodes on the C stack.

    Raises:
        OSError: The file cannot be read, or is too long.
        ValueError: It is not YAML that this function takes; the message says why.
    """
    try:
        text = read_small(path, longest).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"cannot be read: {error}") from error
    try:
        _refuse_bombs(text, deepest)
        return yaml.load(text, _LOADER)
    except yaml.YAMLError as error:
        raise ValueError(f"is not YAML: {' '.join(str(error).split())}") from error
    except _BombError as error:
        raise ValueError(str(error)) from error
    except (ValueError, LookupError, AttributeError, TypeError, OverflowError) as error:
        # PyYAML raises these for tags and dates that it cannot convert, such as "!!bool x" and 2001-13-01.
        raise ValueError(f"has a value that YAML cannot read: {error}") from error


class _BombError(Exception):
    """A few lines that would make billions of entries, or a stack overflow."""


def _refuse_bombs(text: str, deepest: int) -> None:
    depth = 0
    for event in yaml.parse(text, _LOADER):
        if isinstance(event, yaml.AliasEvent):
            raise _BombError(f"aliases (*{event.anchor}) are not allowed")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > deepest:
            raise _BombError(f"is nested too deeply (more than {deepest} levels)")
