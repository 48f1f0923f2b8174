"""The admin API behind its guard: every path, those of other parts mounted on it included."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from holdfast.admin.api import API_VERSIONS, ERROR_CODE_HEADER
from holdfast.errors import Forbidden, HoldfastError, Unauthorized
from holdfast.security.guard import Guard, Origins, Refusal

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_HEALTH = frozenset({"/health", *(f"/v{number}/health" for number in API_VERSIONS)})
"""Whoever watches over the engine needs no token to ask whether it is well."""

_POLICY_VIOLATION = 1008


def guarded(app: ASGIApp, guard: Guard, origins: Origins) -> ASGIApp:
    """`app`, answering only what `guard` lets through, and pages of the allowed `origins` as browsers want it (CORS)."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await app(scope, receive, send)
            return
        fields: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            fields.setdefault(name, value)
        refusal = guard.refusal(fields)
        origin = fields.get(b"origin")
        cors = _cors(origin) if origin is not None and origins.allows(origin) else []
        if scope["type"] == "websocket":
            await _websocket(app, refusal, scope, receive, send)
        elif cors and scope["method"] == "OPTIONS" and b"access-control-request-method" in fields:
            await _send(send, 200, [*cors, *_preflight(fields)], b"")
        elif refusal is not None and not (refusal.status == 401 and _is_health(scope)):
            error = Unauthorized if refusal.status == Unauthorized.status else Forbidden
            kind, body = _refused(_path(scope), refusal, error)
            headers = [(b"content-type", kind), (ERROR_CODE_HEADER.encode(), error.code.encode())]
            await _send(send, refusal.status, [*headers, *refusal.headers, *cors], json.dumps(body).encode())
        else:
            await app(scope, receive, _adding(cors, send) if cors else send)

    return answer


async def _websocket(app: ASGIApp, refusal: Refusal | None, scope: Scope, receive: Receive, send: Send) -> None:
    if refusal is None:
        await app(scope, receive, send)
    else:
        await receive()  # what asks to be let in
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION})


def _refused(path: str, refusal: Refusal, error: type[HoldfastError]) -> tuple[bytes, dict[str, Any]]:
    """Media type and body, in the words of the API that was asked."""
    if not path.startswith("/v1/"):
        return b"application/json", {"message": refusal.message, "restate_code": None}
    return b"application/problem+json", {
        "type": f"urn:holdfast:error:{error.code}",
        "title": error.__name__,
        "status": refusal.status,
        "detail": refusal.message,
        "instance": path,
        "code": error.code,
    }


def _is_health(scope: Scope) -> bool:
    return scope["method"] in ("GET", "HEAD") and _path(scope) in _HEALTH


def _path(scope: Scope) -> str:
    return str(scope["path"]).removeprefix(scope.get("root_path", ""))


def _cors(origin: bytes) -> Headers:
    return [(b"access-control-allow-origin", origin), (b"vary", b"origin")]


def _preflight(fields: MutableMapping[bytes, bytes]) -> Headers:
    headers = [(b"access-control-allow-methods", fields[b"access-control-request-method"])]
    if asked := fields.get(b"access-control-request-headers"):
        headers.append((b"access-control-allow-headers", asked))
    return headers


def _adding(headers: Headers, send: Send) -> Send:
    async def send_more(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *headers]}
        await send(message)

    return send_more


async def _send(send: Send, status: int, headers: Headers, body: bytes) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
