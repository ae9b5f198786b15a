"""Settings of the documentation site: `python -m sphinx -W -n -b html docs docs/_build`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import esp_dfu_ext

project = "esp-dfu-ext"
release = version = esp_dfu_ext.__version__
html_title = f"{project} {release}"
html_theme = "furo"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
_SCHEMAS = sorted(path.name for path in Path(__file__).parent.glob("*.schema.json"))
html_extra_path = ["run-light.svg", "run-dark.svg", *_SCHEMAS]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_format = "short"
nitpick_ignore_regex = [("py:.*", r".*")]

# Pages outside this folder have a page here that includes them; on a forge the links lead to the originals.
_INCLUDED = {
    "../ARCHITECTURE.md": "architecture.md",
    "../targets/README.md": "chips.md",
    "../SECURITY.md": "security.md",
}


def _link_to_pages(app: object, name: str, source: list[str]) -> None:
    for original, page in _INCLUDED.items():
        source[0] = source[0].replace(f"]({original})", f"]({page})")


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _link_to_pages)
