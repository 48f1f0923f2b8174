"""State and time of a handler, as the virtual objects of this package read them."""

from __future__ import annotations

from typing import Any

from restate import Context, ObjectContext, ObjectSharedContext


async def read_state(ctx: ObjectContext | ObjectSharedContext, name: str) -> Any:
    """The JSON value of a state, None where there is none. Not typed: the SDK does not check it either."""
    return await ctx.get(name, type_hint=object)


async def now_ms(ctx: Context) -> int:
    """Milliseconds since the epoch, the same at every replay."""
    return int(await ctx.time() * 1000)
