"""Fixtures and options; with ESP_DFU_TEST_INSTALLED set, the installed package must be tested, not this checkout."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import click.core
import pytest

import esp_dfu_ext
from esp_dfu_ext.clock import VirtualClock
from esp_dfu_ext.commands.host import Host
from esp_dfu_ext.simulator.sample import write_sample_project

from .fault_matrix import report_lines
from .kit.chips import chip
from .kit.machine import FolderMachine

MATRIX = pytest.StashKey[dict[tuple[str, str, bool], str]]()


TIME_LIMIT = 300.0  # seconds for a test, on a machine with ten times as much to do as it has processors
STDERR = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write tests/golden/*.txt")
    parser.addoption("--show-matrix", action="store_true", help="print what came of each fault at each step of a flash")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[MATRIX] = {}
    config.stash[STDERR] = os.dup(2)  # nothing is captured yet
    # A program that cron, nohup or a script starts ignores these signals, and so would all that the tests start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _ignore)  # not inherited; `nohup pytest` goes on without its terminal


def pytest_unconfigure(config: pytest.Config) -> None:
    os.close(config.stash[STDERR])


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing."""


@pytest.hookimpl(wrapper=True, tryfirst=True)
def _within_time_limit(item: pytest.Item) -> Iterator[None]:
    """Fail a test after its time limit; end the whole run, with all stacks, if even that does not stop it."""
    marker = item.get_closest_marker("time_limit")
    limit = float(marker.args[0]) if marker else TIME_LIMIT

    def fail(number: int, frame: FrameType | None) -> None:
        pytest.fail(f"This test took longer than {limit:g} s.")

    faulthandler.dump_traceback_later(limit * 1.2, exit=True, file=item.config.stash[STDERR])
    try:
        with _alarm_after(limit, fail):
            return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@contextlib.contextmanager
def _alarm_after(seconds: float, handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if not hasattr(signal, "setitimer"):  # Windows; sys.platform may be what a test wants it to be
        yield
        return
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds / 20)  # again, in case the code under test catches it
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


pytest_runtest_setup = pytest_runtest_call = pytest_runtest_teardown = _within_time_limit


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the fault matrix as it was seen, for those who ask for it."""
    if config.getoption("--show-matrix") and config.stash[MATRIX]:
        terminalreporter.section("fault matrix")
        for line in report_lines(config.stash[MATRIX]):
            terminalreporter.write_line(line)


def pytest_report_header() -> str:
    return f"esp_dfu_ext: {Path(esp_dfu_ext.__file__).parent}"


def pytest_sessionstart() -> None:
    inside = Path(__file__).resolve().parent.parent in Path(esp_dfu_ext.__file__).resolve().parents
    if os.environ.get("ESP_DFU_TEST_INSTALLED") and inside and ".venv" not in esp_dfu_ext.__file__:
        pytest.exit("ESP_DFU_TEST_INSTALLED is set, but the tests import the checkout.", returncode=1)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the developer's environment variables from the tests."""
    for name in (
        "ESP_DFU_SIMULATE", "ESP_DFU_TARGETS", "ESP_DFU_TRACE", "ESP_DFU_NO_LOADER", "IDF_EXTRA_ACTIONS_PATH",
        "COLUMNS", "FORCE_COLOR", "NO_COLOR",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _completion_ends_as_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep click 8.0 from ending the tests with os._exit, as if they had passed."""
    if hasattr(click.core, "_fast_exit"):
        monkeypatch.setattr(click.core, "_fast_exit", sys.exit)


@pytest.fixture
def default_signals() -> Iterator[None]:
    """Handle SIGINT and SIGHUP as in a terminal, also under nohup or in the background, where they are ignored."""
    handlers: dict[int, Any] = {signal.SIGINT: signal.default_int_handler}
    if sys.platform != "win32":
        handlers[signal.SIGHUP] = signal.SIG_DFL
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def virtual_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run commands on a virtual clock."""
    monkeypatch.setattr("esp_dfu_ext.commands.session.this_host", lambda: Host(VirtualClock()))


@pytest.fixture
def machine(tmp_path: Path) -> FolderMachine:
    """A Linux machine with udev and without USB devices."""
    return FolderMachine(tmp_path / "root")


@pytest.fixture
def sample_project(tmp_path: Path) -> Path:
    """A project for the ESP32-S3 with its dfu.bin, in `tmp_path`."""
    write_sample_project(tmp_path, chip())
    esp_dfu_ext.build(tmp_path / "build")
    return tmp_path
