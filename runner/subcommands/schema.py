"""`run schema`: the JSON schema of params.yaml, generated from what validates it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from runner.params.gridfile import RANGES
from runner.params.header import Header
from runner.values import NAME

if TYPE_CHECKING:
    import argparse

Schema = dict[str, Any]


def run(_options: argparse.Namespace) -> int:
    """Prints the schema."""
    print(json.dumps(schema(), indent=2))
    return 0


def schema() -> Schema:
    """A schema that fits every document of the file: the first one, or a grid."""
    header = Header.model_json_schema()
    definitions = header.pop("$defs", {})
    value = {"type": ["string", "number", "boolean", "null"]}
    header["properties"]["default"]["additionalProperties"] = value
    header["properties"]["alias"]["additionalProperties"]["additionalProperties"]["additionalProperties"] = value
    for form in header["properties"]["resource"]["anyOf"]:
        if form.get("type") == "array":
            form["items"] = {"type": ["string", "integer"]}
    definitions |= {
        "value": value,
        "values": {
            "anyOf": [
                {"$ref": "#/$defs/value"},
                {"type": "array", "items": {"$ref": "#/$defs/value"}, "minItems": 1},
                *(_range(kind) for kind in sorted(RANGES)),
            ]
        },
        "zip": {"type": "object", "additionalProperties": {"$ref": "#/$defs/values"}, "minProperties": 1},
        "subgrid": _grid({}),
    }
    own = {
        "_priority": {"type": "integer"},
        "_after": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
        "_search": _search(),
        "_title": {"type": "string", "description": "a name, for run -t"},
        "_cmd": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]},
        "_exclude": {"anyOf": [{"$ref": "#/$defs/zip"}, {"type": "array", "items": {"$ref": "#/$defs/zip"}}]},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "params.yaml",
        "$defs": definitions,
        "if": {"required": ["template"]},
        "then": header,
        "else": _grid(own),
    }


def _search() -> Schema:
    count = {"type": "integer", "minimum": 1}
    call = {"type": "object", "properties": {"python": {"type": "string"}}, "required": ["python"]}
    properties = {
        "next": {"anyOf": [{"type": "string"}, call | {"additionalProperties": False}]},
        "rounds": count,
        "trials": count,
        "hours": {"type": "number", "exclusiveMinimum": 0},
        "round_limit": {"type": ["number", "string"]},
    }
    return {"type": "object", "properties": properties, "required": ["next"], "additionalProperties": False}


def _grid(own: Schema) -> Schema:
    zips = {"$ref": "#/$defs/zip"}
    return {
        "type": "object",
        "properties": {**own, "_zip": {"anyOf": [zips, {"type": "array", "items": zips, "minItems": 1}]}},
        "patternProperties": {
            "^LIST": {"type": "array", "items": {"$ref": "#/$defs/subgrid"}, "minItems": 1},
            f"^(?!_|LIST){NAME}$": {"$ref": "#/$defs/values"},
        },
        "additionalProperties": False,
    }


def _range(kind: str) -> Schema:
    number = {"type": "number"}
    numbers: Schema = {"type": "array", "items": number, "minItems": 2, "maxItems": 3}
    if kind != "_range":
        count = {"type": "integer", "minimum": 1}
        numbers = {"type": "array", "prefixItems": [number, number, count], "minItems": 3, "maxItems": 3}
    return {"type": "object", "properties": {kind: numbers}, "required": [kind], "additionalProperties": False}
