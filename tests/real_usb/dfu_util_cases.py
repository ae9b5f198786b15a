"""Calls of dfu-util, and what comes of them with dfu-util 0.11 and with `esp-dfu dfu-util`.

test_dfu_util.py runs them on the umockdev bench with both programs. ``python -m tests.real_usb.dfu_util_cases`` prints
the table of docs/dfu-util.md, and tests/test_dfu_util_callers.py compares the page with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """A call, and its outcome: exit code, and what was listed, written, read or changed.

    Attributes:
        call: Options; ``IMAGE`` and other words in capitals stand for files.
        boards: Boards of the bench.
        theirs: Outcome with dfu-util.
        ours: Outcome with esp-dfu; empty if it is the same.
        why: Why they differ.
    """

    call: str
    boards: str
    theirs: str
    ours: str = ""
    why: str = ""


THREE = "esp32s2,esp32s3+dfu,plain+dfu"

CASES = [
    # The command line.
    Case("-V", "esp32s3", "?"),
    Case("-h", "esp32s3", "?"),
    Case("", "esp32s3", "?"),
    Case("-Q", "esp32s3", "?"),
    Case("-l extra", "esp32s3", "?"),
    Case("-l -i x", "esp32s3", "?"),
    Case("-l -d xyz", "esp32s3", "?"),
    Case("-vRlp1-1", "esp32s3", "?"),
    Case("--wait -l", "esp32s3", "?"),
    # Which device.
    Case("-l", THREE, "?"),
    Case("-l -p 9-9", THREE, "?"),
    Case("-l -d 303a:2", THREE, "?"),
    Case("-l -d 303a:2,303a:9", THREE, "?"),
    Case("-l -d ,1209:2", THREE, "?"),
    Case("-l -d 1209:1", "esp32s2,esp32s3+dfu,plain", "?"),
    Case("-l -d *,-", THREE, "?"),
    Case("-l -p 1-2", THREE, "?"),
    Case("-l -n 3", THREE, "?"),
    Case("-l -c 1 -i 2", THREE, "?"),
    Case("-l -a 1", THREE, "?"),
    Case("-l -a external", THREE, "?"),
    Case("-l -S 0,plain", THREE, "?"),
    Case("-l", "esp32s3+no-access", "?"),
    # Download to a chip.
    Case("-D IMAGE", "esp32s3+dfu", "?"),
    Case("-d 303a:9 -D IMAGE", "esp32s3", "?"),
    Case("-d 303a:9 --path 1-2 -D IMAGE", "esp32s3,esp32s3", "?"),
    Case("-d 303a: -a 0 -D IMAGE", "esp32s3+dfu", "?"),
    Case("-d ,303a:9 -D IMAGE", "esp32s3", "?"),
    Case("-S 7c:df:a1:00:00:02 -D IMAGE", "esp32s3+dfu,esp32s3+dfu", "?"),
    Case("-D - < IMAGE", "esp32s3+dfu", "?"),
    Case("-w -D IMAGE", "esp32s3+dfu", "?"),
    Case("-R -D IMAGE", "esp32s3+dfu", "?"),
    Case("-t 32 -D IMAGE", "esp32s3+dfu", "?"),
    Case("-t 128 -D IMAGE", "esp32s3+dfu", "?"),
    Case("-E 1 -D IMAGE", "esp32s3", "?"),
    Case("-E 1 -D IMAGE", "esp32s3+no-return", "?"),
    Case("-a 1 -D IMAGE", "esp32s3", "?"),
    Case("-D IMAGE", "esp32s3,esp32s3", "?"),
    Case("-D IMAGE", "esp32s2", "?"),
    Case("-d 303a:2 -D IMAGE", "esp32s2", "?"),
    Case("-D IMAGE", "plain+dfu", "?"),
    Case("-d 303a:9 -a 0 -D FILE", "plain+dfu", "?"),
    Case("-D IMAGE", "esp32s3+no-access", "?"),
    Case("-D IMAGE", "esp32s3+dfu+busy", "?"),
    Case("-D IMAGE", "esp32s3+dfu+stall@50", "?"),
    Case("-D IMAGE", "esp32s3+dfu+error@50", "?"),
    Case("-D IMAGE", "esp32s3+dfu+vanish@50", "?"),
    Case("-D DIFFERS", "esp32s3+dfu", "?"),
    Case("-D DAMAGED", "esp32s3+dfu", "?"),
    Case("-d 303a:9 -D FILE", "esp32s3+dfu", "?"),
    Case("-D NONE", "esp32s3+dfu", "?"),
    # Download to another device.
    Case("-d 1209:1 -a 1 -D DFUFILE", "plain", "?"),
    Case("-a external -D FILE", "plain+dfu", "?"),
    Case("-a 0 -t 128 -D DFUFILE", "plain+dfu", "?"),
    Case("-D FILE", "plain+dfu", "?"),
    Case("-d 1209:2 -a 0 -D OTHERFILE", "plain+dfu", "?"),
    Case("-a 0 -D FILE", "dfuse+dfu", "?"),
    Case("-a 0 -s 0x08000000:leave -D FILE", "plain+dfu", "?"),
    # Upload.
    Case("-a 0 -U NEW", "plain+dfu", "?"),
    Case("-a 0 -Z 99 -U NEW", "plain+dfu", "?"),
    Case("-U OLD", "esp32s3", "?"),
    Case("-U NEW", "esp32s3+dfu", "?"),
    # Detach.
    Case("-e", "esp32s3", "?"),
    Case("-e", "esp32s3+dfu", "?"),
    Case("-e -R", "esp32s3+dfu", "?"),
]


def table() -> Iterator[str]:
    """Yield the lines of the table in docs/dfu-util.md: calls that end differently first."""
    for different in (True, False):
        yield "| call | boards | dfu-util 0.11 | esp-dfu | why |" if different else "| call | boards | both |"
        yield "|---|---|---|---|---|" if different else "|---|---|---|"
        for case in CASES:
            if bool(case.ours) != different:
                continue
            call, boards = f"`{case.call}`" if case.call else "(nothing)", case.boards.replace(",", ", ")
            cells = [case.theirs, case.ours, case.why] if different else [case.theirs]
            yield f"| {' | '.join([call, boards, *cells])} |"
        if different:
            yield ""


if __name__ == "__main__":
    print("\n".join(table()))
