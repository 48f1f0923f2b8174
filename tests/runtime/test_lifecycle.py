"""Start, stop, refuse to start, and go on where the last engine stopped."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import Any

import apsw
import pytest
import restate
from restate import Service

from holdfast import Engine
from holdfast.errors import DatabaseInUse, DatabaseRefused, EngineError, EngineStopped, InvalidApp
from tests.runtime import programs
from tests.runtime.support import PATIENCE_S, call, result, send, status, until


async def test_a_file_has_one_engine(tmp_path: Path) -> None:
    async with Engine(programs.app, db=tmp_path / "a.db") as engine:
        with pytest.raises(DatabaseInUse, match=rf"process {os.getpid()}\b") as caught:
            await Engine(programs.app, db=tmp_path / "a.db").start()
        assert str(tmp_path / "a.db") in str(caught.value)
        assert caught.value.hint
        assert await call(engine, "Counter/k/add", 1) == 1, "the refused engine did harm to the first"
    async with Engine(programs.app, db=tmp_path / "a.db") as engine:
        assert await call(engine, "Counter/k/add", 1) == 2


async def test_an_application_without_services() -> None:
    with pytest.raises(InvalidApp, match="no services") as caught:
        await Engine(restate.app([])).start()
    assert "restate.app" in caught.value.hint


@pytest.mark.parametrize("thing", [3, "module:app", Service("Lonely"), object()])
def test_not_an_application(thing: Any) -> None:
    with pytest.raises(InvalidApp) as caught:
        Engine(thing)
    assert "restate.app" in caught.value.hint


async def test_an_asgi_application_that_is_not_restates(tmp_path: Path) -> None:
    from starlette.applications import Starlette

    with pytest.raises(InvalidApp, match="404") as caught:
        await Engine(Starlette(), db=tmp_path / "a.db").start()
    assert "restate.app" in caught.value.hint
    assert not list(tmp_path.iterdir()), "a refused application leaves no file behind"


async def test_a_callable_that_is_no_asgi_application() -> None:
    with pytest.raises(InvalidApp) as caught:
        await Engine(lambda: None).start()
    assert "restate.app" in caught.value.hint


async def test_a_directory_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(DatabaseRefused, match="does not exist") as caught:
        await Engine(programs.app, db=tmp_path / "no" / "a.db").start()
    assert "mkdir" in caught.value.hint


async def test_a_directory_instead_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(DatabaseRefused, match="is a directory"):
        await Engine(programs.app, db=tmp_path).start()


async def test_a_file_of_another_program_is_left_alone(tmp_path: Path) -> None:
    text, other = tmp_path / "notes.txt", tmp_path / "other.db"
    text.write_text("dear diary")
    connection = apsw.Connection(str(other))
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = other.read_bytes()
    for path in (text, other):
        with pytest.raises(DatabaseRefused) as caught:
            await Engine(programs.app, db=path).start()
        assert "untouched" in caught.value.hint
    assert text.read_text() == "dear diary"
    assert other.read_bytes() == before


async def test_an_engine_that_could_not_start_lets_go_of_the_file(tmp_path: Path) -> None:
    """Whatever goes wrong: the same process can try again."""
    path = tmp_path / "a.db"
    async with Engine(programs.app, db=path):
        pass
    reader = apsw.Connection(str(path))
    reader.execute("CREATE TRIGGER full BEFORE INSERT ON deployment BEGIN SELECT raise(ABORT, 'no'); END")
    reader.close()
    other = restate.app([programs.greeter])
    failed = Engine(other, db=path)  # other services, so another deployment is to be stored
    with pytest.raises(Exception, match="no"):
        await failed.start()
    reader = apsw.Connection(str(path))
    reader.execute("DROP TRIGGER full")
    reader.close()
    async with Engine(other, db=path) as engine:
        assert await call(engine, "Greeter/greet", "Ada") == "Hello, Ada!"


async def test_an_engine_starts_once() -> None:
    engine = Engine(programs.app)
    async with engine:
        with pytest.raises(EngineError, match="once"):
            await engine.start()
    with pytest.raises(EngineError, match="once"):
        await engine.start()


async def test_stop_is_idempotent() -> None:
    engine = Engine(programs.app)
    await engine.start()
    await asyncio.gather(engine.stop(), engine.stop(), engine.stop())
    await engine.stop()
    assert engine.stopped.is_set()


async def test_stop_without_start() -> None:
    engine = Engine(programs.app)
    await engine.stop()
    await engine.stop()
    with pytest.raises(EngineStopped):
        await call_greeter(engine)


async def call_greeter(engine: Engine) -> Any:
    async with Engine(programs.app) as other:
        handler = other.services["Greeter"].handlers["greet"]
    return await engine.call(handler, None, b'"Ada"')


async def test_use_before_start() -> None:
    with pytest.raises(EngineStopped, match="not started") as caught:
        await call_greeter(Engine(programs.app))
    assert "async with" in caught.value.hint


async def test_use_after_stop() -> None:
    async with Engine(programs.app) as engine:
        invocation_id = await send(engine, "Greeter/greet", "Ada")
        handler = engine.services["Greeter"].handlers["greet"]
    operations = (
        lambda: engine.call(handler, None, b'"Ada"'),
        lambda: engine.send(handler, None, b'"Ada"'),
        lambda: engine.attach(invocation_id),
        lambda: engine.output(invocation_id),
        lambda: engine.cancel(invocation_id),
        lambda: engine.kill(invocation_id),
        lambda: engine.purge(invocation_id),
        lambda: engine.resolve_awakeable("sign_1" + "A" * 40, b""),
        lambda: engine.mutate_state("Counter", "k", {}),
    )
    for operation in operations:
        with pytest.raises(EngineStopped) as caught:
            await operation()
        assert caught.value.hint
    for look in (engine.list_invocations, lambda: engine.describe(invocation_id), lambda: engine.state("Counter", "k")):
        with pytest.raises(EngineStopped):
            look()


async def test_the_ingress_of_a_stopped_engine_asks_to_come_again() -> None:
    import httpx

    async with Engine(programs.app) as engine:
        pass
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=engine.ingress), base_url="http://x") as http:
        answer = await http.post("/Greeter/greet", json="Ada")
    assert answer.status_code == 503
    assert answer.headers["retry-after"]


async def test_callers_who_wait_when_it_stops_are_told(tmp_path: Path) -> None:
    engine = Engine(programs.app, db=tmp_path / "a.db")
    await engine.start()
    waiting = asyncio.create_task(call(engine, "Waiter/awakeable", "a"))
    await until(lambda: programs.notes["a"])
    await engine.stop()
    with pytest.raises(EngineStopped) as caught:
        await waiting
    assert "next start" in caught.value.hint


async def test_stop_suspends_waiting_attempts_at_once(tmp_path: Path) -> None:
    """The configured drain time is for those that work; one that only waits needs none of it."""
    engine = Engine(programs.app, db=tmp_path / "a.db", drain_ms=60_000, suspend_after_ms=60_000)
    await engine.start()
    invocation_id = await send(engine, "Waiter/awakeable", "a")
    await until(lambda: programs.notes["a"])
    await asyncio.wait_for(engine.stop(), PATIENCE_S)
    async with Engine(programs.app, db=tmp_path / "a.db") as engine:
        assert engine.describe(invocation_id).status == "suspended"
        await engine.resolve_awakeable(programs.notes["a"][0], b'"go"')
        assert await result(engine, invocation_id) == "go"


async def test_stop_waits_for_a_step(tmp_path: Path) -> None:
    engine = Engine(programs.app, db=tmp_path / "a.db", drain_ms=60_000)
    await engine.start()
    invocation_id = await send(engine, "Waiter/blocked_step", "a")
    await until(lambda: programs.seen["step a"])
    stopping = asyncio.create_task(engine.stop())
    done, _ = await asyncio.wait([stopping], timeout=0.1)
    assert not done, "it did not wait for the step"
    programs.gates["a"].set()
    await asyncio.wait_for(stopping, PATIENCE_S)
    async with Engine(programs.app, db=tmp_path / "a.db") as engine:
        assert await result(engine, invocation_id) == "a!"
    assert programs.seen["step a"] == 1, "the step's result was not stored before the stop"


async def test_aborted_attempts_go_on_at_the_next_start(tmp_path: Path) -> None:
    engine = Engine(programs.app, db=tmp_path / "a.db")
    await engine.start()
    ids = [await send(engine, "Waiter/blocked", f"b{index}") for index in range(5)]
    ids += [await send(engine, "Waiter/blocked_step", f"s{index}") for index in range(5)]
    await until(lambda: sum(programs.seen.values()) == 10)
    await engine.stop(drain_ms=0)
    await until(lambda: all(programs.seen[f"cancelled b{index}"] for index in range(5)), "cancellation of handlers")
    for index in range(5):
        programs.gates[f"b{index}"].set()
        programs.gates[f"s{index}"].set()
    async with Engine(programs.app, db=tmp_path / "a.db") as engine:
        results = [await result(engine, invocation_id) for invocation_id in ids]
    assert results == [f"b{index} went on" for index in range(5)] + [f"s{index}!" for index in range(5)]


async def test_no_task_is_left_behind(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    engine = Engine(programs.app, db=tmp_path / "a.db")
    await engine.start()
    for index in range(20):
        await send(engine, "Waiter/blocked", f"b{index}")
        await send(engine, "Waiter/awakeable", f"a{index}")
        assert await call(engine, "Greeter/greet", "Ada")
    await until(lambda: programs.notes["a19"] and programs.seen["blocked b19"])
    await engine.stop(drain_ms=10)
    await until(lambda: asyncio.all_tasks() <= before, "the end of all tasks")


async def test_the_next_start_has_the_services_of_now(tmp_path: Path) -> None:
    """An invocation whose service is gone waits; it is not lost."""
    path = tmp_path / "a.db"
    async with Engine(programs.app, db=path) as engine:
        invocation_id = await send(engine, "Waiter/awakeable", "a")
        await until(lambda: programs.notes["a"])
        first = engine.deployments.latest("Waiter")
    async with Engine(restate.app([programs.greeter]), db=path) as engine:
        assert engine.deployments.latest("Greeter") != first
        assert list(engine.services) == ["Greeter"]
        assert engine.describe(invocation_id).status == "suspended"
        await engine.resolve_awakeable(programs.notes["a"][0], b'"late"')
        await status(engine, invocation_id, "backing-off", "running", "ready")
    async with Engine(programs.app, db=path) as engine:
        assert await result(engine, invocation_id) == "late"


async def test_a_delayed_send_survives_a_stop(tmp_path: Path) -> None:
    async with Engine(programs.app, db=tmp_path / "a.db") as engine:
        invocation_id = await send(engine, "Counter/k/add", 1, delay_ms=30)
        nap = await send(engine, "Waiter/nap", 40)
    async with Engine(programs.app, db=tmp_path / "a.db") as engine:
        assert await result(engine, invocation_id) == 1
        assert await result(engine, nap) >= 40


async def test_errors_are_one_line() -> None:
    for make in (lambda: Engine(restate.app([])), lambda: Engine(programs.app, db="/no/such/place.db")):
        with pytest.raises((EngineError, InvalidApp)) as caught:
            await make().start()
        assert not re.search(r"[\n\r]", str(caught.value))
