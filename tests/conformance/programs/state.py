"""State of objects: a small interpreter, so that scenarios are tables of operations."""

from __future__ import annotations

from typing import Any

from restate import ObjectContext, ObjectSharedContext, TerminalError, VirtualObject
from restate.serde import BytesSerde

from tests.conformance import ledger
from tests.conformance.programs.common import RETRY, Request, id_from_key, ms, policy

state = VirtualObject("State", invocation_retry_policy=RETRY)
lazy_state = VirtualObject("LazyState", invocation_retry_policy=RETRY, state_preload=False)
other_state = VirtualObject("OtherState", invocation_retry_policy=RETRY)


async def apply_operations(ctx: ObjectContext, operations: list[list[Any]]) -> list[Any]:
    """Run operations in order; returns one result for each that reads."""
    t = id_from_key(ctx.key())
    results: list[Any] = []
    for operation, *arguments in operations:
        match operation, arguments:
            case "get", [name]:
                results.append(await ctx.get(name))
            case "get_bytes", [name]:
                value = await ctx.get(name, serde=BytesSerde())
                results.append(None if value is None else list(value))
            case "size", [name]:
                results.append(len(await ctx.get(name, type_hint=str) or ""))
            case "keys", []:
                results.append(sorted(await ctx.state_keys()))
            case "set", [name, value]:
                ctx.set(name, value)
            case "set_bytes", [name, value]:
                ctx.set(name, bytes(value), serde=BytesSerde())
            case "clear", [name]:
                ctx.clear(name)
            case "clear_all", []:
                ctx.clear_all()
            case "crash", [name]:
                ledger.fail_first(t, name)
            case "fail", [message]:
                raise TerminalError(message)
            case "sleep", [delay_ms]:
                await ctx.sleep(ms(delay_ms))
            case "gate", [name]:
                ledger.record(t, f"at {name}")
                await ledger.gate(t, name)
            case _:
                raise TerminalError(f"unknown operation {operation}", status_code=400)
    return results


@state.handler()
async def apply(ctx: ObjectContext, operations: list[list[Any]]) -> list[Any]:
    return await apply_operations(ctx, operations)


@state.handler(kind="shared")
async def view(ctx: ObjectSharedContext, operations: list[list[Any]]) -> list[Any]:
    return await apply_operations(ctx, operations)  # type: ignore[arg-type]  # writes are for the engine to refuse


@state.handler(kind="shared", invocation_retry_policy=policy(2, "kill"))
async def view_once(ctx: ObjectSharedContext, operations: list[list[Any]]) -> list[Any]:
    """As `view`, with two attempts only: for what an engine refuses for ever."""
    return await apply_operations(ctx, operations)  # type: ignore[arg-type]


@state.handler(state_preload=False)
async def apply_lazily(ctx: ObjectContext, operations: list[list[Any]]) -> list[Any]:
    return await apply_operations(ctx, operations)


@lazy_state.handler(name="apply")
async def lazy_apply(ctx: ObjectContext, operations: list[list[Any]]) -> list[Any]:
    return await apply_operations(ctx, operations)


@lazy_state.handler(name="view", kind="shared")
async def lazy_view(ctx: ObjectSharedContext, operations: list[list[Any]]) -> list[Any]:
    return await apply_operations(ctx, operations)  # type: ignore[arg-type]


@other_state.handler(name="apply")
async def other_apply(ctx: ObjectContext, operations: list[list[Any]]) -> list[Any]:
    return await apply_operations(ctx, operations)


@state.handler()
async def increment(ctx: ObjectContext, amount: int) -> int:
    total = (await ctx.get("total", type_hint=int) or 0) + amount
    ctx.set("total", total)
    return total


@state.handler()
async def increment_with_retry(ctx: ObjectContext, req: Request) -> int:
    """Reads, writes, fails, and is tried again: the read is replayed, so that it counts once."""
    total = (await ctx.get("total", type_hint=int) or 0) + 1
    ctx.set("total", total)
    ledger.fail_first(req["t"], "crash", 2)
    return total


@state.handler()
async def who(ctx: ObjectContext) -> str:
    return ctx.key()
