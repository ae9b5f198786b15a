"""What goes wrong on the serial loader never costs a flash, unless the board itself is gone: a table of faults.

The fault matrix has the faults of the DFU interface; these strike beside it: in SYNC, while the board says who it is,
between that and the first block, and while it computes MD5s for --skip-flashed and --verify.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from esp_dfu_ext.dfu.spec import Mode, Request
from esp_dfu_ext.doctor.advice import ESP_DFU, advice_for
from esp_dfu_ext.errors import AccessDeniedError, DeviceGoneError, EspDfuError, SerialLoaderError
from esp_dfu_ext.events import Event, Notice, Phase, PhaseStarted
from esp_dfu_ext.loader import rom_loader
from esp_dfu_ext.loader.rom_loader import RomLoader
from esp_dfu_ext.loader.sync import ANSWER_SIZE, ANSWERS, synchronize
from esp_dfu_ext.simulator import Board
from esp_dfu_ext.simulator.board import DeviceGone
from esp_dfu_ext.simulator.rom import TransferNak
from esp_dfu_ext.usb.handle import UsbHandle

from .fault_matrix import IMAGE
from .kit.archives import FILES, dfu_file, small_image
from .kit.boards import Rig, assert_flashed, make_rig
from .kit.esptool_chips import KNOWN
from .test_fault_matrix import Run
from .test_loader import opened

SYNC_BYTES = ANSWERS * ANSWER_SIZE  # answers to one SYNC
LATE = 0.2  # seconds, longer than the host waits for the first byte
MISSING = ("lashing without it.", "The board stays unknown.")  # how a notice ends
SetUp = Callable[[Rig, pytest.MonkeyPatch], None]


class Wire:
    """The board's bulk end points, and what a fault makes of them.

    Attributes:
        sent: Number of packets to the board.
        received: Number of bytes from the board.
    """

    def __init__(self, rig: Rig, packet: Callable[[Wire, bytes], bytes], deaf_for: int = 0) -> None:
        self.sent = self.received = 0
        self.board: Board = rig.board
        self.started: float | None = None
        bulk_in, bulk_out = rig.board.bulk_in, rig.board.bulk_out

        def from_board(endpoint: int) -> bytes:
            data = bulk_in(endpoint)
            self.received += len(data)
            return packet(self, data)

        def to_board(endpoint: int, data: bytes) -> None:
            self.sent += 1
            if self.sent > deaf_for:
                bulk_out(endpoint, data)

        rig.board.bulk_in = from_board  # type: ignore[method-assign]
        rig.board.bulk_out = to_board  # type: ignore[method-assign]


def swallowed(wire: Wire, data: bytes) -> bytes:
    """Keep bytes from the host."""
    raise TransferNak


def from_byte(first: int, effect: Callable[[Wire, bytes], bytes]) -> Callable[[Wire, bytes], bytes]:
    """Return an effect that begins with the byte after `first` others."""
    return lambda wire, data: data if wire.received <= first else effect(wire, data)


def up_to_byte(last: int, effect: Callable[[Wire, bytes], bytes]) -> Callable[[Wire, bytes], bytes]:
    """Return an effect that ends after `last` bytes."""
    return lambda wire, data: data if wire.received > last else effect(wire, data)


def gone(wire: Wire, data: bytes) -> bytes:
    """Unplug the board."""
    wire.board.unplug()
    raise DeviceGone


def lowered_rts(wire: Wire, data: bytes) -> bytes:
    """Let another program open and close the port, upon which the ROM restarts the chip."""
    wire.board.control(0x21, 0x22, 3, b"", 0)
    wire.board.control(0x21, 0x22, 1, b"", 0)
    return data


def packets(effect: Callable[[Wire, bytes], bytes], deaf_for: int = 0) -> SetUp:
    """Return a fault of the packets from the board."""

    def set_up(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        Wire(rig, effect, deaf_for)

    return set_up


def late(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the answers to SYNC come when the host has sent another."""
    asked: list[float] = []
    bulk_in = rig.board.bulk_in

    def from_board(endpoint: int) -> bytes:
        asked.append(rig.clock.monotonic())
        if asked[-1] < asked[0] + LATE:
            raise TransferNak
        return bulk_in(endpoint)

    rig.board.bulk_in = from_board  # type: ignore[method-assign]


