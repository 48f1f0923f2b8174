"""Jobs between the database and the engine: what was kept and not started, killed, paused, refused by the wallet."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from apps.leads.gateway import Gateway
from apps.leads.jobs import Jobs, LeadsError
from apps.leads.model import Business, DiscoveryRequest, EnrichmentRequest, JobKind, JobOrder, JobStatus
from apps.leads.store import Store
from tests.leads.conftest import OpenLeads
from tests.leads.local_web import LocalWeb
from tests.leads.world import World, open_world, settings_for, until


def bakeries(world: World) -> DiscoveryRequest:
    return DiscoveryRequest(user_id=world.user, niche="bakery", location="Arlon", client_key="mine")


async def searching(open_leads: OpenLeads, web: LocalWeb) -> World:
    """A search that does not answer until it is let go."""
    web.route("/search", web.hold())
    world = await open_leads(web, overpass_url=f"{web.url}/search", business_directory="overpass")
    await world.rich()
    return world


async def test_what_the_wallet_refuses_fails_with_the_amounts_and_without_any_work(
    open_leads: OpenLeads, web: LocalWeb
) -> None:
    world = await searching(open_leads, web)
    await world.rich(99)  # some other user's 1099 cents are of no use to this one
    order = JobOrder(
        job_id=f"discovery-{world.user}",
        run=1,
        tenant_id="t",
        user_id=f"poor-{world.user}",
        kind=JobKind.DISCOVERY,
        request={"user_id": f"poor-{world.user}", "niche": "bakery", "location": "Arlon"},
    )
    await world.store.create_job(
        order.job_id,
        tenant_id="t",
        user_id=order.user_id,
        kind=order.kind,
        engine="embedded",
        request=order.request,
    )
    invocation_id = await world.gateway.send("DiscoveryJob", order.run_id, "discover", order)
    await world.store.set_invocation(order.job_id, 1, invocation_id)
    job = await world.over(await world.jobs.get(order.job_id))
    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert (job.error.code, job.error.details) == (402, {"required_cents": 100, "available_cents": 0})
    assert [step.name for step in await world.jobs.steps(job.job_id)] == ["mark-running", "mark-failed"]
    assert (await world.wallets.get(order.user_id)).booking_count == 0
    assert web.requests == []


MOMENTS = {
    JobKind.DISCOVERY: [
        "mark-running",
        "charge",
        "search",
        "list-websites",
        "scan-websites-1",
        "score",
        "mark-completed",
    ],
    JobKind.ENRICHMENT: ["mark-running", "hold", "prepare", "scan-website", "deep-audit", "lead-score", "capture"],
}


@pytest.mark.parametrize("kind", MOMENTS)
async def test_a_cancellation_at_any_moment_leaves_the_money_right(
    open_leads: OpenLeads, web: LocalWeb, kind: JobKind
) -> None:
    web.sites(lambda _: "<!doctype html><title>A bakery</title>")
    world = await open_leads(web)
    await world.rich(10_000)
    paid = 0
    for moment in MOMENTS[kind]:
        if kind is JobKind.DISCOVERY:
            job = await world.jobs.start_discovery(
                DiscoveryRequest(user_id=world.user, niche="bakery", location="Arlon")
            )
        else:
            business = Business(place_id="p", name="Bread", website="http://bread.example")
            job = await world.jobs.start_enrichment(EnrichmentRequest(user_id=world.user, businesses=[business]))
        await until(partial(has_begun, world, job.job_id, moment))
        await world.jobs.cancel(job.job_id)
        job = await world.over(job)
        assert job.status in (JobStatus.CANCELLED, JobStatus.COMPLETED)
        assert job.error is None or job.error.message == "cancelled"
        if job.status is JobStatus.COMPLETED:  # it was too late
            paid += 100 if kind is JobKind.DISCOVERY else 500
        assert await world.balance() == (10_000 - paid, 0)


async def has_begun(world: World, job_id: str, step: str) -> bool:
    return any(each.name == step for each in await world.store.steps(job_id))


async def test_a_killed_job_has_failed_its_money_is_given_back_and_it_can_be_resumed(
    open_leads: OpenLeads, web: LocalWeb
) -> None:
    world = await searching(open_leads, web)
    job = await world.jobs.start_discovery(bakeries(world))
    await until(lambda: web.asked("/search"))
    assert await world.balance() == (900, 0)
    answer = await world.gateway._admin.patch(f"/invocations/{job.invocation_id}/kill")
    assert answer.is_success
    job = await world.over(job)
    assert (job.status, job.price_cents) == (JobStatus.FAILED, 0)
    assert job.error is not None
    assert job.error.message == "its workflow was killed"
    assert await world.balance() == (1000, 0)
    web.answers("/search", [{"elements": []}])
    web.let_go()
    job = await world.over(await world.jobs.resume(job.job_id))
    assert (job.status, job.run) == (JobStatus.COMPLETED, 2)
    assert await world.balance() == (900, 0)


async def test_resuming_what_runs_changes_nothing(open_leads: OpenLeads, web: LocalWeb) -> None:
    world = await searching(open_leads, web)
    job = await world.jobs.start_discovery(bakeries(world))
    await until(lambda: web.asked("/search"))
    assert (await world.jobs.resume(job.job_id)).run == 1
    web.answers("/search", [{"elements": []}])
    web.let_go()
    assert (await world.over(job)).run == 1
    assert await world.balance() == (900, 0)


async def test_a_job_that_the_engine_did_not_get_is_kept_and_started_later(tmp_path: Path, web: LocalWeb) -> None:
    settings = settings_for(tmp_path, web)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(Store(tmp_path))
        nowhere = await stack.enter_async_context(Gateway.http("http://127.0.0.1:1", "http://127.0.0.1:1"))
        request = DiscoveryRequest(
            user_id="ada", niche="bakery", location="Arlon", scan=False, client_key="k", is_free=True
        )
        with pytest.raises(LeadsError, match="the engine cannot be reached") as refused:
            await Jobs(store, settings, nowhere).start_discovery(request)
        assert (refused.value.code, refused.value.is_retryable) == (503, True)
        assert [job.status for job in await store.jobs()] == [JobStatus.PENDING]
    async with AsyncExitStack() as stack:
        world = await open_world(stack, settings, None, is_suspending=False)
        assert await world.jobs.recover() == 1
        [job] = await world.jobs.find()
        assert (await world.over(job)).status is JobStatus.COMPLETED
        assert await world.jobs.recover() == 0


async def test_a_job_that_was_not_started_is_cancelled_for_good(tmp_path: Path, web: LocalWeb) -> None:
    async with AsyncExitStack() as stack:
        world = await open_world(stack, settings_for(tmp_path, web), None, is_suspending=False)
        await world.rich()
        request = bakeries(world)
        kept = await world.store.create_job(
            "discovery-1", tenant_id="t", user_id=world.user, kind=JobKind.DISCOVERY, engine="embedded", request=request
        )
        job = await world.jobs.cancel(kept[0].job_id)
        assert job.status is JobStatus.CANCELLED
        # A start that was on its way comes after the cancellation, and finds it.
        order = JobOrder(
            job_id=job.job_id,
            run=1,
            tenant_id="t",
            user_id=world.user,
            kind=JobKind.DISCOVERY,
            request=json.loads(json.dumps(job.request)),
        )
        await world.gateway.send("DiscoveryJob", order.run_id, "discover", order)
        await world.gateway.attach("DiscoveryJob", order.run_id, 30)
        assert (await world.jobs.get(job.job_id)).status is JobStatus.CANCELLED
        assert await world.balance() == (1000, 0)


async def test_what_does_not_exist_is_a_404(open_embedded: OpenLeads) -> None:
    world = await open_embedded()
    for ask in (
        world.jobs.get,
        world.jobs.steps,
        world.jobs.logs,
        world.jobs.cost,
        world.jobs.cancel,
        world.jobs.resume,
    ):
        with pytest.raises(LeadsError, match="there is no job x") as refused:
            await ask("x")
        assert refused.value.as_json() == {
            "code": 404,
            "message": "there is no job x",
            "retryable": False,
            "details": {},
        }
    assert await world.jobs.find(user_id="nobody") == []
