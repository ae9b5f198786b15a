"""Traces: text, both capture formats, the log, and which files are overwritten."""

from __future__ import annotations

import contextlib
import errno
import logging
import re
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from esp_dfu_ext import Flasher, load_target
from esp_dfu_ext.clock import VirtualClock
from esp_dfu_ext.commands.host import Host
from esp_dfu_ext.dfu.spec import Mode, Request
from esp_dfu_ext.dfu.trace_file import TraceFile, explain
from esp_dfu_ext.errors import OutputError, UsbError
from esp_dfu_ext.events import Progress
from esp_dfu_ext.operations.restart import BUS_RESET
from esp_dfu_ext.simulator import Simulation, simulate_text
from esp_dfu_ext.simulator.board import hang, stall
from esp_dfu_ext.simulator.sample import write_sample_project
from esp_dfu_ext.usb.bus import Bus
from esp_dfu_ext.usb.trace import Step, Trace, Transfer

from .kit.archives import checked, small_image
from .kit.boards import Rig, make_rig
from .kit.chips import chips
from .kit.commands import run

NAMES = {0: "DFU_DETACH", 1: "DFU_DNLOAD", 3: "DFU_GETSTATUS", 4: "DFU_CLRSTATUS", 6: "DFU_ABORT"}
Capture = pytest.CaptureFixture[str]


def traced_flash(rig: Rig, path: Path, **options: Any) -> str:
    """Flash with a trace; return its text."""
    with TraceFile(path, rig.clock) as trace:
        rig.bus.trace = trace.trace
        rig.flash(**{"no_loader": True, **options})
    return path.read_text(encoding="utf-8") if path.suffix == ".txt" else ""


def rows(text: str) -> list[list[str]]:
    """Return the words of each line after seconds, duration and port."""
    return [re.sub(r"^ *\S+ +\S+  (1-\d)? *", "", line).split() for line in text.splitlines()[2:]]


# --- text -------------------------------------------------------------------------------------------------


def test_text_names_every_request(tmp_path: Path) -> None:
    rig = make_rig()
    sent = [NAMES[t.request] for t in rig.log if t.is_dfu]
    names = [row[0] for row in rows(traced_flash(rig, tmp_path / "t.txt"))]
    sent = [NAMES[t.request] for t in rig.log if t.is_dfu]
    assert [name for name in names if name.startswith("DFU_")] == sent
    assert sent.count("DFU_DNLOAD") > 100
    assert [name for name in names if not name.startswith("DFU_")] == [
        "scan",
        "open", "GET_DEVICE_DESCRIPTOR", "GET_CONFIG_DESCRIPTOR", "GET_STRING_DESCRIPTOR", "GET_STRING_DESCRIPTOR",
        "close",
        "open", "GET_DEVICE_DESCRIPTOR", "GET_CONFIG_DESCRIPTOR", "claim", "release", "close",
        "scan", "re-enumeration", "scan",
        "open", "GET_DEVICE_DESCRIPTOR", "GET_CONFIG_DESCRIPTOR", "GET_STRING_DESCRIPTOR", "GET_STRING_DESCRIPTOR",
        "close",  # is it the same board?
        "open", "GET_DEVICE_DESCRIPTOR", "GET_CONFIG_DESCRIPTOR", "claim", "release", "close",
    ]  # fmt: skip


def test_text_shows_serial_loader(tmp_path: Path) -> None:
    text = traced_flash(make_rig(mode=Mode.DFU), tmp_path / "t.txt", no_loader=False)
    assert "bulk OUT 0x03                   46 -> c0 00 08 24 00 00 00 00 00 07 07 12 20 55 55 55 ..\n" in text
    assert text.count("bulk IN 0x84 ") > 8 * 14
    assert text.index("bulk OUT 0x03") < text.index("DFU_DNLOAD")
    assert text.index("attach") > text.rindex("DFU_GETSTATUS")


