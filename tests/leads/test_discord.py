"""Slash commands: signed by Discord or refused, answered at once, followed up once when the job ends."""

from __future__ import annotations

import json
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from nacl.signing import SigningKey

from apps.leads import discord
from apps.leads.access import Keys
from apps.leads.discord import COMMANDS
from apps.leads.discord_commands import CannotRegister, register
from apps.leads.gateway import Gateway
from apps.leads.jobs import Jobs
from apps.leads.store import Store
from tests.leads.conftest import OpenLeads
from tests.leads.local_web import LocalWeb
from tests.leads.ui import api_of
from tests.leads.world import World, settings_for, until

DISCORD = SigningKey(bytes(range(32)))
PUBLIC_KEY = DISCORD.verify_key.encode().hex()
APPLICATION, TOKEN = "1234567890", "aW50ZXJhY3Rpb24.token-of_it"


def command(name: str = "discover", user: str = "42", interaction: str = "77", **options: Any) -> dict[str, Any]:
    """What Discord posts for a slash command in a server."""
    return {
        "id": interaction,
        "type": 2,
        "version": 1,
        "application_id": APPLICATION,
        "token": TOKEN,
        "guild_id": "9",
        "member": {"user": {"id": user, "username": "ada"}, "roles": []},
        "data": {
            "id": "5",
            "name": name,
            "type": 1,
            "options": [{"name": key, "type": 3, "value": value} for key, value in options.items()],
        },
    }


def signed(body: bytes, key: SigningKey = DISCORD, timestamp: str | None = None) -> dict[str, str]:
    timestamp = timestamp or str(int(time.time()))
    signature = key.sign(timestamp.encode() + body).signature.hex()
    return {
        "x-signature-ed25519": signature,
        "x-signature-timestamp": timestamp,
        "content-type": "application/json",
    }


async def posted(api: httpx.AsyncClient, interaction: Any) -> httpx.Response:
    body = json.dumps(interaction).encode()
    return await api.post("/discord/interactions", content=body, headers=signed(body))


async def with_discord(open_leads: OpenLeads, web: LocalWeb, **settings: Any) -> World:
    """Leads whose Discord is a server of this machine."""
    return await open_leads(web, discord_api_url=f"{web.url}/api/v10", **settings)


async def test_a_ping_is_answered_without_any_key_of_ours(open_embedded: OpenLeads, web: LocalWeb) -> None:
    world = await with_discord(open_embedded, web)
    keys = Keys(master="secret")
    async with api_of(world, keys=keys, discord_public_key=PUBLIC_KEY) as api:
        answer = await posted(api, {"id": "1", "type": 1, "application_id": APPLICATION})
        assert (answer.status_code, answer.json()) == (200, {"type": 1})
        bare = await posted(api, {"type": 1})
        assert (bare.status_code, bare.json()) == (200, {"type": 1})
        late = signed(
            b'{"type": 1}', timestamp=str(int(time.time()) - discord.WINDOW_S + 60)
        )  # by our clock, or theirs
        assert (await api.post("/discord/interactions", content=b'{"type": 1}', headers=late)).status_code == 200


async def test_what_discord_did_not_sign_is_refused(open_embedded: OpenLeads, web: LocalWeb) -> None:
    world = await with_discord(open_embedded, web)
    body = json.dumps(command(niche="bakery", location="Arlon")).encode()
    good = signed(body)
    forged = [
        ({}, body),
        (signed(body, SigningKey.generate()), body),
        (good, body + b" "),
        (good | {"x-signature-timestamp": "1"}, body),
        (signed(body, timestamp=str(int(time.time()) - discord.WINDOW_S - 60)), body),
        (signed(body, timestamp=str(int(time.time()) + discord.WINDOW_S + 60)), body),
        (signed(body, timestamp=f"{time.time()}"), body),
        (signed(body, timestamp="now"), body),
        (signed(body, timestamp="9" * 4000), body),
        (good | {"x-signature-timestamp": ""}, body),
        (good | {"x-signature-ed25519": "zz"}, body),
        (good | {"x-signature-ed25519": "00" * 64}, body),
        (good | {"x-signature-ed25519": good["x-signature-ed25519"][:-2]}, body),
    ]
    async with api_of(world, discord_public_key=PUBLIC_KEY) as api:
        for headers, content in forged:
            answer = await api.post("/discord/interactions", content=content, headers=headers)
            assert answer.status_code == 401, headers
            assert answer.json()["message"] == "invalid request signature"
    assert await world.store.jobs() == []


async def test_a_command_starts_a_discovery_and_its_result_follows_once(open_leads: OpenLeads, web: LocalWeb) -> None:
    web.answers(f"/api/v10/webhooks/{APPLICATION}/{TOKEN}", [204])
    world = await with_discord(open_leads, web)
    user = f"1{int(world.user[:12], 16)}"
    await world.wallets.top_up(f"discord-{user}", 100, key=user)
    async with api_of(world, discord_public_key=PUBLIC_KEY) as api:
        interaction = command(user=user, interaction=user, niche="bakery", location="Arlon", limit=5)
        first = await posted(api, interaction)
        assert (first.status_code, first.json()) == (200, {"type": 5})
        again = await posted(api, interaction)  # Discord, or a recording of it
        assert again.json() == {"type": 5}
        [job] = await world.jobs.find(user_id=f"discord-{user}")
        job = await world.over(job)
        assert job.status == "completed"
    asked = await until(lambda: web.asked("/api/v10/webhooks/"))

    async def is_noted() -> bool:
        return [each["state"] for each in await world.store.deliveries(f"{job.job_id}:completed")] == ["sent"]

    await until(is_noted)
    [message] = asked
    assert message.path == f"/api/v10/webhooks/{APPLICATION}/{TOKEN}"
    [embed] = message.json["embeds"]
    assert embed["title"] == "Discovery completed: bakery in Arlon"
    assert {"name": "Leads", "value": "5", "inline": True} in embed["fields"]
    assert len(web.asked("/api/v10/webhooks/")) == 1
    assert (await world.wallets.get(f"discord-{user}")).balance_cents == 0


