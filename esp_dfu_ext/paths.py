"""Folders that idf.py loads extensions from; it loads this, so nothing heavy is imported."""

from __future__ import annotations

import os

EXTRA_ACTIONS = "IDF_EXTRA_ACTIONS_PATH"  # folders with a semicolon between, on every system


def extra_actions_path() -> str:
    """The folder for IDF_EXTRA_ACTIONS_PATH: it loads our actions in every ESP-IDF, and nothing else."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "extra_actions")


def extra_actions_folders() -> list[str]:
    """The folders that IDF_EXTRA_ACTIONS_PATH names now."""
    return [folder for folder in os.environ.get(EXTRA_ACTIONS, "").split(";") if folder]
