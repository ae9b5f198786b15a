"""The download loop and the chip's verdict, on the ROM and on other devices."""

from __future__ import annotations

import errno
from collections.abc import Callable

import msgspec
import pytest
import usb.core

from esp_dfu_ext.clock import VirtualClock
from esp_dfu_ext.dfu.device import DfuDevice
from esp_dfu_ext.dfu.download import download
from esp_dfu_ext.dfu.spec import Mode, Status, StatusResponse
from esp_dfu_ext.errors import (
    DeviceGoneError,
    DfuStateError,
    DfuStatusError,
    StallError,
    TransferTimeoutError,
)
from esp_dfu_ext.events import Event, EventSink, Notice, Phase, PhaseFinished, PhaseStarted, Progress, ignore
from esp_dfu_ext.image.format import DfuImage
from esp_dfu_ext.simulator import Board
from esp_dfu_ext.simulator.board import Answer, hang, stall
from esp_dfu_ext.simulator.rom import ControlStall

from .kit.archives import FILES, MIB, File, archive, content, image_of, small_image
from .kit.boards import Rig, Transfer, make_rig, open_board
from .kit.chips import chip
from .kit.host import (
    APP_DETACH,
    APP_IDLE,
    DNBUSY,
    DNLOAD,
    DNLOAD_IDLE,
    DNLOAD_SYNC,
    ERR_FIRMWARE,
    ERROR,
    GETSTATUS,
    IDLE,
    MANIFEST,
    MANIFEST_SYNC,
    OK,
    UPLOAD_IDLE,
    WAIT_RESET,
)
from .kit.scripted import Scripted

