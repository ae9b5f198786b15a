"""A driver for labgrid, whose boards hang on other machines: runs `esp-dfu` where the board is.

labgrid takes it in by one line of its environment file, ``imports: [esp_dfu_ext.labgrid]``; docs/farm.md has the rest.
The tool's name or path there comes from ``tools: {esp-dfu: ...}``.
"""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import attr
from labgrid.driver.common import Driver
from labgrid.factory import target_factory
from labgrid.step import step
from labgrid.util.managedfile import ManagedFile

from .errors import DeviceNotFoundError, EspDfuError, InputMissingError, RemoteError, UsageError
from .events import EventSink, Progress, ignore
from .operations.results import FlashOutcome, FlashResult
from .ui.json_lines import read_line
from .versions import LIST_DOCUMENT

_LEAVING_TIME = 30.0  # seconds for a flash that was stopped to leave its chip well; a block may erase so long
_LAST_WORDS = 5  # lines of stderr that an error without a line of its own shows


@target_factory.reg_driver
@attr.s(eq=False)
class EspDfuDriver(Driver):
    """Flashes the board that is bound as `board`, from run-time mode as well as in DFU mode.

    A ``USBFlashableDevice`` matches the board in both modes. A ``DFUDevice`` matches interfaces of class fe0102,
    which is DFU mode alone, so that a board in run-time mode is not available.

    Args:
        image: the image that `flash` takes by default, a key of ``images`` in the environment file.
    """

    bindings = {  # noqa: RUF012 (labgrid's way)
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
        strict: bool = False,
        reset: bool = False,
        on_event: EventSink = ignore,
    ) -> FlashResult:
        """Flash the board; the image is copied to its machine first, unless it is seen there too.

        Args:
            filename: of the dfu.bin; None for the image of the environment file.
            strict: ask the chip for its status after each block.
            reset: try to start the app by a bus reset afterwards.
            on_event: gets what happens, as it happens.

        Raises:
            EspDfuError: what `esp-dfu` there raised, with its code, message and notes.
            RemoteError: it could not be run there, or said something else.
            InputMissingError: there is no such image here.
            DeviceNotFoundError: the exporter does not see the board.
            labgrid.driver.exception.ExecutionError: the connection or the copy failed.
        """
        path = self._path()
        image = self._put(filename)
        options = [*(["--strict"] if strict else []), *(["--reset"] if reset else [])]
        outcome = self._follow(["flash", "--json", "--path", path, *options, image], on_event)
        if outcome.error is not None:
            raise outcome.error
        assert outcome.result is not None
        return outcome.result

    @Driver.check_active
    @step()
    def list(self) -> Sequence[dict[str, Any]]:
        """The devices that `esp-dfu list --json` sees on the board's machine, all of them.

        Raises:
            RemoteError: it could not be run there, or said something else.
        """
        done = subprocess.run(self._command(["list", "--json"]), stdin=subprocess.DEVNULL, capture_output=True)
        said = done.stderr.decode("utf-8", "replace")
        if done.returncode:
            raise self._unheard(done.returncode, said)
        try:
            document = json.loads(done.stdout)
            if document["version"] == LIST_DOCUMENT:
                return list(document["devices"])
        except (ValueError, KeyError, TypeError):
            pass
        raise RemoteError(f"{self.tool} list --json on {self._where} printed another document than is known.")

    @property
    def _where(self) -> str:
        return getattr(self.board, "host", "this machine")

    def _path(self) -> str:
        """Where the board is plugged in: Linux's name for the port, which is ours too."""
        self.target.update_resources()
        if self.board.path is None:
            message = f"{self.board.display_name} is not on the USB of {self._where}."
            raise DeviceNotFoundError(message)
        return str(self.board.path)

    def _put(self, filename: str | None) -> str:
        """Have the image on the board's machine; its name there."""
        if filename is None:
            if self.image is None:
                raise UsageError("No image: give flash() a file name, or the driver `image` in the environment file.")
            filename = self.target.env.config.get_image_path(self.image)
        try:
            image = ManagedFile(filename, self.board)
        except FileNotFoundError:
            raise InputMissingError(f"{filename} is not there.", path=Path(filename), role="dfu.bin") from None
        image.sync_to_resource()
        return str(image.get_remote_path())

    def _command(self, arguments: Sequence[str]) -> Sequence[str]:
        return [str(word) for word in self.board.wrap_command([self.tool, *arguments])]

    def _follow(self, arguments: Sequence[str], on_event: EventSink) -> FlashOutcome:
        """Run the tool and pass its events on, until its last line."""
        # In a session of its own, so that a Ctrl-C reaches it once, from here.
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
            try:
                outcomes = self._read(process.stdout, on_event)
            except BaseException:
                process.send_signal(signal.SIGINT)  # lets it leave the chip in a good state, and give it back
                process.stdout.close()
                try:
                    process.wait(_LEAVING_TIME)
                except subprocess.TimeoutExpired:
                    process.kill()
                raise
            exit_code = process.wait()
            said.seek(0)
            if outcomes is None or len(outcomes) != 1:
                raise self._unheard(exit_code, said.read().decode("utf-8", "replace"))
        return outcomes[0]

    def _read(self, lines: IO[bytes], on_event: EventSink) -> Sequence[FlashOutcome] | None:
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

    def _unheard(self, exit_code: int, said: str) -> RemoteError:
        message = f"{self.tool} on {self._where} ended with exit code {exit_code} and no result."
        return RemoteError(message, notes=said.strip().splitlines()[-_LAST_WORDS:])
