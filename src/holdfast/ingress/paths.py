"""Request paths -> what is asked for. Pure: no engine, no HTTP library.

Paths arrive as they were sent (still percent-encoded): only the key of an object or workflow, and a scope, are decoded,
after the path was split, so that a key may hold an encoded slash. As on a Restate server, names of services and
handlers, ids and idempotency keys are taken literally.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote, unquote_to_bytes

from holdfast.errors import InvalidRequest
from holdfast.protocol.discovery import HandlerSpec, ServiceSpec

Action = Literal["attach", "output"]


@dataclass(slots=True)
class Invoke:
    """Call a handler or send to it."""

    handler: HandlerSpec
    key: str | None
    is_send: bool
    scope: str | None = None
    """`/restate/scope/{scope}/…`; scopes are refused, but after other checks."""


@dataclass(slots=True)
class ById:
    action: Action
    invocation_id: str
    """Not yet checked."""


@dataclass(slots=True)
class ByTarget:
    """The target is in the body (see `targets.py`)."""

    action: Literal["attach", "output", "lookup"]


@dataclass(slots=True)
class ByWorkflow:
    action: Action
    workflow: str
    key: str


@dataclass(slots=True)
class ByIdempotencyKey:
    action: Action
    service: str
    key: str | None
    handler: str
    idempotency_key: str


@dataclass(slots=True)
class Awakeable:
    awakeable_id: str
    """Not yet checked."""
    is_reject: bool


@dataclass(slots=True)
class Health:
    pass


Route = Invoke | ById | ByTarget | ByWorkflow | ByIdempotencyKey | Awakeable | Health

_INVOKE_FORMS = "bad path, expected either /:service-name/:handler or /:object-name/:object-key/:handler"
_RESTATE_FORMS = (
    "bad path, expected /restate/call/:service/:handler, /restate/send/:service/:handler, "
    "/restate/scope/:scope/call/:service/:handler, /restate/attach/:invocation_id, "
    "/restate/output/:invocation_id, or /restate/lookup"
)
_INVOCATION_FORMS = (
    "bad path, expected either /restate/invocation/:invocation_id/output "
    "or /restate/invocation/:invocation_id/attach "
    "or /restate/invocation/:invocation_target/:idempotency_key/output "
    "or /restate/invocation/:invocation_target/:idempotency_key/attach"
)
_WORKFLOW_FORMS = (
    "bad path, expected either /restate/workflow/:workflow_name/:workflow_key/output "
    "or /restate/workflow/:workflow_name/:workflow_key/attach"
)
_AWAKEABLE_FORMS = "bad path, expected either /restate/awakeables/:id/resolve or /restate/awakeables/:id/reject"


def request_path(path: str, raw_path: bytes | None, root_path: str) -> str:
    """The path below the mount point as it was sent, with one leading and no trailing slash.

    Args:
        path: ASGI `path`: decoded, with the mount point in front (older frameworks leave the mount point out).
        raw_path: ASGI `raw_path`: as sent; None when the server does not give it.
        root_path: ASGI `root_path`: the mount point, `""` when there is none.
    """
    # A `?` is no part of a path, but older versions of httpx put the query here.
    sent = quote(path, safe="/!$&'()*+,;=:@~") if raw_path is None else raw_path.partition(b"?")[0].decode("latin-1")
    if root_path:
        for mount in (root_path, quote(root_path)):
            if sent.startswith(mount) and sent[len(mount) : len(mount) + 1] in ("/", ""):
                sent = sent[len(mount) :]
                break
    return "/" + sent.strip("/")


def parse_path(path: str, services: Mapping[str, ServiceSpec]) -> Route:
    """What a path asks for. The method is not looked at.

    Args:
        path: from `request_path`.
    Raises:
        InvalidRequest: 400 a path of no known form, 404 an unknown service, handler or action.
    """
    parts = path.split("/")  # ["", first, …]
    if parts[1] == "restate" and len(parts) > 2:
        return _restate_route(parts, services)
    if len(parts) < 3:
        raise InvalidRequest(f"bad path: {path}")
    service, key, rest = _target(parts, 1, services, _INVOKE_FORMS)
    is_send = len(rest) == 2 and rest[1] == "send"
    if len(rest) != 1 and not is_send:
        raise InvalidRequest(_INVOKE_FORMS)
    return Invoke(_handler(service, rest[0]), key, is_send)


def _restate_route(parts: list[str], services: Mapping[str, ServiceSpec]) -> Route:
    area, rest = parts[2], parts[3:]
    match area:
        case "call" | "send":
            return _invoke(parts, 2, None, services)
        case "attach" | "output" if len(rest) <= 1:
            return ById(area, rest[0]) if rest else ByTarget(area)
        case "lookup" if not rest:
            return ByTarget(area)
        case "attach" | "output" | "lookup":
            raise InvalidRequest(_RESTATE_FORMS)
        case "scope":
            if len(rest) < 2 or rest[1] not in ("call", "send"):
                raise InvalidRequest(_RESTATE_FORMS)
            return _invoke(parts, 4, decode_key(rest[0]), services)
        case "invocation":
            return _invocation_route(parts, services)
        case "workflow":
            if len(rest) < 3:
                raise InvalidRequest(_WORKFLOW_FORMS)
            key = decode_key(rest[1])
            return ByWorkflow(_action(rest[2]), rest[0], key)
        case "awakeables" | "a":
            if len(rest) < 2:
                raise InvalidRequest(_AWAKEABLE_FORMS)
            if rest[1] not in ("resolve", "reject"):
                raise InvalidRequest("not found", status=404)
            return Awakeable(rest[0], is_reject=rest[1] == "reject")
        case "health":
            return Health()
        case _:
            raise InvalidRequest("not found", status=404)


def _invoke(parts: list[str], verb_index: int, scope: str | None, services: Mapping[str, ServiceSpec]) -> Invoke:
    service, key, rest = _target(parts, verb_index + 1, services, _RESTATE_FORMS)
    if len(rest) != 1:
        raise InvalidRequest(_RESTATE_FORMS)
    return Invoke(_handler(service, rest[0]), key, parts[verb_index] == "send", scope)


def _invocation_route(parts: list[str], services: Mapping[str, ServiceSpec]) -> Route:
    rest = parts[3:]
    if len(rest) < 2 or (len(rest) == 2 and rest[1] == ""):
        raise InvalidRequest(_INVOCATION_FORMS)
    if len(rest) == 2:
        return ById(_action(rest[1]), rest[0])
    service, key, target = _target(parts, 3, services, _INVOCATION_FORMS)
    if len(target) < 3:
        raise InvalidRequest(_INVOCATION_FORMS)
    return ByIdempotencyKey(_action(target[2]), service.name, key, target[0], target[1])


def _target(
    parts: list[str], start: int, services: Mapping[str, ServiceSpec], forms: str
) -> tuple[ServiceSpec, str | None, list[str]]:
    """The service named at `start`, its key if it has keys, and the segments after them."""
    if len(parts) <= start:
        raise InvalidRequest(forms)
    service = services.get(parts[start])
    if service is None:
        raise InvalidRequest(
            f"service '{parts[start]}' not found, make sure to register the service before calling it.", status=404
        )
    if not service.keyed:
        return service, None, parts[start + 1 :]
    if len(parts) <= start + 2:
        raise InvalidRequest(forms)
    return service, decode_key(parts[start + 1]), parts[start + 2 :]


def _handler(service: ServiceSpec, name: str) -> HandlerSpec:
    handler = service.handlers.get(name)
    if handler is None:
        raise InvalidRequest(
            f"the service '{service.name}' exists, but the handler '{name}' was not found, "
            "check that the handler exists in the latest registered service version.",
            status=404,
        )
    return handler


def _action(segment: str) -> Action:
    match segment:
        case "attach" | "output":
            return segment
        case _:
            raise InvalidRequest("not found", status=404)


def decode_key(segment: str) -> str:
    """Percent-decoded, strictly UTF-8.

    Raises:
        InvalidRequest: the bytes are not UTF-8.
    """
    if "%" not in segment and segment.isascii():
        return segment
    try:
        # Servers that pass bytes beyond ASCII through give them as Latin-1, one character for each byte.
        return unquote_to_bytes(segment.encode("latin-1")).decode()
    except UnicodeError as error:
        raise InvalidRequest(f"bad path, cannot decode key: {error}") from error
