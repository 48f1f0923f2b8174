"""Discovery: what is found, what it costs, what is tried again, and what a failure or a cancellation leaves behind."""

from __future__ import annotations

import threading
from itertools import pairwise
from typing import Any

import pytest

from apps.leads.jobs import LeadsError
from apps.leads.model import DiscoveryRequest, JobStatus
from apps.leads.settings import ActorSettings, RetryPreset
from apps.leads.web.types import FetchLimits
from tests.leads.conftest import OpenLeads
from tests.leads.local_web import Answer, LocalWeb, Request
from tests.leads.world import PAGES, QUICK, World, until

BAKERY = (PAGES / "bakery.html").read_text()
PLACES = {
    "elements": [
        {"type": "node", "id": number, "lat": 49.6, "lon": 5.8, "tags": {"shop": "bakery", "name": f"Bakery {number}"}}
        for number in range(3)
    ]
}


def sites(count: int) -> dict[str, object]:
    """An Overpass answer with so many bakeries, each with a website of its own."""
    return {
        "elements": [
            {
                "type": "node",
                "id": number,
                "lat": 49.6,
                "lon": 5.8,
                "tags": {"shop": "bakery", "name": f"Bakery {number}", "website": f"http://b{number}.example"},
            }
            for number in range(count)
        ]
    }


async def with_overpass(open_leads: OpenLeads, web: LocalWeb, answers: list[object], **settings: object) -> World:
    web.answers("/search", answers)
    world = await open_leads(web, overpass_url=f"{web.url}/search", business_directory="overpass", **settings)
    await world.rich()
    return world


# ---- found, looked at, scored ---------------------------------------------------------------------------------------------


async def test_businesses_of_a_real_extract_are_found_scanned_and_scored(open_leads: OpenLeads, web: LocalWeb) -> None:
    web.page("www.pains-et-tradition.be", BAKERY)
    world = await open_leads(web)
    await world.rich()
    job = await world.discover(limit=100)
    assert job.status is JobStatus.COMPLETED
    assert job.result is not None
    # Nine features, eight bakeries: one is there as an outline and as a point. Two have a website, one of them answers.
    assert (job.result["found_count"], job.result["duplicate_count"], job.result["lead_count"]) == (9, 1, 8)
    assert job.result["stats"] | {"total": 8, "with_website": 2, "scanned": 1} == job.result["stats"]
    [warning] = job.result["warnings"]
    assert warning.startswith("Wiltgen: ")
    leads = await world.jobs.leads(job.job_id)
    assert [lead.score for lead in leads] == sorted((lead.score or 0 for lead in leads), reverse=True)
    assert {lead.business.licence for lead in leads} == {"© OpenStreetMap contributors, ODbL 1.0"}
    [scanned] = [lead for lead in leads if lead.scan is not None and lead.scan.is_reachable]
    assert scanned.business.name == "La tradition du bon pain"
    assert scanned.score_report is not None
    assert sum(part.points for part in scanned.score_report.parts) == scanned.score
    assert await world.balance() == (900, 0)
    assert job.price_cents == 100


async def test_a_job_tells_its_steps_their_results_its_logs_and_its_cost(open_leads: OpenLeads, web: LocalWeb) -> None:
    web.sites(lambda _: BAKERY)
    world = await open_leads(web)
    await world.rich()
    job = await world.discover()
    steps = await world.jobs.steps(job.job_id)
    names = ["mark-running", "charge", "search", "list-websites", "scan-websites-1", "score", "mark-completed"]
    assert [step.name for step in steps] == names
    assert [step.index for step in steps] == [*range(7)]
    assert {(step.status, step.attempt_count) for step in steps} == {("completed", 1)}
    assert [*job.step_results] == names
    assert job.current_step == 7
    assert job.step_results["search"] == {"found_count": 9, "duplicate_count": 1, "lead_count": 8}
    logs = await world.jobs.logs(job.job_id)
    assert any("http://www.wiltgen.be/ answered in" in line.message for line in logs)
    cost = await world.jobs.cost(job.job_id)
    assert (cost.total_usd, cost.price_cents) == (0, 100)
    assert {step.step: step.event_count for step in cost.steps} == {"search": 1, "scan-websites-1": 2}


async def test_without_scanning_nothing_is_known_of_the_websites(open_embedded: OpenLeads, web: LocalWeb) -> None:
    world = await open_embedded(web)
    await world.rich()
    job = await world.discover(scan=False)
    assert {lead.score for lead in await world.jobs.leads(job.job_id)} == {50}
    assert web.requests == []


