"""Which copy is tested: with ESP_DFU_TEST_INSTALLED set it must be the installed one, not this checkout's."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import click.core
import pytest

import esp_dfu_ext

from .fault_matrix import report_lines
from .kit.machine import FolderMachine

MATRIX = pytest.StashKey[dict[tuple[str, str, bool], str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write tests/golden/*.txt anew")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[MATRIX] = {}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The fault matrix as it was seen, if it was looked at."""
    if config.stash[MATRIX]:
        terminalreporter.section("fault matrix")
        for line in report_lines(config.stash[MATRIX]):
            terminalreporter.write_line(line)


def pytest_report_header() -> str:
    return f"esp_dfu_ext: {Path(esp_dfu_ext.__file__).parent}"


def pytest_sessionstart() -> None:
    inside = Path(__file__).resolve().parent.parent in Path(esp_dfu_ext.__file__).resolve().parents
    if os.environ.get("ESP_DFU_TEST_INSTALLED") and inside and ".venv" not in esp_dfu_ext.__file__:
        pytest.exit("the installed package was to be tested, but the checkout is", returncode=1)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the developer has set must not reach the tests."""
    for name in (
        "ESP_DFU_SIMULATE", "ESP_DFU_TARGETS", "ESP_DFU_TRACE", "IDF_EXTRA_ACTIONS_PATH", "COLUMNS", "FORCE_COLOR",
        "NO_COLOR",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _completion_ends_as_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """click 8.0 ends it with os._exit, which would end the tests too, as if they had passed."""
    if hasattr(click.core, "_fast_exit"):
        monkeypatch.setattr(click.core, "_fast_exit", sys.exit)


@pytest.fixture
def hangup_ends() -> Iterator[None]:
    """SIGHUP as a terminal's programs have it, also below nohup, which has it ignored."""
    if sys.platform == "win32":
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def machine(tmp_path: Path) -> FolderMachine:
    """A Linux machine with udev and without USB devices."""
    return FolderMachine(tmp_path / "root")
