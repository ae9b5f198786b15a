"""A flash as lines of JSON: `esp-dfu flash --json` writes them, another program reads them, `labgrid` for one.

Each line is an object with `version` and `event`. The events are those of `events`, in their order and with their
fields; the last line is ``result`` or ``error``. A reader ignores events and fields that it does not know.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Optional, Union

import msgspec

from .. import events
from ..errors import EspDfuError, InputMissingError, RemoteError
from ..events import Event
from ..operations.flash import FlashResult
from ..operations.gang import FlashOutcome
from ..versions import FLASH_LINES

_KINDS: dict[str, Any] = {
    "waiting": events.Waiting,
    "device-found": events.DeviceFound,
    "phase-started": events.PhaseStarted,
    "progress": events.Progress,
    "phase-finished": events.PhaseFinished,
    "notice": events.Notice,
    "flashed": events.Flashed,
    "failed": events.Failed,
    "already-flashed": events.AlreadyFlashed,
    "board-left": events.BoardLeft,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


class _Line(msgspec.Struct):
    version: int
    event: str


class _Error(msgspec.Struct):
    """An error; `facts` are the attributes that its class adds."""

    code: str
    message: str
    exit_code: int
    notes: tuple[str, ...] = ()
    facts: dict[str, Any] = {}


class _Board(msgspec.Struct):
    path: str
    serial: Optional[str] = None
    size: int = 0
    seconds: float = 0.0
    status: str = ""
    state: str = ""
    after_reset: Optional[str] = None
    error: Optional[_Error] = None


class _Result(msgspec.Struct):
    boards: list[_Board]
    exit_code: int


# --- writing ----------------------------------------------------------------------------------------------


def event_line(event: Event) -> str:
    """The line for an event."""
    return _line(_NAMES[type(event)], asdict(event))


def error_line(error: EspDfuError) -> str:
    """The last line of a flash that came to nothing."""
    return _line("error", _error_fields(error))


def result_line(outcomes: Sequence[FlashOutcome], exit_code: int) -> str:
    """The last line of a flash: each board with its verdict or its error."""
    return _line("result", {"exit_code": exit_code, "boards": [_board_fields(outcome) for outcome in outcomes]})


def _line(event: str, fields: dict[str, Any]) -> str:
    return json.dumps({"version": FLASH_LINES, "event": event, **fields}, default=_plain)


def _plain(value: object) -> Any:
    return value.value if isinstance(value, enum.Enum) else str(value)


def _error_fields(error: EspDfuError) -> dict[str, Any]:
    facts = {name: value for name, value in vars(error).items() if name not in ("message", "notes")}
    return {
        "code": error.code,
        "message": error.message,
        "notes": error.notes,
        "exit_code": error.exit_code,
        "facts": facts,
    }


def _board_fields(outcome: FlashOutcome) -> dict[str, Any]:
    fields: dict[str, Any] = {"path": outcome.path, "serial": outcome.serial}
    if outcome.result is not None:
        fields |= asdict(outcome.result)
    fields["error"] = None if outcome.error is None else _error_fields(outcome.error)
    return fields


# --- reading ----------------------------------------------------------------------------------------------

Said = Union[Event, EspDfuError, "list[FlashOutcome]"]


def read_line(text: str) -> Said | None:
    """What a line says: an event, the error, or the outcome of each board; None for an event of a later version.

    Raises:
        RemoteError: it is no such line.
    """
    try:
        document = json.loads(text)
        line = msgspec.convert(document, _Line)
        if line.version != FLASH_LINES:
            raise RemoteError(f"The other esp-dfu speaks version {line.version} of --json, this one {FLASH_LINES}.")
        if line.event == "error":
            return _error_of(msgspec.convert(document, _Error))
        if line.event == "result":
            return [_outcome_of(board) for board in msgspec.convert(document, _Result).boards]
        kind = _KINDS.get(line.event)
        event: Event | None = msgspec.convert(document, kind) if kind is not None else None
        return event
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise RemoteError(
            f"A line that should be an event of esp-dfu is none: {text.strip()[:200]!r}.", notes=[str(error)]
        ) from error


def _error_of(said: _Error) -> EspDfuError:
    """The error as it was raised; one of an unknown kind keeps its code."""
    kind = next((kind for kind in _error_kinds(EspDfuError) if kind.code == said.code), EspDfuError)
    error = kind.__new__(kind)
    EspDfuError.__init__(error, said.message, notes=said.notes)
    facts = {name: tuple(value) if isinstance(value, list) else value for name, value in said.facts.items()}
    if isinstance(error, InputMissingError):
        facts["path"] = Path(str(facts.get("path", "")))
    vars(error).update(facts)
    if kind.code != said.code:
        vars(error).update(code=said.code, exit_code=said.exit_code)
    return error


def _error_kinds(kind: type[EspDfuError]) -> Iterator[type[EspDfuError]]:
    yield kind
    for sub in kind.__subclasses__():
        yield from _error_kinds(sub)


def _outcome_of(board: _Board) -> FlashOutcome:
    if board.error is not None:
        return FlashOutcome(board.path, board.serial, None, _error_of(board.error))
    result = FlashResult(
        board.path, board.serial, board.size, board.seconds, board.status, board.state, board.after_reset
    )
    return FlashOutcome(board.path, board.serial, result, None)
