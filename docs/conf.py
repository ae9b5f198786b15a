"""Settings of the documentation site. Build it with `python -m sphinx -W -n -b html docs docs/_build`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import esp_dfu_ext

ROOT = Path(__file__).resolve().parent.parent

project = "esp-dfu-ext"
release = version = esp_dfu_ext.__version__
html_title = f"{project} {release}"
html_theme = "furo"
html_show_copyright = False

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_extra_path = sorted(path.name for path in (ROOT / "docs").glob("*.schema.json"))

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_format = "short"
nitpick_ignore_regex = [("py:.*", r".*")]

# Each of these files is a page of the site, too: a page here includes it, and links to the file lead to that page.
_PAGES = {
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "RELEASING.md": "releasing.md",
    "SECURITY.md": "security.md",
    "components/esp_dfu_runtime/README.md": "dfu-runtime.md",
    "targets/README.md": "chips.md",
}
_INCLUDE = re.compile(r"```\{include\} \.\./(\S+)\n```\n")


def _read_page(app: Any, name: str, source: list[str]) -> None:
    """Put the included file into the text of a page, `source[0]`, and make its links those of the site."""
    text = _INCLUDE.sub(lambda match: (ROOT / match[1]).read_text(encoding="utf-8"), source[0])
    for file, page in _PAGES.items():
        text = re.sub(rf"\]\((\.\./)?{re.escape(file)}\b", f"]({page}", text)
    source[0] = text.replace("](docs/", "](")


def setup(app: Any) -> None:
    """Register the event handler of this file; Sphinx calls this."""
    app.connect("source-read", _read_page)
