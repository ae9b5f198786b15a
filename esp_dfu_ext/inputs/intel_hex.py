"""Intel HEX files, read with the library that esptool uses."""

from __future__ import annotations

import io
from pathlib import Path

from ..errors import WrongInputError
from ..units import format_size
from .merged import Stretch
from .recognise import LARGEST_FILE

_LONGEST_TEXT = 24 << 20  # bytes, for 8 MiB of flash memory; the library takes 150 times as much as the data


def read_intel_hex(path: Path, text: bytes) -> list[Stretch]:
    """Return the stretches of flash memory in an Intel HEX file, by address.

    Raises:
        WrongInputError: It is damaged, too long, or has addresses that are not in flash memory.
    """
    from intelhex import HexReaderError, IntelHex

    if len(text) > _LONGEST_TEXT:
        raise WrongInputError(
            f"{path} is an Intel HEX file of more than {format_size(_LONGEST_TEXT)}; use a .bin instead.",
            path=path,
            kind="unknown",
        )
    content = IntelHex()
    try:
        content.loadhex(io.StringIO(text.decode("ascii")))
    except (HexReaderError, UnicodeDecodeError) as error:
        raise WrongInputError(f"{path} is a damaged Intel HEX file: {error}.", path=path, kind="unknown") from error
    found = content.segments()
    if not found or found[-1][1] > LARGEST_FILE:
        where = f"at {found[-1][0]:#x}" if found else "at no address"
        raise WrongInputError(
            f"{path} is an Intel HEX file with data {where}; expected addresses in flash memory.",
            path=path,
            kind="unknown",
        )
    return [Stretch(start, content.tobinstr(start, end - 1)) for start, end in found]
