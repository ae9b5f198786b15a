"""Loads the actions from IDF_EXTRA_ACTIONS_PATH: idf.py imports each module there whose name ends in ``_ext``."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # typing would have to be imported for it
if TYPE_CHECKING:
    from typing import Any

_HOME = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def action_extensions(base_actions: Any, project_path: str) -> dict[str, Any]:
    """Register our actions, see esp_dfu_ext.idf_actions; catch every error, because idf.py would fail with it."""
    try:
        sys.path.insert(0, _HOME)
        try:
            from esp_dfu_ext.idf_actions import extra_action_extensions as actions
        finally:
            sys.path.remove(_HOME)
        return actions(base_actions, project_path, f"IDF_EXTRA_ACTIONS_PATH, {os.path.dirname(__file__)}")
    except Exception as error:
        print(f"esp-dfu-ext could not be loaded: {error!r}", file=sys.stderr)
        return {"version": "1"}