async def test_at_most_five_sites_are_asked_at_the_same_time(open_embedded: OpenLeads, web: LocalWeb) -> None:
    together = threading.Event()

    def answer(_: Request) -> object:
        if web.running >= 2:
            together.set()
        together.wait(20)  # the first one is answered when a second one is asked at the same time
        return BAKERY

    web.sites(answer)
    world = await with_overpass(open_embedded, web, [sites(12)], scan_batch_size=12)
    job = await world.discover(limit=12)
    assert job.status is JobStatus.COMPLETED
    assert job.result is not None
    assert job.result["stats"]["scanned"] == 12
    assert 2 <= web.running_max <= 5


async def test_a_site_that_is_too_slow_is_cut(open_embedded: OpenLeads, web: LocalWeb) -> None:
    web.sites(web.hold())
    limits = FetchLimits(site_time_s=0.5, pages_max=1, assets_max=0, pause_s=0)
    world = await with_overpass(open_embedded, web, [sites(1)], discovery_limits=limits)
    job = await world.discover()
    assert job.status is JobStatus.COMPLETED
    lead = await world.jobs.lead(job.job_id, "osm:node/0")
    assert lead.scan is not None
    assert lead.scan.failure is not None
    assert lead.scan.failure.code == "timeout"


# ---- what is tried again --------------------------------------------------------------------------------------------------


async def test_a_search_that_fails_and_recovers_is_no_failure(open_leads: OpenLeads, web: LocalWeb) -> None:
    world = await with_overpass(open_leads, web, [503, Answer(200, b"busy", "text/html"), PLACES])
    job = await world.discover()
    assert job.status is JobStatus.COMPLETED
    assert len(web.asked("/search")) == 3
    [search] = [step for step in await world.jobs.steps(job.job_id) if step.name == "search"]
    assert search.attempt_count == 3
    warnings = [line.message for line in await world.jobs.logs(job.job_id) if line.level == "warning"]
    assert [warning.split(":")[0] for warning in warnings] == ["attempt 1 failed", "attempt 2 failed"]


async def test_a_search_that_keeps_failing_is_tried_three_times_with_growing_waits_and_refunded(
    open_leads: OpenLeads, web: LocalWeb
) -> None:
    retry = RetryPreset(first_wait_s=0.2, wait_max_s=0.8)
    world = await with_overpass(open_leads, web, [503], search_retry=retry)
    job = await world.discover()
    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert "answered with 503" in job.error.message
    assert job.error.is_retryable
    first, second, third = [request.at for request in web.asked("/search")]
    assert second - first >= 0.2
    assert third - second >= 0.4
    assert any(line.level == "error" for line in await world.jobs.logs(job.job_id))
    assert await world.balance() == (1000, 0)
    assert await world.kinds() == ["top_up", "charge", "refund"]
    assert job.price_cents == 0


def test_by_default_there_are_three_attempts_after_1_and_2_seconds() -> None:
    retry = RetryPreset()
    waits = [retry.first_wait_s * retry.factor**number for number in range(retry.attempts - 1)]
    assert waits == [1, 2]
    assert retry.options().max_attempts == 3


async def test_the_number_of_attempts_and_the_waits_are_settings(open_embedded: OpenLeads, web: LocalWeb) -> None:
    retry = RetryPreset(attempts=2, first_wait_s=0.3, factor=1)
    world = await with_overpass(open_embedded, web, [500], search_retry=retry)
    assert (await world.discover()).status is JobStatus.FAILED
    [wait] = [later.at - earlier.at for earlier, later in pairwise(web.asked("/search"))]
    assert wait >= 0.3


async def test_what_can_never_succeed_is_tried_once(open_embedded: OpenLeads, web: LocalWeb) -> None:
    world = await with_overpass(open_embedded, web, [400])
    job = await world.discover()
    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert (job.error.code, job.error.is_retryable) == (400, False)
    assert len(web.asked("/search")) == 1
    assert await world.balance() == (1000, 0)


async def test_a_discovery_whose_sites_are_all_down_completes(open_embedded: OpenLeads, web: LocalWeb) -> None:
    web.sites(lambda _: 503)
    world = await with_overpass(open_embedded, web, [sites(6)])
    job = await world.discover()
    assert job.status is JobStatus.COMPLETED
    assert job.result is not None
    assert (job.result["lead_count"], job.result["stats"]["scanned"]) == (6, 0)
    assert len(job.result["warnings"]) == 6


# ---- money, identity ------------------------------------------------------------------------------------------------------


async def test_without_money_nothing_is_searched(open_embedded: OpenLeads, web: LocalWeb) -> None:
    world = await with_overpass(open_embedded, web, [PLACES])
    request = DiscoveryRequest(user_id="poor" + world.user, niche="bakery", location="Arlon")
    with pytest.raises(LeadsError, match="100 cents required, 0 available") as refused:
        await world.jobs.start_discovery(request)
    assert refused.value.code == 402
    assert refused.value.details == {"required_cents": 100, "available_cents": 0}
    assert await world.jobs.find(user_id=request.user_id) == []
    assert web.requests == []


