"""Enrichment, the slow tier. Service `enrichment`, handlers `enrichBusiness` and `enrichBatch`.

    enrichBusiness   scan-website -> find-owner -> deep-audit -> lead-score
    enrichBatch      enrichBusiness of each, a call and so an invocation each, so many at a time

One business that fails is an entry among the errors of its batch. What an earlier run of the job has enriched is not done
again.
"""

from __future__ import annotations

from typing import Any

import msgspec
from restate import Context, Service, TerminalError

from apps.leads import web
from apps.leads.budget import Budget, PaidSource, over_limit
from apps.leads.model import (
    ENRICHMENT_BUSINESSES_MAX,
    BatchEntry,
    BatchFailure,
    Business,
    EnrichBatchRequest,
    EnrichBatchResult,
    EnrichBusinessRequest,
    EnrichedBusiness,
    Lead,
    ScoreReport,
)
from apps.leads.score import discovery_score, lead_score
from apps.leads.settings import Settings
from apps.leads.sites import look_at
from apps.leads.steps import Steps
from apps.leads.store import Store
from apps.leads.web.types import AuditReport, OwnerSearch, SiteScan
from holdfast.patterns import fan_out, idempotency_key, raise_for_status

SERVICE = "enrichment"


def enrichment_service(store: Store, settings: Settings) -> tuple[Service, Any]:
    """The service, and its handler for batches."""
    service = Service(SERVICE, description="Looks closely at businesses: website, owner, audit, lead score")

    @service.handler("enrichBusiness")
    async def enrich_business(ctx: Context, request: EnrichBusinessRequest) -> EnrichedBusiness:
        return await _Enrichment(ctx, store, settings, request).run()

    @service.handler("enrichBatch")
    async def enrich_batch(ctx: Context, request: EnrichBatchRequest) -> EnrichBatchResult:
        _check_batch(request)
        outcomes = await fan_out(
            request.businesses,
            lambda business: ctx.service_call(
                enrich_business,
                EnrichBusinessRequest(
                    business=business,
                    job_id=request.job_id,
                    run=request.run,
                    discovery_score=request.discovery_scores.get(business.place_id),
                    cost_max_usd=request.cost_max_usd,
                    is_brief=True,
                ),
            ),
            concurrency=settings.enrich_concurrency,
        )
        steps = Steps(ctx, store, request.job_id, request.run)
        failures = {one.item.place_id: one.error for one in outcomes if one.status == "failed"}
        if failures and request.job_id:
            await steps.run("keep-failures", lambda: _keep_failures(store, request.job_id, failures))
        return EnrichBatchResult(
            results=[_entry(one.value) for one in outcomes if one.value is not None],
            errors=[
                BatchFailure(place_id=one.item.place_id, name=one.item.name, error=one.error, code=one.error_code)
                for one in outcomes
                if one.status == "failed"
            ],
        )

    return service, enrich_batch


def _check_batch(request: EnrichBatchRequest) -> None:
    count = len(request.businesses)
    if not 1 <= count <= ENRICHMENT_BUSINESSES_MAX:
        raise TerminalError(f"businesses: 1 to {ENRICHMENT_BUSINESSES_MAX}, not {count}", status_code=422)
    if len({business.place_id for business in request.businesses}) < count:
        raise TerminalError("businesses: the same place_id comes twice", status_code=422)


def _entry(enriched: EnrichedBusiness) -> BatchEntry:
    return BatchEntry(
        place_id=enriched.place_id,
        name=enriched.name,
        lead_score=enriched.lead_score.score,
        owner=enriched.owner.name if enriched.owner is not None else None,
        audit_score=enriched.audit_result.score if enriched.audit_result is not None else None,
    )


def owner_sources(settings: Settings, scope: str) -> list[web.OwnerSource]:
    """Who is asked for the owner, in order. `scope`: what the questions belong to; each is paid once in it."""
    return [
        web.WebsiteSource()
        if source.name == "website"
        else web.HttpOwnerSource(source.name, source.url, cost_usd=source.cost_usd, token=source.token, scope=scope)
        for source in settings.owner_sources
    ]


