"""Cancelling invocations, starting what was recorded but never started, and closing what an operator killed.

All of it runs on the engine itself: it needs no admin API, and is the same on the embedded engine and on a Restate
server.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import httpx
import msgspec
import restate
from restate import Context, ObjectContext, RunOptions, Service, TerminalError

from apps.recon import parts
from apps.recon.inputs import required
from apps.recon.model import IngestRequest, IngestResult
from apps.recon.settings import Settings
from apps.recon.store import Step, Store
from apps.recon.workflow import send_ingest
from holdfast.patterns import Ticker

logger = logging.getLogger("recon.sweeper")

CONTROL = "ReconControl"
SWEEPER = "ReconSweeper"
WATCHER = "ReconWatcher"
SWEEPER_KEY = "jobs"

SWEPT_PER_TICK = 100
"""Each is an entry in the tick's journal; the rest is for the next one."""


KILLED = "its workflow was ended from outside"
"""Begins the error message of a job that was not allowed to finish."""


class StartTogether(msgspec.Struct):
    """Jobs that came at the same time."""

    jobs: list[IngestRequest]


class Watched(msgspec.Struct):
    """A job, and the invocation that works on it."""

    job_id: str
    invocation_id: str


class Overdue(msgspec.Struct):
    """Result of the sweeper's step."""

    jobs: list[IngestRequest]
    """Not started."""
    processing: list[Watched] = []


control_service = Service(
    CONTROL, description="Starts many jobs at once, and cancels invocations for clients that have no admin access."
)


@control_service.handler(name="cancel")
async def cancel_handler(ctx: Context, invocation_id: str) -> None:
    """Ask the engine to cancel. It is asked, not forced: the invocation may clean up."""
    if not str(invocation_id).startswith("inv_"):
        raise TerminalError(f"{invocation_id} is no invocation id", status_code=400)
    ctx.cancel_invocation(invocation_id)


@control_service.handler(name="start")
async def start_handler(ctx: Context, wanted: StartTogether) -> None:
    """Start the workflows of many jobs."""
    for request in required(wanted).jobs:
        send_ingest(ctx, request)


async def start_together(client: restate.RestateClient, jobs: list[IngestRequest]) -> None:
    """Start jobs, or find them started. When it returns, the engine has them on disk.

    Raises:
        restate.HttpError: the engine refused.
        httpx.TransportError: the engine could not be reached.
    """
    body = msgspec.json.encode(StartTogether(jobs))
    await client.generic_send(CONTROL, "start", body, headers={"Content-Type": "application/json"})


async def cancel(client: restate.RestateClient, invocation_id: str) -> None:
    """Cancel an invocation; unknown and finished ones are left alone.

    Raises:
        restate.HttpError: the engine refused.
        httpx.TransportError: the engine could not be reached.
    """
    await client.service_call(cancel_handler, arg=invocation_id)


def watcher(store: Store) -> Service:
    """A service that waits for the end of a job's workflow, and closes the job if the workflow did not.

    A workflow that fails or is cancelled marks its job itself. One that is killed has no time to. Attaching says so on
    every engine, and the database lets only one of those who would end a job do so.
    """
    service = Service(WATCHER, description="Closes jobs whose workflow was killed.")

    @service.handler(name="watch")
    async def watch(ctx: Context, watched: Watched) -> None:
        watched = required(watched)
        try:
            await ctx.attach_invocation(watched.invocation_id, type_hint=IngestResult)
            return
        except TerminalError as error:
            if error.message == "cancelled":  # the workflow, which has marked its job then, or this watcher
                raise
            reason = f"{KILLED}: {error.message}"

        async def close() -> bool:
            return await store.close_job(Step.begin(watched.job_id, "mark-killed"), reason)

        if await ctx.run_typed("close", close, RunOptions(type_hint=bool)):
            fields = {"job_id": watched.job_id, "invocation_id": watched.invocation_id, "error": reason}
            logger.warning("scan_failed", extra=fields)

    return service


def _send_watch(ctx: ObjectContext, watched: Watched) -> None:
    """Once for each job: to send it again changes nothing."""
    body = msgspec.json.encode(watched)
    headers = {"Content-Type": "application/json"}
    ctx.generic_send(WATCHER, "watch", body, idempotency_key=watched.job_id, headers=headers)


def sweeper(store: Store, settings: Settings) -> Ticker:
    """A ticker for jobs that have been in one state for longer than the interval, and for what parts keep likewise.

    A `pending` one is started. Its workflow's key is the job id, so starting one that was started meanwhile changes
    nothing. From then on each is watched, because its workflow may have been killed.
    """

    async def sweep(ctx: ObjectContext) -> None:
        async def find() -> Overdue:
            before = datetime.now(UTC) - settings.sweep_interval
            unstarted = await store.unstarted(before=before, limit=SWEPT_PER_TICK)
            processing = await store.processing(before=before, limit=SWEPT_PER_TICK)
            return Overdue(unstarted, [Watched(*each) for each in processing])

        overdue = await ctx.run_typed("find", find, RunOptions(type_hint=Overdue))
        for request in overdue.jobs:
            started = send_ingest(ctx, request)
            logger.info("job started by the sweeper", extra={"job_id": request.job_id})
            _send_watch(ctx, Watched(request.job_id, await started.invocation_id()))
        for watched in overdue.processing:
            _send_watch(ctx, watched)
        for sweep_part in parts.offers("sweep"):
            await sweep_part(ctx, store, settings)

    return Ticker(SWEEPER, sweep, every=settings.sweep_interval)


async def start_sweeper(client: restate.RestateClient) -> None:
    """Start it, or find it running. Safe to repeat at each start.

    It is only sent: a tick that was cut off, and is to be tried again later, must not hold up a start after a crash.

    Raises:
        restate.HttpError: the engine refused.
        httpx.TransportError: the engine could not be reached.
    """
    await client.generic_send(SWEEPER, "start", b"", key=SWEEPER_KEY)


async def send_sweeper(client: restate.RestateClient) -> None:
    """The same where the workers may be away. Where none is registered yet, each starts it by itself."""
    try:
        await start_sweeper(client)
    except (restate.HttpError, httpx.TransportError) as error:
        logger.info("the sweeper is left to the workers: %s", error)
