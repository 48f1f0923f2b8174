"""`POST /query` of the admin API. Starlette only: DataFusion is in another process."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from holdfast.errors import CallerError, EngineError, HoldfastError, SqlNotInstalled
from holdfast.query.media import ARROW, COLUMNS_HEADER, JSON
from holdfast.query.queries import answer_query

if TYPE_CHECKING:
    from holdfast.runtime.engine import EngineRuntime

_ERROR_CODE_HEADER = "x-holdfast-error-code"  # as in admin.api, which stands beside us


def create_query_endpoint(engine: EngineRuntime) -> Callable[[Request], Awaitable[Response]]:
    """What answers `POST /query`."""

    async def query(request: Request) -> Response:
        sql = await _sql(request)
        if isinstance(sql, Response):
            return sql
        # Exactly this text, as for the server: a list of types, or a parameter, means Arrow.
        form = "json" if request.headers.get("accept") == JSON else "arrow"
        try:
            answer = await answer_query(engine, sql, form)
        except HoldfastError as error:
            return _refusal(error)
        if form == "arrow":
            return Response(answer.body, media_type=ARROW)
        columns = json.dumps(answer.columns)
        return Response(answer.body, headers={"content-type": JSON, COLUMNS_HEADER: columns})

    return query


async def _sql(request: Request) -> str | Response:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != JSON and not (content_type.startswith("application/") and content_type.endswith("+json")):
        return PlainTextResponse("Expected request with `Content-Type: application/json`", status_code=415)
    try:
        body: Any = json.loads(await request.body())
    except ValueError as error:
        return PlainTextResponse(f"Failed to parse the request body as JSON: {error}", status_code=400)
    sql = cast(dict[str, Any], body).get("query") if isinstance(body, dict) else None
    if isinstance(sql, str):
        return sql
    problem = "missing field `query`" if sql is None else "query: invalid type, expected a string"
    return PlainTextResponse(f"Failed to deserialize the JSON body into the target type: {problem}", status_code=422)


def _refusal(error: HoldfastError) -> Response:
    if isinstance(error, CallerError | SqlNotInstalled):
        status = error.status
    else:
        status = 503 if isinstance(error, EngineError) else 500
    message = f"{error.message}. {error.hint}" if isinstance(error, SqlNotInstalled) else error.message
    return JSONResponse({"message": message}, status_code=status, headers={_ERROR_CODE_HEADER: error.code})
