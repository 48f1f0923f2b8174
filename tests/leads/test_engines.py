"""All of leads in one process on the engines that the settings name: embedded, on a server, and both at the same time."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from apps.leads.jobs import until_over
from apps.leads.model import Business, DiscoveryRequest, EnrichmentRequest, JobStatus
from apps.leads.running import Leads, open_leads
from apps.leads.settings import EngineName, Settings
from apps.leads.tiers import TIERS
from tests.leads.local_web import LocalWeb
from tests.leads.world import PAGES, PATIENCE_S, settings_for, until
from tests.support.restate_server import RunningRestate, running_server, skip_without_server

BAKERY = (PAGES / "bakery.html").read_text()

pytestmark = pytest.mark.restate_server


@pytest.fixture(scope="module")
def server() -> Iterator[RunningRestate]:
    """One server for all of these tests, one after the other: what runs there changes with the settings."""
    skip_without_server()
    with running_server() as running:
        yield running


@pytest.fixture(autouse=True)
def _quick_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_WORKFLOW_RESTATE_DRAIN", "50ms")


def placed(
    directory: Path, web: LocalWeb, server: RunningRestate, discovery: EngineName, enrichment: EngineName, **more: Any
) -> Settings:
    return settings_for(
        directory,
        web,
        restate_ingress_url=server.ingress_url,
        restate_admin_url=server.admin_url,
        discovery_engine=discovery,
        enrichment_engine=enrichment,
        **more,
    )


def invocations(server: RunningRestate, service: str, which: str = "true") -> int:
    """How many calls of a service the server has seen, our own eyes being its admin API."""
    query = f"SELECT count(*) AS n FROM sys_invocation WHERE target_service_name = '{service}' AND {which}"
    answer = httpx.post(
        f"{server.admin_url}/query", json={"query": query}, headers={"accept": "application/json"}, timeout=PATIENCE_S
    )
    assert answer.status_code == 200, answer.text
    return int(answer.json()["rows"][0]["n"])


async def paid_run(leads: Leads) -> tuple[str, list[str]]:
    """A discovery and an enrichment of its leads by a user who can pay for both; the user, and the ledger's kinds."""
    user = uuid.uuid4().hex
    await leads.wallets.top_up(user, 600, key=user)
    discovery = await leads.jobs.start_discovery(DiscoveryRequest(user_id=user, niche="bakery", location="Arlon"))
    discovery = await until_over(leads.jobs, discovery.job_id, patience_s=PATIENCE_S)
    assert discovery.status is JobStatus.COMPLETED
    request = EnrichmentRequest(user_id=user, discovery_job_id=discovery.job_id)
    enrichment = await until_over(
        leads.jobs, (await leads.jobs.start_enrichment(request)).job_id, patience_s=PATIENCE_S
    )
    assert enrichment.status is JobStatus.COMPLETED
    assert (discovery.engine, enrichment.engine) == (
        leads.settings.discovery_engine,
        leads.settings.enrichment_engine,
    )
    assert enrichment.result is not None
    assert enrichment.result["enriched_count"] == 8
    assert (await leads.wallets.get(user)).balance_cents == 0
    return user, [line.kind for line in await leads.wallets.ledger(user)]


@pytest.mark.parametrize(
    ("discovery", "enrichment"),
    [
        ("embedded", "embedded"),
        ("embedded", "restate"),  # the default where a server is named: hybrid
        ("restate", "restate"),
        ("restate", "embedded"),
    ],
)
async def test_the_same_jobs_run_wherever_the_settings_say(
    server: RunningRestate, web: LocalWeb, tmp_path: Path, discovery: EngineName, enrichment: EngineName
) -> None:
    web.sites(lambda _: BAKERY)
    before = {name: invocations(server, name) for name in ("discovery", "enrichment", "Wallet")}
    async with open_leads(placed(tmp_path, web, server, discovery, enrichment)) as leads:
        _, kinds = await paid_run(leads)
    assert kinds == ["top_up", "charge", "hold", "capture"]
    used = {name for name, count in before.items() if invocations(server, name) > count}
    expected = {name for name, engine in (("discovery", discovery), ("enrichment", enrichment)) if engine == "restate"}
    # Money stays in one place, which is the server only when everything is there.
    assert used == expected | ({"Wallet"} if expected == {"discovery", "enrichment"} else set())


async def test_a_server_has_the_service_by_its_name(server: RunningRestate, web: LocalWeb, tmp_path: Path) -> None:
    async with open_leads(placed(tmp_path, web, server, "embedded", "restate")):
        answer = await asyncio.to_thread(httpx.get, f"{server.admin_url}/services/enrichment")
        assert answer.status_code == 200
        assert {"enrichBusiness", "enrichBatch"} <= {handler["name"] for handler in answer.json()["handlers"]}


async def test_work_on_the_other_engine_is_cancelled_with_its_job(
    server: RunningRestate, web: LocalWeb, tmp_path: Path
) -> None:
    web.sites(web.hold())
    async with open_leads(placed(tmp_path, web, server, "embedded", "restate")) as leads:
        user = uuid.uuid4().hex
        await leads.wallets.top_up(user, 600, key=user)
        discovery = await leads.jobs.start_discovery(
            DiscoveryRequest(user_id=user, niche="bakery", location="Arlon", scan=False)
        )
        await until_over(leads.jobs, discovery.job_id, patience_s=PATIENCE_S)
        job = await leads.jobs.start_enrichment(EnrichmentRequest(user_id=user, discovery_job_id=discovery.job_id))
        await until(lambda: web.asked("/sites/"))
        await leads.jobs.cancel(job.job_id)
        web.let_go()
        job = await until_over(leads.jobs, job.job_id, patience_s=PATIENCE_S)
        assert job.status is JobStatus.CANCELLED
        wallet = await leads.wallets.get(user)
        assert (wallet.balance_cents, wallet.held_cents) == (500, 0)


async def test_work_on_the_other_engine_ends_with_the_longest_run_of_its_tier(
    server: RunningRestate, web: LocalWeb, tmp_path: Path
) -> None:
    web.sites(web.hold())
    tiers = {name: msgspec.structs.replace(limits, run_max_s=1) for name, limits in TIERS.items()}
    settings = placed(tmp_path, web, server, "embedded", "restate", tiers=tiers, slow_work_time_min_s=0)
    async with open_leads(settings) as leads:
        user = uuid.uuid4().hex
        await leads.wallets.top_up(user, 500, key=user)
        one = Business(place_id="osm:node/1", name="Bakery", website="http://b1.example/")
        job = await leads.jobs.start_enrichment(EnrichmentRequest(user_id=user, businesses=[one]))
        job = await until_over(leads.jobs, job.job_id, patience_s=PATIENCE_S)
        web.let_go()
        assert job.status is JobStatus.TIMED_OUT
        wallet = await leads.wallets.get(user)
        assert (wallet.balance_cents, wallet.held_cents) == (500, 0)

        async def is_stopped_there() -> bool:
            return await asyncio.to_thread(invocations, server, "enrichment", "status <> 'completed'") == 0

        await until(is_stopped_there)
