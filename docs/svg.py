"""Writes SVG: enough for the pictures of docs/, with no more than Python's own library."""

from __future__ import annotations

from html import escape

MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
SANS = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif"
GREY = "#768390"  # readable on white and on black; the pictures have no background of their own


def element(tag: str, content: str = "", /, **attributes: object) -> str:
    """Return an element; ``_`` in the name of an attribute stands for ``-``."""
    named = "".join(
        f' {name.replace("_", "-")}="{_number(value) if isinstance(value, float) else escape(str(value))}"'
        for name, value in attributes.items()
    )
    return f"<{tag}{named}>{content}</{tag}>" if content else f"<{tag}{named}/>"


def text(x: float, y: float, words: str, size: float = 13, **attributes: object) -> str:
    """Return a text with its baseline at (x, y)."""
    return element("text", escape(words, quote=False), x=x, y=y, font_size=size, **attributes)


def box(x: float, y: float, width: float, height: float, radius: float = 6, **attributes: object) -> str:
    """Return a rectangle with round corners."""
    return element("rect", x=x, y=y, width=width, height=height, rx=radius, **attributes)


def arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    """Return a straight arrow."""
    return element("path", d=f"M{x1:g} {y1:g}L{x2:g} {y2:g}", stroke=GREY, stroke_width=1.5, marker_end="url(#head)")


def document(width: float, height: float, title: str, parts: list[str], font: str = SANS) -> str:
    """Return the whole picture; screen readers read `title`."""
    head = element(
        "defs",
        element(
            "marker",
            element("path", d="M0 0L8 4L0 8z", fill=GREY),
            id="head", viewBox="0 0 8 8", refX=7, refY=4, markerWidth=7, markerHeight=7, orient="auto",
        ),
    )  # fmt: skip
    lines = [element("title", escape(title, quote=False)), *([head] if any("#head" in part for part in parts) else [])]
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" font-family="{font}" role="img">'
    )
    return "\n".join([opening, *lines, *parts, "</svg>"]) + "\n"


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
