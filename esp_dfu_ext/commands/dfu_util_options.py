"""The command line of dfu-util 0.11, read as its manual page describes it."""

from __future__ import annotations

import enum
import getopt
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..dfu.matching import ANY, NOTHING, DfuMatch, UsbIds
from ..errors import UsageError

_SHORT = "hVvleE:d:p:c:i:a:S:t:U:D:Rs:Z:wn:"
_LONG = {
    "help": "-h",
    "version": "-V",
    "verbose": "-v",
    "list": "-l",
    "detach": "-e",
    "detach-delay=": "-E",
    "device=": "-d",
    "devnum=": "-n",
    "path=": "-p",
    "configuration=": "-c",
    "cfg=": "-c",
    "interface=": "-i",
    "intf=": "-i",
    "altsetting=": "-a",
    "alt=": "-a",
    "serial=": "-S",
    "transfer-size=": "-t",
    "upload=": "-U",
    "upload-size=": "-Z",
    "download=": "-D",
    "reset": "-R",
    "wait": "-w",
    "dfuse-address=": "-s",
}
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|[0-9]+")
_LARGEST = 0x7FFFFFFF  # a C int

HELP = """\
Usage: dfu-util [OPTION]...

dfu-util's command line, carried out by esp-dfu. The last of -l, -e, -D, -U and -V counts.

What to do:
  -l, --list                 List the DFU devices that match.
  -D, --download FILE        Write FILE to the device; - is stdin.
  -U, --upload FILE          Read the device into FILE, which must not exist.
  -e, --detach               Change the device to DFU mode, and do not wait for it.
  -V, --version              Show the version.
  -h, --help                 Show this text.

Which device:
  -d, --device V:P[,V:P]     Vendor and product ID in run-time mode, and in DFU mode;
                             hexadecimal, * for any, - for none.
  -p, --path BUS-PORT.PORT   Port.
  -S, --serial S[,S]         Serial number in run-time mode, and in DFU mode.
  -n, --devnum N             Device number.
  -c, --cfg N                Configuration.
  -i, --intf N               Interface.
  -a, --alt N                Alternate setting in DFU mode, by number or by name.
  -w, --wait                 Wait for the device.

How:
  -R, --reset                Reset the device afterwards.
  -E, --detach-delay S       Wait up to S seconds for the device to come back in DFU mode.
  -t, --transfer-size N      Bytes in a block.
  -Z, --upload-size N        Bytes to expect from an upload; of a chip's ROM, the bytes to read.
  -v, --verbose              Show more.
  -s, --dfuse-address TEXT   Refused: esp-dfu has no DfuSe.
"""


class Action(enum.Enum):
    """What the command line asks for; the values are dfu-util's options."""

    HELP = "-h"
    VERSION = "-V"
    LIST = "-l"
    DETACH = "-e"
    UPLOAD = "-U"
    DOWNLOAD = "-D"


@dataclass(frozen=True)
class DfuUtilOptions:
    """A command line of dfu-util.

    Attributes:
        action: What to do; None if the command line does not say.
        file: File of an upload or a download; ``-`` is stdin.
        match: Which device.
        wait: Wait for the device without a limit.
        reset: Reset the bus afterwards.
        detach_delay: Seconds to wait for the device after DFU_DETACH; None if not given.
        transfer_size: Bytes in a block; None for what the device says.
        upload_size: Bytes that an upload should bring; None if not given.
        verbose: How often -v was given.
        dfuse: Argument of -s; None if not given.
    """

    action: Action | None = None
    file: str = ""
    match: DfuMatch = field(default_factory=DfuMatch)
    wait: bool = False
    reset: bool = False
    detach_delay: float | None = None
    transfer_size: int | None = None
    upload_size: int | None = None
    verbose: int = 0
    dfuse: str | None = None


