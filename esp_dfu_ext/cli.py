"""`esp-dfu`: the commands for computers without ESP-IDF.

Exit codes are those of sysexits.h where one fits; `errors` and ``esp-dfu --help`` list them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

import click
from click.core import ParameterSource

from .commands import options
from .errors import EXIT_CODES, EXIT_INTERRUPTED, EXIT_USAGE, PIPE_CLOSED, OutputError
from .ui.streams import drop_unread
from .units import quoted
from .versions import __version__

if TYPE_CHECKING:
    from .commands.session import Session


def _exit_codes() -> str:
    """Return the end of ``--help``: two columns, each read downwards."""
    cells = [f"{code:4}  {text}" for code, text in EXIT_CODES.items()]
    half = -(-len(cells) // 2)
    width = max(map(len, cells[:half]))
    rows = (
        f"{left:{width}}  {right}".rstrip() for left, right in zip_longest(cells[:half], cells[half:], fillvalue="")
    )
    return "\n".join(["\b", "Exit codes:", *rows])


_NARROW = 40  # columns; the description of a longer example goes below it


class _Command(click.Command):
    """A command that shows examples, which fit every terminal."""

    def __init__(self, *args: Any, examples: Sequence[tuple[str, str]] = (), **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._examples = examples

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See click.Command."""
        super().format_help_text(ctx, formatter)
        if self._examples:
            formatter.write_paragraph()
            with formatter.indentation():
                longest = max(len(line) for line, _ in self._examples if len(line) < _NARROW)
                formatter.write_dl(self._examples, col_max=longest)


class _Group(_Command, click.Group):
    """A group that shows examples, and lists its commands in the order of the code."""

    command_class = _Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See click.Group."""
        return list(self.commands)


def _completed_by(name: str) -> Callable[[click.Context, click.Parameter, str], list[Any]]:
    """Return a completion by a function of `commands.completion`, which is imported only on TAB."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
        from .commands import completion

        return list(getattr(completion, name)(context, parameter, incomplete))

    return complete


def _takes(*described: dict[str, Any], **completed: Callable[..., list[Any]]) -> Callable[[Any], Any]:
    """Add options as `options` describes them; `completed` has the completion of some, by name."""

    def decorate(command: Any) -> Any:
        for option in reversed(described):
            name = option["names"][-1].lstrip("-")
            rest = {key: value for key, value in option.items() if key != "names"}
            if rest.get("metavar") == "FILE":
                rest["type"] = click.Path(readable=False)  # so that TAB completes it
            command = click.option(*option["names"], **rest, shell_complete=completed.get(name))(command)
        return command

    return decorate


_quiet = {**options.quiet(), "names": ["-q", "--quiet"]}
_json_lines = {"names": ["--json"], "is_flag": True, "help": "Print each event and the result as a line of JSON."}


