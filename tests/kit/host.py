"""A DFU host that calls the simulated ROM directly, without a bus.

The numbers of DFU 1.1 are written out here, so that the tests do not take them from what they test.
"""

from __future__ import annotations

from collections.abc import Iterator

from esp_dfu_ext.dfu.spec import Mode
from esp_dfu_ext.simulator import Rom
from esp_dfu_ext.simulator.nor import NorFlash
from esp_dfu_ext.simulator.rom import ControlStall

from .archives import MIB
from .chips import chip

DETACH, DNLOAD, UPLOAD, GETSTATUS, CLRSTATUS, GETSTATE, ABORT = range(7)  # bRequest
APP_IDLE, APP_DETACH, IDLE, DNLOAD_SYNC, DNBUSY, DNLOAD_IDLE, MANIFEST_SYNC = range(7)  # bState
MANIFEST, WAIT_RESET, UPLOAD_IDLE, ERROR = range(7, 11)
OK, ERR_TARGET, ERR_FILE, ERR_FIRMWARE, ERR_UNKNOWN, ERR_STALLED = 0, 1, 2, 10, 14, 15  # bStatus


def new_rom(name: str = "esp32s3", *, flash_size: int = 4 * MIB, mode: Mode = Mode.DFU) -> Rom:
    """Return a ROM with erased flash memory."""
    rom = Rom(chip(name), NorFlash(flash_size), "7c:df:a1:00:00:01")
    rom.restart(mode)
    return rom


def dnload(rom: Rom, data: bytes, block: int = 0) -> None:
    """Send DFU_DNLOAD."""
    rom.control(0x21, DNLOAD, block, data, 0)


def blocks(stream: bytes, size: int = 64) -> Iterator[bytes]:
    """Yield the blocks of a download, without the zero-length one."""
    for position in range(0, len(stream), size):
        yield stream[position : position + size]


def download(rom: Rom, stream: bytes, size: int = 64) -> None:
    """Send the blocks of a stream, without the zero-length one."""
    for block in blocks(stream, size):
        dnload(rom, block)


def get_status(rom: Rom) -> tuple[int, int, int]:
    """Send DFU_GETSTATUS; return bStatus, bwPollTimeout in milliseconds, bState."""
    answer = rom.control(0xA1, GETSTATUS, 0, b"", 6)
    assert len(answer) == 6
    return answer[0], int.from_bytes(answer[1:4], "little"), answer[4]


def get_state(rom: Rom) -> int:
    """Send DFU_GETSTATE; return bState."""
    (state,) = rom.control(0xA1, GETSTATE, 0, b"", 1)
    return state


def send(rom: Rom, stream: bytes) -> int:
    """Download a stream, stop at the first stall, and return bStatus."""
    try:
        download(rom, stream)
        dnload(rom, b"")
    except ControlStall:
        pass
    return get_status(rom)[0]
