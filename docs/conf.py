"""Settings of the documentation site. Build it with `python -m sphinx -W -n -b html docs docs/_build`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import esp_dfu_ext

project = "esp-dfu-ext"
release = version = esp_dfu_ext.__version__
html_title = f"{project} {release}"
html_theme = "furo"
html_show_copyright = False

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_extra_path = sorted(path.name for path in Path(__file__).parent.glob("*.schema.json"))

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_format = "short"
nitpick_ignore_regex = [("py:.*", r".*")]

# Each of these files has a page here that includes it; links to the file, which work on a forge, lead to that page.
_INCLUDED = {
    "../ARCHITECTURE.md": "architecture.md",
    "../targets/README.md": "chips.md",
    "../SECURITY.md": "security.md",
}


def _link_to_pages(app: object, name: str, source: list[str]) -> None:
    """Make links to the included files lead to their pages; `source` holds the text of one page."""
    for original, page in _INCLUDED.items():
        source[0] = source[0].replace(f"]({original})", f"]({page})")


def setup(app: Any) -> None:
    """Register the event handlers of this file; Sphinx calls this."""
    app.connect("source-read", _link_to_pages)
