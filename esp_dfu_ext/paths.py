"""Folders that idf.py loads extensions from. idf.py loads this module too, so it imports nothing heavy."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # typing would have to be imported for it
if TYPE_CHECKING:
    from collections.abc import Mapping

EXTRA_ACTIONS = "IDF_EXTRA_ACTIONS_PATH"  # folders separated by semicolons, on every system


def extra_actions_path() -> str:
    """Return the folder for IDF_EXTRA_ACTIONS_PATH: it loads our actions into every ESP-IDF, and nothing else."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "extra_actions")


def extra_actions_folders(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the folders that IDF_EXTRA_ACTIONS_PATH names in an environment."""
    return [folder for folder in environ.get(EXTRA_ACTIONS, "").split(";") if folder]