@click.group(
    cls=_Group,
    invoke_without_command=True,
    subcommand_metavar="[COMMAND] [ARGS]...",  # click's own depends on its version
    examples=[
        ("esp-dfu demo", "try it out"),
        ("esp-dfu build my_project/build", "make dfu.bin"),
        ("esp-dfu list", "list boards"),
        ("esp-dfu flash my_project/build/dfu.bin", "flash a board"),
        ("esp-dfu doctor", "find problems"),
    ],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_exit_codes(),
)
@click.version_option(__version__, prog_name="esp-dfu")
@click.pass_context
def cli(context: click.Context) -> None:
    """Flash ESP32-series boards over the chip's own USB port (DFU).

    idf.py has the same commands in an ESP-IDF project:
    dfu, dfu-list, dfu-flash and dfu-doctor.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(EXIT_USAGE)


def _run(
    command: Callable[[Session], int],
    chosen: dict[str, Any] | None = None,
    *,
    dfu_bin: Path | None = None,
    build_dir: Path | None = None,
    json_lines: bool = False,
) -> None:
    """Run a command and exit; options that concern every command are taken out of the `chosen` ones first."""
    # Imported here and below, where `main` handles a Ctrl-C: the imports take long enough for one.
    from .commands.session import open_session
    from .doctor.advice import ESP_DFU
    from .inputs.esp_idf import project_dir_of, project_dir_of_image

    project_dir = Path()
    with suppress(OSError):  # the current folder was deleted
        if build_dir is not None:
            project_dir = project_dir_of(build_dir)
        if dfu_bin is not None:
            project_dir = project_dir_of_image(dfu_bin)
    word = click.get_current_context().info_name
    names = replace(
        ESP_DFU,
        again=_as_typed() if word in ("build", "flash") else "",
        this=_as_typed() if word in ("inspect", "verify", "reset") else "",
    )
    session = open_session(names, project_dir, {} if chosen is None else chosen, json_lines=json_lines)
    try:
        code = session.run(command)
    except BrokenPipeError:  # the reader closed the pipe; click would exit with 1
        code = PIPE_CLOSED
    sys.exit(code)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _as_typed() -> str:
    """Return the command line that runs, for advice to add to."""
    context = click.get_current_context()
    arguments, options = [], []
    for parameter in context.command.params:
        name = parameter.name or ""
        if context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value = context.params[name]
        for each in _as_tuple(value):
            texts = [f"{one:g}" if isinstance(one, float) else str(one) for one in _as_tuple(each)]
            if isinstance(parameter, click.Argument):
                arguments += texts
            else:
                options += [parameter.opts[-1], *([] if each is True else texts)]
    return quoted([*context.command_path.split(), *arguments, *options])


_what = click.argument(
    "what", metavar="WHAT...", nargs=-1, required=True, type=click.Path(path_type=Path, readable=False)
)


@cli.command(
    short_help="Make dfu.bin from a build or firmware files.",
    examples=[
        ("esp-dfu build my_project/build", "a build folder"),
        ("esp-dfu build firmware.factory.bin", "a merged image"),
        ("esp-dfu build 0x0 boot.bin 0x10000 app.bin", "files with addresses"),
    ],
)
@_what
@_takes(*options.build(), *options.inputs(), options.document(), _quiet)
def build(what: tuple[Path, ...], output: str | None, json: bool, **chosen: Any) -> None:
    """Make dfu.bin from WHAT.

    WHAT is a build or project folder of ESP-IDF, Arduino, PlatformIO or Zephyr; a merged image (.bin or .hex); a
    flash_args file; or pairs of ADDRESS and FILE as esptool takes them.
    """

    def command(session: Session) -> int:
        from .commands.build import build

        return build(session, what, output=None if output is None else Path(output), as_json=json, **chosen)

    _run(command, chosen)  # `build` itself finds the project, and reads its files once


@cli.command(short_help="Show what a dfu.bin contains.")
@_what
@_takes(*options.contents(), options.document())
def inspect(what: tuple[Path, ...], json: bool, **chosen: Any) -> None:
    """Show what a dfu.bin contains, and whether the chip's ROM would accept it.

    WHAT is a dfu.bin, or anything that "esp-dfu build" takes.
    """

    def command(session: Session) -> int:
        from .commands.inputs import build_in_memory
        from .commands.inspect import inspect

        return inspect(session, what[0], build_in_memory(session, "inspect", what, chosen), as_json=json)

    _run(command, dfu_bin=what[0])


_LIST_FORMAT = "Print a table, or dfu-util's lines. Default: a table in a terminal, else lines."


@cli.command("list", short_help="List connected boards.")
@click.option("--format", "style", type=click.Choice(["table", "dfu-util"]), help=_LIST_FORMAT)
@_takes(*options.list_())
def list_(json: bool, style: str | None, **chosen: Any) -> None:
    """List connected boards: in a terminal as a table, in a pipe in dfu-util's format.

    Boards are listed on stdout; messages go to stderr. If no board is connected, the notes say how to put
    each chip into download mode, and which pins its USB port uses.
    """

    def command(session: Session) -> int:
        from .commands.list import list_devices

        return list_devices(session, as_json=json, style=style, **chosen)

    _run(command, chosen)


@cli.command(
    short_help="Flash one or more boards.",
    examples=[
        ("esp-dfu flash dfu.bin", "the only board"),
        ("esp-dfu flash dfu.bin --path 1-2", "the board on this port"),
        ("esp-dfu flash dfu.bin --all", "all boards at once"),
        ("esp-dfu flash dfu.bin --watch --report made.jsonl", "boards one by one"),
    ],
)
@_what
@_takes(
    *options.flash(),
    *options.contents(),
    _json_lines,
    _quiet,
    path=_completed_by("paths"),
    serial=_completed_by("serials"),
)
def flash(what: tuple[Path, ...], path: tuple[str, ...], **chosen: Any) -> None:
    """Flash WHAT to a board of the chip that it was made for.

    WHAT is a dfu.bin, or anything that "esp-dfu build" takes: it is built first, and no file is left behind.

    Without --path, --serial, --all or --watch, exactly one such board must be connected: in download mode or, if none
    is, with an app that takes DFU_DETACH.
    """

    def command(session: Session) -> int:
        from .commands.flash import flash
        from .commands.flash_run import FlashArguments
        from .commands.inputs import build_in_memory

        arguments = FlashArguments(paths=path, **chosen)
        arguments.check()  # before a build
        built = build_in_memory(session, "flash", what, {**contents, "force": getattr(arguments, "force", False)})
        return flash(session, what[0], arguments, built=built)

    contents = {option["names"][-1][2:].replace("-", "_"): None for option in options.contents()}
    contents = {name: chosen.pop(name) for name in contents}
    _run(command, chosen, dfu_bin=what[0], json_lines=chosen["json"])


@cli.command(short_help="Compare a board's flash memory with an image.")
@_what
@_takes(
    *options.board(),
    *options.contents(),
    _quiet,
    path=_completed_by("paths"),
    serial=_completed_by("serials"),
)
def verify(what: tuple[Path, ...], json: bool, **chosen: Any) -> None:
    """Compare the flash memory of a board with WHAT, and write nothing.

    WHAT is a dfu.bin, or anything that "esp-dfu build" takes. The chip's serial loader computes the MD5s; the board
    has to be in download mode, and stays as it is.
    """

    def command(session: Session) -> int:
        from .commands.inputs import build_in_memory
        from .commands.verify import verify

        built = build_in_memory(session, "verify", what, contents)
        return verify(session, what[0], built, as_json=json, **chosen)

    contents = {option["names"][-1][2:].replace("-", "_"): None for option in options.contents()}
    contents = {name: chosen.pop(name) for name in contents}
    _run(command, chosen, dfu_bin=what[0])


@cli.command(short_help="Start the app of a board in download mode.")
@_takes(*options.reset(), _quiet, path=_completed_by("paths"), serial=_completed_by("serials"))
def reset(path: str | None, serial: str | None, after: str | None, **chosen: Any) -> None:
    """Restart a board that was left in download mode, and report what appears on its port.

    The chip's serial loader arms its watchdog; where it does not answer, a bus reset has to do.
    """

    def command(session: Session) -> int:
        from .commands.reset import reset

        return reset(session, path=path, serial=serial, after=after, **chosen)

    _run(command, chosen)


@cli.command(short_help="Show who the connected boards are.")
@_takes(*options.info(), path=_completed_by("paths"))
def info(path: tuple[str, ...], json: bool, **chosen: Any) -> None:
    """Show MAC address, chip revision, flash memory and security of each board in download mode.

    The chip's serial loader tells them. Nothing is written, and the boards stay in the mode that they are in.
    """

    def command(session: Session) -> int:
        from .commands.info import info

        return info(session, path, as_json=json, **chosen)

    _run(command, chosen)


@cli.command(short_help="Check everything needed for flashing.")
@click.argument("build_dir", type=click.Path(path_type=Path, readable=False), required=False)
@_takes(*options.doctor())
def doctor(build_dir: Path | None, json: bool, **chosen: Any) -> None:
    """Check everything needed for flashing, and show the next step.

    This covers Python, libusb, the USB bus, permissions, drivers, every board, and the project in BUILD_DIR
    (default: build). It changes nothing. The exit code is 0 if there is no problem, else 1.
    """
    folder = build_dir or Path("build")

    def command(session: Session) -> int:
        from .commands.doctor import doctor

        return doctor(session, folder, named=build_dir is not None, as_json=json, **chosen)

    _run(command, chosen, build_dir=folder)


@cli.command(short_help="Give users access to the boards (Linux).")
@click.option("--install", is_flag=True, help="Install the rule and check that it takes effect; needs root.")
@click.option("--force", is_flag=True, help="Replace an existing rule file that differs.")
def udev(install: bool, force: bool) -> None:
    """Print the udev rule that gives users access to the boards, or install it.

    The rule is for the USB IDs of the chips only. It gives access to the user who sits at the computer, and to the
    group plugdev.
    """

    def command(session: Session) -> int:
        from .commands.udev import udev

        return udev(session, install=install, force=force)

    _run(command)


@cli.command(short_help="Try everything on a simulated chip.")
@click.option(
    "--target",
    "name",
    metavar="CHIP",
    shell_complete=_completed_by("chips"),
    help="Chip to simulate. Default: the oldest one.",
)
def demo(name: str | None) -> None:
    """Build, inspect, list and flash on a simulated chip. Needs no board and no ESP-IDF."""

    def command(session: Session) -> int:
        from .commands.demo import demo

        return demo(session, name)

    _run(command)


@cli.command(
    "dfu-util",
    short_help="Take dfu-util's command line.",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("words", metavar="[ARGS]...", nargs=-1, type=click.UNPROCESSED)
def dfu_util(words: tuple[str, ...]) -> None:
    """Take dfu-util's command line, for programs that call it."""

    def command(session: Session) -> int:
        from .commands.dfu_util import dfu_util

        return dfu_util(session, words)

    _run(command, {"trace": os.environ.get("ESP_DFU_TRACE")})


