"""A build folder of Zephyr: zephyr/runners.yaml says which file its runner `esp32` flashes to which address.

Reads what west's runner reads (Zephyr, scripts/west_commands/runners/esp32.py). With sysbuild the folder has one build
for each domain, such as MCUboot and the app, listed in domains.yaml.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import BuildFileError, ProjectError
from ..image.plan import FlashFile, FlashPlan
from ..yaml_file import read_yaml
from . import build_files as files
from .build_files import has_file

RUNNERS, DOMAINS = Path("zephyr", "runners.yaml"), Path("domains.yaml")

_RUNNER = "esp32"
_LONGEST_FILE, _DEEPEST = 256 << 10, 16
_MOST_DOMAINS = 16
_BOOT, _TABLE, _APP = "--esp-boot-address", "--esp-partition-table-address", "--esp-app-address"
_ADDRESSES = {_BOOT: "0x1000", _TABLE: "0x8000", _APP: "0x10000"}  # the runner's defaults


def has_build(folder: Path) -> bool:
    """Return whether a folder is a build folder of Zephyr."""
    return has_file(folder / RUNNERS) or has_file(folder / DOMAINS)


def read_zephyr(folder: Path) -> FlashPlan:
    """Read a build folder of Zephyr.

    Raises:
        BuildFileError: A file that names the binaries is damaged.
        ProjectError: It cannot be read.
    """
    found: dict[int, FlashFile] = {}
    size = None
    for domain in _domains(folder):
        options = _Runner(domain)
        size = size or options.flash_size
        for file in options.files():
            if file.address in found:
                raise BuildFileError(
                    f"{domain / RUNNERS}: {file.path} and {found[file.address].path} both go to {file.address:#x}"
                )
            found[file.address] = file
    ordered = tuple(found[at] for at in sorted(found))
    return FlashPlan(folder, "", size, ordered, kind="Zephyr build", sources=(folder,))


def _domains(folder: Path) -> list[Path]:
    """Return the build folders of the domains, in the order of domains.yaml; the folder itself without sysbuild."""
    path = folder / DOMAINS
    if not has_file(path):
        return [folder]
    domains = _read(path).get("domains")
    listed = domains if isinstance(domains, list) else []
    names = [str(domain.get("name") or "") for domain in listed if isinstance(domain, dict)]
    if not names or len(names) > _MOST_DOMAINS or not all(map(_is_plain, names)):
        raise BuildFileError(f"{path}: domains: expected a list of folders with a name")
    return [folder / name for name in names]


def _is_plain(name: str) -> bool:
    return name not in ("", ".", "..") and not {"/", "\\", ":", "\0"} & set(name)


class _Runner:
    """What runners.yaml says about the runner for the chips."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / RUNNERS
        data = _read(self.path)
        config, args = data.get("config"), data.get("args")
        words = args.get(_RUNNER) if isinstance(args, dict) else None
        if not isinstance(config, dict) or not isinstance(words, list):
            raise BuildFileError(f"{self.path}: args.{_RUNNER} is missing: this build is for another kind of chip")
        self.config = config
        pairs = (word.partition("=") for word in words if isinstance(word, str))
        self.options = {name: value for name, _, value in pairs}

    @property
    def flash_size(self) -> int | None:
        """Bytes of flash memory, None for "detect"."""
        return files.size_or_none(self.options.get("--esp-flash-size"))

    def files(self) -> Iterator[FlashFile]:
        """Yield the files; bootloader and table only in builds of Zephyr up to 3.x that have one of ESP-IDF."""
        binary = self.config.get("bin_file")
        if not isinstance(binary, str):
            raise BuildFileError(f"{self.path}: config.bin_file is missing")
        bootloader, table = (self.options.get(f"--esp-flash-{name}") for name in ("bootloader", "partition_table"))
        if bootloader:
            yield self._file(_BOOT, bootloader, "bootloader")
        if bootloader and table:
            yield self._file(_TABLE, table, "partition-table")
        yield self._file(_APP, binary, "")

    def _file(self, option: str, text: str, section: str) -> FlashFile:
        address = files.address(self.path, option, self.options.get(option) or _ADDRESSES[option])
        return FlashFile(address, self.path.parent / text, section)


def _read(path: Path) -> dict[str, Any]:
    try:
        data = read_yaml(path, _LONGEST_FILE, _DEEPEST)
    except OSError as error:
        raise ProjectError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise BuildFileError(f"{path}: {error}") from error
    if not isinstance(data, dict):
        raise BuildFileError(f"{path}: expected a YAML mapping")
    return data
