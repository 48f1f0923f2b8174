"""Dataclasses -> JSON Schema (2020-12): the types that check requests and make answers, in the words of OpenAPI 3.1.

Descriptions are the docstrings of the fields. What a type cannot say, such as the form of an id, is in `_FORMS`, made of
the constants that the checks use.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import re
import sys
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, cast

from holdfast.api.documents import StartRequest
from holdfast.api.reading import has_default, hints_of, optional
from holdfast.providers import naming, validation
from holdfast.providers.types import (
    DESCRIPTION_BYTES_MAX,
    NAME_CHARACTERS_MAX,
    TAG_BYTES_MAX,
    TAGS_MAX,
    RetryPolicy,
    WorkflowSpec,
)

Schema = dict[str, Any]


def _whole(pattern: re.Pattern[str]) -> str:
    return f"^{pattern.pattern}$"


_TAGS: Schema = {
    "maxProperties": TAGS_MAX,
    "propertyNames": {"maxLength": TAG_BYTES_MAX},
    "additionalProperties": {"type": "string", "maxLength": TAG_BYTES_MAX},
}
_REFERENCE: Schema = {"type": "string", "pattern": _whole(validation.REFERENCE)}

_FORMS: dict[tuple[type, str], Schema] = {
    (WorkflowSpec, "workflow_id"): {"pattern": _whole(naming.WORKFLOW_ID)},
    (WorkflowSpec, "name"): {"minLength": 1, "maxLength": NAME_CHARACTERS_MAX},
    # Null is nothing, as for the fields that say so in their type.
    (WorkflowSpec, "description"): {"type": ["string", "null"], "maxLength": DESCRIPTION_BYTES_MAX},
    (WorkflowSpec, "tags"): _TAGS | {"type": ["object", "null"]},
    (WorkflowSpec, "provider_config"): {"type": ["object", "null"]},
    (WorkflowSpec, "definition"): {
        "anyOf": [
            _REFERENCE,
            {
                "type": "object",
                "properties": {
                    "reference": _REFERENCE,
                    "handler": {"type": ["string", "null"]},
                    "version": {"type": ["string", "number", "null"]},
                },
                "required": ["reference"],
                "additionalProperties": False,
            },
        ]
    },
    (RetryPolicy, "max_attempts"): {"minimum": 0},
    (RetryPolicy, "backoff_rate"): {"minimum": 1},
    (StartRequest, "execution_name"): {"pattern": _whole(naming.EXECUTION_NAME)},
    (StartRequest, "tags"): _TAGS,
}
_REQUIRED_THOUGH_DEFAULTED = {WorkflowSpec: ("definition", "name")}
"""Fields that a type gives a default, so that `validate` can say what is missing."""

_DURATION: Schema = {"type": "string", "examples": ["30s", "1h 30m"]}
_DURATION_REQUEST: Schema = {
    "anyOf": [
        # ISO 8601 and words such as `1 hour` are understood as well.
        {
            "type": "string",
            "pattern": r"^[0-9]{1,8}(\.[0-9]{1,3})?(ms|s|m|h|d)( [0-9]{1,8}(\.[0-9]{1,3})?(ms|s|m|h|d))*$",
        },
        {
            "type": "number",
            "minimum": validation.DURATION_MIN.total_seconds(),
            "maximum": validation.DURATION_MAX.total_seconds(),
            "description": "Seconds.",
        },
    ],
    "examples": ["30s", "1h 30m", 30],
}


class Schemas:
    """The components of a document, filled as they are asked for."""

    def __init__(self) -> None:
        self.components: dict[str, Schema] = {}

    def answer(self, kind: Any) -> Schema:
        """A reference to the schema of what we answer: every field is there."""
        return self._reference(kind, is_request=False)

    def request(self, kind: Any) -> Schema:
        """A reference to the schema of what we are sent: defaults may be left out, nothing may be added."""
        return self._reference(kind, is_request=True)

    def parameters(self, kind: Any) -> list[Schema]:
        """The parameters of a query string."""
        docs = _field_docs(kind)
        found: list[Schema] = []
        for field in dataclasses.fields(kind):
            hint = hints_of(kind)[field.name]
            # What a query string leaves out is left out; there is no null in it.
            schema = self._value(optional(hint) or hint, is_request=True) | _limits(field)
            parameter: Schema = {"name": field.name, "in": "query", "required": False, "schema": schema}
            if field.name in docs:
                parameter["description"] = docs[field.name]
            found.append(parameter)
        return found

    def _reference(self, kind: Any, *, is_request: bool) -> Schema:
        name = _component_name(kind, is_request=is_request)
        if name not in self.components:
            self.components[name] = {}  # here already, for a type that contains itself
            self.components[name] = self._object(kind, is_request=is_request)
        return {"$ref": f"#/components/schemas/{name}"}

    def _object(self, kind: Any, *, is_request: bool) -> Schema:
        origin: Any = typing.get_origin(kind) or kind
        docs = _field_docs(origin)
        hints = hints_of(kind)
        properties: dict[str, Schema] = {}
        required: list[str] = []
        for field in dataclasses.fields(origin):
            schema = self._value(hints[field.name], is_request=is_request) | dict(field.metadata)
            if is_request:
                schema = _with_form(schema, _FORMS.get((origin, field.name)))
                if field.default not in (dataclasses.MISSING, None, ""):
                    schema |= {"default": _plain(field.default)}
            if field.name in docs:
                schema |= {"description": docs[field.name]}
            properties[field.name] = schema
            if not is_request or not has_default(field) or field.name in _REQUIRED_THOUGH_DEFAULTED.get(origin, ()):
                required.append(field.name)
        found: Schema = {"type": "object", "properties": properties}
        if doc := inspect.getdoc(origin):
            found["description"] = _text(doc)
        if required:
            found["required"] = required
        if is_request:
            found["additionalProperties"] = False
        return found

    def _value(self, hint: Any, *, is_request: bool) -> Schema:
        if hint is Any:
            return {}
        if (inner := optional(hint)) is not None:
            return _nullable(self._value(inner, is_request=is_request))
        origin = typing.get_origin(hint)
        if origin is not None and issubclass(origin, Mapping):
            item = self._value(typing.get_args(hint)[1], is_request=is_request)
            return {"type": "object", "additionalProperties": item or True}
        if origin is tuple:
            return {"type": "array", "items": self._value(typing.get_args(hint)[0], is_request=is_request)}
        if isinstance(hint, types.UnionType):
            return {"anyOf": [self._value(each, is_request=is_request) for each in typing.get_args(hint)]}
        if dataclasses.is_dataclass(origin or hint):
            return self._reference(hint, is_request=is_request)
        return _scalar(hint, is_request=is_request)


def _scalar(hint: type, *, is_request: bool) -> Schema:
    if hint is timedelta:
        return dict(_DURATION_REQUEST if is_request else _DURATION)
    if hint is datetime:
        return {"type": "string", "format": "date-time"}
    if issubclass(hint, StrEnum):
        return {"type": "string", "enum": [each.value for each in hint]}
    return {"type": {str: "string", int: "integer", float: "number", bool: "boolean"}[hint]}


def _nullable(schema: Schema) -> Schema:
    kind = schema.get("type")
    if kind is None and "anyOf" in schema:
        return schema | {"anyOf": [*cast("list[Schema]", schema["anyOf"]), {"type": "null"}]}
    if kind is None or "enum" in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    return schema | {"type": [*(cast("list[str]", kind) if isinstance(kind, list) else [kind]), "null"]}


def _with_form(schema: Schema, form: Schema | None) -> Schema:
    if form is None:
        return dict(schema)
    return dict(form) if "anyOf" in form else schema | form


def _limits(field: dataclasses.Field[Any]) -> Schema:
    found: Schema = dict(field.metadata)
    if field.default not in (dataclasses.MISSING, None, ()):
        found["default"] = _plain(field.default)
    return found


def _plain(value: Any) -> Any:
    from holdfast.providers.types import duration_text

    return duration_text(value) if isinstance(value, timedelta) else value


def _component_name(kind: Any, *, is_request: bool) -> str:
    origin = typing.get_origin(kind)
    if origin is not None:  # Page[WorkflowInfo] -> WorkflowInfoPage
        return f"{typing.get_args(kind)[0].__name__}{origin.__name__}"
    name = str(kind.__name__)
    is_only_sent = name.endswith(("Request", "Spec"))
    return f"{name}Request" if is_request and not is_only_sent else name


@functools.cache
def _field_docs(kind: Any) -> dict[str, str]:
    """Field -> the docstring below it, also of inherited fields."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if dataclasses.is_dataclass(each):
            found |= dict(_docs_in(_class_node(cast(type, each))))
    return found


def _class_node(kind: type) -> ast.ClassDef:
    tree = _module_tree(kind.__module__)
    return next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == kind.__name__)


@functools.cache
def _module_tree(name: str) -> ast.Module:
    return ast.parse(inspect.getsource(sys.modules[name]))


def _docs_in(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for statement, following in zip(node.body, node.body[1:], strict=False):
        match statement, following:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(doc))),
            ):
                yield name, _text(doc)
            case _:
                pass


def _text(doc: str) -> str:
    """A docstring in one paragraph."""
    return " ".join(textwrap.dedent(doc).split())
