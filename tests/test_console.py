"""What the console and the views print, letter by letter."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from esp_dfu_ext.events import (
    DeviceFound,
    Event,
    Failed,
    Flashed,
    Notice,
    Phase,
    PhaseFinished,
    PhaseStarted,
    Progress,
    Waiting,
)
from esp_dfu_ext.ui import views
from esp_dfu_ext.ui.console import Console
from esp_dfu_ext.ui.flash_map import MapRow, show_flash_map
from esp_dfu_ext.ui.streams import Log, open_stream
from esp_dfu_ext.ui.terminal import Terminal
from esp_dfu_ext.ui.text import at_most, table_lines
from esp_dfu_ext.units import clean

ROWS = [
    MapRow(0x0, 0x5000, 5, "bootloader/bootloader.bin"),
    MapRow(0x8000, 0xC00, 1, "partition_table/partition-table.bin"),
    MapRow(0x10000, 0x100001, 257, "app.bin"),
]

EVENTS: list[Event] = [
    Waiting(12.0),
    Waiting(11.0),
    DeviceFound("1-2", "run-time", "7c:df:a1:00:00:01"),
    PhaseStarted("1-2", Phase.DETACH),
    PhaseFinished("1-2", Phase.DETACH, 0.4),
    PhaseStarted("1-2", Phase.DOWNLOAD, 2048),
    Progress("1-2", Phase.DOWNLOAD, 0, 2048),
    Progress("1-2", Phase.DOWNLOAD, 300, 2048, "app.bin"),
    Notice("strict-restart", "The device wants more.", "1-2"),
    PhaseStarted("1-2", Phase.DOWNLOAD, 2048),
    Progress("1-2", Phase.DOWNLOAD, 300, 2048, "app\x1b[31m.bin"),
    Progress("1-2", Phase.DOWNLOAD, 1100, 2048, "app.bin"),
    Progress("1-2", Phase.DOWNLOAD, 2048, 2048),
    PhaseFinished("1-2", Phase.DOWNLOAD, 2.0),
    PhaseStarted("1-2", Phase.VERIFY),
    PhaseFinished("1-2", Phase.VERIFY, 1.0),
    Flashed("1-2", 2000, 3.4, "OK", "dfuIDLE"),
]


def console(width: int, *, terminal: bool) -> tuple[Console, io.StringIO, io.StringIO]:
    """Return a console, and what it prints on stdout and on stderr."""
    settings: dict[str, Any] = {"width": width, "force_terminal": True, "color_system": None, "legacy_windows": False}
    streams = io.StringIO(), io.StringIO()
    out, err = (Terminal(stream, **settings) if terminal else Log(stream) for stream in streams)
    return Console(out=out, err=err), *streams


@pytest.mark.parametrize("width", [40, 60, 80, 160])
def test_table_and_map_fit_terminal(width: int) -> None:
    shown, out, _ = console(width, terminal=True)
    show_flash_map(shown, ROWS, 16 << 20)
    assert max(len(line.rstrip()) for line in out.getvalue().splitlines()) <= width


@pytest.mark.parametrize("width", [10, 30, 40])
def test_narrow_table_loses_nothing(width: int) -> None:
    cells = ["0x8000", "3 KiB", "partition_table/partition-table.bin"]
    lines = table_lines([">Address", ">Size", "File"], [cells], width)
    file = "".join(str(line[-1]).strip() for line in lines[1:])
    assert file.replace(" ", "") == "partition_table/partition-table.bin"


def the_map(rows: list[MapRow], chip_size: int, *, terminal: bool, columns: int = 80) -> str:
    """Return the line of the map, without its addresses."""
    shown, out, _ = console(columns, terminal=terminal)
    show_flash_map(shown, rows, chip_size)
    (line,) = [line for line in out.getvalue().splitlines() if line.startswith("0x0 ")]
    start, drawn, end = line.split()
    assert (start, end) == ("0x0", f"{chip_size:#x}")
    return drawn


def test_map_is_blocks_on_terminal_and_letters_in_log() -> None:
    assert the_map(ROWS, 4 << 20, terminal=True) == "ABC███████████████" + "░" * 46
    assert the_map(ROWS, 4 << 20, terminal=False) == "ABCCCCCCCCCCCCCCCC" + "." * 46


@pytest.mark.parametrize("encoding", ["cp437", "cp1252", "ascii"])
def test_map_is_letters_where_code_page_is_not_utf_8(encoding: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    shown = Console(out=Terminal(stream, width=80, force_terminal=True, color_system=None, legacy_windows=False))
    show_flash_map(shown, ROWS, 4 << 20)
    stream.seek(0)
    assert "0x0 ABCCC" in stream.read()


def test_map_shows_each_of_many_small_files() -> None:
    rows = [MapRow(0x1000 * number, 16, 1, "x") for number in range(5)]
    assert the_map(rows, 4 << 20, terminal=False).startswith("ABCDE.")
    at_the_end = [MapRow(0x3FB000 + 0x1000 * number, 16, 1, "x") for number in range(5)]
    assert the_map(at_the_end, 4 << 20, terminal=False).endswith(".ABCDE")


def test_map_keeps_every_file_at_its_place_where_there_is_room() -> None:
    rows = [MapRow(0x0, 0x10000, 16, "a"), MapRow(0x200000, 0x100000, 256, "b"), MapRow(0x3F0000, 0, 0, "empty")]
    assert the_map(rows, 4 << 20, terminal=False) == "A" + "." * 31 + "B" * 16 + "." * 15 + "C"


def test_no_map_where_there_are_more_files_than_characters() -> None:
    shown, out, _ = console(80, terminal=False)
    show_flash_map(shown, [MapRow(0x1000 * number, 16, 1, "x") for number in range(70)], 4 << 20)
    assert "0x0 " in out.getvalue()
    assert "character" not in out.getvalue()


def test_log_has_line_for_each_step() -> None:
    shown, out, err = console(80, terminal=False)
    with views.flash_view(shown, "ESP32-S3") as view:
        for event in EVENTS:
            view(event)
    assert out.getvalue().splitlines() == [
        "Waiting up to 12 s for an ESP32-S3 ...",
        "ESP32-S3 on port 1-2, serial number 7c:df:a1:00:00:01, in run-time mode",
        "detach    board is in DFU mode, 0.4 s",
        "download   14%  app.bin",
        "download   14%  app?[31m.bin",
        "download   53%  app.bin",
        "download  100%",
        "verify    all MD5s match, 1.0 s",
    ]
    assert err.getvalue() == "warning: The device wants more.\n"


def test_bars_restore_terminal_after_failure() -> None:
    shown, out, _ = console(80, terminal=True)
    with pytest.raises(ZeroDivisionError), views.flash_view(shown, "ESP32-S3") as view:
        view(PhaseStarted("1-2", Phase.DETACH))
        raise ZeroDivisionError
    assert out.getvalue().rstrip("\n").endswith("\x1b[?25h")


def _screens(width: int, kind: Any, events: Sequence[Event]) -> Iterator[str]:
    """Yield what is on a terminal after each of the events, with bars as `=` where they are done and `-` elsewhere."""
    settings: dict[str, Any] = {"force_terminal": True, "color_system": "standard", "legacy_windows": False}
    shown = Console(out=Terminal(io.StringIO(), width=width, **settings))
    with kind(shown, "ESP32-S3") as view:
        for event in events:
            view(event)
            drawn = Terminal(io.StringIO(), width=width, **settings)
            with drawn.capture() as capture:
                drawn.print(view._progress.get_renderable())
            yield capture.get()


@pytest.mark.parametrize("width", [40, 56, 60, 76, 80, 100, 200])
@pytest.mark.parametrize("kind", [views.flash_view, views.gang_view])
def test_bars_keep_their_width(kind: Any, width: int) -> None:
    lengths = set()
    for screen in _screens(width, kind, EVENTS):
        plain = re.sub(r"\x1b\[[0-9;]*m", "", screen)
        lengths |= {len(bar) for bar in re.findall("[━╸╺]+", plain)}
        assert all(cell_len(line.rstrip()) <= width - 3 for line in plain.splitlines())
    assert len(lengths) == 1


def test_bar_of_what_failed_is_red() -> None:
    events = [*EVENTS[:13], Failed("1-2", "usb-io", "It failed.")]
    *_, before, after = _screens(80, views.gang_view, events)
    assert re.search(r"\x1b\[32m━", before)
    assert not re.search(r"\x1b\[31m━", before)
    assert re.search(r"\x1b\[31m━", after)
    assert not re.search(r"\x1b\[32m━", after)


def test_file_names_are_cut_only_where_there_is_no_room() -> None:
    name = "sensor_gateway_with_a_rather_long_name_for_production_line_number_two.bin"
    events = [EVENTS[5], Progress("1-2", Phase.DOWNLOAD, 300, 2048, name)]
    for width, shown in ((60, ""), (80, "sensor_gateway_wit.."), (200, name)):
        *_, screen = _screens(width, views.flash_view, events)
        assert re.sub(r"\x1b\[[0-9;]*m", "", screen).split()[-1].endswith(shown or "%")


def test_error_has_message_code_notes_and_advice() -> None:
    shown, out, err = console(200, terminal=False)
    shown.error("It [bold]broke[/bold].", "broken", ["Seen: \x1b[2J."], ["idf.py [x]"])
    assert err.getvalue().splitlines() == [
        "error: It [bold]broke[/bold]. [broken]",
        "  Seen: ?[2J.",
        "  > idf.py [x]",
    ]
    assert out.getvalue() == ""


def test_command_is_never_broken() -> None:
    shown, _, err = console(40, terminal=True)
    command = "sudo tee " + "x" * 100
    shown.error("No.", "no", [], [command])
    assert command in err.getvalue()


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [("app.bin", "app.bin"), ("kůň.bin", "kůň.bin"), ("a\x1b[2Jb\r\n\x07", "a?[2Jb???"), ("a\udc80", "a?")],
)
def test_control_characters_become_question_marks(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


def test_quiet_console_prints_only_results_and_errors() -> None:
    shown = Console(quiet=True)
    out, err = io.StringIO(), io.StringIO()
    shown.out, shown.err = Log(out), Log(err)
    shown.info("no")
    shown.on_stderr().info("no")
    show_flash_map(shown, ROWS, 4 << 20)
    shown.result("yes")
    shown.warn("no")
    shown.error("yes", "code", [], [])
    with views.flash_view(shown, "ESP32-S3") as view:
        for event in EVENTS:
            view(event)
    assert out.getvalue() == "yes\n"
    assert err.getvalue() == "error: yes [code]\n"


def test_messages_can_share_stream_of_results() -> None:
    shown, out, err = console(80, terminal=False)
    shown.on_stdout().warn("a")
    shown.on_stderr().info("b")
    assert out.getvalue() == "warning: a\n"
    assert err.getvalue() == "b\n"


def test_command_has_line_of_its_own_where_it_does_not_fit() -> None:
    shown, out, _ = console(40, terminal=True)
    shown.info("Flash it", command="esp-dfu flash dfu.bin")
    shown.info("Flash it", command="esp-dfu flash a/rather/long/path/dfu.bin")
    assert out.getvalue().splitlines() == [
        "Flash it: esp-dfu flash dfu.bin",
        "Flash it:",
        "    esp-dfu flash a/rather/long/path/dfu.bin",
    ]


def test_forced_colours_make_no_bars_in_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    shown = Console(out=open_stream(stream))
    with views.flash_view(shown, "ESP32-S3") as view:
        for event in EVENTS:
            view(event)
    show_flash_map(shown, ROWS, 4 << 20)
    stream.seek(0)
    text = stream.read()
    assert "verify    all MD5s match, 1.0 s\n" in text
    assert "\x1b[36mA\x1b[0m" in text
    assert "\x1b[?25l" not in text  # the cursor is hidden only below bars


class Closed(io.StringIO):
    """A stream that cannot be written."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error
        self.tries = 0

    def write(self, text: str) -> int:
        self.tries += 1
        raise self.error


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), OSError(28, "No space left on device")])
def test_log_without_reader_goes_mute(error: OSError) -> None:
    shown = Console()
    closed = Closed(error)
    shown.out = Log(closed)
    with views.flash_view(shown, "ESP32-S3") as view:
        for event in EVENTS:
            view(event)
    show_flash_map(shown, ROWS, 4 << 20)
    assert closed.tries == 1


