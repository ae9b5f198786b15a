"""The trace of one command in a file: text in DFU's words, or a capture for Wireshark."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO

from ..clock import Clock
from ..errors import DeviceGoneError, OutputError
from ..usb.pcap import PCAP_HEADER, PCAPNG_HEADER, UsbmonWriter
from ..usb.trace import Trace, TraceEntry, Transfer
from ..versions import __version__
from .spec import Request, StatusResponse

_TEXT_HEADER = b"# esp-dfu trace"
_COLUMNS = "# seconds      took  port    request or step        wValue wLength  data or result\n"
_PCAPNG, _PCAP = ".pcapng", ".pcap"


class TraceFile:
    """A file that takes the entries of one command; a context manager.

    Every entry is in the file when the next one begins, so that the trace of a program that is killed is whole.

    Args:
        path: Name of the file. ``.pcap`` and ``.pcapng`` make it a capture in the format of Linux usbmon, any other
            name makes it text. An existing file is overwritten only if it is empty or a trace that esp-dfu wrote.
        clock: Source of the entries' times.

    Attributes:
        trace: Takes the entries; for `Bus.trace`.

    Raises:
        OutputError: The file exists and is something else, or it cannot be written.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self.trace = Trace(clock=clock)
        self._start = self.trace.now()
        try:
            self._file = _open(path)
            self.trace.write = self._writer()
        except OSError as error:
            raise OutputError(f"Cannot write the trace to {path}: {error.strerror or error}.") from error

    def __enter__(self) -> TraceFile:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End the trace; never fails. `trace.error` says whether it is complete."""
        self.trace.write = None
        with suppress(OSError):  # what could not be written before
            self._file.close()

    def _writer(self) -> Callable[[TraceEntry], None]:
        suffix = self.path.suffix.lower()
        if suffix in (_PCAP, _PCAPNG):
            return UsbmonWriter(self._write, pcapng=suffix == _PCAPNG)
        started = datetime.fromtimestamp(self._start, timezone.utc).isoformat(timespec="milliseconds")
        self._write(_TEXT_HEADER + f", esp-dfu {__version__}, started {started}\n{_COLUMNS}".encode())
        return self._write_text

    def _write_text(self, entry: TraceEntry) -> None:
        line = f"{entry.when - self._start:9.6f} {entry.seconds:9.6f}  {entry}{explain(entry)}\n"
        self._write(line.encode())

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()


def explain(entry: TraceEntry) -> str:
    """Return what the result of a request means, to be put after it; empty if that is plain."""
    if not isinstance(entry, Transfer):
        return ""
    if entry.request is Request.DFU_DETACH and entry.error is DeviceGoneError:
        return "  (the ROM leaves the bus before it answers)"
    if entry.request is Request.DFU_GETSTATUS and entry.error is None:
        with suppress(ValueError):  # a malformed answer
            answer = StatusResponse.decode(entry.data)
            return f"  ({answer.status}, {answer.state}, bwPollTimeout {answer.poll_timeout * 1000:g} ms)"
    return ""


def _open(path: Path) -> BinaryIO:
    """Open a file for writing from its beginning; raises OSError or OutputError."""
    if path.is_symlink():
        raise OutputError(f"Cannot write the trace to {path}: it is a symbolic link.")
    if path.exists() and not path.is_file():
        raise OutputError(f"Cannot write the trace to {path}: it is not a regular file.")
    try:
        return path.open("xb")
    except FileExistsError:
        file = path.open("r+b")
    begin = file.read(len(PCAPNG_HEADER))
    if begin and not begin.startswith((_TEXT_HEADER, PCAP_HEADER, PCAPNG_HEADER)):
        file.close()
        raise OutputError(f"{path} already exists and is not a trace; esp-dfu will not overwrite it.")
    file.seek(0)
    file.truncate()
    return file
