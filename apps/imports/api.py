"""The HTTP API of imports, and its pages.

    POST /api/imports/start          202 started | 400 | 409 the id is taken | 502 engine away
    GET  /api/imports/{id}/progress  200 | 404 unknown | 502
    GET  /api/imports/{id}/events    the same as server-sent events, until it is over | 404
    GET  /api/imports/{id}           200 what is recorded of it, with tables and rejected rows | 404
    POST /api/imports/{id}/cancel    202 asked for | 404 | 409 it is over | 502
    GET  /api/imports                200, newest first, by cursor | 400
    GET  /health                     200 | 500 the store fails
    GET  /openapi.json               this, as OpenAPI 3.1

Errors are JSON: `error` (a code), `message` (one line), and `status` where an import's state is the reason. Starting and
cancelling may be repeated; a start is answered when the engine has it on disk.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Collection, Mapping
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from apps.imports import page
from apps.imports.access import Guard
from apps.imports.database import StoreError
from apps.imports.engine import EngineAway
from apps.imports.messages import ENTRIES, ENTRIES_MAX, Away, BadRequest, CancelAnswer, ErrorBody, Health, parse_start
from apps.imports.openapi import document
from apps.imports.service import AlreadyOver, AlreadyThere, Imports, InvalidCursor, NotFound

logger = logging.getLogger("imports.api")

BODY_BYTES_MAX = 16 * 1024
REJECTED_MAX = 1000
AWAY_RETRY_S = 5
"""What a client is told to wait when the engine is away."""


def create_api(imports: Imports, *, token: str | None = None, hosts: Collection[str] = ()) -> Starlette:
    """The API and the pages as an ASGI application.

    Args:
        imports: The operations.
        token, hosts: As for `access.Guard`.
    """
    routes = _Routes(imports)
    return Starlette(
        routes=[
            Route("/health", routes.health),
            Route("/openapi.json", routes.openapi),
            Route("/api/imports", routes.history),
            Route("/api/imports/start", routes.start, methods=["POST"]),
            Route("/api/imports/{import_id}", routes.outcome),
            Route("/api/imports/{import_id}/progress", routes.progress),
            Route("/api/imports/{import_id}/events", routes.events),
            Route("/api/imports/{import_id}/cancel", routes.cancel, methods=["POST"]),
            *page.page_routes(imports),
        ],
        middleware=[Middleware(Guard, token=token, hosts=hosts)],
        exception_handlers=dict.fromkeys(_ERRORS, _answer_error) | {Exception: _answer_error},
    )


class _Routes:
    def __init__(self, imports: Imports) -> None:
        self._imports = imports
        self._document = json.dumps(document()).encode()

    async def health(self, _: Request) -> Response:
        await self._imports.history(1)
        return _json(Health("ok", "up" if await self._imports.is_engine_there() else "away"))

    async def openapi(self, _: Request) -> Response:
        return Response(self._document, media_type="application/json")

    async def start(self, request: Request) -> Response:
        start = parse_start(await _body(request))
        return _json(await self._imports.start(start.request, is_id_given=start.is_id_given), 202)

    async def progress(self, request: Request) -> Response:
        import_id = request.path_params["import_id"]
        progress = await self._imports.progress(import_id)
        if progress is None:
            raise NotFound(import_id)
        return _json(progress)

    async def outcome(self, request: Request) -> Response:
        import_id = request.path_params["import_id"]
        outcome = await self._imports.outcome(import_id, REJECTED_MAX)
        if outcome is None:
            raise NotFound(import_id)
        return _json(outcome)

    async def events(self, request: Request) -> Response:
        following = self._imports.follow(request.path_params["import_id"])
        try:
            first = await anext(following)  # so that an unknown id is answered with 404
        except NotFound:
            await following.aclose()
            raise

        async def stream() -> AsyncGenerator[bytes]:
            try:
                yield _event(first)
                async for each in following:
                    yield _event(each)
            finally:
                await following.aclose()

        return StreamingResponse(stream(), media_type="text/event-stream")

    async def cancel(self, request: Request) -> Response:
        import_id = request.path_params["import_id"]
        await self._imports.cancel(import_id)
        return _json(CancelAnswer(import_id, "cancelling"), 202)

    async def history(self, request: Request) -> Response:
        limit = _number(request.query_params, "limit", ENTRIES, ENTRIES_MAX)
        return _json(await self._imports.history(limit, request.query_params.get("cursor")))


async def _body(request: Request) -> bytes:
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > BODY_BYTES_MAX:
                raise BadRequest(f"the body is larger than {BODY_BYTES_MAX} bytes")
    except ClientDisconnect as error:
        raise BadRequest("the body ended early") from error
    return body


def _number(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= most):
        raise BadRequest(f"{name} must be a whole number from 1 to {most}")
    return int(text)


def _event(news: Any) -> bytes:
    """One server-sent event: `progress` with the progress as data, or `away` with the reason."""
    if isinstance(news, EngineAway):
        return b"event: away\ndata: " + msgspec.json.encode(Away(str(news))) + b"\n\n"
    return b"event: progress\ndata: " + msgspec.json.encode(news) + b"\n\n"


def _json(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")


# What can go wrong: the status, the code, and what a page calls it.
_ERRORS: dict[type[Exception], tuple[int, str, str]] = {
    BadRequest: (400, "invalid_request", "That cannot be"),
    InvalidCursor: (400, "invalid_cursor", "No such page"),
    NotFound: (404, "not_found", "No such import"),
    AlreadyThere: (409, "already_started", "Started already"),
    AlreadyOver: (409, "already_over", "Over already"),
    EngineAway: (502, "engine_away", "The engine is away"),
    StoreError: (500, "store_failed", "The database failed"),
}


async def _answer_error(request: Request, error: Exception) -> Response:
    status, code, title = next(
        (answer for kind, answer in _ERRORS.items() if isinstance(error, kind)), (500, "internal_error", "An error")
    )
    message = str(error) if status != 500 else "unexpected error; the log has the details"
    if status >= 500:
        logger.error("%s %s: %s", request.method, request.url.path, error, exc_info=code == "internal_error")
    if not request.url.path.startswith(("/api/", "/health")):
        return page.problem(status, title, message)
    body = ErrorBody(code, message, getattr(error, "status", None))
    return _json(body, status, {"retry-after": str(AWAY_RETRY_S)} if code == "engine_away" else None)
