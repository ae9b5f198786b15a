"""The tree of errors, and errors that are pickled, copied and sent between processes."""

from __future__ import annotations

import copy
import inspect
import multiprocessing
import pickle
import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from esp_dfu_ext import errors, load_target
from esp_dfu_ext.errors import EspDfuError, InterruptedByUserError, TargetNotSupportedError, Terminated, all_errors

ARGUMENTS: dict[str, Any] = {
    "boot_mode": "download",
    "before": "7c:df:a1:00:00:01",
    "build": Path("build"),
    "changed": True,
    "builds": [Path("build"), Path("build_s3")],
    "handed_over": True,
    "image_target": "esp32s2",
    "end": 0x200000,
    "files": ["app.bin"],
    "flash_size": 0x100000,
    "incomplete": True,
    "kind": "elf",
    "meant": "esp32s2",
    "message": "It failed.",
    "missing": "libusb",
    "notes": ["One.", "Two."],
    "outcome": "stayed",
    "path": Path("build/dfu.bin"),
    "now": "7c:df:a1:00:00:02",
    "paths": ["1-1", "1-2.3"],
    "places": ["factory"],
    "port": "COM5",
    "ports": ["COM5", "COM6"],
    "group": "dialout",
    "reason": "unreadable",
    "role": "dfu.bin",
    "seen": "run-time",
    "state": "dfuERROR",
    "status": "errFILE",
    "stayed": ["1-3"],
    "supported": ["esp32s2"],
    "target": "esp32s3",
    "tool": "platformio",
}


def error_of(kind: type[EspDfuError]) -> EspDfuError:
    """An error of this class with every attribute that its constructor takes, and one that is set later."""
    parameters = inspect.signature(kind).parameters.values()
    positional = [ARGUMENTS[p.name] for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    error = kind(*positional, **{p.name: ARGUMENTS[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY})
    error.notes += ("Three.",)
    error.exit_code = 99
    return error


KINDS = [kind for kind in all_errors() if kind.__module__ == errors.__name__]  # without those that tests add
ERRORS = [error_of(kind) for kind in KINDS]


def same(error: EspDfuError, other: EspDfuError) -> bool:
    return (
        type(error) is type(other)
        and (str(error), error.args, error.code, vars(error)) == (str(other), other.args, other.code, vars(other))
        and error is not other
    )


def test_error_codes_are_unique() -> None:
    codes = [kind.code for kind in KINDS]
    assert sorted(codes) == sorted(set(codes))


def test_tree_in_docstring_is_complete() -> None:
    # A line without an exit code has that of the line above it in the tree.
    assert errors.__doc__ is not None
    drawn: dict[str, int | None] = {}
    stack: list[tuple[int, int]] = []
    for line in errors.__doc__.splitlines():
        match = re.match(r"(?P<indent>[ │├└─]*)(?P<name>\w+Error)\b\s*(?P<exit>\d+)?", line)
        if match is None:
            continue
        depth = len(match["indent"])
        stack = [above for above in stack if above[0] < depth]
        exit_code = int(match["exit"]) if match["exit"] else stack[-1][1] if stack else 1
        stack.append((depth, exit_code))
        drawn[match["name"]] = exit_code
    assert drawn == {kind.__name__: kind.exit_code for kind in KINDS}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_pickled_and_copied_errors_are_equal(error: EspDfuError) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert same(pickle.loads(pickle.dumps(error, protocol)), error)
    assert same(copy.copy(error), error)
    assert same(copy.deepcopy(error), error)


def test_errors_cross_process_boundaries() -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        for error, back in zip(ERRORS, pool.map(copy.copy, ERRORS)):
            assert same(back, error)
        with pytest.raises(TargetNotSupportedError) as caught:
            pool.submit(load_target, "esp32").result()
    assert caught.value.target == "esp32"
    assert "esp32s3" in caught.value.supported


def test_facts_exclude_message_and_notes() -> None:
    error = InterruptedByUserError.by(Terminated(15), " in the test", incomplete=True)
    assert error.facts == {"incomplete": True, "exit_code": 143}
    assert EspDfuError("No.", notes=["Why."]).facts == {}


@pytest.mark.parametrize("kind", list(errors.all_errors()))
def test_every_error_says_when_it_is_raised(kind: type[errors.EspDfuError]) -> None:
    assert vars(kind)["__doc__"], "shown in the documentation of the Python API"
