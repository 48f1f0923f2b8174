"""Handlers with one pitfall each, and some that only look like it."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
import uuid
from datetime import UTC, datetime, timedelta
from datetime import datetime as moment
from typing import Any

from restate import Context, ObjectContext, ObjectSharedContext, Service, VirtualObject, Workflow, WorkflowContext

from holdfast.patterns import Finding, guarded
from tests.patterns import world

findings: list[Finding] = []

clean = Service("Clean")
dirty = Service("Dirty")
log = VirtualObject("PitfallLog")
flow = Workflow("PitfallFlow")


@clean.handler()
async def careful(ctx: Context, key: str) -> str:
    async def look() -> float:
        await asyncio.sleep(0)
        return time.time() + random.random()

    await ctx.run_typed("look", look)
    await ctx.run_typed("draw", lambda: str(uuid.uuid4()))
    await ctx.time()
    await ctx.sleep(timedelta(milliseconds=1))
    return str(ctx.uuid())


@dirty.handler()
async def clocks(ctx: Context) -> None:
    time.time()
    datetime.now(UTC)
    moment.now(tz=UTC)
    time.perf_counter()  # measures, and decides nothing


@dirty.handler()
async def chances(ctx: Context) -> None:
    random.choice([1, 2])
    uuid.uuid4()
    secrets.token_hex()
    random.Random(4)


@dirty.handler()
async def waits(ctx: Context) -> None:
    await asyncio.sleep(0)


@dirty.handler()
async def tasks(ctx: Context) -> None:
    await asyncio.gather(ctx.time(), asyncio.to_thread(len, "ab"))


@dirty.handler()
async def helped(ctx: Context) -> None:
    deep()
    await ctx.run_typed("deep", deep)  # a step


def deep() -> str:
    return deeper(3)


def deeper(count: int) -> str:
    return deeper(count - 1) if count else str(moment.today())  # noqa: DTZ002 - that is what is found


@dirty.handler()
async def escapes(ctx: Context, key: str) -> str:
    async def go_on() -> None:
        await world.gate(key)
        world.effects[key].append("escaped")

    _started[key] = in_background(go_on())
    return "done"


_started: dict[str, Any] = {}


def in_background(coro: Any) -> Any:
    """Not seen by reading the handler: it is called from there."""
    return asyncio.get_running_loop().create_task(coro)


@log.handler()
async def nap(ctx: ObjectContext, nap_ms: int) -> None:
    ctx.sleep(timedelta(milliseconds=nap_ms))  # not awaited: what it asks for is what matters


@log.handler(kind="shared")
async def watch(ctx: ObjectSharedContext, nap_ms: int) -> None:
    ctx.sleep(timedelta(milliseconds=nap_ms))


@log.handler()
async def grow(ctx: ObjectContext, request: dict[str, Any]) -> None:
    ctx.set(request["name"], ["x" * request["size"]] * request["items"])


@log.handler(kind="shared")
async def grown(ctx: ObjectSharedContext, name: str) -> Any:
    return await ctx.get(name, type_hint=object)


@flow.main()
async def run(ctx: WorkflowContext, nap_ms: int) -> None:
    ctx.sleep(timedelta(milliseconds=nap_ms))


SERVICES = tuple(guarded((clean, dirty, log, flow), report=findings.append))
"""Watched when this is imported: the same list on every engine."""
READ = list(findings)
