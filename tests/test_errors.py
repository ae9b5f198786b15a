"""Errors keep their attributes when they are pickled, copied and sent between processes."""

from __future__ import annotations

import copy
import inspect
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from esp_dfu_ext import load_target
from esp_dfu_ext.errors import EspDfuError, InterruptedByUserError, TargetNotSupportedError, Terminated, all_errors

ARGUMENTS: dict[str, Any] = {
    "image_target": "esp32s2",
    "incomplete": True,
    "message": "It failed.",
    "missing": "libusb",
    "notes": ["One.", "Two."],
    "path": Path("build/dfu.bin"),
    "paths": ["1-1", "1-2.3"],
    "reason": "unreadable",
    "role": "dfu.bin",
    "seen": "run-time",
    "state": "dfuERROR",
    "status": "errFILE",
    "supported": ["esp32s2"],
    "target": "esp32s3",
}


def error_of(kind: type[EspDfuError]) -> EspDfuError:
    """An error of this class with every attribute that its constructor takes, and one that is set later."""
    parameters = inspect.signature(kind).parameters.values()
    positional = [ARGUMENTS[p.name] for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    error = kind(*positional, **{p.name: ARGUMENTS[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY})
    error.notes += ("Three.",)
    error.exit_code = 99
    return error


ERRORS = [error_of(kind) for kind in all_errors()]
# Not those that tests make.
ERRORS = [error for error in ERRORS if type(error).__module__ == "esp_dfu_ext.errors"]


def same(error: EspDfuError, other: EspDfuError) -> bool:
    return (
        type(error) is type(other)
        and (str(error), error.args, error.code, vars(error)) == (str(other), other.args, other.code, vars(other))
        and error is not other
    )


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_pickled_and_copied_errors_are_the_same(error: EspDfuError) -> None:
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


def test_facts_are_what_a_class_adds() -> None:
    error = InterruptedByUserError.by(Terminated(15), " in the test", incomplete=True)
    assert error.facts == {"incomplete": True, "exit_code": 143}
    assert EspDfuError("No.", notes=["Why."]).facts == {}