async def test_a_job_for_holders_of_the_master_key_is_not_charged(open_embedded: OpenLeads, web: LocalWeb) -> None:
    world = await with_overpass(open_embedded, web, [PLACES])
    free = DiscoveryRequest(user_id="poor" + world.user, niche="bakery", location="Arlon", is_free=True)
    job = await world.over(await world.jobs.start_discovery(free))
    assert (job.status, job.price_cents) == (JobStatus.COMPLETED, 0)
    assert (await world.wallets.get(free.user_id)).booking_count == 0


async def test_a_client_key_names_one_job(open_leads: OpenLeads, web: LocalWeb) -> None:
    world = await with_overpass(open_leads, web, [PLACES])
    job = await world.discover(client_key="monday")
    again = await world.discover(client_key="monday")
    assert again.job_id == job.job_id
    assert len(web.asked("/search")) == 1
    assert await world.balance() == (900, 0)
    with pytest.raises(LeadsError, match="has another request"):
        await world.discover(client_key="monday", limit=20)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"niche": "unicorn shop"},
            "niche 'unicorn shop' is unknown; next: a tag such as shop=bakery, or one of: bakery",
        ),
        ({"niche": " "}, "niche: is required"),
        ({"location": ", IL"}, "location: is required"),
        ({"limit": 101}, "limit: 1 to 100, not 101"),
        ({"directory": "yellow"}, "directory: 'yellow' is not configured; there is osm"),
    ],
)
async def test_a_wrong_request_is_refused_before_anything_is_kept(
    open_embedded: OpenLeads, change: dict[str, object], message: str
) -> None:
    world = await open_embedded()
    await world.rich()
    fields: dict[str, Any] = {"niche": "bakery", "location": "Arlon"} | change
    with pytest.raises(LeadsError) as refused:
        await world.discover(**fields)
    assert (refused.value.code, refused.value.message[: len(message)]) == (422, message)
    assert await world.jobs.find(user_id=world.user) == []


# ---- cancel, time limit, resume -------------------------------------------------------------------------------------------


async def test_a_cancelled_discovery_gives_its_money_back(open_leads: OpenLeads, web: LocalWeb) -> None:
    web.sites(web.hold())
    world = await with_overpass(open_leads, web, [sites(3)])
    request = DiscoveryRequest(user_id=world.user, niche="bakery", location="Arlon")
    job = await world.jobs.start_discovery(request)
    await until(lambda: web.asked("/sites/"))
    assert await world.balance() == (900, 0)
    await world.jobs.cancel(job.job_id)
    await world.jobs.cancel(job.job_id)
    web.let_go()
    job = await world.over(job)
    assert job.status is JobStatus.CANCELLED
    assert await world.balance() == (1000, 0)
    assert await world.kinds() == ["top_up", "charge", "refund"]


async def test_a_discovery_that_takes_too_long_times_out_and_is_refunded(open_leads: OpenLeads, web: LocalWeb) -> None:
    web.sites(web.hold())
    world = await with_overpass(open_leads, web, [sites(3)], discovery_time_max_s=0.5)
    job = await world.discover()
    assert job.status is JobStatus.TIMED_OUT
    assert job.error is not None
    assert job.error.message == "time limit of 0.5 s reached"
    assert await world.balance() == (1000, 0)


async def test_a_resumed_job_goes_on_after_its_last_good_step(open_leads: OpenLeads, web: LocalWeb) -> None:
    web.sites(web.hold())
    world = await with_overpass(open_leads, web, [sites(3)])
    web.page("b0.example", BAKERY)
    request = DiscoveryRequest(user_id=world.user, niche="bakery", location="Arlon")
    job = await world.jobs.start_discovery(request)

    async def first_is_kept() -> bool:
        lead = await world.store.records.lead(job.job_id, "osm:node/0")
        return lead is not None and lead.scan is not None

    await until(first_is_kept)
    await world.jobs.cancel(job.job_id)
    job = await world.over(job)
    assert job.status is JobStatus.CANCELLED
    web.sites(lambda _: BAKERY)
    web.let_go()
    job = await world.over(await world.jobs.resume(job.job_id))
    assert (job.status, job.run) == (JobStatus.COMPLETED, 2)
    assert len(web.asked("/search")) == 1
    assert len([request for request in web.asked("/sites/b0.example") if request.path.endswith("/")]) == 1
    assert await world.kinds() == ["top_up", "charge", "refund", "charge"]
    assert await world.balance() == (900, 0)
    assert {step.run for step in await world.jobs.steps(job.job_id)} == {1, 2}
    with pytest.raises(LeadsError, match="is completed; there is nothing to resume"):
        await world.jobs.resume(job.job_id)


