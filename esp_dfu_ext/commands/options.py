"""The options of the jobs, once for both faces, in the words of idf.py: click's, with the flags under ``names``.

idf.py loads this on each call, so nothing is imported. Each call gives fresh dictionaries: idf.py takes them apart.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing would have to be imported for it
if TYPE_CHECKING:
    from typing import Any


def build() -> list[dict[str, Any]]:
    """Of `idf.py dfu` and `esp-dfu build`."""
    return [
        {
            "names": ["-o", "--output"],
            "metavar": "FILE",
            "help": "Where to write the image. Default: dfu.bin in the build folder.",
        },
        {
            "names": ["--part-size"],
            "metavar": "SIZE",
            "help": "Cut larger files into parts of this size: bytes, 0x.., 64K, 1M. Default: 512K.",
        },
        {
            "names": ["--only"],
            "multiple": True,
            "metavar": "PART",
            "help": (
                "Take only this part into the image: app, bootloader, partition-table, otadata or any other section "
                "of flasher_args.json. Repeatable."
            ),
        },
        {
            "names": ["--force"],
            "is_flag": True,
            "help": "Take images that look damaged or made for another chip, and files from anywhere.",
        },
    ]


def flash() -> list[dict[str, Any]]:
    """Of `idf.py dfu-flash` and `esp-dfu flash`."""
    return [
        {
            "names": ["--path"],
            "multiple": True,
            "metavar": "PATH",
            "help": "The board on this port, such as 1-2. Repeatable.",
        },
        {"names": ["--all"], "is_flag": True, "help": "All boards of this chip, at once."},
        {"names": ["--serial"], "metavar": "SERIAL", "help": "The board with this serial number."},
        {
            "names": ["--wait"],
            "type": float,
            "default": 0.0,
            "metavar": "SECONDS",
            "help": "Wait so long for the board to be plugged in.",
        },
        {"names": ["--strict"], "is_flag": True, "help": "Ask the chip for its status after each block; slower."},
        {
            "names": ["--reset"],
            "is_flag": True,
            "help": "Try to start the app by a bus reset, and say what was seen.",
        },
        {
            "names": ["--watch"],
            "is_flag": True,
            "help": "Flash each board once as it is plugged in, until Ctrl-C.",
        },
        {"names": ["--count"], "type": int, "metavar": "N", "help": "End a --watch after so many boards."},
        {"names": ["--report"], "metavar": "FILE", "help": "Append a JSON line for each board to this file."},
        {"names": ["--simulate"], "is_flag": True, "help": "Rehearse on a simulated board; touches no USB."},
    ]


def quiet() -> dict[str, Any]:
    """Of every job that shows how far it is."""
    return {"names": ["--quiet"], "is_flag": True, "help": "Say nothing but the result, and errors."}


def document() -> dict[str, Any]:
    """Of every job whose result is a JSON document too."""
    return {"names": ["--json"], "is_flag": True, "help": "Print a JSON document."}


def trace() -> dict[str, Any]:
    """Option of the commands that talk to devices."""
    return {
        "names": ["--trace"],
        "envvar": "ESP_DFU_TRACE",
        "metavar": "FILE",
        "help": "Write every USB transfer to this file: text, or for Wireshark if its name ends in .pcap or .pcapng.",
    }
