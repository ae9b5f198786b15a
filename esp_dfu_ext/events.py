"""What happens during a job, as data: the jobs report it, a face shows it, nobody prints in between.

The order of one board's flash is fixed::

    Waiting*  DeviceFound  (PhaseStarted Progress* PhaseFinished)*  (Flashed | Failed)  BoardLeft?

and its phases come in the order of `Phase`; one that is not needed is left out. A ``restart`` or ``strict-restart``
ends the phase that is open, and the download comes again. Other notices may stand anywhere. With several boards a
failure is an event, with one it is an exception. Only a watch tells `AlreadyFlashed`, in the place of all the rest, and
`BoardLeft`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Optional, Union


class Phase(enum.Enum):
    """The steps of a flash, in their order."""

    DETACH = "detach"
    RECOVER = "recover"
    DOWNLOAD = "download"
    VERIFY = "verify"
    RESET = "reset"


@dataclass(frozen=True)
class Waiting:
    """No board fits yet; `seconds` are left until we give up."""

    seconds: float


@dataclass(frozen=True)
class DeviceFound:
    """A board was chosen."""

    path: str
    mode: str
    serial: Optional[str]


@dataclass(frozen=True)
class PhaseStarted:
    """A phase begins; `total` is its size in bytes, 0 if it has none."""

    path: str
    phase: Phase
    total: int = 0


@dataclass(frozen=True)
class Progress:
    """`done` of `total` bytes are on the device; `name` is the file being written, empty outside one."""

    path: str
    phase: Phase
    done: int
    total: int
    name: str = ""


@dataclass(frozen=True)
class PhaseFinished:
    """A phase is over after `seconds`."""

    path: str
    phase: Phase
    seconds: float


@dataclass(frozen=True)
class Notice:
    """Something the user should know, though nothing failed.

    `code` is stable: ``restart``, ``strict-restart``, ``part-size-raised``, ``renamed``, ``encryption``,
    ``secure-boot``, ``forced``, ``detach-again``, ``report``.
    """

    code: str
    message: str
    path: str = ""


@dataclass(frozen=True)
class Flashed:
    """A board is done: `size` bytes in `seconds`; `status` and `state` are its last answer."""

    path: str
    size: int
    seconds: float
    status: str
    state: str


@dataclass(frozen=True)
class Failed:
    """Of several boards this one is done with, and not flashed; `code` and `message` are its error's."""

    path: str
    code: str
    message: str


@dataclass(frozen=True)
class AlreadyFlashed:
    """A board that this watch has flashed is there again, and is left alone."""

    path: str
    serial: str


@dataclass(frozen=True)
class BoardLeft:
    """A board that is done with has left its port; the port is free for the next one."""

    path: str


Event = Union[
    Waiting, DeviceFound, PhaseStarted, Progress, PhaseFinished, Notice, Flashed, Failed, AlreadyFlashed, BoardLeft
]
EventSink = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The sink for those who do not want to know."""
