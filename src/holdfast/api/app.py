"""The API as an ASGI app, over any provider.

    api = create_api(provider)                     # or a coroutine function that opens one, at the first request
    Starlette(routes=[Mount("/v1", api)])

In `holdfast serve` it is part of the admin port; `holdfast api` serves it alone, in front of a Restate server.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from holdfast.api import openapi, problems
from holdfast.api.events import HEARTBEAT_S
from holdfast.api.operations import OPERATIONS, Call, ClientGone, Operation
from holdfast.api.reading import from_json, from_query, parse_json
from holdfast.api.responses import json_bytes, json_response
from holdfast.errors import EngineStopped, HoldfastError, InvalidRequest
from holdfast.providers.base import WorkflowProvider
from holdfast.providers.errors import InvalidInput
from holdfast.providers.types import WorkflowSpec

logger = logging.getLogger("holdfast.api")

BODY_BYTES_MAX = 32 << 20
"""As the ingress; what a provider takes as input is far less, and it says so itself."""

_BODY_TYPES = ("", "application/json", "application/x-www-form-urlencoded", "text/plain")
"""Types of bodies that are read as JSON. The third is what `curl -d` says when it is told nothing."""

Open = Callable[[], Awaitable[WorkflowProvider]]
Endpoint = Callable[[Request], Awaitable[Response]]


def create_api(
    provider: WorkflowProvider | Open, *, body_bytes_max: int = BODY_BYTES_MAX, heartbeat_s: float = HEARTBEAT_S
) -> Api:
    """The API of `provider`, to be served or mounted under `/v1`.

    Args:
        provider: What to ask, a `Router` as well; or a coroutine function that opens it, called once, at the first
            request, and again when that failed. A provider that was opened here is closed here.
        body_bytes_max: Largest body of a request.
        heartbeat_s: How often a stream without changes says something.
    """
    return Api(provider, body_bytes_max=body_bytes_max, heartbeat_s=heartbeat_s)


class Api:
    """The ASGI app. `close` ends what waits and streams, and the provider if it was opened here."""

    def __init__(self, provider: WorkflowProvider | Open, *, body_bytes_max: int, heartbeat_s: float) -> None:
        self._provider = provider if isinstance(provider, WorkflowProvider) else None
        self._open = None if isinstance(provider, WorkflowProvider) else provider
        self._opening = asyncio.Lock()
        self._closing = asyncio.Event()
        self._body_bytes_max = body_bytes_max
        self._heartbeat_s = heartbeat_s
        self._openapi: bytes | None = None
        paths: dict[str, dict[str, Endpoint]] = {}
        for operation in OPERATIONS:
            paths.setdefault(operation.path, {})[operation.method] = self._endpoint(operation)
        # One route for each path, so that a refused method is told all that are allowed.
        routes = [Route(path, _by_method(endpoints), methods=[*endpoints]) for path, endpoints in paths.items()]
        self._app = Starlette(
            routes=[Route("/openapi.json", self._document), *routes],
            exception_handlers={
                HoldfastError: _holdfast_error,
                HTTPException: _framework_error,
                ClientGone: _nobody,
                ClientDisconnect: _nobody,
                Exception: _unexpected_error,
            },
        )
        # A path with a slash too many is another path; by default Starlette would redirect.
        self._app.router.redirect_slashes = False
        for route in routes:
            if route.path.endswith(("/wait", "/watch")) and route.methods is not None:
                route.methods.discard("HEAD")  # nobody wants to wait for nothing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    async def close(self) -> None:
        """Answer those who wait, end the streams, and close the provider if it was opened here."""
        self._closing.set()
        async with self._opening:
            if self._open is not None and self._provider is not None:
                provider, self._provider = self._provider, None
                await provider.close()

    def _endpoint(self, operation: Operation) -> Endpoint:
        async def endpoint(request: Request) -> Any:
            query = None if operation.query is None else from_query(operation.query, request.query_params.multi_items())
            if operation.query is None and request.query_params:
                name = next(iter(request.query_params))
                raise InvalidInput(name, "is no parameter of this request", hint="it takes none")
            body = None if operation.body is None else await self._body(operation, request)
            call = Call(
                request=request,
                provider=await self.open(),
                closing=self._closing,
                heartbeat_s=self._heartbeat_s,
                query=query,
                body=body,
            )
            return await operation.run(call)

        return endpoint

    async def open(self) -> WorkflowProvider:
        """The provider, opened if it was not.

        Raises:
            EngineStopped: the API is closed.
            HoldfastError: whatever the opening raises; it is tried again at the next request.
        """
        if self._closing.is_set():
            raise EngineStopped("the API is stopping", hint="ask again in a moment")
        if self._provider is None:
            async with self._opening:
                if self._provider is None:
                    assert self._open is not None
                    self._provider = await self._open()
        return self._provider

    async def _body(self, operation: Operation, request: Request) -> Any:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in _BODY_TYPES and not (kind.startswith("application/") and kind.endswith("+json")):
            raise InvalidRequest(f"a body of type {kind!r} is not understood", status=415, hint="send application/json")
        body = await self._read(request)
        if operation.is_body_required and not body.strip():
            raise InvalidRequest("the body is empty", hint="send a JSON object, e.g. curl -d @request.json")
        document: Any = parse_json(body) if body.strip() else {}
        return (
            WorkflowSpec.from_json(document) if operation.body is WorkflowSpec else from_json(operation.body, document)
        )

    async def _read(self, request: Request) -> bytes:
        parts: list[bytes] = []
        size = 0
        async for part in request.stream():
            size += len(part)
            if size > self._body_bytes_max:
                raise InvalidRequest(f"the body has more than {self._body_bytes_max} bytes", status=413)
            parts.append(part)
        return b"".join(parts)

    async def _document(self, _request: Request) -> Response:
        """The OpenAPI document of this API."""
        if self._openapi is None:
            self._openapi = json_bytes(openapi.document(OPERATIONS))
        return Response(self._openapi, media_type="application/json")


def _by_method(endpoints: Mapping[str, Endpoint]) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        return await endpoints["GET" if request.method == "HEAD" else request.method](request)

    return endpoint


async def _holdfast_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HoldfastError)
    return _problem(request, error)


async def _framework_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == 404:
        said = InvalidRequest(f"there is no path {path}", status=404, hint="all paths: GET /v1/openapi.json")
    elif error.status_code == 405:
        said = InvalidRequest(f"{path} has no method {request.method}", status=405, hint="GET /v1/openapi.json")
    else:
        said = InvalidRequest(error.detail, status=error.status_code)
    return _problem(request, said, dict(error.headers or {}))


async def _unexpected_error(request: Request, error: Exception) -> Response:
    """A fault of ours. Starlette raises it again behind the answer, so that it is logged with its traceback."""
    said = HoldfastError(f"an unexpected error: {type(error).__name__}", hint="the log of the server has the details")
    return _problem(request, said)


async def _nobody(_request: Request, _error: Exception) -> Response:
    return Response(status_code=499)  # as nginx logs it; nobody reads it


def _problem(request: Request, error: HoldfastError, headers: dict[str, str] | None = None) -> Response:
    document = problems.problem(error, request.url.path)
    return json_response(document, document["status"], headers, problems.MEDIA_TYPE)
