"""Errors <-> problem documents (RFC 9457, `application/problem+json`). Pure.

    {"type": "urn:holdfast:error:HF0402", "title": "Workflow not found", "status": 404,
     "detail": "there is no workflow 'x'", "instance": "/v1/workflows/x",
     "code": "HF0402", "hint": "what there is: holdfast workflows list", "workflow_id": "x"}

`code` is what programs branch by (docs/errors.md), `hint` says what to do next, `field` names the wrong part of a request,
and `server` is the engine's own response where there was one. The client turns a document back into the same error.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, cast

from holdfast.errors import CallerError, EngineError, HoldfastError, InvocationFailed
from holdfast.providers.errors import InvalidConfiguration, ProviderUnavailable, RegistrationFailed

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:holdfast:error:"

_MEMBERS = {
    "field": "field",
    "workflow_id": "workflow_id",
    "execution_id": "execution_id",
    "execution_ids": "execution_ids",
    "state": "state",
    "name": "provider_type",
    "problems": "problems",
    "failure_code": "failure_code",
    "invocation_id": "invocation_id",
    "metadata": "metadata",
}
"""Attributes of errors -> members of their documents."""

_SERVER_MEMBERS = {"endpoint": "endpoint", "status_code": "status", "body": "body", "server_code": "code"}
"""Attributes of errors -> members of `server`, the engine's own response."""

_ALWAYS_THERE: dict[type[HoldfastError], dict[str, Any]] = {
    InvocationFailed: {"failure_code": 500, "invocation_id": "", "metadata": {}},
    RegistrationFailed: {"status_code": 502, "body": "", "server_code": None},
    ProviderUnavailable: {"endpoint": "", "status_code": None, "body": ""},
}
"""Attributes that code may rely on, and that a document leaves out when they say nothing."""


def problem(error: HoldfastError, instance: str = "") -> dict[str, Any]:
    """The document of an error.

    Args:
        instance: Path of the request that failed.
    """
    status = status_of(error)
    document: dict[str, Any] = {
        "type": f"{TYPE_PREFIX}{error.code}",
        "title": title_of(type(error)),
        "status": status,
        "detail": error.message,
        "code": error.code,
    }
    if instance:
        document["instance"] = instance
    if error.hint:
        document["hint"] = error.hint
    for name, member in _MEMBERS.items():
        value = getattr(error, name, None)
        if value not in (None, "", {}):
            document[member] = list(cast("tuple[Any]", value)) if isinstance(value, tuple) else value
    server = {
        member: value
        for name, member in _SERVER_MEMBERS.items()
        if (value := getattr(error, name, None)) not in (None, "")
    }
    if server:
        document["server"] = server
    return document


def status_of(error: HoldfastError) -> int:
    """The HTTP status that an error is answered with."""
    if isinstance(error, InvocationFailed):  # a shared handler's own refusal, as the ingress answers it
        return error.failure_code if 400 <= error.failure_code <= 599 else 500
    if isinstance(error, InvalidConfiguration):  # the server's own: nothing that its caller could mend
        return 500
    status = getattr(error, "status", None)
    if isinstance(status, int) and 400 <= status <= 599:
        return status
    return 503 if isinstance(error, EngineError) else 500


def title_of(error_type: type[HoldfastError]) -> str:
    """`WorkflowNotFound` -> `Workflow not found`: the same for every error of the type, as the RFC asks."""
    words = re.sub(r"(?<!^)(?=[A-Z])", " ", error_type.__name__)
    return words.capitalize()


def error_of(document: Any, status: int) -> HoldfastError | None:
    """The error that a document tells of; None when it is no problem document of ours."""
    if not isinstance(document, Mapping):
        return None
    given = cast("Mapping[str, Any]", document)
    code, detail = given.get("code"), given.get("detail")
    if not isinstance(code, str) or not isinstance(detail, str):
        return None
    error_type = _types().get(code) or (CallerError if status < 500 else EngineError)
    # Each type takes other arguments; what they are made into is what the document has.
    error = error_type.__new__(error_type)
    HoldfastError.__init__(error, detail, hint=str(given.get("hint", "")))
    server = given.get("server")
    answer: Mapping[str, Any] = cast("Mapping[str, Any]", server) if isinstance(server, Mapping) else {}
    attributes: dict[str, Any] = {}
    for base, defaults in _ALWAYS_THERE.items():
        attributes |= defaults if issubclass(error_type, base) else {}
    attributes |= {name: given[member] for name, member in _MEMBERS.items() if member in given}
    attributes |= {name: answer[member] for name, member in _SERVER_MEMBERS.items() if member in answer}
    if getattr(error_type, "status", None) != status and isinstance(error, CallerError):
        attributes["status"] = status
    for name, value in attributes.items():
        setattr(error, name, tuple(cast("list[Any]", value)) if isinstance(value, list) else value)
    return error


def reason_of(status: int) -> str:
    """The HTTP status in words, for answers that are not ours."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return str(status)


@functools.cache
def _types() -> dict[str, type[HoldfastError]]:
    found: dict[str, type[HoldfastError]] = {}
    waiting: list[type[HoldfastError]] = [HoldfastError]
    while waiting:
        error_type = waiting.pop()
        found.setdefault(error_type.code, error_type)
        waiting += error_type.__subclasses__()
    return found
