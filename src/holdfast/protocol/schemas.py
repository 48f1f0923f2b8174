"""What must be right about a handler's JSON schema before others are told of it. Pure.

Not a whole validation against the meta-schema: what a generated client or an OpenAPI document would trip over.
"""

from __future__ import annotations

import json
from typing import Any, cast

_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
_ONE = frozenset(
    [
        "additionalProperties",
        "contains",
        "contentSchema",
        "else",
        "if",
        "items",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    ]
)
_LISTS = frozenset(["allOf", "anyOf", "oneOf", "prefixItems"])
_MAPS = frozenset(["$defs", "definitions", "dependentSchemas", "patternProperties", "properties"])


def schema_fault(schema: Any) -> str | None:
    """Why this is no JSON schema that stands for itself; None when nothing is wrong."""
    if isinstance(schema, bool):
        return None
    if not isinstance(schema, dict):
        return f'{json.dumps(schema):.80} is not of types "boolean", "object"'
    for keyword, value in cast(dict[str, Any], schema).items():
        if (fault := _keyword_fault(keyword, value)) is not None:
            return fault
    return None


def _keyword_fault(keyword: str, value: Any) -> str | None:
    if keyword == "$ref" and not (isinstance(value, str) and value.startswith("#")):
        return (
            f"the schema contains an external reference {value}. This is not supported, bundle what it refers to "
            "into the schema"
        )
    if keyword == "type":
        wrong = [one for one in (cast(list[Any], value) if isinstance(value, list) else [value]) if one not in _TYPES]
        return f"{wrong[0]!r:.80} is no type; types are {', '.join(_TYPES)}" if wrong else None
    inner: list[Any] = []
    if keyword in _ONE:
        inner = [value]
    elif keyword in _LISTS and isinstance(value, list):
        inner = cast(list[Any], value)
    elif keyword in _MAPS and isinstance(value, dict):
        inner = [*cast(dict[str, Any], value).values()]
    elif keyword in _LISTS or keyword in _MAPS:
        return f"{keyword} must hold schemas, not {value!r:.80}"
    return next((fault for one in inner if (fault := schema_fault(one)) is not None), None)
