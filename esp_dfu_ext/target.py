"""Chips, each read from a YAML file. targets/README.md describes the keys."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Optional

import msgspec

from .errors import TargetFileError, TargetNotSupportedError
from .units import parse_size, usb_id
from .versions import TARGET_FILE
from .yaml_file import read_yaml

TARGETS_VARIABLE = "ESP_DFU_TARGETS"
PROJECT_FOLDER = "dfu_targets"

LONGEST_FILE = 32 << 10  # bytes; eight times the size of the built-in files
DEEPEST = 8  # levels; the built-in files have three

U8 = Annotated[int, msgspec.Meta(ge=0, le=0xFF)]
U16 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
U32 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
PositiveU32 = Annotated[int, msgspec.Meta(ge=1, le=0xFFFFFFFF)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]
Text = Annotated[str, msgspec.Meta(min_length=1)]

# Unknown keys are errors because they are usually typos.


class WindowsDriver(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A WinUSB package for the DFU interface, from the maker of the chip."""

    name: Text
    url: Text
    install: Text


class Usb(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The ROM's USB device; `rom_console` is true if an app may show the same device as its console."""

    vid: U16
    pid: U16
    bcd_device: U16
    serial: Literal["mac", "fixed"]
    transfer_size: Annotated[int, msgspec.Meta(ge=1, le=0xFFFF)]
    ms_os_descriptors: bool = False
    windows_driver: Optional[WindowsDriver] = None
    rom_console: bool = False


class Firmware(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Properties of an ESP image for this chip."""

    chip_id: U16
    bootloader_offset: U32


class Flash(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The SPI flash memory as the ROM accesses it; sizes in bytes."""

    sizes: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    assumed_size: PositiveU32
    limit: PositiveU32
    block: PositiveU32
    sector: PositiveU32
    page: PositiveU32
    status_mask: U32

    def __post_init__(self) -> None:
        for size in self.sizes:
            try:
                parse_size(size)
            except ValueError as error:
                raise ValueError(f"sizes: {error}") from None
        if self.block % self.sector or self.sector % self.page:
            raise ValueError("block must be a multiple of sector, and sector a multiple of page")


class Dfu(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The DFU interface in the ROM: its limits, and how long its answers may take (seconds)."""

    part_size: Positive
    index_records: Positive
    name_length: Annotated[int, msgspec.Meta(ge=32, le=63)]
    raw_below: Annotated[int, msgspec.Meta(ge=0)]
    upload_limit: Positive = 64
    status_interval: Positive
    erase_timeout: Seconds
    verify_timeout: Seconds
    verify_timeout_per_mib: Seconds
    return_timeout: Seconds
    return_timeout_windows: Seconds


class Bits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Bits of a 32-bit register."""

    address: U32
    mask: PositiveU32


class SpiFlash(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Registers of the SPI controller that sends one command to the flash memory, by address."""

    start: Bits
    user: U32
    user2: U32
    read_length: U32
    data: U32


class Watchdog(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The RTC watchdog: addresses of its registers, the key that unlocks them, seconds per count of `timeout`."""

    config: U32
    timeout: U32
    write_protect: U32
    key: U32
    tick: Seconds


class SecurityInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What GET_SECURITY_INFO answers for a chip as delivered; without `api_version`, the chip ID is not sent either."""

    key_purposes: Annotated[tuple[U8, ...], msgspec.Meta(min_length=7, max_length=7)]
    api_version: Optional[U32] = None


class SerialLoader(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The ROM's serial loader on the CDC interface of the DFU device, and the registers that esptool uses through it.

    `mac` and `chip_magic` are addresses of words; `sync_answered` is the share of SYNCs that the ROM answers. A flash
    speaks to the loader only if `use` is true. The last three differ between ROMs: `refused_commands` are known to it
    all the same, `baud_rate_ends` is the number of END bytes of SLIP after the answer to CHANGE_BAUDRATE,
    `flash_end_needs_begin` is true if FLASH_END fails without it.
    """

    use: bool = True
    mac: U32
    chip_magic: U32
    chip_magic_value: U32
    secure_boot: Bits
    flash_encryption: Bits
    force_download_boot: Bits
    spi_boot_strap: Optional[Bits] = None
    spi_flash: SpiFlash
    watchdog: Watchdog
    security_info: SecurityInfo
    sync_answered: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    refused_commands: tuple[U8, ...] = ()
    baud_rate_ends: U8 = 0
    flash_end_needs_begin: bool = False


class LoopTime(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Seconds that the ROM takes for a DFU_DNLOAD, and for another control request."""

    download: Seconds
    request: Seconds


class Timing(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long the chip takes, for simulations; in seconds."""

    first_loop: LoopTime
    serial_loader: LoopTime
    serial_byte: Seconds
    erase_sector: Seconds
    erase_block: Seconds
    program: Seconds
    verify_per_mib: Seconds


class DownloadMode(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How to put the chip into download mode, and where to connect the USB wires."""

    strap: Text
    steps: Annotated[tuple[Text, ...], msgspec.Meta(min_length=1)]
    d_plus: Text
    d_minus: Text


class OtherUsb(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Another USB device of this chip, without DFU; `own_pins` is true if it has other pins than DFU."""

    vid: U16
    pid: U16
    name: Text
    meaning: Text
    own_pins: bool = False


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One chip; `name` is its name for `idf.py set-target`, `chip` the name on its package."""

    schema: int
    name: Text
    chip: Text
    usb: Usb
    firmware: Firmware
    flash: Flash
    dfu: Dfu
    download_mode: DownloadMode
    serial_loader: Optional[SerialLoader] = None
    timing: Optional[Timing] = None
    as_delivered: Optional[Text] = None
    closed_by: tuple[Text, ...] = ()
    other_usb: tuple[OtherUsb, ...] = ()
    source: Optional[str] = None

    def __post_init__(self) -> None:
        if self.dfu.part_size % self.flash.sector:
            raise ValueError(f"dfu.part_size: must be a multiple of flash.sector, {self.flash.sector}")

    @property
    def notice(self) -> str:
        """What to know before the first flash of a chip as it is delivered, in a sentence; empty if nothing."""
        return f"{self.chip}: as delivered, {self.as_delivered}." if self.as_delivered else ""

    @property
    def usb_id(self) -> str:
        """VID and PID as ``vvvv:pppp``, the format of lsusb."""
        return usb_id(self.usb.vid, self.usb.pid)


_CHOICES = {"usb.serial": ("mac", "fixed")}
_GROUPS: dict[str, type[msgspec.Struct]] = {
    "": Target,
    "usb": Usb,
    "firmware": Firmware,
    "flash": Flash,
    "dfu": Dfu,
    "timing": Timing,
    "timing.first_loop": LoopTime,
    "timing.serial_loader": LoopTime,
    "download_mode": DownloadMode,
    "serial_loader": SerialLoader,
    "serial_loader.secure_boot": Bits,
    "serial_loader.flash_encryption": Bits,
    "serial_loader.force_download_boot": Bits,
    "serial_loader.spi_boot_strap": Bits,
    "serial_loader.spi_flash": SpiFlash,
    "serial_loader.spi_flash.start": Bits,
    "serial_loader.watchdog": Watchdog,
    "serial_loader.security_info": SecurityInfo,
    "other_usb": OtherUsb,
}


def builtin_folder() -> Path:
    """Return the folder of the built-in chips: in the package if installed, next to it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "targets"
    return inside if inside.is_dir() else package.parent / "targets"


def target_folders(project_dir: str | os.PathLike[str] | None = None) -> list[Path]:
    """Return the folders with chips, in the order in which they are searched.

    These are the folder that ``ESP_DFU_TARGETS`` names, ``dfu_targets/`` of the project, and the built-in chips.

    Raises:
        TargetFileError: ``ESP_DFU_TARGETS`` does not name a folder.
    """
    folders = [builtin_folder()]
    # Up to Python 3.13, Path.is_dir() raises OSError if its parent folder cannot be accessed.
    if project_dir is not None and os.path.isdir(own := Path(project_dir) / PROJECT_FOLDER):  # noqa: PTH112
        folders.insert(0, own)
    named = os.environ.get(TARGETS_VARIABLE)
    if named:
        if not os.path.isdir(named):  # noqa: PTH112
            raise TargetFileError(f"{TARGETS_VARIABLE} is set to {named}, which is not a folder.")
        folders.insert(0, Path(named))
    return folders


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if p.suffix in (".yaml", ".yml"))
    except OSError as error:
        raise TargetFileError(f"{folder} cannot be read: {error.strerror or error}.") from error


def target_names(project_dir: str | os.PathLike[str] | None = None) -> list[str]:
    """Return the names of all chips, without reading their files."""
    return sorted({p.stem for folder in target_folders(project_dir) for p in _files(folder)})


def _allowed(what: str, key: str) -> str:
    """Return the allowed values or keys, where msgspec's message does not list them."""
    if what.startswith("Invalid enum value"):
        return f"; allowed: {', '.join(_CHOICES.get(key, ()))}"
    if "unknown field" in what:
        group = _GROUPS.get(key.partition("[")[0])
        return (
            f"; allowed: {', '.join(field for field in group.__struct_fields__ if field != 'source')}" if group else ""
        )
    return ""


@cache
def read_target(path: Path) -> Target:
    """Read and check the file of one chip.

    Raises:
        TargetFileError: The file is not YAML or breaks the schema; the message names file, key and allowed values.
    """
    try:
        data = read_yaml(path, LONGEST_FILE, DEEPEST)
    except OSError as error:
        raise TargetFileError(f"{path}: cannot be read: {error}") from error
    except ValueError as error:
        raise TargetFileError(f"{path}: {error}") from error
    if isinstance(data, dict) and data.get("schema", TARGET_FILE) != TARGET_FILE:
        raise TargetFileError(f"{path}: schema: is {data['schema']!r}, but must be {TARGET_FILE}")
    if isinstance(data, dict) and "source" in data:
        raise TargetFileError(f"{path}: source: is not a key; write the sources of values as comments")
    try:
        target = msgspec.convert(data, Target)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `")
        key = where.rstrip("`").removeprefix("$").removeprefix(".")
        if where.startswith("key` in"):
            key, what = "", "has a key that is not text"
        raise TargetFileError(f"{path}: {key + ': ' if key else ''}{what}{_allowed(what, key)}") from error
    except UnicodeEncodeError as error:
        raise TargetFileError(f"{path}: has a character that is not valid text: {error}") from error
    if target.name != path.stem:
        raise TargetFileError(f"{path}: name: is {target.name!r}, but must be the name of the file, {path.stem!r}")
    return msgspec.structs.replace(target, source=str(path))


def load_target(name: str, project_dir: str | os.PathLike[str] | None = None) -> Target:
    """Return the chip with this name, as `idf.py set-target` takes it.

    Raises:
        TargetNotSupportedError: No file describes this chip.
        TargetFileError: Its file cannot be used, or a folder of chips cannot be read.
    """
    for folder in target_folders(project_dir):
        for path in _files(folder):
            if path.stem == name:
                return read_target(path)
    raise TargetNotSupportedError(name, supported=target_names(project_dir))


def load_targets(
    project_dir: str | os.PathLike[str] | None = None, on_broken: Callable[[TargetFileError], None] | None = None
) -> list[Target]:
    """Return all chips, by name; a name that occurs in several folders is read from the first one.

    Args:
        project_dir: Project whose own chips are included.
        on_broken: Called with the error of each file that cannot be used, which is then left out; None to raise it.

    Raises:
        TargetFileError: A file cannot be used, a folder of chips cannot be read, or ``ESP_DFU_TARGETS`` does not name
            a folder.
    """
    found: dict[str, Target | None] = {}
    for folder in target_folders(project_dir):
        for path in _files(folder):
            if path.stem in found:
                continue
            try:
                found[path.stem] = read_target(path)
            except TargetFileError as error:
                if on_broken is None:
                    raise
                found[path.stem] = None
                on_broken(error)
    return [target for _, target in sorted(found.items()) if target is not None]


def replaced_builtins(target: Target) -> list[Target]:
    """Return the built-in chips that a chip from another folder stands in for, by name or by USB ID, and differs from.

    A chip from the folder that ``ESP_DFU_TARGETS`` names replaces none in this sense: the user asked for it.
    """
    source = Path(target.source) if target.source is not None else None
    named = os.environ.get(TARGETS_VARIABLE)
    if source is None or source.parent == builtin_folder() or (named and source.parent == Path(named)):
        return []
    builtins = [read_target(path) for path in _files(builtin_folder())]
    return [
        builtin
        for builtin in builtins
        if (builtin.name == target.name or builtin.usb_id == target.usb_id)
        and msgspec.structs.replace(builtin, source=target.source) != target
    ]


def find_target_by_usb_id(vid: int, pid: int, targets: Sequence[Target]) -> Target | None:
    """Return the chip whose ROM has this VID and PID, or None."""
    return next((t for t in targets if (t.usb.vid, t.usb.pid) == (vid, pid)), None)
