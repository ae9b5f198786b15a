"""The report of `--report`: a file with one JSON line for each board, which survives a crash at any moment.

docs/many-boards.md describes the lines; docs/schemas.py generates their JSON Schema from `Line`.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Literal, Optional

import msgspec

from ..clock import Clock, Deadline, SystemClock
from ..errors import EspDfuError, OutputError
from ..events import (
    AlreadyFlashed,
    BoardIdentified,
    CameBack,
    DeviceFound,
    Event,
    EventSink,
    Failed,
    Flashed,
    Notice,
    ignore,
)
from ..units import clean
from ..versions import RECORD_LINE, __version__
from .inspect import CheckedImage

LOCK_TIME = 5.0  # seconds to wait for another process, which needs milliseconds for a line
_LOCK_INTERVAL = 0.02  # seconds
_BEGINNING = f'{{"format":{RECORD_LINE},"time":"'.encode()  # of each line, even of one that was cut off
_PROBE = b" " * 1024  # longer than most lines; written and removed again to see that there is room


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one board.

    Attributes:
        format: Version of this format; new keys do not change it.
        time: When the result was known: ISO 8601, UTC, with milliseconds, such as 2026-11-23T04:05:06.789Z.
        result: pass: the chip compared every MD5 with its flash memory and reported OK. fail: anything else.
        path: USB port, bus-port.port, as dfu-list shows it; over serial, the name of the serial port.
        serial: Serial number of the board; null if it has none or could not be read. Some chips all have the same one.
        mac: MAC address of the board, as the chip's serial loader tells it; null if it did not.
        target: Chip, as idf.py set-target names it.
        image_sha256: SHA-256 of the whole dfu.bin, hexadecimal.
        project: Project name of the app; null if the image contains no app.
        version: Version of the app; null if the image contains no app.
        bytes: Bytes that were flashed and verified by the chip; 0 if it failed, or if nothing had to be sent.
        skipped: Bytes that flash memory held already, so that they were not sent; the chip's serial loader compared
            their MD5.
        came_back: What was on the port after the restart that starts the app: nothing, as with an app that does not use
            USB; app, a device of an app; rom, one like the ROM's, which is download mode or an app's console; same, the
            chip did not restart. null if nothing restarted it.
        seconds: Time from the first contact to the result.
        error: Error code, as in docs/errors.md; null if the result is pass.
        message: What failed, for people; null if the result is pass.
        simulated: True if the board was simulated.
        tool: Name and version of the program.
    """

    format: Annotated[int, msgspec.Meta(extra_json_schema={"const": RECORD_LINE})]
    time: Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
    result: Literal["pass", "fail"]
    path: str
    serial: Optional[str]
    mac: Optional[str] = None
    target: str
    image_sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    project: Optional[str]
    version: Optional[str]
    bytes: int
    skipped: int = 0
    came_back: Optional[CameBack] = None
    seconds: float
    error: Optional[str]
    message: Optional[str]
    simulated: bool
    tool: str


class Report:
    """A report, open for appending; a context manager.

    Lines are never torn: each is appended in a single write, under a lock that all processes with this report take,
    and is on the disk when `append` returns. If an earlier run was cut off within a line, the next line starts on a new
    line. On a file system without locks, a line that does not fit may leave its beginning behind.

    Args:
        path: Path of the file; created if it does not exist.
        clock: Time source for waiting until another process has written; None for real time.

    Raises:
        OutputError: The file is something else than a report, or it cannot be opened or written.
    """

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        self._path = path
        self._clock = clock or SystemClock()
        self._patience = LOCK_TIME
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        with self._mapped():
            if path.exists() and not path.is_file():
                raise OutputError(f"The report {path} is not a regular file.")
            self._file = os.open(path, flags, 0o644)
        try:
            with self._mapped():
                self._refuse_other_file()
                self._write(_PROBE, keep=False)
                _sync_folder(path.absolute().parent)
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.close(self._file)

    def append(self, line: Line) -> None:
        """Append a line.

        Raises:
            OutputError: The line cannot be written; the file is unchanged.
        """
        with self._mapped():
            self._write(msgspec.json.encode(line), keep=True)

    def _refuse_other_file(self) -> None:
        os.lseek(self._file, 0, os.SEEK_SET)
        first, _, _ = os.read(self._file, 1 << 16).lstrip().partition(b"\n")
        if first.startswith(_BEGINNING) or _BEGINNING.startswith(first):
            return
        try:
            msgspec.json.decode(first, type=Line)  # reformatted by another program
        except (msgspec.MsgspecError, UnicodeDecodeError):
            message = f"{self._path} already exists and is not a report; esp-dfu will not append to it."
            raise OutputError(message) from None

    def _write(self, line: bytes, *, keep: bool) -> None:
        with self._locked() as alone:
            size = os.fstat(self._file).st_size
            # Truncate only under the lock: otherwise another process may have appended a line after `size`.
            if not alone and not keep:
                return
            kept = not alone
            try:
                left = (b"\n" if self._is_torn(size) else b"") + line + b"\n"
                while left:  # a disk that is almost full accepts a part of a write
                    left = left[os.write(self._file, left) :]
                os.fsync(self._file)
                kept = keep or not alone
            finally:
                if not kept:
                    os.ftruncate(self._file, size)

    @contextmanager
    def _locked(self) -> Iterator[bool]:
        """Lock the file; yield False on file systems without locks, where one appending write has to do."""
        alone = self._lock()
        try:
            yield alone
        finally:
            if alone:
                import fcntl

                fcntl.flock(self._file, fcntl.LOCK_UN)

    def _lock(self) -> bool:
        if sys.platform == "win32":
            return True  # without a lock: on Windows only one process may write to a report
        import fcntl

        deadline = Deadline(self._clock, self._patience)
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    return False  # the file system has no locks
            if not deadline.sleep(_LOCK_INTERVAL):
                self._patience = 0.0  # boards are waiting: do not wait for this program again
                raise OutputError(f"The report {self._path} is locked by another program.")

    def _is_torn(self, size: int) -> bool:
        if size == 0:
            return False
        os.lseek(self._file, size - 1, os.SEEK_SET)
        return os.read(self._file, 1) != b"\n"

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(f"The report {self._path} cannot be written: {error.strerror or error}.") from error


