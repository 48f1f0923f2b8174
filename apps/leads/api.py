"""The HTTP API of leads, and its pages.

    POST /v1/discovery                 202 the job | 402 | 409 | 422 | 429 | 503
    POST /v1/enrichment                202 the job | 402 | 404 | 409 | 422 | 429 | 503
    GET  /v1/jobs, /v1/jobs/{id}       200
    GET  /v1/jobs/{id}/steps, /logs, /cost
    GET  /v1/jobs/{id}/stream          server-sent events until it is over
    POST /v1/jobs/{id}/cancel, /resume 202 the job | 402 | 409
    GET  /v1/leads, /v1/leads/{id}     200
    GET  /v1/leads/export              200 CSV, JSON or Parquet
    GET  /v1/wallets/{user}, /ledger   200
    POST /v1/wallets/{user}/top-up, /tier
    POST /discord/interactions         what Discord sends, signed
    GET  /, /jobs/{id}, /leads/{id}    pages
    GET  /health, /openapi.json

Errors are JSON: `code`, `message`, `retryable`, `details`. Starting may be repeated with the same client key; a start is
answered when the engine has it on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from apps.leads import messages, report
from apps.leads.access import WITHOUT_KEY, Caller, Guard, Keys
from apps.leads.discord import Interactions
from apps.leads.errors import LeadsError
from apps.leads.export import FORMATS, MEDIA_TYPES, export
from apps.leads.messages import parse
from apps.leads.model import JobStatus
from apps.leads.openapi import document
from apps.leads.running import Leads
from apps.leads.service import LEADS_MAX, Service

logger = logging.getLogger("leads.api")
Choice = TypeVar("Choice", bound=str)

BODY_BYTES_MAX = 1_000_000
RETRY_AFTER_S = 5
"""What a client is told to wait when the engine cannot be reached."""
TITLES = {401: "Who are you?", 403: "Not yours", 404: "Not here"}


def create_api(
    leads: Leads, *, keys: Keys | None = None, hosts: Collection[str] = (), discord_public_key: str = ""
) -> Starlette:
    """The API and the pages as an ASGI application.

    Args:
        keys: Who may use it; none: everybody who reaches it.
        hosts: As for `access.Guard`.
        discord_public_key: Of the Discord application, in hex; empty: no interactions are taken.
    """
    service = Service(leads)
    routes = _Routes(service, keys or Keys(), Interactions(service, discord_public_key))
    return Starlette(
        routes=routes.all(),
        middleware=[Middleware(Guard, hosts=hosts, csp=report.CSP)],
        exception_handlers={LeadsError: _error, HTTPException: _error, Exception: _error},
    )


class _Routes:
    def __init__(self, service: Service, keys: Keys, interactions: Interactions) -> None:
        self._service = service
        self._keys = keys
        self._interactions = interactions
        self._document = json.dumps(document()).encode()

    def all(self) -> list[Route]:
        def get(path: str, endpoint: Any) -> Route:
            return Route(path, self._checked(endpoint), methods=["GET"])

        def post(path: str, endpoint: Any) -> Route:
            return Route(path, self._checked(endpoint), methods=["POST"])

        return [
            get("/health", self.health),
            get("/openapi.json", self.openapi),
            post("/v1/discovery", self.start_discovery),
            post("/v1/enrichment", self.start_enrichment),
            get("/v1/jobs", self.jobs),
            get("/v1/jobs/{job_id}", self.job),
            get("/v1/jobs/{job_id}/steps", self.steps),
            get("/v1/jobs/{job_id}/logs", self.logs),
            get("/v1/jobs/{job_id}/cost", self.cost),
            get("/v1/jobs/{job_id}/stream", self.stream),
            post("/v1/jobs/{job_id}/cancel", self.cancel),
            post("/v1/jobs/{job_id}/resume", self.resume),
            get("/v1/leads", self.leads),
            get("/v1/leads/export", self.export),
            get("/v1/leads/{lead_id:path}", self.lead),
            get("/v1/wallets/{user_id}", self.wallet),
            get("/v1/wallets/{user_id}/ledger", self.ledger),
            post("/v1/wallets/{user_id}/top-up", self.top_up),
            post("/v1/wallets/{user_id}/tier", self.set_tier),
            post("/discord/interactions", self.interaction),
            get("/", self.jobs_page),
            get("/jobs/{job_id}", self.job_page),
            get("/leads/{lead_id:path}", self.lead_page),
        ]

    def _checked(self, endpoint: Any) -> Any:
        """The route's function, once it is known who asks."""

        async def checked(request: Request) -> Response:
            if (refusal := request.scope.get("leads_refusal")) is not None:
                raise refusal
            is_free = request.url.path in WITHOUT_KEY
            request.state.caller = Caller(None) if is_free else self._keys.caller(request.headers)
            return await endpoint(request)

        return checked

    # ---- jobs ------------------------------------------------------------------------------------------------------------

    async def start_discovery(self, request: Request) -> Response:
        body = parse(await _body(request), messages.DiscoveryBody)
        return _json(await self._service.start_discovery(_caller(request), _with_key(request, body)), 202)

    async def start_enrichment(self, request: Request) -> Response:
        body = parse(await _body(request), messages.EnrichmentBody)
        return _json(await self._service.start_enrichment(_caller(request), _with_key(request, body)), 202)

    async def jobs(self, request: Request) -> Response:
        query = request.query_params
        statuses = [_choice("status", text, [*JobStatus]) for text in query.getlist("status")]
        return _json(
            await self._service.jobs(
                _caller(request),
                user_id=query.get("user_id"),
                statuses=statuses or None,
                workflow_id=query.get("workflow_id"),
                limit=_number(query, "limit", 100, 1000),
                before_ms=_number(query, "before_ms", 0, 10**15) or None,
            )
        )

    async def job(self, request: Request) -> Response:
        return _json(await self._service.job(_caller(request), request.path_params["job_id"]))

    async def steps(self, request: Request) -> Response:
        return _json(await self._service.steps(_caller(request), request.path_params["job_id"]))

    async def logs(self, request: Request) -> Response:
        after = _number(request.query_params, "after", 0, 10**9)
        return _json(await self._service.logs(_caller(request), request.path_params["job_id"], after=after))

    async def cost(self, request: Request) -> Response:
        return _json(await self._service.cost(_caller(request), request.path_params["job_id"]))

    async def cancel(self, request: Request) -> Response:
        return _json(await self._service.cancel(_caller(request), request.path_params["job_id"]), 202)

    async def resume(self, request: Request) -> Response:
        return _json(await self._service.resume(_caller(request), request.path_params["job_id"]), 202)

    async def stream(self, request: Request) -> Response:
        last = request.headers.get("last-event-id", "0")
        after = int(last) if last.isascii() and last.isdigit() and len(last) < 10 else 0
        following = self._service.follow(_caller(request), request.path_params["job_id"], after=after)
        first = await anext(following)  # so that an unknown job is answered with 404

        async def events() -> AsyncGenerator[bytes]:
            async with contextlib.aclosing(following):
                yield _event(*first)
                async for each in following:
                    yield _event(*each)

        return StreamingResponse(events(), media_type="text/event-stream")

    # ---- leads -----------------------------------------------------------------------------------------------------------

    async def leads(self, request: Request) -> Response:
        query = request.query_params
        found = await self._service.leads(
            _caller(request),
            query.get("job_id"),
            limit=_number(query, "limit", 100, LEADS_MAX),
            offset=_number(query, "offset", 0, 10**6),
        )
        return _json(messages.LeadsPage(leads=[messages.item(lead) for lead in found]))

    async def lead(self, request: Request) -> Response:
        return _json(messages.item(await self._service.lead(_caller(request), request.path_params["lead_id"])))

    async def export(self, request: Request) -> Response:
        query = request.query_params
        file_format = _choice("format", query.get("format", "csv"), FORMATS)
        found = await self._service.leads(_caller(request), query.get("job_id"), limit=LEADS_MAX)
        content = await asyncio.to_thread(export, found, file_format)
        headers = {"content-disposition": f'attachment; filename="leads.{file_format}"'}
        return Response(content, headers=headers, media_type=MEDIA_TYPES[file_format])

    # ---- wallets ---------------------------------------------------------------------------------------------------------

    async def wallet(self, request: Request) -> Response:
        return _json(await self._service.wallet(_caller(request), request.path_params["user_id"]))

    async def ledger(self, request: Request) -> Response:
        count = _number(request.query_params, "count", 100, 1000)
        return _json(await self._service.ledger(_caller(request), request.path_params["user_id"], count))

    async def top_up(self, request: Request) -> Response:
        body = parse(await _body(request), messages.TopUpBody)
        key = body.key or request.headers.get("idempotency-key")
        user_id = request.path_params["user_id"]
        return _json(await self._service.top_up(_caller(request), user_id, body.amount_cents, key, body.reference))

    async def set_tier(self, request: Request) -> Response:
        body = parse(await _body(request), messages.TierBody)
        key = body.key or request.headers.get("idempotency-key")
        return _json(await self._service.set_tier(_caller(request), request.path_params["user_id"], body.tier, key))

    # ---- the rest --------------------------------------------------------------------------------------------------------

    async def interaction(self, request: Request) -> Response:
        return _json(await self._interactions.answer(request.headers, await _body(request)))

    async def health(self, _: Request) -> Response:
        return _json(await self._service.health())

    async def openapi(self, _: Request) -> Response:
        return Response(self._document, media_type="application/json")

    async def jobs_page(self, request: Request) -> Response:
        page = await self._service.jobs(_caller(request))
        return HTMLResponse(report.jobs_page(page.jobs))

    async def job_page(self, request: Request) -> Response:
        job_id = request.path_params["job_id"]
        job = await self._service.job(_caller(request), job_id)
        return HTMLResponse(report.job_page(job, await self._service.leads(_caller(request), job_id)))

    async def lead_page(self, request: Request) -> Response:
        return HTMLResponse(
            report.lead_page(await self._service.lead(_caller(request), request.path_params["lead_id"]))
        )


