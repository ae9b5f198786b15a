"""State of one command invocation: output, command spelling and context for advice."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import signals
from ..clock import Clock
from ..doctor.advice import CommandNames, advice_for
from ..errors import EspDfuError, InterruptedByUserError, OutputError, TargetFileError, UsageError
from ..events import Event, Notice
from ..linux.machine import Machine
from ..target import Target, load_targets
from ..ui.console import Console
from ..usb.bus import Bus
from .host import Host, this_host

if TYPE_CHECKING:
    from ..dfu.trace_file import TraceFile
    from ..doctor.findings import Finding
    from ..simulator import Simulation

SIMULATE_VARIABLE = "ESP_DFU_SIMULATE"


@dataclass
class Session:
    """State of one command invocation: output, command spelling and context for advice.

    Attributes:
        console: Where output goes.
        names: How the user would type the commands, for advice.
        project_dir: Folder of the project, whose own chips are known too: from idf.py, else from the build folder or
            dfu.bin on the command line, else the current folder.
        target: The chip, once it is known.
        host: The computer that the command runs on.
        trace_path: File for a trace of USB, None for none.
        boards: Simulated boards to use instead of USB, as `simulate_text` takes them; empty for none.
        real: The boards are real, so what this computer knows about them may explain an error.
    """

    console: Console
    names: CommandNames
    project_dir: Path = Path()
    target: Target | None = None
    host: Host = field(default_factory=lambda: this_host())  # looked up at each call, so that tests can replace it
    trace_path: str | None = None
    boards: str = field(init=False)
    real: bool = field(default=True, init=False)
    _trace_file: TraceFile | None = field(default=None, init=False)
    _advised: set[tuple[str, ...]] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        self.boards = self.machine.environ.get(SIMULATE_VARIABLE, "")

    @property
    def clock(self) -> Clock:
        """Time, for the command and for simulated boards."""
        return self.host.clock

    @property
    def machine(self) -> Machine:
        """This computer, as the doctor sees it."""
        return self.host.machine

    def run(self, command: Callable[[Session], int]) -> int:
        """Run a command and return its exit code; show an error with advice, and return the error's exit code."""
        try:
            with signals.as_interrupts():
                code = command(self)
                if not code:
                    self.console.check_output()
                return code
        except EspDfuError as error:
            return self.fail(error)
        except KeyboardInterrupt as stop:
            return self.fail(InterruptedByUserError.by(stop))
        except BrokenPipeError:
            raise
        except OSError as error:
            # Not expected by any module, such as a folder that is deleted while it is read.
            return self.fail(unexpected(error))
        except MemoryError:
            return self.fail(EspDfuError("There is not enough memory."))
        finally:
            self._end_trace()

    def name_image(self, dfu_bin: Path) -> None:
        """Use this image in the commands of advice."""
        from ..inputs.folders import has_build

        folder = dfu_bin.parent
        self.name_project(folder)
        self.names = self.names.for_image(str(dfu_bin), str(folder) if has_build(folder) else None)

    def name_project(self, folder: Path) -> None:
        """Use the ESP-IDF project in a folder, or whose build folder it is, in the commands of idf.py in advice."""
        if self.names.list.startswith("idf.py") or " -C " in self.names.compile:
            return  # it is named already
        for project, build_dir in ((folder, folder / "build"), (folder.parent, folder)):
            if os.path.isfile(project / "CMakeLists.txt"):  # noqa: PTH113 (Path raises if there is no permission)
                self.names = self.names.in_project(str(project), str(build_dir))
                return

    def targets(self, on_broken: Callable[[TargetFileError], None] | None = None) -> list[Target]:
        """Return all known chips; a broken YAML file of another chip is only a warning."""
        return load_targets(self.project_dir, on_broken or (lambda error: self.console.warn(error.message)))

    def make_simulation(self, targets: Sequence[Target]) -> Simulation | None:
        """Return the simulated boards that ESP_DFU_SIMULATE asks for, or None."""
        return self.host.simulate(self.boards, targets, self.clock) if self.boards else None

    def open_bus(self, simulation: Simulation | None) -> Bus:
        """Return the bus of the simulated boards, or this computer's own if there are none.

        Raises:
            OutputError: The trace cannot be written.
            UsageError: The name of its file is empty.
        """
        if self.trace_path is not None and not self.trace_path:
            raise UsageError("--trace is empty; expected a file to write.")
        self.real = simulation is None
        bus = simulation.bus if simulation is not None else self.host.open_usb()
        if self.trace_path is not None:
            from ..dfu.trace_file import TraceFile

            self._trace_file = TraceFile(Path(self.trace_path), self.clock)
            bus.trace = self._trace_file.trace
        return bus

    def _end_trace(self) -> None:
        if self._trace_file is not None:
            self._trace_file.close()
            error = self._trace_file.trace.error
            if error is not None:
                self.console.warn(f"The trace in {self.trace_path} is incomplete: {error.strerror or error}.")

    def fail(self, error: EspDfuError) -> int:
        """Show an error and return its exit code."""
        below = self.explained(error, self.target)
        self.console.error(error.message, error.code, below.notes, below.advice)
        return error.exit_code

    def explained(self, error: EspDfuError, target: Target | None, targets: Sequence[Target] = ()) -> Explained:
        """Return what this computer knows about an error, and advice that was not given before.

        Args:
            error: The error.
            target: The chip, None if it is unknown.
            targets: The chips that it may be if it is unknown.
        """
        findings = self._findings(error, target)
        advice = advice_for(error, self.names, target, findings, targets)
        if tuple(advice) in self._advised:  # given already: repeating it would hide what is new
            advice = []
        self._advised.add(tuple(advice))
        return Explained((*error.notes, *map(as_note, findings)), advice)

    def _findings(self, error: EspDfuError, target: Target | None) -> list[Finding]:
        if not self.real:
            return []
        from ..doctor.explain import explain

        with suppress(EspDfuError):  # a chip's file may be what is wrong
            targets = [target] if target is not None else self.targets(on_broken=lambda _: None)
            return explain(error, targets, self.machine)
        return []

    def notice(self, event: Event) -> None:
        """Show the notices of an operation."""
        if isinstance(event, Notice):
            self.console.warn(event.message)


