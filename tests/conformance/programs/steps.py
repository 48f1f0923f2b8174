"""Durable steps: `ctx.run` and `ctx.run_typed` with every option and kind of result."""

from __future__ import annotations

import os
from typing import Any

import msgspec
from pydantic import BaseModel
from restate import Context, RunOptions, Service, TerminalError, gather
from restate.exceptions import RetryableError
from restate.serde import BytesSerde, Serde

from tests.conformance import ledger
from tests.conformance.programs.common import RETRY, Request, ms

steps = Service("Steps", invocation_retry_policy=RETRY)


class Order(BaseModel):
    item: str
    amount: int
    tags: list[str] = []


class Point(msgspec.Struct):
    x: int
    y: int


class ReversedText(Serde[str]):
    """A serde of the user's own: stores text backwards."""

    def serialize(self, obj: str | None) -> bytes:
        return (obj or "")[::-1].encode()

    def deserialize(self, buf: bytes) -> str:
        return buf.decode()[::-1]


@steps.handler()
async def sync_action(ctx: Context, req: Request) -> dict[str, Any]:
    def action() -> dict[str, Any]:
        ledger.record(req["t"], "step")
        return {"n": 1, "nested": [True, None, 1.5, "ü"]}

    return await ctx.run_typed("step", action)


@steps.handler()
async def async_action(ctx: Context, req: Request) -> list[int]:
    async def action(first: int, *, second: int) -> list[int]:
        ledger.record(req["t"], "step")
        return [first, second]

    return await ctx.run_typed("step", action, RunOptions(), 1, second=2)


@steps.handler()
async def legacy_run(ctx: Context, req: Request) -> int:
    async def add(a: int, b: int) -> int:
        ledger.record(req["t"], "add")
        return a + b

    total = await ctx.run("add", add, args=(2, 3))
    return await ctx.run("square", lambda: total * total)


@steps.handler()
async def none_result(ctx: Context, req: Request) -> str:
    def action() -> None:
        ledger.record(req["t"], "step")

    result = await ctx.run_typed("step", action)
    ledger.fail_first(req["t"], "crash")
    return repr(result)


@steps.handler()
async def typed_results(ctx: Context, req: Request) -> dict[str, Any]:
    """Every result is read back from the journal: the first attempt fails after the last step."""
    t = req["t"]

    def order() -> Order:
        ledger.record(t, "order")
        return Order(item="ink", amount=3, tags=["a", "b"])

    async def point() -> Point:
        ledger.record(t, "point")
        return Point(x=1, y=-1)

    an_order = await ctx.run_typed("order", order)
    a_point = await ctx.run_typed("point", point)
    raw = await ctx.run_typed("raw", lambda: b"\x00\xff\n", RunOptions(serde=BytesSerde()))
    text = await ctx.run_typed("text", lambda: "abc", RunOptions(serde=ReversedText()))
    hinted = await ctx.run_typed("hinted", lambda: Order(item="pen", amount=1), RunOptions(type_hint=Order))
    ledger.fail_first(t, "crash")
    return {
        "order": [type(an_order).__name__, an_order.item, an_order.amount, an_order.tags],
        "point": [type(a_point).__name__, a_point.x, a_point.y],
        "raw": list(raw),
        "text": text,
        "hinted": [type(hinted).__name__, hinted.item],
    }


@steps.handler()
async def pydantic_io(ctx: Context, order: Order) -> Order:
    return Order(item=order.item.upper(), amount=order.amount * 2, tags=[*order.tags, "seen"])


@steps.handler()
async def struct_io(ctx: Context, point: Point) -> Point:
    return Point(x=point.y, y=point.x)


@steps.handler()
async def fails_then_succeeds(ctx: Context, req: Request) -> str:
    """No options: the invocation's retry policy applies."""

    def action() -> str:
        ledger.fail_first(req["t"], "step", req["failures"])
        return "done"

    await ctx.run_typed("before", lambda: ledger.record(req["t"], "before"))
    return await ctx.run_typed("step", action)


@steps.handler()
async def max_attempts(ctx: Context, req: Request) -> str:
    """Fails `failures` times under `max_attempts`; with `catch`, compensates in a further step."""

    async def action() -> str:
        ledger.fail_first(req["t"], "step", req["failures"])
        return "done"

    options: RunOptions[str] = RunOptions(
        max_attempts=req["max"], initial_retry_interval=ms(10), retry_interval_factor=1.0, max_retry_interval=ms(50)
    )
    try:
        return await ctx.run_typed("step", action, options)
    except TerminalError as error:
        if not req.get("catch"):
            raise
        message = f"{error.status_code} {error.message}"
    await ctx.run_typed("undo", lambda: ledger.record(req["t"], "undo"))
    return message


@steps.handler()
async def legacy_max_attempts(ctx: Context, req: Request) -> str:
    def action() -> str:
        ledger.record(req["t"], "step")
        raise ValueError("never works")

    return await ctx.run("step", action, max_attempts=2)


@steps.handler()
async def max_duration(ctx: Context, req: Request) -> str:
    def action() -> str:
        ledger.record(req["t"], "step")
        raise ValueError("never works")

    options: RunOptions[str] = RunOptions(
        max_duration=ms(500), initial_retry_interval=ms(100), retry_interval_factor=1.0
    )
    return await ctx.run_typed("step", action, options)


