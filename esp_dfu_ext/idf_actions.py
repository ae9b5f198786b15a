"""The actions of idf.py: `dfu`, `dfu-list`, `dfu-flash`, `dfu-doctor`.

idf.py loads this on each call, also for ``--help`` and on TAB, and fails if it fails. So only `options` is
imported here, nothing is read or printed, and whatever goes wrong leaves the built-in actions as they are.
The callbacks import the rest when they are called.

How the versions differ (ESP-IDF, tools/idf.py and tools/idf_py_actions/tools.py): up to 5.5 an extension's
actions replace built-in ones of the same name; from 6.0 on only those from IDF_EXTRA_ACTIONS_PATH do, all
others are refused with a warning on each call. But every version hands over its own dictionary, and what
is replaced in it stays replaced, silently.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # typing would have to be imported for it
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .commands.session import Session

_MARK = "_esp_dfu_ext"
_NAMES = ("dfu", "dfu-list", "dfu-flash", "dfu-doctor")
_DOORS: list[str] = []  # the ways idf.py took to get here, in its order; dfu-doctor tells them


def action_extensions(base_actions: dict[str, Any], project_path: str, door: str = "package") -> dict[str, Any]:
    """Register our actions with idf.py; see ESP-IDF, docs/en/api-guides/tools/idf-py.rst, extensions.

    Args:
        base_actions: what idf.py knows so far; built-in actions of our names are replaced in it.
        project_path: unused, the callbacks get it again.
        door: how idf.py got here; it calls this function of the package itself without.

    Returns:
        What idf.py shall add: nothing where our actions took the place of built-in ones.
    """
    _DOORS.append(door)
    return _register(base_actions, return_all=False)


def extra_action_extensions(
    base_actions: dict[str, Any], project_path: str, door: str = "IDF_EXTRA_ACTIONS_PATH"
) -> dict[str, Any]:
    """The same for IDF_EXTRA_ACTIONS_PATH, where every idf.py prefers what is returned."""
    _DOORS.append(door)
    return _register(base_actions, return_all=True)


def _register(base_actions: dict[str, Any], *, return_all: bool) -> dict[str, Any]:
    ours: dict[str, Any] = {"version": "1"}
    try:
        known = base_actions.get("actions", {})
        if any(_is_ours(known.get(name)) for name in _NAMES):
            return ours  # loaded in another way already
        actions = _actions()
        taken = [name for name in _NAMES if name in known]
        if all(isinstance(known[name], dict) for name in taken):
            ours["global_action_callbacks"] = [_before_actions]
            ours["actions"] = {name: actions[name] for name in _NAMES if return_all or name not in taken}
            for name in taken:
                # The inner dictionary, so that it holds even if a later idf.py hands over a shallow copy.
                known[name].clear()
                known[name].update(actions[name])
    except Exception as error:
        print(f"esp-dfu-ext could not be loaded: {error!r}", file=sys.stderr)
    return ours


def _is_ours(action: Any) -> bool:
    return isinstance(action, dict) and hasattr(action.get("callback"), _MARK)


def _actions() -> dict[str, dict[str, Any]]:
    """Fresh dictionaries for each call: idf.py takes them apart."""
    from .commands import options

    return {
        "dfu": {
            "callback": _dfu,
            "short_help": "Build the DFU image for flashing over the chip's own USB port.",
            "help": (
                "Build the project and write build/dfu.bin; for chips with USB DFU in their ROM.\n\n"
                "Everything that the chip's ROM would flash wrongly is refused before a byte is written."
            ),
            "dependencies": ["all"],
            "options": options.build(),
        },
        "dfu-list": {
            "callback": _dfu_list,
            "short_help": "List the boards that can be flashed over USB.",
            "help": (
                "List Espressif devices with DFU, in dfu-util's format; works outside projects too.\n\n"
                "Devices that cannot be opened or have no DFU are explained on stderr. Where there is no board, that "
                "is how each chip gets into download mode, and the pins of its USB port."
            ),
            "options": [options.document(), options.trace()],
        },
        "dfu-flash": {
            "callback": _dfu_flash,
            "short_help": "Flash the DFU image over the chip's own USB port.",
            "help": (
                "Flash build/dfu.bin. The chip follows from the project's target.\n\n"
                "Without --path or --serial exactly one board of this chip must be there."
            ),
            "order_dependencies": ["all", "dfu"],
            "options": [*options.flash(), options.quiet(), options.trace()],
        },
        "dfu-doctor": {
            "callback": _dfu_doctor,
            "short_help": "Say what stands in the way of flashing over USB.",
            "help": (
                "Look at Python, ESP-IDF, this plugin, libusb, the bus, permissions and the project, and name the next "
                "step; works outside projects too.\n\n"
                "Exit code 0 when nothing is a problem, 1 when something is."
            ),
            "options": [options.document(), options.trace()],
        },
    }


_told: list[bool] = []


def _before_actions(ctx: Any, global_args: Any, tasks: Any) -> None:
    """idf.py calls this before the first action of a call."""
    try:
        names = [task.name for task in tasks]
        foreign = [task for task in tasks if task.name in _NAMES and not hasattr(task.callback, _MARK)]
    except AttributeError:
        return  # a later idf.py, whose tasks look different
    if foreign:
        if _told:
            return  # loaded in several ways, and refused in all
        _told.append(True)
        from .paths import extra_actions_path

        print(
            "esp-dfu-ext: this idf.py keeps its own dfu actions; for ours set IDF_EXTRA_ACTIONS_PATH to "
            f"{extra_actions_path()}",
            file=sys.stderr,
        )
    elif ("dfu" in names or "dfu-flash" in names) and "set-target" not in names:
        # Said now, and not after minutes of building.
        _refuse_unsupported_target(global_args)


def _refuse_unsupported_target(args: Any) -> None:
    def job() -> int:
        import contextlib
        from pathlib import Path

        from .errors import InputMissingError, ProjectError
        from .project import read_project
        from .target import load_target

        def refuse(session: Session) -> int:
            with contextlib.suppress(InputMissingError, ProjectError):  # not configured yet: the build will do that
                load_target(read_project(Path(args.build_dir), session.project_dir).target, session.project_dir)
            return 0

        return _session(args).run(refuse)

    _call(job)


# --- callbacks --------------------------------------------------------------------------------------------


def _dfu(
    target_name: str,
    ctx: Any,
    args: Any,
    part_size: str | None = None,
    only: tuple[str, ...] = (),
    output: str | None = None,
    force: bool = False,
) -> None:
    def job() -> int:
        from pathlib import Path

        from .commands.build import build

        return _session(args).run(
            lambda session: build(
                session,
                Path(args.build_dir),
                project_dir=session.project_dir,
                output=Path(output) if output else None,
                part_size=part_size,
                sections=only,
                force=force,
            )
        )

    _call(job)


def _dfu_list(target_name: str, ctx: Any, args: Any, json: bool = False, trace: str | None = None) -> None:
    def job() -> int:
        from .commands.list import list_devices

        return _session(args, trace=trace).run(lambda session: list_devices(session, as_json=json))

    _call(job)


def _dfu_flash(
    target_name: str,
    ctx: Any,
    args: Any,
    quiet: bool = False,
    path: tuple[str, ...] = (),
    trace: str | None = None,
    **options: Any,
) -> None:
    def job() -> int:
        from pathlib import Path

        from .commands import flash as command
        from .commands.flash_run import FlashArguments
        from .project import DFU_BIN, read_project

        build_dir = Path(args.build_dir)

        def flash(session: Session) -> int:
            project = read_project(build_dir, session.project_dir)
            return command.flash(
                session,
                build_dir / DFU_BIN,
                FlashArguments(paths=path, **options),
                target_name=project.target,
                build_dir=build_dir,
            )

        return _session(args, quiet=quiet, trace=trace).run(flash)

    _call(job)


def _dfu_doctor(target_name: str, ctx: Any, args: Any, json: bool = False, trace: str | None = None) -> None:
    def job() -> int:
        from pathlib import Path

        from .commands.doctor import doctor
        from .doctor.environment import Plugin
        from .paths import extra_actions_path

        plugin = Plugin(_DOORS, _kept(ctx), extra_actions_path())
        return _session(args, trace=trace).run(
            lambda session: doctor(session, Path(args.build_dir), plugin=plugin, as_json=json)
        )

    _call(job)


def _kept(ctx: Any) -> dict[str, bool]:
    """Which of our actions idf.py runs; one whose commands look different says nothing."""
    kept = {}
    for name in _NAMES:
        try:
            callback = ctx.command.get_command(ctx, name).unwrapped_callback
        except AttributeError:
            continue
        kept[name] = hasattr(callback, _MARK)
    return kept


for _callback in (_dfu, _dfu_list, _dfu_flash, _dfu_doctor):
    setattr(_callback, _MARK, True)


def _session(args: Any, *, quiet: bool = False, trace: str | None = None) -> Session:
    from pathlib import Path

    from .commands.session import Session
    from .doctor.advice import IDF_PY
    from .ui.console import Console

    return Session(Console(quiet=quiet), IDF_PY, Path(args.project_dir), trace=trace)


def _call(job: Callable[[], int]) -> None:
    """Run a callback's work: Ctrl-C must reach it, and its exit code idf.py."""
    import contextlib
    import signal

    from .ui.streams import drop_unread

    handler = None
    with contextlib.suppress(ValueError):  # raised outside the main thread
        # ESP-IDF up to 5.0 ignores SIGINT in its own process.
        handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = job()
    except ImportError as error:
        print(
            f"error: esp-dfu-ext is not completely installed ({error}). Install it: "
            f"{sys.executable} -m pip install esp-dfu-ext",
            file=sys.stderr,
        )
        code = 72
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        from .errors import PIPE_CLOSED

        code = PIPE_CLOSED
    finally:
        drop_unread(sys.stdout)
        if handler is not None:
            signal.signal(signal.SIGINT, handler)
    if code:
        sys.exit(code)
