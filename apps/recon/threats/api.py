"""HTTP routes of threats and contributors: views of their virtual objects.

GET /v1/threats                 200    ?limit= &offset=
GET /v1/threats/{id}            200 | 404   ?history=: entries to show
GET /v1/contributors/{key}      200 | 400 no public key
"""

from __future__ import annotations

import httpx
import restate
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from apps.recon.http import ApiError, answer, number
from apps.recon.parts import ApiContext
from apps.recon.threats.model import object_key
from apps.recon.threats.objects import HISTORY_SHOWN, HISTORY_SHOWN_MAX, Contributors, Threats
from apps.recon.threats.store import ThreatStore


def routes(context: ApiContext) -> list[BaseRoute]:
    """The routes, with their full paths."""
    own = _Routes(context)
    return [
        Route("/v1/threats", own.list_threats),
        Route("/v1/threats/{threat_id}", own.get_threat),
        Route("/v1/contributors/{key:path}", own.get_contributor),
    ]


class _Routes:
    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._store = ThreatStore(context.store)
        self._threats, self._contributors = Threats(self._store), Contributors(self._store)

    async def list_threats(self, request: Request) -> Response:
        self._context.limit(request)
        limit = number(request.query_params, "limit", 50, 1, 500)
        offset = number(request.query_params, "offset", 0, 0, 2**31)
        return answer({"threats": await self._store.threats(limit=limit, offset=offset)})

    async def get_threat(self, request: Request) -> Response:
        self._context.limit(request)
        entries = number(request.query_params, "history", HISTORY_SHOWN, 0, HISTORY_SHOWN_MAX)
        threat_id = request.path_params["threat_id"]
        try:
            return answer(await self._context.client.object_call(self._threats.get, key=threat_id, arg=entries))
        except (restate.HttpError, httpx.TransportError) as error:
            raise _refusal(error, f"there is no threat {threat_id}") from error

    async def get_contributor(self, request: Request) -> Response:
        self._context.limit(request)
        key = object_key(request.path_params["key"])
        try:
            return answer(await self._context.client.object_call(self._contributors.get, key=key, arg=None))
        except (restate.HttpError, httpx.TransportError) as error:
            raise _refusal(error, f"{request.path_params['key']} is no public key") from error


def _refusal(error: Exception, reason: str) -> ApiError:
    """What the caller is told; `reason` is for a request that the object refused."""
    codes = {400: "invalid_request", 404: "not_found"}
    if isinstance(error, restate.HttpError) and error.status_code in codes:
        return ApiError(error.status_code, codes[error.status_code], reason)
    return ApiError(503, "unavailable", "the engine did not answer")
