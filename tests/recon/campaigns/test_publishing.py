"""Publishing as a saga: reserve, record, publish, confirm; or all of it undone in reverse order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from restate import TerminalError

from apps.recon.campaigns.store import CampaignStore
from apps.recon.threats.model import ThreatRecord
from apps.recon.threats.store import ThreatStore
from tests.recon.campaigns.conftest import Side, until
from tests.recon.campaigns.world import listening

THREAT = "EXPOSED-VNC"
GREETING = b"RFB 003.008\n"

Fault = Callable[[], None]


class Faults:
    """The steps of the saga as they happen, and what goes wrong with them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[str] = []
        self.plan: dict[str, list[Exception]] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        put, set_published = ThreatStore.put, CampaignStore.set_published
        recorded: dict[str, int] = {}

        async def put_and_tell(store: ThreatStore, record: ThreatRecord) -> None:
            known = recorded.get(record.threat_id, 0)
            await self.happen("record" if record.updates > known else "retract")
            recorded[record.threat_id] = record.updates
            await put(store, record)

        async def publish_and_tell(store: CampaignStore, campaign_id: str, is_published: bool) -> None:
            await self.happen("publish" if is_published else "withdraw")
            await set_published(store, campaign_id, is_published)

        monkeypatch.setattr(ThreatStore, "put", put_and_tell)
        monkeypatch.setattr(CampaignStore, "set_published", publish_and_tell)

    async def happen(self, step: str) -> None:
        if self.plan.get(step):
            self.steps.append(f"{step} fails")
            raise self.plan[step].pop(0)
        self.steps.append(step)
        await self.gate.wait()


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    return Faults(monkeypatch)


async def campaign(side: Side, key: str, **options: Any) -> dict[str, Any]:
    """One that finds one threat."""
    async with listening("127.0.0.2", greeting=GREETING) as port:
        return await side.run(["127.0.0.2"], key=key, ports=[port], **options)


async def credits_of(side: Side, key: str) -> list[dict[str, Any]]:
    """What the operator's own contributor was credited for this campaign."""
    contributor = await side.get("/v1/contributors/local")
    return [one for one in contributor["credits"] if one["credit_id"] == f"campaign:{key}"]


async def sources(side: Side) -> list[str]:
    answer = await side.api.get(f"/v1/threats/{THREAT}")
    return answer.json()["threat"]["sources"] if answer.status_code == 200 else []


async def test_all_of_it(faults: Faults, side: Side, key: str) -> None:
    report = await campaign(side, key)
    assert report["campaign"]["is_published"] is True
    assert faults.steps == ["record", "publish"]
    assert f"campaign:{key}" in await sources(side)
    assert await credits_of(side, key) == [{"credit_id": f"campaign:{key}", "points": 1, "is_confirmed": True}]


REFUSED = TerminalError("refused", status_code=422)


async def test_a_failure_at_the_end_undoes_all_in_reverse(faults: Faults, side: Side, key: str) -> None:
    faults.plan["publish"] = [REFUSED]
    report = await campaign(side, key)
    assert report["campaign"]["status"] == "complete"
    assert report["campaign"]["error"] == "not published: refused"
    assert report["campaign"].get("is_published", False) is False
    assert faults.steps == ["record", "publish fails", "withdraw", "retract"]
    assert f"campaign:{key}" not in await sources(side)
    assert await credits_of(side, key) == []


async def test_a_failure_in_the_middle_undoes_what_was_before_it(faults: Faults, side: Side, key: str) -> None:
    faults.plan["record"] = [REFUSED]
    report = await campaign(side, key)
    assert "not published" in report["campaign"]["error"]
    assert [step for step in faults.steps if "fails" in step] == ["record fails"]
    assert "publish" not in faults.steps
    assert f"campaign:{key}" not in await sources(side)
    assert await credits_of(side, key) == []


async def test_a_failure_at_the_first_step_stops_it(faults: Faults, side: Side, key: str) -> None:
    banned = "A" * 43 + "="
    await side.call(f"/ContributorReputation/{banned[:-1]}/penalise", {"points": 100})
    report = await campaign(side, key, contributor=banned)
    assert "has no reputation left" in report["campaign"]["error"]
    assert faults.steps == []


async def test_passing_errors_undo_nothing(faults: Faults, side: Side, key: str) -> None:
    faults.plan = {"record": [OSError("disk")], "publish": [OSError("disk")]}
    report = await campaign(side, key)
    assert report["campaign"]["is_published"] is True
    assert faults.steps == ["record fails", "record", "publish fails", "publish"]


async def test_compensations_are_repeated_until_they_succeed(faults: Faults, side: Side, key: str) -> None:
    faults.plan = {"publish": [REFUSED], "withdraw": [OSError("disk")] * 2, "retract": [OSError("disk")]}
    await campaign(side, key)
    assert faults.steps == [
        "record", "publish fails", "withdraw fails", "withdraw fails", "withdraw", "retract fails", "retract",
    ]  # fmt: skip
    assert f"campaign:{key}" not in await sources(side)


async def test_a_compensation_that_gives_up_is_reported_and_stops_no_other(
    faults: Faults, side: Side, key: str
) -> None:
    faults.plan = {"publish": [REFUSED], "withdraw": [TerminalError("stuck", status_code=500)]}
    report = await campaign(side, key)
    assert report["campaign"]["error"] == "not published: refused; could not be undone: withdraw report (stuck)"
    assert faults.steps == ["record", "publish fails", "withdraw fails", "retract"]
    assert await credits_of(side, key) == []


async def test_a_cancelled_campaign_undoes_what_it_published(faults: Faults, side: Side, key: str) -> None:
    faults.gate.clear()
    async with listening("127.0.0.2", greeting=GREETING) as port:
        await side.start(["127.0.0.2"], key=key, ports=[port])
        await until(lambda: faults.steps == ["record"])
    await side.post(f"/v1/campaigns/{key}/cancel", status=202)
    faults.gate.set()
    assert (await side.final(key))["status"] == "cancelled"
    await until(lambda: nothing_of(side, key))
    assert "publish" not in faults.steps


async def nothing_of(side: Side, key: str) -> bool:
    return f"campaign:{key}" not in await sources(side) and not await credits_of(side, key)