def audit_service(settings: Settings) -> web.AuditService | None:
    """The outside service, if there is one; None: our own audit."""
    if not settings.audit_service_url:
        return None
    return web.AuditService(
        settings.audit_service_url,
        api_key=settings.audit_service_key or None,
        timeout_s=settings.audit_service_time_s,
    )


async def _keep_failures(store: Store, job_id: str, failures: dict[str, str]) -> int:
    for place_id, error in failures.items():
        await store.records.keep_error(job_id, place_id, error)
    return len(failures)


class _Enrichment:
    """The enrichment of one business in one run."""

    def __init__(self, ctx: Context, store: Store, settings: Settings, request: EnrichBusinessRequest) -> None:
        self._store = store
        self._settings = settings
        self._request = request
        self._business: Business = request.business
        self._job_id = request.job_id
        self._scope = request.job_id or str(ctx.uuid())
        self._steps = Steps(ctx, store, request.job_id, request.run)
        self._budget = Budget(store, request.job_id, request.run, request.business.place_id, request.cost_max_usd)

    async def run(self) -> EnrichedBusiness:
        subject = self._business.place_id
        paid = self._settings.step_retry
        if self._job_id and self._request.run > 1:
            before = await self._steps.run("find-lead", self._done_before, Lead, subject=subject, summary=_was_found)
            if before is not None:
                return self._answer(_as_enriched(before))
        scan = await self._steps.run(
            "scan-website", self._scan, SiteScan, subject=subject, summary=_scan_summary, problem=_scan_problem
        )
        owner = await self._steps.run(
            "find-owner",
            lambda: self._find_owner(scan),
            OwnerSearch,
            subject=subject,
            retry=paid,
            summary=_owner_summary,
        )
        audit = await self._steps.run(
            "deep-audit", lambda: self._audit(scan), AuditReport, subject=subject, retry=paid, summary=_audit_summary
        )
        score = await self._steps.run(
            "lead-score", lambda: self._score(scan, owner, audit), ScoreReport, subject=subject, summary=_score_summary
        )
        return self._answer(self._enriched(scan, owner, audit, score))

    def _answer(self, enriched: EnrichedBusiness) -> EnrichedBusiness:
        """All of it; for a batch without the scan and the report's text, which are in the database."""
        if not self._request.is_brief:
            return enriched
        audit = enriched.audit_result
        brief = None if audit is None else msgspec.structs.replace(audit, issues=[], passed=[], citations=[], html=None)
        return msgspec.structs.replace(enriched, scan_result=None, audit_result=brief)

    async def _done_before(self) -> Lead | None:
        return await self._store.records.enriched(self._job_id, self._business.place_id)

    async def _scan(self) -> SiteScan | None:
        if self._business.website is None:
            return None
        scan = await look_at(self._business, self._settings, comprehensive=True)
        if self._job_id:
            cost = self._budget.event("scan-website", "website_scan", "own", duration_ms=scan.access.elapsed_ms)
            await self._store.add_costs(self._job_id, [cost])
        label = f"scan-website {self._business.place_id}"
        if scan.is_reachable:
            await self._steps.log("info", label, f"{self._business.website}: {len(scan.pages)} pages read")
        else:
            why = scan.failure.message if scan.failure is not None else "no page"
            await self._steps.log("warning", label, f"{self._business.website}: {why}")
        return scan

    async def _find_owner(self, scan: SiteScan | None) -> OwnerSearch:
        if scan is None:
            return OwnerSearch(owner=None, asked=[])
        sources = [PaidSource(source, self._budget) for source in owner_sources(self._settings, self._scope)]
        found = await web.search_owner(self._business.name, scan, sources=sources)
        for use in found.asked:
            if use.error == over_limit(self._budget.limit_usd):
                await self._over_limit("find-owner", use.source)
            else:
                await self._budget.note("find-owner", "owner_search", use.source, use.cost_usd)
        return found

    async def _audit(self, scan: SiteScan | None) -> AuditReport | None:
        """None: there is no page to audit."""
        if scan is None or not scan.is_reachable:
            return None
        service = audit_service(self._settings)
        if service is not None:
            cost_usd = self._settings.unit_costs.audit_usd
            async with self._budget.question("deep-audit", "audit", "audit service", cost_usd) as may_ask:
                if may_ask:
                    return await self._ask_for_audit(service, scan)
            await self._over_limit("deep-audit", "audit service")
        await self._budget.note("deep-audit", "audit", "own")
        return web.judge(scan)

    async def _ask_for_audit(self, service: web.AuditService, scan: SiteScan) -> AuditReport:
        try:
            return await web.audit(
                scan,
                business_name=self._business.name,
                locations=[self._business.city] if self._business.city else [],
                service=service,
                # A step that was running when the process died runs again, and so does a run that is resumed.
                idempotency_key=idempotency_key("audit", self._scope, self._business.place_id),
            )
        except web.AuditRefused as error:
            raise TerminalError(f"the audit service refused: {error}", status_code=error.status) from error
        except web.AuditUnavailable as error:
            raise_for_status(503, f"the audit service: {error}", retry_after_s=error.retry_after_s)
            raise

    async def _over_limit(self, step: str, provider: str) -> None:
        text = f"{provider}: {over_limit(self._budget.limit_usd)}"
        await self._steps.log("warning", f"{step} {self._business.place_id}", text)

    async def _score(self, scan: SiteScan | None, found: OwnerSearch, audit: AuditReport | None) -> ScoreReport:
        discovery = self._discovery_score(scan)
        owner = found.owner
        score = lead_score(discovery, self._business, scan, owner, audit, self._settings.weights)
        if self._job_id:
            enriched = self._enriched(scan, found, audit, score)
            await self._store.records.keep_enriched(self._job_id, enriched, discovery)
        return score

    def _discovery_score(self, scan: SiteScan | None) -> float:
        given = self._request.discovery_score
        return discovery_score(self._business, scan, self._settings.weights).score if given is None else given

    def _enriched(
        self, scan: SiteScan | None, found: OwnerSearch, audit: AuditReport | None, score: ScoreReport
    ) -> EnrichedBusiness:
        return EnrichedBusiness(
            place_id=self._business.place_id,
            name=self._business.name,
            scan_result=scan,
            owner=found.owner,
            audit_result=audit,
            lead_score=score,
            warnings=self._warnings(scan, found, audit),
        )

    def _warnings(self, scan: SiteScan | None, found: OwnerSearch, audit: AuditReport | None) -> list[str]:
        warnings = [f"{use.source}: {use.error}" for use in found.asked if use.error]
        if scan is None:
            warnings.append("no website is known")
        elif scan.failure is not None:
            warnings.append(f"website: {scan.failure.message}")
        if audit is not None and audit.source == web.OWN_AUDIT and self._settings.audit_service_url:
            warnings.append(f"audit service: {over_limit(self._budget.limit_usd)}; our own audit stands in")
        return warnings


