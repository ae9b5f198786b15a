"""Where the package's own folders are; for idf.py, so nothing heavy is imported."""

from __future__ import annotations

import os


def extra_actions_path() -> str:
    """The folder for IDF_EXTRA_ACTIONS_PATH: it loads our actions in every ESP-IDF, and nothing else."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "extra_actions")
