"""What there is to know about this machine, its boards and a project when a flash does not work.

Facts as data: nothing here prints or gives advice, and a cause is named only where it was seen.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import EspDfuError, InputMissingError


class State(enum.Enum):
    """What a fact means for a flash."""

    OK = "ok"
    PROBLEM = "problem"
    NOT_APPLICABLE = "not-applicable"


@dataclass(frozen=True)
class Fact:
    """One thing that was looked at.

    Attributes:
        topic: what, in a word or two; a board is ``port 1-2``.
        state: what that means for a flash.
        text: what was seen.
        code: which problem it is, empty if it is none; that of the error where there is one.
        data: the same for programs, and for hints.
    """

    topic: str
    state: State
    text: str
    code: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


def ok(topic: str, text: str, **data: Any) -> Fact:
    """A fact that is as it should be."""
    return Fact(topic, State.OK, text, "", data)


def problem(topic: str, code: str, text: str, **data: Any) -> Fact:
    """A fact that stands in the way of a flash."""
    return Fact(topic, State.PROBLEM, text, code, data)


def raised(topic: str, error: EspDfuError, **data: Any) -> Fact:
    """The same for an error, with what it knows of a file that is missing."""
    if isinstance(error, InputMissingError):
        data = {"role": error.role, "reason": error.reason, **data}
    return problem(topic, error.code, error.message, **data)


def not_applicable(topic: str, text: str, **data: Any) -> Fact:
    """Something that does not matter here."""
    return Fact(topic, State.NOT_APPLICABLE, text, "", data)
