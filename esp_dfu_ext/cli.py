"""`esp-dfu`: the jobs on a machine without ESP-IDF.

Exit codes are those of sysexits.h where one fits; `errors` has the list, and so has ``esp-dfu --help``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

import click

from .commands import options
from .errors import EXIT_CODES, PIPE_CLOSED
from .ui.streams import drop_unread
from .versions import __version__

if TYPE_CHECKING:
    from .commands.session import Session


def _exit_codes() -> str:
    """For the end of ``--help``: two columns, each read downwards."""
    cells = [f"{code:4}  {text}" for code, text in EXIT_CODES.items()]
    half = -(-len(cells) // 2)
    width = max(map(len, cells[:half]))
    rows = (
        f"{left:{width}}  {right}".rstrip() for left, right in zip_longest(cells[:half], cells[half:], fillvalue="")
    )
    return "\n".join(["\b", "Exit codes:", *rows])


_NARROW = 40  # columns; what a longer example does is said below it


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
    """The same for the commands' own group, which names them in the order of the code."""

    command_class = _Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See click.Group."""
        return list(self.commands)


def _completed_by(name: str) -> Callable[[click.Context, click.Parameter, str], list[Any]]:
    """What TAB offers, from `completion`, which is imported only then."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
        from .commands import completion

        return list(getattr(completion, name)(context, parameter, incomplete))

    return complete


def _takes(*described: dict[str, Any], **completed: Callable[..., list[Any]]) -> Callable[[Any], Any]:
    """Options as `options` describes them; `completed` are those that TAB completes, by name."""

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


@click.group(
    cls=_Group,
    invoke_without_command=True,
    subcommand_metavar="[COMMAND] [ARGS]...",  # click's own depends on its version
    examples=[
        ("esp-dfu demo", "simulate it all"),
        ("esp-dfu build my_project/build", "make dfu.bin"),
        ("esp-dfu list", "the boards"),
        ("esp-dfu flash my_project/build/dfu.bin", "the only board"),
        ("esp-dfu doctor", "what is wrong"),
    ],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_exit_codes(),
)
@click.version_option(__version__, prog_name="esp-dfu")
@click.pass_context
def cli(context: click.Context) -> None:
    """Flash ESP32-series boards over the chip's own USB port (DFU).

    In an ESP-IDF project the same jobs are idf.py dfu, dfu-list, dfu-flash and dfu-doctor.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(64)


def _run(
    job: Callable[[Session], int],
    *,
    dfu_bin: Path | None = None,
    build_dir: Path | None = None,
    quiet: bool = False,
    as_json: bool = False,
    trace: str | None = None,
) -> None:
    # Imported here and below, inside what `main` guards: it takes long enough for a Ctrl-C.
    from .commands.session import JsonSession, Session
    from .doctor.advice import ESP_DFU
    from .project import project_dir_of, project_dir_of_image
    from .ui.console import Console

    project_dir = project_dir_of(build_dir) if build_dir is not None else Path()
    if dfu_bin is not None:
        project_dir = project_dir_of_image(dfu_bin)
    session = (JsonSession if as_json else Session)(Console(quiet=quiet), ESP_DFU, project_dir, trace=trace)
    try:
        code = session.run(job)
    except BrokenPipeError:  # the reader of a pipe left; click would make it 1
        code = PIPE_CLOSED
    sys.exit(code)


@cli.command(short_help="Make dfu.bin from a built project.")
@click.argument("build_dir", type=click.Path(path_type=Path, readable=False))
@_takes(*options.build(), _quiet)
def build(
    build_dir: Path, output: str | None, part_size: str | None, only: tuple[str, ...], force: bool, quiet: bool
) -> None:
    """Make dfu.bin from the build folder of an ESP-IDF project."""

    def job(session: Session) -> int:
        from .commands.build import build

        path = Path(output) if output else None
        return build(session, build_dir, output=path, part_size=part_size, sections=only, force=force)

    _run(job, quiet=quiet)


@cli.command(short_help="Show what is in a DFU.BIN.")
@click.argument("dfu_bin", metavar="DFU.BIN", type=click.Path(path_type=Path, readable=False))
def inspect(dfu_bin: Path) -> None:
    """Show what is in a DFU.BIN, and what the chip's ROM would say of it."""

    def job(session: Session) -> int:
        from .commands.inspect import inspect

        return inspect(session, dfu_bin)

    _run(job, dfu_bin=dfu_bin)


@cli.command("list", short_help="Show the boards that are there.")
@_takes(options.document(), options.trace())
def list_(json: bool, trace: str | None) -> None:
    """Show the boards that are there, in dfu-util's format.

    Lines on stdout are for programs; what people should know goes to stderr. Where there is no board, that
    is how each chip gets into download mode, and the pins of its USB port.
    """

    def job(session: Session) -> int:
        from .commands.list import list_devices

        return list_devices(session, as_json=json)

    _run(job, trace=trace)


