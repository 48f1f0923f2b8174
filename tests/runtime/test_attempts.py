"""How attempts are placed, suspended, timed out and ended."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from holdfast import Engine
from holdfast.errors import EngineError
from holdfast.runtime import timers
from tests.runtime import programs
from tests.runtime.support import PATIENCE_S, ManualClock, call, complete, result, send, status, until


async def test_an_idle_attempt_is_suspended_early_and_goes_on() -> None:
    async with Engine(programs.app, suspend_after_ms=5) as engine:
        invocation_id = await send(engine, "Waiter/awakeable", "a")
        await status(engine, invocation_id, "suspended")
        assert engine.describe(invocation_id).waiting_for == ["awakeable 0"]
        await until(lambda: engine.statistics() == {"attempts": 0, "resident": 0})
        await engine.resolve_awakeable(programs.notes["a"][0], b'"go"')
        assert await result(engine, invocation_id) == "go"
        assert programs.seen["attempt a"] == 2
        assert len(set(programs.notes["a"])) == 1, "a replay made another awakeable"


async def test_a_quick_answer_costs_no_second_attempt() -> None:
    async with Engine(programs.app, suspend_after_ms=60_000) as engine:
        invocation_id = await send(engine, "Waiter/awakeable", "a")
        await until(lambda: programs.notes["a"])
        await engine.resolve_awakeable(programs.notes["a"][0], b'"go"')
        assert await result(engine, invocation_id) == "go"
        assert programs.seen["attempt a"] == 1


async def test_a_busy_attempt_is_not_suspended() -> None:
    """A handler that waits for something of its own keeps its place, however impatient the engine is."""
    async with Engine(programs.app, suspend_after_ms=0) as engine:
        invocation_id = await send(engine, "Waiter/blocked", "a")
        step = await send(engine, "Waiter/blocked_step", "s")
        await until(lambda: programs.seen["blocked a"] and programs.seen["step s"])
        other = await send(engine, "Waiter/awakeable", "w")
        await status(engine, other, "suspended")  # so that the two were looked at as well
        assert engine.describe(invocation_id).status == engine.describe(step).status == "running"
        programs.gates["a"].set()
        programs.gates["s"].set()
        assert await result(engine, invocation_id) == "a went on"
        assert await result(engine, step) == "s!"
        assert programs.seen["blocked a"] == programs.seen["step s"] == 1


async def test_an_attempt_that_was_busy_when_asked_is_suspended_later() -> None:
    """It is asked while it waits for something of its own, and only then begins to wait for the engine."""
    async with Engine(programs.app, suspend_after_ms=0) as engine:
        invocation_id = await send(engine, "Waiter/blocked_then_waits", "a")
        await until(lambda: programs.seen["blocked a"])
        other = await send(engine, "Waiter/awakeable", "w")
        await status(engine, other, "suspended")
        programs.gates["a"].set()
        await status(engine, invocation_id, "suspended")
        await engine.resolve_awakeable(programs.notes["a"][0], b'"go"')
        assert await result(engine, invocation_id) == "go"


async def test_a_crowd_that_waits_gives_way(tmp_path: Path) -> None:
    """All places are taken in one moment by attempts that wait. They are asked before they have read their input, too."""
    count = 600
    async with Engine(programs.app, db=tmp_path / "a.db", attempts_max=300, suspend_after_ms=60_000) as engine:
        await call(engine, "Waiter/crowd", count)
        names = [f"w{index}" for index in range(count)]
        await until(lambda: all(name in programs.notes for name in names), "the start of all")
        for name in names:
            await engine.resolve_awakeable(programs.notes[name][0], b'"go"')
        await until(lambda: not engine.list_invocations(statuses=["suspended", "running", "ready"]))
        assert len(engine.list_invocations(handler="awakeable", statuses=["completed"], limit=1_000)) == count


@pytest.mark.parametrize("attempts_max", [1, 2, 7])
async def test_few_places_and_many_who_want_one(attempts_max: int) -> None:
    """No deadlock although callers hold places while they wait for callees, and nobody starves."""
    async with Engine(programs.app, attempts_max=attempts_max, suspend_after_ms=60_000) as engine:
        work: list[Any] = [call(engine, "Greeter/fan_out", 6) for _ in range(8)]
        work += [call(engine, "Waiter/nap", 5) for _ in range(8)]
        work += [call(engine, f"Counter/k{index % 2}/add", 1) for index in range(20)]
        work += [call(engine, "Flaky/twice", f"f{index}") for index in range(4)]
        tasks = asyncio.gather(*work)
        most = 0
        while not tasks.done():
            most = max(most, engine.statistics()["attempts"])
            await asyncio.sleep(0)
        results = await tasks
        assert results[:8] == [list(range(6))] * 8
        assert sorted(results[16:36]) == sorted([*range(1, 11)] * 2)
        assert results[36:] == [["run 3"]] * 4
        assert most <= attempts_max


async def test_few_places_on_version_6() -> None:
    """There the SDK cannot be asked what it waits for; the inactivity timeout makes room."""
    async with Engine(programs.app, attempts_max=2, protocol_version_max=6) as engine:
        ids = [await send(engine, "Waiter/soon_inactive", f"w{index}") for index in range(6)]
        for index, invocation_id in enumerate(ids):
            name = f"w{index}"
            await until(lambda name=name: programs.notes[name])
            await engine.resolve_awakeable(programs.notes[name][0], b'"go"')
            assert await result(engine, invocation_id) == "go"


async def test_places_are_given_in_order() -> None:
    async with Engine(programs.app, attempts_max=1) as engine:
        first = await send(engine, "Waiter/blocked", "first")
        await until(lambda: programs.seen["blocked first"])
        ids = [await send(engine, "Waiter/awakeable", f"w{index}") for index in range(20)]
        assert engine.describe(ids[0]).status == "ready"
        programs.gates["first"].set()
        await result(engine, first)
        await until(lambda: len(programs.notes) == 20)
        order = [name for name in programs.notes if name.startswith("w")]
        assert order == [f"w{index}" for index in range(20)]


async def test_inactivity_timeout_suspends() -> None:
    async with Engine(programs.app, suspend_after_ms=60_000) as engine:
        invocation_id = await send(engine, "Waiter/soon_inactive", "a")
        await status(engine, invocation_id, "suspended")
        await engine.resolve_awakeable(programs.notes["a"][0], b'"go"')
        assert await result(engine, invocation_id) == "go"


@pytest.mark.parametrize("version", [6, 7])
async def test_abort_timeout_ends_an_attempt_that_hangs(version: int) -> None:
    async with Engine(programs.app, protocol_version_max=version) as engine:
        invocation_id = await send(engine, "Waiter/soon_aborted", "a")
        assert await result(engine, invocation_id) == "second attempt"
        [event] = engine.journal_events(invocation_id)
        assert "RT0001" in event["error_message"]


async def test_inactivity_timeout_of_zero_means_request_and_response() -> None:
    async with Engine(programs.app) as engine:
        assert await call(engine, "Waiter/request_response", "a") == "onetwo"
        assert programs.seen["attempt a"] == 3


async def test_context_variables_do_not_leak_between_attempts() -> None:
    """Neither from a handler into the next attempt that its frames cause, nor into its own second attempt."""
    async with Engine(programs.app, suspend_after_ms=0) as engine:
        ids = [await send(engine, "Waiter/variables", f"v{index}") for index in range(10)]
        for index, invocation_id in enumerate(ids):
            await status(engine, invocation_id, "suspended")
            programs.leak.set("set by the caller")
            await engine.resolve_awakeable(programs.notes[f"v{index}"][0], b'""')
            assert await result(engine, invocation_id) == ["clean", "clean"]
        programs.leak.set("clean")
        assert programs.seen["leaks"] == 0


async def test_kill_cancels_a_handler_where_it_waits() -> None:
    async with Engine(programs.app) as engine:
        invocation_id = await send(engine, "Waiter/blocked", "a")
        await until(lambda: programs.seen["blocked a"])
        await engine.kill(invocation_id)
        await until(lambda: programs.seen["cancelled a"], "the cancellation")
        completion = await engine.attach(invocation_id)
        assert completion.failure is not None
        assert (completion.failure.code, completion.failure.message) == (409, "killed")
        assert engine.statistics()["attempts"] == 0
        programs.gates["a"].set()
        assert programs.seen["blocked a"] == 1


async def test_cancel_leaves_a_handler_alone_that_waits_elsewhere() -> None:
    """Cancellation is a signal: it is seen at the next wait for the engine."""
    async with Engine(programs.app) as engine:
        invocation_id = await send(engine, "Waiter/blocked_then_waits", "a")
        await until(lambda: programs.seen["blocked a"])
        assert await engine.cancel(invocation_id) == "appended"
        assert programs.seen["cancelled a"] == 0
        programs.gates["a"].set()
        completion = await engine.attach(invocation_id)
        assert completion.failure is not None
        assert completion.failure.code == 409


async def test_a_cancelled_error_of_the_handler_itself_is_a_failed_attempt() -> None:
    async with Engine(programs.app) as engine:
        assert await call(engine, "Waiter/raises_cancelled", "a") == "fine"
        assert programs.seen["attempt a"] == 2


async def test_sync_actions_run_in_threads() -> None:
    async with Engine(programs.app) as engine:
        names = await asyncio.gather(*(call(engine, "Greeter/thread_name") for _ in range(5)))
        assert "MainThread" not in names


async def test_large_inputs_and_outputs(tmp_path: Path) -> None:
    text = "x" * (1 << 20)
    async with Engine(programs.app, db=tmp_path / "a.db") as engine:
        assert await call(engine, "Greeter/size", text) == len(text)
        invocation_id = await send(engine, "Greeter/greet", text)
        assert await result(engine, invocation_id) == f"Hello, {text}!"
        await asyncio.gather(*(call(engine, "Greeter/size", text) for _ in range(8)))
        await call(engine, "Counter/k/fill", text)
    async with Engine(programs.app, db=tmp_path / "a.db") as engine:
        assert len(engine.state("Counter", "k")["text"]) == len(text) + 2
        assert (await engine.attach(invocation_id)).value == json.dumps(f"Hello, {text}!").encode()


async def test_a_journal_of_thousands_is_replayed(tmp_path: Path) -> None:
    count = 2_500  # each step is two entries
    async with Engine(programs.app, db=tmp_path / "a.db", suspend_after_ms=0, durability="relaxed") as engine:
        invocation_id = await send(engine, "Greeter/many_steps", count)
        await until(lambda: programs.notes["awakeable"])
        await status(engine, invocation_id, "suspended")
        assert engine.describe(invocation_id).journal_size == 1 + 2 * count
    async with Engine(programs.app, db=tmp_path / "a.db") as engine:
        await engine.resolve_awakeable(programs.notes["awakeable"][0], b"7")
        assert await result(engine, invocation_id) == sum(range(count)) + 7
        assert programs.seen["replays"] == 2
        assert [entry.index for entry in engine.journal(invocation_id)] == list(range(1 + 2 * count + 2))


async def test_timers_follow_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that jumps, as after a suspended laptop, is noticed; until then nothing fires."""
    monkeypatch.setattr(timers, "LONGEST_NAP_S", 0.01)
    clock = ManualClock()
    async with Engine(programs.app, clock=clock) as engine:
        invocation_id = await send(engine, "Counter/k/add", 1, delay_ms=3_600_000)
        nap = await send(engine, "Waiter/nap", 3_600_000)
        await until(lambda: engine.describe(nap).journal_size >= 4)
        clock.advance(3_590_000)
        assert await call(engine, "Counter/other/add", 1) == 1
        assert engine.describe(invocation_id).status == "scheduled"
        clock.advance(20_000)
        assert await result(engine, invocation_id) == 1
        await result(engine, nap)


