"""Jobs: the durable frame around paid work. Workflows `DiscoveryJob` and `EnrichmentJob`, keyed by the run's id.

    DiscoveryJob    mark-running -> charge ─> discovery/discover ────> mark-completed -> notify
                                       └ terminal error, cancel, time limit: refund -> mark-failed -> notify
    EnrichmentJob   mark-running -> hold ─> prepare -> enrichment/enrichBatch -> capture -> mark-completed -> notify
                                       └ terminal error, cancel, time limit: release -> mark-failed -> notify

The work may be done on another engine than this one; jobs and wallets are always on one, so money never crosses engines.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, TypeVar

import msgspec
import restate
from restate import TerminalError, Workflow, WorkflowContext

from apps.leads import wallet
from apps.leads.actor import ActorDirectory
from apps.leads.booking import Booking, Receipt
from apps.leads.model import (
    Business,
    DiscoveryResult,
    EnrichBatchRequest,
    EnrichBatchResult,
    EnrichmentRequest,
    EnrichmentResult,
    JobError,
    JobKind,
    JobOrder,
    JobStatus,
)
from apps.leads.notifications import send_job_event
from apps.leads.settings import Settings
from apps.leads.steps import Steps, is_cancellation, surely
from apps.leads.store import Store
from apps.leads.tiers import RunLimits, run_limits
from holdfast.patterns import CompensationFailed, Saga

DISCOVERY = "DiscoveryJob"
ENRICHMENT = "EnrichmentJob"

T = TypeVar("T")


class Selection(msgspec.Struct, kw_only=True):
    """The businesses of an enrichment."""

    businesses: list[Business]
    discovery_scores: dict[str, float]


class Payment(msgspec.Struct, kw_only=True):
    """What a step that pays gives."""

    price_cents: int
    balance_cents: int | None
    limits: RunLimits
    """What the run may use for it."""


class Handlers(msgspec.Struct, kw_only=True):
    """The handlers that jobs call."""

    discover: Any
    enrich_batch: Any
    deliver: Any


def job_workflows(store: Store, settings: Settings, handlers: Handlers) -> list[Workflow]:
    """Both workflows."""
    discovery = Workflow(DISCOVERY, description="A discovery that is paid for")
    enrichment = Workflow(ENRICHMENT, description="An enrichment that is paid for")

    @discovery.main()
    async def discover(ctx: WorkflowContext, order: JobOrder) -> DiscoveryResult:
        return await _Job(ctx, store, settings, handlers, order).discovery()

    @enrichment.main()
    async def enrich(ctx: WorkflowContext, order: JobOrder) -> EnrichmentResult:
        return await _Job(ctx, store, settings, handlers, order).enrichment()

    assert discover is not None
    assert enrich is not None  # the decorators register them; nothing here calls them
    return [discovery, enrichment]


class _Job:
    def __init__(
        self,
        ctx: WorkflowContext,
        store: Store,
        settings: Settings,
        handlers: Handlers,
        order: JobOrder,
    ) -> None:
        if ctx.key() != order.run_id:  # before anything is written: it must not become somebody else's failure
            raise TerminalError(f"the workflow key is {ctx.key()}, but the order is for {order.run_id}", 400)
        self._ctx = ctx
        self._store = store
        self._settings = settings
        self._handlers = handlers
        self._order = order
        self._steps = Steps(ctx, store, order.job_id, order.run)

    # ---- the two kinds ---------------------------------------------------------------------------------------------------

    async def discovery(self) -> DiscoveryResult:
        """Charge, work; refund if the work fails."""
        settings = self._settings
        await self._mark_running()
        try:
            receipt = await self._pay(wallet.charge, "charge", settings.prices.discovery_cents, wallet.refund, "refund")
            async with Saga(self._ctx) as saga:
                limits = await self._undo_by(saga, receipt, wallet.refund, "charge", "refund")
                order = msgspec.structs.replace(self._order, cost_max_usd=limits.cost_max_usd)
                result: DiscoveryResult = await self._work(self._handlers.discover, order, limits)
        except TerminalError as error:
            await self._failed(error)
            raise
        return await self._completed(result)

    async def enrichment(self) -> EnrichmentResult:
        """Hold, work, capture; release if the work fails."""
        settings = self._settings
        await self._mark_running()
        try:
            receipt = await self._pay(wallet.hold, "hold", settings.prices.enrichment_cents, wallet.release, "release")
            async with Saga(self._ctx) as saga:
                limits = await self._undo_by(saga, receipt, wallet.release, "hold", "release")
                result = await self._enrich_all(limits)
        except TerminalError as error:
            await self._failed(error)
            raise
        if receipt is not None:
            # The work is done: from here on a cancellation comes too late.
            captured = await surely(lambda: self._book(wallet.capture, "capture", of="hold"))
            await surely(lambda: self._note_payment("capture", captured))
        return await self._completed(result)

    async def _enrich_all(self, limits: RunLimits) -> EnrichmentResult:
        order = self._order
        chosen = await self._steps.run("prepare", self._select, Selection, summary=lambda one: len(one.businesses))
        request = EnrichBatchRequest(
            businesses=chosen.businesses,
            job_id=order.job_id,
            run=order.run,
            discovery_scores=chosen.discovery_scores,
            cost_max_usd=limits.cost_max_usd,
        )
        batch: EnrichBatchResult = await self._work(self._handlers.enrich_batch, request, limits)
        if not batch.results:
            first = batch.errors[0]
            raise TerminalError(f"none of {len(batch.errors)} businesses could be enriched: {first.error}", first.code)
        return EnrichmentResult(
            job_id=order.job_id,
            business_count=len(chosen.businesses),
            enriched_count=len(batch.results),
            failed_count=len(batch.errors),
            best_score=max(entry.lead_score for entry in batch.results),
            results=batch.results,
            errors=batch.errors,
        )

    async def _select(self) -> Selection:
        """The businesses of the request, or the best leads of the discovery that it names."""
        request = msgspec.convert(self._order.request, EnrichmentRequest)
        businesses, scores = request.businesses[: request.limit], {}
        if request.discovery_job_id is not None:
            leads = await self._store.records.leads(request.discovery_job_id)
            wanted = [lead for lead in leads if not request.place_ids or lead.business.place_id in request.place_ids]
            businesses = [lead.business for lead in wanted[: request.limit]]
            scores = {
                lead.business.place_id: lead.discovery_score
                for lead in wanted[: request.limit]
                if lead.discovery_score is not None
            }
        if not businesses:
            raise TerminalError("there are no businesses to enrich", status_code=422)
        await self._store.records.keep_businesses(self._order.job_id, businesses, scores)
        return Selection(businesses=businesses, discovery_scores=scores)

    # ---- money -----------------------------------------------------------------------------------------------------------

    async def _pay(self, take: Any, kind: str, list_cents: int, undo: Any, undo_kind: str) -> Receipt | None:
        """Take or set aside the price. None: this job is free. Refused with 402 before any work."""
        if self._order.is_free:
            return None
        try:
            return await self._book(take, kind, amount_cents=list_cents)
        except TerminalError as error:
            if is_cancellation(error):
                # Booked or not? The undoing copes with both.
                await surely(lambda: self._book(undo, undo_kind, of=kind))
            raise

    async def _undo_by(self, saga: Saga, receipt: Receipt | None, undo: Any, kind: str, undo_kind: str) -> RunLimits:
        """From here on a failure gives the money back. Returns what the payment allows."""
        if receipt is None:
            return (await self._note_payment("free", None)).limits
        saga.compensate_by(undo_kind, lambda: self._book(undo, undo_kind, of=kind))
        saga.compensate(f"note-{undo_kind}", self._store.set_price, self._order.job_id, 0)
        return (await self._note_payment(kind, receipt)).limits

    def _book(self, handler: Any, kind: str, *, amount_cents: int = 0, of: str = "") -> Any:
        """One booking of this run, as a call: its key is made of the run's id and the kind."""
        run_id = self._order.run_id
        booking = Booking(
            key=f"{run_id}:{kind}",
            amount_cents=amount_cents,
            of=f"{run_id}:{of}" if of else "",
            job_id=self._order.job_id,
            run=self._order.run,
        )
        return self._ctx.object_call(handler, key=self._order.user_id, arg=booking)

    async def _note_payment(self, kind: str, receipt: Receipt | None) -> Payment:
        """What is paid, and the limits that come with it: recorded, so that no change of tier or settings moves them."""

        async def note() -> Payment:
            price_cents = 0 if receipt is None else receipt.price_cents
            await self._store.set_price(self._order.job_id, price_cents)
            balance_cents = None if receipt is None else receipt.balance_cents
            return Payment(price_cents=price_cents, balance_cents=balance_cents, limits=self._limits(receipt))

        return await self._steps.run(kind, note, Payment)

    def _limits(self, receipt: Receipt | None) -> RunLimits:
        settings, order = self._settings, self._order
        is_discovery = order.kind is JobKind.DISCOVERY
        directory = order.request.get("directory") or settings.business_directory
        is_slow = not is_discovery or directory == ActorDirectory.name
        return run_limits(
            "" if receipt is None else receipt.tier,
            settings.tiers,
            time_max_s=settings.discovery_time_max_s if is_discovery else settings.enrichment_time_max_s,
            time_min_s=settings.slow_work_time_min_s if is_slow else 0.0,
        )

    # ---- work ------------------------------------------------------------------------------------------------------------

    async def _work(self, handler: Any, request: Any, limits: RunLimits) -> Any:
        """Call the service that does the work, for as long as it may take.

        Raises:
            TerminalError: its own; 408: the time limit was reached.
        """
        call = self._ctx.service_call(handler, request)
        limit = self._ctx.sleep(timedelta(seconds=limits.time_max_s))
        match await restate.select(work=call, limit=limit):
            case ["work", result]:
                return result
            case _:
                self._ctx.cancel_invocation(await call.invocation_id())
                text = f"time limit of {limits.time_max_s:g} s reached"
                text += f", the longest run of the tier {limits.tier}" if limits.is_time_of_tier else ""
                raise TerminalError(text, status_code=408)

    # ---- read model, message ---------------------------------------------------------------------------------------------

    async def _mark_running(self) -> None:
        order = self._order
        try:
            is_ours = await self._steps.run(
                "mark-running", lambda: self._store.set_status(order.job_id, order.run, JobStatus.RUNNING)
            )
        except TerminalError as error:
            await self._failed(error)
            raise
        if not is_ours:  # nothing may be paid or told: somebody has ended the job already
            raise TerminalError(f"job {order.job_id} was ended before run {order.run} began", status_code=409)

    async def _completed(self, result: T) -> T:
        order = self._order
        plain = msgspec.to_builtins(result)

        async def mark() -> bool:
            await self._steps.log("info", "mark-completed", f"{order.kind} completed")
            return await self._store.set_status(order.job_id, order.run, JobStatus.COMPLETED, result=plain)

        await surely(lambda: self._steps.run("mark-completed", mark))
        self._notify(JobStatus.COMPLETED, plain, "")
        return result

    async def _failed(self, error: TerminalError) -> None:
        order = self._order
        status = status_of(error)
        view = job_error(error)

        async def mark() -> bool:
            await self._steps.log("error", "mark-failed", f"{status}: {error.message}")
            return await self._store.set_status(order.job_id, order.run, status, error=view)

        await surely(lambda: self._steps.run("mark-failed", mark))
        self._notify(status, None, error.message)

    def _notify(self, status: JobStatus, result: dict[str, Any] | None, error: str) -> None:
        send_job_event(self._ctx, self._handlers.deliver, self._order, status, result, error, self._settings)


def status_of(error: TerminalError) -> JobStatus:
    """What a job that ended with this error is."""
    if is_cancellation(error) or (isinstance(error, CompensationFailed) and error.message.startswith("cancelled;")):
        return JobStatus.CANCELLED
    return JobStatus.TIMED_OUT if error.status_code == 408 else JobStatus.FAILED


def job_error(error: TerminalError) -> JobError:
    """The error as the job's owner sees it. Amounts travel in the metadata, as text."""
    details = {name: int(value) for name, value in (error.metadata or {}).items() if value.isdigit()}
    is_retryable = error.status_code in (402, 408, 409, 429) or error.status_code >= 500
    return JobError(code=error.status_code, message=error.message, is_retryable=is_retryable, details=details)
