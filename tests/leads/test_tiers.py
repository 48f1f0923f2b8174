"""What a wallet's tier allows a job: how long one run may take, and what it may cost us at providers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import restate
from restate import Context, Service

from apps.leads import wallet
from apps.leads.booking import Booking
from apps.leads.gateway import Gateway
from apps.leads.jobs import Jobs
from apps.leads.model import BatchEntry, EnrichBatchRequest, EnrichBatchResult, EnrichmentRequest, JobStatus
from apps.leads.notifications import notifications
from apps.leads.settings import ActorSettings, OwnerSourceSettings, Settings, SettingsError, UnitCosts
from apps.leads.store import Store
from apps.leads.tiers import TIERS, TierLimits, run_limits
from apps.leads.workflows import Handlers, job_workflows
from holdfast import Engine
from holdfast.testing import run_virtually
from tests.leads.conftest import OpenLeads
from tests.leads.local_web import LocalWeb
from tests.leads.test_enrichment import REPORT, audited, business


def free_with(**limits: Any) -> dict[str, TierLimits]:
    """The tiers, with another free one."""
    return TIERS | {"free": msgspec.structs.replace(TIERS["free"], **limits)}


# ---- how long ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tier", "discovery_s", "enrichment_s"),
    [("free", 60, 300), ("starter", 300, 300), ("pro", 600, 600), ("enterprise", 600, 1800), ("", 600, 1800)],
)
def test_the_longest_run_is_the_tiers_and_five_minutes_at_least_for_what_waits_for_others(
    tier: str, discovery_s: float, enrichment_s: float
) -> None:
    settings = Settings()
    assert run_limits(tier, settings.tiers, time_max_s=settings.discovery_time_max_s).time_max_s == discovery_s
    slow_s = settings.slow_work_time_min_s
    limits = run_limits(tier, settings.tiers, time_max_s=settings.enrichment_time_max_s, time_min_s=slow_s)
    assert limits.time_max_s == enrichment_s


def test_every_tier_needs_its_limits() -> None:
    with pytest.raises(SettingsError, match="LEADS_TIERS: pro is missing"):
        Settings(tiers={name: limits for name, limits in TIERS.items() if name != "pro"}).check()


@dataclass
class Outcome:
    status: JobStatus
    message: str
    took_s: float
    kinds: list[str]
    balance_cents: int
    tier: str


async def enriched(folder: Path, tier: str, work_s: float, change_to: str) -> Outcome:
    """An enrichment paid in `tier`, whose work takes `work_s`, and meanwhile the wallet gets another tier."""
    settings = Settings(directory=folder)
    work = Service("enrichment")

    @work.handler("enrichBatch")
    async def enrich_batch(ctx: Context, request: EnrichBatchRequest) -> EnrichBatchResult:
        await ctx.object_call(wallet.set_tier, key="ada", arg=Booking(key="changed", tier=change_to))
        await ctx.sleep(timedelta(seconds=work_s))
        entries = [BatchEntry(place_id=each.place_id, name=each.name, lead_score=50) for each in request.businesses]
        return EnrichBatchResult(results=entries, errors=[])

    async with Store(folder) as store:
        messages, deliver = notifications(store, settings)
        handlers = Handlers(discover=None, enrich_batch=enrich_batch, deliver=deliver)
        app = restate.app([*job_workflows(store, settings, handlers), work, messages, *wallet.SERVICES])
        async with Engine(app) as engine, Gateway.embedded(engine) as gateway:
            jobs = Jobs(store, settings, gateway)
            await jobs.wallets.top_up("ada", 500, key="1")
            await jobs.wallets.set_tier("ada", tier, key="1")
            job = await jobs.start_enrichment(EnrichmentRequest(user_id="ada", businesses=[business()]))
            job = await jobs.wait(job.job_id, timeout_s=24 * 3600)
            assert job.finished_at_ms is not None
            return Outcome(
                status=job.status,
                message=job.error.message if job.error is not None else "",
                took_s=(job.finished_at_ms - job.created_at_ms) / 1000,
                kinds=[line.kind for line in await jobs.wallets.ledger("ada") if line.kind != "set_tier"],
                balance_cents=(await jobs.wallets.get("ada")).balance_cents,
                tier=job.step_results["hold"]["limits"]["tier"],
            )


@pytest.mark.parametrize(
    ("tier", "work_s", "limit_s", "change_to"),
    [
        ("free", 290, None, "pro"),
        ("free", 310, 300, "pro"),  # what has paid counts, whatever becomes of the wallet
        ("pro", 590, None, "free"),
        ("pro", 3600, 600, "free"),
    ],
)
def test_an_enrichment_ends_at_the_limit_of_the_tier_that_paid_and_releases_its_hold(
    tmp_path: Path, tier: str, work_s: float, limit_s: float | None, change_to: str
) -> None:
    outcome = run_virtually(lambda: enriched(tmp_path, tier, work_s, change_to))
    assert outcome.tier == tier
    price_cents = {"free": 500, "pro": 250}[tier]
    if limit_s is None:
        assert (outcome.status, outcome.kinds) == (JobStatus.COMPLETED, ["top_up", "hold", "capture"])
        assert outcome.balance_cents == 500 - price_cents
    else:
        assert (outcome.status, outcome.kinds) == (JobStatus.TIMED_OUT, ["top_up", "hold", "release"])
        assert outcome.balance_cents == 500
        assert outcome.message.startswith(f"time limit of {limit_s} s reached")
    assert outcome.took_s == pytest.approx(limit_s or work_s, abs=5)


async def test_what_was_done_before_the_limit_is_kept_and_a_resume_does_the_rest(
    open_leads: OpenLeads, web: LocalWeb
) -> None:
    world = await audited(open_leads, web, tiers=free_with(run_max_s=2), slow_work_time_min_s=0)
    web.route("/api/public-audit", web.hold())
    quick, slow = business(0, website=None), business(1)
    job = await world.enrich(businesses=[quick, slow])
    assert job.status is JobStatus.TIMED_OUT
    assert job.error is not None
    assert job.error.code == 408
    assert job.error.message == "time limit of 2 s reached, the longest run of the tier free"
    assert await world.kinds() == ["top_up", "hold", "release"]
    assert await world.store.records.enriched(job.job_id, quick.place_id) is not None
    web.answers("/api/public-audit", [REPORT])
    web.let_go()
    await world.wallets.set_tier(world.user, "pro", key="bought")
    job = await world.over(await world.jobs.resume(job.job_id))
    assert job.status is JobStatus.COMPLETED
    steps = [step for step in await world.jobs.steps(job.job_id) if step.run == 2]
    assert [step.name for step in steps if step.subject == quick.place_id] == ["find-lead"]
    assert (await world.jobs.cost(job.job_id)).total_usd == 0.05  # asked again with the same key, for the same money
    assert await world.balance() == (750, 0)


# ---- how dear ------------------------------------------------------------------------------------------------------------


async def test_nothing_is_asked_that_the_tier_does_not_pay_for_and_the_rest_of_the_job_goes_on(
    open_leads: OpenLeads, web: LocalWeb
) -> None:
    """Two audits of 0.05 $ fit, the third does not; the owner source of 0.15 $ never does."""
    web.answers("/owners", [{"owner": {"name": "Ada Lovelace"}}])
    sources = (OwnerSourceSettings(name="profile_search", url=f"{web.url}/owners"), OwnerSourceSettings(name="website"))
    world = await audited(open_leads, web, tiers=free_with(cost_max_usd=0.1), owner_sources=sources)
    job = await world.enrich(businesses=[business(number) for number in range(3)])
    assert job.status is JobStatus.COMPLETED
    assert job.result is not None
    assert job.result["enriched_count"] == 3
    assert web.asked("/owners") == []
    assert len(web.asked("/api/public-audit")) == 2
    cost = await world.jobs.cost(job.job_id)
    assert cost.total_usd == 0.1
    leads = await world.jobs.leads(job.job_id)
    why = "not asked: over the tier's limit of $0.10 for one job"
    assert all(f"profile_search: {why}" in lead.warnings for lead in leads)
    assert sorted(lead.audit.source for lead in leads if lead.audit is not None) == [web.url, web.url, "local"]
    [alone] = [lead for lead in leads if lead.audit is not None and lead.audit.source == "local"]
    assert f"audit service: {why}; our own audit stands in" in alone.warnings
    logged = [line.message for line in await world.jobs.logs(job.job_id) if line.level == "warning"]
    assert f"audit service: {why}" in logged
    assert await world.kinds() == ["top_up", "hold", "capture"]


async def test_a_higher_tier_pays_for_all_of_it(open_embedded: OpenLeads, web: LocalWeb) -> None:
    world = await audited(open_embedded, web, tiers=free_with(cost_max_usd=0.1))
    await world.wallets.set_tier(world.user, "starter", key="bought")
    await world.enrich(businesses=[business(number) for number in range(3)])
    assert len(web.asked("/api/public-audit")) == 3


async def test_an_audit_that_could_not_be_made_leaves_its_money_to_the_others(
    open_embedded: OpenLeads, web: LocalWeb
) -> None:
    world = await audited(open_embedded, web, tiers=free_with(cost_max_usd=0.05), enrich_concurrency=1)
    web.route("/api/public-audit", lambda request: 422 if request.json["business_name"] == "Bakery 0" else REPORT)
    job = await world.enrich(businesses=[business(0), business(1)])
    assert job.result is not None
    assert [error["placeId"] for error in job.result["errors"]] == ["osm:node/0"]
    assert (await world.jobs.cost(job.job_id)).total_usd == 0.05
    assert len(web.asked("/api/public-audit")) == 2


async def test_a_crawl_that_would_cost_too_much_is_refused_before_it_starts_and_refunded(
    open_embedded: OpenLeads, web: LocalWeb
) -> None:
    world = await open_embedded(
        web,
        business_directory="apify",
        actor=ActorSettings(url=web.url, actor="maps", token="secret"),
        unit_costs=UnitCosts(map_search_usd=0.1),
    )
    await world.rich()
    job = await world.discover(limit=10)
    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert (job.error.code, job.error.message) == (
        422,
        "limit: 10 results would cost $1.00, over the tier's limit of $0.50 for one job; next: ask for at most 5",
    )
    assert web.requests == []
    assert await world.kinds() == ["top_up", "charge", "refund"]
