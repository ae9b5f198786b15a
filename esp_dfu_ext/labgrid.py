"""A driver for labgrid, whose boards are connected to other computers: it runs `esp-dfu` on the board's computer.

labgrid loads it with ``imports: [esp_dfu_ext.labgrid]`` in its environment file; docs/farm.md has the rest. The name or
path of esp-dfu on the board's computer comes from ``tools: {esp-dfu: ...}``.
"""

from __future__ import annotations

import dataclasses
import json
import os
import selectors
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import attr
from labgrid.driver.common import Driver
from labgrid.factory import target_factory
from labgrid.step import step
from labgrid.util.managedfile import ManagedFile

from .clock import Deadline, SystemClock
from .errors import DeviceNotFoundError, EspDfuError, InputMissingError, RemoteError, UsageError
from .events import EventSink, Progress, ignore
from .operations.flash_setup import FlashOptions
from .operations.results import FlashOutcome, FlashResult
from .ui.json_lines import read_line
from .versions import LIST_DOCUMENT

_RECOVERY_TIME = 30.0  # seconds for a stopped flash to recover the chip; erasing before a block may take so long
_LIST_TIME = 60.0  # seconds for a list; one takes a few
_SILENCE = 120.0  # seconds between two lines of a flash; verifying 16 MiB may take 58
_LONGEST_LINE = 1 << 20  # bytes; a thousand times what esp-dfu writes
_LAST_LINES = 5  # lines of stderr to show if there is no error line
_LAST_BYTES = 1 << 16  # of stderr, in which to look for them


def _command_line(options: FlashOptions) -> Sequence[str]:
    """Return the options of `esp-dfu flash` for those that differ from the default."""
    words: list[str] = []
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if value != field.default:
            flag = f"--{field.name.replace('_', '-')}"
            words += [flag] if value is True else [flag, str(value)]
    return words


_Running = tuple[Iterator[bytes], Callable[[], tuple[int, str]]]


def _lines(pipe: IO[bytes], silence: float, who: str) -> Iterator[bytes]:
    """Return the lines of a pipe, of which none may be too long or take longer than `silence`, in seconds.

    Raises:
        RemoteError: A line is too long, or did not end in time.
    """
    rest = b""
    clock = SystemClock()
    deadline = Deadline(clock, silence)
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, deadline.left)):
                raise RemoteError(f"{who} printed no line for {silence:g} s.")
            more = os.read(pipe.fileno(), 1 << 16)
            *lines, rest = (rest + more).split(b"\n")
            if lines:
                deadline = Deadline(clock, silence)
            yield from lines
            if len(rest) > _LONGEST_LINE:
                raise RemoteError(f"{who} printed a line of more than {_LONGEST_LINE} bytes.")
            if not more:
                if rest:
                    yield rest
                return


