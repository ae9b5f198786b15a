"""The configuration of an ESP-IDF build: sdkconfig, and what the build folder holds of it.

The build folder has it as config/sdkconfig.json (ESP-IDF, tools/kconfgen): the options without ``CONFIG_``, with JSON's
types. A folder that was copied from another machine often has nothing else.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import ProjectError
from .build_files import is_regular_file, read_json, read_text

BUILT_CONFIG = "config/sdkconfig.json"

_KEY = re.compile(r"CONFIG_\w+")


def read_built_options(build_dir: Path) -> dict[str, str]:
    """Return the options in build/config/sdkconfig.json as sdkconfig has them (``CONFIG_X``, ``y``); none without it.

    Raises:
        InputMissingError, ProjectError: The file cannot be read.
        BuildFileError: It is damaged.
    """
    path = build_dir / BUILT_CONFIG
    if not is_regular_file(path, BUILT_CONFIG):
        return {}
    return {
        f"CONFIG_{key}": ("n", "y")[value] if isinstance(value, bool) else str(value)
        for key, value in read_json(path).items()
        if isinstance(value, (bool, int, str))
    }


def read_sdkconfig(path: Path) -> dict[str, str]:
    """Return the options that an sdkconfig sets, without quotes; none if there is no such file.

    Raises:
        ProjectError: The file cannot be read, which is not the same as no options: that would hide Secure Boot.
    """
    try:
        text = read_text(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    except OSError as error:
        raise ProjectError(f"{path} cannot be read: {error.strerror or error}.") from error
    options = {}
    for line in text.split("\n"):
        key, _, value = line.partition("=")
        value = value.strip()
        if _KEY.fullmatch(key):
            options[key] = value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value
    return options
