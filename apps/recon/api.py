"""The HTTP API of recon: signed scans in, jobs out.

    POST /v1/mesh/ingest   202 accepted | 400 invalid_json, invalid_request | 401 invalid_signature | 500 internal_error
    GET  /v1/jobs          200 | 400 invalid_parameter
    GET  /v1/jobs/{id}     200 | 404 not_found
    GET  /health           200

A submission is answered once its job row is on disk and the engine has the workflow on disk, in this order. If the
process dies in between, nobody was answered: the scanner sends the same envelope again and gets the same job.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import msgspec
import restate
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from apps.recon.envelope import BODY_BYTES_MAX, InvalidEnvelope, SignatureRejected, Submission, open_envelope
from apps.recon.model import IngestRequest, Job, JobState
from apps.recon.store import ORDER_COLUMNS, Store, StoreError
from apps.recon.workflow import start_ingest

logger = logging.getLogger("recon.api")

JOBS_PER_PAGE = 50
JOBS_PER_PAGE_MAX = 500


class ApiError(Exception):
    """Answered as JSON: `error` (the code), `message`, `timestamp`."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Accepted(msgspec.Struct):
    job_id: str
    status: str
    message: str
    timestamp: datetime


class ErrorBody(msgspec.Struct):
    error: str
    message: str
    timestamp: datetime


class JobList(msgspec.Struct):
    jobs: list[Job]
    total: int
    limit: int
    offset: int
    has_more: bool
    next_offset: int | None


def create_api(store: Store, client: restate.RestateClient) -> Starlette:
    """The API as an ASGI application.

    Args:
        store: Where jobs are kept; the workflow must work on the same one.
        client: Starts workflows: `engine.client` of a holdfast engine in this process, or `restate.create_client(url)`
            for a server elsewhere.
    """
    routes = _Routes(store, client)
    return Starlette(
        routes=[
            Route("/health", routes.health),
            Route("/v1/mesh/ingest", routes.ingest, methods=["POST"]),
            Route("/v1/jobs", routes.list_jobs),
            Route("/v1/jobs/{job_id}", routes.get_job),
        ],
        exception_handlers={ApiError: _answer_error, Exception: _answer_unexpected},
    )


class _Routes:
    def __init__(self, store: Store, client: restate.RestateClient) -> None:
        self._store = store
        self._client = client

    async def health(self, _: Request) -> Response:
        await self._store.count_jobs(JobState.PENDING)
        return _json({"status": "ok"})

    async def ingest(self, request: Request) -> Response:
        body = await _read_body(request)
        submission = _open(body)
        job = await self._store.create_job(submission.job_id, submission.scanner_key)
        if job.state is JobState.PENDING:
            await self._start(submission)
        message = "scan accepted" if job.state is JobState.PENDING else f"known scan; its job is {job.state}"
        return _json(Accepted(job.id, "accepted", message, datetime.now(UTC)), 202)

    async def _start(self, submission: Submission) -> None:
        request = IngestRequest(submission.job_id, submission.scan, submission.scanner_key, submission.signed_at_s)
        try:
            invocation_id = await start_ingest(self._client, request)
        except (restate.HttpError, httpx.TransportError) as error:
            logger.error("job %s stays pending: the engine did not take it: %r", submission.job_id, error)
            raise ApiError(
                500, "internal_error", "the scan is recorded but could not be started; send the same envelope again"
            ) from error
        logger.debug("job %s is %s", submission.job_id, invocation_id)

    async def get_job(self, request: Request) -> Response:
        job_id = request.path_params["job_id"]
        job = await self._store.job(job_id) if _is_uuid(job_id) else None
        if job is None:
            raise ApiError(404, "not_found", f"there is no job {job_id}")
        return _json(job)

    async def list_jobs(self, request: Request) -> Response:
        query = request.query_params
        limit = _number(query, "limit", JOBS_PER_PAGE, 1, JOBS_PER_PAGE_MAX)
        offset = _number(query, "offset", 0, 0, 2**31)
        state = _choice(query, "state", [each.value for each in JobState])
        page = await self._store.jobs(
            limit=limit,
            offset=offset,
            state=JobState(state) if state else None,
            scanner_key=query.get("scanner_key") or None,
            order_by=_choice(query, "order_by", ORDER_COLUMNS) or "created_at",
            descending=_choice(query, "order_desc", ("true", "false")) != "false",
        )
        end = offset + len(page.jobs)
        has_more = end < page.total
        return _json(JobList(page.jobs, page.total, limit, offset, has_more, end if has_more else None))


async def _read_body(request: Request) -> bytes:
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > BODY_BYTES_MAX:
                raise ApiError(400, "invalid_request", f"the body is larger than {BODY_BYTES_MAX} bytes")
            chunks.append(chunk)
    except ClientDisconnect as error:
        raise ApiError(400, "invalid_request", "the body ended early") from error
    return b"".join(chunks)


def _open(body: bytes) -> Submission:
    try:
        return open_envelope(body, now_s=time.time())
    except InvalidEnvelope as error:
        raise ApiError(400, error.code, str(error)) from error
    except SignatureRejected as error:
        # The reason helps an honest scanner's owner, who reads the log, and nobody else.
        logger.warning("envelope rejected: %s", error)
        raise ApiError(401, "invalid_signature", "the envelope is not validly signed") from error


def _number(query: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and least <= int(text) <= most):
        raise ApiError(400, "invalid_parameter", f"{name} must be a whole number from {least} to {most}")
    return int(text)


def _choice(query: Mapping[str, str], name: str, choices: tuple[str, ...] | list[str]) -> str | None:
    text = query.get(name)
    if text is not None and text not in choices:
        raise ApiError(400, "invalid_parameter", f"{name} must be one of {', '.join(choices)}")
    return text


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _json(body: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")


async def _answer_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return _json(ErrorBody(error.code, str(error), datetime.now(UTC)), error.status)


async def _answer_unexpected(_: Request, error: Exception) -> Response:
    what = "the database failed" if isinstance(error, StoreError) else "unexpected error"
    return _json(ErrorBody("internal_error", f"{what}; the log has the details", datetime.now(UTC)), 500)