def unexpected(error: OSError) -> EspDfuError:
    """Return the error of a command for one of the system that no module expected."""
    try:
        Path.cwd()
    except OSError:
        if error.filename is None or not os.path.isabs(error.filename):  # noqa: PTH117 (may be a number)
            return EspDfuError("The current folder does not exist.")
    return EspDfuError(f"{error.filename or 'The system'}: {error.strerror or error}.")


class JsonSession(Session):
    """State of a command that prints JSON lines to stdout; messages for people go to stderr."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.console = self.console.on_stderr()

    def fail(self, error: EspDfuError) -> int:
        """Show an error, and print it as the last JSON line."""
        from ..ui.json_lines import error_line

        with suppress(OSError, OutputError):  # the reader closed the pipe, or the disk is full
            self.console.data(error_line(error))
        return super().fail(error)


def open_session(
    names: CommandNames, project_dir: Path, chosen: dict[str, Any], *, json_lines: bool = False
) -> Session:
    """Return the session of a command; options that concern every command are taken out of the `chosen` ones."""
    console = Console(quiet=chosen.pop("quiet", False))
    return (JsonSession if json_lines else Session)(console, names, project_dir, trace_path=chosen.pop("trace", None))


class Explained(NamedTuple):
    """What is shown below an error: notes and advice."""

    notes: Sequence[str]
    advice: Sequence[str]


def as_note(finding: Finding) -> str:
    """Return a finding as a sentence below an error; only a port must be named before it."""
    text = f"{finding.topic}: {finding.text}" if finding.topic.startswith("port ") else finding.text
    return f"{text[0].upper()}{text[1:]}."


def near(path: Path) -> Path:
    """Return the path relative to the current folder if it is in it: shorter to read and to type."""
    try:
        return Path(os.path.abspath(path)).relative_to(Path.cwd())  # noqa: PTH100 (keeps links)
    except (ValueError, OSError):
        return path
