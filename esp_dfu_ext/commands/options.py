"""Options that idf.py and esp-dfu share, as idf.py describes them: click's keywords, and the flags as ``names``.

idf.py loads this on each call, so nothing is imported. Each function returns new dictionaries, because idf.py changes
them.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing would have to be imported for it
if TYPE_CHECKING:
    from typing import Any


def build() -> list[dict[str, Any]]:
    """Return the options of `idf.py dfu` and `esp-dfu build`."""
    return [
        {
            "names": ["-o", "--output"],
            "metavar": "FILE",
            "help": "Where to write the image. Default: dfu.bin in the build folder.",
        },
        {
            "names": ["--part-size"],
            "metavar": "SIZE",
            "help": "Split larger files into parts of this size: bytes, 0x.., 64K, 1M. Default: 512K.",
        },
        {
            "names": ["--only"],
            "multiple": True,
            "metavar": "NAME",
            "help": (
                "Include only this section or partition: app, bootloader, partition-table, otadata or any other. "
                "Repeatable."
            ),
        },
        {
            "names": ["--add"],
            "multiple": True,
            "nargs": 2,
            "metavar": "WHERE FILE",
            "help": "Add a file, such as an NVS image, at an address or in a partition. Repeatable.",
        },
        {
            "names": ["--force"],
            "is_flag": True,
            "help": "Accept firmware files that look damaged or are for another chip.",
        },
    ]


def contents() -> list[dict[str, Any]]:
    """Return the options of `esp-dfu flash` and `inspect` about what goes into the image that they build."""
    return [option for option in build() if option["names"][-1] in ("--only", "--add")] + inputs()


def inputs() -> list[dict[str, Any]]:
    """Return the options of `esp-dfu build`, `flash` and `inspect` about what is read; idf.py knows all of that."""
    return [
        {"names": ["--target"], "metavar": "CHIP", "help": "The chip, if WHAT does not say it."},
        {"names": ["--flash-size"], "metavar": "SIZE", "help": "Size of the flash memory, if WHAT does not say it."},
        {
            "names": ["--at"],
            "metavar": "WHERE",
            "help": "Address or partition of a single file, such as an app alone.",
        },
        {
            "names": ["--include"],
            "multiple": True,
            "metavar": "PARTITION",
            "help": "Overwrite this partition although a merged image holds nothing for it, such as nvs. Repeatable.",
        },
        {
            "names": ["--allow-outside"],
            "is_flag": True,
            "help": "Accept files outside the project and its build folder.",
        },
    ]


def flash() -> list[dict[str, Any]]:
    """Return the options of `idf.py dfu-flash` and `esp-dfu flash`."""
    return [
        {
            "names": ["--path"],
            "multiple": True,
            "metavar": "PATH",
            "help": "Flash the board on this port, such as 1-2. Repeatable.",
        },
        {"names": ["--all"], "is_flag": True, "help": "Flash all boards of this chip at once."},
        {"names": ["--serial"], "metavar": "SERIAL", "help": "Flash the board with this serial number."},
        {"names": ["--mac"], "metavar": "MAC", "help": "Flash the board with this MAC address."},
        {
            "names": ["--wait"],
            "type": _seconds,
            "default": "0",
            "metavar": "SECONDS",
            "help": "Wait up to SECONDS for a board.",
        },
        {"names": ["--strict"], "is_flag": True, "help": "Ask the chip for its status after each block; slower."},
        {
            "names": ["--no-loader"],
            "is_flag": True,
            "envvar": "ESP_DFU_NO_LOADER",
            "help": "Use DFU only, not the chip's serial loader: slower, and the board stays unknown.",
        },
        {
            "names": ["--skip-flashed"],
            "is_flag": True,
            "help": "Send only what the flash memory does not hold already.",
        },
        {
            "names": ["--verify"],
            "is_flag": True,
            "help": "Have the chip's serial loader compare the flash memory with the image afterwards.",
        },
        {
            "names": ["--before"],
            "type": _before,
            "metavar": "RESET",
            "help": (
                "default-reset or no-reset: whether --port, or DFU_DETACH to an app, gets the board into download "
                "mode. Default: the project's, else default-reset."
            ),
        },
        {
            "names": ["--after"],
            "type": _after,
            "metavar": "RESET",
            "help": (
                "hard-reset, watchdog-reset or no-reset: how to start the app afterwards, as in esptool. Default: the "
                "project's, else hard-reset."
            ),
        },
        {"names": ["--reset"], "is_flag": True, "help": "The same as --after hard-reset."},
        {
            "names": ["--over"],
            "type": _way,
            "default": "dfu",
            "metavar": "WAY",
            "help": "dfu (the default), or serial: through the board's own serial port, which needs no driver.",
        },
        {
            "names": ["--port"],
            "metavar": "PORT",
            "help": (
                "The board's serial port, such as COM5 or /dev/ttyUSB0: its USB-UART bridge or its app, which gets it "
                "into download mode without buttons. With --over serial: the one to flash through."
            ),
        },
        {"names": ["--no-stub"], "is_flag": True, "help": "With --over serial: do without esptool's stub; slower."},
        {
            "names": ["--watch"],
            "is_flag": True,
            "help": "Flash each board once as it is plugged in, until Ctrl-C.",
        },
        {"names": ["--count"], "type": _boards, "metavar": "N", "help": "End --watch after N boards."},
        {"names": ["--report"], "metavar": "FILE", "help": "Append a JSON line for each board to FILE."},
        {
            "names": ["--force"],
            "is_flag": True,
            "help": "Accept firmware that looks damaged, is for another chip, or that the board will not boot.",
        },
        {"names": ["--simulate"], "is_flag": True, "help": "Dry run on a simulated board; USB is not used."},
        _trace(),
    ]


def board() -> list[dict[str, Any]]:
    """Return the options of `esp-dfu verify`, which asks one board."""
    chosen = [option for option in flash() if option["names"][-1] in ("--wait", "--trace")]
    path = {"names": ["--path"], "metavar": "PATH", "help": "The board on this port, such as 1-2."}
    serial = {"names": ["--serial"], "metavar": "SERIAL", "help": "The board with this serial number."}
    mac = {"names": ["--mac"], "metavar": "MAC", "help": "The board with this MAC address."}
    return [path, serial, mac, *chosen, document()]


def reset() -> list[dict[str, Any]]:
    """Return the options of `esp-dfu reset`, which restarts one board."""
    after = {
        "names": ["--after"],
        "type": _restart,
        "metavar": "RESET",
        "help": "hard-reset, the best way there is (the default), or watchdog-reset, that one alone.",
    }
    return [*(option for option in board() if option["names"][-1] in ("--path", "--serial", "--trace")), after]


def info() -> list[dict[str, Any]]:
    """Return the options of `esp-dfu info`."""
    names = ["--path"]
    return [
        {"names": names, "multiple": True, "metavar": "PATH", "help": "Only the board on this port. Repeatable."},
        document(),
        _trace(),
    ]


def list_() -> list[dict[str, Any]]:
    """Return the options of `idf.py dfu-list` and `esp-dfu list`."""
    probe = {
        "names": ["--probe"],
        "is_flag": True,
        "help": "Also ask each board's serial loader for MAC address, revision and flash size.",
    }
    return [probe, document(), _trace()]


def doctor() -> list[dict[str, Any]]:
    """Return the options of `idf.py dfu-doctor` and `esp-dfu doctor`."""
    return [document(), _trace()]


def quiet() -> dict[str, Any]:
    """Return the option of the commands that show progress."""
    return {"names": ["--quiet"], "is_flag": True, "help": "Print only the result and errors."}


def document() -> dict[str, Any]:
    """Return the option of the commands that print a JSON document."""
    return {"names": ["--json"], "is_flag": True, "help": "Print a JSON document."}


def _trace() -> dict[str, Any]:
    return {
        "names": ["--trace"],
        "envvar": "ESP_DFU_TRACE",
        "metavar": "FILE",
        "help": "Write every USB transfer to this file: text, or for Wireshark if its name ends in .pcap or .pcapng.",
    }


def typed(described: list[dict[str, Any]], chosen: dict[str, Any]) -> list[str]:
    """Return the words that give options their values, without those that have their default.

    Args:
        described: The options, as the functions above describe them.
        chosen: Their values by name.
    """
    words: list[str] = []
    for option in described:
        flag = option["names"][-1]
        value = chosen.get(flag.lstrip("-").replace("-", "_"))
        if value is True:
            words.append(flag)
        elif value is not None and value is not False and str(value) != str(option.get("default", "")) and value != 0:
            for each in value if isinstance(value, tuple) else (value,):
                words += [flag, f"{each:g}" if isinstance(each, float) else str(each)]
    return words


# click takes a function as a type, but its message for a ValueError is the value alone.


def _seconds(text: str) -> float:
    """Read the value of an option that takes seconds."""
    try:
        return float(text)
    except ValueError:
        raise _invalid(f"{text!r} is not a number of seconds, such as 10 or 0.5.") from None


def _way(text: str) -> str:
    """Read the value of `--over`."""
    if text not in ("dfu", "serial"):
        raise _invalid(f"{text!r} is not a way to flash; expected dfu or serial.")
    return text


def _before(text: str) -> str:
    """Read the value of `--before`; older versions of esptool have underscores."""
    value = text.replace("_", "-")
    if value not in ("default-reset", "no-reset"):
        raise _invalid(f"{text!r} is not a reset before a flash; expected default-reset or no-reset.")
    return value


def _after(text: str) -> str:
    """Read the value of `--after`; older versions of esptool have underscores."""
    value = text.replace("_", "-")
    if value not in ("hard-reset", "watchdog-reset", "no-reset"):
        raise _invalid(f"{text!r} is not a reset; expected hard-reset, watchdog-reset or no-reset.")
    return value


def _restart(text: str) -> str:
    """Read the value of `--after` where there must be a reset."""
    value = _after(text)
    if value == "no-reset":
        raise _invalid(f"{text!r} resets nothing; expected hard-reset or watchdog-reset.")
    return value


def _boards(text: str) -> int:
    """Read the value of an option that takes a number of boards."""
    try:
        return int(text)
    except ValueError:
        raise _invalid(f"{text!r} is not a number of boards, such as 10.") from None


def _invalid(message: str) -> Exception:
    import click

    return click.BadParameter(message)
