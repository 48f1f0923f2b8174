"""The ingest workflow: one durable run per job id, one journaled step per piece of work.

    mark-processing -> parse -> persist-1 ... persist-n -> mark-completed -> what the parts do after an ingest
                         any of them refused for good, or the run cancelled -> mark-failed

Its input is the job id; the scan waits in the application's database. Each step is one transaction there and returns
counts; neither scans nor hosts and ports enter the engine. The engine never runs a step again once its result is
recorded. A step that was running when the process died runs again, so each one is harmless to repeat (see `store.py`).
"""

from __future__ import annotations

import asyncio
import logging

import msgspec
from restate import Context, ObjectContext, RestateClient, TerminalError, Workflow, WorkflowContext
from restate.context import RunOptions, SendHandle

from apps.recon import parts
from apps.recon.batches import Batch, cut
from apps.recon.inputs import required
from apps.recon.model import IngestRequest, IngestResult, JobState, ParsedCounts, PersistedCounts, Scan
from apps.recon.parsers import ScanRejected, parse_scan
from apps.recon.room import FULL, Room
from apps.recon.settings import Settings
from apps.recon.store import InvalidTransition, Step, Store, UnknownJob

logger = logging.getLogger("recon.ingest")

SERVICE = "IngestWorkflow"

# Parsing holds the event loop for about 80 ns a byte. A thread costs 80 us: worth it from here on.
_INLINE_PARSE_CHARS_MAX = 64 * 1024

LARGE_PARSES_MAX = 2
"""Scans of that size parsed at a time: the memory of a parse is about eight times the scan's."""

_PARSED = RunOptions(type_hint=ParsedCounts)
_PERSISTED = RunOptions(type_hint=PersistedCounts)
_NOTHING = RunOptions[None](type_hint=type(None))
_JSON = {"Content-Type": "application/json"}


def ingest_workflow(store: Store, settings: Settings) -> Workflow:
    """The workflow as a service for `restate.app([...])`, working on `store`."""
    workflow = Workflow(SERVICE, description="Parses one signed scan and merges it into the graph of hosts and ports.")
    large_parses = asyncio.Semaphore(LARGE_PARSES_MAX)
    room = Room(settings)

    @workflow.main()
    async def run(ctx: WorkflowContext, request: IngestRequest) -> IngestResult:
        request = required(request)
        if ctx.key() != request.job_id:  # outside the try: a misaddressed request must not fail somebody else's job
            raise TerminalError(f"the workflow key is {ctx.key()}, but the request is for job {request.job_id}", 400)
        steps = _Steps(store, request, large_parses, room)
        logger.info("scan_started", extra={"job_id": request.job_id, "invocation_id": ctx.request().id})
        try:
            done = await _ingest(ctx, steps)
        except TerminalError as error:
            await ctx.run_typed("mark-failed", steps.mark_failed, _NOTHING, error.message)
            logger.warning(
                "scan_failed",
                extra={"job_id": request.job_id, "invocation_id": ctx.request().id, "error": error.message},
            )
            raise
        logger.info(
            "scan_completed",
            extra={
                "job_id": request.job_id,
                "invocation_id": ctx.request().id,
                "host_count": done.host_count,
                "port_count": done.port_count,
                "skipped_count": done.skipped_count,
            },
        )
        for after_ingest in parts.offers("after_ingest"):
            after_ingest(ctx, done, settings)
        return done

    assert run is not None  # the decorator registers it; nothing here calls it
    return workflow


async def start_ingest(client: RestateClient, request: IngestRequest) -> str:
    """Start the workflow of a job, or find it started. Returns its invocation id once the engine has it on disk.

    Raises:
        restate.HttpError: the engine refused.
        httpx.TransportError: the engine could not be reached.
    """
    handle = await client.generic_send(SERVICE, "run", msgspec.json.encode(request), key=request.job_id, headers=_JSON)
    return handle.invocation_id


