"""Completed invocations are kept as long as asked for, and then forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest
import restate
from restate import Context, ObjectContext, Service, VirtualObject, Workflow, WorkflowContext

from holdfast import Engine
from holdfast.errors import InvocationNotFound
from tests.runtime.support import ManualClock, call, result, send, until

HOUR_MS = 3_600_000

brief = Service("Brief", journal_retention=timedelta(0), idempotency_retention=timedelta(hours=1))
short = Service("Short", journal_retention=timedelta(minutes=1), idempotency_retention=timedelta(hours=1))
none = VirtualObject("None", journal_retention=timedelta(0), idempotency_retention=timedelta(0))
caller = Service("Caller", journal_retention=timedelta(0), idempotency_retention=timedelta(0))
flow = Workflow("Flow", journal_retention=timedelta(minutes=1))


@brief.handler("step")
async def brief_step(ctx: Context, text: str) -> int:
    return await ctx.run_typed("step", lambda: len(text))


@short.handler("step")
async def short_step(ctx: Context, text: str) -> int:
    return await ctx.run_typed("step", lambda: len(text))


@short.handler("called")
async def short_called(ctx: Context, text: str) -> int:
    return len(text)


@caller.handler("step")
async def caller_step(ctx: Context, text: str) -> int:
    """A call by a handler: what it leaves follows the journal's retention."""
    return await ctx.service_call(short_called, arg=text)


@none.handler("step")
async def none_step(ctx: ObjectContext, text: str) -> int:
    ctx.set("text", text)
    return await ctx.run_typed("step", lambda: len(text))


@flow.main(workflow_retention=timedelta(hours=1))
async def run(ctx: WorkflowContext, text: str) -> int:
    ctx.set("text", text)
    await ctx.promise("done", type_hint=str).resolve(text)
    return len(text)


app = restate.app([brief, short, none, caller, flow])

TEXTS = ["short", "long" * 1_000]


def rows(path: Path) -> dict[str, int]:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        tables = ("invocation", "journal", "journal_event", "timer", "listener", "promise", "state")
        return {table: connection.execute(f"SELECT count(*) FROM {table}").get for table in tables}
    finally:
        connection.close()


async def gone(engine: Engine, invocation_id: str) -> None:
    await until(lambda: _is_gone(lambda: engine.describe(invocation_id)), f"the end of {invocation_id}")


def _is_gone(look: Callable[[], Any]) -> bool:
    try:
        look()
    except InvocationNotFound:
        return True
    return False


@pytest.mark.parametrize("text", TEXTS)
async def test_no_retention_leaves_nothing(text: str, tmp_path: Path) -> None:
    async with Engine(app, db=tmp_path / "a.db") as engine:
        for _ in range(5):
            assert await call(engine, "None/k/step", text) == len(text)
        assert engine.list_invocations() == []
        assert engine.state("None", "k")
    counts = rows(tmp_path / "a.db")
    assert counts == {**dict.fromkeys(counts, 0), "state": 1}


@pytest.mark.parametrize("text", TEXTS)
async def test_output_is_kept_without_its_journal(text: str) -> None:
    async with Engine(app) as engine:
        invocation_id = await send(engine, "Brief/step", text, idempotency_key="x")
        assert await result(engine, invocation_id) == len(text)
        assert engine.input_preview(invocation_id) in (None, b"")
        assert [entry.entry_type for entry in engine.journal(invocation_id)] in ([], ["Command: Output"])
        assert await call(engine, "Brief/step", "other", idempotency_key="x") == len(text)


@pytest.mark.parametrize("text", TEXTS)
async def test_the_cleaner_takes_the_journal_first_and_then_the_rest(text: str, tmp_path: Path) -> None:
    clock = ManualClock()
    async with Engine(app, db=tmp_path / "a.db", clock=clock, cleanup_interval_ms=20) as engine:
        invocation_id = await send(engine, "Short/step", text, idempotency_key="x")
        assert await result(engine, invocation_id) == len(text)
        plain = await send(engine, "Short/step", text)
        assert await result(engine, plain) == len(text)
        called = await send(engine, "Caller/step", text)
        assert await result(engine, called) == len(text)
        [child] = engine.list_invocations(service="Short", handler="called")
        clock.advance(59_000)
        assert len(engine.journal(invocation_id)) == 4
        clock.advance(2_000)
        await gone(engine, child.id)
        await until(lambda: len(engine.journal(invocation_id)) <= 1, "the end of the journal")
        assert await result(engine, plain) == len(text), "a request without a key is kept like one with a key"
        assert await call(engine, "Short/step", "other", idempotency_key="x") == len(text), "the output went too"
        clock.advance(HOUR_MS)
        await gone(engine, invocation_id)
        assert await call(engine, "Short/step", "other", idempotency_key="x") == 5, "the old result was kept"
        clock.advance(2 * HOUR_MS)
        await until(lambda: engine.list_invocations() == [])
    counts = rows(tmp_path / "a.db")
    assert counts == dict.fromkeys(counts, 0)


async def test_a_workflow_is_forgotten_with_state_and_promises(tmp_path: Path) -> None:
    clock = ManualClock()
    async with Engine(app, db=tmp_path / "a.db", clock=clock, cleanup_interval_ms=20) as engine:
        invocation_id = await send(engine, "Flow/k/run", "text")
        assert await result(engine, invocation_id) == 4
        clock.advance(HOUR_MS - 1_000)
        assert engine.state("Flow", "k")
        again = await send(engine, "Flow/k/run", "other")
        assert again == invocation_id
        assert await result(engine, again) == 4
        clock.advance(2_000)
        await gone(engine, invocation_id)
        assert engine.state("Flow", "k") == {}
        assert await result(engine, await send(engine, "Flow/k/run", "other!")) == 6
        clock.advance(2 * HOUR_MS)
        await gone(engine, invocation_id)
    counts = rows(tmp_path / "a.db")
    assert counts == dict.fromkeys(counts, 0)


async def test_the_cleaner_leaves_alone_what_is_not_over(tmp_path: Path) -> None:
    clock = ManualClock()
    async with Engine(app, db=tmp_path / "a.db", clock=clock, cleanup_interval_ms=20) as engine:
        scheduled = await send(engine, "Short/step", "later", delay_ms=100 * HOUR_MS)
        done = await send(engine, "Short/step", "now")
        await result(engine, done)
        clock.advance(50 * HOUR_MS)
        await gone(engine, done)
        assert engine.describe(scheduled).status == "scheduled"


async def test_the_cleaner_works_through_thousands(tmp_path: Path) -> None:
    clock = ManualClock()
    config: dict[str, Any] = {"cleanup_interval_ms": 20, "durability": "relaxed"}
    async with Engine(app, db=tmp_path / "a.db", clock=clock, **config) as engine:
        await asyncio.gather(*(call(engine, "Short/step", "x") for _ in range(2_500)))
        clock.advance(HOUR_MS - 30_000)
        keep = await send(engine, "Short/step", "keep", idempotency_key="x")
        await result(engine, keep)
        clock.advance(31_000)
        await until(lambda: len(engine.list_invocations(limit=5_000)) == 1)
        assert engine.list_invocations()[0].id == keep
