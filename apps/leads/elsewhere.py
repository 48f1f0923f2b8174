"""Work on the other engine, as a service of this one.

A job waits for it like for work here: with a time limit, and cancelled with it. Cancelling this stops the execution there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from restate import Context, Service

from apps.leads.model import DiscoveryResult, EnrichBatchRequest, EnrichBatchResult, JobOrder, run_id

SERVICE = "WorkElsewhere"

Remote = Callable[[Context, str, Any, str], Awaitable[Any]]
"""(context, workflow id, input, execution name) -> output, on the other engine."""


def work_elsewhere(remote: Remote) -> tuple[Service, Any, Any]:
    """The service, and its handlers for discoveries and for batches. They are named like those that do the work."""
    service = Service(SERVICE, description="Gives work to the other engine and waits for it")

    @service.handler()
    async def discover(ctx: Context, order: JobOrder) -> DiscoveryResult:
        output = await remote(ctx, "discovery", msgspec.to_builtins(order), order.run_id)
        return msgspec.convert(output, DiscoveryResult)

    @service.handler("enrichBatch")
    async def enrich_batch(ctx: Context, request: EnrichBatchRequest) -> EnrichBatchResult:
        name = run_id(request.job_id, request.run)
        output = await remote(ctx, "enrichment", msgspec.to_builtins(request), name)
        return msgspec.convert(output, EnrichBatchResult)

    return service, discover, enrich_batch
