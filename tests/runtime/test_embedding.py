"""The engine as a library: start, client, mounted APIs, the synchronous face."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import restate
from restate.client_types import HttpError
from starlette.applications import Starlette
from starlette.routing import Mount

from holdfast import Engine, EngineConfig, SyncEngine
from holdfast.errors import EngineStopped, InvalidApp, InvalidRequest, InvocationFailed
from tests.runtime import programs
from tests.runtime.support import ManualClock, until

START_MAX_S = 0.5
"""Starting takes a few milliseconds."""


async def test_start_in_memory_is_quick() -> None:
    taken: list[float] = []
    for _ in range(5):
        started = time.perf_counter()
        async with Engine(programs.app) as engine:
            taken.append(time.perf_counter() - started)
            assert set(engine.services) == {"Greeter", "Counter", "Signup", "Waiter", "Flaky"}
    print("start in memory, ms:", [round(one * 1000, 1) for one in taken])
    assert min(taken) < START_MAX_S


async def test_client_calls_services_objects_and_workflows() -> None:
    async with Engine(programs.app) as engine:
        client = engine.client
        assert await client.service_call(programs.greet, arg="Ada") == "Hello, Ada!"
        assert await client.object_call(programs.add, key="k", arg=2) == 2
        assert await client.object_call(programs.add, key="k", arg=3) == 5
        handle = await client.workflow_send(programs.run, key="ada", arg="ada@example.org")
        await client.workflow_call(programs.confirm, key="ada", arg="code for ada@example.org")
        completion = await engine.attach(handle.invocation_id)
        assert json.loads(completion.value or b"") == "welcome"
        assert handle.invocation_id == engine.workflow_invocation_id("Signup", "ada")


async def test_client_sees_failures_as_http_errors() -> None:
    async with Engine(programs.app) as engine:
        with pytest.raises(HttpError) as caught:
            await engine.client.service_call(programs.refuse, arg="tea")
        assert caught.value.status_code == 418
        assert json.loads(caught.value.body or "")["message"] == "no tea"


async def test_client_sends_with_a_delay() -> None:
    async with Engine(programs.app) as engine:
        before = time.monotonic()
        handle = await engine.client.object_send(
            programs.add, key="later", arg=1, send_delay=timedelta(milliseconds=60)
        )
        assert engine.describe(handle.invocation_id).status == "scheduled"
        await engine.attach(handle.invocation_id)
        assert time.monotonic() - before >= 0.06
        assert json.loads(engine.state("Counter", "later")["value"]) == 1


async def test_client_idempotency_key_joins() -> None:
    async with Engine(programs.app) as engine:
        results = await asyncio.gather(
            *(engine.client.object_call(programs.add, key="k", arg=1, idempotency_key="one") for _ in range(5))
        )
        assert results == [1] * 5


async def test_apis_mounted_under_a_prefix() -> None:
    async with Engine(programs.app) as engine:
        host = Starlette(routes=[Mount("/api/durable", app=engine.ingress), Mount("/ops", app=engine.admin)])
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=host), base_url="http://host") as http:
            answer = await http.post("/api/durable/Greeter/greet", json="Ada")
            assert (answer.status_code, answer.json()) == (200, "Hello, Ada!")
            sent = await http.post("/api/durable/Counter/a%2Fb/add/send", json=4)
            invocation_id = sent.json()["invocationId"]
            attached = await http.get(f"/api/durable/restate/invocation/{invocation_id}/attach")
            assert attached.json() == 4
            shown = await http.get(f"/ops/invocations/{invocation_id}")
            assert (shown.json()["status"], shown.json()["target"]) == ("completed", "Counter/a/b/add")
            assert (await http.get("/ops/health")).status_code == 200
            assert (await http.post("/api/durable/Nobody/greet", json=1)).status_code == 404


async def test_two_engines_on_two_files(tmp_path: Path) -> None:
    async with Engine(programs.app, db=tmp_path / "a.db") as a, Engine(programs.app, db=tmp_path / "b.db") as b:
        assert await a.client.object_call(programs.add, key="k", arg=1) == 1
        assert await b.client.object_call(programs.add, key="k", arg=10) == 10
        assert await a.client.object_call(programs.add, key="k", arg=1) == 2
        assert b.state("Counter", "k") == {"value": b"10"}


async def test_relaxed_durability_keeps_what_was_done(tmp_path: Path) -> None:
    for expected in range(1, 4):
        async with Engine(programs.app, db=tmp_path / "a.db", durability="relaxed") as engine:
            assert await engine.client.object_call(programs.add, key="k", arg=1) == expected


def test_config_and_settings_exclude_each_other() -> None:
    with pytest.raises(TypeError, match="not both"):
        Engine(programs.app, config=EngineConfig(), attempts_max=3)


async def test_entropy_is_injected() -> None:
    """With the same randomness and time, ids are the same."""
    ids: list[str] = []
    for _ in range(2):
        async with Engine(programs.app, clock=ManualClock(1_700_000_000_000), entropy=bytes) as engine:
            ids.append((await engine.client.service_send(programs.greet, arg="Ada")).invocation_id)
            await engine.attach(ids[-1])
    assert ids[0] == ids[1]


# ---- without an event loop -------------------------------------------------------------------------------------------


def test_sync_engine_calls() -> None:
    with SyncEngine(programs.app) as engine:
        assert json.loads(engine.call("Greeter/greet", b'"Ada"')) == "Hello, Ada!"
        assert json.loads(engine.call("Counter/k/add", b"2")) == 2
        assert engine.call("Counter/k/fill", b'"text"') == b""
        with pytest.raises(InvocationFailed, match="no tea") as caught:
            engine.call("Greeter/refuse", b'"tea"')
        assert caught.value.failure_code == 418
        assert caught.value.invocation_id.startswith("inv_1")


@pytest.mark.parametrize("target", ["Greeter/nothing", "Nobody/greet", "Greeter/key/greet", "Counter/add", "Greeter"])
def test_sync_engine_refuses_unknown_targets(target: str) -> None:
    with SyncEngine(programs.app) as engine, pytest.raises(InvalidRequest) as caught:
        engine.call(target, b'"Ada"')
    assert target in caught.value.message
    assert caught.value.hint


def test_sync_engine_takes_keys_with_a_slash() -> None:
    with SyncEngine(programs.app) as engine:
        assert json.loads(engine.call("Counter/a/b/add", b"2")) == 2
        assert engine.engine.services
        assert engine.run(_state(engine.engine, "a/b")) == {"value": b"2"}


async def _state(engine: Engine, key: str) -> dict[str, bytes]:
    return engine.state("Counter", key)


def test_sync_engine_from_several_threads(tmp_path: Path) -> None:
    with SyncEngine(programs.app, db=tmp_path / "a.db") as engine, ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda _: json.loads(engine.call("Counter/k/add", b"1")), range(100)))
        assert sorted(results) == list(range(1, 101))


async def test_sync_engine_inside_a_running_loop() -> None:
    """Its loop is its own, so a test that has one can use it from a thread."""

    def use() -> bytes:
        with SyncEngine(programs.app) as engine:
            return engine.call("Greeter/greet", b'"Ada"')

    assert json.loads(await asyncio.to_thread(use)) == "Hello, Ada!"


def test_sync_engine_after_its_block() -> None:
    with SyncEngine(programs.app) as engine:
        pass
    with pytest.raises(EngineStopped) as caught:
        engine.call("Greeter/greet", b'"Ada"')
    assert caught.value.hint
    assert not [thread for thread in threading.enumerate() if thread.name == "holdfast-engine"]


def test_sync_engine_that_cannot_start_leaves_no_thread() -> None:
    with pytest.raises(InvalidApp), SyncEngine(restate.app([])):
        pass
    for thread in threading.enumerate():
        if thread.name == "holdfast-engine":
            thread.join(60)
            assert not thread.is_alive()


def test_sync_engine_stopped_inside_its_block() -> None:
    """As after a failure of its own: calls are refused, none waits for a loop that has ended."""
    with SyncEngine(programs.app) as engine:
        engine.run(engine.engine.stop())
        for _ in range(20):
            with pytest.raises(EngineStopped):
                engine.call("Greeter/greet", b'"Ada"')


def test_sync_engine_delivers_the_error_of_its_block() -> None:
    with pytest.raises(ZeroDivisionError), SyncEngine(programs.app):
        _ = 1 / 0


async def test_a_caller_who_goes_away_stops_nothing() -> None:
    async with Engine(programs.app) as engine:
        call = asyncio.create_task(engine.client.service_call(programs.blocked, arg="x", idempotency_key="x"))
        await until(lambda: programs.seen["blocked x"])
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        programs.gates["x"].set()
        done: Any = await engine.client.service_call(programs.blocked, arg="x", idempotency_key="x")
        assert done == "x went on"
        assert programs.seen["blocked x"] == 1