_project = click.argument("project_dir", default=".", type=click.Path(path_type=Path))


def _shell(verb: str) -> Callable[[Any], Any]:
    text = f"Print a line that {verb} the actions for every project in the current shell."
    return click.option("--shell", is_flag=True, help=text)


@cli.command(
    short_help="Add the dfu actions to ESP-IDF 5.0 to 5.5.",
    examples=[
        ("esp-dfu enable my_project", "for this project"),
        ('eval "$(esp-dfu enable --shell)"', "for this shell"),
        ('eval "$(esp-dfu enable --dfu-util)"', "as dfu-util"),
    ],
)
@_project
@_shell("enables")
@click.option(
    "--dfu-util", is_flag=True, help="Write a program called dfu-util, and print a line that adds it to PATH."
)
@click.option("--vscode", is_flag=True, help="Write dfu-util to where ESP-IDF's extension for VS Code looks for it.")
@click.option("--force", is_flag=True, help="Let it come before a dfu-util that is installed.")
def enable(project_dir: Path, shell: bool, dfu_util: bool, vscode: bool, force: bool) -> None:
    """Add the dfu actions to ESP-IDF 5.0 to 5.5. Version 6.0 and later find them without this command."""

    def command(session: Session) -> int:
        from .commands import enable, enable_dfu_util

        if dfu_util or vscode:
            return enable_dfu_util.enable(session, force=force, vscode=vscode)
        return enable.enable_shell(session) if shell else enable.enable(session, project_dir)

    _run(command)