def _as_enriched(lead: Lead) -> EnrichedBusiness:
    assert lead.score_report is not None, "an enriched lead has a score"
    return EnrichedBusiness(
        place_id=lead.business.place_id,
        name=lead.business.name,
        scan_result=lead.scan,
        owner=lead.owner,
        audit_result=lead.audit,
        lead_score=lead.score_report,
        warnings=lead.warnings,
    )


def _was_found(lead: Lead | None) -> bool:
    return lead is not None


def _scan_summary(scan: SiteScan | None) -> dict[str, Any]:
    if scan is None:
        return {"website": None}
    return {
        "reachable": scan.is_reachable,
        "pages": len(scan.pages),
        "failure": scan.failure.code if scan.failure else None,
    }


def _scan_problem(scan: SiteScan | None) -> str | None:
    return None if scan is None or scan.failure is None else f"{scan.failure.code}: {scan.failure.message}"


def _owner_summary(found: OwnerSearch) -> dict[str, Any]:
    return {"owner": found.owner.name if found.owner is not None else None, "cost_usd": found.cost_usd}


def _audit_summary(report: AuditReport | None) -> dict[str, Any]:
    return {"score": report.score if report is not None else None}


def _score_summary(report: ScoreReport) -> dict[str, Any]:
    return {"score": report.score}
