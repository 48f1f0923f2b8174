"""Enrichment: four steps per business, many businesses at a time, and a hold that is captured or released."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import msgspec
import pytest

from apps.leads.errors import EngineRefused
from apps.leads.jobs import LeadsError
from apps.leads.model import Business, EnrichBatchRequest, EnrichBusinessRequest, EnrichmentRequest, JobStatus
from apps.leads.web.types import FetchLimits
from tests.leads.conftest import OpenLeads
from tests.leads.local_web import LocalWeb, Request
from tests.leads.world import PAGES, World, until

BAKERY = (PAGES / "bakery.html").read_text()
REPORT = {"score": 40, "scores": {"seo": 30}, "issues": [{"message": "no title", "severity": "high"}]}


def business(number: int = 0, **fields: Any) -> Business:
    values: dict[str, Any] = {
        "place_id": f"osm:node/{number}",
        "name": f"Bakery {number}",
        "website": f"http://b{number}.example/",
        "phone": "+32 63 41 00 50",
    }
    return Business(**values | fields)


async def audited(open_leads: OpenLeads, web: LocalWeb, **settings: Any) -> World:
    """Sites that answer, and an audit service that gives 40 points."""
    web.sites(lambda _: BAKERY)
    web.answers("/api/public-audit", [REPORT])
    world = await open_leads(web, audit_service_url=web.url, **settings)
    await world.rich()
    return world


async def call(world: World, handler: str, argument: Any) -> Any:
    """A handler of the service, as anybody with the ingress's address calls it."""
    answer = await world.gateway._ingress.post(  # the gateway has no use for plain services
        f"/enrichment/{handler}",
        content=msgspec.json.encode(argument),
        headers={"content-type": "application/json"},
    )
    if answer.status_code != 200:
        raise EngineRefused(answer.status_code, answer.json()["message"], {})
    return answer.json()


# ---- one business ---------------------------------------------------------------------------------------------------------


async def test_one_business_is_scanned_its_owner_looked_up_audited_and_scored(
    open_leads: OpenLeads, web: LocalWeb
) -> None:
    world = await audited(open_leads, web)
    answer = await call(world, "enrichBusiness", EnrichBusinessRequest(business=business()))
    assert {"scanResult", "owner", "auditResult", "leadScore"} <= set(answer)
    assert answer["scanResult"]["access"]["is_reachable"]
    assert answer["auditResult"]["score"] == 40
    parts = {part["name"]: part["points"] for part in answer["leadScore"]["parts"]}
    assert parts["need"] == pytest.approx(0.3 * 60)
    assert sum(parts.values()) == pytest.approx(answer["leadScore"]["score"], abs=0.1)
    [request] = web.asked("/api/public-audit")
    assert request.json["business_name"] == "Bakery 0"
    assert request.headers["idempotency-key"].startswith("audit-")


async def test_the_journal_has_the_four_steps(open_embedded: OpenLeads, web: LocalWeb) -> None:
    world = await audited(open_embedded, web)
    job = await world.enrich(businesses=[business()])
    steps = [step.name for step in await world.jobs.steps(job.job_id) if step.subject]
    assert steps == ["scan-website", "find-owner", "deep-audit", "lead-score"]


async def test_a_site_that_is_too_slow_fails_its_step_and_not_its_business(
    open_embedded: OpenLeads, web: LocalWeb
) -> None:
    web.sites(web.hold())
    limits = FetchLimits(site_time_s=0.3, pause_s=0)
    world = await open_embedded(web, enrichment_limits=limits)
    await world.rich()
    job = await world.enrich(businesses=[business()])
    web.let_go()
    assert job.status is JobStatus.COMPLETED
    [scan] = [step for step in await world.jobs.steps(job.job_id) if step.name == "scan-website"]
    assert scan.status == "failed"
    assert scan.error is not None
    assert scan.error.startswith("timeout")
    [lead] = await world.jobs.leads(job.job_id)
    assert lead.audit is None
    assert any("website" in warning for warning in lead.warnings)


