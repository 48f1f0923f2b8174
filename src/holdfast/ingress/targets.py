"""The JSON body of `POST /restate/attach|output|lookup` -> which invocation is meant. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

from holdfast.errors import InvalidRequest


@dataclass(slots=True)
class InvocationTarget:
    invocation_id: str
    """Not yet checked."""


@dataclass(slots=True)
class WorkflowTarget:
    workflow: str
    key: str
    scope: str | None


@dataclass(slots=True)
class IdempotentTarget:
    service: str
    key: str | None
    handler: str
    idempotency_key: str
    scope: str | None


Target = InvocationTarget | WorkflowTarget | IdempotentTarget


def parse_target(body: bytes, what: str) -> Target:
    """Decode a target.

    Args:
        body: as received; its content type does not matter.
        what: `lookup` or `request`, for the message.
    Raises:
        InvalidRequest: 500 when it is not JSON or lacks a field; the status is Restate's.
    """
    try:
        raw: Any = json.loads(body)
    except ValueError as error:
        raise _refusal(what, str(error)) from error
    if not isinstance(raw, dict):
        raise _refusal(what, "expected a JSON object")
    fields = cast(dict[str, Any], raw)
    match fields.get("target"):
        case "invocation":
            return InvocationTarget(_text(fields, "invocationId", what))
        case "workflow":
            return WorkflowTarget(
                _text(fields, "workflowName", what),
                _text(fields, "workflowKey", what),
                _optional_text(fields, "scope", what),
            )
        case "idempotentInvocation":
            return IdempotentTarget(
                _text(fields, "service", what),
                _optional_text(fields, "key", what),
                _text(fields, "handler", what),
                _text(fields, "idempotencyKey", what),
                _optional_text(fields, "scope", what),
            )
        case _:
            raise _refusal(what, "`target` must be one of `workflow`, `idempotentInvocation`, `invocation`")


def _text(fields: dict[str, Any], name: str, what: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise _refusal(what, f"missing field `{name}`" if value is None else f"field `{name}` must be a string")
    return value


def _optional_text(fields: dict[str, Any], name: str, what: str) -> str | None:
    return None if fields.get(name) is None else _text(fields, name, what)


def _refusal(what: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"cannot read body: invalid {what} body: {reason}", status=500)