def refuses_commands(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each answer after SYNC have the status of a command that is not allowed."""
    refusal = bytes.fromhex("c0 01 0a 04 00 00 00 00 00 01 05 00 00 c0")
    Wire(rig, from_byte(SYNC_BYTES, lambda wire, data: refusal))


def held(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let another program hold the interface with the data."""
    rig.board.holders[1] = object()


def not_permitted(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the system refuse the interfaces, as Windows and macOS do."""

    def refuse(handle: UsbHandle, *interfaces: int) -> None:
        raise AccessDeniedError("no permission")

    monkeypatch.setattr(UsbHandle, "borrow", refuse)


def without_esptool(error: Exception) -> SetUp:
    """Return a fault: esptool cannot be imported, or is too old."""

    def set_up(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        def no_classes() -> dict[str, Any]:
            raise error

        monkeypatch.setattr(rom_loader, "_esptool_classes", no_classes)

    return set_up


def moved_api(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let esptool's classes have other methods than today's."""
    monkeypatch.setattr(rom_loader, "_esptool_classes", lambda: {rig.board.target.name: lambda port: object()})


def before_first_block(effect: Callable[[Board], None]) -> SetUp:
    """Return a fault that strikes when the host sends the first block."""

    def set_up(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        def strike(board: Board, answer: Callable[[], bytes]) -> bytes:
            effect(board)
            return answer()

        rig.board.faults.plan(strike, 0, Request.DFU_DNLOAD)

    return set_up


def leaves(board: Board) -> None:
    """Unplug the board."""
    board.unplug()
    raise DeviceGone


def rts(board: Board) -> None:
    """Raise and lower RTS."""
    board.control(0x21, 0x22, 3, b"", 0)
    board.control(0x21, 0x22, 1, b"", 0)


# A fault: the outcome, as in the fault matrix; whether a notice says that something is missing; whether the board is
# known by its MAC address; whether the ROM is in its fast loop.
FAULTS: dict[str, tuple[SetUp, str, bool, bool, bool]] = {
    "sync-late": (late, "ok", False, True, True),
    "sync-lost-once": (packets(lambda wire, data: data, 1), "ok", False, True, True),
    "sync-lost-five-times": (packets(lambda wire, data: data, 5), "ok", False, True, True),
    "sync-unheard": (packets(swallowed, 1000), "ok", True, False, False),
    "sync-unread": (packets(swallowed), "ok", True, False, True),
    "sync-half": (packets(from_byte(50, swallowed)), "ok", True, False, True),
    "sync-garbled": (packets(lambda wire, data: bytes(b ^ 0x10 for b in data)), "ok", True, False, True),
    "sync-garbled-once": (
        packets(up_to_byte(SYNC_BYTES, lambda wire, data: bytes(b ^ 0x10 for b in data))), "ok", False, True, True,
    ),
    "identity-silent": (packets(from_byte(SYNC_BYTES, swallowed)), "ok", True, False, True),
    "identity-half": (packets(from_byte(SYNC_BYTES + 100, swallowed)), "ok", True, False, True),
    "identity-garbled": (packets(from_byte(SYNC_BYTES, lambda wire, data: b"\xc0")), "ok", True, False, True),
    "commands-refused": (refuses_commands, "ok", True, False, True),
    "held": (held, "ok", True, False, False),
    "not-permitted": (not_permitted, "ok", True, False, False),  # nor does the system show a serial port
    "esptool-missing": (without_esptool(ImportError("No module named 'esptool'")), "ok", True, False, True),
    "esptool-too-old": (without_esptool(KeyError("esp32s3")), "ok", True, False, True),
    "esptool-moved-api": (moved_api, "ok", True, False, True),
    "gone-in-sync": (packets(gone), "gone", False, False, False),
    "gone-in-mid-sync": (packets(from_byte(50, gone)), "gone", False, False, False),
    "gone-in-identity": (packets(from_byte(SYNC_BYTES + 20, gone)), "gone", False, False, False),
    "gone-before-first-block": (before_first_block(leaves), "gone", False, True, False),
    "rts-in-sync": (packets(from_byte(50, lowered_rts)), "gone", False, False, False),
    "rts-in-identity": (packets(from_byte(SYNC_BYTES + 20, lowered_rts)), "gone", False, False, False),
    "rts-before-first-block": (before_first_block(rts), "gone", False, True, False),
}  # fmt: skip


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_fault_beside_dfu(
    fault: str, strict: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up, kind, notice, known, fast = FAULTS[fault]
    rig = make_rig(KNOWN[-1] if "esp32s3" not in KNOWN else "esp32s3", mode=Mode.DFU)
    dfu_bin = tmp_path / "dfu.bin"
    dfu_bin.write_bytes(dfu_file(bytes(IMAGE.stream)))
    set_up(rig, monkeypatch)
    monkeypatch.setattr("esp_dfu_ext.usb.bus.libusb_backend", rig.backend)
    run = Run(rig, dfu_bin, capsys, strict=strict)
    assert run.kind == kind
    assert ("MAC 7c:df:a1:00:00:01" in run.text) == known, run.text
    if kind == "ok":
        assert run.seconds <= 2.1
        assert len([words for words in MISSING if words in run.text]) == notice, run.text
        assert run.err == ""
        assert_flashed(rig.board.rom.flash.read, IMAGE)
        assert rig.board.rom.serial_loader_active == fast
        assert fault == "held" or not rig.board.holders
    else:
        assert "Nothing was written." in run.err
        assert rig.board.rom.flash.read(0x10000, 64) == b"\xff" * 64


MD5_FAULTS: dict[str, tuple[Callable[[Wire, bytes], bytes], type[Exception]]] = {
    "silent": (swallowed, SerialLoaderError),
    "garbled": (lambda wire, data: bytes(b ^ 0x10 for b in data), SerialLoaderError),
    "delimiters": (lambda wire, data: b"\xc0", SerialLoaderError),
    "gone": (gone, DeviceGoneError),
    "rts": (lowered_rts, DeviceGoneError),
}


@pytest.mark.parametrize("at", [0, 20])
@pytest.mark.parametrize("fault", MD5_FAULTS)
def test_fault_in_md5(fault: str, at: int) -> None:
    effect, error = MD5_FAULTS[fault]
    rig = make_rig("esp32s3", mode=Mode.DFU)
    Wire(rig, from_byte(SYNC_BYTES + at, effect))
    handle, port = opened(rig)
    with handle:
        assert synchronize(port, rig.clock)
        loader = RomLoader(port, rig.board.target)
        before = rig.clock.monotonic()
        with pytest.raises(error):
            loader.md5(0, 0x1000)
        loader.close()
    assert rig.clock.monotonic() - before <= 2.1


# --- the phases of --skip-flashed and --verify --------------------------------------------------------------

REFUSAL = bytes.fromhex("c0 01 13 04 00 00 00 00 00 01 05 00 00 c0")  # of SPI_FLASH_MD5, as of any forbidden command


def other_digit(wire: Wire, data: bytes) -> bytes:
    """Change a digit of each MD5, which is sent as text."""
    return bytes(ord("1") if byte == ord("0") else ord("0") if byte == ord("1") else byte for byte in data)


class Late:
    """Holds each packet back until `seconds` after the first was asked for."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.first: float | None = None

    def __call__(self, wire: Wire, data: bytes) -> bytes:
        now = wire.board.clock.monotonic()
        self.first = now if self.first is None else self.first
        if now < self.first + self.seconds:
            raise TransferNak
        return data


# A fault of everything that the board's serial loader sends in the phase: what becomes of --skip-flashed and --verify.
PHASE_FAULTS: dict[str, tuple[Callable[[], Callable[[Wire, bytes], bytes]], str, str]] = {
    "gone": (lambda: gone, "device-gone", "device-gone"),
    "rts": (lambda: lowered_rts, "device-gone", "device-gone"),
    "silent": (lambda: swallowed, "whole", "serial-loader"),
    "late": (lambda: Late(5.0), "whole", "serial-loader"),
    "garbled": (lambda: lambda wire, data: bytes(b ^ 0x10 for b in data), "whole", "serial-loader"),
    "delimiters": (lambda: lambda wire, data: b"\xc0", "whole", "serial-loader"),
    "refused": (lambda: lambda wire, data: REFUSAL, "whole", "serial-loader"),
    "other-digit": (lambda: other_digit, "sent", "flash-differs"),
    "none": (lambda: lambda wire, data: data, "skipped", "ok"),
}


@pytest.mark.parametrize("phase", [Phase.COMPARE, Phase.CHECK])
@pytest.mark.parametrize("fault", PHASE_FAULTS)
def test_fault_while_flash_memory_is_compared(fault: str, phase: Phase) -> None:
    effect, compared, checked = PHASE_FAULTS[fault]
    rig = make_rig("esp32s3", mode=Mode.DFU)
    image = small_image("esp32s3")
    if phase is Phase.COMPARE:
        for file in FILES:
            rig.board.rom.flash.program(file.address, file.data)
    struck: list[float] = []

    def on_event(event: Event) -> None:
        if isinstance(event, PhaseStarted) and event.phase is phase:
            struck.append(rig.clock.monotonic())
            Wire(rig, effect())

    rig.on_event = on_event
    kind, error = "ok", None
    try:
        result = rig.flash(skip_flashed=phase is Phase.COMPARE, verify=phase is Phase.CHECK)
    except EspDfuError as caught:
        kind, error = caught.code, caught
    assert len(struck) == 1
    assert rig.clock.monotonic() - struck[0] <= 5.0
    assert rig.handles == 0
    assert rig.board.kernel_driver or not rig.board.present
    if phase is Phase.COMPARE and compared != "device-gone":
        assert error is None
        assert (result.skipped == 0) == (compared != "skipped")
        assert rig.notices() == (["no-loader"] if compared == "whole" else [])
        rig.assert_flashed(image)
        return
    assert kind == (compared if phase is Phase.COMPARE else checked)
    written = "Nothing was written." if phase is Phase.COMPARE else "The chip has confirmed the whole image."
    assert error is None or kind == "flash-differs" or written in error.notes
    if phase is Phase.CHECK:
        rig.assert_flashed(image)
        assert rig.notices() == []


@pytest.mark.parametrize("option", ["skip_flashed", "verify"])
@pytest.mark.parametrize("name", KNOWN)
def test_secure_download_mode_is_said(name: str, option: str) -> None:
    rig = make_rig(name, mode=Mode.DFU)
    set_secure_download(rig)
    if option == "verify":
        with pytest.raises(SerialLoaderError, match="Secure Download Mode") as caught:
            rig.flash(verify=True)
        assert caught.value.reason == "secure"
        assert "Nothing was written." in caught.value.notes
        return
    assert rig.flash(skip_flashed=True).skipped == 0
    notices = [event.message for event in rig.events if isinstance(event, Notice)]
    assert "Secure Download Mode" in notices[0]
    assert "the whole image is sent" in notices[1]
    rig.assert_flashed()


def set_secure_download(rig: Rig) -> None:
    """Let the chip's answer to GET_SECURITY_INFO say that it is in Secure Download Mode."""
    asked, bulk_in, bulk_out = [False], rig.board.bulk_in, rig.board.bulk_out
    count = [0]

    def to_board(endpoint: int, data: bytes) -> None:
        asked[0], count[0] = data[:3] == b"\xc0\x00\x14", 0
        bulk_out(endpoint, data)

    def from_board(endpoint: int) -> bytes:
        data = bulk_in(endpoint)
        count[0] += len(data)
        return b"\x04" if asked[0] and count[0] == 10 else data  # the first byte after the head: the flags

    rig.board.bulk_in = from_board  # type: ignore[method-assign]
    rig.board.bulk_out = to_board  # type: ignore[method-assign]


CAUSES: dict[str, tuple[SetUp, str, str]] = {
    "held": (held, "device-busy", ""),
    "not-permitted": (not_permitted, "serial-loader", "driver"),
    "esptool-missing": (without_esptool(ImportError("No module named 'esptool'")), "serial-loader", "esptool"),
    "esptool-too-old": (without_esptool(KeyError("esp32s3")), "serial-loader", "esptool"),
    "esptool-moved-api": (moved_api, "serial-loader", "esptool"),
    "unheard": (packets(swallowed, 1000), "serial-loader", "connect"),
    "commands-refused": (refuses_commands, "serial-loader", "connect"),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_each_cause_has_its_own_words_and_advice(cause: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an option needs the loader, the error is that of the cause, and nothing is written."""
    set_up, code, reason = CAUSES[cause]
    rig = make_rig("esp32s3", mode=Mode.DFU)
    set_up(rig, monkeypatch)
    with pytest.raises(EspDfuError) as caught:
        rig.flash(verify=True)
    assert (caught.value.code, getattr(caught.value, "reason", "")) == (code, reason)
    assert caught.value.notes[-1] == "Nothing was written."
    assert rig.notices() == []
    assert rig.dfu(Request.DFU_DNLOAD) == []
    advice = " ".join(advice_for(caught.value, ESP_DFU, rig.board.target))
    words = {
        "driver": "Close other programs",
        "esptool": "another version of esptool",
        "connect": "download mode",
        "": "",
    }
    assert words[reason] in advice
