"""One log line per request, with an id that the answer carries too; and what no route can answer is refused."""

from __future__ import annotations

import logging
import time
import uuid
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from apps.recon import http

logger = logging.getLogger("recon.http")

_NULL = b"%00"
_QUIET = ("/health", "/health/live", "/health/ready", "/metrics")


class RequestLog:
    """ASGI middleware: method, path, status, duration and, where a route put one into the scope, the job."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = uuid.uuid4().hex
        began_s = time.perf_counter()
        status = 500

        async def tell(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).append("X-Request-Id", request_id)
            await send(message)

        try:
            await self._app(scope, receive, tell)
        finally:
            fields: dict[str, Any] = {
                "request_id": request_id,
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "duration_ms": round((time.perf_counter() - began_s) * 1000, 1),
            }
            if "job_id" in scope:
                fields["job_id"] = scope["job_id"]
            logger.log(logging.DEBUG if scope["path"] in _QUIET else logging.INFO, "request", extra=fields)


class RefuseNull:
    """ASGI middleware: no null byte in path and query. Those of JSON bodies: `http.read_json`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and ("\0" in scope["path"] or _NULL in scope["query_string"]):
            refused = await http.answer_error(Request(scope), http.no_null())
            await refused(scope, receive, send)
        else:
            await self._app(scope, receive, send)
