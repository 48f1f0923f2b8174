"""The HTTP API of recon: signed scans in, jobs out. The routes of keys, page and parts are put together with it.

    POST /v1/mesh/ingest          202 | 400 invalid_json, invalid_request | 401 invalid_signature | 413 too_large
                                      | 429 rate_limit_exceeded | 500 internal_error | 503 unavailable
    GET  /v1/jobs                 200 | 400 invalid_parameter | 429
    GET  /v1/jobs/{id}            200 | 404 not_found | 429
    POST /v1/jobs/{id}/cancel     202 | 404 | 409 already_final | 503
    GET  /v1/jobs/events          server-sent events: every change of any job
    GET  /v1/jobs/{id}/events     the same of one job, up to its end
    GET  /v1/keys, POST /v1/keys, DELETE /v1/keys/{key}    the key registry (`keys_api.py`), admin token
    GET  /health, /health/live    200 while the process runs
    GET  /health/ready            200 when database and engine answer, else 503
    GET  /                        the dashboard (`page.py`)

A submission is answered once job and scan are on disk. Then the workflow is started; when the engine cannot be reached,
the job stays `pending` and the sweeper starts it (`control.py`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import msgspec
import restate
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from apps.recon import http, keys_api, page, parts
from apps.recon.cursors import InvalidCursor
from apps.recon.envelope import (
    BODY_BYTES_MAX,
    LARGE_BYTES,
    InvalidEnvelope,
    SignatureRejected,
    Submission,
    open_envelope,
)
from apps.recon.events import JobFeed, as_events
from apps.recon.http import ApiError, answer
from apps.recon.keys import KeyRegistry
from apps.recon.limits import RequestLimits
from apps.recon.middleware import RefuseNull, RequestLog
from apps.recon.model import FINAL_STATES, IngestRequest, Job, JobState
from apps.recon.parts import ApiContext
from apps.recon.room import FULL, Room
from apps.recon.settings import Settings
from apps.recon.starting import Starter
from apps.recon.store import ORDER_COLUMNS, JobFilter, Store, StoreError
from apps.recon.surreal import StoreUnavailable
from apps.recon.workflow import start_ingest

logger = logging.getLogger("recon.api")

JOBS_PER_PAGE = 50
JOBS_PER_PAGE_MAX = 500

START_TIMEOUT_S = 5
"""How long a submission waits for the engine before it leaves the start to the sweeper."""

LARGE_MAX = 4
"""Large envelopes opened at the same time, each by a thread."""

PROBE_TIMEOUT_S = 3

Probe = Callable[[], Awaitable[None]]
"""Returns when the engine answers, and raises when it does not."""


class Accepted(msgspec.Struct):
    job_id: str
    status: str
    message: str
    timestamp: datetime


class JobList(msgspec.Struct):
    jobs: list[Job]
    total: int
    limit: int
    offset: int
    has_more: bool
    next_offset: int | None
    next_cursor: str | None


class CancelRequest(msgspec.Struct):
    reason: str = ""


class Cancelling(msgspec.Struct):
    job_id: str
    status: str
    timestamp: datetime


class Readiness(msgspec.Struct):
    status: str
    database: str
    engine: str


def create_api(
    store: Store, client: restate.RestateClient, settings: Settings | None = None, *, probe: Probe | None = None
) -> Starlette:
    """The API as an ASGI application, with the routes of every part.

    Args:
        store: Where jobs are kept; the workflow must work on the same one.
        client: Starts workflows: `engine.client` of a holdfast engine in this process, or `restate.create_client(url)`
            for a server elsewhere.
        settings: None takes the defaults.
        probe: Asked for readiness; None says that the engine is always there.
    """
    settings = settings or Settings()
    context = ApiContext(store, client, settings, RequestLimits(settings))
    feed = JobFeed(store)
    routes = _Routes(context, feed, probe)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        yield
        await feed.close()

    return Starlette(
        routes=[
            *routes.all(),
            *keys_api.routes(context),
            *page.routes(context),
            *parts.collect("routes", context),
        ],
        middleware=[Middleware(RequestLog), Middleware(RefuseNull)],
        exception_handlers={
            ApiError: http.answer_error,
            HTTPException: http.answer_routing,
            StoreError: http.answer_store_error,
            Exception: http.answer_unexpected,
        },
        lifespan=lifespan,
    )


class _Routes:
    def __init__(self, context: ApiContext, feed: JobFeed, probe: Probe | None) -> None:
        self._context = context
        self._store = context.store
        self._client = context.client
        self._settings = context.settings
        self._keys = KeyRegistry(context.store)
        self._feed = feed
        self._probe = probe
        self._large = asyncio.Semaphore(LARGE_MAX)
        self._room = Room(context.settings)
        self._starter = Starter(context.client)

    def all(self) -> list[BaseRoute]:
        return [
            Route("/health", self.live),
            Route("/health/live", self.live),
            Route("/health/ready", self.ready),
            Route("/v1/mesh/ingest", self.ingest, methods=["POST"]),
            Route("/v1/jobs", self.list_jobs),
            Route("/v1/jobs/events", self.all_events),
            Route("/v1/jobs/{job_id}", self.get_job),
            Route("/v1/jobs/{job_id}/events", self.job_events),
            Route("/v1/jobs/{job_id}/cancel", self.cancel_job, methods=["POST"]),
        ]

    # -- health --------------------------------------------------------------------------------------------------

    async def live(self, _: Request) -> Response:
        return answer({"status": "ok"})

    async def ready(self, _: Request) -> Response:
        database, engine = await asyncio.gather(
            _state_of(self._store.count_jobs(JobState.PENDING)),
            _state_of(self._probe()) if self._probe is not None else _ok(),
        )
        is_ready = database == engine == "ok"
        return answer(Readiness("ok" if is_ready else "unavailable", database, engine), 200 if is_ready else 503)

    # -- ingest --------------------------------------------------------------------------------------------------

    async def ingest(self, request: Request) -> Response:
        self._context.limits.count_submission(request)
        submission = await self._open(await http.read_body(request, BODY_BYTES_MAX))
        if not await self._keys.may_submit(submission.scanner_key, mode=self._settings.key_mode):
            logger.warning("envelope rejected: the key is revoked or not registered", extra=_scanner(submission))
            raise _INVALID_SIGNATURE
        self._context.limits.count_scanner(submission.scanner_key)
        request.scope["job_id"] = submission.job_id
        if self._room.is_full:
            logger.error("submission refused: %s", FULL, extra=_scanner(submission))
            raise ApiError(503, "unavailable", "the database is full; its operator has to act", {"Retry-After": "600"})
        wanted = IngestRequest(submission.job_id, submission.scanner_key, submission.signed_at_s)
        job = await self._store.create_job(wanted, submission.scan)
        message = f"known scan; its job is {job.state}"
        if job.state is JobState.PENDING:
            is_started = await self._start(wanted)
            message = "scan accepted" if is_started else "scan accepted; it waits for the engine, which is away"
        return answer(Accepted(job.id, "accepted", message, datetime.now(UTC)), 202)

    async def _open(self, body: bytes) -> Submission:
        if len(body) <= LARGE_BYTES:
            return _open(body)
        async with self._large:  # each takes several times its size
            return await asyncio.to_thread(_open, body)

    async def _start(self, wanted: IngestRequest) -> bool:
        """Start the workflow. Job and scan are on disk: if that fails now, the sweeper does it later."""
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._starter.start(wanted)
        except (restate.HttpError, httpx.TransportError, TimeoutError) as error:
            logger.error(
                "job stays pending: the engine did not take it", extra={"job_id": wanted.job_id, "error": repr(error)}
            )
            return False
        return True

    # -- jobs ----------------------------------------------------------------------------------------------------

    async def get_job(self, request: Request) -> Response:
        self._context.limit(request)
        return answer(await self._job(request))

    async def list_jobs(self, request: Request) -> Response:
        self._context.limit(request)
        query = request.query_params
        limit = http.number(query, "limit", JOBS_PER_PAGE, 1, JOBS_PER_PAGE_MAX)
        offset = http.number(query, "offset", 0, 0, 2**31)
        cursor = query.get("cursor")
        if cursor is not None and "offset" in query:
            raise ApiError(400, "invalid_parameter", "give offset or cursor, not both")
        state = http.choice(query, "state", [each.value for each in JobState])
        which = JobFilter(
            state=JobState(state) if state else None,
            scanner_key=query.get("scanner_key") or None,
            created_after=http.time(query, "created_after"),
            created_before=http.time(query, "created_before"),
        )
        try:
            found = await self._store.jobs(
                which,
                limit=limit,
                offset=offset,
                cursor=cursor,
                order_by=http.choice(query, "order_by", ORDER_COLUMNS) or "created_at",
                descending=http.choice(query, "order_desc", ("true", "false")) != "false",
            )
        except InvalidCursor as error:
            raise ApiError(400, "invalid_parameter", str(error)) from error
        has_more = found.next_cursor is not None
        next_offset = offset + len(found.jobs) if has_more and cursor is None else None
        return answer(JobList(found.jobs, found.total, limit, offset, has_more, next_offset, found.next_cursor))

    async def cancel_job(self, request: Request) -> Response:
        if self._settings.admin_token is not None:
            http.require_admin(request, self._settings)
        self._context.limit(request)
        wanted = await http.read_json(request, CancelRequest)
        job = await self._job(request)
        request.scope["job_id"] = job.id
        if job.state in FINAL_STATES:
            raise ApiError(409, "already_final", f"job {job.id} is {job.state} already")
        await self._store.set_cancel_reason(job.id, wanted.reason.strip()[:256] or "by request")
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                # Starting what runs answers its id; starting what never ran makes the cancellation its first event.
                again = IngestRequest(job.id, job.scanner_key, int(job.created_at.timestamp()))
                await self._context.cancel(job.invocation_id or await start_ingest(self._client, again))
        except (restate.HttpError, httpx.TransportError, TimeoutError) as error:
            logger.error("job not cancelled", extra={"job_id": job.id, "error": repr(error)})
            raise ApiError(
                503, "unavailable", "the engine cannot be reached; try again", {"Retry-After": "5"}
            ) from error
        return answer(Cancelling(job.id, "cancelling", datetime.now(UTC)), 202)

    async def all_events(self, request: Request) -> Response:
        self._admit_listener(request)
        return as_events(self._feed.changes())

    async def job_events(self, request: Request) -> Response:
        self._admit_listener(request)
        job = await self._job(request)
        return as_events(self._feed.changes(job.id))

    def _admit_listener(self, request: Request) -> None:
        self._context.limit(request)
        if self._feed.is_full:
            raise ApiError(503, "unavailable", "too many listeners; look at the job instead", {"Retry-After": "10"})

    async def _job(self, request: Request) -> Job:
        job_id = request.path_params["job_id"]
        job = await self._store.job(job_id) if _is_uuid(job_id) else None
        if job is None:
            raise ApiError(404, "not_found", f"there is no job {job_id}")
        return job


_INVALID_SIGNATURE = ApiError(401, "invalid_signature", "the envelope is not validly signed")


def _open(body: bytes) -> Submission:
    try:
        return open_envelope(body, now_s=time.time())
    except InvalidEnvelope as error:
        raise ApiError(400, error.code, str(error)) from error
    except SignatureRejected as error:
        # The reason helps an honest scanner's owner, who reads the log, and nobody else.
        logger.warning("envelope rejected: %s", error)
        raise _INVALID_SIGNATURE from error


def _scanner(submission: Submission) -> dict[str, Any]:
    return {"scanner_key": submission.scanner_key}


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


async def _state_of(asking: Awaitable[Any]) -> str:
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            await asking
    except TimeoutError:
        return f"no answer within {PROBE_TIMEOUT_S} s"
    except StoreUnavailable:
        return "cannot be reached"
    except (StoreError, restate.HttpError, httpx.HTTPError, OSError) as error:
        logger.warning("not ready: %r", error)
        return "fails"
    return "ok"


async def _ok() -> str:
    return "ok"
