"""HTTP: questions to the graph.

    GET  /v1/query/host/{ip}?depth=0..5            200 | 400 invalid_parameter | 404 not_found
    POST /v1/query/graph                           200 | 400 invalid_request, invalid_json | 404 (neighbours of nobody)
    GET  /v1/query/new?since=|cursor=&kind=&limit= 200 | 400 invalid_parameter
    POST /v1/query/similar                         200 | 400 invalid_request
    all of them                                    408 query_timeout after 5 s | 429 rate_limit_exceeded | 503 unavailable

Errors of these routes have `error`, `message`, `code` (the status) and `timestamp`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from apps.recon.http import ApiError, answer, choice, number, read_json
from apps.recon.http import time as moment
from apps.recon.parts import ApiContext
from apps.recon.queries import new
from apps.recon.queries.graph import read_graph
from apps.recon.queries.host import read_host
from apps.recon.queries.model import (
    DEPTH_MAX,
    K_MAX,
    LIMIT,
    LIMIT_MAX,
    OFFSET_MAX,
    QUERY_CHARS_MAX,
    GraphAnswer,
    GraphQuery,
    HostAnswer,
    NewAnswer,
    Pagination,
    QueryErrorBody,
    SimilarAnswer,
    SimilarQuery,
)
from apps.recon.queries.reading import Reading
from apps.recon.queries.similar import METHOD, read_similar
from apps.recon.surreal import StoreUnavailable

Handler = Callable[[Request], Awaitable[Response]]


def routes(context: ApiContext) -> list[BaseRoute]:
    """The routes, on the store of `context`."""
    api = _Routes(context)
    return [
        Route("/v1/query/host/{ip}", api.guarded(api.host)),
        Route("/v1/query/graph", api.guarded(api.graph), methods=["POST"]),
        Route("/v1/query/new", api.guarded(api.new)),
        Route("/v1/query/similar", api.guarded(api.similar), methods=["POST"]),
    ]


class _Routes:
    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def guarded(self, handler: Handler) -> Handler:
        """Counts the request, and answers errors in the shape of these routes."""

        async def handle(request: Request) -> Response:
            try:
                self._context.limit(request)
                return await handler(request)
            except ApiError as error:
                return _error(error.status, error.code, str(error), error.headers)
            except StoreUnavailable:
                return _error(503, "unavailable", "the database cannot be reached; try again")

        return handle

    async def host(self, request: Request) -> Response:
        depth = number(request.query_params, "depth", 2, 0, DEPTH_MAX)
        address = _address(request.path_params["ip"], "invalid_parameter")
        reading = self._reading(f"host, depth {depth}")
        found = await read_host(reading, address, depth)
        if found is None:
            raise ApiError(404, "not_found", f"there is no host {address}")
        return answer(HostAnswer(depth, found, reading.elapsed_ms()))

    async def graph(self, request: Request) -> Response:
        query = await read_json(request, GraphQuery)
        _in_range("limit", query.limit, 1, LIMIT_MAX)
        _in_range("offset", query.offset, 0, OFFSET_MAX)
        if query.ip is not None:
            query.ip = _address(query.ip, "invalid_request")
        for name in ("city", "region", "country", "cve", "product", "service"):
            _check_text(name, getattr(query, name))
        reading = self._reading(query.query_type)
        page = await read_graph(reading, query)
        end = query.offset + len(page.results)
        has_more = end < page.total and bool(page.results)
        pagination = Pagination(query.limit, query.offset, page.total, has_more, end if has_more else None)
        return answer(GraphAnswer(query.query_type, page.results, pagination, reading.elapsed_ms()))

    async def new(self, request: Request) -> Response:
        query = request.query_params
        kind = choice(query, "kind", new.KINDS) or "host"
        limit = number(query, "limit", LIMIT, 1, LIMIT_MAX)
        since, cursor = moment(query, "since"), query.get("cursor")
        if (since is None) == (cursor is None):
            raise ApiError(400, "invalid_parameter", "give either since, or the cursor of a page before")
        try:
            position = new.Position.of(since) if since else new.Position.decode(cursor or "", kind)
        except new.InvalidCursor as error:
            raise ApiError(400, "invalid_parameter", str(error)) from error
        reading = self._reading(f"new {kind}s")
        rows, position, has_more = await new.read_new(reading, kind, position, limit)
        return answer(NewAnswer(kind, rows, len(rows), position.encode(kind), has_more, reading.elapsed_ms()))

    async def similar(self, request: Request) -> Response:
        query = await read_json(request, SimilarQuery)
        if not query.query.strip() or len(query.query) > QUERY_CHARS_MAX:
            raise ApiError(400, "invalid_request", f"query must have 1 to {QUERY_CHARS_MAX} characters")
        _check_text("query", query.query)
        _in_range("k", query.k, 1, K_MAX)
        reading = self._reading("similar")
        found = await read_similar(reading, query.query, query.k)
        return answer(SimilarAnswer(query.query, METHOD, found, len(found), datetime.now(UTC), reading.elapsed_ms()))

    def _reading(self, what: str) -> Reading:
        return Reading(self._context.store, what)


def _address(text: str, code: str) -> str:
    """In canonical spelling, as hosts are known by."""
    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError:
        raise ApiError(400, code, f"{text[:100]!r} is not an IP address") from None


def _in_range(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ApiError(400, "invalid_request", f"{name} must be from {least} to {most}")


def _check_text(name: str, value: str | None) -> None:
    """What no name holds, and the database cannot take."""
    if value is not None and ("\x00" in value or len(value) > QUERY_CHARS_MAX or not value.isprintable()):
        raise ApiError(400, "invalid_request", f"{name} must be at most {QUERY_CHARS_MAX} printable characters")


def _error(status: int, code: str, message: str, headers: object = None) -> Response:
    body = QueryErrorBody(code, message, status, datetime.now(UTC))
    return answer(body, status, headers)  # pyright: ignore[reportArgumentType]