def parse(words: Sequence[str]) -> DfuUtilOptions:
    """Read a command line as getopt_long does: options and their values in any order, short ones combined.

    Raises:
        UsageError: An option is unknown, lacks its value, or has an invalid one, or there is another argument.
    """
    try:
        found, rest = getopt.gnu_getopt(list(words), _SHORT, list(_LONG))
    except getopt.GetoptError as error:
        raise UsageError(f"{error.msg[:1].upper()}{error.msg[1:]}.") from error
    long_names = {f"--{name.rstrip('=')}": short for name, short in _LONG.items()}
    chosen: dict[str, Any] = {}
    match: dict[str, Any] = {}
    verbose = 0
    for name, value in found:
        option = long_names.get(name, name)
        if option == "-h":
            return DfuUtilOptions(Action.HELP)  # before anything else is checked
        if option == "-v":
            verbose += 1
        elif option in ("-U", "-D"):
            chosen.update(action=Action(option), file=value)
        elif option in ("-l", "-e", "-V"):
            chosen.update(action=Action(option))
        elif option in _MATCHING:
            match.update(_MATCHING[option](name, value))
        else:
            chosen.update(_OTHERS[option](name, value))
    if rest:
        raise UsageError(f"Unexpected argument {rest[0]!r}.")
    return DfuUtilOptions(match=DfuMatch(**match), verbose=verbose, **chosen)


def _number(name: str, value: str) -> int:
    if _NUMBER.fullmatch(value) is None or (number := _c_number(value)) > _LARGEST:
        raise UsageError(f"{name} takes a number, not {value!r}.")
    return number


def _c_number(text: str) -> int:
    """Return a number as C writes it: 0x is hexadecimal, another 0 in front is octal."""
    if text[:2].lower() == "0x":
        return int(text, 16)
    octal = len(text) > 1 and text[0] == "0" and not set(text) & set("89")
    return int(text, 8 if octal else 10)


def _alternate(name: str, value: str) -> dict[str, object]:
    return {"alternate": _c_number(value) if _NUMBER.fullmatch(value) else value}


def _configuration(name: str, value: str) -> dict[str, object]:
    return {"configuration": _number(name, value) or None}  # 0 is a device that is not configured: any


def _device(name: str, value: str) -> dict[str, object]:
    run_time, comma, dfu = value.partition(",")
    if not comma:
        return {"run_time": _ids(name, run_time, UsbIds()), "dfu": None}
    if not run_time:
        return {"run_time": UsbIds(NOTHING, NOTHING), "dfu": _ids(name, dfu, UsbIds())}
    given = _ids(name, run_time, UsbIds())
    return {"run_time": given, "dfu": _ids(name, dfu, given)}


def _ids(name: str, text: str, default: UsbIds) -> UsbIds:
    """Return a pair of IDs; a part that is missing or empty is that of `default`."""
    vid, _, pid = text.partition(":")
    return UsbIds(_id(name, vid, default.vid), _id(name, pid, default.pid))


def _id(name: str, text: str, default: int) -> int:
    if text in ("", "*", "-"):
        return {"": default, "*": ANY, "-": NOTHING}[text]
    if re.fullmatch(r"(0[xX])?[0-9a-fA-F]{1,4}", text) is None:
        raise UsageError(f"{name} takes hexadecimal vendor and product IDs such as 303a:2, not {text!r}.")
    return int(text, 16)


def _serial(name: str, value: str) -> dict[str, object]:
    run_time, comma, dfu = value.partition(",")
    return {"serial": run_time or None, "dfu_serial": (dfu if comma else run_time) or None}


# From an option and its value to attributes.
_Read = Callable[[str, str], Mapping[str, object]]
_MATCHING: Mapping[str, _Read] = {
    "-d": _device,
    "-n": lambda name, value: {"devnum": _number(name, value)},
    "-p": lambda name, value: {"path": value},
    "-c": _configuration,
    "-i": lambda name, value: {"interface": _number(name, value)},
    "-a": _alternate,
    "-S": _serial,
}
_OTHERS: Mapping[str, _Read] = {
    "-E": lambda name, value: {"detach_delay": float(_number(name, value))},
    "-t": lambda name, value: {"transfer_size": _number(name, value) or None},
    "-Z": lambda name, value: {"upload_size": _number(name, value) or None},
    "-R": lambda name, value: {"reset": True},
    "-w": lambda name, value: {"wait": True},
    "-s": lambda name, value: {"dfuse": value},
}
