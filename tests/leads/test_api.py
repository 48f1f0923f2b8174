"""The API: start, follow, cancel, resume, pay; who may do what; every error says what to do."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from openapi_spec_validator import validate

from apps.leads.access import Keys
from apps.leads.api import create_api
from apps.leads.gateway import Gateway
from apps.leads.jobs import Jobs
from apps.leads.limits import TooMany, check
from apps.leads.messages import shown
from apps.leads.model import Business, JobKind, JobStatus, JobView, Lead
from apps.leads.openapi import document
from apps.leads.service import one_per_business
from apps.leads.store import Store
from apps.leads.tiers import TIERS
from tests.leads.conftest import OpenLeads
from tests.leads.local_web import LocalWeb
from tests.leads.ui import api_of, ended, events, leads_of
from tests.leads.world import PAGES, World, settings_for, until

BAKERY = (PAGES / "bakery.html").read_text()
BAKERIES = {"niche": "bakery", "location": "Arlon"}
KEYS = Keys({"ada's": "ada", "bob's": "bob"}, master="the shop's")


async def topped_up(api: httpx.AsyncClient, user: str, cents: int = 1000) -> None:
    answer = await api.post(f"/v1/wallets/{user}/top-up", json={"amount_cents": cents, "key": uuid.uuid4().hex})
    assert answer.status_code == 200, answer.text


async def test_a_discovery_then_an_enrichment_from_start_to_export(open_leads: OpenLeads, web: LocalWeb) -> None:
    web.sites(lambda _: BAKERY)
    world = await open_leads(web)
    async with api_of(world) as api:
        await topped_up(api, world.user)
        started = await api.post("/v1/discovery", json=BAKERIES | {"user_id": world.user})
        assert started.status_code == 202
        discovery = await ended(api, started.json()["job_id"])
        assert {"job_id", "status", "current_step", "step_results", "error"} <= set(discovery)
        assert (discovery["status"], discovery["price_cents"], discovery["result"]["lead_count"]) == (
            "completed",
            100,
            8,
        )
        path = f"/v1/jobs/{discovery['job_id']}"
        names = [step["name"] for step in (await api.get(f"{path}/steps")).json()["steps"]]
        assert names == [
            "mark-running", "charge", "search", "list-websites", "scan-websites-1", "score", "mark-completed",
        ]  # fmt: skip
        logs = (await api.get(f"{path}/logs")).json()["logs"]
        assert [line["step"] for line in logs if "found 9" in line["message"]] == ["search"]
        assert (await api.get(f"{path}/logs?after={len(logs)}")).json()["logs"] == []

        body = {"user_id": world.user, "discovery_job_id": discovery["job_id"], "limit": 2}
        enrichment = await ended(api, (await api.post("/v1/enrichment", json=body)).json()["job_id"])
        assert enrichment["status"] == "completed", enrichment["error"]
        cost = (await api.get(f"/v1/jobs/{enrichment['job_id']}/cost")).json()
        assert (cost["total_usd"], cost["price_cents"]) == (0.0, 500)
        assert {step["step"] for step in cost["steps"]} == {"scan-website", "find-owner", "deep-audit"}
        leads = (await api.get("/v1/leads", params={"job_id": enrichment["job_id"]})).json()["leads"]
        assert len(leads) == 2
        assert leads[0]["lead"]["score"] >= leads[1]["lead"]["score"]
        one = (await api.get(f"/v1/leads/{leads[0]['lead_id']}")).json()
        assert one == leads[0]
        assert one["lead"]["owner"]["name"] == "Marie Delvaux"
        exported = await api.get(f"/v1/leads/export?job_id={enrichment['job_id']}&format=json")
        assert [row["lead_id"] for row in exported.json()] == [lead["lead_id"] for lead in leads]
        # Without a job, each business once: the enriched ones as their enrichment knows them.
        rows = (await api.get("/v1/leads/export?format=json")).json()
        assert len({row["place_id"] for row in rows}) == len(rows) == discovery["result"]["lead_count"]
        enriched = [row["lead_id"] for row in rows if row["job_id"] == enrichment["job_id"]]
        assert sorted(enriched) == sorted(lead["lead_id"] for lead in leads)
        wallet = (await api.get(f"/v1/wallets/{world.user}")).json()
        assert (wallet["balance_cents"], wallet["held_cents"]) == (400, 0)
        listed = (await api.get("/v1/jobs", params={"user_id": world.user, "status": "completed"})).json()["jobs"]
        assert [job["workflow_id"] for job in listed] == ["enrichment", "discovery"]


async def test_without_enough_money_nothing_is_started(open_leads: OpenLeads, web: LocalWeb) -> None:
    world = await open_leads(web)
    async with api_of(world) as api:
        await topped_up(api, world.user, 99)
        refused = await api.post("/v1/discovery", json=BAKERIES | {"user_id": world.user})
        assert refused.status_code == 402
        error = refused.json()
        assert (error["code"], error["retryable"]) == (402, False)
        assert error["details"] == {"required_cents": 100, "available_cents": 99}
        assert (await api.get("/v1/jobs", params={"user_id": world.user})).json()["jobs"] == []
        ledger = (await api.get(f"/v1/wallets/{world.user}/ledger")).json()["ledger"]
        assert [line["kind"] for line in ledger] == ["top_up"]


async def test_the_same_client_key_is_the_same_job_and_paid_once(open_leads: OpenLeads, web: LocalWeb) -> None:
    world = await open_leads(web)
    async with api_of(world) as api:
        await topped_up(api, world.user, 100)
        body = BAKERIES | {"user_id": world.user, "scan": False}
        in_body = body | {"client_key": "mine"}
        header = {"idempotency-key": "mine"}
        answers = await asyncio.gather(*(api.post("/v1/discovery", json=in_body) for _ in range(4)))
        answers.append(await api.post("/v1/discovery", json=body, headers=header))
        assert {answer.status_code for answer in answers} == {202}
        [job_id] = {answer.json()["job_id"] for answer in answers}
        assert (await ended(api, job_id))["status"] == "completed"
        assert (await api.get(f"/v1/wallets/{world.user}")).json()["balance_cents"] == 0
        other = await api.post("/v1/discovery", json=in_body | {"niche": "butcher"})
        assert other.status_code == 409
        assert "client_key" in other.json()["message"]


async def test_a_cancelled_enrichment_releases_its_hold_and_can_be_resumed(
    open_leads: OpenLeads, web: LocalWeb
) -> None:
    web.sites(web.hold())
    world = await open_leads(web)
    async with api_of(world) as api:
        await topped_up(api, world.user)
        business = {"place_id": "p1", "name": "A", "website": "http://a.example"}
        started = await api.post("/v1/enrichment", json={"user_id": world.user, "businesses": [business]})
        job_id = started.json()["job_id"]
        await until(lambda: web.asked("/sites/"))
        wallet = (await api.get(f"/v1/wallets/{world.user}")).json()
        assert (wallet["available_cents"], wallet["held_cents"]) == (500, 500)
        assert (await api.post(f"/v1/jobs/{job_id}/cancel")).status_code == 202
        web.let_go()
        job = await ended(api, job_id)
        assert (job["status"], job["price_cents"]) == ("cancelled", 0)
        assert await world.balance() == (1000, 0)
        again = await api.post(f"/v1/jobs/{job_id}/cancel")
        assert (again.status_code, again.json()["status"]) == (202, "cancelled")

        assert (await api.post(f"/v1/jobs/{job_id}/resume")).status_code == 202
        job = await ended(api, job_id)
        assert (job["status"], job["run"]) == ("completed", 2)
        assert await world.balance() == (500, 0)
        assert (await api.post(f"/v1/jobs/{job_id}/resume")).status_code == 409


async def test_events_tell_of_every_line_and_every_move_and_go_on_where_a_client_left(
    open_embedded: OpenLeads, web: LocalWeb
) -> None:
    world = await open_embedded(web)
    async with api_of(world) as api:
        await topped_up(api, world.user)
        job_id = (await api.post("/v1/discovery", json=BAKERIES | {"user_id": world.user, "scan": False})).json()[
            "job_id"
        ]
        told = events((await api.get(f"/v1/jobs/{job_id}/stream")).text)
        assert told[-1][0] == "job"
        assert told[-1][1]["status"] == "completed"
        lines = (await api.get(f"/v1/jobs/{job_id}/logs")).json()["logs"]
        assert [data for kind, data in told if kind == "log"] == lines
        rest = events((await api.get(f"/v1/jobs/{job_id}/stream", headers={"last-event-id": "1"})).text)
        assert [data for kind, data in rest if kind == "log"] == lines[1:]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "word"),
    [
        ("POST", "/v1/discovery", b"{", 400, "JSON"),
        ("POST", "/v1/discovery", b"\xff", 400, "JSON"),
        ("POST", "/v1/discovery", b'{"niche": "bakery"}', 422, "location"),
        ("POST", "/v1/discovery", b'{"niche": "bakery", "location": "Arlon", "limit": 0}', 422, "limit"),
        ("POST", "/v1/discovery", b'{"niche": "bakery", "location": "Arlon", "limit": "ten"}', 422, "limit"),
        ("POST", "/v1/discovery", b'{"niche": "bakery", "location": "Arlon", "colour": 1}', 422, "colour"),
        ("POST", "/v1/discovery", b'{"niche": "bakery", "location": "Arlon", "notify": ["x"]}', 422, "webhook"),
        ("POST", "/v1/discovery", b'{"niche": "bakery", "location": "Arlon", "is_free": true}', 403, "master key"),
        ("POST", "/v1/discovery", b'{"niche": "bakery", "location": "Arlon", "directory": "x"}', 422, "osm"),
        ("POST", "/v1/discovery", b'{"niche": "nothing like it", "location": "Arlon"}', 422, "niche"),
        ("POST", "/v1/discovery", b'{"niche": "bakery", "location": "Arlon", "user_id": "a/b"}', 422, "user_id"),
        ("POST", "/v1/discovery", b'{"niche": "bakery", "location": "%s"}' % (b"A" * 501), 422, "location"),
        ("POST", "/v1/discovery", b'{"niche": "bakery", "location": "Arlon", "user_id": "a\\n"}', 422, "user_id"),
        ("POST", "/v1/discovery", b" " * 1_000_001, 413, "larger"),
        ("POST", "/v1/enrichment", b'{"businesses": [{"place_id": "", "name": "n"}]}', 422, "place_id"),
        ("POST", "/v1/enrichment", b'{"businesses": [{"place_id": "p", "name": "%s"}]}' % (b"n" * 501), 422, "name"),
        ("GET", "/v1/wallets/%2e%2e", b"", 422, "user_id"),
        ("POST", "/v1/enrichment", b"{}", 422, "businesses"),
        ("POST", "/v1/enrichment", b'{"discovery_job_id": "nope"}', 404, "nope"),
        ("GET", "/v1/jobs/nope", b"", 404, "nope"),
        ("GET", "/v1/jobs/nope/stream", b"", 404, "nope"),
        ("POST", "/v1/jobs/nope/cancel", b"", 404, "nope"),
        ("GET", "/v1/jobs?limit=many", b"", 422, "limit"),
        ("GET", "/v1/jobs?status=done", b"", 422, "completed"),
        ("GET", "/v1/leads/nope:osm:node/1", b"", 404, "nope"),
        ("GET", "/v1/leads/export?format=xlsx", b"", 422, "parquet"),
        ("POST", "/v1/wallets/ada/top-up", b'{"amount_cents": 100}', 422, "key"),
        ("POST", "/v1/wallets/ada/top-up", b'{"amount_cents": -1, "key": "k"}', 422, "amount_cents"),
        ("POST", "/v1/wallets/ada/tier", b'{"tier": "gold", "key": "k"}', 422, "tier"),
        ("GET", "/v1/nothing", b"", 404, "Not Found"),
        ("DELETE", "/v1/jobs", b"", 405, "Not Allowed"),
    ],
)
async def test_errors_are_json_with_code_message_and_retryable(
    open_embedded: OpenLeads, web: LocalWeb, method: str, path: str, body: bytes, status: int, word: str
) -> None:
    world = await open_embedded(web)
    async with api_of(world) as api:
        answer = await api.request(method, path, content=body)
        assert answer.status_code == status, answer.text
        error = answer.json()
        assert set(error) == {"code", "message", "retryable", "details"}
        assert (error["code"], error["retryable"]) == (status, False)
        assert word in error["message"]
        assert "\n" not in error["message"]
    assert await world.store.jobs() == []


async def test_when_the_engine_is_away_the_same_request_may_be_sent_again(tmp_path: Path, web: LocalWeb) -> None:
    async with AsyncExitStack() as stack:
        settings = settings_for(tmp_path, web)
        store = await stack.enter_async_context(Store(tmp_path))
        nowhere = await stack.enter_async_context(Gateway.http("http://127.0.0.1:1", "http://127.0.0.1:1"))
        world = World(store=store, settings=settings, gateway=nowhere, jobs=Jobs(store, settings, nowhere), user="ada")
        api = await stack.enter_async_context(api_of(world))
        for method, path in (("POST", "/v1/discovery"), ("GET", "/v1/wallets/ada")):
            answer = await api.request(method, path, json=BAKERIES if method == "POST" else None)
            assert (answer.status_code, answer.json()["retryable"]) == (503, True)
            assert answer.headers["retry-after"] == "5"
        assert (await api.get("/v1/jobs")).status_code == 200  # what is kept can be read


async def test_a_user_has_a_key_and_sees_nobody_elses_work(open_embedded: OpenLeads, web: LocalWeb) -> None:
    world = await open_embedded(web)
    async with (
        api_of(world, keys=KEYS) as nobody,
        api_of(world, keys=KEYS, key="ada's") as ada,
        api_of(world, keys=KEYS, key="bob's") as bob,
        api_of(world, keys=KEYS, key="the shop's") as shop,
    ):
        for path in ("/v1/jobs", "/v1/wallets/ada", "/", "/v1/leads"):
            refused = await nobody.get(path)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"].startswith("Basic")
        assert (await nobody.get("/health")).status_code == 200
        assert (await nobody.get("/v1/jobs", auth=("anything", "ada's"))).status_code == 200  # as browsers do it

        assert (await ada.post("/v1/wallets/ada/top-up", json={"amount_cents": 1, "key": "k"})).status_code == 403
        assert (await ada.post("/v1/wallets/me/tier", json={"tier": "pro", "key": "k"})).status_code == 403
        await topped_up(shop, "ada", 200)
        assert (await ada.get("/v1/wallets/me")).json()["balance_cents"] == 200
        assert (await bob.get("/v1/wallets/ada")).status_code == 403
        assert (await bob.post("/v1/discovery", json=BAKERIES | {"user_id": "ada"})).status_code == 403

        job_id = (await ada.post("/v1/discovery", json=BAKERIES | {"scan": False})).json()["job_id"]
        assert (await ended(ada, job_id))["user_id"] == "ada"
        [lead, *_] = (await ada.get("/v1/leads")).json()["leads"]
        for path in ("", "/steps", "/logs", "/cost", "/stream"):
            assert (await bob.get(f"/v1/jobs/{job_id}{path}")).status_code == 404
        for verb in ("cancel", "resume"):
            assert (await bob.post(f"/v1/jobs/{job_id}/{verb}")).status_code == 404
        for path in (
            f"/v1/leads/{lead['lead_id']}",
            f"/v1/leads?job_id={job_id}",
            f"/leads/{lead['lead_id']}",
            f"/jobs/{job_id}",
        ):
            assert (await bob.get(path)).status_code == 404
            assert (await ada.get(path)).status_code == 200
        assert (await bob.get("/v1/jobs")).json()["jobs"] == []
        assert (await bob.get("/v1/leads")).json()["leads"] == []
        assert len((await shop.get("/v1/jobs")).json()["jobs"]) == 1


async def test_the_master_key_acts_for_anybody_and_is_not_charged(open_embedded: OpenLeads, web: LocalWeb) -> None:
    world = await open_embedded(web)
    async with api_of(world, keys=KEYS, key="the shop's") as shop:
        assert (await shop.post("/v1/discovery", json=BAKERIES)).status_code == 422  # for whom?
        body = BAKERIES | {"user_id": world.user, "scan": False}
        job = await ended(shop, (await shop.post("/v1/discovery", json=body)).json()["job_id"])
        assert (job["status"], job["price_cents"]) == ("completed", 0)
        charged = await shop.post("/v1/discovery", json=body | {"is_free": False})
        assert charged.status_code == 402


async def test_a_tiers_limits_hold_for_users_and_not_for_repetitions(open_embedded: OpenLeads, web: LocalWeb) -> None:
    web.route("/search", web.hold())
    world = await open_embedded(web, overpass_url=f"{web.url}/search", business_directory="overpass")
    async with api_of(world, keys=KEYS, key="ada's") as ada, api_of(world, keys=KEYS, key="the shop's") as shop:
        await topped_up(shop, "ada", 1000)
        first = await ada.post("/v1/discovery", json=BAKERIES | {"client_key": "one"})
        assert first.status_code == 202
        refused = await ada.post("/v1/discovery", json=BAKERIES | {"client_key": "two"})
        assert (refused.status_code, refused.json()["retryable"]) == (429, True)
        assert int(refused.headers["retry-after"]) >= 1
        again = await ada.post("/v1/discovery", json=BAKERIES | {"client_key": "one"})
        assert again.json()["job_id"] == first.json()["job_id"]
        await shop.post("/v1/wallets/ada/tier", json={"tier": "starter", "key": "t"})
        both = await asyncio.gather(
            *(ada.post("/v1/discovery", json=BAKERIES | {"client_key": f"more {number}"}) for number in range(4))
        )
        assert sorted(answer.status_code for answer in both) == [202, 202, 429, 429]  # three at a time in this tier
        web.answers("/search", [{"elements": []}])
        web.let_go()
        await ended(ada, first.json()["job_id"])


async def test_a_resume_is_a_start_for_the_limits(open_embedded: OpenLeads, web: LocalWeb) -> None:
    web.answers("/search", [404])
    world = await open_embedded(web, overpass_url=f"{web.url}/search", business_directory="overpass")
    async with api_of(world, keys=KEYS, key="ada's") as ada, api_of(world, keys=KEYS, key="the shop's") as shop:
        await topped_up(shop, "ada", 1000)
        job_id = (await ada.post("/v1/discovery", json=BAKERIES)).json()["job_id"]
        answers: list[int] = []
        for _ in range(TIERS["free"].per_minute):
            assert (await ended(ada, job_id))["status"] == "failed"
            answers.append((await ada.post(f"/v1/jobs/{job_id}/resume")).status_code)
        assert answers == [202] * 4 + [429]
        assert (await shop.post(f"/v1/jobs/{job_id}/resume")).status_code == 202
        await ended(ada, job_id)


def test_limits_count_minutes_hours_and_days() -> None:
    free = TIERS["free"]
    now = 100_000_000
    check(free, [now - 1000] * 4, 0, now)
    with pytest.raises(TooMany, match="5 jobs per minute") as refused:
        check(free, [now - 50_000, *([now - 1000] * 4)], 0, now)
    assert refused.value.retry_after_s == 10
    check(free, [now - 60_000] * 5, 0, now)
    with pytest.raises(TooMany, match="20 jobs per hour"):
        check(free, [now - 61_000] * 20, 0, now)
    with pytest.raises(TooMany, match="50 jobs per day"):
        check(free, [now - 3_700_000] * 50, 0, now)
    with pytest.raises(TooMany, match="1 jobs are running"):
        check(free, [], 1, now)


async def test_pages_of_strangers_can_do_nothing(open_embedded: OpenLeads, web: LocalWeb) -> None:
    world = await open_embedded(web)
    async with api_of(world, hosts={"localhost"}) as api:
        for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}):
            answer = await api.post("/v1/wallets/ada/top-up", json={"amount_cents": 1, "key": "k"}, headers=headers)
            assert answer.status_code == 403
        assert (await api.get("/v1/jobs", headers={"host": "evil.example"})).status_code == 421
        assert (await api.get("/health", headers={"host": "10.0.0.7"})).status_code == 200  # as platforms ask
        own = {"origin": "http://localhost", "sec-fetch-site": "same-origin"}
        answer = await api.post("/v1/wallets/ada/top-up", json={"amount_cents": 1, "key": "k"}, headers=own)
        assert answer.status_code == 200


async def test_the_document_is_openapi_and_true(open_embedded: OpenLeads, web: LocalWeb) -> None:
    world = await open_embedded(web)
    async with api_of(world) as api:
        spec = (await api.get("/openapi.json")).json()
        assert spec == document()
        validate(spec)
        assert set(spec["components"]["schemas"]["JobStatus"]["enum"]) == {
            "pending", "running", "completed", "failed", "cancelled", "timed_out",
        }  # fmt: skip
        await topped_up(api, world.user)
        job_id = (await api.post("/v1/discovery", json=BAKERIES | {"user_id": world.user, "scan": False})).json()[
            "job_id"
        ]
        await ended(api, job_id)
        [lead, *_] = (await api.get("/v1/leads")).json()["leads"]
        values: dict[str, Any] = {"job_id": job_id, "user_id": world.user, "lead_id": lead["lead_id"]}
        checked = 0
        for path, operations in spec["paths"].items():
            if "get" not in operations or path.endswith(("/stream", "/export")):
                continue
            answer = await api.get(path.format(**values))
            assert answer.status_code == 200, path
            schema = operations["get"]["responses"]["200"]["content"]["application/json"]["schema"]
            jsonschema.validate(answer.json(), schema | {"components": spec["components"]})
            checked += 1
        assert checked == 10


async def test_every_route_of_the_interface_is_in_the_document(open_embedded: OpenLeads, web: LocalWeb) -> None:
    app = create_api(leads_of(await open_embedded(web)))
    routes = {
        (route.path.replace(":path", ""), method)  # type: ignore[attr-defined]
        for route in app.routes
        for method in (route.methods or ())  # type: ignore[attr-defined]
        if method != "HEAD" and route.path.startswith(("/v1/", "/health"))  # type: ignore[attr-defined]
    }
    described = {
        (path, method.upper())
        for path, each in document()["paths"].items()
        for method in each
        if method != "parameters"
    }
    assert routes == described


async def test_the_token_of_an_interaction_is_not_shown(open_embedded: OpenLeads, web: LocalWeb) -> None:
    world = await open_embedded(web)
    await world.rich()
    job = await world.discover(scan=False, notify=["interaction/123/secret-token"])
    assert shown(job).request["notify"] == ["discord interaction"]
    async with api_of(world) as api:
        for path in (f"/v1/jobs/{job.job_id}", "/v1/jobs", f"/jobs/{job.job_id}"):
            assert "secret-token" not in (await api.get(path)).text
    assert job.status is JobStatus.COMPLETED


async def test_a_business_is_listed_once_at_its_best_and_newest(open_embedded: OpenLeads) -> None:
    world = await open_embedded()
    jobs = {}
    for job_id, user, kind in (
        ("d1", "ada", JobKind.DISCOVERY),
        ("e1", "ada", JobKind.ENRICHMENT),
        ("d2", "ada", JobKind.DISCOVERY),
        ("d3", "joe", JobKind.DISCOVERY),
    ):
        request = {"user_id": user}
        jobs[job_id], _ = await world.store.create_job(
            job_id, tenant_id="t", user_id=user, kind=kind, engine="embedded", request=request
        )

    def lead(job_id: str, place_id: str, score: float | None) -> tuple[JobView, Lead]:
        return jobs[job_id], Lead(job_id=job_id, rank=0, business=Business(place_id=place_id, name="B"), score=score)

    newest_first = [
        lead("d3", "b1", 10),  # somebody else's
        lead("d2", "b1", 50),
        lead("d2", "b2", 60),
        lead("d2", "b3", 70),
        lead("e1", "b1", 40),  # enriched, though not the newest
        lead("e1", "b2", None),  # its enrichment has failed
        lead("d1", "b1", 55),
        lead("d1", "b3", 75),
    ]
    found = {(one.job_id, one.business.place_id) for one in one_per_business(newest_first)}
    assert found == {("d3", "b1"), ("e1", "b1"), ("d2", "b2"), ("d2", "b3")}
