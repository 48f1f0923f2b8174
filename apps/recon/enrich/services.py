"""The durable services of enrichment.

    Enrichment (workflow, one run)       begin -> batch -> record -> batch -> record ... -> finish
      EnrichmentBatch (service)            list -> the three below, at the same time
        AsnEnrichment (service)              look -> whois-1 ... whois-n -> apply
        GeoEnrichment (service)              look -> apply
        VulnEnrichment (service)             identify -> ask -> relate
          NvdAnswers (cache, by CPE name)      page-0 ... page-n, each in its turn (NvdRate)

Every step may run again: what it writes has ids made from the data. Results go to the database; the journal has
addresses, names and counts.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import msgspec
from restate import Context, Service, TerminalError, VirtualObject, Workflow, WorkflowContext
from restate.context import RunOptions

from apps.recon.enrich import findings, runs
from apps.recon.enrich.addresses import lookup_service
from apps.recon.enrich.model import (
    BATCH_MAX,
    BatchRequest,
    BatchResult,
    EnrichRequest,
    Failure,
    LookupRequest,
    Progress,
    Totals,
    VulnTotals,
)
from apps.recon.enrich.sources import Sources
from apps.recon.enrich.vulnerabilities import Nvd, vuln_service
from apps.recon.inputs import required
from apps.recon.settings import Settings
from apps.recon.store import Store
from holdfast.patterns import RateLimiter, fan_out

logger = logging.getLogger("recon.enrich")

WORKFLOW = "Enrichment"
WHOIS_PER_MINUTE = 100

Handler = Any
"""A handler of a service, as the SDK takes it for a call."""

_NOTHING = RunOptions[None](type_hint=type(None))


class Listed(msgspec.Struct):
    """The hosts of one batch."""

    addresses: list[str]
    host_count: int
    unknown: list[Failure]
    last: str | None


def enrichment_services(store: Store, settings: Settings) -> list[Service | VirtualObject | Workflow]:
    """All of them, on `store`.

    Raises:
        InvalidSetting: a configured file cannot be used.
    """
    sources = Sources(settings)
    sources.check()
    whois_rate = RateLimiter("WhoisRate", limit=WHOIS_PER_MINUTE, per=timedelta(minutes=1), burst=10)
    nvd = Nvd(store, settings, sources)
    asn, find_asn = lookup_service("asn", store, sources, whois_rate)
    geo, find_geo = lookup_service("geo", store, sources, whois_rate)
    vuln, find_vuln = vuln_service(store, sources, nvd)
    batch, enrich_batch = _batch_service(store, {"asn": find_asn, "geo": find_geo, "vuln": find_vuln})
    workflow = _workflow(store, sources, enrich_batch)
    return [workflow, batch, asn, geo, vuln, nvd.answers.service, nvd.rate.service, whois_rate.service]


def _workflow(store: Store, sources: Sources, enrich_batch: Handler) -> Workflow:
    workflow = Workflow(WORKFLOW, description="Finds out who announces hosts, where they are, what affects them.")

    async def all_batches(ctx: WorkflowContext, request: EnrichRequest) -> Progress:
        begun = RunOptions(type_hint=int)
        begun_at_ms = await ctx.run_typed("begin", runs.begin, begun, store, ctx.key(), request, ctx.request().id)
        if "vuln" in request.kinds:
            flagged = RunOptions(type_hint=bool)
            await ctx.run_typed("flag-exploited", findings.flag_exploited, flagged, store, sources.known_exploited)
        done, after = Progress(), None
        while True:
            batch: BatchResult = await ctx.service_call(enrich_batch, arg=BatchRequest(request, after, begun_at_ms))
            done, after = done.plus(batch.done), batch.last
            await ctx.run_typed("record", runs.record, _NOTHING, store, ctx.key(), done)
            if after is None:
                return done

    @workflow.main()
    async def run(ctx: WorkflowContext, request: EnrichRequest) -> Progress:
        request = required(request)
        try:
            done = await all_batches(ctx, request)
        except TerminalError as error:
            state = "cancelled" if error.status_code == 409 else "failed"
            await ctx.run_typed("finish", runs.finish, _NOTHING, store, ctx.key(), state, error.message)
            raise
        await ctx.run_typed("finish", runs.finish, _NOTHING, store, ctx.key(), "completed")
        shown = {"enrichment_id": ctx.key(), "job_id": request.job_id, "host_count": done.host_count}
        logger.info("enrichment_completed", extra=shown)
        return done

    assert run is not None  # the decorator registers it; nothing here calls it
    return workflow


def _batch_service(store: Store, find: dict[str, Handler]) -> tuple[Service, Handler]:
    service = Service(
        "EnrichmentBatch", description=f"Enriches up to {BATCH_MAX} hosts in every way that is asked for."
    )

    @service.handler()
    async def run(ctx: Context, batch: BatchRequest) -> BatchResult:
        request = required(batch).request
        listed = await ctx.run_typed("list", _list, RunOptions(type_hint=Listed), store, batch)
        lookup = LookupRequest(listed.addresses, request.job_id, request.force_refresh, batch.started_at_ms)
        outcomes = await fan_out(
            request.kinds if listed.addresses else [],
            lambda kind: ctx.service_call(find[kind], arg=lookup),
            concurrency=len(find),
        )
        totals: dict[str, Totals] = {}
        vulnerabilities = VulnTotals()
        for outcome in outcomes:
            if outcome.value is None:
                totals[outcome.item] = _all_failed(listed.addresses, outcome.error)
            else:
                totals[outcome.item] = outcome.value.totals
                vulnerabilities = outcome.value.vulnerabilities or vulnerabilities
        done = Progress(listed.host_count, 1, totals, vulnerabilities, listed.unknown)
        return BatchResult(done, listed.last)

    return service, run


async def _list(store: Store, batch: BatchRequest) -> Listed:
    listed = await runs.list_hosts(store, batch.request, after=batch.after, limit=BATCH_MAX)
    unknown = [Failure(address, "no such host") for address in listed.unknown]
    return Listed(listed.addresses, listed.host_count, unknown, listed.last)


def _all_failed(addresses: list[str], reason: str) -> Totals:
    return Totals(
        asked=len(addresses), failed=len(addresses), failures=[Failure(address, reason) for address in addresses]
    )
