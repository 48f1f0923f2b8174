"""A slow and a quick rate, permits with a long and a short lease, and services that use them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from restate import Context, RunOptions, Service, TerminalError

from holdfast.patterns import RateLimiter, Semaphore
from tests.patterns import world

slow = RateLimiter("SlowRate", limit=2, per=timedelta(hours=2), burst=2, wait_max=timedelta(hours=2))
quick = RateLimiter("QuickRate", limit=20, per=timedelta(seconds=1), burst=1)
slots = Semaphore("Slots", permits=2, waiting_max=2)
leases = Semaphore("Leases", permits=1, lease=timedelta(milliseconds=300))
limited = Service("Limited")


@limited.handler()
async def paced(ctx: Context, request: dict[str, Any]) -> list[float]:
    """Times in seconds at which the turns came."""
    times: list[float] = []
    for _ in range(request["turns"]):
        await quick.wait(ctx, request["key"])
        times.append(await ctx.time())
    return times


async def work(key: str, name: str) -> None:
    world.running[key] += 1
    world.running_max[key] = max(world.running_max[key], world.running[key])
    world.effects[key].append(name)
    try:
        await world.gate(key)
    finally:
        world.running[key] -= 1
    if name == "bad":
        raise TerminalError("bad work", status_code=400)


@limited.handler()
async def slot(ctx: Context, request: dict[str, str]) -> None:
    async with slots.hold(ctx, request["key"]):
        await ctx.run_typed("work", work, RunOptions(), request["key"], request["name"])


@limited.handler()
async def forget(ctx: Context, key: str) -> None:
    """Holds longer than its lease."""
    async with leases.hold(ctx, key):
        await ctx.run_typed("work", work, RunOptions(), key, "forgetful")


SERVICES = (slow.service, quick.service, slots.service, leases.service, limited)