def test_text_shows_values_results_and_status(tmp_path: Path) -> None:
    text = traced_flash(make_rig(), tmp_path / "t.txt")
    stream = small_image().stream
    first = stream[:16].hex(" ")
    assert f"1-1     DFU_DNLOAD            0x0000    64 -> {first} ..\n" in text
    detach = "1-1     DFU_DETACH            0x02bc     0 -> failed: device-gone"
    assert f"{detach}  (the ROM leaves the bus before it answers)\n" in text
    assert "DFU_GETSTATUS         0x0000     6 <- 00 00 01 00 02 00  (OK, dfuIDLE, bwPollTimeout 256 ms)\n" in text
    assert "1-1     re-enumeration        device 2 is now device 3\n" in text
    assert "        scan                  vendor 303a: 1-1 303a:0009 (device 2)\n" in text
    assert re.search(r"1-1 +scan +303a:0009 \(device 3\)  \(after \d+ more scans with the same", text)
    assert "wValue wLength" in text.splitlines()[1]


def test_times_come_from_clock(tmp_path: Path) -> None:
    rig = make_rig(mode=Mode.DFU)
    rig.board.faults.block_time = 0.5
    lines = [line.split() for line in traced_flash(rig, tmp_path / "t.txt").splitlines() if "DFU_DNLOAD" in line]
    assert [line[:2] for line in lines[:3]] == [
        ["0.000000", "0.500000"], ["0.500000", "0.500000"], ["1.000000", "0.500000"],
    ]  # fmt: skip


def test_everything_ends_before_the_flash_does(tmp_path: Path) -> None:
    lines = traced_flash(rig := make_rig(), tmp_path / "t.txt", no_loader=False).splitlines()[2:]
    assert any(" bulk " in line for line in lines)
    for when, seconds in (line.split()[:2] for line in lines):
        assert 0 <= float(when) <= float(when) + float(seconds) <= rig.clock.monotonic() + 1e-6


def test_errors_have_their_codes(tmp_path: Path) -> None:
    rig = make_rig(mode=Mode.DFU)
    rig.board.faults.plan(stall, at=Request.DFU_GETSTATUS)
    assert "6 <- failed: usb-stall\n" in traced_flash(rig, tmp_path / "t.txt")
    rig.board.faults.busy = True
    with pytest.raises(UsbError):
        traced_flash(rig, tmp_path / "t.txt")
    assert "claim                 interface 2 failed: device-busy\n" in (tmp_path / "t.txt").read_text(encoding="utf-8")


def test_reset_and_failed_scan_are_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = traced_flash(make_rig(mode=Mode.DFU), tmp_path / "t.txt", after=BUS_RESET)
    assert "1-1     reset                 device 2 failed: device-gone\n" in text
    import usb.core

    def fail(self: Any) -> Any:
        raise usb.core.USBError("Input/Output Error", -1, errno.EIO)

    monkeypatch.setattr("esp_dfu_ext.simulator.bus.SimulatedBackend.enumerate_devices", fail)
    with pytest.raises(UsbError):
        traced_flash(make_rig(), tmp_path / "t.txt")
    assert "scan                  vendor 303a failed: usb-io\n" in (tmp_path / "t.txt").read_text(encoding="utf-8")


def test_several_boards_write_whole_lines(tmp_path: Path) -> None:
    rig = make_rig("esp32s3", "esp32s3", "esp32s3", mode=Mode.DFU)
    with TraceFile(tmp_path / "t.txt", rig.clock) as trace:
        rig.bus.trace = trace.trace
        Flasher(bus=rig.bus, targets=chips(), clock=rig.clock).flash_all(checked())
    lines = (tmp_path / "t.txt").read_text(encoding="utf-8").splitlines()[2:]
    assert all(re.match(r" *\d+\.\d{6} +\d+\.\d{6}  .{7} [A-Za-z-]", line) for line in lines)
    for path in ("1-1", "1-2", "1-3"):
        sent = [t for t in rig.dfu(Request.DFU_DNLOAD) if t.path == path]
        assert sum(f"  {path}     DFU_DNLOAD" in line for line in lines) == len(sent) > 100


def test_entries_of_threads_are_written_one_at_a_time() -> None:
    inside = threading.Event()
    waiting = threading.Event()
    seen: list[str] = []

    def write(entry: Any) -> None:
        if entry.name == "first":
            inside.set()
            waiting.wait(0.2)  # long enough for the other thread to come in
        seen.append(entry.name)

    def second() -> None:
        inside.wait(5)
        trace.add(Step(0.0, 0.0, "1-2", "second", ""))
        waiting.set()

    trace = Trace(write)
    other = threading.Thread(target=second)
    other.start()
    trace.add(Step(0.0, 0.0, "1-1", "first", ""))
    other.join(5)
    assert seen == ["first", "second"]