STREAM = bytes(small_image().stream)
FIRST = STREAM.index(FILES[-1].data) // 64
PLACES = {"index": 1, "first block of a file": FIRST, "middle": FIRST + 40, "zero-length": -(-len(STREAM) // 64)}


def _download(
    rig: Rig,
    image: DfuImage | None = None,
    *,
    size: int = 64,
    strict: bool = False,
    device: DfuDevice | None = None,
) -> StatusResponse:
    return download(
        device or open_board(rig),
        image or small_image(),
        rig.board.target.dfu,
        transfer_size=size,
        path="1-1",
        clock=rig.clock,
        strict=strict,
        tolerant=True,
        on_event=rig.handle,
    )


def _rig() -> Rig:
    return make_rig(mode=Mode.DFU, start=0)


# --- the ROM ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strict", [False, True])
def test_sends_archive_then_empty_block(strict: bool) -> None:
    rig = _rig()
    answer = _download(rig, strict=strict)
    assert (answer.status, answer.state) == (OK, IDLE)
    blocks = [t.data for t in rig.dfu(DNLOAD)]
    assert b"".join(blocks) == archive(FILES, MIB)
    assert {len(block) for block in blocks[:-2]} == {64}
    assert blocks[-1] == b""
    assert all(blocks[:-1])
    rig.assert_flashed()


def test_block_numbers_count_up() -> None:
    rig = _rig()
    _download(rig)
    assert [t.value for t in rig.dfu(DNLOAD)] == list(range(len(rig.dfu(DNLOAD))))


@pytest.mark.parametrize("size", [16, 32, 60])
def test_block_size_follows_device(size: int) -> None:
    rig = _rig()
    _download(rig, size=size)
    assert max(len(t.data) for t in rig.dfu(DNLOAD)) == size
    rig.assert_flashed()


def test_never_sleeps_with_rom() -> None:
    # The ROM asks for 256 ms in every state; waiting for it would take more than an hour per MiB.
    for strict in (False, True):
        rig = _rig()
        _download(rig, strict=strict)
        assert rig.clock.monotonic() == 0


def _blocks_between_status(rig: Rig) -> list[int]:
    """Return the number of blocks between one DFU_GETSTATUS and the next."""
    counts, count = [], 0
    for transfer in rig.log:
        if transfer.is_dfu and transfer.request == DNLOAD:
            count += 1
        elif transfer.is_dfu and transfer.request == GETSTATUS:
            counts.append(count)
            count = 0
    assert count == 0
    assert counts[0] == 0  # is it idle?
    return counts[1:]


def test_getstatus_at_interval_and_at_end() -> None:
    rig = _rig()
    _download(rig)
    interval = chip().dfu.status_interval
    counts = _blocks_between_status(rig)
    assert interval > 1
    assert counts[:-1] == [interval] * (len(counts) - 1)
    assert 1 <= counts[-1] <= interval


def test_strict_sends_getstatus_after_every_block() -> None:
    rig = _rig()
    _download(rig, strict=True)
    assert set(_blocks_between_status(rig)) == {1}


def test_erasing_block_has_erase_timeout() -> None:
    # The chip erases a file's whole range during one DFU_DNLOAD, up to 8 blocks after the file's first.
    dice = [1, 63, 100, 255, 300, 1000, 4097, 77]
    files = [File(0x10000 * n, f"file{n}" + "x" * (7 * n), content(size, n)) for n, size in enumerate(dice, 1)]
    image = image_of(files, chip(), MIB)
    rig = _rig()
    erase = rig.board.rom.flash.erase
    timeouts: list[float] = []

    def slow_erase(address: int, size: int) -> None:
        timeouts.append(rig.dfu(DNLOAD)[-1].timeout)
        erase(address, size)

    rig.board.rom.flash.erase = slow_erase  # type: ignore[method-assign]
    _download(rig, image)
    rig.assert_flashed(image)
    assert len(timeouts) == len(files) + 1  # one file has two sectors
    assert min(timeouts[:-1]) >= 30
    assert timeouts[-1] >= 10  # an erase during the zero-length block is one sector at most


def test_other_blocks_have_short_timeout() -> None:
    # Eight or nine blocks per file: it is erased once 256 bytes are there, and the ROM holds back up to 255 more.
    rig = _rig()
    _download(rig)
    longer = [t.value for t in rig.dfu(DNLOAD)[:-1] if t.timeout != 5]
    starts = [STREAM.index(file.data) for file in FILES]
    assert longer == sorted({block for start in starts for block in range(start // 64, (start + 510) // 64 + 1)})
    assert {t.timeout for t in rig.dfu(DNLOAD)[:-1]} == {5, 30}


def test_erase_timeouts_of_adjacent_files_add_up() -> None:
    image = image_of([File(0x1000 * n, f"{n}.bin", b"x") for n in range(1, 4)], chip(), MIB)
    rig = _rig()
    _download(rig, image)
    timeouts = [t.timeout for t in rig.dfu(DNLOAD)[:-1]]
    assert timeouts == sorted(timeouts)
    assert set(timeouts) == {5, 30, 60, 90}


@pytest.mark.parametrize("mib", [0, 1, 2])
def test_last_block_has_time_for_every_md5(mib: int) -> None:
    data = content(4096) * (mib * 256) or b"x"
    rig = _rig()
    rig.board.rom.control = lambda *_: b""  # type: ignore[method-assign]

    class Stop(Exception):
        pass

    def before(transfer: object) -> None:
        if rig.log[-1].request == DNLOAD and not rig.log[-1].data:
            raise Stop

    rig.before = before
    device = open_board(rig)
    device.get_status = lambda: StatusResponse(  # type: ignore[method-assign]
        Status.OK, 0.256, DNLOAD_IDLE if rig.dfu(DNLOAD) else IDLE
    )
    image = image_of([File(0x10000, "a.bin", data)], chip())
    with pytest.raises(Stop):
        _download(rig, image, size=4096, device=device)
    assert rig.log[-1].timeout >= 10 + 3 * mib
    assert rig.log[-1].timeout <= 12 + 4 * mib


def test_ordinary_block_has_short_timeout() -> None:
    rig = _rig()
    _download(rig)
    assert rig.dfu(DNLOAD)[-2].timeout <= 5


def test_events() -> None:
    rig = _rig()
    image = small_image()
    _download(rig)
    total = len(image.stream)
    started, finished = rig.events[0], rig.events[-1]
    assert started == PhaseStarted("1-1", Phase.DOWNLOAD, total)
    assert finished == PhaseFinished("1-1", Phase.VERIFY, 0)
    progress = [e for e in rig.events if isinstance(e, Progress)]
    done = [e.done for e in progress]
    assert done == sorted(done)
    assert done[-1] == total
    assert {(e.path, e.phase, e.total) for e in progress} == {("1-1", Phase.DOWNLOAD, total)}
    names = list(dict.fromkeys(e.name for e in progress))
    assert names == ["", *(f.name for f in FILES)]
    assert progress[-1].name == ""
    stream = bytes(image.stream)
    for event in progress:
        inside = [f.name for f in FILES if 0 <= event.done - stream.index(f.data) < len(f.data)]
        assert not inside or event.name in ("", *inside)


@pytest.mark.parametrize("strict", [False, True])
def test_progress_counts_bytes_on_device(strict: bool) -> None:
    rig = _rig()
    sent: list[tuple[int, int]] = []

    def on_event(event: Event) -> None:
        if isinstance(event, Progress):
            sent.append((event.done, sum(len(t.data) for t in rig.dfu(DNLOAD))))

    rig.on_event = on_event
    _download(rig, strict=strict)
    assert all(done == on_device for done, on_device in sent)
    files = [STREAM.index(file.data) // 64 * 64 for file in FILES]
    every_32 = [32 * 64, 64 * 64, 96 * 64]
    assert [done for done, _ in sent] == sorted([0, *files, *every_32, len(STREAM)])


@pytest.mark.parametrize("strict", [False, True])
def test_wrong_md5_is_reported_at_end(strict: bool) -> None:
    rig = _rig()
    rig.board.rom.flash.erase = lambda address, size: None  # type: ignore[method-assign]
    rig.board.rom.flash.program(0, bytes(MIB))
    with pytest.raises(DfuStatusError, match="errFIRMWARE") as caught:
        _download(rig, strict=strict)
    assert (caught.value.status, caught.value.state) == ("errFIRMWARE", "dfuERROR")
    assert rig.board.rom.status == ERR_FIRMWARE


@pytest.mark.parametrize("interval", [2, 32])
def test_restarts_for_device_that_expects_getstatus(interval: int) -> None:
    rig = _rig()
    limits = msgspec.structs.replace(chip().dfu, status_interval=interval)
    rig.board.target = msgspec.structs.replace(chip(), dfu=limits)
    rig.board.rom.wants_status = True
    answer = _download(rig)
    assert answer.state == IDLE
    assert rig.notices() == ["strict-restart"]
    rig.assert_flashed()


def test_strict_mode_does_not_restart() -> None:
    rig = _rig()
    rig.board.rom.wants_status = True
    assert _download(rig, strict=True).state == IDLE
    assert rig.notices() == []
    assert len(rig.dfu(DNLOAD)) == -(-len(small_image().stream) // 64) + 1
    rig.assert_flashed()


@pytest.mark.parametrize(("interval", "strict"), [(2, False), (32, False), (32, True)])
def test_lost_block_restarts_download(interval: int, strict: bool) -> None:
    rig = _rig()
    limits = msgspec.structs.replace(chip().dfu, status_interval=interval)
    rig.board.target = msgspec.structs.replace(chip(), dfu=limits)
    rig.board.faults.plan(hang, 40)
    assert _download(rig, strict=strict).state == IDLE
    rig.assert_flashed()
    (notice,) = [e for e in rig.events if isinstance(e, Notice)]
    assert (notice.code, notice.path) == ("restart", "1-1")
    assert notice.message.startswith("Port 1-1: ") and notice.message.count("1-1") == 1
    assert f"offset {40 * 64:#x}" in notice.message and "(2 retries left)" in notice.message
    again = [t.value for t in rig.dfu(DNLOAD)].index(0, 1)
    requests = [t.request for t in rig.log[rig.log.index(rig.dfu(DNLOAD)[again]) :]]
    assert set(requests[::2]) == {DNLOAD} and set(requests[1::2]) == {GETSTATUS}


def test_gives_up_after_two_restarts() -> None:
    rig = _rig()
    _never_answer(rig, lambda t: t.request == DNLOAD and t.value == 40)
    with pytest.raises(TransferTimeoutError, match=f"offset {40 * 64:#x}"):
        _download(rig)
    assert [t.value for t in rig.dfu(DNLOAD)].count(40) == 3
    assert [e.message[-16:] for e in rig.events if isinstance(e, Notice)] == ["2 retries left).", " (1 retry left)."]


def _never_answer(rig: Rig, condition: Callable[[Transfer], bool]) -> None:
    def before(transfer: Transfer) -> None:
        if transfer.is_dfu and condition(transfer):
            raise usb.core.USBTimeoutError("Operation timed out", -7, errno.ETIMEDOUT)

    rig.before = before


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("index", "within 5 s to the block at stream offset 0x40."),
        ("first block of a file", f"within 30 s to the block at stream offset {64 * FIRST:#x}."),
        ("middle", f"within 5 s to the block at stream offset {64 * FIRST + 64 * 40:#x}."),
        ("zero-length", "within 10 s to the zero-length block"),
    ],
)
def test_silent_device_error_names_place_and_seconds(place: str, says: str) -> None:
    block = PLACES[place]
    rig = _rig()
    _never_answer(rig, lambda _: len(rig.dfu(DNLOAD)) > block)
    with pytest.raises(TransferTimeoutError) as caught:
        _download(rig)
    assert "1-1" in caught.value.message
    assert says in caught.value.message
    assert rig.notices() == []


@pytest.mark.parametrize(("place", "says"), [("index", "index"), ("middle", "app.bin"), ("zero-length", "ending")])
@pytest.mark.parametrize("status", [Status.errSTALLEDPKT, Status.errADDRESS])
def test_stall_error_names_status_place_and_file(place: str, says: str, status: Status) -> None:
    # With DFU_GETSTATUS after every block, even a status that asks for it is a verdict.
    rig = _rig()

    def fail(board: Board, answer: Answer) -> bytes:
        board.rom.fail(status)
        raise ControlStall

    rig.board.faults.plan(fail, PLACES[place])
    with pytest.raises(DfuStatusError) as caught:
        _download(rig, strict=True)
    assert (caught.value.status, caught.value.state) == (status.name, "dfuERROR")
    position = min(64 * PLACES[place], len(small_image().stream))
    assert f"offset {position:#x} " in caught.value.message
    assert says in caught.value.message.partition("offset")[2]
    assert rig.notices() == []


def test_stall_without_reason_names_place_and_state() -> None:
    rig = _rig()

    def before(transfer: Transfer) -> None:
        if transfer.is_dfu and transfer.request == DNLOAD and transfer.value == 40:
            raise usb.core.USBError("Pipe error", -9, errno.EPIPE)

    rig.before = before
    with pytest.raises(StallError, match=rf"1-1.*offset {40 * 64:#x} .*dfuDNLOAD-IDLE"):
        _download(rig)


# --- other devices ----------------------------------------------------------------------------------------


def _send(
    handle: Scripted, strict: bool = False, *, idle_first: bool = True, on_event: EventSink = ignore
) -> StatusResponse:
    image = small_image()
    handle.idle_first = idle_first
    return download(
        DfuDevice(handle),
        image,
        chip().dfu,
        transfer_size=len(image.stream),
        path="1-1",
        clock=handle.clock,
        strict=strict,
        tolerant=True,
        on_event=on_event,
    )


def test_phases_have_their_seconds() -> None:
    clock = VirtualClock()
    clock.sleep(100)
    states = [(MANIFEST, 0.5), (IDLE, 0.0), (DNBUSY, 0.25), (DNLOAD_IDLE, 0.0), (MANIFEST, 2.0), (IDLE, 0.0)]
    events: list[Event] = []
    handle = Scripted(clock, *states)
    handle.asked.append(0)
    _send(handle, True, idle_first=False, on_event=events.append)
    seconds = [(e.path, e.phase, e.seconds) for e in events if isinstance(e, PhaseFinished)]
    assert seconds == [("1-1", Phase.RECOVER, 0.5), ("1-1", Phase.DOWNLOAD, 0.25), ("1-1", Phase.VERIFY, 2.0)]
    assert [e.phase for e in events if isinstance(e, PhaseStarted)] == [Phase.RECOVER, Phase.DOWNLOAD, Phase.VERIFY]


@pytest.mark.parametrize("state", [DNLOAD_SYNC, DNBUSY, MANIFEST_SYNC, MANIFEST])
def test_busy_device_gets_its_poll_timeout(state: int) -> None:
    handle = Scripted(VirtualClock(), (state, 0.7), (state, 1.1), (IDLE, 9.0))
    assert _send(handle).state == IDLE
    assert handle.asked == pytest.approx([0, 0, 0.7, 1.8])


@pytest.mark.parametrize("state", [DNLOAD_SYNC, DNBUSY, MANIFEST_SYNC, MANIFEST])
def test_gives_up_on_busy_device(state: int) -> None:
    handle = Scripted(VirtualClock(), (state, 0.256))
    with pytest.raises(TransferTimeoutError, match=r"1-1.*dfu(DN|MANIFEST)"):
        _send(handle)
    assert 10 <= handle.clock.monotonic() <= 32


def test_device_waiting_for_reset_is_done() -> None:
    assert _send(Scripted(VirtualClock(), (WAIT_RESET, 0.1))).state == WAIT_RESET


@pytest.mark.parametrize("state", [APP_IDLE, APP_DETACH, DNLOAD_IDLE, UPLOAD_IDLE])
def test_other_final_state_is_error(state: int) -> None:
    with pytest.raises(DfuStateError, match="dfuIDLE") as caught:
        _send(Scripted(VirtualClock(), (state, 0.0)))
    assert caught.value.state in caught.value.message


def test_error_state_without_status_is_error() -> None:
    with pytest.raises(DfuStatusError, match="dfuERROR"):
        _send(Scripted(VirtualClock(), (ERROR, 0.0)))


def test_unknown_status_is_error() -> None:
    with pytest.raises(DfuStatusError, match="200") as caught:
        _send(Scripted(VirtualClock(), (ERROR, 0.0), status=200))
    assert caught.value.status == "200"


@pytest.mark.parametrize("block", [40, PLACES["zero-length"]])
def test_device_leaves_after_stall(block: int) -> None:
    rig = _rig()
    rig.board.faults.plan(stall, block)

    def before(transfer: object) -> None:
        if rig.board.blocks == block + 1:
            rig.board.unplug()

    rig.before = before
    with pytest.raises((StallError, DeviceGoneError)):
        _download(rig)


def test_restart_notice_names_board() -> None:
    rig = _rig()
    rig.board.rom.wants_status = True
    _download(rig)
    (notice,) = [e for e in rig.events if isinstance(e, Notice)]
    assert notice.path == "1-1"
    assert notice.message.startswith("Port 1-1: ")
    assert "status check after every block" in notice.message


def test_waits_for_busy_device_then_restarts() -> None:
    class Hasty(Scripted):
        def control_out(self, request_type: int, request: int, value: int, data: bytes, timeout: float) -> int:
            super().control_out(request_type, request, value, data, timeout)
            if self.sent == [DNLOAD]:
                raise StallError("1-1: the device refused the request.")
            return len(data)

    busy, idle = (DNBUSY, 0.3), (IDLE, 0.0)
    handle = Hasty(VirtualClock(), busy, busy, idle, idle, (DNLOAD_IDLE, 0.0), idle)
    assert _send(handle).state == IDLE
    assert handle.sent == [DNLOAD, DNLOAD, DNLOAD]
    assert handle.asked == pytest.approx([0, 0, 0, 0.3, 0.3, 0.3, 0.3])


@pytest.mark.parametrize("seconds", [1.0, 3.0])
def test_attempt_has_deadline(seconds: float) -> None:
    rig = make_rig(mode=Mode.DFU)
    rig.board.faults.block_time = seconds
    if seconds == 1.0:
        rig.flash()
        return
    with pytest.raises(TransferTimeoutError, match=r"the device is too slow: it took [0-9]+ of [0-9]+ bytes in 152 s"):
        rig.flash()
    assert 152 < rig.clock.monotonic() - 100 < 152 + 32 * seconds + 1
    assert rig.notices() == []  # another attempt would take as long