async def test_an_audit_that_fails_and_recovers_is_paid_once(open_leads: OpenLeads, web: LocalWeb) -> None:
    world = await audited(open_leads, web)
    web.answers("/api/public-audit", [503, 502, REPORT])
    job = await world.enrich(businesses=[business()])
    assert job.status is JobStatus.COMPLETED
    assert len({request.headers["idempotency-key"] for request in web.asked("/api/public-audit")}) == 1
    cost = await world.jobs.cost(job.job_id)
    assert [(event.provider, event.cost_usd) for event in cost.events if event.type == "audit"] == [
        ("audit service", 0.05)
    ]
    assert all(event.duration_ms > 0 for event in cost.events)


# ---- a batch --------------------------------------------------------------------------------------------------------------


async def test_fifty_businesses_are_enriched_side_by_side_and_one_that_fails_is_one_error(
    open_leads: OpenLeads, web: LocalWeb
) -> None:
    limits = FetchLimits(site_time_s=30, pages_max=1, assets_max=0, pause_s=0)
    world = await audited(open_leads, web, enrichment_limits=limits)
    web.sites(lambda _: "<!doctype html><title>A bakery</title><h1>Bread</h1>")
    together = threading.Event()

    def audit(request: Request) -> object:
        if web.running >= 10:
            together.set()
        together.wait(20)  # the first ones are answered when ten are asked at the same time
        return 422 if request.json["business_name"] == "Bakery 7" else REPORT

    web.route("/api/public-audit", audit)
    batch = EnrichBatchRequest(businesses=[business(number) for number in range(50)])
    answer = await call(world, "enrichBatch", batch)
    assert len(answer["results"]) == 49
    [error] = answer["errors"]
    assert (error["placeId"], error["code"]) == ("osm:node/7", 422)
    assert web.running_max >= 10


@pytest.mark.parametrize(
    ("businesses", "message"),
    [([], "businesses: 1 to 50, not 0"), ([business(), business()], "the same place_id comes twice")],
)
async def test_a_wrong_batch_is_refused(open_embedded: OpenLeads, businesses: list[Business], message: str) -> None:
    world = await open_embedded()
    with pytest.raises(EngineRefused, match=message) as refused:
        await call(world, "enrichBatch", EnrichBatchRequest(businesses=businesses))
    assert refused.value.code == 422


# ---- the job: hold, work, capture or release -----------------------------------------------------------------------------


async def test_the_best_leads_of_a_discovery_are_enriched_for_500_cents(open_leads: OpenLeads, web: LocalWeb) -> None:
    world = await audited(open_leads, web)
    discovery = await world.discover()
    job = await world.enrich(discovery_job_id=discovery.job_id, limit=3)
    assert job.status is JobStatus.COMPLETED
    assert job.result is not None
    assert (job.result["business_count"], job.result["enriched_count"]) == (3, 3)
    assert await world.balance() == (400, 0)
    assert await world.kinds() == ["top_up", "charge", "hold", "capture"]
    assert job.price_cents == 500
    before = {lead.business.place_id: lead.score for lead in await world.jobs.leads(discovery.job_id)}
    for lead in await world.jobs.leads(job.job_id):
        assert lead.discovery_score == before[lead.business.place_id]
        assert lead.score_report is not None
        assert lead.score == pytest.approx(sum(part.points for part in lead.score_report.parts), abs=0.1)


async def test_a_batch_in_which_some_fail_is_paid_and_says_who(open_leads: OpenLeads, web: LocalWeb) -> None:
    world = await audited(open_leads, web)
    web.route("/api/public-audit", lambda request: 404 if request.json["business_name"] == "Bakery 1" else REPORT)
    job = await world.enrich(businesses=[business(number) for number in range(3)])
    assert job.status is JobStatus.COMPLETED
    assert job.result is not None
    assert [error["placeId"] for error in job.result["errors"]] == ["osm:node/1"]
    failed = await world.jobs.lead(job.job_id, "osm:node/1")
    assert failed.error is not None
    assert "404" in failed.error
    assert await world.balance() == (500, 0)


async def test_when_every_business_fails_the_hold_is_released(open_leads: OpenLeads, web: LocalWeb) -> None:
    world = await audited(open_leads, web)
    web.answers("/api/public-audit", [400])
    job = await world.enrich(businesses=[business(number) for number in range(3)])
    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert job.error.message.startswith("none of 3 businesses could be enriched")
    assert await world.kinds() == ["top_up", "hold", "release"]
    assert await world.balance() == (1000, 0)
    assert job.price_cents == 0