def test_other_results_of_detach_are_not_explained() -> None:
    detach = Transfer(0.0, 0.0, "1-1", 2, 0x21, Request.DFU_DETACH, 700, 2, 0, b"")
    assert explain(detach) == explain(detach._replace(error=UsbError)) == ""


def test_records_are_written_at_once(tmp_path: Path) -> None:
    rig = make_rig(mode=Mode.DFU)
    seen: list[int] = []

    def look(event: Any) -> None:
        if isinstance(event, Progress):
            text = (tmp_path / "t.txt").read_text(encoding="utf-8")
            seen.append(text.count("DFU_DNLOAD") - len(rig.dfu(Request.DFU_DNLOAD)))

    rig.on_event = look
    traced_flash(rig, tmp_path / "t.txt")
    assert len(seen) > 5
    assert set(seen) == {0}


# --- captures, decoded after the formats' descriptions --------------------------------------------------------


class Urb(NamedTuple):
    """A packet of LINKTYPE_USB_LINUX_MMAPPED; `when` in microseconds since 1970."""

    when: int
    number: int
    kind: str
    transfer_type: int
    endpoint: int
    device: int
    bus: int
    flag_setup: int
    flag_data: int
    status: int
    length: int
    setup: bytes
    data: bytes


def urb(when: int, packet: bytes) -> Urb:
    number, kind, transfer_type, endpoint, device, bus, flag_setup, flag_data = struct.unpack_from("<QcBBBHBB", packet)
    seconds, microseconds, status, length, captured = struct.unpack_from("<qiiII", packet, 16)
    assert seconds * 1_000_000 + microseconds == when
    assert packet[48:64] == bytes(16)  # interval, start frame, flags, isochronous descriptors
    assert len(packet) == 64 + captured
    return Urb(
        when, number, kind.decode(), transfer_type, endpoint, device, bus, flag_setup, flag_data, status, length,
        packet[40:48], packet[64:],
    )  # fmt: skip


def read_pcap(data: bytes) -> Iterator[Urb]:
    assert data[:24] == struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65599, 220)
    position = 24
    while position < len(data):
        seconds, microseconds, captured, original = struct.unpack_from("<IIII", data, position)
        assert captured == original
        yield urb(seconds * 1_000_000 + microseconds, data[position + 16 : position + 16 + captured])
        position += 16 + captured


def read_pcapng(data: bytes) -> Iterator[Urb]:
    position, kinds = 0, []
    while position < len(data):
        kind, length = struct.unpack_from("<II", data, position)
        assert length % 4 == 0
        assert struct.unpack_from("<I", data, position + length - 4) == (length,)
        body = data[position + 8 : position + length - 4]
        kinds.append(kind)
        if kind == 0x0A0D0D0A:
            assert struct.unpack("<IHHq", body) == (0x1A2B3C4D, 1, 0, -1)
        elif kind == 1:
            assert struct.unpack("<HHI", body) == (220, 0, 65599)
        else:
            assert kind == 6
            interface, high, low, captured, original = struct.unpack_from("<IIIII", body)
            assert (interface, captured) == (0, original)
            assert body[20 + captured :] == bytes(-captured % 4)
            yield urb(high << 32 | low, body[20 : 20 + captured])
        position += length
    assert kinds[:3] == [0x0A0D0D0A, 1, 6]


def capture_of(rig: Rig, path: Path) -> list[tuple[Urb, Urb]]:
    """Return each transfer's submission and completion in a capture of a flash."""
    with TraceFile(path, rig.clock) as trace:
        rig.bus.trace = trace.trace
        with contextlib.suppress(UsbError):
            rig.flash(no_loader=True)
    urbs = list((read_pcap if path.suffix == ".pcap" else read_pcapng)(path.read_bytes()))
    pairs = list(zip(urbs[::2], urbs[1::2]))
    assert len(pairs) * 2 == len(urbs)
    assert [s.number for s, _ in pairs] == list(range(1, len(pairs) + 1))
    for submitted, completed in pairs:
        assert (submitted.kind, completed.kind, submitted.status) == ("S", "C", -115)
        assert submitted[4:7] == completed[4:7]
        assert submitted.number == completed.number
        assert submitted.transfer_type == completed.transfer_type == 2
        assert (submitted.flag_setup, completed.flag_setup) == (0, ord("-"))
        assert submitted.when <= completed.when
        for each in (submitted, completed):
            assert each.flag_data == (0 if each.data else ord("<" if each.endpoint & 0x80 else ">"))
    return pairs


