"""Loads the actions into idf.py from this checkout: as IDF_EXTRA_ACTIONS_PATH, as a component or as the project.

This module is never installed: a top-level module of this name would hide a project's own.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # typing would have to be imported for it
if TYPE_CHECKING:
    from typing import Any

_HOME = os.path.dirname(os.path.abspath(__file__))


def action_extensions(base_actions: Any, project_path: str) -> dict[str, Any]:
    """Register our actions, see esp_dfu_ext.idf_actions; catch every error, because idf.py would fail with it."""
    try:
        _leave_room_for_project(project_path)
        sys.path.insert(0, _HOME)  # idf.py of ESP-IDF 6.0 and later does not
        try:
            from esp_dfu_ext import idf_actions
        finally:
            sys.path.remove(_HOME)
        # idf.py uses the bare name only where returned actions replace built-in ones.
        extra = __name__ == "idf_ext"
        register = idf_actions.extra_action_extensions if extra else idf_actions.action_extensions
        return register(base_actions, project_path, _route(project_path))
    except Exception as error:
        print(f"esp-dfu-ext could not be loaded: {error!r}", file=sys.stderr)
        return {"version": "1"}


def _route(project_path: str) -> str:
    """Return how idf.py loaded this module, for dfu-doctor."""
    if os.path.abspath(project_path) == _HOME:
        return f"idf_ext.py of the project, {_HOME}"
    if __name__ != "idf_ext":
        return f"a component of the project, {_HOME}"
    extra = [os.path.realpath(folder) for folder in os.environ.get("IDF_EXTRA_ACTIONS_PATH", "").split(";") if folder]
    return f"{'IDF_EXTRA_ACTIONS_PATH' if os.path.realpath(_HOME) in extra else 'sys.path'}, {_HOME}"


def _leave_room_for_project(project_path: str) -> None:
    """Give the name ``idf_ext`` to the project's own file.

    ESP-IDF up to 5.5 loads that file with ``import idf_ext``, and would get this module. The project's file is only
    read when idf.py uses it.
    """
    own = os.path.join(project_path, "idf_ext.py")
    if __name__ != "idf_ext" or not os.path.isfile(own) or os.path.samefile(own, __file__):
        return
    import importlib.util

    spec = importlib.util.spec_from_file_location("idf_ext", own)
    if spec is not None and spec.loader is not None:
        spec.loader = importlib.util.LazyLoader(spec.loader)
        module = importlib.util.module_from_spec(spec)
        sys.modules["idf_ext"] = module
        spec.loader.exec_module(module)