@cli.command(
    short_help="Flash a DFU.BIN onto a board, or many.",
    examples=[
        ("esp-dfu flash dfu.bin", "the only board"),
        ("esp-dfu flash dfu.bin --path 1-2", "the one on this port"),
        ("esp-dfu flash dfu.bin --all", "all, at once"),
        ("esp-dfu flash dfu.bin --watch --report made.jsonl", "one after the other"),
    ],
)
@click.argument("dfu_bin", metavar="DFU.BIN", type=click.Path(path_type=Path, readable=False))
@_takes(
    *options.flash(),
    {"names": ["--json"], "is_flag": True, "help": "Print each event and the result as a line of JSON."},
    _quiet,
    options.trace(),
    path=_completed_by("paths"),
    serial=_completed_by("serials"),
)
def flash(dfu_bin: Path, quiet: bool, trace: str | None, path: tuple[str, ...], **chosen: Any) -> None:
    """Flash DFU.BIN onto a board; the chip follows from the image."""

    def job(session: Session) -> int:
        from .commands.flash import flash
        from .commands.flash_run import FlashArguments

        return flash(session, dfu_bin, FlashArguments(paths=path, **chosen))

    _run(job, dfu_bin=dfu_bin, quiet=quiet, as_json=chosen["json"], trace=trace)


@cli.command(short_help="Say what stands in the way of a flash.")
@click.argument("build_dir", type=click.Path(path_type=Path, readable=False), default="build")
@_takes(options.document(), options.trace())
def doctor(build_dir: Path, json: bool, trace: str | None) -> None:
    """Look at everything that a flash needs, and name the next step.

    That is Python, libusb, the bus, permissions, drivers, every board, and the project in BUILD_DIR. Changes
    nothing. Exit code 0 when nothing is a problem, 1 when something is.
    """

    def job(session: Session) -> int:
        from .commands.doctor import doctor

        return doctor(session, build_dir, as_json=json)

    _run(job, build_dir=build_dir, trace=trace)


@cli.command(short_help="Let users open the boards (Linux).")
@click.option(
    "--install", is_flag=True, help="Write the rule, make udev read it, and see that it took effect; as root."
)
@click.option("--force", is_flag=True, help="Replace a file that is there and differs.")
def udev(install: bool, force: bool) -> None:
    """Print the udev rule that lets users open the boards, or install it.

    The rule is for the chips' own IDs alone. It lets in the user who sits at the machine, and the group plugdev.
    """

    def job(session: Session) -> int:
        from .commands.udev import show

        return show(session, install=install, force=force)

    _run(job)


@cli.command(short_help="See the whole job on a simulated chip.")
@click.option(
    "--target",
    "name",
    metavar="CHIP",
    shell_complete=_completed_by("chips"),
    help="Chip to simulate. Default: the first one by name.",
)
def demo(name: str | None) -> None:
    """Build, inspect, list and flash on a simulated chip; needs no board and no ESP-IDF."""

    def job(session: Session) -> int:
        from .commands.demo import demo

        return demo(session, name)

    _run(job)


_project = click.argument("project_dir", default=".", type=click.Path(path_type=Path))
_shell = click.option("--shell", is_flag=True, help="All projects of a shell: print the line to evaluate in it.")


@cli.command(
    short_help="Give ESP-IDF 5.0 to 5.5 the dfu actions.",
    examples=[
        ("esp-dfu enable my_project", "this project"),
        ('eval "$(esp-dfu enable --shell)"', "all, in this shell"),
    ],
)
@_project
@_shell
def enable(project_dir: Path, shell: bool) -> None:
    """Give ESP-IDF up to 5.5 the dfu actions; from 6.0 on it finds them by itself."""

    def job(session: Session) -> int:
        from .commands import enable as command

        return command.enable_shell(session) if shell else command.enable(session, project_dir)

    _run(job)


@cli.command()
@_project
@_shell
def disable(project_dir: Path, shell: bool) -> None:
    """Take back what enable did."""

    def job(session: Session) -> int:
        from .commands import enable as command

        return command.disable_shell(session) if shell else command.disable(session, project_dir)

    _run(job)


@cli.command(
    short_help="Print the script for TAB: bash, zsh, fish.",
    examples=[
        ('eval "$(esp-dfu completion bash)"', "in ~/.bashrc"),
        ('eval "$(esp-dfu completion zsh)"', "in ~/.zshrc"),
        ("esp-dfu completion fish | source", "in config.fish"),
    ],
)
@click.argument("shell", metavar="{bash|zsh|fish}", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes esp-dfu on TAB, ports and chips included."""
    from .commands.completion import script

    click.echo(script(shell, cli))


def _refuse(error: click.ClickException) -> int:
    """Say what click refuses as every other error is said."""
    from .ui.console import Console

    message = error.format_message()
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "esp-dfu"
    Console().error(message if message[-1:] in ".?)" else f"{message}.", "usage", [], [f"See: {command} --help"])
    return 64


def main() -> None:
    """The entry point of the console script."""
    try:
        sys.exit(cli.main(prog_name="esp-dfu", standalone_mode=False))
    except (click.exceptions.Abort, KeyboardInterrupt):
        sys.exit(130)
    except click.ClickException as error:
        sys.exit(_refuse(error))
    finally:
        drop_unread(sys.stdout)
        drop_unread(sys.stderr)


if __name__ == "__main__":
    main()