@pytest.mark.parametrize("suffix", ["pcap", "pcapng"])
def test_capture_has_every_transfer(tmp_path: Path, suffix: str) -> None:
    rig = make_rig()
    pairs = capture_of(rig, tmp_path / f"t.{suffix}")
    ours = [(s, c) for s, c in pairs if s.setup[0] in (0x21, 0xA1)]
    sent = [t for t in rig.log if t.is_dfu]
    assert [s.setup for s, _ in ours] == [
        struct.pack("<BBHHH", t.request_type, t.request, t.value, 2, 6 if t.request == 3 else len(t.data)) for t in sent
    ]
    assert [s.data for s, _ in ours] == [t.data for t in sent]
    assert {(s.bus, s.endpoint) for s, _ in ours} == {(1, 0), (1, 0x80)}
    assert [s.device for s, _ in ours] == [2] + [3] * (len(ours) - 1)  # re-enumerated after DFU_DETACH
    assert [c.status for _, c in ours] == [-19] + [0] * (len(ours) - 1)
    assert ours[-1][1].data == bytes.fromhex("000001000200")
    assert [c.length for _, c in ours[1:]] == [len(s.data) or len(c.data) for s, c in ours[1:]]


def test_capture_begins_with_descriptors(tmp_path: Path) -> None:
    rig = make_rig("esp32s2")
    pairs = capture_of(rig, tmp_path / "t.pcapng")
    rom = rig.board.rom  # in DFU mode since
    last = [i for i, (s, _) in enumerate(pairs) if s.setup[:4] == bytes.fromhex("80060001")][-1]
    device, configuration, status = pairs[last : last + 3]
    assert device[0].setup == bytes.fromhex("8006000100001200")
    assert device[1].data == rom.device_descriptor
    assert configuration[0].setup[:6] == bytes.fromhex("800600020000")
    assert configuration[0].setup[6:] == len(rom.configuration_descriptor).to_bytes(2, "little")
    assert configuration[1].data == rom.configuration_descriptor
    assert status[0].setup[:2] == bytes([0xA1, 3])


def test_capture_has_linux_error_numbers(tmp_path: Path) -> None:
    for fault, status in ((stall, -32), (hang, -110)):
        rig = make_rig(mode=Mode.DFU)
        rig.board.faults.plan(fault, 5)
        blocks = [(s, c) for s, c in capture_of(rig, tmp_path / "t.pcap") if s.setup[:2] == bytes([0x21, 1])]
        assert [c.status for _, c in blocks[:7]] == [0] * 5 + [status, 0]
        assert (blocks[5][0].length, blocks[5][1].length, len(blocks[5][0].data)) == (64, 0, 64)


# --- the file ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.txt", "t.pcap", "t.pcapng"])
def test_own_trace_and_empty_file_are_overwritten(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    traced_flash(make_rig(), path)
    long = path.read_bytes()
    with TraceFile(path, VirtualClock()):
        pass
    short = path.read_bytes()
    assert 20 < len(short) < 200 < len(long)
    path.write_bytes(b"")
    with TraceFile(path, VirtualClock()):
        pass
    assert path.read_bytes()[:14] == short[:14]


FOREIGN = struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 220)


