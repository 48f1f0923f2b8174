"""Results that are kept for long and for short."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from restate import ObjectContext, RunOptions, TerminalError

from holdfast.patterns import Cache
from tests.patterns import world


async def ask(key: str) -> dict[str, Any]:
    world.effects[key].append("asked")
    if key.endswith("-bad") and len(world.effects[key]) == 1:
        raise TerminalError("no answer", status_code=503)
    return {"answer": len(world.effects[key])}


async def compute(ctx: ObjectContext, key: str) -> dict[str, Any]:
    return await ctx.run_typed("ask", ask, RunOptions(), key)


lasting = Cache("Lasting", compute, ttl=timedelta(hours=1))
brief = Cache("Brief", compute, ttl=timedelta(milliseconds=100))
SERVICES = (lasting.service, brief.service)