def _sync_folder(folder: Path) -> None:
    """Write the name of a new file to the disk as well; Windows does so by itself."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _utc_now() -> datetime:
    return datetime.now(timezone.utc)


@dataclass
class Recorder:
    """An event sink that writes a line for each finished board, and then passes the event on.

    The line is written first, so every result that was shown is in the report. A line that cannot be written does not
    stop any board: a `Notice` reports it, and `error` keeps it.

    Attributes:
        report: The report to write to.
        image: The image that is flashed.
        simulated: True if the boards are simulated.
        clock: Time source for durations.
        on_event: Sink to which the events are passed on.
        now: Function that returns the current time in UTC.
        error: Error of the first line that could not be written, or None.
    """

    report: Report
    image: CheckedImage
    simulated: bool
    clock: Clock
    on_event: EventSink = ignore
    now: Callable[[], datetime] = _utc_now
    error: OutputError | None = None
    _macs: dict[str, str] = field(default_factory=dict)
    _found: dict[str, tuple[float, str | None]] = field(default_factory=dict)
    _apps: set[str] = field(default_factory=set)  # ports where an app was asked to hand over to the ROM

    def __call__(self, event: Event) -> None:
        """Record the event if it is a result, and pass it on."""
        if isinstance(event, DeviceFound):
            self._begin(event)
        elif isinstance(event, BoardIdentified):
            self._macs[event.path] = event.mac
        elif isinstance(event, Flashed):
            self._record(
                event.path,
                size=event.size,
                skipped=event.skipped,
                came_back=event.came_back,
                seconds=event.seconds,
            )
        elif isinstance(event, AlreadyFlashed):
            self._found.pop(event.path, None)
        elif isinstance(event, Failed):
            self._record(event.path, code=event.code, message=event.message)
        self.on_event(event)

    def _begin(self, event: DeviceFound) -> None:
        started, path = self.clock.monotonic(), event.path
        if event.app is None and path in self._apps and path in self._found:  # the same board: its app handed over
            started, _ = self._found[path]
        self._found[path] = started, event.serial
        self._macs.pop(path, None)
        (self._apps.discard if event.app is None else self._apps.add)(path)

    def failed(self, error: EspDfuError) -> None:
        """Record the error of a flash of one board, which is not an event, if a board had been found."""
        for path in list(self._found):
            self._record(path, code=error.code, message=error.message)

    def _record(
        self,
        path: str,
        *,
        size: int = 0,
        skipped: int = 0,
        came_back: CameBack | None = None,
        seconds: float | None = None,
        code: str | None = None,
        message: str | None = None,
    ) -> None:
        now = self.clock.monotonic()
        started, serial = self._found.get(path, (now, None))
        app = self.image.app
        line = Line(
            format=RECORD_LINE,
            time=self.now().strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
            result="pass" if code is None else "fail",
            path=path,
            serial=serial,
            mac=self._macs.get(path),
            target=self.image.target.name,
            image_sha256=self.image.image.sha256,
            project=clean(app.project) if app is not None else None,
            version=clean(app.version) if app is not None else None,
            bytes=size,
            skipped=skipped,
            came_back=came_back,
            seconds=round(now - started if seconds is None else seconds, 3),
            error=code,
            message=message if message is None else clean(message),
            simulated=self.simulated,
            tool=f"esp-dfu-ext {__version__}",
        )
        try:
            self.report.append(line)
            self._found.pop(path, None)
        except OutputError as error:
            self.error = self.error or error
            self.on_event(Notice("report", f"{error.message} It lacks the line for port {path}.", path))
