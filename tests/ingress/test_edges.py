"""The ingress as an ASGI application: mounted, called in process, and what happens when callers or the engine go away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx
import pytest
from restate.client import Client
from starlette.applications import Starlette
from starlette.routing import Mount

from holdfast import Engine
from holdfast.ingress.app import create_ingress
from tests.ingress import sample_app
from tests.ingress.asgi import Caller, exchange, request, scope_of
from tests.ingress.backend import BODY_BYTES_MAX
from tests.ingress.expect import Expect
from tests.ingress.sample_app import make_app
from tests.ingress.table import SECTIONS, get, post


@asynccontextmanager
async def http_client(app: Any, path: str = "") -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url=f"http://engine{path}") as client:
        yield client


async def test_mounted_into_another_application(engine: Engine) -> None:
    app = Starlette(routes=[Mount("/durable", app=Starlette(routes=[Mount("/in", app=create_ingress(engine))]))])
    async with http_client(app, "/durable/in") as client:
        assert (await client.post("/S/echo", json="hi")).json() == "hi"
        assert (await client.get("/O/a%2Fb%20c/key")).json() == "a/b c"
        assert (await client.get("/S/headers?a=b")).json()[0] == ["x-restate-ingress-path", "/S/headers?a=b"]
        assert (await client.get("/restate/health")).status_code == 200
        assert (await client.get("/")).json()["message"] == "bad path: /"


@pytest.mark.parametrize(
    ("path", "changes"),
    [
        ("/O/a%20b/key", {"raw_path": None}),
        ("/O/a%20b/key", {"path": "/in/O/a b/key", "raw_path": None, "root_path": "/in"}),
        ("/in/O/a%20b/key", {"root_path": "/in"}),
        ("/O/a%20b/key", {"path": "/O/a b/key", "root_path": "/in"}),
        ("/O/a%20b/key", {"headers": iter([[b"accept", b"*/*"]])}),
    ],
    ids=["no raw path", "no raw path, mounted", "mounted", "mounted, path already cut", "headers as lists"],
)
async def test_other_servers_and_frameworks(engine: Engine, path: str, changes: dict[str, Any]) -> None:
    got = await exchange(create_ingress(engine), get(path), **changes)
    assert (got.status, got.body) == (200, b'"a b"')


async def test_the_sdk_client_in_process(engine: Engine) -> None:
    async with http_client(create_ingress(engine)) as http:
        client = Client(http, {})
        assert await client.service_call(sample_app.echo, arg="hi") == "hi"
        assert await client.object_call(sample_app.add, key="k", arg=2) == 2
        assert await client.workflow_call(sample_app.run, key="k", arg="done") == "done"
        sent = await client.service_send(sample_app.echo, arg="later", send_delay=timedelta(hours=1))
        later = engine.describe(sent.invocation_id)
        assert later.status == "scheduled"
        assert later.scheduled_start_at_ms is not None
        assert later.scheduled_start_at_ms - later.created_at_ms == 3_600_000


async def test_made_before_the_engine_starts() -> None:
    engine = Engine(make_app(), db=":memory:")
    ingress = create_ingress(engine)
    assert (await exchange(ingress, post("/S/echo", "early"))).status == 404
    await engine.start()
    assert (await exchange(ingress, post("/S/echo", "hi"))).body == b'"hi"'
    await engine.stop()


async def test_a_stopped_engine_asks_to_come_back() -> None:
    engine = Engine(make_app(), db=":memory:")
    ingress = create_ingress(engine)
    await engine.start()
    waiting = asyncio.create_task(exchange(ingress, post("/S/wait", "x")))
    while not engine.list_invocations():
        await asyncio.sleep(0)
    await engine.stop(drain_ms=0)
    invocation = "inv_1drmoFJNGl3m6thcNbXQRBKccQJos4eYDG"
    for got in (
        await waiting,
        await exchange(ingress, post("/S/echo", "hi")),
        await exchange(ingress, post("/S/echo/send", "hi")),
        await exchange(ingress, get(f"/restate/output/{invocation}")),
        await exchange(ingress, get(f"/restate/attach/{invocation}")),
    ):
        assert got.status == 503
        assert got.headers["retry-after"].isdigit()
        assert got.headers["x-restate-error-source"] == "ingress"
        assert json.loads(got.body)["code"] == 503


async def test_nothing_is_stored_for_a_refused_request(engine: Engine) -> None:
    ingress = create_ingress(engine, body_bytes_max=BODY_BYTES_MAX)
    refusals = [
        ask
        for section in ("paths", "methods", "input", "order", "headers", "sends", "ids", "limits")
        for steps in SECTIONS[section].values()
        for ask, expected in steps
        if isinstance(expected, Expect)
        and expected.headers.get("x-restate-error-source") == "ingress"
        and "transfer-encoding" not in ask.headers
    ]
    assert len(refusals) > 150
    for ask in refusals:
        got = await exchange(ingress, ask)
        assert (got.status >= 400, got.headers["x-restate-error-source"]) == (True, "ingress"), ask
    assert engine.list_invocations() == []


async def test_a_body_in_pieces(engine: Engine) -> None:
    caller = Caller([request(b'"a', more=True), request(b"", more=True), request(b'b"')])
    await create_ingress(engine)(scope_of(post("/S/echo", b"")), caller.receive, caller.send)
    assert caller.got.body == b'"ab"'


async def test_a_body_that_grows_over_the_limit_is_not_read_to_its_end(engine: Engine) -> None:
    caller = Caller([request(b"x" * 600, more=True) for _ in range(10)])
    await create_ingress(engine, body_bytes_max=1_000)(scope_of(post("/S/echo", b"")), caller.receive, caller.send)
    assert caller.got.status == 413
    assert caller.messages.qsize() == 8
    assert engine.list_invocations() == []


@pytest.mark.parametrize("length", ["1001", "9" * 5_000])
async def test_an_announced_length_over_the_limit(engine: Engine, length: str) -> None:
    ask = post("/S/echo", "x", content_length=length)
    got = await exchange(create_ingress(engine, body_bytes_max=1_000), ask)
    assert (got.status, got.body) == (413, b"length limit exceeded")


async def test_half_a_body_is_no_request(engine: Engine) -> None:
    caller = Caller([request(b'"ha', more=True)])
    caller.hang_up()
    await create_ingress(engine)(scope_of(post("/S/echo", b"")), caller.receive, caller.send)
    assert caller.sent == []
    assert engine.list_invocations() == []


@pytest.mark.parametrize("verb", ["call", "attach"])
async def test_a_caller_who_hangs_up_is_let_go_and_the_invocation_goes_on(engine: Engine, verb: str) -> None:
    ingress = create_ingress(engine, sweep_s=0.01)
    ask = post("/S/gate", "gone")
    if verb == "attach":
        sent = await exchange(ingress, post("/S/gate/send", "gone"))
        ask = get(f"/restate/attach/{sent.headers['x-restate-id']}")
    caller = Caller([request(ask.body)])
    waiting = asyncio.create_task(ingress(scope_of(ask), caller.receive, caller.send))
    awakeable_id = await announced(ingress, "gone")
    caller.hang_up()
    await waiting  # ends although nothing resolved the awakeable
    assert caller.sent == []
    [gate] = engine.list_invocations(handler="gate")
    assert gate.status in ("running", "suspended")
    await engine.resolve_awakeable(awakeable_id, b'"value"')
    assert (await engine.attach(gate.id)).value == b'"value"'


async def test_of_two_who_wait_the_one_who_stays_is_answered(engine: Engine) -> None:
    ingress = create_ingress(engine, sweep_s=0.01)
    ask = post("/S/gate", "two", idempotency_key="two")
    callers = [Caller([request(ask.body)]), Caller([request(ask.body)])]
    waiting = [asyncio.create_task(ingress(scope_of(ask), caller.receive, caller.send)) for caller in callers]
    awakeable_id = await announced(ingress, "two")
    callers[0].hang_up()
    await waiting[0]
    await engine.resolve_awakeable(awakeable_id, b'"value"')
    await waiting[1]
    assert callers[1].got.body == b'"value"'


async def test_cancelling_the_servers_task_is_no_hang_up(engine: Engine) -> None:
    ingress = create_ingress(engine)
    caller = Caller([request(b'"stop"')])
    waiting = asyncio.create_task(ingress(scope_of(post("/S/gate", "stop")), caller.receive, caller.send))
    await announced(ingress, "stop")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_server_that_cannot_write_any_more_is_left_alone(engine: Engine) -> None:
    async def broken(_: Any) -> None:
        raise OSError("closed")

    caller = Caller([request(b'"hi"')])
    await create_ingress(engine)(scope_of(post("/S/echo", "hi")), caller.receive, broken)
    assert [one.status for one in engine.list_invocations()] == ["completed"]


async def test_lifespan_and_websocket(engine: Engine) -> None:
    ingress = create_ingress(engine)
    server = Caller([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    await ingress({"type": "lifespan"}, server.receive, server.send)
    assert [message["type"] for message in server.sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    browser = Caller([{"type": "websocket.connect"}])
    await ingress({"type": "websocket", "path": "/S/echo"}, browser.receive, browser.send)
    assert [message["type"] for message in browser.sent] == ["websocket.close"]


async def announced(ingress: Any, name: str) -> str:
    """The awakeable of the `S/gate` called `name`, once it waits."""
    async with asyncio.timeout(10):
        while True:
            got = await exchange(ingress, get(f"/Holder/{name}/announced"))
            if got.body not in (b"", b"null"):
                return json.loads(got.body)
