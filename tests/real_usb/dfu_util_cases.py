"""Calls of dfu-util, and what comes of them with dfu-util 0.11 and with `esp-dfu dfu-util`.

test_dfu_util.py runs them on the umockdev bench with both programs. ``python -m tests.real_usb.dfu_util_cases`` prints
the tables of docs/dfu-util.md, and tests/test_dfu_util_callers.py compares the page with them.
"""

from __future__ import annotations

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
    Case("-V", "esp32s3", "0"),
    Case("-h", "esp32s3", "0"),
    Case("", "esp32s3", "64"),
    Case("-Q", "esp32s3", "64"),
    Case("-l extra", "esp32s3", "64"),
    Case("-l -i x", "esp32s3", "64"),
    Case("-l -d xyz", "esp32s3", "0; listed 1-1", "64", "dfu-util takes an ID that is not a number for any ID."),
    Case("-vRlp1-1", "esp32s3", "0; listed 1-1"),
    Case(
        "--wait -l",
        "esp32s3",
        "64",
        "0; listed 1-1",
        "dfu-util's long form swallows the next option, contrary to its manual page.",
    ),
    # Which device.
    Case("-l", THREE, "0; listed 1-1, 1-2, 1-3"),
    Case("-l -p 9-9", THREE, "0"),
    Case(
        "-l -d 303a:2",
        THREE,
        "0; listed 1-1, 1-2, 1-3",
        "0; listed 1-1",
        "With run-time IDs alone, dfu-util takes every device in DFU mode. A chip's ROM keeps its IDs.",
    ),
    Case("-l -d 303a:2,303a:9", THREE, "0; listed 1-1, 1-2"),
    Case("-l -d ,1209:2", THREE, "0; listed 1-3"),
    Case(
        "-l -d 1209:1",
        "esp32s2,esp32s3+dfu,plain",
        "0; listed 1-2, 1-3",
        "0; listed 1-3",
        "As above; of another device, the vendor must be the same in DFU mode.",
    ),
    Case("-l -d *,-", THREE, "0; listed 1-1"),
    Case("-l -p 1-2", THREE, "0; listed 1-2"),
    Case("-l -n 3", THREE, "0; listed 1-2"),
    Case("-l -c 1 -i 2", THREE, "0; listed 1-1, 1-2"),
    Case("-l -a 1", THREE, "0; listed 1-1, 1-3"),
    Case("-l -a external", THREE, "0; listed 1-1, 1-3"),
    Case("-l -S 0,plain", THREE, "0; listed 1-1, 1-3"),
    Case(
        "-l",
        "esp32s3+no-access",
        "0",
        "0; listed 1-1",
        "A board without permission is there; stderr says what is missing.",
    ),
    # Download to a chip.
    Case("-D IMAGE", "esp32s3+dfu", "0; flashed 1-1"),
    Case("-d 303a:9 -D IMAGE", "esp32s3", "0; flashed 1-1, 1-1 in DFU mode"),
    Case("-d 303a:9 --path 1-2 -D IMAGE", "esp32s3,esp32s3", "0; flashed 1-2, 1-2 in DFU mode"),
    Case("-d 303a: -a 0 -D IMAGE", "esp32s3+dfu", "0; flashed 1-1"),
    Case("-d ,303a:9 -D IMAGE", "esp32s3", "74"),
    Case("-S 7c:df:a1:00:00:02 -D IMAGE", "esp32s3+dfu,esp32s3+dfu", "0; flashed 1-2"),
    Case("-D - < IMAGE", "esp32s3+dfu", "0; flashed 1-1"),
    Case("-w -D IMAGE", "esp32s3+dfu", "0; flashed 1-1"),
    Case(
        "-R -D IMAGE",
        "esp32s3+dfu+held",
        "251; flashed 1-1, 1-1 in run-time mode",
        "0; flashed 1-1, 1-1 in run-time mode",
        "dfu-util's exit code comes from libusb here: the chip restarts during the reset.",
    ),
    Case("-t 32 -D IMAGE", "esp32s3+dfu", "0; flashed 1-1"),
    Case(
        "-t 128 -D IMAGE",
        "esp32s3+dfu",
        "74",
        "0; flashed 1-1",
        "The ROM takes 64 bytes and hangs with more, so esp-dfu sends no more.",
    ),
    Case("-E 1 -D IMAGE", "esp32s3", "0; flashed 1-1, 1-1 in DFU mode"),
    Case("-E 1 -D IMAGE", "esp32s3+no-return", "74; 1-1 gone"),
    Case(
        "-a 1 -D IMAGE",
        "esp32s3",
        "74; 1-1 in DFU mode",
        "74",
        "A ROM has one setting, so the wrong one is found before DFU_DETACH.",
    ),
    Case("-D IMAGE", "esp32s3,esp32s3", "74"),
    Case("-D IMAGE", "esp32s2", "74"),
    Case("-d 303a:2 -D IMAGE", "esp32s2", "64; 1-1 in DFU mode", "64", "esp-dfu compares the IDs before DFU_DETACH."),
    Case("-D IMAGE", "plain+dfu", "74"),
    Case(
        "-d 303a:9 -a 0 -D FILE",
        "plain+dfu",
        "0; wrote alternate setting 0 of 1-1",
        "74",
        "As with `-l -d 303a:2`: dfu-util writes to a device that has neither of the IDs.",
    ),
    Case("-D IMAGE", "esp32s3+no-access", "74"),
    Case("-D IMAGE", "esp32s3+dfu+busy", "74"),
    Case(
        "-D IMAGE",
        "esp32s3+dfu+stall@50",
        "74; wrote other bytes to 1-1, 1-1 left in dfuDNLOAD-IDLE",
        "0; flashed 1-1",
        "esp-dfu sends the image again if one transfer fails.",
    ),
    Case(
        "-D IMAGE",
        "esp32s3+dfu+error@50",
        "74; wrote other bytes to 1-1, 1-1 left in dfuERROR",
        "74; wrote other bytes to 1-1",
        "esp-dfu leaves the board in dfuIDLE.",
    ),
    Case("-D IMAGE", "esp32s3+dfu+vanish@50", "74; wrote other bytes to 1-1, 1-1 gone"),
    Case(
        "-D DIFFERS",
        "esp32s3+dfu",
        "0; wrote other bytes to 1-1, 1-1 left in dfuERROR",
        "65",
        "The MD5s are checked before a byte is sent. dfu-util reports success although the chip reports errFIRMWARE.",
    ),
    Case(
        "-D DAMAGED",
        "esp32s3+dfu",
        "0; flashed 1-1",
        "65",
        "The CRC of the DFU suffix is wrong. dfu-util takes the file for one without a suffix.",
    ),
    Case(
        "-d 303a:9 -D FILE",
        "esp32s3+dfu",
        "0; wrote other bytes to 1-1",
        "65",
        "The ROM writes a file that is not an image to address 0, and reports success.",
    ),
    Case("-D NONE", "esp32s3+dfu", "66"),
    # Download to another device.
    Case("-d 1209:1 -a 1 -D DFUFILE", "plain", "0; wrote alternate setting 1 of 1-1, 1-1 in DFU mode"),
    Case("-a external -D FILE", "plain+dfu", "0; wrote alternate setting 1 of 1-1"),
    Case("-a 0 -t 128 -D DFUFILE", "plain+dfu", "0; wrote alternate setting 0 of 1-1"),
    Case("-D FILE", "plain+dfu", "74"),
    Case("-d 1209:2 -a 0 -D OTHERFILE", "plain+dfu", "64"),
    Case(
        "-a 0 -D FILE", "dfuse+dfu", "74", "64", "esp-dfu has no DfuSe. (dfu-util finds this test's device incomplete.)"
    ),
    Case("-a 0 -s 0x08000000:leave -D FILE", "plain+dfu", "74", "64", "As above."),
    # Upload.
    Case("-a 0 -U NEW", "plain+dfu", "0; 5120 bytes, right"),
    Case("-a 0 -Z 99 -U NEW", "plain+dfu", "0; 5120 bytes, right"),
    Case("-U OLD", "esp32s3", "73; 1-1 in DFU mode", "73", "esp-dfu looks at the file before DFU_DETACH."),
    Case(
        "-U NEW",
        "esp32s3+dfu",
        "0; 4194304 bytes, wrong",
        "0; 4194304 bytes, right",
        "Beyond 2 MiB the ROM sends arbitrary bytes until it is told the size of flash memory.",
    ),
    # Detach.
    Case("-e", "esp32s3", "0; 1-1 in DFU mode"),
    Case(
        "-e",
        "esp32s3+dfu",
        "0; 1-1 left in appIDLE",
        "0",
        "In DFU mode the ROM refuses DFU_DETACH and leaves dfuIDLE; esp-dfu does not send it.",
    ),
]


def table(*, different: bool) -> list[str]:
    """Return the lines of a table of docs/dfu-util.md: the calls that end differently, or the others."""
    head = ["call", "boards", *(["dfu-util 0.11", "esp-dfu", "why"] if different else ["both"])]
    rows = [head, ["---"] * len(head)]
    for case in CASES:
        if bool(case.ours) == different:
            call = f"`{case.call}`" if case.call else "(nothing)"
            outcome = [case.theirs, case.ours, case.why] if different else [case.theirs]
            rows.append([call, case.boards.replace(",", ", "), *outcome])
    return [f"| {' | '.join(row)} |" for row in rows]


if __name__ == "__main__":
    print("\n".join([*table(different=True), "", *table(different=False)]))
