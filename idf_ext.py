"""The door for idf.py when this folder is used in place: as IDF_EXTRA_ACTIONS_PATH, component or project.

It is never installed: a top-level module of this name would take the place of a project's own.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent


def action_extensions(base_actions: Any, project_path: str) -> dict[str, Any]:
    """See esp_dfu_ext.idf_actions; never fails, because idf.py would fail with it."""
    try:
        _leave_room_for_project(project_path)
        if "esp_dfu_ext" not in sys.modules:
            # By path: from ESP-IDF 6.0 on, this folder is not on sys.path.
            init = _HERE / "esp_dfu_ext" / "__init__.py"
            spec = importlib.util.spec_from_file_location("esp_dfu_ext", init)
            if spec is None or spec.loader is None:
                return {"version": "1"}
            module = importlib.util.module_from_spec(spec)
            sys.modules["esp_dfu_ext"] = module
            spec.loader.exec_module(module)
        actions: dict[str, Any] = sys.modules["esp_dfu_ext"].action_extensions(base_actions, project_path)
        return actions
    except Exception as error:
        print(f"esp-dfu-ext could not be loaded: {error!r}", file=sys.stderr)
        return {"version": "1"}


def _leave_room_for_project(project_path: str) -> None:
    """ESP-IDF up to 5.5 asks for a project's own file as ``import idf_ext``, and would get this one.

    So the project's takes this one's name, unread until idf.py asks it for something.
    """
    own = Path(project_path, "idf_ext.py")
    if __name__ != "idf_ext" or not own.is_file() or own.resolve() == Path(__file__).resolve():
        return
    spec = importlib.util.spec_from_file_location("idf_ext", own)
    if spec is not None and spec.loader is not None:
        spec.loader = importlib.util.LazyLoader(spec.loader)
        module = importlib.util.module_from_spec(spec)
        sys.modules["idf_ext"] = module
        spec.loader.exec_module(module)
