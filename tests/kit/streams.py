"""Good streams, and bad ones with their effect in the ROM: one entry for each that was tried."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

from .archives import (
    FILES,
    KIB,
    MIB,
    TRAILER,
    File,
    archive,
    archive_of,
    content,
    cpio_member,
    fill,
    index,
    params,
)
from .host import ERR_FILE, ERR_FIRMWARE, ERR_TARGET, OK

# Files that the ROM flashes correctly, and the chip size of their flash_params.dat.
GOOD_STREAMS: dict[str, tuple[tuple[File, ...], int]] = {
    "usual": (FILES, 2 * MIB),
    "one byte": ((File(0, "boot.bin", content(1)),), MIB),
    "neighbours": ((File(0, "boot.bin", content(4096)), File(0x1000, "next.bin", content(4096, 1))), 4 * MIB),
    "to the end": ((File(4 * MIB - 4096, "last.bin", content(4096)),), 4 * MIB),
    "multiple of 4": ((File(0x1004, "inside.bin", content(100)),), 4 * MIB),
    "63 bytes": ((File(0x1000, "n" * 63, content(3000)),), 4 * MIB),
    "UTF-8": ((File(0x1000, "ü" * 31 + "x", content(3000)),), 4 * MIB),
    "64 records": (tuple(File(0x1000 * n, f"f{n}", content(40 + n, n)) for n in range(63)), 4 * MIB),
}

A = File(0x1000, "a.bin", content(3000, 1))
B = File(0x8000, "b.bin", content(3000, 2))
P = params()
ALL = index(P, A, B)


@dataclass(frozen=True)
class BadStream:
    """A bad stream and its effect.

    Attributes:
        name: What is wrong.
        stream: The bytes to download.
        status: bStatus at the end; None if the ROM stops answering.
        present: Data in flash memory at the end.
        absent: Data that the image was meant to put into flash memory, and that is not there.
        erased: Ranges (address, size) that are still erased.
        only_at_end: No block before the zero-length one reports an error.
        host_can_know: A host that sees only the stream can tell that it is bad.
        flash_size: Size of the real flash memory.
    """

    name: str
    stream: bytes
    status: int | None
    present: tuple[File, ...] = ()
    absent: tuple[File, ...] = ()
    erased: tuple[tuple[int, int], ...] = ()
    only_at_end: bool = True
    host_can_know: bool = True
    flash_size: int = 4 * MIB


def _raw(data: bytes, address: int = 0) -> File:
    return File(address, "", data)


def _shortened(size: int) -> bytes:
    """Return the first `size` bytes of an archive without files."""
    stream = archive_of([], [])
    assert len(stream) >= size
    return stream[:size]


def _records(count: int) -> bytes:
    """Return an archive with that many records, flash_params.dat included; the files have 4 bytes."""
    return archive([File(0x1000 * n, f"f{n}", content(4, n)) for n in range(1, count)])


def _not_programmed(name: str, stream: bytes, present: File, absent: File, flash_size: int = 4 * MIB) -> BadStream:
    """Return a stream of which the ROM programs one file and not the other, which the MD5 shows."""
    return BadStream(name, stream, ERR_FIRMWARE, (present,), (absent,), flash_size=flash_size)


def _without_member(name: str, stream: bytes) -> BadStream:
    """Return a stream in which the ROM never finds the file at 0x1000."""
    return BadStream(name, stream, ERR_TARGET, (B,), erased=((0x1000, 0x1000),))


@cache
def bad_streams() -> tuple[BadStream, ...]:
    """Return all of them."""
    members = P.member + A.member + B.member
    sector, sectors = content(1000, 7), content(9000, 8)
    stray = cpio_member("stray.bin", content(3000, 3))
    neighbour = File(0x1C00, "b.bin", content(1000, 2))
    part, next_part = File(0x10000, "app.bin", content(6000, 4)), File(0x10000 + 6000, "app.bin.1", content(6000, 5))
    unaligned = replace(A, address=0x1002)
    twin = File(0x8000, "a.bin", content(3000, 2))
    far = File(0x210000, "far.bin", content(3000, 5))
    across = File(2 * MIB - 4096, "across.bin", content(8192, 5))
    above = File(16 * MIB + 0x3000, "above.bin", content(3000, 5))
    onto_a = File(16 * MIB + 0x1000, "b", content(3000, 6))
    over_the_end = File(16 * MIB - 4096, "end.bin", content(8192, 5))
    wrapping = File(3 * MIB + 0x5000, "wraps.bin", content(3000, 5))
    too_far = File(0x90000, "far.bin", content(3000, 5))
    claim = ALL + P.member + cpio_member(A.name, A.data, 0xFFFFFFFF) + B.member + TRAILER
    all_erased = ((0, MIB),)
    return (
        BadStream("not CPIO", sector, OK, (_raw(sector),)),
        BadStream("not CPIO, several sectors", sectors, OK, (_raw(sectors),)),
        BadStream("not CPIO, 1 byte", b"x", OK, (_raw(b"x"),)),
        BadStream("CPIO of another kind", b"070702" + ALL[6:] + members + TRAILER, OK, erased=((MIB, MIB),)),
        BadStream("231 bytes of CPIO", _shortened(231), OK, (_raw(_shortened(231)),)),
        BadStream("bare trailer", TRAILER, OK, (_raw(TRAILER),)),
        BadStream("no index", members + TRAILER, OK, erased=all_erased),
        BadStream("empty index", index() + members + TRAILER, OK, erased=all_erased),
        BadStream("trailer only, padded", fill(TRAILER, 10240), OK, erased=all_erased),
        BadStream("index after the members", members + ALL + TRAILER, ERR_TARGET, absent=(A, B), erased=all_erased),
        _without_member("index between the members", P.member + A.member + ALL + B.member + TRAILER),
        BadStream(
            "member that is not in the index",
            ALL + P.member + A.member + stray + B.member + TRAILER,
            OK,
            present=(A, B),
            erased=((0x2000, 0x6000), (0x9000, MIB)),
        ),
        _without_member("record without a member", ALL + P.member + B.member + TRAILER),
        _not_programmed("two members in one sector", archive([A, neighbour]), neighbour, A),
        _not_programmed("parts that end inside a sector", archive([part, next_part]), next_part, part),
        _not_programmed("address not a multiple of 4", archive([unaligned, B]), B, unaligned),
        BadStream(
            "same name twice",
            archive([A, twin]),
            ERR_FIRMWARE,
            present=(replace(twin, address=A.address),),
            absent=(A, twin),
            erased=((0x8000, 0x1000),),
        ),
        _without_member("name of 64 bytes", archive([replace(A, name="n" * 64), B])),
        _without_member("name of 65 bytes", archive([replace(A, name="n" * 65), B])),
        _without_member("UTF-8 name of 64 bytes", archive([replace(A, name="ü" * 32), B])),
        BadStream("65 records", _records(65), ERR_FILE, only_at_end=False, erased=all_erased),
        _not_programmed("no flash_params.dat, beyond 2 MiB", archive([A, far], None), A, far),
        _not_programmed("no flash_params.dat, across 2 MiB", archive([A, across], None), A, across),
        _not_programmed("beyond the chip size of flash_params.dat", archive([A, too_far], 512 * KIB), A, too_far),
        BadStream(
            "above 16 MiB",
            archive([A, above], 32 * MIB),
            OK,
            present=(A, replace(above, address=0x3000)),
            flash_size=32 * MIB,
        ),
        BadStream(
            "across 16 MiB",
            archive([over_the_end], 32 * MIB),
            OK,
            present=(_raw(over_the_end.data[:4096], 16 * MIB - 4096), _raw(over_the_end.data[4096:])),
            flash_size=32 * MIB,
        ),
        _not_programmed(
            "above 16 MiB, onto another file",
            archive([A, onto_a], 32 * MIB),
            replace(onto_a, address=0x1000),
            A,
            flash_size=32 * MIB,
        ),
        BadStream(
            "chip size larger than the flash memory",
            archive([A, wrapping]),
            OK,
            present=(A, replace(wrapping, address=MIB + 0x5000)),
            flash_size=2 * MIB,
            host_can_know=False,
        ),
        BadStream("filesize ffffffff", claim, None, absent=(B,), only_at_end=False),
    )
