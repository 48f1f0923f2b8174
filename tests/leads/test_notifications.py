"""Messages to Discord: what they say, how rate limits are waited for, and that no event is told twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from apps.leads.model import JobKind, JobOrder, JobStatus
from apps.leads.notifications import Event, address_of, job_event
from apps.leads.settings import Settings
from tests.leads.conftest import OpenLeads
from tests.leads.local_web import Answer, LocalWeb, Request
from tests.leads.world import World, until

EVENT = Event(event_id="e1", embeds=[{"title": "A discovery is completed"}])


async def with_webhook(open_leads: OpenLeads, web: LocalWeb, answers: list[object]) -> World:
    web.answers("/hook", answers)
    return await open_leads(web, webhooks={"team": f"{web.url}/hook"})


async def delivered(world: World, event: Event = EVENT, target: str = "team") -> dict[str, Any]:
    return await world.gateway.call("Notifications", target, "deliver", event)


async def test_the_end_of_a_job_is_told_with_an_embed(open_leads: OpenLeads, web: LocalWeb) -> None:
    world = await with_webhook(open_leads, web, [204])
    await world.rich()
    job = await world.discover(notify=["team"], scan=False)
    await until(lambda: web.asked("/hook"))
    [request] = web.asked("/hook")
    [embed] = request.json["embeds"]
    assert embed["title"] == "Discovery completed: bakery in Arlon"
    facts = {field["name"]: field["value"] for field in embed["fields"]}
    assert facts == {
        "Job": job.job_id,
        "Leads": "8",
        "With website": "2",
        "Websites that answered": "0",
        "Best score": "50.0",
    }
    assert request.json["allowed_mentions"] == {"parse": []}

    async def is_noted() -> bool:
        deliveries = await world.store.deliveries(f"{job.job_id}:completed")
        return [each["state"] for each in deliveries] == ["sent"]

    await until(is_noted)


async def test_a_rate_limit_is_waited_for(open_leads: OpenLeads, web: LocalWeb) -> None:
    limited = Answer(429, b'{"message": "You are being rate limited.", "retry_after": 0.3, "global": false}')
    by_header = Answer(429, b"slow down", headers={"retry-after": "1"})
    world = await with_webhook(open_leads, web, [limited, by_header, 204])
    delivery = await delivered(world, Event(event_id=world.user))
    assert (delivery["state"], delivery["attempt_count"]) == ("sent", 3)
    waits = [later.at - earlier.at for earlier, later in pairwise(web.asked("/hook"))]
    assert waits[0] >= 0.3
    assert waits[1] >= 1


async def test_messages_of_one_webhook_wait_for_its_rate_limit_one_after_the_other(
    open_leads: OpenLeads, web: LocalWeb
) -> None:
    world = await with_webhook(open_leads, web, [Answer(429, b'{"retry_after": 0.2}'), 204])
    events = [Event(event_id=f"{world.user}-{number}", content=str(number)) for number in range(3)]
    deliveries = await asyncio.gather(*(delivered(world, event) for event in events))
    assert {delivery["state"] for delivery in deliveries} == {"sent"}
    assert len(web.asked("/hook")) == 4
    assert web.running_max == 1


@pytest.mark.parametrize(("answer", "state"), [(404, "refused"), (400, "refused"), (500, "unknown"), (503, "unknown")])
async def test_what_may_have_arrived_and_what_is_refused_is_not_sent_again(
    open_embedded: OpenLeads, web: LocalWeb, answer: int, state: str
) -> None:
    world = await with_webhook(open_embedded, web, [answer])
    assert (await delivered(world))["state"] == state
    assert len(web.asked("/hook")) == 1


async def test_an_event_whose_attempt_was_claimed_by_a_process_that_died_is_not_sent_again(
    open_embedded: OpenLeads, web: LocalWeb
) -> None:
    world = await with_webhook(open_embedded, web, [204])
    assert await world.store.begin_delivery("e1", "team", 1)
    delivery = await delivered(world)
    assert delivery["state"] == "unknown"
    assert "died" in delivery["detail"]
    assert web.asked("/hook") == []


async def test_the_same_event_is_told_once(open_leads: OpenLeads, web: LocalWeb) -> None:
    world = await with_webhook(open_leads, web, [204])
    event = Event(event_id=world.user)
    first = await delivered(world, event)
    again = await delivered(world, event)
    assert (first["state"], again["state"]) == ("sent", "unknown")
    assert len(web.asked("/hook")) == 1


async def test_a_target_that_is_not_configured_is_nobody(open_embedded: OpenLeads, web: LocalWeb) -> None:
    world = await with_webhook(open_embedded, web, [204])
    assert (await delivered(world, target="nobody"))["state"] == "no_target"


def answers_of_interaction(seen: list[Request]) -> Callable[[Request], int]:
    def answer(request: Request) -> int:
        seen.append(request)
        return 200

    return answer


async def test_a_slash_command_is_followed_up_at_its_own_address(open_embedded: OpenLeads, web: LocalWeb) -> None:
    seen: list[Request] = []
    web.route("/api/webhooks/123/a-token.x", answers_of_interaction(seen))
    world = await open_embedded(web, discord_api_url=f"{web.url}/api")
    await world.rich()
    await world.discover(scan=False, notify=["interaction/123/a-token.x"])
    await until(lambda: seen)
    assert seen[0].json["embeds"][0]["title"] == "Discovery completed: bakery in Arlon"


@pytest.mark.parametrize("target", ["interaction/x/token", "interaction/1/../../x", "interaction/1", "other", ""])
def test_targets_lead_nowhere_else(target: str) -> None:
    assert address_of(target, Settings(webhooks={"team": "http://127.0.0.1/"})) is None


def test_a_message_keeps_to_discords_limits() -> None:
    order = JobOrder(
        job_id="discovery-1",
        run=1,
        tenant_id="t",
        user_id="u",
        kind=JobKind.DISCOVERY,
        request={"niche": "x" * 1000, "location": "Arlon"},
    )
    [embed] = job_event(order, JobStatus.FAILED, None, "y" * 5000, Settings(public_url="https://leads.example/")).embeds
    assert len(embed["title"]) == 256
    assert max(len(field["value"]) for field in embed["fields"]) == 1024
    assert embed["url"] == "https://leads.example/jobs/discovery-1"
