"""Campaigns that the engine did not take at once, or was made to forget, and the states that a campaign may go through."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
import restate

from apps.recon.api import create_api
from apps.recon.campaigns.model import FINAL, TRANSITIONS, CampaignRequest, Phase
from apps.recon.campaigns.store import CampaignStore
from apps.recon.control import SWEEPER, SWEEPER_KEY, start_sweeper
from apps.recon.store import Store
from apps.recon.surreal import StoreError
from tests.recon.campaigns.conftest import AUTHORISED, SETTINGS, Side, StartSide, until
from tests.support.restate_server import free_ports

TARGETS = ["127.0.0.2", "127.0.0.3"]
BODY = {"targets": TARGETS, "options": {"ports": [9]}}
OFTEN = replace(SETTINGS, sweep_interval=timedelta(milliseconds=100))


@asynccontextmanager
async def away(side: Side) -> AsyncIterator[httpx.AsyncClient]:
    """The same API on the same database, but its engine cannot be reached."""
    [nobody] = free_ports(1)
    async with restate.create_client(f"http://127.0.0.1:{nobody}") as client:
        transport = httpx.ASGITransport(create_api(side.store, client, SETTINGS))
        async with httpx.AsyncClient(transport=transport, base_url="http://recon", headers=AUTHORISED) as api:
            yield api


@pytest.fixture
async def started_later(start_side: StartSide, key: str) -> AsyncIterator[Side]:
    """recon with a campaign that was accepted while the engine was away."""
    async with start_side(OFTEN) as side:
        async with away(side) as api:
            answer = await api.post("/v1/campaigns", json={**BODY, "campaign_id": key})
        assert answer.status_code == 202, answer.text
        campaign = answer.json()
        assert (campaign["status"], campaign["total"], campaign["invocation_id"]) == ("initializing", 2, None)
        yield side


async def test_without_an_engine_a_campaign_is_accepted_and_the_sweeper_starts_it(
    started_later: Side, key: str
) -> None:
    side = started_later
    await start_sweeper(side.client)
    try:
        done = await side.final(key)
        assert (done["status"], done["scanned"], done["total"]) == ("complete", 2, 2)
        beside = await side.run(TARGETS, key=f"{key}-beside", ports=[9])
        assert beside["campaign"]["scanned"] == 2
        await until_ticked(side)
    finally:
        await side.client.generic_call(SWEEPER, "stop", b"", key=SWEEPER_KEY)
    assert side.witness.calls == dict.fromkeys(TARGETS, 2), "one scan for each campaign: none ran twice"


async def until_ticked(side: Side) -> None:
    """Until the sweeper has looked once more, from beginning to end."""

    async def ticks() -> int:
        return (await side.call(f"/{SWEEPER}/{SWEEPER_KEY}/get"))["ticks"]

    before = await ticks()

    async def is_later() -> bool:
        return await ticks() > before + 1

    await until(is_later)


async def test_sent_again_it_is_started_at_once(started_later: Side, key: str) -> None:
    await started_later.start(TARGETS, key=key, ports=[9])
    assert (await started_later.final(key))["status"] == "complete"
    assert started_later.witness.calls == dict.fromkeys(TARGETS, 1)


async def test_cancelled_before_it_began_it_never_begins(started_later: Side, key: str) -> None:
    side = started_later
    cancelled = await side.post(f"/v1/campaigns/{key}/cancel", status=202)
    assert (cancelled["status"], cancelled["error"]) == ("cancelled", "cancelled before it began")
    late = await side.call(f"/Campaign/{key}/run", {"campaign_id": key}, status=400)
    assert "is cancelled" in late
    assert (await side.get(f"/v1/campaigns/{key}"))["status"] == "cancelled"
    assert not side.witness.calls


async def test_a_cancel_that_the_engine_does_not_take_says_so(side: Side, key: str) -> None:
    side.witness.gate.clear()
    await side.start(TARGETS, key=key, ports=[9])
    async with away(side) as api:
        answer = await api.post(f"/v1/campaigns/{key}/cancel")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    side.witness.gate.set()
    assert (await side.final(key))["status"] == "complete"


async def test_a_campaign_that_an_operator_killed_ends_as_failed(start_side: StartSide, key: str) -> None:
    async with start_side(OFTEN) as side:
        side.witness.gate.clear()
        await side.start(TARGETS, key=key, ports=[9])
        await until(lambda: side.witness.running == len(TARGETS))
        await start_sweeper(side.client)
        try:
            await until(lambda: is_watched(side, key))
            invocation = (await side.get(f"/v1/campaigns/{key}"))["invocation_id"]
            killed = await side.admin.patch(f"/invocations/{invocation}/kill")
            assert killed.status_code in (200, 202), killed.text
            done = await side.final(key)
        finally:
            side.witness.gate.set()
            await side.client.generic_call(SWEEPER, "stop", b"", key=SWEEPER_KEY)
        assert (done["status"], done["completed_at"] is not None) == ("failed", True)
        assert done["error"].startswith("its workflow was ended from outside: ")
        assert await until(lambda: side.session(key, "failed"))


async def is_watched(side: Side, key: str) -> bool:
    """Whether somebody waits for the end of the campaign's workflow."""
    marked = await side.store.read("SELECT VALUE is_watched FROM type::thing('campaign', $key)", key=key)
    return marked == [[True]]