def send_ingest(ctx: Context | ObjectContext, request: IngestRequest) -> SendHandle:
    """The same from a handler."""
    return ctx.generic_send(SERVICE, "run", msgspec.json.encode(request), key=request.job_id, headers=_JSON)


async def _ingest(ctx: WorkflowContext, steps: _Steps) -> IngestResult:
    await ctx.run_typed("mark-processing", steps.mark_processing, _NOTHING, ctx.request().id)
    parsed = await ctx.run_typed("parse", steps.parse, _PARSED)
    host_count = port_count = 0
    for number in range(1, parsed.batch_count + 1):
        persisted = await ctx.run_typed(f"persist-{number}", steps.persist, _PERSISTED, number)
        host_count += persisted.host_count
        port_count += persisted.port_count
    await ctx.run_typed("mark-completed", steps.mark_completed, _NOTHING, host_count, port_count)
    return IngestResult(
        job_id=steps.job_id,
        state=JobState.COMPLETED,
        format=parsed.format,
        host_count=host_count,
        port_count=port_count,
        edge_count=port_count,  # ports belong to one host: each has exactly one edge
        skipped_count=parsed.skipped_count,
        scanner_key=steps.scanner_key,
    )


class _Steps:
    """The actions of one run. Whatever can never succeed is a TerminalError; anything else is retried by the engine."""

    def __init__(self, store: Store, request: IngestRequest, large_parses: asyncio.Semaphore, room: Room) -> None:
        self._store = store
        self._request = request
        self._large_parses = large_parses
        self._room = room
        self.job_id = request.job_id
        self.scanner_key = request.scanner_key

    async def mark_processing(self, invocation_id: str) -> None:
        await self._set_state("mark-processing", JobState.PROCESSING, invocation_id=invocation_id)

    async def parse(self) -> ParsedCounts:
        step = Step.begin(self.job_id, "parse")
        text = await self._store.scan(self.job_id)
        if text is None:
            raise TerminalError(f"job {self.job_id} has no scan", 404)
        try:
            if len(text) <= _INLINE_PARSE_CHARS_MAX:
                scan, batches = _parse(text)
            else:
                async with self._large_parses:
                    scan, batches = await asyncio.to_thread(_parse, text)
        except ScanRejected as error:
            raise TerminalError(str(error), 422) from error
        try:
            await self._store.stage(step, batches)
        except InvalidTransition as error:
            raise TerminalError(str(error), 409) from error
        return ParsedCounts(scan.format, len(scan.hosts), scan.port_count, scan.skipped_count, len(batches))

    async def persist(self, number: int) -> PersistedCounts:
        if self._room.is_full:
            raise TerminalError(FULL, 507)
        step = Step.begin(self.job_id, f"persist-{number}")
        try:
            return await self._store.persist(step, number - 1, self._request.observed_at_s)
        except InvalidTransition as error:
            raise TerminalError(str(error), 409) from error

    async def mark_completed(self, host_count: int, port_count: int) -> None:
        await self._set_state("mark-completed", JobState.COMPLETED, host_count=host_count, port_count=port_count)

    async def mark_failed(self, message: str) -> None:
        await self._set_state("mark-failed", JobState.FAILED, error_message=message)

    async def _set_state(
        self,
        step_name: str,
        state: JobState,
        *,
        host_count: int | None = None,
        port_count: int | None = None,
        error_message: str | None = None,
        invocation_id: str | None = None,
    ) -> None:
        step = Step.begin(self.job_id, step_name)
        try:
            await self._store.set_state(
                step,
                state,
                host_count=host_count,
                port_count=port_count,
                error_message=error_message,
                invocation_id=invocation_id,
            )
        except InvalidTransition as error:
            raise TerminalError(str(error), 409) from error
        except UnknownJob as error:
            raise TerminalError(str(error), 404) from error


def _parse(text: str) -> tuple[Scan, list[Batch]]:
    scan = parse_scan(text)
    return scan, list(cut(scan))
