"""The actions of idf.py: `dfu`, `dfu-list`, `dfu-flash`, `dfu-doctor`.

idf.py loads this on each call, even for ``--help`` and on TAB, and fails if it fails. So only `options` is
imported here, nothing is read or printed, and an error leaves the built-in actions as they are. The callbacks
import the rest when they are called.

How the versions differ (ESP-IDF, tools/idf.py and tools/idf_py_actions/tools.py): up to 5.5 an extension's
actions replace built-in ones of the same name; from 6.0 on only those from IDF_EXTRA_ACTIONS_PATH do, all
others are refused with a warning on each call. But every version passes its own dictionary, and what is put
into it stays in it, without a warning, and among idf.py's own commands in ``--help``.
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
_OLDEST_PYTHON = (3, 9)  # as in pyproject.toml, which pip observes; a checkout in place has no pip
_ROUTES: list[str] = []  # how idf.py loaded this module, once for each time, for dfu-doctor


def action_extensions(base_actions: dict[str, Any], project_path: str, route: str = "package") -> dict[str, Any]:
    """Register our actions with idf.py; see ESP-IDF, docs/en/api-guides/tools/idf-py.rst, extensions.

    Args:
        base_actions: Actions that idf.py has so far; ours are put into it, in place of built-in ones with their names.
        project_path: Unused; the callbacks get it again.
        route: How idf.py loaded the package, for dfu-doctor; by default through the package itself.

    Returns:
        What idf.py is to add. A caller may drop it: all that matters is in `base_actions`.
    """
    caller = str(sys._getframe(1).f_globals.get("__file__"))
    if route == "package" and caller.endswith("idf_ext.py"):
        route = f"{caller}, which calls the installed package"
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
        if sys.version_info < _OLDEST_PYTHON:
            return {**ours, "global_action_callbacks": [_name_python]}
        known = base_actions.setdefault("actions", {})
        if any(_is_ours(known.get(name)) for name in _NAMES):
            return ours  # loaded by another route before
        if not all(isinstance(known.get(name, {}), dict) for name in _NAMES):
            return ours  # a later idf.py, whose actions are different
        actions = _actions()
        for name in _NAMES:
            # In the inner dictionary, in case a later idf.py passes a shallow copy of the outer one.
            action = known.setdefault(name, {})
            action.clear()
            action.update(actions[name])
        # Once in place and once returned: the first is for callers that drop what is returned, the second for a
        # later idf.py that passes a copy. It acts once.
        base_actions.setdefault("global_action_callbacks", []).append(_before_actions)
        ours["global_action_callbacks"] = [_before_actions]
        if return_all:
            ours["actions"] = _actions()
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
                "Without --path, --serial, --all or --watch, exactly one such board must be connected: in download "
                "mode or, if none is, with an app that takes DFU_DETACH."
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


_acted: list[Any] = []  # the contexts of idf.py whose actions were looked at


def _first_time(ctx: Any) -> bool:
    """Return whether idf.py has not called us for these actions; it does so for each time we were registered."""
    if ctx in _acted:
        return False
    _acted.append(ctx)
    return True


def _before_actions(ctx: Any, args: Any, tasks: Any) -> None:
    """Check what idf.py is about to do; idf.py calls this before all actions."""
    if not _first_time(ctx):
        return
    try:
        names = [task.name for task in tasks]
        foreign = [task for task in tasks if task.name in _NAMES and not hasattr(task.callback, _MARK)]
    except AttributeError:
        return  # a later idf.py, whose tasks are different
    if foreign:
        from .paths import extra_actions_path

        print(
            "esp-dfu-ext: this idf.py keeps its own dfu actions. To use those of esp-dfu-ext, set "
            f"IDF_EXTRA_ACTIONS_PATH to {extra_actions_path()}",
            file=sys.stderr,
        )
    elif "dfu" in names or "dfu-flash" in names:
        _check_before_build(ctx, args, tasks, chip="set-target" not in names)


def _check_before_build(ctx: Any, args: Any, tasks: Any, *, chip: bool) -> None:
    def run() -> int:
        from pathlib import Path

        from .commands.before_actions import port_without_effect, refuse_wrong_chip

        session = _session(args, {})
        port = port_without_effect(ctx, args, tasks)
        if port is not None:
            session.console.warn(
                f"-p {port} has no effect on a dfu-flash of several boards or a simulated one: it is the port of one."
            )
        if not chip:
            return 0
        definitions = getattr(args, "define_cache_entry", None) or ()
        return session.run(lambda session: refuse_wrong_chip(session, Path(args.build_dir), definitions))

    _call(run)


def _name_python(ctx: Any, args: Any, tasks: Any) -> None:
    """Say why idf.py runs its own dfu actions, if it is about to run one."""
    if _first_time(ctx) and any(getattr(task, "name", None) in _NAMES for task in tasks):
        print(
            f"esp-dfu-ext needs Python {'.'.join(map(str, _OLDEST_PYTHON))} or newer, and ESP-IDF uses "
            f"{sys.version.split()[0]}: idf.py runs its own dfu actions.",
            file=sys.stderr,
        )


# --- callbacks --------------------------------------------------------------------------------------------


def _dfu(
    target_name: str, ctx: Any, args: Any, output: str | None = None, only: tuple[str, ...] = (), **chosen: Any
) -> None:
    def run() -> int:
        from pathlib import Path

        from .commands.build import build

        path = None if output is None else Path(output)
        return _session(args, chosen, "dfu", output=output, only=only).run(
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

        from .commands.before_actions import board_port
        from .commands.flash import flash
        from .commands.flash_run import FlashArguments
        from .inputs.esp_idf import DFU_BIN, read_project

        build_dir = Path(args.build_dir)

        def command(session: Session) -> int:
            target = read_project(build_dir, session.project_dir).target
            chosen["port"] = board_port(ctx, args, {**chosen, "path": path})
            arguments = FlashArguments(paths=path, **chosen)
            return flash(session, build_dir / DFU_BIN, arguments, target_name=target, build_dir=build_dir)

        return _session(args, chosen, "dfu-flash", path=path).run(command)

    _call(run)


def _dfu_doctor(target_name: str, ctx: Any, args: Any, json: bool = False, **chosen: Any) -> None:
    def run() -> int:
        import os
        from pathlib import Path

        from .commands.doctor import doctor
        from .doctor.environment import Plugin
        from .paths import extra_actions_path

        plugin = Plugin(_ROUTES, _kept(ctx), extra_actions_path())
        build_dir = Path(args.build_dir)
        default = os.path.join(args.project_dir, "build")
        named = os.path.realpath(build_dir) != os.path.realpath(default)
        return _session(args, chosen).run(
            lambda session: doctor(session, build_dir, named=named, plugin=plugin, as_json=json, **chosen)
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


def _session(args: Any, chosen: dict[str, Any], action: str = "", **others: Any) -> Session:
    """Return the session of an action.

    Args:
        args: idf.py's own options.
        chosen: Options of the action; those that concern every command are taken out.
        action: ``dfu`` or ``dfu-flash``, for advice to name with all options that were typed; empty for others.
        others: Options of the action that `chosen` lacks.
    """
    from dataclasses import replace
    from pathlib import Path

    from .commands import options
    from .commands.session import open_session
    from .doctor.advice import IDF_PY
    from .units import quoted

    names = IDF_PY.in_project(str(args.project_dir), str(args.build_dir))
    if action:
        described = options.build() if action == "dfu" else [*options.flash(), options.quiet()]
        begin = names.build if action == "dfu" else names.flash
        names = replace(names, again=" ".join([begin, quoted(options.typed(described, {**chosen, **others}))]).rstrip())
    return open_session(names, Path(args.project_dir), chosen)


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