def test_missing_stdout_is_ignored() -> None:
    open_stream(None).put("nobody reads this")


def test_long_list_ends_with_count() -> None:
    assert at_most([]) == []
    assert at_most(["x"] * 20) == ["x"] * 20
    assert at_most(["x"] * 22) == ["x"] * 20 + ["... and 2 more."]


def test_notice_is_printed_above_bars() -> None:
    shown, out, err = console(80, terminal=True)
    with views.flash_view(shown, "ESP32-S3") as view:
        for event in EVENTS:
            view(event)
    assert "The device wants more." in out.getvalue()
    assert "\x1b[31m.bin" not in out.getvalue()
    assert err.getvalue() == ""


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="Windows has no pseudo-terminals")
def test_closed_terminal_is_reader_that_left() -> None:
    """Not so a disk on which a log with colours cannot be written."""
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w", encoding="utf-8") as stream:
        terminal = Terminal(stream)
        os.close(ours)
        terminal.put("one")
        assert terminal.lost is None
        terminal.put("two")  # it is mute
        with contextlib.suppress(OSError):  # Python writes what is left
            stream.close()
    if Path("/dev/full").exists():
        with Path("/dev/full").open("w", encoding="utf-8") as stream:
            log = Terminal(stream, log=True, force_terminal=True)
            log.put("one")
            assert log.lost is not None
            with contextlib.suppress(OSError):
                stream.close()
