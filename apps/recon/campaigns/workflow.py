"""The campaign workflow: one durable run per campaign id.

    validate ─> (approval) ─> cut ─> scan batch 1 … n ─> correlate ─> publish ─> complete
       any of them refused for good ──> failed          a cancel, at any time ──> cancelled

It calls services and keeps counts. Targets, results and findings are rows in the database, written by the services.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec
from restate import RunOptions, TerminalError, Workflow, WorkflowContext, WorkflowSharedContext

from apps.recon.campaigns.approval import ApprovalRequest, Approvals, outcome
from apps.recon.campaigns.batch import Batches
from apps.recon.campaigns.correlator import Correlator
from apps.recon.campaigns.model import (
    FINAL,
    SERVICE,
    TARGETS_MAX,
    BatchRequest,
    CampaignRequest,
    CampaignResult,
    Cut,
    Phase,
    Validated,
    status_text,
)
from apps.recon.campaigns.store import CampaignDiffers, CampaignStore
from apps.recon.campaigns.targets import count
from apps.recon.campaigns.validation import Validator
from apps.recon.threats.publishing import Publisher, PublishRequest
from holdfast.patterns import JobTracker, Saga, decision

SESSION_REPORTS_MAX = 100
"""Each is two entries in the journal, and nobody reads a session finer than this."""


class CampaignState(msgspec.Struct):
    """What the workflow itself says of its progress; never more than `total` are scanned."""

    status: str
    scanned: int
    total: int


@dataclass(slots=True)
class Told:
    """What was last said of the progress."""

    scanned: int = 0
    total: int = 0

    def tell(self, ctx: WorkflowContext, phase: Phase, scanned: int, total: int, batch: int = 0) -> None:
        """For `status`; `progress` is also what `holdfast executions status` shows."""
        self.scanned, self.total = min(scanned, total), total
        ctx.set("progress", {"status": status_text(phase, batch), "done": self.scanned, "total": total})


@dataclass(frozen=True, slots=True)
class Services:
    """What a campaign calls."""

    validator: Validator
    approvals: Approvals
    batches: Batches
    correlator: Correlator
    publisher: Publisher
    sessions: JobTracker


class Campaigns:
    """The workflow; its key is the campaign's id. `run(CampaignRequest)`, and beside it `status()`."""

    def __init__(
        self,
        store: CampaignStore,
        services: Services,
        *,
        approval_timeout: timedelta,
        waits_for_enrichment: bool,
    ) -> None:
        self._store = store
        self._services = services
        self._approval_timeout = approval_timeout
        self._waits_for_enrichment = waits_for_enrichment
        service = self.service = Workflow(SERVICE, description="Scans many targets and says what was found.")

        @service.main()
        async def run(ctx: WorkflowContext, request: Any) -> CampaignResult:
            wanted = read_request(request, ctx.key())
            failure = TerminalError("cancelled", status_code=409)
            told = Told()

            async def mark_ended() -> None:
                phase = Phase.CANCELLED if failure.status_code == 409 else Phase.FAILED
                await store.set_phase(wanted.campaign_id, phase, error=failure.message)

            async with Saga(ctx) as saga:  # its compensation is not interrupted by a further cancel
                saga.compensate("mark ended", mark_ended)
                try:
                    return await self._run(ctx, wanted, told)
                except TerminalError as error:
                    failure = error
                    is_cancel = error.status_code == 409
                    told.tell(ctx, Phase.CANCELLED if is_cancel else Phase.FAILED, told.scanned, told.total)
                    end = services.sessions.cancel if is_cancel else services.sessions.fail
                    ctx.object_send(end, key=wanted.campaign_id, arg=error.message)
                    raise

        @service.handler()
        async def status(ctx: WorkflowSharedContext) -> CampaignState:
            progress: Any = await ctx.get("progress", type_hint=object)
            if progress is None:
                raise TerminalError(f"there is no campaign {ctx.key()}", status_code=404)
            return CampaignState(progress["status"], progress["done"], progress["total"])

        self.run, self.status = run, status

    async def _run(self, ctx: WorkflowContext, request: CampaignRequest, told: Told) -> CampaignResult:
        campaign_id, sessions = request.campaign_id, self._services.sessions
        if request.targets:
            told.tell(ctx, Phase.INITIALIZING, 0, count(request.targets))
        total = await ctx.run_typed("begin", self._begin, RunOptions(type_hint=int), request, ctx.request().id)
        told.tell(ctx, Phase.INITIALIZING, 0, total)
        ctx.object_send(sessions.create, key=campaign_id, arg={"scanner": request.options.scanner})
        ctx.object_send(sessions.start, key=campaign_id, arg=None)

        validated = await ctx.service_call(self._services.validator.validate, arg=campaign_id)
        refusal: str | None = None
        if validated.sensitive_count:
            told.tell(ctx, Phase.AWAITING_APPROVAL, 0, validated.ready_count)
            waiting: Any = {"done": 0, "total": validated.ready_count, "note": "awaiting approval"}
            ctx.object_send(sessions.advance, key=campaign_id, arg=waiting)
            refusal = await self._ask(ctx, request, validated)
            told.tell(ctx, Phase.INITIALIZING, 0, validated.ready_count)
        cut = await ctx.run_typed(
            "cut", self._cut, RunOptions(type_hint=Cut), campaign_id, request.options.batch_size, refusal
        )
        scanned = failed = 0
        waits = self._waits_for_enrichment
        report_every = -(-cut.batch_count // SESSION_REPORTS_MAX)
        for number in range(1, cut.batch_count + 1):
            told.tell(ctx, Phase.SCANNING, scanned, cut.total, number)
            done = await ctx.service_call(
                self._services.batches.run, arg=BatchRequest(campaign_id, number, request.options, waits)
            )
            waits = waits and not done.is_late  # enrichment does not keep up, or its sources are away: go on without
            scanned += done.scanned
            failed += done.failed
            if number % report_every and number < cut.batch_count:
                continue
            advance: Any = {"done": scanned, "total": cut.total, "note": f"batch {number} of {cut.batch_count}"}
            ctx.object_send(sessions.advance, key=campaign_id, arg=advance)

        told.tell(ctx, Phase.CORRELATING, scanned, cut.total)
        await ctx.run_typed("correlating", self._store.set_phase, RunOptions(), campaign_id, Phase.CORRELATING)
        found = await ctx.service_call(self._services.correlator.correlate, arg=campaign_id)
        refused = await self._publish(ctx, request, found.threat_count)
        await ctx.run_typed("complete", self._complete, RunOptions(), campaign_id, refused)
        told.tell(ctx, Phase.COMPLETE, scanned, cut.total)
        result = CampaignResult(
            campaign_id=campaign_id,
            status=Phase.COMPLETE.value,
            total=cut.total,
            scanned=scanned,
            failed=failed,
            rejected=validated.rejected_count + (validated.sensitive_count if refusal else 0),
            hosts=found.host_count,
            threats=found.threat_count,
        )
        ctx.object_send(sessions.complete, key=campaign_id, arg=msgspec.to_builtins(result))
        return result

    async def _ask(self, ctx: WorkflowContext, request: CampaignRequest, validated: Validated) -> str | None:
        """Wait for the approval of sensitive targets. Why they are not scanned, or None if they are."""
        campaign_id = request.campaign_id
        question = (
            f"May campaign {campaign_id} scan {validated.sensitive_count} sensitive of its "
            f"{validated.ready_count} targets, with {request.options.scanner}?"
        )
        await ctx.run_typed("ask", self._store.set_approval, RunOptions(), campaign_id, "pending")
        answer = await ctx.workflow_call(
            self._services.approvals.run,
            key=campaign_id,
            arg=ApprovalRequest(question, self._approval_timeout.total_seconds()),
        )
        decided = decision(answer)
        await ctx.run_typed("asked", self._store.set_approval, RunOptions(), campaign_id, outcome(decided))
        if decided.is_approved:
            return None
        if decided.is_timeout:
            return f"sensitive; nobody approved within {self._approval_timeout}"
        by = f" by {decided.by}" if decided.by else ""
        return f"sensitive; denied{by}" + (f": {decided.comment}" if decided.comment else "")

    async def _publish(self, ctx: WorkflowContext, request: CampaignRequest, threat_count: int) -> str | None:
        """Publish what was found. Why it could not be, or None; the campaign's own report is there in any case."""
        publish = PublishRequest(request.campaign_id, request.options.contributor, threat_count)
        try:
            await ctx.service_call(self._services.publisher.publish, arg=publish)
        except TerminalError as error:
            if error.status_code == 409:
                raise
            return f"not published: {error.message}"
        return None

    # -- steps -----------------------------------------------------------------------------------------------------

    async def _begin(self, request: CampaignRequest, invocation_id: str) -> int:
        """Find the campaign that the API kept, or keep one that came straight to the engine. How many targets it has."""
        if request.targets:
            try:
                known = await self._store.create(request, count(request.targets))
            except CampaignDiffers as error:
                raise TerminalError(str(error), status_code=400) from error
        else:
            known = await self._store.campaign(request.campaign_id)
        if known is None:
            raise TerminalError(f"campaign {request.campaign_id} has no targets", status_code=400)
        if known.status in FINAL:
            # The engine forgets a workflow a day after its end; the database does not.
            raise TerminalError(f"campaign {known.id} is {known.status}", status_code=400)
        if not await self._store.set_invocation(request.campaign_id, invocation_id):
            raise TerminalError(f"campaign {known.id} was cancelled before it began", status_code=400)
        return known.total

    async def _cut(self, campaign_id: str, batch_size: int, refusal: str | None) -> Cut:
        cut = await self._store.cut(campaign_id, batch_size, refuse_sensitive=refusal)
        await self._store.count(campaign_id)
        return cut

    async def _complete(self, campaign_id: str, refused: str | None) -> None:
        await self._store.set_phase(campaign_id, Phase.COMPLETE, error=refused)


def read_request(request: Any, key: str) -> CampaignRequest:
    """The request, if it is one and belongs to this key.

    Raises:
        TerminalError: 400 with the reason.
    """
    try:
        wanted = msgspec.convert(request, CampaignRequest)
    except msgspec.ValidationError as error:
        raise TerminalError(f"this is no campaign: {error}", status_code=400) from error
    if wanted.campaign_id != key:
        raise TerminalError(f"the key is {key}, but the campaign is {wanted.campaign_id}", status_code=400)
    if (targets := count(wanted.targets)) > TARGETS_MAX:
        raise TerminalError(f"{targets} targets; at most {TARGETS_MAX} are scanned in a campaign", status_code=400)
    return wanted