async def test_a_cancelled_enrichment_releases_its_hold(open_leads: OpenLeads, web: LocalWeb) -> None:
    world = await audited(open_leads, web)
    web.route("/api/public-audit", web.hold())
    job = await world.jobs.start_enrichment(EnrichmentRequest(user_id=world.user, businesses=[business()]))
    await until(lambda: web.asked("/api/public-audit"))
    assert await world.balance() == (1000, 500)
    await world.jobs.cancel(job.job_id)
    web.let_go()
    assert (await world.over(job)).status is JobStatus.CANCELLED
    assert await world.balance() == (1000, 0)
    assert await world.kinds() == ["top_up", "hold", "release"]


async def test_two_enrichments_cannot_hold_the_same_money(open_leads: OpenLeads, web: LocalWeb) -> None:
    world = await audited(open_leads, web)  # 1000 cents: enough for two, not for three
    web.route("/api/public-audit", web.hold())
    requests = [EnrichmentRequest(user_id=world.user, businesses=[business(number)]) for number in range(3)]

    async def start(request: EnrichmentRequest) -> str | None:
        try:
            return (await world.jobs.start_enrichment(request)).job_id
        except LeadsError as refused:
            return None if refused.code == 402 else "wrong"

    started = [job_id for job_id in await asyncio.gather(*(start(request) for request in requests)) if job_id]

    async def both_hold() -> bool:
        return await world.balance() == (1000, 1000)

    await until(both_hold)
    web.answers("/api/public-audit", [REPORT])
    web.let_go()
    jobs = [await world.over(await world.jobs.get(job_id)) for job_id in started]
    # The third one was refused by the look at the wallet, or a moment later by the wallet itself.
    failed = [job for job in jobs if job.status is JobStatus.FAILED]
    assert [job.error.code for job in failed if job.error is not None] == [402] * (len(started) - 2)
    for job in failed:
        assert job.error is not None
        assert job.error.details == {"required_cents": 500, "available_cents": 0}


async def test_a_resumed_enrichment_does_only_what_is_missing(open_leads: OpenLeads, web: LocalWeb) -> None:
    world = await audited(open_leads, web)
    held = web.hold()
    web.route(
        "/api/public-audit", lambda request: held(request) if request.json["business_name"] == "Bakery 1" else REPORT
    )
    request = EnrichmentRequest(user_id=world.user, businesses=[business(0), business(1)])
    job = await world.jobs.start_enrichment(request)

    async def first_is_done() -> bool:
        return await world.store.records.enriched(job.job_id, "osm:node/0") is not None

    await until(first_is_done)
    await until(lambda: len(web.asked("/api/public-audit")) == 2)
    await world.jobs.cancel(job.job_id)
    web.answers("/api/public-audit", [REPORT])
    web.let_go()
    assert (await world.over(job)).status is JobStatus.CANCELLED
    job = await world.over(await world.jobs.resume(job.job_id))
    assert (job.status, job.run) == (JobStatus.COMPLETED, 2)
    audits = [request.json["business_name"] for request in web.asked("/api/public-audit")]
    assert audits.count("Bakery 0") == 1
    assert await world.kinds() == ["top_up", "hold", "release", "hold", "capture"]
    assert await world.balance() == (500, 0)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, 422),
        ({"businesses": [business()], "discovery_job_id": "x"}, 422),
        ({"businesses": [business(number) for number in range(51)]}, 422),
        ({"discovery_job_id": "discovery-unknown"}, 404),
        ({"businesses": [business()], "limit": 0}, 422),
    ],
)
async def test_a_wrong_request_is_refused_before_anything_is_kept(
    open_embedded: OpenLeads, fields: dict[str, Any], code: int
) -> None:
    world = await open_embedded()
    await world.rich()
    with pytest.raises(LeadsError) as refused:
        await world.enrich(**fields)
    assert refused.value.code == code
    assert await world.jobs.find(user_id=world.user) == []