# -- states --------------------------------------------------------------------------------------------------------


async def test_the_database_refuses_phases_that_may_not_follow(tmp_path: Path) -> None:
    async with Store(tmp_path / "surreal") as store:

        async def move(campaign: str, phase: Phase) -> None:
            await store.write(
                "UPDATE type::thing('campaign', $campaign) SET phase = $phase", campaign=campaign, phase=phase.value
            )

        for before in Phase:
            for after in Phase:
                campaign = f"{before}-{after}"
                await CampaignStore(store).create(CampaignRequest(campaign, ["127.0.0.1"]), 1)
                for step in WAY_TO[before]:
                    await move(campaign, step)
                if after is before or after in TRANSITIONS[before]:
                    await move(campaign, after)
                else:
                    with pytest.raises(StoreError):
                        await move(campaign, after)


async def test_of_a_start_and_a_cancel_only_the_first_counts(tmp_path: Path) -> None:
    """They may come at the same time: each is one statement that looks and writes."""
    async with Store(tmp_path / "surreal") as store:
        campaigns = CampaignStore(store)
        for campaign in ("started", "cancelled"):
            await campaigns.create(CampaignRequest(campaign, ["127.0.0.1"]), 1)
        assert await campaigns.set_invocation("started", "inv_1")
        assert not await campaigns.cancel_unstarted("started")
        assert await campaigns.cancel_unstarted("cancelled")
        assert not await campaigns.set_invocation("cancelled", "inv_2")
        found = [await campaigns.campaign(campaign) for campaign in ("started", "cancelled")]
        assert [(one.status, one.invocation_id) for one in found if one] == [
            ("initializing", "inv_1"),
            ("cancelled", None),
        ]


WAY_TO = {
    Phase.INITIALIZING: [],
    Phase.AWAITING_APPROVAL: [Phase.AWAITING_APPROVAL],
    Phase.SCANNING: [Phase.SCANNING],
    Phase.CORRELATING: [Phase.SCANNING, Phase.CORRELATING],
    Phase.COMPLETE: [Phase.SCANNING, Phase.CORRELATING, Phase.COMPLETE],
    Phase.FAILED: [Phase.FAILED],
    Phase.CANCELLED: [Phase.CANCELLED],
}


def test_a_campaign_ends_in_one_of_three_ways() -> None:
    assert {phase.value for phase in FINAL} == {"complete", "failed", "cancelled"}
