"""Cancelling invocations, and starting jobs that were recorded but never started: both run on the engine itself.

So neither needs an admin API, and both are the same on the embedded engine and on a Restate server.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import msgspec
import restate
from restate import Context, ObjectContext, RunOptions, Service

from apps.recon.model import IngestRequest
from apps.recon.settings import Settings
from apps.recon.store import Store
from apps.recon.workflow import send_ingest
from holdfast.patterns import Ticker

logger = logging.getLogger("recon.sweeper")

CONTROL = "ReconControl"
SWEEPER = "ReconSweeper"
SWEEPER_KEY = "jobs"

SWEPT_PER_TICK = 100
"""Each is an entry in the tick's journal; the rest is for the next one."""


class Unstarted(msgspec.Struct):
    """Result of the sweeper's step."""

    jobs: list[IngestRequest]


control_service = Service(CONTROL, description="Cancels invocations for clients that have no admin access.")


@control_service.handler(name="cancel")
async def cancel_handler(ctx: Context, invocation_id: str) -> None:
    """Ask the engine to cancel. It is asked, not forced: the invocation may clean up."""
    ctx.cancel_invocation(invocation_id)


async def cancel(client: restate.RestateClient, invocation_id: str) -> None:
    """Cancel an invocation; unknown and finished ones are left alone.

    Raises:
        restate.HttpError: the engine refused.
        httpx.TransportError: the engine could not be reached.
    """
    await client.service_call(cancel_handler, arg=invocation_id)


def sweeper(store: Store, settings: Settings) -> Ticker:
    """A ticker that starts every job that has been `pending` for longer than the interval.

    Its workflow's key is the job id, so starting one that was started meanwhile changes nothing.
    """

    async def sweep(ctx: ObjectContext) -> None:
        async def find() -> Unstarted:
            before = datetime.now(UTC) - settings.sweep_interval
            return Unstarted(await store.unstarted(before=before, limit=SWEPT_PER_TICK))

        found = await ctx.run_typed("find", find, RunOptions(type_hint=Unstarted))
        for request in found.jobs:
            send_ingest(ctx, request)
            logger.info("job started by the sweeper", extra={"job_id": request.job_id})

    return Ticker(SWEEPER, sweep, every=settings.sweep_interval)


async def start_sweeper(client: restate.RestateClient) -> None:
    """Start it, or find it running. Safe to repeat at each start.

    Raises:
        restate.HttpError: the engine refused.
        httpx.TransportError: the engine could not be reached.
    """
    await client.generic_call(SWEEPER, "start", b"", key=SWEEPER_KEY)
