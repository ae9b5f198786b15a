"""Generate docs/*.schema.json from the classes that are written as JSON.

    .venv/bin/python docs/schemas.py

Descriptions come from the docstrings of these classes.
"""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import msgspec

from esp_dfu_ext import events
from esp_dfu_ext.operations import record
from esp_dfu_ext.ui import documents, json_lines
from esp_dfu_ext.versions import FLASH_LINES

_FOLDER = Path(__file__).parent
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_STRUCTS = {
    name: kind
    for module in (events, record, documents, json_lines)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
}
_KEYWORDS = ("type", "const", "enum", "pattern", "format", "items", "anyOf", "$ref")  # in the order to write them
_OMITTED = {"title", "description", "default", "discriminator", "properties", "required"}  # or added later
_ATTRIBUTE = re.compile(r"^    (\w+): (.+(?:\n {8}.+)*)", re.MULTILINE)


def schemas() -> dict[Path, str]:
    """Return the text of each schema by its path."""
    documents_by_name = {
        "contents": _schema("esp-dfu build --json, esp-dfu inspect --json", documents.Contents),
        "list": _schema("esp-dfu list --json", documents.DeviceList),
        "info": _schema("esp-dfu info --json", documents.BoardList),
        "verify": _schema("esp-dfu verify --json", documents.Comparison),
        "doctor": _schema("esp-dfu doctor --json", documents.Diagnosis),
        "report": _schema("A line of dfu-flash --report", record.Line),
        "flash": _flash_lines(_schema("A line of esp-dfu flash --json", json_lines.Line)),
    }
    return {
        _FOLDER / f"{name}.schema.json": json.dumps(schema, indent=2) + "\n"
        for name, schema in documents_by_name.items()
    }


def _schema(title: str, root: Any) -> dict[str, Any]:
    (top,), definitions = msgspec.json.schema_components([root], ref_template="#/$defs/{name}")
    definitions = {name: _definition(name, definitions[name]) for name in sorted(definitions)}
    # A reference to a single class: its schema is the whole document's.
    body = definitions.pop(top["$ref"].rpartition("/")[2]) if "$ref" in top else _plain(top)
    schema = {"$schema": _DIALECT, "title": title, **body}
    return {**schema, "$defs": definitions} if definitions else schema


def _flash_lines(schema: dict[str, Any]) -> dict[str, Any]:
    """Add the version, which every line has beside the fields of its event."""
    lines = [part["$ref"].rpartition("/")[2] for part in schema["anyOf"]]
    for name in lines:
        line = schema["$defs"][name]
        line["properties"] = {"version": {"const": FLASH_LINES}, **line["properties"]}
        line["required"] = ["version", *line["required"]]
    return schema


def _definition(name: str, definition: dict[str, Any]) -> dict[str, Any]:
    definition = _plain(definition)
    if name not in _STRUCTS:  # an enum
        return definition
    kind = _STRUCTS[name]
    optional = {field.name for field in msgspec.structs.fields(kind) if field.default is msgspec.UNSET}
    described = _described(kind)
    return {
        "description": _first_paragraph(kind),
        "type": "object",
        "properties": {
            key: {"description": described[key], **value} if key in described else value
            for key, value in definition["properties"].items()
        },
        "required": [key for key in definition["properties"] if key not in optional],
    }


def _plain(part: Any) -> Any:
    """Return a part of a schema, the same from every version of msgspec; without defaults, as all keys are written."""
    if isinstance(part, list):
        return [_plain(item) for item in part]
    if not isinstance(part, dict):
        return part
    plain = {key: _plain(part[key]) for key in sorted(part.keys() - _OMITTED, key=_KEYWORDS.index)}
    if "properties" in part:
        plain["properties"] = {name: _plain(value) for name, value in part["properties"].items()}
    if len(plain.get("enum", ())) == 1:
        plain["const"] = plain.pop("enum")[0]
    if "anyOf" in plain:
        plain["anyOf"].sort(key=lambda option: option == {"type": "null"})
    return plain


def _first_paragraph(kind: type) -> str:
    return " ".join(inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0].split())


def _described(kind: type) -> dict[str, str]:
    """Return the description of each attribute, from the docstrings of the class and of those it extends."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        section = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")[2]
        found |= {name: " ".join(text.split()).replace("``", "") for name, text in _ATTRIBUTE.findall(section)}
    return found


if __name__ == "__main__":
    for path, text in schemas().items():
        path.write_text(text, encoding="utf-8")
