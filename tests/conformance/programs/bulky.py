"""Handlers that move as much as the limits allow, and more."""

from __future__ import annotations

import json
from typing import Any

import restate
from restate import RunOptions, Service, TerminalError, VirtualObject
from restate.serde import BytesSerde

from tests.conformance import ledger
from tests.conformance.programs.common import Request, id_from_key, policy

BYTES = BytesSerde()
OCTETS = "application/octet-stream"

bulky = Service("Bulky", invocation_retry_policy=policy(2, "kill"))
store = VirtualObject("BulkyStore", invocation_retry_policy=policy(2, "kill"))


@bulky.handler(accept=OCTETS, input_serde=BYTES)
async def size(ctx: restate.Context, body: bytes) -> int:
    return len(body)


@bulky.handler()
async def step(ctx: restate.Context, req: Request) -> int:
    """A step with a result of `bytes`, which its replay reads back."""
    result = await ctx.run_typed("bulk", lambda: bytes(req["bytes"]), RunOptions(serde=BYTES))
    ledger.fail_first(req["t"], "crash")
    return len(result)


@bulky.handler(output_serde=BYTES, content_type=OCTETS)
async def output(ctx: restate.Context, req: Request) -> bytes:
    return bytes(req["bytes"])


@bulky.handler()
async def call(ctx: restate.Context, req: Request) -> Any:
    return json.loads(await ctx.generic_call("Bulky", "size", bytes(req["bytes"])))


@bulky.handler()
async def failure(ctx: restate.Context, req: Request) -> None:
    raise TerminalError("x" * req["bytes"])


@store.handler()
async def put(ctx: restate.ObjectContext, req: Request) -> None:
    for name in req["names"]:
        ctx.set(name, bytes(req["bytes"]), BYTES)


@store.handler()
async def use(ctx: restate.ObjectContext, names: list[str]) -> dict[str, Any]:
    """Everything that can be done with state, before and behind a replay."""
    seen: dict[str, Any] = {"keys": sorted(await ctx.state_keys())}
    seen["sizes"] = [len(await ctx.get(name, BYTES) or b"") for name in names]
    ctx.set("new", b"1", BYTES)
    ctx.clear(names[0])
    ledger.fail_first(id_from_key(ctx.key()), "crash")
    seen["new"] = len(await ctx.get("new", BYTES) or b"")
    seen["cleared"] = await ctx.get(names[0], BYTES)
    seen["absent"] = await ctx.get("absent", BYTES)
    seen["later keys"] = sorted(await ctx.state_keys())
    return seen


@store.handler()
async def many(ctx: restate.ObjectContext, count: int) -> int:
    """A journal of `count` entries and a few, replayed once from its end."""
    for index in range(count):
        ctx.set(f"k{index % 10}", index)
    await ctx.run_typed("stored", lambda: None)
    ledger.fail_first(id_from_key(ctx.key()), "crash")
    return sum([await ctx.get(f"k{index}", type_hint=int) or 0 for index in range(10)])


def application() -> Any:
    return restate.app([bulky, store])
