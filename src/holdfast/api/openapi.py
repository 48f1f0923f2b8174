"""The OpenAPI 3.1 document of the API, made of the table of operations and the types they use."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from holdfast.api.problems import MEDIA_TYPE, TYPE_PREFIX, title_of
from holdfast.api.schemas import Schemas
from holdfast.errors import HoldfastError, InvalidRequest
from holdfast.providers.errors import ProviderUnavailable

if TYPE_CHECKING:
    from holdfast.api.operations import Operation

OPENAPI_VERSION = "3.1.0"

_ALWAYS: tuple[type[HoldfastError], ...] = (InvalidRequest, ProviderUnavailable)
"""Every operation may answer these."""


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    """The document of `/v1`."""
    schemas = Schemas()
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(f"/v1{operation.path}", {})[operation.method.lower()] = _operation(operation, schemas)
    return {
        "openapi": OPENAPI_VERSION,
        "info": {
            "title": "holdfast workflows",
            "version": version("holdfast"),
            "description": "Create workflows, start, follow and stop their executions, on the embedded engine or on a "
            "Restate server. Every operation may be repeated: a repeat changes nothing.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/", "description": "Where this document comes from"}],
        "security": [{}, {"token": []}],
        "tags": [
            {"name": "workflows", "description": "What can be executed; stored in the engine."},
            {"name": "executions", "description": "What was started, and what became of it."},
        ],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.components.items())) | {"Problem": _PROBLEM},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "Of the admin API, where it has tokens."}
            },
        },
    }


def _operation(operation: Operation, schemas: Schemas) -> dict[str, Any]:
    summary, _, rest = (inspect.getdoc(operation.run) or "").partition("\n")
    found: dict[str, Any] = {
        "operationId": operation.name,
        "summary": summary.rstrip("."),
        "tags": [_tag(operation.path)],
    }
    if rest.strip():
        found["description"] = " ".join(rest.split())
    parameters = [*_path_parameters(operation.path), *_query_parameters(operation, schemas), *operation.headers]
    if parameters:
        found["parameters"] = parameters
    if operation.body is not None:
        schema = schemas.request(operation.body)
        found["requestBody"] = {
            "required": operation.is_body_required,
            "content": {"application/json": {"schema": schema}},
        }
    found["responses"] = {**_answers(operation, schemas), **_problems([*operation.errors, *_ALWAYS])}
    return found


def _tag(path: str) -> str:
    return "executions" if "executions" in path else "workflows"


def _path_parameters(path: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", path)
    ]


def _query_parameters(operation: Operation, schemas: Schemas) -> list[dict[str, Any]]:
    return [] if operation.query is None else schemas.parameters(operation.query)


def _answers(operation: Operation, schemas: Schemas) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for status, answer in operation.answers.items():
        response: dict[str, Any] = {"description": answer.description}
        if answer.type is not None:
            schema = {"type": "string"} if answer.type is str else schemas.answer(answer.type)
            response["content"] = {answer.media_type: {"schema": schema}}
        if answer.headers:
            response["headers"] = answer.headers
        found[str(status)] = response
    return found


def _problems(errors: Sequence[type[HoldfastError]]) -> dict[str, Any]:
    by_status: dict[int, list[type[HoldfastError]]] = {}
    for error in errors:
        known = by_status.setdefault(_status(error), [])
        if error not in known:
            known.append(error)
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    found: dict[str, Any] = {
        str(status): {
            "description": "; ".join(f"{each.code} {title_of(each)}" for each in each_status),
            "content": content,
        }
        for status, each_status in sorted(by_status.items())
    }
    return found | {"default": {"description": "Any other problem", "content": content}}


def _status(error: type[HoldfastError]) -> int:
    status = getattr(error, "status", None)
    return status if isinstance(status, int) else 500


_PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "RFC 9457. Programs branch by `code`.",
    "properties": {
        "type": {"type": "string", "format": "uri", "examples": [f"{TYPE_PREFIX}HF0402"]},
        "title": {"type": "string", "description": "The same for every problem of the type."},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "What happened, with the values."},
        "instance": {"type": "string", "description": "Path of the request."},
        "code": {"type": "string", "pattern": "^HF[0-9]{4}$", "description": "Explained in docs/errors.md."},
        "hint": {"type": "string", "description": "What to do next."},
        "field": {"type": "string", "description": "The wrong part of the request, e.g. `retry_policy.max_attempts`."},
        "workflow_id": {"type": "string"},
        "execution_id": {"type": "string"},
        "execution_ids": {"type": "array", "items": {"type": "string"}, "description": "What still runs."},
        "state": {"type": "string", "description": "Of the execution that was waited for."},
        "failure_code": {"type": "integer", "description": "Of the handler's own error."},
        "invocation_id": {"type": "string"},
        "provider_type": {"type": "string", "description": "The provider that there is not."},
        "metadata": {"type": "object", "description": "Of the handler's own error."},
        "problems": {"type": "array", "items": {"type": "string"}},
        "server": {
            "type": "object",
            "description": "The engine's own response, where there was one.",
            "properties": {
                "endpoint": {"type": "string"},
                "status": {"type": "integer"},
                "body": {"type": "string"},
                "code": {"type": "string"},
            },
        },
    },
    "required": ["type", "title", "status", "detail", "code"],
}
