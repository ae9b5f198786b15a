"""Streams that nobody should send, and what the ROM makes of them: one entry for each that was tried."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from .archives import (
    KIB,
    MIB,
    PARAMS_FLAGS,
    TRAILER,
    File,
    archive,
    content,
    cpio_member,
    fill,
    flash_params,
    index_record,
)
from .host import ERR_FILE, ERR_FIRMWARE, ERR_TARGET, OK

A = File(0x1000, "a.bin", content(3000, 1))
B = File(0x8000, "b.bin", content(3000, 2))


@dataclass(frozen=True)
class BadStream:
    """A stream, and what is left of it.

    Attributes:
        status: bStatus at the end.
        present: (address, data) that are in the flash then.
        absent: (address, data) that should be there and are not.
        erased: (address, size) that are as they came.
        only_at_end: no block before the zero-length one reports anything.
        host_can_know: a host that looks at the stream alone can tell that it is bad.
        flash_size: of the real flash.
    """

    name: str
    stream: bytes
    status: int
    present: tuple[tuple[int, bytes], ...] = ()
    absent: tuple[tuple[int, bytes], ...] = ()
    erased: tuple[tuple[int, int], ...] = ()
    only_at_end: bool = True
    host_can_know: bool = True
    flash_size: int = 4 * MIB


def _param_parts(chip_size: int = 4 * MIB) -> tuple[bytes, bytes]:
    data = flash_params(chip_size)
    return index_record(0, "flash_params.dat", data, PARAMS_FLAGS), cpio_member("flash_params.dat", data)


def _put(file: File) -> tuple[int, bytes]:
    return file.address, file.data


def _stray_length(size: int) -> bytes:
    """A sound archive of exactly `size` bytes: trailer, with its name field longer than the name."""
    stream = cpio_member("dfuinfo0.dat", b"") + TRAILER
    assert len(stream) >= size
    return stream[:size]


def _records(count: int) -> bytes:
    """An archive with that many records, flash_params.dat among them; all but one file are 4 bytes long."""
    files = [File(0x1000 * n, f"f{n}", content(4, n)) for n in range(1, count)]
    return archive(files)


def _named(name: str) -> File:
    return File(0x1000, name, content(3000, 1))


def _claims_ffffffff() -> bytes:
    param_record, param_member = _param_parts()
    index = param_record + index_record(A.address, A.name, A.data) + index_record(B.address, B.name, B.data)
    stream = cpio_member("dfuinfo0.dat", index) + param_member
    return stream + cpio_member(A.name, A.data, 0xFFFFFFFF) + cpio_member(B.name, B.data) + TRAILER


@cache
def bad_streams() -> tuple[BadStream, ...]:
    """All of them."""
    param_record, param_member = _param_parts()
    members = param_member + cpio_member(A.name, A.data) + cpio_member(B.name, B.data)
    index = cpio_member(
        "dfuinfo0.dat", param_record + index_record(A.address, A.name, A.data) + index_record(B.address, B.name, B.data)
    )
    raw = content(1000, 7)
    long_raw = content(9000, 8)
    stray = cpio_member("stray.bin", content(3000, 3))
    neighbour = File(0x1C00, "b.bin", content(1000, 2))
    odd_parts = [
        File(0x10000, "app.bin", content(6000, 4)),
        File(0x10000 + 6000, "app.bin.1", content(6000, 5)),
    ]
    unaligned = File(0x1002, "a.bin", content(3000, 1))
    twin = File(0x8000, "a.bin", content(3000, 2))
    second_md5_first = (A.address, twin.data)
    far = File(0x210000, "far.bin", content(3000, 5))
    across = File(2 * MIB - 4096, "across.bin", content(8192, 5))
    above = File(16 * MIB + 0x3000, "above.bin", content(3000, 5))
    over_the_end = File(16 * MIB - 4096, "end.bin", content(8192, 5))
    wrapping = File(3 * MIB + 0x5000, "wraps.bin", content(3000, 5))
    too_far = File(0x90000, "far.bin", content(3000, 5))
    return (
        BadStream("not CPIO", raw, OK, present=((0, raw),)),
        BadStream("not CPIO, several sectors", long_raw, OK, present=((0, long_raw),)),
        BadStream("not CPIO, 1 byte", b"x", OK, present=((0, b"x"),)),
        BadStream("CPIO of another kind", b"070702" + index[6:] + members + TRAILER, OK, erased=((MIB, MIB),)),
        BadStream("231 bytes of CPIO", _stray_length(231), OK, present=((0, _stray_length(231)),)),
        BadStream("bare trailer", TRAILER, OK, present=((0, TRAILER),)),
        BadStream("no index", members + TRAILER, OK, erased=((0, MIB),)),
        BadStream("empty index", cpio_member("dfuinfo0.dat", b"") + members + TRAILER, OK, erased=((0, MIB),)),
        BadStream("trailer only, padded", fill(TRAILER, 10240), OK, erased=((0, MIB),)),
        BadStream(
            "index after the members",
            members + index + TRAILER,
            ERR_TARGET,
            absent=(_put(A), _put(B)),
            erased=((0, MIB),),
        ),
        BadStream(
            "index between the members",
            param_member + cpio_member(A.name, A.data) + index + cpio_member(B.name, B.data) + TRAILER,
            ERR_TARGET,
            present=(_put(B),),
            erased=((0x1000, 0x1000),),
        ),
        BadStream(
            "member that is not in the index",
            index + param_member + cpio_member(A.name, A.data) + stray + cpio_member(B.name, B.data) + TRAILER,
            OK,
            present=(_put(A), _put(B)),
            erased=((0x2000, 0x6000), (0x9000, MIB)),
        ),
        BadStream(
            "record without a member",
            index + param_member + cpio_member(B.name, B.data) + TRAILER,
            ERR_TARGET,
            present=(_put(B),),
            erased=((0x1000, 0x1000),),
        ),
        BadStream(
            "two members in one sector",
            archive([A, neighbour]),
            ERR_FIRMWARE,
            present=(_put(neighbour),),
            absent=(_put(A),),
        ),
        BadStream(
            "parts that end inside a sector",
            archive(odd_parts),
            ERR_FIRMWARE,
            present=(_put(odd_parts[1]),),
            absent=(_put(odd_parts[0]),),
        ),
        BadStream(
            "address no multiple of 4",
            archive([unaligned, B]),
            ERR_FIRMWARE,
            present=(_put(B),),
            absent=(_put(unaligned),),
        ),
        BadStream(
            "same name twice",
            archive([A, twin]),
            ERR_FIRMWARE,
            present=(second_md5_first,),
            absent=(_put(A), _put(twin)),
            erased=((0x8000, 0x1000),),
        ),
        BadStream(
            "name of 64 bytes",
            archive([_named("n" * 64), B]),
            ERR_TARGET,
            present=(_put(B),),
            erased=((0x1000, 0x1000),),
        ),
        BadStream(
            "name of 65 bytes",
            archive([_named("n" * 65), B]),
            ERR_TARGET,
            present=(_put(B),),
            erased=((0x1000, 0x1000),),
        ),
        BadStream(
            "UTF-8 name of 64 bytes",
            archive([_named("ü" * 32), B]),
            ERR_TARGET,
            present=(_put(B),),
            erased=((0x1000, 0x1000),),
        ),
        BadStream("65 records", _records(65), ERR_FILE, only_at_end=False, erased=((0, MIB),)),
        BadStream(
            "no flash_params.dat, beyond 2 MiB",
            archive([A, far], None),
            ERR_FIRMWARE,
            present=(_put(A),),
            absent=(_put(far),),
        ),
        BadStream(
            "no flash_params.dat, across 2 MiB",
            archive([A, across], None),
            ERR_FIRMWARE,
            present=(_put(A),),
            absent=(_put(across),),
        ),
        BadStream(
            "beyond the chip size it tells",
            archive([A, too_far], 512 * KIB),
            ERR_FIRMWARE,
            present=(_put(A),),
            absent=(_put(too_far),),
        ),
        BadStream(
            "above 16 MiB",
            archive([A, above], 32 * MIB),
            OK,
            flash_size=32 * MIB,
            present=(_put(A), (0x3000, above.data)),
        ),
        BadStream(
            "across 16 MiB",
            archive([over_the_end], 32 * MIB),
            OK,
            flash_size=32 * MIB,
            present=((16 * MIB - 4096, over_the_end.data[:4096]), (0, over_the_end.data[4096:])),
        ),
        BadStream(
            "above 16 MiB, onto another file",
            archive([A, File(16 * MIB + 0x1000, "b", content(3000, 6))], 32 * MIB),
            ERR_FIRMWARE,
            flash_size=32 * MIB,
            present=((0x1000, content(3000, 6)),),
            absent=(_put(A),),
        ),
        BadStream(
            "chip size larger than the flash",
            archive([A, wrapping], 4 * MIB),
            OK,
            flash_size=2 * MIB,
            present=(_put(A), (MIB + 0x5000, wrapping.data)),
            host_can_know=False,
        ),
        BadStream(
            "filesize ffffffff",
            _claims_ffffffff(),
            ERR_TARGET,
            absent=(_put(B),),
            present=((A.address, A.data), (A.address + 3000, cpio_member(B.name, B.data))),
        ),
    )