@pytest.mark.parametrize(
    "content", [b"int main;", b"\n", b"# esp-dfu", FOREIGN], ids=["text", "line", "short", "usbmon"]
)
def test_other_file_is_never_overwritten(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "main.pcap"
    path.write_bytes(content)
    with pytest.raises(OutputError, match="already exists and is not a trace"):
        TraceFile(path, VirtualClock())
    assert path.read_bytes() == content


def test_links_and_folders_are_refused(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "target")
    for path, reason in (
        (link, "symbolic link"),
        (tmp_path, "not a regular file"),
        (tmp_path / "missing" / "t.txt", "No such file"),
    ):
        with pytest.raises(OutputError, match=reason):
            TraceFile(path, VirtualClock())
    assert not (tmp_path / "target").exists()


# --- the log ----------------------------------------------------------------------------------------------


def test_log_has_every_record(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rig = make_rig()
    with caplog.at_level(logging.DEBUG, "esp_dfu_ext"):
        rig.flash()
    assert {record.name for record in caplog.records} == {"esp_dfu_ext.usb.trace"}
    messages = [record.getMessage() for record in caplog.records]
    assert sum("DFU_DNLOAD" in message for message in messages) == len(rig.dfu(Request.DFU_DNLOAD)) > 100
    assert "1-1     claim                 interface 2" in messages
    caplog.clear()
    rig = make_rig()
    text = traced_flash(rig, tmp_path / "t.txt")
    assert "DFU_DNLOAD" in text
    assert caplog.records == []


def test_without_trace_nothing_is_wrapped() -> None:
    rig = make_rig(mode=Mode.DFU)
    (device,) = rig.bus.scan()
    assert rig.bus.trace is None
    with device.open(2) as handle:
        assert type(handle._backend).__name__ == "_LoggingBackend"


# --- the option -------------------------------------------------------------------------------------------


@pytest.fixture
def dfu_bin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Path:
    """Return a dfu.bin; the current folder is a temporary one."""
    monkeypatch.setattr("esp_dfu_ext.commands.session.this_host", lambda: Host(VirtualClock()))
    monkeypatch.setenv("ESP_DFU_SIMULATE", "esp32s3")
    monkeypatch.chdir(tmp_path)
    build_dir = write_sample_project(tmp_path / "project", load_target("esp32s3"))
    assert run("build", str(build_dir), "-q") == 0
    capsys.readouterr()
    return build_dir / "dfu.bin"


def requests(path: str) -> set[str]:
    """Return the names of requests and steps in a trace."""
    return {row[0] for row in rows(Path(path).read_text(encoding="utf-8"))}


def test_list_flash_and_doctor_write_trace(dfu_bin: Path) -> None:
    assert run("list", "--trace", "list.txt") == 0
    assert requests("list.txt") == {
        "scan", "open", "close", "GET_DEVICE_DESCRIPTOR", "GET_CONFIG_DESCRIPTOR", "GET_STRING_DESCRIPTOR",
    }  # fmt: skip
    assert run("flash", dfu_bin, "--trace", "flash.txt") == 0
    assert requests("flash.txt") >= {"DFU_DETACH", "re-enumeration", "DFU_DNLOAD", "DFU_GETSTATUS"}
    run("doctor", dfu_bin.parent, "--trace", "doctor.txt")
    assert "scan" in requests("doctor.txt")


def test_rehearsal_writes_trace(dfu_bin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ESP_DFU_SIMULATE")
    assert run("flash", dfu_bin, "--simulate", "--trace", "t.txt") == 0
    assert "DFU_DNLOAD" in requests("t.txt")


def test_environment_variable_sets_option(dfu_bin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESP_DFU_TRACE", "t.txt")
    assert run("inspect", dfu_bin) == run("build", dfu_bin.parent) == run("demo") == 0
    assert not Path("t.txt").exists()
    assert run("list") == 0
    assert "scan" in requests("t.txt")


def test_unwritable_trace_fails_before_anything_is_sent(
    dfu_bin: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Simulation] = []

    def simulate(*args: Any) -> Simulation:
        made.append(simulate_text(*args))
        return made[-1]

    monkeypatch.setattr("esp_dfu_ext.commands.session.this_host", lambda: Host(VirtualClock(), simulate=simulate))
    monkeypatch.setattr(Bus, "scan", lambda *_, **__: pytest.fail("scanned"))
    assert run("flash", dfu_bin, "--trace", dfu_bin) == 73
    assert "already exists and is not a trace" in capsys.readouterr().err.replace("\n", " ")
    assert made[0].boards[0].rom.mode is Mode.RUN_TIME


def test_full_disk_ends_trace_not_flash(dfu_bin: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    write, count = TraceFile._write, 0

    def fill_up(self: TraceFile, data: bytes) -> None:
        nonlocal count
        count += 1
        if count > 50:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, data)

    monkeypatch.setattr(TraceFile, "_write", fill_up)
    assert run("flash", dfu_bin, "--trace", "t.txt") == 0
    out, err = capsys.readouterr()
    assert "Flashed" in out or "Dry run" in out
    assert err.count("The trace in t.txt is incomplete: No space left on device.") == 1
    assert count == 51
    assert len(Path("t.txt").read_text(encoding="utf-8").splitlines()) == 51