@pytest.mark.parametrize(
    ("interaction", "says"),
    [
        (command(niche="bakery", location="Arlon", user="7"), "insufficient funds: 100 cents required, 0 available"),
        (command(niche="nothing like it", location="Arlon"), "niche"),
        (command(niche="bakery", location=""), "location"),
        (command(niche="bakery", location="Arlon", limit=1000), "limit"),
        (command(niche="bakery", location="Arlon", limit="x"), "limit"),
        (command("dance"), "there is no command /dance"),
        (command("wallet"), "$0.00; tier free"),
    ],
)
async def test_what_cannot_be_started_is_said_to_who_asked_only(
    open_embedded: OpenLeads, web: LocalWeb, interaction: Any, says: str
) -> None:
    world = await with_discord(open_embedded, web)
    async with api_of(world, discord_public_key=PUBLIC_KEY) as api:
        answer = (await posted(api, interaction)).json()
    assert (answer["type"], answer["data"]["flags"]) == (4, 64)
    assert says in answer["data"]["content"]
    assert answer["data"]["allowed_mentions"] == {"parse": []}
    assert await world.store.jobs() == []


async def test_a_tiers_limits_hold_here_too(open_embedded: OpenLeads, web: LocalWeb) -> None:
    web.route("/search", web.hold())
    world = await with_discord(open_embedded, web, overpass_url=f"{web.url}/search", business_directory="overpass")
    await world.wallets.top_up("discord-42", 1000, key="k")
    async with api_of(world, discord_public_key=PUBLIC_KEY) as api:
        first, second = (command(niche="bakery", location="Arlon", interaction=number) for number in ("1", "2"))
        assert (await posted(api, first)).json() == {"type": 5}
        assert "1 jobs are running" in (await posted(api, second)).json()["data"]["content"]
    web.answers("/search", [{"elements": []}])
    web.let_go()
    [job] = await world.jobs.find()
    assert (await world.over(job)).status == "completed"


async def test_discord_is_answered_in_time_also_when_the_engine_is_not(
    tmp_path: Path, web: LocalWeb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discord, "START_S", 0.05)
    web.route("/Wallet/discord-42/get", web.hold())
    async with AsyncExitStack() as stack:
        settings = settings_for(tmp_path, web)
        store = await stack.enter_async_context(Store(tmp_path))
        slow = await stack.enter_async_context(Gateway.http(web.url, web.url))
        world = World(store=store, settings=settings, gateway=slow, jobs=Jobs(store, settings, slow), user="ada")
        api = await stack.enter_async_context(api_of(world, discord_public_key=PUBLIC_KEY))
        answer = (await posted(api, command(niche="bakery", location="Arlon"))).json()
        assert answer["type"] == 4
        assert "The engine is slow" in answer["data"]["content"]
        web.let_go()


async def test_a_direct_message_names_its_user_elsewhere(open_embedded: OpenLeads, web: LocalWeb) -> None:
    world = await with_discord(open_embedded, web)
    await world.wallets.top_up("discord-8", 123, key="k")
    interaction = command("wallet")
    del interaction["member"]
    async with api_of(world, discord_public_key=PUBLIC_KEY) as api:
        assert "no user" in (await posted(api, interaction)).json()["data"]["content"]
        answer = await posted(api, interaction | {"user": {"id": "8"}})
        assert answer.json()["data"]["content"] == "$1.23; tier free"


@pytest.mark.parametrize("body", [[], {"id": "1"}, {"id": "1", "type": 3, "application_id": "2"}])
async def test_a_signed_body_that_is_no_command_is_refused(open_embedded: OpenLeads, web: LocalWeb, body: Any) -> None:
    world = await with_discord(open_embedded, web)
    async with api_of(world, discord_public_key=PUBLIC_KEY) as api:
        assert (await posted(api, body)).status_code == 400


async def test_without_a_public_key_there_are_no_interactions(open_embedded: OpenLeads, web: LocalWeb) -> None:
    world = await with_discord(open_embedded, web)
    async with api_of(world) as api:
        assert (await posted(api, command("wallet"))).status_code == 404


def test_commands_are_registered_with_the_bots_token(web: LocalWeb) -> None:
    def put(request: Any) -> Any:
        return COMMANDS if request.headers["authorization"] == "Bot good" else 401

    web.route(f"/api/v10/applications/{APPLICATION}/commands", put)
    assert register(f"{web.url}/api/v10", APPLICATION, "good") == ["discover", "wallet"]
    [request] = web.requests
    assert request.method == "PUT"
    assert request.json == COMMANDS
    with pytest.raises(CannotRegister, match="401"):
        register(f"{web.url}/api/v10", APPLICATION, "bad")
    with pytest.raises(CannotRegister, match="digits"):
        register(f"{web.url}/api/v10", "../x", "good")
    with pytest.raises(CannotRegister, match="no answer"):
        register("http://127.0.0.1:1", APPLICATION, "good")


def test_commands_keep_to_discords_limits() -> None:
    for each in COMMANDS:
        assert each["name"].islower()
        assert len(each["name"]) <= 32
        for described in [each, *each.get("options", [])]:
            assert 1 <= len(described["description"]) <= 100
