"""The actions of idf.py: `dfu`, `dfu-list`, `dfu-flash`, `dfu-doctor`.

idf.py loads this on each call, even for ``--help`` and on TAB, and fails if it fails. So only `options` is
imported here, nothing is read or printed, and an error leaves the built-in actions as they are. The callbacks
import the rest when they are called.

How the versions differ (ESP-IDF, tools/idf.py and tools/idf_py_actions/tools.py): up to 5.5 an extension's
actions replace built-in ones of the same name; from 6.0 on only those from IDF_EXTRA_ACTIONS_PATH do, all
others are refused with a warning on each call. But every version passes its own dictionary, and an action that
is replaced in it stays replaced, without a warning.
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
_ROUTES: list[str] = []  # how idf.py loaded this module, once for each time, for dfu-doctor


def action_extensions(base_actions: dict[str, Any], project_path: str, route: str = "package") -> dict[str, Any]:
    """Register our actions with idf.py; see ESP-IDF, docs/en/api-guides/tools/idf-py.rst, extensions.

    Args:
        base_actions: Actions that idf.py has so far; built-in ones with our names are replaced in it.
        project_path: Unused; the callbacks get it again.
        route: How idf.py loaded the package, for dfu-doctor; by default through the package itself.

    Returns:
        Actions for idf.py to add; without those that replaced built-in ones.
    """
    _ROUTES.append(route)
    return _register(base_actions, return_all=False)


def extra_action_extensions(
    base_actions: dict[str, Any], project_path: str, route: str = "IDF_EXTRA_ACTIONS_PATH"
) -> dict[str, Any]:
    """Register our actions from IDF_EXTRA_ACTIONS_PATH: every idf.py prefers actions that are returned there."""
    _ROUTES.append(route)
    return _register(base_actions, return_all=True)


def _register(base_actions: dict[str, Any], *, return_all: bool) -> dict[str, Any]:
    ours: dict[str, Any] = {"version": "1"}
    try:
        known = base_actions.get("actions", {})
        if any(_is_ours(known.get(name)) for name in _NAMES):
            return ours  # loaded by another route before
        actions = _actions()
        taken = [name for name in _NAMES if name in known]
        if all(isinstance(known[name], dict) for name in taken):
            ours["global_action_callbacks"] = [_before_actions]
            ours["actions"] = {name: actions[name] for name in _NAMES if return_all or name not in taken}
            for name in taken:
                # In the inner dictionary, in case a later idf.py passes a shallow copy of the outer one.
                known[name].clear()
                known[name].update(actions[name])
    except Exception as error:
        print(f"esp-dfu-ext could not be loaded: {error!r}", file=sys.stderr)
    return ours


def _is_ours(action: Any) -> bool:
    return isinstance(action, dict) and hasattr(action.get("callback"), _MARK)


def _actions() -> dict[str, dict[str, Any]]:
    """Return new dictionaries for each call, because idf.py changes them."""
    from .commands import options

    return {
        "dfu": {
            "callback": _dfu,
            "short_help": "Build the DFU image for flashing over the chip's own USB port.",
            "help": (
                "Build the project and write build/dfu.bin; for chips with USB DFU in their ROM.\n\n"
                "Files that the chip's ROM would flash wrongly are refused before anything is written."
            ),
            "dependencies": ["all"],
            "options": options.build(),
        },
        "dfu-list": {
            "callback": _dfu_list,
            "short_help": "List connected boards that can be flashed over USB.",
            "help": (
                "List connected boards in dfu-util's format; works outside projects too.\n\n"
                "Boards are listed on stdout; messages go to stderr. If no board is connected, the notes say "
                "how to put each chip into download mode, and which pins its USB port uses."
            ),
            "options": options.list_(),
        },
        "dfu-flash": {
            "callback": _dfu_flash,
            "short_help": "Flash the DFU image over the chip's own USB port.",
            "help": (
                "Flash build/dfu.bin to a board of the project's chip.\n\n"
                "Without --path, --serial, --all or --watch, exactly one such board must be connected."
            ),
            "order_dependencies": ["all", "dfu"],
            "options": [*options.flash(), options.quiet()],
        },
        "dfu-doctor": {
            "callback": _dfu_doctor,
            "short_help": "Check everything needed for flashing over USB.",
            "help": (
                "Check everything needed for flashing over USB, and show the next step; works outside projects too.\n\n"
                "This covers Python, ESP-IDF, this plugin, libusb, the USB bus, permissions, drivers, every board, and "
                "the project. It changes nothing. The exit code is 0 if there is no problem, else 1."
            ),
            "options": options.doctor(),
        },
    }


_warned: list[bool] = []


def _before_actions(ctx: Any, global_args: Any, tasks: Any) -> None:
    """Warn if idf.py refused our actions, and refuse a chip without USB DFU; idf.py calls this before all actions."""
    try:
        names = [task.name for task in tasks]
        foreign = [task for task in tasks if task.name in _NAMES and not hasattr(task.callback, _MARK)]
    except AttributeError:
        return  # a later idf.py, whose tasks are different
    if foreign:
        if _warned:
            return  # loaded by several routes, and refused in all
        _warned.append(True)
        from .paths import extra_actions_path

        print(
            "esp-dfu-ext: this idf.py keeps its own dfu actions. To use those of esp-dfu-ext, set "
            f"IDF_EXTRA_ACTIONS_PATH to {extra_actions_path()}",
            file=sys.stderr,
        )
    elif ("dfu" in names or "dfu-flash" in names) and "set-target" not in names:
        # Before the build, which takes minutes.
        _refuse_unsupported_target(global_args)


def _refuse_unsupported_target(args: Any) -> None:
    def run() -> int:
        import contextlib
        from pathlib import Path

        from .errors import InputMissingError, ProjectError
        from .inputs.esp_idf import read_project
        from .target import load_target

        def refuse(session: Session) -> int:
            with contextlib.suppress(InputMissingError, ProjectError):  # not configured yet: the build will do that
                load_target(read_project(Path(args.build_dir), session.project_dir).target, session.project_dir)
            return 0

        return _session(args, {}).run(refuse)

    _call(run)


# --- callbacks --------------------------------------------------------------------------------------------


def _dfu(
    target_name: str, ctx: Any, args: Any, output: str | None = None, only: tuple[str, ...] = (), **chosen: Any
) -> None:
    def run() -> int:
        from pathlib import Path

        from .commands.build import build

        path = None if output is None else Path(output)
        return _session(args, chosen).run(
            lambda session: build(
                session,
                [Path(args.build_dir)],
                project_dir=session.project_dir,
                output=path,
                only=only,
                **chosen,
            )
        )

    _call(run)


def _dfu_list(target_name: str, ctx: Any, args: Any, json: bool = False, **chosen: Any) -> None:
    def run() -> int:
        from .commands.list import list_devices

        return _session(args, chosen).run(
            lambda session: list_devices(session, as_json=json, style="dfu-util", **chosen)
        )

    _call(run)


def _dfu_flash(target_name: str, ctx: Any, args: Any, path: tuple[str, ...] = (), **chosen: Any) -> None:
    def run() -> int:
        from pathlib import Path

        from .commands.flash import flash
        from .commands.flash_run import FlashArguments
        from .inputs.esp_idf import DFU_BIN, read_project

        build_dir = Path(args.build_dir)

        def command(session: Session) -> int:
            target = read_project(build_dir, session.project_dir).target
            arguments = FlashArguments(paths=path, **chosen)
            return flash(session, build_dir / DFU_BIN, arguments, target_name=target, build_dir=build_dir)

        return _session(args, chosen).run(command)

    _call(run)


def _dfu_doctor(target_name: str, ctx: Any, args: Any, json: bool = False, **chosen: Any) -> None:
    def run() -> int:
        from pathlib import Path

        from .commands.doctor import doctor
        from .doctor.environment import Plugin
        from .paths import extra_actions_path

        plugin = Plugin(_ROUTES, _kept(ctx), extra_actions_path())
        return _session(args, chosen).run(
            lambda session: doctor(session, Path(args.build_dir), plugin=plugin, as_json=json, **chosen)
        )

    _call(run)


def _kept(ctx: Any) -> dict[str, bool]:
    """Return whether idf.py runs our action, by name; empty for a later idf.py whose commands are different."""
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


def _session(args: Any, chosen: dict[str, Any]) -> Session:
    from pathlib import Path

    from .commands.session import open_session
    from .doctor.advice import IDF_PY

    return open_session(IDF_PY, Path(args.project_dir), chosen)


def _call(run: Callable[[], int]) -> None:
    """Run a callback so that Ctrl-C reaches it and its exit code reaches idf.py."""
    import contextlib
    import signal

    from .errors import EXIT_INTERRUPTED, PIPE_CLOSED, UsbUnavailableError
    from .ui.streams import drop_unread

    handler = None
    with contextlib.suppress(ValueError):  # raised outside the main thread
        # ESP-IDF up to 5.0 ignores SIGINT in its own process.
        handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = run()
    except ImportError as error:
        print(
            f"error: esp-dfu-ext is not installed completely ({error}). Install it again: "
            f"{sys.executable} -m pip install esp-dfu-ext",
            file=sys.stderr,
        )
        code = UsbUnavailableError.exit_code
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        code = PIPE_CLOSED
    finally:
        drop_unread(sys.stdout)
        if handler is not None:
            signal.signal(signal.SIGINT, handler)
    if code:
        sys.exit(code)
