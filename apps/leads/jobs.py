"""Jobs and wallets as an API sees them: start, look, cancel, resume; the same on every engine."""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import Any

import msgspec
from restate import TerminalError

from apps.leads import wallet
from apps.leads.booking import Booking, LedgerEntry, Receipt, price_cents
from apps.leads.discovery import check_discovery
from apps.leads.errors import LeadsError, checked_user_id
from apps.leads.gateway import Gateway
from apps.leads.model import (
    ENRICHMENT_BUSINESSES_MAX,
    TEXT_CHARACTERS_MAX,
    CostView,
    DiscoveryRequest,
    EnrichmentRequest,
    JobError,
    JobKind,
    JobOrder,
    JobStatus,
    JobView,
    Lead,
    LogLine,
    StepView,
    run_id,
)
from apps.leads.settings import Settings
from apps.leads.store import JobConflict, JobNotFound, Store
from apps.leads.wallet import WalletView
from apps.leads.workflows import DISCOVERY, ENRICHMENT
from holdfast.patterns import idempotency_key

logger = logging.getLogger("leads")
WORKFLOWS = {JobKind.DISCOVERY: (DISCOVERY, "discover"), JobKind.ENRICHMENT: (ENRICHMENT, "enrich")}


class Wallets:
    """Wallets of users. Every booking has a key: the same key again is the same booking."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def get(self, user_id: str) -> WalletView:
        """Balance, holds, tier. A user without bookings has an empty wallet."""
        return msgspec.convert(await self._gateway.call(wallet.SERVICE, user_id, "get"), WalletView)

    async def ledger(self, user_id: str, count: int = 100) -> list[LedgerEntry]:
        """The newest lines, at most 1000, oldest of them first."""
        lines = await self._gateway.call(wallet.SERVICE, user_id, "entries", count)
        return msgspec.convert(lines, list[LedgerEntry])

    async def top_up(self, user_id: str, amount_cents: int, *, key: str, reference: str = "") -> Receipt:
        """Put money in. `key`: of the payment, so that a repeated request books it once."""
        booking = Booking(key=f"top-up:{key}", amount_cents=amount_cents, reference=reference)
        return await self._book(user_id, "top_up", booking)

    async def refund(self, user_id: str, of: str, *, reference: str = "") -> Receipt:
        """Give back what the charge or capture `of` took, once."""
        return await self._book(user_id, "refund", Booking(key=f"{of}:refund", of=of, reference=reference))

    async def set_tier(self, user_id: str, tier: str, *, key: str) -> Receipt:
        """`free`, `starter` or `pro`."""
        return await self._book(user_id, "set_tier", Booking(key=f"tier:{key}", tier=tier))

    async def undo_run(self, user_id: str, kind: JobKind, job_id: str, run: int) -> Receipt:
        """Give back what a run has taken or set aside, whether or not it had: for runs whose workflow cannot any more."""
        undo, of = ("refund", "charge") if kind is JobKind.DISCOVERY else ("release", "hold")
        run_key = run_id(job_id, run)
        booking = Booking(key=f"{run_key}:{undo}", of=f"{run_key}:{of}", job_id=job_id, run=run)
        return await self._book(user_id, undo, booking)

    async def _book(self, user_id: str, handler: str, booking: Booking) -> Receipt:
        return msgspec.convert(await self._gateway.call(wallet.SERVICE, user_id, handler, booking), Receipt)


class Jobs:
    """Jobs: start, look, cancel, resume. Reading asks the database; everything else asks the engine.

    Whatever is refused is a `LeadsError`; 503 when the engine does not answer.
    """

    def __init__(self, store: Store, settings: Settings, gateway: Gateway) -> None:
        self._store = store
        self._settings = settings
        self._gateway = gateway
        self.wallets = Wallets(gateway)

    # ---- start -----------------------------------------------------------------------------------------------------------

    async def start_discovery(self, request: DiscoveryRequest) -> JobView:
        """Start a discovery, or find the one that this `client_key` has started.

        Raises:
            LeadsError: 402 not enough money (`required_cents`, `available_cents`), 409 the key belongs to another
                request, 422 a field is wrong, 503 the engine cannot be reached (the job is kept; the same key again, or
                the next start of the application, sends it).
        """
        try:
            check_discovery(request, self._settings)
        except TerminalError as error:
            raise LeadsError(error.status_code, error.message) from error
        price = self._settings.prices.discovery_cents
        return await self._start(JobKind.DISCOVERY, request, self._settings.discovery_engine, price)

    async def start_enrichment(self, request: EnrichmentRequest) -> JobView:
        """Start an enrichment. Raises: LeadsError, as `start_discovery`; 404: no such discovery."""
        await self._check_enrichment(request)
        price = self._settings.prices.enrichment_cents
        return await self._start(JobKind.ENRICHMENT, request, self._settings.enrichment_engine, price)

    async def _check_enrichment(self, request: EnrichmentRequest) -> None:
        most = ENRICHMENT_BUSINESSES_MAX
        if (request.discovery_job_id is None) == (not request.businesses):
            raise LeadsError(422, "give either businesses or discovery_job_id")
        if not 1 <= request.limit <= most:
            raise LeadsError(422, f"limit: 1 to {most}, not {request.limit}")
        if len(request.businesses) > most or len(request.place_ids) > most:
            raise LeadsError(422, f"at most {most} businesses in one run")
        if len({business.place_id for business in request.businesses}) < len(request.businesses):
            raise LeadsError(422, "businesses: the same place_id comes twice")
        if any(
            not 0 < len(text) <= TEXT_CHARACTERS_MAX for one in request.businesses for text in (one.place_id, one.name)
        ):
            raise LeadsError(422, f"businesses: place_id and name have 1 to {TEXT_CHARACTERS_MAX} characters")
        if request.discovery_job_id is None:
            return
        discovery = await self.get(request.discovery_job_id)
        if discovery.user_id != request.user_id:
            raise LeadsError(404, f"there is no job {request.discovery_job_id}")
        if discovery.status is not JobStatus.COMPLETED:
            raise LeadsError(409, f"job {discovery.job_id} is {discovery.status}; its leads come when it is completed")

    async def _start(
        self, kind: JobKind, request: DiscoveryRequest | EnrichmentRequest, engine: str, list_cents: int
    ) -> JobView:
        checked_user_id(request.user_id)
        chosen = request.client_key
        # Of this user's key: two users may choose the same.
        job_id = (
            idempotency_key(kind, request.tenant_id, request.user_id, chosen)
            if chosen
            else f"{kind}-{uuid.uuid4().hex}"
        )
        if not await self._exists(job_id):
            await self._check_funds(request.user_id, list_cents, is_free=request.is_free)
        try:
            job, _ = await self._store.create_job(
                job_id,
                tenant_id=request.tenant_id,
                user_id=request.user_id,
                kind=kind,
                engine=engine,
                request=request,
            )
        except JobConflict as error:
            raise LeadsError(409, str(error)) from error
        if job.status is JobStatus.PENDING and job.invocation_id is None:
            await self._send(job)
            job = await self._store.job(job_id)
        return job

    async def _exists(self, job_id: str) -> bool:
        try:
            await self._store.job(job_id)
        except JobNotFound:
            return False
        return True

    async def _check_funds(self, user_id: str, list_cents: int, *, is_free: bool) -> None:
        """Tell at once what the wallet would refuse a moment later. What counts is the wallet's own check."""
        if is_free:
            return
        now = await self.wallets.get(user_id)
        required = price_cents(list_cents, now.tier)
        if required > now.available_cents:
            raise LeadsError(
                402,
                f"insufficient funds: {required} cents required, {now.available_cents} available; next: top up",
                details={"required_cents": required, "available_cents": now.available_cents},
            )

    async def _send(self, job: JobView) -> None:
        """Start the workflow of the job's present run: once, however often this is done."""
        kind = JobKind(job.workflow_id)
        workflow, handler = WORKFLOWS[kind]
        order = JobOrder(
            job_id=job.job_id,
            run=job.run,
            tenant_id=job.tenant_id,
            user_id=job.user_id,
            kind=kind,
            request=job.request,
            notify=job.request.get("notify", []),
            is_free=job.request.get("is_free", False),
        )
        invocation_id = await self._gateway.send(workflow, order.run_id, handler, order)
        await self._store.set_invocation(job.job_id, job.run, invocation_id)

    # ---- look ------------------------------------------------------------------------------------------------------------

    async def get(self, job_id: str) -> JobView:
        """Raises: LeadsError: 404."""
        try:
            return await self._store.job(job_id)
        except JobNotFound as error:
            raise LeadsError(404, str(error)) from error

    async def find(self, **filters: Any) -> list[JobView]:
        """Newest first; `filters` are those of `Store.jobs`."""
        return await self._store.jobs(**filters)

    async def steps(self, job_id: str) -> list[StepView]:
        await self.get(job_id)
        return await self._store.steps(job_id)

    async def logs(self, job_id: str, *, after: int = 0) -> list[LogLine]:
        await self.get(job_id)
        return await self._store.logs(job_id, after=after)

    async def cost(self, job_id: str) -> CostView:
        await self.get(job_id)
        return await self._store.cost(job_id)

    async def leads(self, job_id: str, *, limit: int = 1000, offset: int = 0) -> list[Lead]:
        """Best score first."""
        await self.get(job_id)
        return await self._store.records.leads(job_id, limit=limit, offset=offset)

    async def lead(self, job_id: str, place_id: str) -> Lead:
        found = await self._store.records.lead(job_id, place_id)
        if found is None:
            raise LeadsError(404, f"job {job_id} has no lead {place_id}")
        return found

    async def wait(self, job_id: str, *, timeout_s: float = 60.0) -> JobView:
        """Wait until the job is over; after `timeout_s` seconds give it as it is."""
        job = await self.get(job_id)
        if job.status.is_final:
            return job
        if job.invocation_id is None:
            await self._send(job)
        workflow, _ = WORKFLOWS[JobKind(job.workflow_id)]
        if await self._gateway.attach(workflow, run_id(job_id, job.run), timeout_s):
            return await self.reconcile(job_id)
        return await self.get(job_id)

    # ---- cancel, resume ---------------------------------------------------------------------------------------------------

    async def cancel(self, job_id: str) -> JobView:
        """Ask a job to end. It gives back what it took and is `cancelled` a moment later; one that is over stays as it is."""
        job = await self.get(job_id)
        if job.status.is_final:
            return job
        if job.invocation_id is None:
            error = JobError(code=409, message="cancelled before it began", is_retryable=True)
            await self._store.set_status(job_id, job.run, JobStatus.CANCELLED, error=error)
        else:
            await self._gateway.cancel(job.invocation_id)
        return await self.reconcile(job_id)

    async def resume(self, job_id: str) -> JobView:
        """Let a job go on. One that ended without success gets another run, which is paid for like the first, and finds
        what earlier runs have done; one that the engine has paused goes on at once; one that runs just runs.

        Raises:
            LeadsError: 402, 404; 409: it is completed.
        """
        job = await self.reconcile(job_id)
        if job.status is JobStatus.COMPLETED:
            raise LeadsError(409, f"job {job_id} is completed; there is nothing to resume")
        if not job.status.is_final:
            if job.invocation_id is None:
                await self._send(job)
            else:
                await self._gateway.resume(job.invocation_id)
            return await self.get(job_id)
        prices = self._settings.prices
        list_cents = prices.discovery_cents if job.workflow_id == JobKind.DISCOVERY else prices.enrichment_cents
        await self._check_funds(job.user_id, list_cents, is_free=job.request.get("is_free", False))
        try:
            await self._store.begin_run(job_id, job.run + 1)
        except JobConflict as error:
            raise LeadsError(409, str(error)) from error
        job = await self.get(job_id)
        if job.status is JobStatus.PENDING and job.invocation_id is None:
            await self._send(job)
        return await self.get(job_id)

    async def reconcile(self, job_id: str) -> JobView:
        """The job; if its workflow ended without saying so, as one that was killed does, it has failed and its money is
        given back."""
        job = await self.get(job_id)
        if job.status.is_final or job.invocation_id is None:
            return job
        kind = JobKind(job.workflow_id)
        if not await self._gateway.is_over(WORKFLOWS[kind][0], run_id(job_id, job.run)):
            return job
        job = await self.get(job_id)  # it may have said so in the meantime
        if job.status.is_final:
            return job
        if not job.request.get("is_free", False):
            await self.wallets.undo_run(job.user_id, kind, job_id, job.run)
            await self._store.set_price(job_id, 0)
        error = JobError(code=500, message="its workflow was killed", is_retryable=True)
        await self._store.set_status(job_id, job.run, JobStatus.FAILED, error=error)
        return await self.get(job_id)

    async def recover(self) -> int:
        """Once at start: start what was kept but not started, and settle what was killed. Returns how many were started."""
        sent = 0
        for job in await self._store.jobs(statuses=[JobStatus.PENDING, JobStatus.RUNNING], limit=10_000):
            if job.invocation_id is None:
                await self._send(job)
                sent += 1
            else:
                await self.reconcile(job.job_id)
        return sent


async def until_over(jobs: Jobs, job_id: str, *, patience_s: float = 60.0) -> JobView:
    """The job once it is over.

    Raises:
        TimeoutError: it is not.
    """
    async with asyncio.timeout(patience_s):
        while True:
            job = await jobs.wait(job_id, timeout_s=patience_s)
            if job.status.is_final:
                return job
