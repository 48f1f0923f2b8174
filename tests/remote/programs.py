"""Services that run behind an endpoint, in two versions."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from typing import Any

import restate

steps: dict[str, int] = defaultdict(int)
"""What ran how often, by name."""
awakeables: dict[str, str] = {}
failing: set[str] = set()
"""Invocations by argument that fail for as long as they are in here."""


def _step(name: str) -> str:
    steps[name] += 1
    return name


def orders(version: str) -> restate.Service:
    """`Orders`, whose answers say which version gave them."""
    service = restate.Service("Orders")

    async def place(ctx: restate.Context, name: str) -> str:
        taken = await ctx.run_typed("take", lambda: _step(f"take {name} {version}"))
        awakeables[name], approved = ctx.awakeable(type_hint=str)
        return f"{taken}, {await approved} by {version}"

    async def quick(ctx: restate.Context, name: str) -> str:
        if name in failing:
            raise ValueError(f"{name} is not ready in {version}")
        return f"{name} by {version}"

    async def naps(ctx: restate.Context, name: str) -> str:
        await ctx.run_typed("before", lambda: _step(f"before {name}"))
        await ctx.sleep(timedelta(milliseconds=30))
        await ctx.run_typed("after", lambda: _step(f"after {name}"))
        return name

    async def mirror(ctx: restate.Context, body: str) -> str:
        return body

    for handler in (place, quick, naps, mirror):
        service.handler()(handler)
    return service


def counter() -> restate.VirtualObject:
    """`Counter`."""
    counter = restate.VirtualObject("Counter")

    @counter.handler()
    async def add(ctx: restate.ObjectContext, amount: int) -> int:
        total = (await ctx.get("total", type_hint=int) or 0) + amount
        ctx.set("total", total)
        return total

    return counter


def application(version: str = "v1", **settings: Any) -> Any:
    return restate.app([orders(version), counter()], **settings)


app = application()