async def test_thousands_of_timers_due_at_once() -> None:
    clock = ManualClock()
    async with Engine(programs.app, clock=clock, attempts_max=100) as engine:
        ids = await asyncio.gather(
            *(send(engine, f"Counter/k{index % 10}/add", 1, delay_ms=50) for index in range(2_000))
        )
        clock.advance(50)
        await asyncio.wait_for(asyncio.gather(*(engine.attach(one) for one in ids)), PATIENCE_S)
        assert all(engine.state("Counter", f"k{index}") == {"value": b"200"} for index in range(10))


async def test_a_broken_answer_of_the_application_is_retried() -> None:
    """An ASGI application around the SDK's that fails, answers nonsense or nothing, before it behaves."""
    faults = ["raise", "500", "garbage", "silence", ""]

    async def faulty(scope: Any, receive: Any, send_: Any) -> None:
        fault = faults[0] if scope["path"].startswith("/invoke") else ""
        if scope["path"].startswith("/invoke"):
            faults.pop(0)
        if fault == "":
            await programs.app(scope, receive, send_)
        elif fault == "raise":
            raise RuntimeError("middleware is broken")
        elif fault == "silence":
            await send_({"type": "http.response.start", "status": 200, "headers": []})
        else:
            body = b"\xff" * 32 if fault == "garbage" else b"oops"
            await send_({"type": "http.response.start", "status": 500 if fault == "500" else 200, "headers": []})
            await send_({"type": "http.response.body", "body": body, "more_body": False})

    async with Engine(faulty) as engine:
        invocation_id = await send(engine, "Greeter/greet", "Ada")
        assert await result(engine, invocation_id) == "Hello, Ada!"
        messages = [event["error_message"] for event in engine.journal_events(invocation_id)]
        assert len(messages) == 4
        for message, part in zip(messages, ("middleware is broken", "500", "malformed", "RT0007"), strict=True):
            assert part in message


async def test_errors_of_a_stopped_engine_reach_every_waiter() -> None:
    engine = Engine(programs.app)
    await engine.start()
    calls = [asyncio.create_task(complete(engine, "Waiter/awakeable", f"w{index}")) for index in range(50)]
    await until(lambda: programs.notes["w49"])
    await engine.stop()
    for outcome in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(outcome, EngineError)
