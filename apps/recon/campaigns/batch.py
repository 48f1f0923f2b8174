"""One batch of a campaign: its targets in parallel, an invocation each, results in their rows.

The batch has its own journal, so the campaign's stays short however many targets there are.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import msgspec
from restate import Context, RunOptions, Service, wait_completed

from apps.recon.campaigns.model import (
    ENRICHMENT_WAIT_S,
    BatchCounts,
    BatchRequest,
    BatchTargets,
    CampaignScanRequest,
    TargetRow,
)
from apps.recon.campaigns.scanning import Scans
from apps.recon.campaigns.store import CampaignStore
from apps.recon.campaigns.xml import scan_text
from apps.recon.enrich.model import EnrichRequest
from apps.recon.enrich.services import WORKFLOW as ENRICHMENT
from apps.recon.model import IngestRequest
from apps.recon.workflow import SERVICE as INGEST
from holdfast.patterns import fan_out

SERVICE = "CampaignBatch"

_JOB_NAMESPACE = uuid.UUID("0d3c1f0e-6a3f-5a37-9a3e-5d2a1b7c9e42")

_JSON = {"Content-Type": "application/json"}
_TARGETS = RunOptions(type_hint=BatchTargets)


class BatchEnd(msgspec.Struct):
    counts: BatchCounts
    job: IngestRequest | None
    """What was found, as a job of the ingest; None when nothing was."""


_END = RunOptions(type_hint=BatchEnd)


class Batches:
    """The service; `run(BatchRequest)` answers `BatchCounts`."""

    def __init__(self, store: CampaignStore, scans: Scans, *, concurrency: int) -> None:
        service = self.service = Service(SERVICE, description="Scans one batch of a campaign.")

        async def fail(campaign_id: str, failed: list[list[str]]) -> None:
            for target, reason in failed:
                await store.save_failure(campaign_id, target, reason)

        async def end(request: BatchRequest) -> BatchEnd:
            rows = await store.batch_rows(request.campaign_id, request.number)
            await store.count(request.campaign_id)
            failed = sum(row.state == "failed" for row in rows)
            scanned = sum(row.state == "scanned" for row in rows)
            return BatchEnd(BatchCounts(scanned + failed, failed), await submit(request, rows))

        async def submit(request: BatchRequest, rows: list[TargetRow]) -> IngestRequest | None:
            """Findings enter the graph of hosts by the same way as every other scan."""
            text = scan_text(rows)
            if text is None:
                return None
            scanned_at = max((row.scanned_at for row in rows if row.scanned_at), default=datetime.now(UTC))
            job = IngestRequest(
                job_of(request.campaign_id, request.number), request.options.contributor, int(scanned_at.timestamp())
            )
            await store.base.create_job(job, text)
            return job

        @service.handler(ingress_private=True)
        async def run(ctx: Context, request: BatchRequest) -> BatchCounts:
            campaign_id = request.campaign_id
            batch = await ctx.run_typed("begin", store.begin_batch, _TARGETS, campaign_id, request.number)
            outcomes = await fan_out(
                batch.targets,
                lambda each: ctx.service_call(
                    scans.scan_for_campaign,
                    arg=CampaignScanRequest(campaign_id, each.target, each.address, request.options),
                ),
                concurrency=concurrency,
            )
            failed = [[outcome.item.target, outcome.error] for outcome in outcomes if outcome.status == "failed"]
            if failed:  # somebody killed or cancelled single scans
                await ctx.run_typed("keep failures", fail, RunOptions(), campaign_id, failed)
            done = await ctx.run_typed("end", end, _END, request)
            if done.job is not None:
                await _settled(ctx, INGEST, done.job.job_id, done.job)
                if request.waits_for_enrichment:
                    found = EnrichRequest(job_id=done.job.job_id)
                    done.counts.is_late = not await _settled(
                        ctx, ENRICHMENT, f"job-{done.job.job_id}", found, within=timedelta(seconds=ENRICHMENT_WAIT_S)
                    )
            return done.counts

        self.run = run


async def _settled(
    ctx: Context, workflow: str, key: str, request: msgspec.Struct, *, within: timedelta | None = None
) -> bool:
    """Start a workflow, or find it started, and wait for its end, however it ends; False if that takes too long.

    A failure is its own: it is on record there, and the results of the campaign are there all the same.
    """
    run = ctx.generic_call(workflow, "run", msgspec.json.encode(request), key=key, headers=_JSON)
    if within is None:
        await wait_completed(run)
        return True
    completed, _ = await wait_completed(run, ctx.sleep(within))
    return run in completed


def job_of(campaign_id: str, number: int) -> str:
    """The id of the job with the findings of a batch."""
    return str(uuid.uuid5(_JOB_NAMESPACE, f"{campaign_id}/{number}"))
