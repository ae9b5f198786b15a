"""Choose how to show a flash: not at all when quiet, in lines for a log, in bars on a terminal."""

from __future__ import annotations

from .console import Console
from .lines import FlashView, GangLogView, LogView, WatchLogView, WatchView


def flash_view(console: Console, title: str) -> FlashView:
    """Return a view of one board; `title` names its kind."""
    if console.quiet:
        return FlashView()
    if not console.out.live:
        return LogView(console, title)
    from .bars import BarView

    return BarView(console, title)


def gang_view(console: Console, title: str) -> FlashView:
    """Return a view of several boards that are flashed at once."""
    if console.quiet:
        return FlashView()
    if not console.out.live:
        return GangLogView(console, title)
    from .bars import GangBarView

    return GangBarView(console, title)


def watch_view(console: Console, title: str) -> WatchView:
    """Return a view of boards that are flashed as they are plugged in."""
    if console.quiet:
        return WatchView(console)
    if not console.out.live:
        return WatchLogView(console, title)
    from .bars import WatchBarView

    return WatchBarView(console, title)
