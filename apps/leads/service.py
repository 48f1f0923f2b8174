"""What the API does, and for whom: each operation checks who asks, then asks `Jobs`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable
from typing import Any

from apps.leads.access import Caller
from apps.leads.booking import Receipt
from apps.leads.errors import LeadsError
from apps.leads.limits import Limits
from apps.leads.messages import (
    LEAD_ID_SEPARATOR,
    DiscoveryBody,
    EnrichmentBody,
    Health,
    JobsPage,
    LedgerPage,
    LogsPage,
    StartBody,
    StepsPage,
    shown,
)
from apps.leads.model import CostView, DiscoveryRequest, EnrichmentRequest, JobKind, JobStatus, JobView, Lead
from apps.leads.running import Leads
from apps.leads.wallet import WalletView
from holdfast.patterns import idempotency_key

LEADS_MAX = 10_000
JOBS_WITH_LEADS = 20
"""Whose leads are listed together when no job is named: the newest ones."""
LOOK_S = 0.2
"""Between two looks at a job that is followed."""


class Service:
    """Operations of the API. All raise `LeadsError`."""

    def __init__(self, leads: Leads) -> None:
        self._leads = leads
        self._jobs = leads.jobs
        self._limits = Limits(leads.store, leads.jobs, leads.settings.tiers)

    # ---- jobs ------------------------------------------------------------------------------------------------------------

    async def start_discovery(self, caller: Caller, body: DiscoveryBody) -> JobView:
        request = DiscoveryRequest(
            **self._common(caller, body),
            niche=body.niche,
            location=body.location,
            limit=body.limit,
            directory=body.directory,
            scan=body.scan,
        )
        return await self.start_requested_discovery(caller, request)

    async def start_requested_discovery(self, caller: Caller, request: DiscoveryRequest) -> JobView:
        """For those who know what a request may hold."""
        async with self._turn(caller, JobKind.DISCOVERY, request):
            return shown(await self._jobs.start_discovery(request))

    async def start_enrichment(self, caller: Caller, body: EnrichmentBody) -> JobView:
        request = EnrichmentRequest(
            **self._common(caller, body),
            businesses=body.businesses,
            discovery_job_id=body.discovery_job_id,
            place_ids=body.place_ids,
            limit=body.limit,
        )
        async with self._turn(caller, JobKind.ENRICHMENT, request):
            return shown(await self._jobs.start_enrichment(request))

    def _common(self, caller: Caller, body: StartBody) -> dict[str, Any]:
        if unknown := [name for name in body.notify if name not in self._leads.settings.webhooks]:
            known = ", ".join(self._leads.settings.webhooks) or "none"
            raise LeadsError(422, f"notify: {unknown[0]!r} is not a configured webhook; there is {known}")
        if body.is_free and not caller.is_master:
            raise LeadsError(403, "is_free: only with the master key")
        return {
            "user_id": caller.user(body.user_id),
            "client_key": body.client_key,
            "notify": body.notify,
            "is_free": caller.is_master if body.is_free is None else body.is_free,
        }

    @contextlib.asynccontextmanager
    async def _turn(
        self, caller: Caller, kind: JobKind, request: DiscoveryRequest | EnrichmentRequest
    ) -> AsyncGenerator[None]:
        """Keep a user's limits. A repetition of a start is none."""
        is_limited = caller.user_id is not None
        if is_limited and request.client_key:
            key = idempotency_key(kind, request.tenant_id, request.user_id, request.client_key)
            with contextlib.suppress(LeadsError):
                await self._jobs.get(key)
                is_limited = False
        async with self._limits.may_start(request.user_id) if is_limited else contextlib.nullcontext():
            yield

    async def _own(self, caller: Caller, job_id: str) -> JobView:
        """The job, if this caller may see it: others learn nothing of it."""
        job = await self._jobs.get(job_id)
        if not caller.may_see(job.user_id):
            raise LeadsError(404, f"there is no job {job_id}")
        return job

    async def jobs(
        self,
        caller: Caller,
        *,
        user_id: str | None = None,
        statuses: list[JobStatus] | None = None,
        workflow_id: str | None = None,
        limit: int = 100,
        before_ms: int | None = None,
    ) -> JobsPage:
        found = await self._jobs.find(
            user_id=user_id if caller.user_id is None else caller.user(user_id),
            statuses=statuses,
            workflow_id=workflow_id,
            limit=limit,
            before_ms=before_ms,
        )
        older = found[-1].created_at_ms if found and len(found) == limit else None
        return JobsPage(jobs=[shown(job) for job in found], next_before_ms=older)

    async def job(self, caller: Caller, job_id: str) -> JobView:
        return shown(await self._own(caller, job_id))

    async def steps(self, caller: Caller, job_id: str) -> StepsPage:
        await self._own(caller, job_id)
        return StepsPage(steps=await self._jobs.steps(job_id))

    async def logs(self, caller: Caller, job_id: str, *, after: int = 0) -> LogsPage:
        await self._own(caller, job_id)
        return LogsPage(logs=await self._jobs.logs(job_id, after=after))

    async def cost(self, caller: Caller, job_id: str) -> CostView:
        await self._own(caller, job_id)
        return await self._jobs.cost(job_id)

    async def cancel(self, caller: Caller, job_id: str) -> JobView:
        await self._own(caller, job_id)
        return shown(await self._jobs.cancel(job_id))

    async def resume(self, caller: Caller, job_id: str) -> JobView:
        job = await self._own(caller, job_id)
        # Another run is another start; a paused one that goes on is none.
        is_limited = caller.user_id is not None and job.status.is_final and job.status is not JobStatus.COMPLETED
        async with self._limits.may_start(job.user_id) if is_limited else contextlib.nullcontext():
            return shown(await self._jobs.resume(job_id))

    async def follow(self, caller: Caller, job_id: str, *, after: int = 0) -> AsyncGenerator[tuple[str, int, Any]]:
        """(kind, number of log lines so far, news): `job` when it changes, `log` per line; ends after the last of a final job.

        Args:
            after: Log lines that are known already.
        """
        last: JobView | None = None
        while True:
            job = await self.job(caller, job_id)
            for line in await self._jobs.logs(job_id, after=after):
                after += 1
                yield "log", after, line
            if last is None or _moved(last, job):
                last = job
                yield "job", after, job
            if job.status.is_final:
                return
            await asyncio.sleep(LOOK_S)  # between two looks

    # ---- leads -----------------------------------------------------------------------------------------------------------

    async def leads(self, caller: Caller, job_id: str | None, *, limit: int = 1000, offset: int = 0) -> list[Lead]:
        """Leads of one job; or of the newest ones together, each business once. Best score first."""
        if job_id is not None:
            await self._own(caller, job_id)
            return await self._jobs.leads(job_id, limit=limit, offset=offset)
        jobs = await self._jobs.find(user_id=caller.user_id, limit=JOBS_WITH_LEADS)
        found = one_per_business([(job, lead) for job in jobs for lead in await self._jobs.leads(job.job_id)])
        found.sort(key=lambda lead: -1.0 if lead.score is None else lead.score, reverse=True)
        return found[offset : offset + limit]

    async def lead(self, caller: Caller, lead_id: str) -> Lead:
        job_id, _, place_id = lead_id.partition(LEAD_ID_SEPARATOR)
        await self._own(caller, job_id)
        return await self._jobs.lead(job_id, place_id)

    # ---- wallets ---------------------------------------------------------------------------------------------------------

    async def wallet(self, caller: Caller, user_id: str) -> WalletView:
        return await self._jobs.wallets.get(_wallet_of(caller, user_id))

    async def ledger(self, caller: Caller, user_id: str, count: int) -> LedgerPage:
        return LedgerPage(ledger=await self._jobs.wallets.ledger(_wallet_of(caller, user_id), count))

    async def top_up(self, caller: Caller, user_id: str, amount_cents: int, key: str | None, reference: str) -> Receipt:
        _only_shop(caller, "put money in")
        wallets = self._jobs.wallets
        user_id = _wallet_of(caller, user_id)
        return await wallets.top_up(user_id, amount_cents, key=_required(key), reference=reference)

    async def set_tier(self, caller: Caller, user_id: str, tier: str, key: str | None) -> Receipt:
        _only_shop(caller, "set a tier")
        return await self._jobs.wallets.set_tier(_wallet_of(caller, user_id), tier, key=_required(key))

    # ---- the rest --------------------------------------------------------------------------------------------------------

    async def health(self) -> Health:
        """Reads the database; raises what it raises."""
        await self._leads.store.jobs(limit=1)
        settings = self._leads.settings
        return Health(
            status="ok", discovery_engine=settings.discovery_engine, enrichment_engine=settings.enrichment_engine
        )