@steps.handler()
async def second_step_fails(ctx: Context, req: Request) -> str:
    """The retries of the second step are counted from the second step, not from the invocation's start."""

    def action(name: str) -> str:
        ledger.fail_first(req["t"], name, 2)
        return name

    options: RunOptions[str] = RunOptions(max_attempts=3, initial_retry_interval=ms(5), retry_interval_factor=1.0)
    first = await ctx.run_typed("first", action, options, "first")
    second = await ctx.run_typed("second", action, options, "second")
    return first + second


@steps.handler()
async def terminal_in_step(ctx: Context, req: Request) -> str:
    """The failure is journaled: caught again on replay, without a second execution."""

    def action() -> str:
        ledger.record(req["t"], "step")
        raise TerminalError("short and stout", status_code=418, metadata={"pot": "tea"})

    try:
        return await ctx.run_typed("step", action)
    except TerminalError as error:
        ledger.fail_first(req["t"], "crash")
        if req.get("catch"):
            return f"{error.status_code} {error.message} {error.metadata}"
        raise


@steps.handler()
async def retryable_in_step(ctx: Context, req: Request) -> str:
    def action() -> str:
        if ledger.record(req["t"], "step") <= 2:
            raise RetryableError("not yet", status_code=503, retry_after=ms(15))
        return "done"

    return await ctx.run_typed("step", action)


@steps.handler()
async def replayed(ctx: Context, req: Request) -> list[str]:
    """Random results: what is returned after the retries must be what was recorded by the only execution."""

    def draw() -> str:
        value = os.urandom(4).hex()
        ledger.record(req["t"], f"drew {value}")
        return value

    values = [await ctx.run_typed("draw", draw) for _ in range(2)]
    ledger.fail_first(req["t"], "first crash")
    values.append(await ctx.run_typed("draw", draw))
    ledger.fail_first(req["t"], "second crash")
    return values


@steps.handler()
async def many(ctx: Context, req: Request) -> int:
    """`count` steps, twice as many journal entries, replayed once from the end."""
    total = 0
    for index in range(req["count"]):
        total += await ctx.run_typed("step", _counted, RunOptions(type_hint=int), req["t"], index)
    ledger.fail_first(req["t"], "crash")
    return total


def _counted(t: str, index: int) -> int:
    ledger.record(t, "step")
    return index


@steps.handler()
async def large(ctx: Context, req: Request) -> str:
    """Megabytes in, through a step, and out."""

    def action() -> str:
        ledger.record(req["t"], "step")
        return req["text"] + "!"

    result = await ctx.run_typed("step", action)
    ledger.fail_first(req["t"], "crash")
    return result


@steps.handler(
    accept="application/octet-stream",
    content_type="application/octet-stream",
    input_serde=BytesSerde(),
    output_serde=BytesSerde(),
)
async def raw_bytes(ctx: Context, body: bytes) -> bytes:
    return body[::-1]


@steps.handler()
async def concurrent(ctx: Context, req: Request) -> list[int]:
    """Each step waits until all have started: only concurrent execution ends."""

    async def rendezvous(index: int) -> int:
        if ledger.record(req["t"], "started") == req["count"]:
            ledger.open_gate(req["t"], "all started")
        await ledger.gate(req["t"], "all started")
        return index

    futures = [ctx.run_typed(f"step {i}", rendezvous, RunOptions(type_hint=int), i) for i in range(req["count"])]
    await gather(*futures)
    return [await future for future in futures]


@steps.handler()
async def concurrent_sync(ctx: Context, req: Request) -> list[int]:
    """As `concurrent`, with blocking steps: each needs a thread of its own."""

    def rendezvous(index: int) -> int:
        if ledger.record(req["t"], "started") == req["count"]:
            ledger.open_gate(req["t"], "all started")
        ledger.gate_blocking(req["t"], "all started")
        return index

    futures = [ctx.run_typed(f"step {i}", rendezvous, RunOptions(type_hint=int), i) for i in range(req["count"])]
    await gather(*futures)
    return [await future for future in futures]


@steps.handler()
async def unicode_name(ctx: Context, req: Request) -> str:
    result = await ctx.run_typed("Schritt ☃ 日本", lambda: "ok ☃")
    ledger.fail_first(req["t"], "crash")
    return result


@steps.handler()
async def not_awaited(ctx: Context, req: Request) -> str:
    """A step whose future nobody awaits never runs."""
    ctx.run_typed("ignored", lambda: ledger.record(req["t"], "ignored"))
    return await ctx.run_typed("awaited", lambda: "awaited")


@steps.handler()
async def deterministic(ctx: Context, req: Request) -> dict[str, Any]:
    """Random numbers, ids and times are equal in all attempts; the ledger holds what each attempt saw."""
    seen = [ctx.random().random(), str(ctx.uuid()), ctx.random().randint(0, 10**9), str(ctx.uuid())]
    now = await ctx.time()
    ledger.record(req["t"], f"saw {seen} {now}")
    ledger.fail_first(req["t"], "crash", 2)
    return {"distinct_ids": seen[1] != seen[3], "is_float": isinstance(now, float)}
