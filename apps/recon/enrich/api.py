"""HTTP: start a run of enrichment, see how it stands, stop it.

POST /v1/enrich               202 | 400 invalid_request, invalid_json | 404 not_found | 409 known_id
                                  | 503 not_configured, unavailable
GET  /v1/enrich               200, the latest runs
GET  /v1/enrich/{id}          200 | 404 not_found
POST /v1/enrich/{id}/cancel   202 | 404 | 409 already_final | 503
"""

from __future__ import annotations

import ipaddress
import re
import uuid
from datetime import UTC, datetime

import httpx
import msgspec
import restate
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from apps.recon.enrich import runs
from apps.recon.enrich.model import HOSTS_MAX, Enrichment, EnrichRequest, Kind
from apps.recon.enrich.schema import KINDS
from apps.recon.enrich.sources import Sources
from apps.recon.http import ApiError, answer, number, read_json, require_admin
from apps.recon.parts import ApiContext

WORKFLOW = "Enrichment"
_ID = re.compile(r"[A-Za-z0-9._-]{1,100}\Z")


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /v1/enrich`."""

    job_id: str | None = None
    hosts: list[str] | None = None
    kinds: list[Kind] | None = None
    """None: all that are configured."""
    force_refresh: bool = False
    id: str | None = None
    """Name of the run; the same again is the same run. None: a new one."""


class Started(msgspec.Struct):
    id: str
    status: str
    message: str
    timestamp: datetime


class RunList(msgspec.Struct):
    enrichments: list[Enrichment]
    total: int
    limit: int
    offset: int
    has_more: bool
    next_offset: int | None


def routes(context: ApiContext) -> list[BaseRoute]:
    """The routes, on the store and the engine of `context`."""
    api = _Routes(context)
    return [
        Route("/v1/enrich", api.start, methods=["POST"]),
        Route("/v1/enrich", api.list_runs),
        Route("/v1/enrich/{run_id}", api.get),
        Route("/v1/enrich/{run_id}/cancel", api.cancel, methods=["POST"]),
    ]


class _Routes:
    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._store = context.store
        self._sources = Sources(context.settings)

    async def start(self, request: Request) -> Response:
        self._guard(request)
        wanted = await read_json(request, Wanted)
        run_id = _run_id(wanted)
        work = await self._checked(wanted)
        if await runs.get(self._store, run_id) is None:
            await self._send(run_id, work)
            # The workflow's first step writes the same; whoever comes first. Now a look finds it.
            await runs.announce(self._store, run_id, work)
        started = await runs.get(self._store, run_id)
        state = started.state if started else "running"
        return answer(Started(run_id, state, f"see /v1/enrich/{run_id}", datetime.now(UTC)), 202)

    async def get(self, request: Request) -> Response:
        self._context.limit(request)
        return answer(await self._run(request))

    async def list_runs(self, request: Request) -> Response:
        self._context.limit(request)
        limit = number(request.query_params, "limit", 20, 1, runs.PAGE_MAX)
        offset = number(request.query_params, "offset", 0, 0, 2**31)
        found, total = await runs.latest(self._store, limit=limit, offset=offset)
        end = offset + len(found)
        return answer(RunList(found, total, limit, offset, end < total, end if end < total else None))

    async def cancel(self, request: Request) -> Response:
        self._guard(request)
        run = await self._run(request)
        if run.state != "running":
            raise ApiError(409, "already_final", f"enrichment {run.id} is {run.state} already")
        invocation_id = await runs.invocation_of(self._store, run.id)
        if invocation_id is None:
            raise ApiError(503, "unavailable", f"enrichment {run.id} has not begun yet; try again")
        try:
            await self._context.cancel(invocation_id)
        except (restate.HttpError, httpx.TransportError) as error:
            raise _UNAVAILABLE from error
        return answer(Started(run.id, "cancelling", f"see /v1/enrich/{run.id}", datetime.now(UTC)), 202)

    def _guard(self, request: Request) -> None:
        """Who may start work: as with cancelling a job, whoever has the admin token, if there is one."""
        if self._context.settings.admin_token is not None:
            require_admin(request, self._context.settings)
        self._context.limit(request)

    async def _run(self, request: Request) -> Enrichment:
        run_id: str = request.path_params["run_id"]
        found = await runs.get(self._store, run_id) if _ID.match(run_id) else None
        if found is None:
            raise ApiError(404, "not_found", f"there is no enrichment {run_id[:100]}")
        return found

    async def _checked(self, wanted: Wanted) -> EnrichRequest:
        if (wanted.job_id is None) == (not wanted.hosts):
            raise ApiError(400, "invalid_request", "give either job_id or hosts, at least one")
        hosts = _addresses(wanted.hosts or [])
        if wanted.job_id is not None and (not _ID.match(wanted.job_id) or await self._store.job(wanted.job_id) is None):
            raise ApiError(404, "not_found", f"there is no job {wanted.job_id[:100]}")
        for kind in wanted.kinds or []:
            if kind != "vuln" and (missing := self._sources.missing(kind)) is not None:
                raise ApiError(503, "not_configured", f"{kind} cannot be enriched: {missing}")
        kinds = list(dict.fromkeys(wanted.kinds or KINDS))
        return EnrichRequest(wanted.job_id, hosts, kinds, wanted.force_refresh)

    async def _send(self, run_id: str, work: EnrichRequest) -> None:
        try:
            await self._context.client.generic_send(
                WORKFLOW, "run", msgspec.json.encode(work), key=run_id, headers={"Content-Type": "application/json"}
            )
        except (restate.HttpError, httpx.TransportError) as error:
            raise _UNAVAILABLE from error


_UNAVAILABLE = ApiError(503, "unavailable", "the engine cannot be reached; try again")


def _run_id(wanted: Wanted) -> str:
    if wanted.id is None:
        return str(uuid.uuid4())
    if not _ID.match(wanted.id):
        raise ApiError(400, "invalid_request", "id must be 1 to 100 letters, digits, dots, hyphens and underscores")
    return wanted.id


def _addresses(texts: list[str]) -> list[str]:
    """In canonical spelling, each once."""
    if len(texts) > HOSTS_MAX:
        raise ApiError(400, "invalid_request", f"{len(texts)} hosts; at most {HOSTS_MAX}, or a job_id for more")
    found: set[str] = set()
    for text in texts:
        try:
            found.add(str(ipaddress.ip_address(text.strip())))
        except ValueError:
            raise ApiError(400, "invalid_request", f"{text[:100]!r} is not an IP address") from None
    return sorted(found)
