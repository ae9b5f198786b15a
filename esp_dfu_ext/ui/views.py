"""Choose how to show a flash: not at all when quiet, in lines for a log, in bars on a terminal."""

from __future__ import annotations

from .console import Console
from .lines import FlashView, GangPlainView, PlainView
from .watch_lines import WatchPlainView, WatchView


def flash_view(console: Console, title: str) -> FlashView:
    """Return a view of one board's flash; `title` says what kind of board it is."""
    if console.quiet:
        return FlashView()
    if not console.out.live:
        return PlainView(console, title)
    from .bars import LiveView

    return LiveView(console, title)


def gang_view(console: Console, title: str) -> FlashView:
    """Return a view of several boards that are flashed at once."""
    if console.quiet:
        return FlashView()
    if not console.out.live:
        return GangPlainView(console, title)
    from .bars import GangLiveView

    return GangLiveView(console, title)


def watch_view(console: Console, title: str) -> WatchView:
    """Return a view of boards that come and go."""
    if console.quiet:
        return WatchView(console)
    if not console.out.live:
        return WatchPlainView(console, title)
    from .watch_bars import WatchLiveView

    return WatchLiveView(console, title)
