"""`dfu-util`: the command line of dfu-util 0.11, for programs that call it; docs/dfu-util.md has the differences.

stdout has what programs read, and stderr what people read. Exit codes are dfu-util's.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from ..clock import Deadline
from ..dfu.access import ACCESS_DELAY
from ..dfu.discovery import SCAN_INTERVAL, DfuInterface, Selector, describe_all, find, not_found
from ..dfu.matching import ANY, ANY_IDS, UsbIds
from ..dfu.spec import Mode, State, Status
from ..errors import (
    DataError,
    DeviceNotFoundError,
    EspDfuError,
    ImageError,
    InputMissingError,
    InterruptedByUserError,
    OtherPathError,
    OutputError,
    SeveralDevicesError,
    UsageError,
    UsbError,
    WrongTargetError,
)
from ..events import Event, Notice
from ..files import new_file, read_small
from ..image import suffix
from ..image.format import MAX_FILE_SIZE
from ..inputs.esp_idf import project_dir_of_image
from ..operations import dfu_device
from ..operations import list as listing
from ..operations.dfu_device import BCD_DFUSE, DfuContext
from ..operations.flash_setup import FlashOptions
from ..operations.flasher import Flasher
from ..operations.inspect import CheckedImage, load_image
from ..operations.list import ListedDevice
from ..operations.restart import BUS_RESET, NO_RESET
from ..target import Target, find_target_by_usb_id
from ..ui.dfu_util import BANNER, NOTHING_FOUND, DfuUtilView
from ..units import format_size
from ..usb.bus import Bus
from .dfu_util_options import HELP, Action, DfuUtilOptions, parse
from .list import dfu_util_line
from .session import Session, near

EX_USAGE, EX_DATAERR, EX_NOINPUT, EX_CANTCREAT, EX_IOERR = 64, 65, 66, 73, 74
_DFUSE = "esp-dfu has no DfuSe, ST's extension of DFU (bcdDFU 011a, -s)"


def dfu_util(session: Session, words: Sequence[str]) -> int:
    """Carry out a command line of dfu-util, and return its exit code."""
    view = DfuUtilView()
    try:
        options = parse(words)
        if options.action is Action.HELP:
            print(HELP, file=sys.stderr, end="")
            return 0
        view.line(BANNER)
        if options.action is Action.VERSION:
            return 0
        if options.dfuse is not None:
            raise UsageError(f"{_DFUSE}. Use dfu-util itself for this device.")
        if options.action is Action.DOWNLOAD and options.file != "-":
            session.project_dir = project_dir_of_image(Path(options.file))  # whose own chips are known too
        if options.action is None:
            raise UsageError("Nothing to do: give -l, -D, -U or -e.")
        _Run(session, options, view).carry_out(options.action)
        return 0
    except EspDfuError as error:
        view.stop()
        if isinstance(error, DeviceNotFoundError):
            print(NOTHING_FOUND, file=sys.stderr, flush=True)
        if isinstance(error, SeveralDevicesError):  # its advice is for esp-dfu's own commands
            session.console.error(error.message, error.code, error.notes, [])
        else:
            session.fail(error)
        return exit_code(error)


def exit_code(error: EspDfuError) -> int:
    """Return the exit code that dfu-util gives for an error."""
    if isinstance(error, InterruptedByUserError):
        return error.exit_code
    if isinstance(error, InputMissingError):
        return EX_NOINPUT
    if isinstance(error, OutputError):
        return EX_CANTCREAT
    if isinstance(error, (UsageError, WrongTargetError)) and not isinstance(error, SeveralDevicesError):
        return EX_USAGE
    return EX_DATAERR if isinstance(error, DataError) else EX_IOERR


@dataclass(frozen=True)
class _DfuFile:
    """A file to download.

    Attributes:
        path: Its path, or the path of a copy of stdin.
        data: Its contents.
        suffix: Its DFU suffix; None if it has none that is intact.
        image: The same as an image for a chip, checked; None if its suffix names no known chip.
    """

    path: Path
    data: memoryview
    suffix: suffix.Suffix | None
    image: CheckedImage | None


@dataclass(frozen=True)
class _Chosen:
    """The interface to use, and the chip it belongs to, None if it is not known."""

    interface: DfuInterface
    target: Target | None
    listed: ListedDevice


class _Run:
    """One call: the devices it finds, and what it does with the one that it chooses."""

    def __init__(self, session: Session, options: DfuUtilOptions, view: DfuUtilView) -> None:
        self._session = session
        self._options = options
        self._view = view
        self._targets = session.targets()
        self._match = options.match

    def carry_out(self, action: Action) -> None:
        {
            Action.LIST: self._list,
            Action.DETACH: self._detach,
            Action.UPLOAD: self._upload,
            Action.DOWNLOAD: self._download,
        }[action]()

    # --- which device -------------------------------------------------------------------------------------

    def _open_bus(self) -> Bus:
        return self._session.open_bus(self._session.make_simulation(self._targets))

    def _matching(self, bus: Bus) -> list[tuple[ListedDevice, int]]:
        """Return the interfaces that match, each as a device and the interface's index."""
        return [
            (device, index)
            for device in listing.list_devices(bus, self._targets)
            for index, interface in enumerate(device.interfaces)
            if self._accepts(device, interface, index)
        ]

    def _accepts(self, device: ListedDevice, interface: DfuInterface, index: int) -> bool:
        if device.problem is not None:  # its strings could not be read; what it is otherwise still counts
            unread = replace(self._match, alternate=None, serial=None, dfu_serial=None)
            return unread.accepts(interface, None, None, self._targets)
        name = device.names[index]
        # A ROM has the same settings in both modes, so a wrong -a is found before DFU_DETACH.
        known = device.target is not None and self._options.action is not Action.LIST
        if known and self._match.alternate not in (None, interface.descriptor.alternate, name):
            return False
        return self._match.accepts(interface, device.serial, name, self._targets)

    def _choose(self, bus: Bus, wanted: Target | None) -> _Chosen:
        """Return the only interface that matches, waiting for it with -w.

        Raises:
            DeviceNotFoundError: None matches.
            SeveralDevicesError, UsageError: Several match.
            UsbError: It cannot be opened.
        """
        if self._options.wait:
            self._view.line("Waiting for device, exit with ctrl-C")
        found = self._wait(bus) if self._options.wait else self._matching(bus)
        if not found:
            raise self._nothing(bus, wanted)
        found = [(device, index) for device, index in found if device.problem is None] or found
        if len(found) > 1:
            raise self._several(found)
        device, index = found[0]
        if device.problem is not None:
            raise device.problem
        chosen = _Chosen(device.interfaces[index], device.target, device)
        self._session.target = device.target
        functional = dfu_device.functional_of(chosen.interface)
        self._view.device(device.device.usb_id, functional, self._options.verbose)
        if functional is not None and functional.bcd_dfu == BCD_DFUSE:
            raise UsageError(f"The device on port {device.device.path} has DfuSe. {_DFUSE}; use dfu-util itself.")
        return chosen

    def _wait(self, bus: Bus) -> list[tuple[ListedDevice, int]]:
        """Return the interfaces that match once there is one; the system may give access to it a moment later."""
        deadline: Deadline | None = None
        while True:
            found: list[tuple[ListedDevice, int]] = []
            with suppress(UsbError):  # a scan may fail while devices come and go
                found = self._matching(bus)
            if found:
                deadline = deadline or Deadline(self._session.clock, ACCESS_DELAY)
                if deadline.left <= 0 or any(device.problem is None for device, _ in found):
                    return found
            self._session.clock.sleep(SCAN_INTERVAL)

    def _nothing(self, bus: Bus, wanted: Target | None) -> DeviceNotFoundError:
        ids = self._match.run_time
        wanted = find_target_by_usb_id(ids.vid, ids.pid, self._targets) or wanted
        if wanted is None:
            return DeviceNotFoundError("No DFU device found that matches the command line.")
        self._session.target = wanted
        match, found = self._match, find(bus, wanted)
        if any(match.path in (None, interface.path) for interface in found) and match.serial is None:
            return OtherPathError(
                f"Found {wanted.chip}, but no board that matches all options.",
                notes=describe_all([interface.device for interface in found], self._targets),
            )
        return not_found(bus, wanted, Selector(path=match.path, serial=match.serial), self._targets, found)

    @staticmethod
    def _several(found: Sequence[tuple[ListedDevice, int]]) -> UsageError:
        paths = list(dict.fromkeys(device.device.path for device, _ in found))
        if len(paths) > 1:
            message = (
                f"Found {len(paths)} DFU devices: {', '.join(paths)}. Choose one by its port, such as -p {paths[0]}."
            )
            return SeveralDevicesError(message, paths=paths)
        settings = [str(device.interfaces[index].descriptor.alternate) for device, index in found]
        message = (
            f"The device on port {paths[0]} has several alternate settings: {', '.join(settings)}. Choose one: -a."
        )
        return SeveralDevicesError(message, paths=paths)

    def _context(self, bus: Bus) -> DfuContext:
        options = self._options
        return DfuContext(
            bus, self._targets, self._session.clock, self._show, options.detach_delay, options.transfer_size
        )

    def _show(self, event: Event) -> None:
        self._view(event)
        if not (isinstance(event, Notice) and event.code == "no-loader"):  # dfu-util has no such thing
            self._session.notice(event)

    # --- what to do ---------------------------------------------------------------------------------------

    def _list(self) -> None:
        for device, index in self._matching(self._open_bus()):
            self._session.console.data(dfu_util_line(device, index))
            if device.problem is not None:
                self._session.fail(device.problem)

    def _detach(self) -> None:
        bus = self._open_bus()
        chosen = self._choose(bus, None)
        where = f"The device on port {chosen.interface.path}"
        if chosen.interface.mode is Mode.DFU:
            self._session.console.warn(f"{where} is in DFU mode already; DFU_DETACH was not sent.")
            if self._options.reset:
                dfu_device.reset(chosen.interface, self._context(bus))
            return
        refusal = dfu_device.detach(chosen.interface, self._context(bus))
        if refusal:
            self._session.console.warn(f"{where} {refusal} DFU_DETACH.")

    def _download(self) -> None:
        with _file(self._options.file) as path:
            file = self._read(path)
            if file.suffix is not None:
                vid, pid = (ANY if part == 0xFFFF else part for part in (file.suffix.vid, file.suffix.pid))
                self._match = self._match.with_file_ids(vid, pid)
            bus = self._open_bus()
            chosen = self._choose(bus, file.image.target if file.image is not None else None)
            self._must_fit(file, chosen)
            if chosen.target is not None:
                self._flash(bus, chosen, self._image_for(file, chosen.target))
            else:
                self._send(bus, chosen, file)
        self._view.line("Done!")

    def _flash(self, bus: Bus, chosen: _Chosen, image: CheckedImage) -> None:
        options = self._options
        if options.transfer_size not in (None, image.target.usb.transfer_size):
            self._session.console.warn(
                f"-t {options.transfer_size} has no effect: the chip's ROM takes blocks of "
                f"{image.target.usb.transfer_size} bytes."
            )
        target = dfu_device.with_detach_delay(image.target, options.detach_delay)
        image = CheckedImage(image.path, image.image, target, image.app)
        flasher = Flasher(
            FlashOptions(wait=ACCESS_DELAY if options.wait else 0.0, after=BUS_RESET if options.reset else NO_RESET),
            bus=bus,
            targets=self._targets,
            clock=self._session.clock,
            on_event=self._show,
        )
        result = flasher.flash(image, path=chosen.interface.path)
        self._view.state(State[result.state.replace("-", "_")], Status[result.status])
        if result.after_reset is not None:
            self._say(f"Seen on port {result.path} after the bus reset: {result.after_reset}.")

    def _send(self, bus: Bus, chosen: _Chosen, file: _DfuFile) -> None:
        """Download a file to a device that is not a known chip."""
        self._say(f"{file.path} is sent as it is: esp-dfu knows neither the device nor what the file should be.")
        if file.suffix is None:
            self._session.console.warn(f"{file.path} has no DFU suffix, which would name the device that it is for.")
        payload = file.data if file.suffix is None else file.data[: -suffix.LENGTH]
        context = self._context(bus)
        interface = self._in_dfu_mode(bus, chosen, context)
        answer = dfu_device.write_file(interface, payload, context, reset=self._options.reset)
        self._view.state(answer.state, answer.status)

    def _upload(self) -> None:
        path, size = Path(self._options.file), self._options.upload_size
        with _new_file(path) as output:
            bus = self._open_bus()
            chosen = self._choose(bus, None)
            context = self._context(bus)
            interface = self._in_dfu_mode(bus, chosen, context)
            if chosen.target is not None and size is None:
                self._say(f"Reading {format_size(dfu_device.UPLOAD_RANGE)} from address 0; -Z reads another size.")
            data = dfu_device.read_device(
                interface,
                chosen.target,
                context,
                size=size,
                reset=self._options.reset,
                on_progress=lambda done, total: self._view.bar("Upload", done, total or 0),
            )
            output.write(data)
        self._view.finish("Upload", len(data))
        self._view.line(f"Received a total of {len(data)} bytes")
        if size is not None and len(data) != size:
            self._session.console.warn(f"The device sent {len(data)} bytes, not {size}.")

    def _say(self, line: str) -> None:
        self._session.console.on_stderr().info(line)

    def _in_dfu_mode(self, bus: Bus, chosen: _Chosen, context: DfuContext) -> DfuInterface:
        """Return the interface in DFU mode; another device's alternate settings are chosen only there."""
        interface = dfu_device.in_dfu_mode(chosen.interface, chosen.target, context)
        if chosen.target is not None or interface is chosen.interface:
            return interface
        self._match = replace(self._match, dfu=self._match.dfu or ANY_IDS, path=interface.path, devnum=None)
        found = [(device, index) for device, index in self._matching(bus) if device.interfaces[index].mode is Mode.DFU]
        if not found:
            raise DeviceNotFoundError(f"The device on port {interface.path} is in DFU mode, but no longer matches.")
        if len(found) > 1:
            raise self._several(found)
        device, index = found[0]
        return device.interfaces[index]

    # --- files --------------------------------------------------------------------------------------------

    def _read(self, path: Path) -> _DfuFile:
        """Read a file, and check it if it is for a known chip."""
        data = memoryview(_contents(path))
        try:
            found = suffix.decode(data) if suffix.has_suffix(data[-suffix.LENGTH :]) else None
        except ImageError as error:
            raise ImageError(f"{path} is damaged. {error.message}") from error
        if bytes(data[:5]) == b"DfuSe" or (found is not None and found.bcd_dfu == BCD_DFUSE):
            raise UsageError(f"{path} is a DfuSe file. {_DFUSE}; use dfu-util itself.")
        if not data:
            raise ImageError(f"{path} is empty.")
        target = None if found is None else find_target_by_usb_id(found.vid, found.pid, self._targets)
        image = None if target is None else self._load(path, target)
        return _DfuFile(path, data, found, image)

    def _load(self, path: Path, target: Target) -> CheckedImage:
        self._session.name_image(path)
        return load_image(path, target, self._targets)

    def _must_fit(self, file: _DfuFile, chosen: _Chosen) -> None:
        """Raise UsageError if the DFU suffix names another device."""
        device = chosen.interface.device
        if file.suffix is None:
            return
        named = UsbIds(*(ANY if part == 0xFFFF else part for part in (file.suffix.vid, file.suffix.pid)))
        asked = self._match.run_time  # a device may have other IDs in DFU mode; its vendor was compared
        if named.match(device.vid, device.pid) or (chosen.target is None and named == asked):
            return
        raise UsageError(
            f"{file.path} is for {file.suffix.usb_id}, but the device on port {device.path} is {device.usb_id}."
        )

    def _image_for(self, file: _DfuFile, target: Target) -> CheckedImage:
        return file.image if file.image is not None else self._load(file.path, target)


@contextmanager
def _file(name: str) -> Iterator[Path]:
    """Provide the path of a file; stdin is copied to a temporary one."""
    if name != "-":
        yield near(Path(name))
        return
    with TemporaryDirectory(prefix="esp-dfu-") as folder:
        copy = Path(folder, "stdin")
        copy.write_bytes(sys.stdin.buffer.read(MAX_FILE_SIZE + 1))
        yield copy


def _contents(path: Path) -> bytes:
    try:
        return read_small(path, MAX_FILE_SIZE)
    except OSError as error:
        raise InputMissingError.of(error, path, "dfu.bin") from error


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that must not exist; it appears once it is complete."""
    try:
        with new_file(path) as file:
            yield file
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}.") from error