def one_per_business(leads: Iterable[tuple[JobView, Lead]]) -> list[Lead]:
    """Each user's businesses once: what an enrichment has found, else what a discovery has; the newest of them.

    Args:
        leads: With their jobs, newest job first.
    """
    best: dict[tuple[str, str], tuple[int, Lead]] = {}
    for job, lead in leads:
        # Without a score it is a copy that its enrichment has not reached, or has failed at.
        worth = 0 if lead.score is None else 2 if job.workflow_id == JobKind.ENRICHMENT else 1
        known = best.get((job.user_id, lead.business.place_id))
        if known is None or worth > known[0]:
            best[job.user_id, lead.business.place_id] = (worth, lead)
    return [lead for _, lead in best.values()]


def _moved(before: JobView, now: JobView) -> bool:
    return (before.status, before.current_step, before.run) != (now.status, now.current_step, now.run)


def _wallet_of(caller: Caller, user_id: str) -> str:
    """`me` is whoever the key belongs to."""
    return caller.user(None if user_id == "me" else user_id)


def _only_shop(caller: Caller, what: str) -> None:
    if caller.user_id is not None:
        raise LeadsError(403, f"only the master key may {what}; it belongs to the shop, after the payment")


def _required(key: str | None) -> str:
    if not key:
        raise LeadsError(422, "key: is required, e.g. the payment's id; the same key again is booked once")
    return key
