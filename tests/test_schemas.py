"""The JSON schemas in docs/ are those of the classes that are written as JSON."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "docs"
SCHEMAS: dict[Path, str] = runpy.run_path(str(FOLDER / "schemas.py"))["schemas"]()


def test_committed_schemas_are_up_to_date() -> None:
    assert {path: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.schema.json")} == SCHEMAS, (
        "run: python docs/schemas.py"
    )


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.name)
def test_every_key_is_described(path: Path) -> None:
    keys = list(objects(json.loads(SCHEMAS[path])))
    assert len(keys) > 4
    assert [name for name, key in keys if "description" not in key and "const" not in key] == []


def objects(schema: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """All keys that the objects of a schema have, with what the schema says of each."""
    if isinstance(schema, list):
        for part in schema:
            yield from objects(part)
    elif isinstance(schema, dict):
        yield from schema.get("properties", {}).items()
        for part in schema.values():
            yield from objects(part)
