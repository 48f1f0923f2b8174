"""The same programs with the same results on every protocol version and in every style of waiting."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from holdfast import Engine, EngineConfig
from holdfast.errors import InvalidApp
from tests.runtime import programs
from tests.runtime.support import call, complete, result, send, until

EXPECTED: dict[str, Any] = {
    "greet": "Hello, Ada!",
    "fan out": [0, 1, 2, 3],
    "refused": [418, "no tea"],
    "counts": [1, 2, 3, 3],
    "state": {"value": b"3"},
    "awakeable": "there",
    "rejected": [500, "not today"],
    "race": ["slept", "slept"],
    "flaky": ["run 3"],
    "step runs": 3,
    "signup": "welcome",
    "canceled": [409, "cancelled"],
    "killed": [409, "killed"],
    "request response": "onetwo",
}


async def outcomes(engine: Engine) -> dict[str, Any]:
    """Run every sample program."""
    found: dict[str, Any] = {}
    found["greet"] = await call(engine, "Greeter/greet", "Ada")
    found["fan out"] = await call(engine, "Greeter/fan_out", 4)
    found["refused"] = await failure(engine, await send(engine, "Greeter/refuse", "tea"))
    found["counts"] = [await call(engine, "Counter/k/add", 1) for _ in range(3)] + [
        await call(engine, "Counter/k/value")
    ]
    found["state"] = engine.state("Counter", "k")
    waiting = await send(engine, "Waiter/awakeable", "a")
    await engine.resolve_awakeable(await awakeable(engine, "a"), b'"there"')
    found["awakeable"] = await result(engine, waiting)
    rejected = await send(engine, "Waiter/awakeable", "b")
    await engine.reject_awakeable(await awakeable(engine, "b"), "not today")
    found["rejected"] = await failure(engine, rejected)
    found["race"] = await call(engine, "Waiter/unawaited_race", "r")
    found["flaky"] = await call(engine, "Flaky/twice", "f")
    found["step runs"] = programs.seen["step f"]
    signup = await send(engine, "Signup/ada/run", "ada@example.org")
    await call(engine, "Signup/ada/confirm", "code for ada@example.org")
    found["signup"] = await result(engine, signup)
    for name, operation in (("canceled", engine.cancel), ("killed", engine.kill)):
        doomed = await send(engine, "Waiter/awakeable", name)
        await awakeable(engine, name)
        await operation(doomed)
        found[name] = await failure(engine, doomed)
    found["request response"] = await call(engine, "Waiter/request_response", "q")
    return found


async def awakeable(engine: Engine, name: str) -> str:
    return (await until(lambda: programs.notes[name]))[0]


async def failure(engine: Engine, invocation_id: str) -> list[Any]:
    completion = await engine.attach(invocation_id)
    assert completion.failure is not None, completion
    return [completion.failure.code, completion.failure.message]


@pytest.mark.parametrize("suspend_after_ms", [0, 60_000])
@pytest.mark.parametrize("version", [5, 6, 7])
async def test_results_are_equal(version: int, suspend_after_ms: int, tmp_path: Path) -> None:
    config = EngineConfig(protocol_version_max=version, suspend_after_ms=suspend_after_ms)
    async with Engine(programs.app, db=tmp_path / "a.db", config=config) as engine:
        found = await outcomes(engine)
        [info] = engine.list_invocations(handler="greet")
        assert info.pinned_protocol_version == version
        assert await complete(engine, "Greeter/greet", "Ada") is not None
    assert found == EXPECTED


@pytest.mark.parametrize("first", [5, 6, 7])
@pytest.mark.parametrize("second", [5, 6, 7])
async def test_an_invocation_goes_on_with_another_version(first: int, second: int, tmp_path: Path) -> None:
    """An upgraded engine replays what an older one has journaled, and the other way round."""
    async with Engine(programs.app, db=tmp_path / "a.db", protocol_version_max=first) as engine:
        waiting = await send(engine, "Greeter/many_steps", 3)
        race = await send(engine, "Signup/ada/run", "ada@example.org")
        await until(lambda: programs.notes["awakeable"])
        await until(lambda: engine.describe(race).journal_size >= 4)
    async with Engine(programs.app, db=tmp_path / "a.db", protocol_version_max=second) as engine:
        await asyncio.gather(
            engine.resolve_awakeable(programs.notes["awakeable"][0], b"4"),
            call(engine, "Signup/ada/confirm", "code for ada@example.org"),
        )
        assert await result(engine, waiting) == 7
        assert await result(engine, race) == "welcome"


async def test_an_application_of_another_time() -> None:
    async def future(scope: Any, receive: Any, send_: Any) -> None:
        manifest = {"minProtocolVersion": 9, "maxProtocolVersion": 11, "protocolMode": "BIDI_STREAM", "services": []}
        content_type = b"application/vnd.restate.endpointmanifest.v4+json"
        await send_({"type": "http.response.start", "status": 200, "headers": [(b"content-type", content_type)]})
        await send_({"type": "http.response.body", "body": json.dumps(manifest).encode(), "more_body": False})

    with pytest.raises(InvalidApp, match="9 to 11") as caught:
        await Engine(future).start()
    assert "restate-sdk" in caught.value.hint


@pytest.mark.parametrize("settings", [{"protocol_version_max": 8}, {"attempts_max": 0}, {"durability": "none"}])
def test_settings_outside_their_limits(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Engine(programs.app, **settings)