# ---- a hosted crawler -----------------------------------------------------------------------------------------------------


def crawler(web: LocalWeb, statuses: list[str], items: list[object]) -> ActorSettings:
    """An Apify-style API whose run has these statuses, one per look."""

    def run(status: str) -> dict[str, object]:
        return {"data": {"id": "r1", "status": status, "defaultDatasetId": "d1"}}

    web.answers("/v2/acts/maps/runs", [503, run("READY")])
    web.answers("/v2/actor-runs/r1", [run(status) for status in statuses])
    web.answers("/v2/actor-runs/r1/abort", [run("ABORTED")])
    web.answers("/v2/datasets/d1/items", [items])
    return ActorSettings(url=web.url, actor="maps", token="secret", poll_wait_s=0.05, polls_max=8)


async def with_crawler(open_leads: OpenLeads, web: LocalWeb, statuses: list[str], items: list[object]) -> World:
    actor = crawler(web, statuses, items)
    world = await open_leads(web, actor=actor, business_directory="apify")
    await world.rich()
    return world


ITEMS: list[object] = [
    {
        "placeId": "p1",
        "title": "Springfield Bread",
        "website": "http://bread.example",
        "phone": "(217) 555-0101",
        "totalScore": 4.6,
        "reviewsCount": 87,
        "categoryName": "Bakery",
        "city": "Springfield",
        "state": "Illinois",
        "location": {"lat": 39.8, "lng": -89.6},
    },
    {"placeId": "p1", "title": "Springfield Bread"},
    {"placeId": "p2", "title": "Second Rise", "reviewsCount": 3},
    {"title": "nobody knows its id"},
]


async def test_a_crawlers_run_is_started_asked_after_and_fetched(open_leads: OpenLeads, web: LocalWeb) -> None:
    web.page("bread.example", BAKERY)
    world = await with_crawler(open_leads, web, ["RUNNING", "RUNNING", "SUCCEEDED"], ITEMS)
    job = await world.discover("bakery", "Springfield, IL", limit=10)
    assert job.status is JobStatus.COMPLETED
    start = web.asked("/v2/acts/maps/runs")[-1]
    assert start.json == {
        "searchStringsArray": ["bakery"],
        "city": "Springfield",
        "state": "IL",
        "maxCrawledPlacesPerSearch": 10,
    }
    assert start.headers["authorization"] == "Bearer secret"
    # The start was repeated after a 503: with the same key, so that it cannot be paid twice.
    assert len({request.headers["idempotency-key"] for request in web.asked("/v2/acts/maps/runs")}) == 1
    assert len(web.asked("/v2/actor-runs/r1")) == 3
    leads = await world.jobs.leads(job.job_id)
    assert {lead.business.place_id for lead in leads} == {"apify:p1", "apify:p2"}
    [best] = [lead for lead in leads if lead.business.place_id == "apify:p1"]
    assert best.score_report is not None
    assert {part.name: part.points for part in best.score_report.parts}["reviews"] == 5
    assert (await world.jobs.cost(job.job_id)).total_usd == pytest.approx(4 * 0.004)


@pytest.mark.parametrize(
    ("statuses", "message"),
    [(["RUNNING", "FAILED"], "ended as FAILED"), (["RUNNING"], "did not end in time")],
)
async def test_a_crawlers_run_that_does_not_succeed_is_refunded(
    open_embedded: OpenLeads, web: LocalWeb, statuses: list[str], message: str
) -> None:
    world = await with_crawler(open_embedded, web, statuses, [])
    job = await world.discover("bakery", "Springfield")
    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert message in job.error.message
    assert await world.balance() == (1000, 0)
    assert len(web.asked("/v2/actor-runs/r1/abort")) == (message == "did not end in time")


async def test_a_crawlers_run_is_aborted_when_its_discovery_is_cancelled(open_leads: OpenLeads, web: LocalWeb) -> None:
    world = await with_crawler(open_leads, web, ["RUNNING"], [])
    assert world.settings.search_retry == QUICK
    request = DiscoveryRequest(user_id=world.user, niche="bakery", location="Springfield")
    job = await world.jobs.start_discovery(request)
    await until(lambda: web.asked("/v2/actor-runs/r1"))
    await world.jobs.cancel(job.job_id)
    assert (await world.over(job)).status is JobStatus.CANCELLED
    await until(lambda: web.asked("/v2/actor-runs/r1/abort"))
    assert await world.balance() == (1000, 0)