@cli.command(short_help="Undo what enable did.")
@_project
@_shell("disables")
@click.option("--dfu-util", is_flag=True, help="Remove every dfu-util that enable wrote.")
def disable(project_dir: Path, shell: bool, dfu_util: bool) -> None:
    """Undo what enable did."""

    def command(session: Session) -> int:
        from .commands import enable, enable_dfu_util

        if dfu_util:
            return enable_dfu_util.disable(session)
        return enable.disable_shell(session) if shell else enable.disable(session, project_dir)

    _run(command)


@cli.command(
    short_help="Print a completion script: bash, zsh, fish.",
    examples=[
        ('eval "$(esp-dfu completion bash)"', "in ~/.bashrc"),
        ('eval "$(esp-dfu completion zsh)"', "in ~/.zshrc"),
        ("esp-dfu completion fish | source", "in config.fish"),
    ],
)
@click.argument("shell", metavar="{bash|zsh|fish}", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes esp-dfu on TAB, including ports and chips."""
    from .commands.completion import script

    click.echo(script(shell, cli))


def _show(error: click.ClickException) -> int:
    """Show an error of click's in the form of all others, and return the exit code."""
    from .ui.console import Console

    message = " ".join(error.format_message().split())  # some of click's have line breaks and tabs
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "esp-dfu"
    Console().error(message if message[-1:] in ".?)" else f"{message}.", "usage", [], [f"See: {command} --help"])
    return EXIT_USAGE


def main_dfu_util() -> None:
    """Run `esp-dfu dfu-util`, under the name dfu-util."""
    main(["dfu-util", *sys.argv[1:]])


def main(words: Sequence[str] | None = None) -> None:
    """Run the console script.

    Args:
        words: The command line; None for the one of this process.
    """
    if sys.stdout is None:  # closed; click 8.0 cannot print to it
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    stdout = sys.stdout
    try:
        sys.exit(cli.main(words, prog_name="esp-dfu", standalone_mode=False))
    except SystemExit:
        if sys.stdout is not stdout:  # click replaces it where the reader left, and exits with 1
            sys.exit(PIPE_CLOSED)
        raise
    except (click.exceptions.Abort, KeyboardInterrupt):
        sys.exit(EXIT_INTERRUPTED)
    except click.ClickException as error:
        sys.exit(_show(error))
    except BrokenPipeError:
        sys.exit(PIPE_CLOSED)
    except OSError as error:  # the help or the version; commands show their own errors
        print(f"error: The output cannot be written: {error.strerror or error}. [output]", file=sys.stderr)
        sys.exit(OutputError.exit_code)
    finally:
        drop_unread(sys.stdout)
        drop_unread(sys.stderr)
