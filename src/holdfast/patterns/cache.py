"""Cache: an expensive result, computed once per key until it expires."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypedDict

from restate import ObjectContext, ObjectSharedContext, VirtualObject

from holdfast.patterns.context import now_ms, read_state


class Entry(TypedDict):
    """A result that is kept. Times are milliseconds since the epoch."""

    value: Any
    computed_at_ms: int
    expires_at_ms: int


class Cache:
    """A virtual object that keeps the result of `compute` for each key, until it expires.

        async def locate(ctx: ObjectContext, address: str) -> dict[str, str]:
            return await ctx.run_typed("locate", ask_provider, EXTERNAL_CALL, address)

        locations = Cache("Locations", locate, ttl=timedelta(days=1))
        app = restate.app([scans, locations.service])
        place = await ctx.object_call(locations.get, key="192.0.2.1", arg=None)

    Use it where a result is expensive or paid for, and many invocations ask for it. Callers that ask for one key at the
    same time wait for one computation. Not for what is cheap, a durable call is dearer; not inside one invocation,
    whose steps are kept anyway; and not for large values, they are state of the engine.

    Errors are not kept. Expired entries are removed by themselves, so the state is bounded by what was asked for in one
    `ttl`.

    Handlers: `get()`, `invalidate()`, and shared `peek()`, which computes nothing: an `Entry`, or null.

    Args:
        name: Of the virtual object.
        compute: Gets the context and the key, which is all that a result may depend on; its result must be JSON.
        ttl: Time to live.
    Raises:
        ValueError: `ttl` is less than a millisecond.
    """

    def __init__(self, name: str, compute: Callable[[ObjectContext, str], Awaitable[Any]], *, ttl: timedelta) -> None:
        ttl_ms = int(ttl.total_seconds() * 1000)
        if ttl_ms < 1:
            raise ValueError("ttl must be at least a millisecond")
        service = self.service = VirtualObject(name, description=f"Results kept for {ttl}")

        @service.handler()
        async def get(ctx: ObjectContext) -> Any:
            kept = await _entry(ctx)
            if kept is not None and await now_ms(ctx) < kept["expires_at_ms"]:
                return kept["value"]
            value = await compute(ctx, ctx.key())
            at_ms = await now_ms(ctx)
            ctx.set("entry", Entry(value=value, computed_at_ms=at_ms, expires_at_ms=at_ms + ttl_ms))
            ctx.object_send(evict, key=ctx.key(), arg=at_ms, send_delay=ttl)
            return value

        @service.handler(ingress_private=True)
        async def evict(ctx: ObjectContext, computed_at_ms: int) -> None:
            kept = await _entry(ctx)
            if kept is not None and kept["computed_at_ms"] <= computed_at_ms:  # else it was computed again meanwhile
                ctx.clear("entry")

        @service.handler()
        async def invalidate(ctx: ObjectContext) -> None:
            ctx.clear("entry")

        @service.handler(kind="shared")
        async def peek(ctx: ObjectSharedContext) -> Entry | None:
            return await _entry(ctx)

        self.get, self.invalidate, self.peek = get, invalidate, peek


async def _entry(ctx: ObjectContext | ObjectSharedContext) -> Entry | None:
    kept = await read_state(ctx, "entry")
    return None if kept is None else Entry(**kept)