@target_factory.reg_driver
@attr.s(eq=False)
class EspDfuDriver(Driver):
    """Flashes the board that is bound as `board`, in run-time mode or in DFU mode.

    A ``USBFlashableDevice`` matches the board in both modes. A ``DFUDevice`` matches interfaces of class fe0102, which
    means DFU mode only; a board in run-time mode is then not available.

    Args:
        image: Image that `flash` takes by default, a key of ``images`` in the environment file.
    """

    bindings = {  # noqa: RUF012 (required by labgrid)
        "board": {"USBFlashableDevice", "NetworkUSBFlashableDevice", "DFUDevice", "NetworkDFUDevice"},
    }
    image: str | None = attr.ib(default=None, validator=attr.validators.optional(attr.validators.instance_of(str)))

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.tool = self.target.env.config.get_tool("esp-dfu") if self.target.env else "esp-dfu"

    @Driver.check_active
    @step(args=["filename"])
    def flash(
        self,
        filename: str | None = None,
        *,
        on_event: EventSink = ignore,
        **options: Any,
    ) -> FlashResult:
        """Flash the board; copy the image to its computer first, unless that has the same file.

        Args:
            filename: Path of dfu.bin; None for the image of the environment file.
            on_event: Called with each event.
            options: Attributes of `FlashOptions`, such as ``strict=True`` or ``reset=True``.

        Raises:
            EspDfuError: The error of `esp-dfu` on the board's computer, with its code, message and notes.
            RemoteError: esp-dfu could not be run there, or printed something unknown.
            InputMissingError: The image does not exist on this computer.
            DeviceNotFoundError: The exporter does not see the board.
            labgrid.driver.exception.ExecutionError: The connection or the copy failed.
        """
        words = _command_line(FlashOptions(**options))
        path = self._path()
        image = self._put(filename)
        silence = _SILENCE + options.get("wait", 0.0)
        outcome = self._follow(["flash", "--json", "--path", path, *words, image], on_event, silence)
        if outcome.error is not None:
            raise outcome.error
        assert outcome.result is not None
        return outcome.result

    @Driver.check_active
    @step()
    def list(self) -> Sequence[dict[str, Any]]:
        """Return all devices that `esp-dfu list --json` sees on the board's computer.

        Raises:
            RemoteError: esp-dfu could not be run there, or printed something unknown.
        """
        with self._run(["list", "--json"], _LIST_TIME) as (lines, end):
            text = b""
            for line in lines:
                text += line
                if len(text) > _LONGEST_LINE:
                    break
            else:
                exit_code, said = end()
                if exit_code:
                    raise self._no_result(exit_code, said)
        with suppress(ValueError, KeyError, TypeError, RecursionError):
            document = json.loads(text)
            if document["version"] == LIST_DOCUMENT:
                return list(document["devices"])
        raise RemoteError(f"{self.tool} list --json on {self._where} printed an unknown document.")

    @property
    def _where(self) -> str:
        return getattr(self.board, "host", "this computer")

    def _path(self) -> str:
        """Return the port of the board: labgrid and esp-dfu both use Linux's name for it."""
        self.target.update_resources()
        if self.board.path is None:
            message = f"{self.board.display_name} is not on the USB of {self._where}."
            raise DeviceNotFoundError(message)
        return str(self.board.path)

    def _put(self, filename: str | None) -> str:
        """Copy the image to the board's computer if needed; return its path there."""
        if filename is None:
            if self.image is None:
                raise UsageError("No image: pass a file name to flash(), or set `image` in the environment file.")
            filename = self.target.env.config.get_image_path(self.image)
        try:
            image = ManagedFile(filename, self.board)
        except FileNotFoundError:
            raise InputMissingError(f"{filename} does not exist.", path=Path(filename), role="dfu.bin") from None
        image.sync_to_resource()
        return str(image.get_remote_path())

    def _command(self, arguments: Sequence[str]) -> Sequence[str]:
        return [str(word) for word in self.board.wrap_command([self.tool, *arguments])]

    def _follow(self, arguments: Sequence[str], on_event: EventSink, silence: float) -> FlashOutcome:
        """Run esp-dfu and pass on its events until its last line."""
        with self._run(arguments, silence) as (lines, end):
            outcomes = self._read(lines, on_event)
            exit_code, said = end()
            if outcomes is None or len(outcomes) != 1:
                raise self._no_result(exit_code, said)
        return outcomes[0]

    @contextmanager
    def _run(self, arguments: Sequence[str], silence: float) -> Iterator[_Running]:
        """Run esp-dfu; yield its lines, and a function that waits for its end.

        If the block fails, it is stopped as with Ctrl-C: it then recovers the chip and releases it.
        """
        # In a process group of its own, so that Ctrl-C reaches it once, from here.
        with (
            TemporaryFile() as said,
            subprocess.Popen(
                self._command(arguments),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=said,
                start_new_session=True,
            ) as process,
        ):
            assert process.stdout is not None

            def end() -> tuple[int, str]:
                exit_code = process.wait(_RECOVERY_TIME)
                said.seek(max(0, said.seek(0, os.SEEK_END) - _LAST_BYTES))
                return exit_code, said.read(_LAST_BYTES).decode("utf-8", "replace")

            try:
                yield _lines(process.stdout, silence, f"{self.tool} on {self._where}"), end
            except BaseException as error:
                process.send_signal(signal.SIGINT)
                process.stdout.close()
                try:
                    process.wait(_RECOVERY_TIME)
                except subprocess.TimeoutExpired:
                    process.kill()
                if isinstance(error, subprocess.TimeoutExpired):
                    raise RemoteError(f"{self.tool} on {self._where} closed its output, but did not end.") from error
                raise

    def _read(self, lines: Iterable[bytes], on_event: EventSink) -> Sequence[FlashOutcome] | None:
        outcomes = None
        for line in lines:
            said = read_line(line.decode("utf-8", "replace"))
            if isinstance(said, EspDfuError):
                raise said
            if isinstance(said, list):
                outcomes = said
            elif said is not None:
                if not isinstance(said, Progress):
                    self.logger.info("%s", said)
                on_event(said)
        return outcomes

    def _no_result(self, exit_code: int, said: str) -> RemoteError:
        message = f"{self.tool} on {self._where} ended with exit code {exit_code} and no result."
        return RemoteError(message, notes=said.strip().splitlines()[-_LAST_LINES:])
