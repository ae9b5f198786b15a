"""What the ROM answers, as a table: each row was played on Espressif's ROM code, executed for each of the four chips.

A row says what the host does and what comes back. All chips gave the same answers, except where a row names a chip.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Protocol

import pytest

from esp_dfu_ext.dfu.spec import Mode
from esp_dfu_ext.simulator import Rom
from esp_dfu_ext.simulator.nor import NorFlash
from esp_dfu_ext.simulator.rom import ControlStall, ControlTimeout

from .kit.archives import (
    KIB,
    MIB,
    PARAMS_FLAGS,
    TRAILER,
    File,
    archive,
    archive_of,
    content,
    cpio_member,
    flash_params,
    index,
    params,
)
from .kit.chips import NAMES, chip

SECTOR = 4 * KIB


class Device(Protocol):
    """What a row needs of a chip in DFU mode."""

    @property
    def flash(self) -> NorFlash:
        """Its flash memory."""

    def control(self, request_type: int, request: int, value: int, data: bytes, length: int) -> bytes:
        """Answer a control request."""


def new_device(name: str, *, mode: Mode = Mode.DFU, flash_size: int = 16 * MIB, dirty: bool = False) -> Device:
    """Return a chip; a dirty one has zeros in its flash memory."""
    rom = Rom(chip(name), NorFlash(flash_size), "7c:df:a1:00:00:01")
    rom.restart(mode)
    if dirty:
        rom.flash.fill(0)
    return rom


# --- requests ---------------------------------------------------------------------------------------------

A, B = File(0x1000, "a.bin", content(9000, 1)), File(0x8000, "b.bin", content(5003, 2))
GOOD = archive([A, B])
_B_HEADER = GOOD.index(b"070701", GOOD.index(A.data) + 9000)


def with_header(offset: int, text: bytes, stream: bytes = GOOD, header: int = _B_HEADER) -> bytes:
    """Return a stream with other bytes in a header, by default that of b.bin."""
    place = header + offset
    return stream[:place] + text + stream[place + len(text) :]


STREAMS = {
    "good": GOOD,
    "wrong": archive_of([params(), replace(A, data=b"other")], [params(), A]),
    "broken": with_header(0, b"XXXXXX"),
}
# dnN: DFU_DNLOAD of N bytes; dn:NAME a whole stream in blocks of 64 bytes, dn0 the end. upB/N: DFU_UPLOAD of block B,
# N bytes. The answers: ok, the number of bytes, stall, silent (no answer), or state and status.
REQUESTS = {
    "a block leads to dfuDNLOAD-IDLE at once": ("dn64 state dn1 state", "ok 5 ok 5"),
    "no DFU_GETSTATUS is needed between blocks": ("dn:good dn0 status", "ok ok 2/0"),
    "one is needed at the end": ("dn:good dn0 state state dn64 status", "ok ok 6 6 stall 10/14"),
    "an empty download": ("dn0 state status", "ok 6 2/0"),
    "a second download": ("dn:good dn0 status dn:good dn0 status", "ok ok 2/0 ok ok 2/0"),
    "a block of 65 bytes": ("dn65 status dn64 dn65 status", "silent 2/0 ok silent 5/0"),
    "DFU_ABORT ends a download": ("dn:broken abort state dn:good dn0 status", "ok ok 10 stall stall 10/1"),
    "and a new one may follow": ("dn64 abort status dn:good dn0 status", "ok ok 2/0 ok ok 2/0"),
    "DFU_ABORT in dfuMANIFEST-SYNC": ("dn:good dn0 abort status", "ok ok ok 2/0"),
    "DFU_CLRSTATUS without an error": ("clear state dn64 clear state", "ok 2 ok ok 2"),
    "a wrong MD5 shows at the end": ("dn:wrong status dn0 state status", "ok 5/0 ok 10 10/10"),
    "DFU_ABORT keeps the error": ("dn:wrong dn0 abort state status", "ok ok ok 10 10/10"),
    "but a download may follow at once": ("dn:wrong dn0 abort dn:good dn0 status", "ok ok ok ok ok 2/0"),
    "DFU_CLRSTATUS clears it": ("dn:wrong dn0 status clear status dn:good dn0 status", "ok ok 10/10 ok 2/0 ok ok 2/0"),
    "blocks stall in dfuERROR": ("dn:wrong dn0 status dn64 up0/64 status", "ok ok 10/10 stall stall 10/10"),
    "an error stays hidden until asked for": ("dn:broken dn64 dn64 status dn64", "ok ok ok 10/1 stall"),
    "also by DFU_GETSTATE": ("dn:broken state dn64", "ok 10 stall"),
    "a hidden error at the end": ("dn:broken dn0 status", "ok ok 10/1"),
    "an upload in blocks of any length": ("up0/64 up1/16 status", "64 16 9/0"),
    "DFU_ABORT begins it again": ("up0/64 abort up0/64 status", "64 ok 64 9/0"),
    "a wrong upload block does not stall": ("up0/64 up2/64 status", "64 64 10/14"),
    "a first block that is not 0": ("up1/64 status", "64 10/14"),
    "an empty upload block": ("up0/0 status", "0 10/14"),
    "an upload in a download": ("dn64 up0/64 status", "ok stall 10/14"),
    "a download in an upload": ("up0/64 dn64 status", "64 stall 10/14"),
    "DFU_DETACH in DFU mode": ("detach state dn64 abort clear up0/64 status", "stall 0 stall stall stall stall 0/0"),
    "DFU_DETACH in a download": ("dn64 detach status", "ok stall 0/0"),
}
IN_RUN_TIME_MODE = ("state abort clear dn64 dn0 up0/64 status", "0 stall stall stall stall stall 0/0")


def _number(word: str, prefix: str) -> int:
    return int(word.removeprefix(prefix))


def _send(device: Device, word: str) -> str:
    """Carry out one word; return its answer as a word."""
    if word == "state":
        return str(device.control(0xA1, 5, 0, b"", 1)[0])
    if word == "status":
        status, *poll, state, string = device.control(0xA1, 3, 0, b"", 6)
        assert (poll, string) == ([0, 1, 0], 0)  # bwPollTimeout is 256 ms in every state
        return f"{state}/{status}"
    if word.startswith("up"):
        block, length = map(int, word[2:].split("/"))
        return str(len(device.control(0xA1, 2, block, b"", length)))
    if word.startswith("dn:"):
        stream = STREAMS[word[3:]]
        for start in range(0, len(stream), 64):
            device.control(0x21, 1, start // 64, stream[start : start + 64], 0)
    elif word.startswith("dn"):
        device.control(0x21, 1, 0, GOOD[: _number(word, "dn")], 0)
    else:
        device.control(0x21, {"detach": 0, "clear": 4, "abort": 6}[word], 0, b"", 0)
    return "ok"


def play(device: Device, words: str) -> str:
    """Carry out the words of a row; return the answers."""
    answers = []
    for word in words.split():
        try:
            answers.append(_send(device, word))
        except ControlStall:
            answers.append("stall")
        except ControlTimeout:
            answers.append("silent")
    return " ".join(answers)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("words", "answers"), REQUESTS.values(), ids=REQUESTS)
def test_answers_to_requests(name: str, words: str, answers: str) -> None:
    assert play(new_device(name), words) == answers


@pytest.mark.parametrize("name", NAMES)
def test_answers_in_run_time_mode(name: str) -> None:
    words, answers = IN_RUN_TIME_MODE
    assert play(new_device(name, mode=Mode.RUN_TIME), words) == answers


# --- streams ----------------------------------------------------------------------------------------------


def _one(address: int, size: int, chip_size: int | None = 4 * MIB, flags: int = 0) -> bytes:
    return archive([File(address, "x", content(size, 5), flags)], chip_size)


def _named(length: int) -> bytes:
    return archive([replace(A, name="n" * length)])


def _cut(after: int) -> bytes:
    """Return the good stream up to so many bytes of b.bin."""
    return GOOD[: GOOD.index(B.data) + after]


def _records(count: int) -> bytes:
    return archive([File(0x1000 * n, f"f{n}", content(40, n)) for n in range(1, count)])


def _with_params(content_: bytes, *files: File) -> bytes:
    own = File(0, "flash_params.dat", content_, PARAMS_FLAGS)
    return archive_of([own, *files], [own, *files])


P, FAR = params(), File(3 * MIB, "far.bin", content(4096, 6))
MEMBERS = P.member + A.member + B.member
ALL = index(P, A, B)
_A_HALF = replace(A, data=A.data[:2048])
_SHARING = File(A.address + 2048, "s.bin", content(2048, 7))
_TWIN = replace(B, name="a.bin")
_STRAY = cpio_member("stray.bin", content(3000, 3))
_SECOND = index(B) + B.member
_RAW = content(5000, 9)


@dataclass(frozen=True)
class Row:
    """A stream in blocks of 64 bytes with a DFU_GETSTATUS after each, to a chip whose flash memory is full of zeros.

    Attributes:
        stream: Bytes to send.
        status: bStatus at the end; SILENT if the chip stops answering.
        block: Number of the block after which it shows; None for the zero-length block.
        erased: Ranges of sectors that are not zero afterwards: begin and end, in KiB.
        digest: First digits of the MD5 of these ranges' content.
    """

    stream: bytes
    status: int
    block: int | None
    erased: list[tuple[int, int]]
    digest: str


OK, TARGET, FILE, FIRMWARE, SILENT = 0, 1, 2, 10, -1

ROWS: dict[str, Row] = {
    "good": Row(GOOD, OK, None, [(4, 16), (32, 40)], "1bc3074c"),
    "magic of b.bin": Row(with_header(0, b"X"), TARGET, 155, [(4, 16)], "f1117cda"),
    "magic 070702": Row(with_header(0, b"070702"), OK, None, [(4, 16), (32, 40)], "1bc3074c"),
    "magic 070703": Row(with_header(0, b"070703"), TARGET, 155, [(4, 16)], "f1117cda"),
    "mtime not hexadecimal": Row(with_header(46, b"z"), TARGET, 155, [(4, 16)], "f1117cda"),
    "check field not hexadecimal": Row(with_header(109, b" "), TARGET, 155, [(4, 16)], "f1117cda"),
    "upper case": Row(with_header(94, b"0000000D", header=0), OK, None, [(4, 16), (32, 40)], "1bc3074c"),
    "filesize 4 more": Row(with_header(54, b"%08x" % (5003 + 4)), FIRMWARE, None, [(4, 16), (32, 40)], "fb766cc4"),
    "filesize 0": Row(with_header(54, b"00000000"), TARGET, 155, [(4, 16)], "f1117cda"),
    "filesize 80000000": Row(with_header(54, b"80000000"), SILENT, 155, [(4, 16)], "f1117cda"),
    "filesize ffffffff": Row(with_header(54, b"ffffffff"), SILENT, 155, [(4, 16)], "f1117cda"),
    "namesize 0": Row(with_header(94, b"00000000"), TARGET, None, [(4, 16)], "f1117cda"),
    "namesize ffffffff": Row(with_header(94, b"ffffffff"), TARGET, None, [(4, 16)], "f1117cda"),
    "namesize 100000": Row(with_header(94, b"00100000"), TARGET, 155, [(4, 16)], "f1117cda"),
    "first magic": Row(b"070707" + GOOD[6:], OK, None, [(0, 16)], "57aa9231"),
    "64 records": Row(_records(64), OK, None, [(4, 256)], "30604cfe"),
    "65 records": Row(_records(65), FILE, 7, [], "d41d8cd9"),
    "name of 63 bytes": Row(_named(63), OK, None, [(4, 16)], "f1117cda"),
    "name of 64 bytes": Row(_named(64), TARGET, None, [], "d41d8cd9"),
    "name of 5681 bytes": Row(_named(5681), TARGET, None, [], "d41d8cd9"),
    "name of 5682 bytes": Row(_named(5682), TARGET, 11, [], "d41d8cd9"),
    "no index": Row(MEMBERS + TRAILER, OK, None, [], "d41d8cd9"),
    "empty index": Row(index() + MEMBERS + TRAILER, OK, None, [], "d41d8cd9"),
    "index after flash_params.dat": Row(
        P.member + ALL + A.member + B.member + TRAILER, OK, None, [(4, 16), (32, 40)], "1bc3074c"
    ),
    "index after a.bin": Row(P.member + A.member + ALL + B.member + TRAILER, TARGET, None, [(32, 40)], "064c6b0e"),
    "index of 4 bytes more": Row(
        cpio_member("dfuinfo0.dat", P.record + A.record + B.record + b"junk") + MEMBERS + TRAILER,
        OK,
        None,
        [(4, 16), (32, 40)],
        "1bc3074c",
    ),
    "two indexes": Row(
        index(P, A) + P.member + A.member + _SECOND + TRAILER, OK, None, [(4, 16), (32, 40)], "1bc3074c"
    ),
    "member that is not in the index": Row(
        ALL + P.member + A.member + _STRAY + B.member + TRAILER, OK, None, [(4, 16), (32, 40)], "1bc3074c"
    ),
    "record without a member": Row(ALL + P.member + A.member + TRAILER, TARGET, None, [(4, 16)], "f1117cda"),
    "wrong MD5, then no member": Row(
        index(P, replace(A, data=b"other"), B) + P.member + A.member + TRAILER, FIRMWARE, None, [(4, 16)], "f1117cda"
    ),
    "no member, then wrong MD5": Row(
        index(P, B, replace(A, data=b"other")) + P.member + A.member + TRAILER, TARGET, None, [(4, 16)], "f1117cda"
    ),
    "members in another order": Row(archive_of([P, A, B], [P, B, A]), OK, None, [(4, 16), (32, 40)], "1bc3074c"),
    "same name twice": Row(archive([A, _TWIN]), FIRMWARE, None, [(4, 16)], "80c531a2"),
    "two members in one sector": Row(archive([_A_HALF, _SHARING]), FIRMWARE, None, [(4, 8)], "9d24670b"),
    "the second without an erase": Row(archive([_A_HALF, replace(_SHARING, flags=8)]), OK, None, [(4, 8)], "0dc44957"),
    "stop after the trailer's header": Row(GOOD[: -len(TRAILER) + 110], OK, None, [(4, 16), (32, 40)], "1bc3074c"),
    "stop before the trailer": Row(GOOD[: -len(TRAILER)], OK, None, [(4, 16), (32, 40)], "1bc3074c"),
    "1 byte of b.bin missing": Row(_cut(5002), FIRMWARE, None, [(4, 16), (32, 40)], "8efa0935"),
    "cut after 300 bytes of b.bin": Row(_cut(300), FIRMWARE, None, [(4, 16), (32, 40)], "65605040"),
    "cut after 255 bytes of b.bin": Row(_cut(255), TARGET, None, [(4, 16)], "f1117cda"),
    "cut in the index": Row(GOOD[:300], OK, None, [], "d41d8cd9"),
    "cut in a file without MD5": Row(
        archive([replace(A, flags=16)])[: GOOD.index(A.data) + 1100], OK, None, [(4, 16)], "b4b95e80"
    ),
    "data after the trailer": Row(GOOD + content(3000, 4), OK, None, [(4, 16), (32, 40)], "1bc3074c"),
    "1 byte": Row(b"x", OK, None, [(0, 4)], "43a0f4c9"),
    "231 bytes of an archive": Row((TRAILER + bytes(200))[:231], OK, None, [(0, 4)], "9dfaf43d"),
    "232 bytes of an archive": Row((TRAILER + bytes(200))[:232], OK, None, [], "d41d8cd9"),
    "5000 bytes that are no archive": Row(_RAW, OK, None, [(0, 8)], "c7dd14e0"),
    "address not a multiple of 4": Row(_one(0x2002, 9000), FIRMWARE, None, [(8, 20)], "2d3937e3"),
    "the same with a short file": Row(_one(0x2002, 100), OK, None, [(8, 12)], "9a7a269e"),
    "address in mid-sector": Row(_one(0x2104, 9000), OK, None, [(8, 20)], "4059d184"),
    "empty file": Row(_one(0x2000, 0), OK, None, [], "d41d8cd9"),
    "empty file in mid-sector": Row(_one(0x2100, 0), OK, None, [(8, 12)], "6ae59e64"),
    "3 bytes": Row(_one(0x2000, 3), OK, None, [(8, 12)], "ea8cba84"),
    "to the end of the chip": Row(_one(2 * MIB - SECTOR, SECTOR, 2 * MIB), OK, None, [(2044, 2048)], "51940156"),
    "across the end of the chip": Row(_one(2 * MIB - SECTOR, 2 * SECTOR, 2 * MIB), FIRMWARE, None, [], "d41d8cd9"),
    "beyond the end of the chip": Row(_one(2 * MIB, SECTOR, 2 * MIB), FIRMWARE, None, [], "d41d8cd9"),
    "last 64 bytes only in part below it": Row(
        _one(2 * MIB - SECTOR + 32, SECTOR - 32, 2 * MIB), FIRMWARE, None, [(2044, 2048)], "8594387d"
    ),
    "no flash_params.dat, below 2 MiB": Row(_one(2 * MIB - SECTOR, SECTOR, None), OK, None, [(2044, 2048)], "51940156"),
    "no flash_params.dat, above 2 MiB": Row(_one(2 * MIB, SECTOR, None), FIRMWARE, None, [], "d41d8cd9"),
    "flash_params.dat of 31 bytes": Row(_with_params(flash_params()[:31], FAR), FIRMWARE, None, [], "d41d8cd9"),
    "flash_params.dat after the file": Row(archive_of([FAR, P], [FAR, P]), FIRMWARE, None, [], "d41d8cd9"),
    "flash_params.dat before the index": Row(
        P.member + index(P, FAR) + FAR.member + TRAILER, FIRMWARE, None, [], "d41d8cd9"
    ),
    "at 16 MiB": Row(_one(16 * MIB, SECTOR, 32 * MIB), OK, None, [(0, 4)], "51940156"),
    "across 16 MiB": Row(_one(16 * MIB - SECTOR, 2 * SECTOR, 32 * MIB), OK, None, [(0, 4), (16380, 16384)], "eee23a8c"),
    "address fffff000": Row(_one(0xFFFFF000, 3 * SECTOR, 16 * MIB), FIRMWARE, None, [], "d41d8cd9"),
    "address 80000000": Row(_one(0x80000000, SECTOR, 16 * MIB), FIRMWARE, None, [], "d41d8cd9"),
    "unknown flag": Row(_one(0x2000, 100, flags=0x20), OK, None, [(8, 12)], "e1c257f2"),
    "flag 8, without an erase": Row(_one(0x2000, 100, flags=8), FIRMWARE, None, [], "d41d8cd9"),
    "flag 24, nor a check": Row(_one(0x2000, 100, flags=24), OK, None, [], "d41d8cd9"),
    "65536 bytes": Row(_one(0x10000, 65536), OK, None, [(64, 128)], "09af05e1"),
    "131072 bytes from mid-block": Row(_one(0x1F000, 131072), OK, None, [(124, 252)], "7bf5b894"),
}


def send(device: Device, stream: bytes) -> tuple[int, int | None]:
    """Send a stream; return the status that ends it, and the number of the block that shows it."""
    for number, start in enumerate([*range(0, len(stream), 64), len(stream)]):
        block = stream[start : start + 64]
        try:
            device.control(0x21, 1, number, block, 0)
        except ControlTimeout:
            return SILENT, number
        status, _, _, _, state, _ = device.control(0xA1, 3, 0, b"", 6)
        if state == 10 or not block:
            return status, number if block else None
    raise AssertionError


def erased(flash: bytes) -> list[tuple[int, int]]:
    """Return the ranges of sectors that are not zero, in KiB."""
    ranges: list[tuple[int, int]] = []
    for mib in range(0, len(flash), MIB):
        if flash[mib : mib + MIB] == bytes(MIB):
            continue
        for begin in range(mib, mib + MIB, SECTOR):
            if flash[begin : begin + SECTOR] != bytes(SECTOR):
                kib = begin // KIB
                first = ranges.pop()[0] if ranges and ranges[-1][1] == kib else kib
                ranges.append((first, kib + SECTOR // KIB))
    return ranges


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_outcome_of_streams(name: str, row: Row) -> None:
    device = new_device(name, dirty=True)
    assert send(device, row.stream) == (row.status, row.block)
    flash = device.flash.read(0, 16 * MIB)
    assert erased(flash) == row.erased
    programmed = b"".join(flash[begin * KIB : end * KIB] for begin, end in row.erased)
    assert hashlib.md5(programmed, usedforsecurity=False).hexdigest()[:8] == row.digest
