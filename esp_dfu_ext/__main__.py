"""Run `esp-dfu`, as the console script and as `python -m esp_dfu_ext`."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Import and run the console script; show no traceback, whatever ends the imports."""
    try:
        from .cli import main

        main()
    except KeyboardInterrupt:
        sys.exit(130)  # errors.EXIT_INTERRUPTED, which may not be imported yet
    except MemoryError:
        sys.exit("error: There is not enough memory. [error]")


def _leave_out_current_folder() -> None:
    """Import nothing from the current folder: `python -m` puts it first, and it may be a stranger's project."""
    try:
        current = os.getcwd()  # noqa: PTH109 (pathlib takes longer to import)
    except OSError:  # it was deleted
        return
    if not getattr(sys.flags, "safe_path", False) and sys.path[:1] in ([""], [current]):
        del sys.path[0]


if __name__ == "__main__":
    _leave_out_current_folder()
    main()
