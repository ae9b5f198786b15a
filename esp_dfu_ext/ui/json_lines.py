"""One flash as lines of JSON: `esp-dfu flash --json` writes them; programs such as the labgrid driver read them.

Each line is an object with the keys `version` and `event`, followed by the fields of that event. The first line is
an ``image``, unless the flash fails before it starts; the last is a ``result`` or an ``error``. Readers ignore unknown
events and unknown keys.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Optional, Union

import msgspec

from ..errors import EspDfuError, InputMissingError, RemoteError, all_errors
from ..events import CameBack, Event
from ..operations.inspect import CheckedImage
from ..operations.results import FlashOutcome, FlashResult
from ..versions import FLASH_LINES
from .documents import App, app_document


class Error(msgspec.Struct, kw_only=True):
    """An error.

    Attributes:
        code: Error code, as in docs/errors.md.
        message: What failed.
        notes: Further lines.
        exit_code: Exit code of the command.
        facts: Attributes that the error's class adds; docs/python-api.md lists them.
    """

    code: str
    message: str
    notes: tuple[str, ...] = ()
    exit_code: int
    facts: dict[str, Any] = {}


class ErrorLine(Error, tag_field="event", tag="error", kw_only=True):
    """The last line of a flash that failed before any board had a result."""


class Board(msgspec.Struct, kw_only=True):
    """One board of a result; without the keys from `size` to `came_back` if it was not flashed.

    Attributes:
        path: USB port, bus-port.port; over serial, the name of the serial port.
        serial: Serial number; null if it has none or could not be read.
        mac: MAC address; null if the chip's serial loader did not tell it.
        size: Bytes written to flash memory.
        seconds: Time from the first contact to the last answer.
        status: Last bStatus.
        state: Last bState; empty over serial.
        after_reset: Device found on the port after a reset; null if there was none.
        skipped: Bytes of the image that flash memory held already, so that they were not sent.
        reset_by: What restarted the chip: watchdog or bus-reset; null if nothing did.
        came_back: What was on the port after that: nothing, app, rom or same, as in the event flashed; null without
            a reset.
        error: Why the board was not flashed; null if it was.
    """

    path: str
    serial: Optional[str] = None
    mac: Optional[str] = None
    size: Union[int, msgspec.UnsetType] = msgspec.UNSET
    seconds: Union[float, msgspec.UnsetType] = msgspec.UNSET
    status: Union[str, msgspec.UnsetType] = msgspec.UNSET
    state: Union[str, msgspec.UnsetType] = msgspec.UNSET
    after_reset: Union[str, msgspec.UnsetType, None] = msgspec.UNSET
    skipped: Union[int, msgspec.UnsetType] = msgspec.UNSET
    reset_by: Union[str, msgspec.UnsetType, None] = msgspec.UNSET
    came_back: Union[CameBack, msgspec.UnsetType, None] = msgspec.UNSET
    error: Optional[Error] = None


class Result(msgspec.Struct, tag_field="event", tag="result", kw_only=True):
    """The last line of a flash.

    Attributes:
        exit_code: Exit code of the command.
        boards: The boards, in order.
    """

    exit_code: int
    boards: list[Board]


class Image(msgspec.Struct, tag_field="event", tag="image", kw_only=True):
    """The first line of a flash, before anything is sent to a board.

    Attributes:
        path: The dfu.bin, or what else was named to be flashed.
        target: Chip, as idf.py set-target names it.
        size: Bytes to write to flash memory.
        app: What the app says about itself; null if there is none.
    """

    path: str
    target: str
    size: int
    app: Optional[App]


Line = Union[Image, Event, Result, ErrorLine]


class _Header(msgspec.Struct):
    version: int
    event: str


_KNOWN = {kind.__struct_config__.tag for kind in Line.__args__}  # type: ignore[attr-defined]


# --- writing ----------------------------------------------------------------------------------------------


def image_line(image: CheckedImage) -> str:
    """Return the first line of a flash: what is going to be flashed."""
    return _line(
        Image(
            path=str(image.path), target=image.target.name, size=image.image.payload_size, app=app_document(image.app)
        )
    )


def event_line(event: Event) -> str:
    """Return the line for an event."""
    return _line(event)


def error_line(error: EspDfuError) -> str:
    """Return the last line of a flash that failed before any board had a result."""
    return _line(ErrorLine(**_error_fields(error)))


def result_line(outcomes: Sequence[FlashOutcome], exit_code: int) -> str:
    """Return the last line of a flash: the result or the error of each board."""
    return _line(Result(exit_code=exit_code, boards=[_board(outcome) for outcome in outcomes]))


def _line(line: Line) -> str:
    return json.dumps({"version": FLASH_LINES, **msgspec.to_builtins(line, enc_hook=str)})


def _error_fields(error: EspDfuError) -> dict[str, Any]:
    return {
        "code": error.code,
        "message": error.message,
        "notes": error.notes,
        "exit_code": error.exit_code,
        "facts": error.facts,
    }


def _board(outcome: FlashOutcome) -> Board:
    if outcome.result is not None:
        return Board(**asdict(outcome.result))
    error = None if outcome.error is None else Error(**_error_fields(outcome.error))
    return Board(path=outcome.path, serial=outcome.serial, mac=outcome.mac, error=error)


# --- reading ----------------------------------------------------------------------------------------------


def read_line(text: str) -> Event | EspDfuError | list[FlashOutcome] | None:
    """Return what a line says: an event, the error, or each board's outcome; None for `image` and unknown events.

    Raises:
        RemoteError: The line is not JSON of this format, or its version differs.
    """
    try:
        document = json.loads(text)
        header = msgspec.convert(document, _Header)
        if header.version != FLASH_LINES:
            raise RemoteError(
                f"The other esp-dfu writes version {header.version} of --json; this one reads version {FLASH_LINES}."
            )
        if header.event not in _KNOWN:
            return None
        line: Line = msgspec.convert(document, Line)
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise RemoteError(
            f"Expected a JSON line of esp-dfu, got {text.strip()[:200]!r}.", notes=[str(error)]
        ) from error
    if isinstance(line, Image):
        return None
    if isinstance(line, ErrorLine):
        return _error_of(line)
    return [_outcome_of(board) for board in line.boards] if isinstance(line, Result) else line


def _error_of(line: Error) -> EspDfuError:
    """Return the error as it was raised; one of an unknown class keeps its code and exit code."""
    facts = {name: tuple(value) if isinstance(value, list) else value for name, value in line.facts.items()}
    kind = next((kind for kind in all_errors() if kind.code == line.code), None)
    if kind is None:
        kind, facts = EspDfuError, {**facts, "code": line.code, "exit_code": line.exit_code}
    if kind is InputMissingError:
        facts["path"] = Path(str(facts.get("path", "")))
    return kind.restore(line.message, line.notes, facts)


def _outcome_of(board: Board) -> FlashOutcome:
    if board.error is not None:
        return FlashOutcome(board.path, board.serial, None, _error_of(board.error), board.mac)
    result = FlashResult(
        board.path,
        board.serial,
        board.size or 0,
        board.seconds or 0.0,
        board.status or "",
        board.state or "",
        board.after_reset or None,
        board.mac,
        board.skipped or 0,
        board.reset_by or None,
        board.came_back or None,
    )
    return FlashOutcome(board.path, board.serial, result, None, board.mac)
