"""What the doctor found: about this machine, its boards and a project.

Findings are data: nothing here prints or gives advice, and a cause is named only if it was seen.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import EspDfuError


class Level(enum.Enum):
    """What a finding means for flashing; `dfu-doctor --json` calls it ``state``."""

    OK = "ok"
    PROBLEM = "problem"
    NOT_APPLICABLE = "not-applicable"


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        topic: What was checked, in a word or two; for a board ``port 1-2``.
        level: What the result means for flashing.
        text: The result, for people; it follows the topic and has no full stop.
        code: Which problem it is, empty if it is none; an error's code if a flash would end with that error.
        data: The result for programs and for advice, with values that JSON has.
    """

    topic: str
    level: Level
    text: str
    code: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


def ok(topic: str, text: str, **data: Any) -> Finding:
    """Return a finding that is as it should be."""
    return Finding(topic, Level.OK, text, "", data)


def not_applicable(topic: str, text: str, **data: Any) -> Finding:
    """Return a finding that does not matter on this machine."""
    return Finding(topic, Level.NOT_APPLICABLE, text, "", data)


def problem(topic: str, code: str, text: str, **data: Any) -> Finding:
    """Return a finding that prevents flashing."""
    return Finding(topic, Level.PROBLEM, text, code, data)


def another_way(topic: str, code: str, text: str, **data: Any) -> Finding:
    """Return a finding that gets around a problem; its code is for advice."""
    return Finding(topic, Level.NOT_APPLICABLE, text, code, data)


def raised(topic: str, error: EspDfuError) -> Finding:
    """Return an error as a problem, with the error's own attributes as data."""
    text = error.message.removeprefix(f"{topic[:1].upper()}{topic[1:]}: ")  # such as "Port 1-2: "
    return problem(topic, error.code, text, **{name: _as_json(value) for name, value in error.facts.items()})


def _as_json(value: object) -> object:
    if isinstance(value, (tuple, frozenset)):
        return list(value)
    return str(value) if isinstance(value, Path) else value