def _caller(request: Request) -> Caller:
    return request.state.caller


def _with_key(request: Request, body: Any) -> Any:
    key = request.headers.get("idempotency-key")
    return msgspec.structs.replace(body, client_key=key) if key and body.client_key is None else body


async def _body(request: Request) -> bytes:
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > BODY_BYTES_MAX:
                raise LeadsError(413, f"the body is larger than {BODY_BYTES_MAX} bytes")
    except ClientDisconnect as error:
        raise LeadsError(400, "the body ended early") from error
    return body


def _number(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and int(text) <= most):
        raise LeadsError(422, f"{name}: a whole number, at most {most}")
    return int(text)


def _choice(name: str, value: str, known: Sequence[Choice]) -> Choice:
    for one in known:
        if one == value:
            return one
    raise LeadsError(422, f"{name}: one of {', '.join(known)}, not {value!r}")


def _event(kind: str, number: int, news: Any) -> bytes:
    return f"event: {kind}\nid: {number}\ndata: ".encode() + msgspec.json.encode(news) + b"\n\n"


def _json(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")


def _as_leads_error(error: Exception) -> LeadsError:
    match error:
        case LeadsError():
            return error
        case HTTPException():
            return LeadsError(error.status_code, error.detail)
        case _:
            return LeadsError(500, "unexpected error; the log has the details", is_retryable=True)


async def _error(request: Request, error: Exception) -> Response:
    refusal = _as_leads_error(error)
    if refusal.code >= 500:
        logger.error("%s %s: %r", request.method, request.url.path, error, exc_info=refusal.code == 500)
    headers: dict[str, str] = dict(getattr(error, "headers", None) or {})
    if refusal.code == 401:
        headers["www-authenticate"] = 'Basic realm="leads", charset="UTF-8"'
    if refusal.code in (429, 503):
        headers["retry-after"] = str(getattr(refusal, "retry_after_s", RETRY_AFTER_S))
    if not request.url.path.startswith(("/v1/", "/discord/", "/health", "/openapi.json")):
        page = report.problem_page(TITLES.get(refusal.code, "That did not work"), refusal.message)
        return HTMLResponse(page, refusal.code, headers)
    return _json(refusal.as_json(), refusal.code, headers)
