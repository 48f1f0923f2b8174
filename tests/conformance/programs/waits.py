"""Sleeps, awakeables, named signals, and combinations of futures."""

from __future__ import annotations

from typing import Any

from restate import Context, RestateDurableFuture, Service, TerminalError, as_completed, gather, select, wait_completed

from tests.conformance import ledger
from tests.conformance.programs.common import RETRY, Request, ms

waits = Service("Waits", invocation_retry_policy=RETRY)


@waits.handler()
async def sleeps(ctx: Context, req: Request) -> str:
    for delay_ms in req["delays_ms"]:
        await ctx.sleep(ms(delay_ms), name=f"{delay_ms} ms")
    ledger.record(req["t"], "slept")
    return "awake"


@waits.handler()
async def sleep_and_steps(ctx: Context, req: Request) -> int:
    """Steps around a sleep run once, however often the invocation is suspended."""
    ledger.record(req["t"], "attempt")
    await ctx.run_typed("before", lambda: ledger.record(req["t"], "before"))
    await ctx.sleep(ms(req["delay_ms"]))
    return await ctx.run_typed("after", lambda: ledger.record(req["t"], "after"))


@waits.handler()
async def parallel_sleeps(ctx: Context, req: Request) -> list[int]:
    """All sleeps start together; the order of completion is the order of their length."""
    futures = {ctx.sleep(ms(delay_ms)): delay_ms for delay_ms in req["delays_ms"]}
    order: list[int] = []
    async for future in as_completed(*futures):
        order.append(futures[future])  # type: ignore[index]  # futures are hashed by identity
    return order


@waits.handler()
async def awakeable(ctx: Context, req: Request) -> Any:
    """Tells the test its awakeable by the ledger, then waits for it."""
    name, future = ctx.awakeable()
    ledger.record(req["t"], f"awakeable {name}")
    if req.get("hold"):
        await ledger.gate(req["t"], "hold")
    try:
        value = await future
    except TerminalError as error:
        if not req.get("catch"):
            raise
        return f"{error.status_code} {error.message}"
    ledger.fail_first(req["t"], "crash")
    return {"value": value}


@waits.handler()
async def awakeables(ctx: Context, req: Request) -> list[Any]:
    """Several awakeables, awaited in the order of creation or as they complete."""
    pairs = [ctx.awakeable() for _ in range(req["count"])]
    for index, (name, _) in enumerate(pairs):
        ledger.record(req["t"], f"awakeable {index} {name}")
    if req.get("hold"):
        await ledger.gate(req["t"], "hold")
    results: list[Any] = []
    if req["as_completed"]:
        async for future in as_completed(*(future for _, future in pairs)):
            results.append(await future)
            ledger.record(req["t"], f"got {results[-1]}")
    else:
        for _, future in pairs:
            results.append(await future)
    ledger.fail_first(req["t"], "crash")
    return results


@waits.handler()
async def answers_awakeable(ctx: Context, req: Request) -> str:
    if "message" in req:
        ctx.reject_awakeable(req["awakeable"], req["message"], req.get("code", 500))
    else:
        ctx.resolve_awakeable(req["awakeable"], req.get("value"))
    return "answered"


@waits.handler()
async def own_awakeable(ctx: Context, req: Request) -> Any:
    """Resolves its own awakeable before it waits for it."""
    name, future = ctx.awakeable()
    ctx.resolve_awakeable(name, {"self": True})
    return await future


@waits.handler()
async def signals(ctx: Context, req: Request) -> list[Any]:
    """Waits for the named signals in order. `hold`: only looks after the gate was opened."""
    ledger.record(req["t"], f"id {ctx.request().id}")
    if req.get("hold"):
        await ledger.gate(req["t"], "hold")
    results: list[Any] = []
    for name in req["names"]:
        try:
            results.append(await ctx.signal(name))
        except TerminalError as error:
            results.append(f"{error.status_code} {error.message}")
        ledger.record(req["t"], f"got {name}")
    ledger.fail_first(req["t"], "crash")
    return results


@waits.handler()
async def sends_signals(ctx: Context, req: Request) -> str:
    for name, value in req["signals"]:
        ctx.resolve_signal(req["invocation_id"], name, value)
    for name, message, code in req.get("rejects", []):
        ctx.reject_signal(req["invocation_id"], name, message, code)
    return "sent"


@waits.handler()
async def select_signal_or_timeout(ctx: Context, req: Request) -> list[Any]:
    ledger.record(req["t"], f"id {ctx.request().id}")
    match await select(signal=ctx.signal("go"), timeout=ctx.sleep(ms(req["timeout_ms"]))):
        case ["signal", value]:
            return ["signal", value]
        case ["timeout", _]:
            return ["timeout"]
        case other:
            return other


@waits.handler()
async def select_winner(ctx: Context, req: Request) -> list[Any]:
    """Two awakeables; the winner must be the same in all attempts, whatever arrives later."""
    first_name, first = ctx.awakeable()
    second_name, second = ctx.awakeable()
    ledger.record(req["t"], f"awakeable 0 {first_name}")
    ledger.record(req["t"], f"awakeable 1 {second_name}")
    winner, value = await select(first=first, second=second)
    ledger.record(req["t"], f"winner {winner}")
    await ledger.gate(req["t"], "crash now")
    ledger.fail_first(req["t"], "crash", 2)
    return [winner, value]


@waits.handler()
async def select_failure(ctx: Context, req: Request) -> list[Any]:
    """A future that fails wins as well; its error is raised."""

    def explode() -> str:
        raise TerminalError("boom", status_code=510)

    try:
        return await select(step=ctx.run_typed("explode", explode), timeout=ctx.sleep(ms(60_000)))
    except TerminalError as error:
        return [error.status_code, error.message]


@waits.handler()
async def gather_mixed(ctx: Context, req: Request) -> list[Any]:
    """`gather` waits for all and raises nothing itself."""

    def explode() -> str:
        raise TerminalError("boom")

    name, promised = ctx.awakeable()
    ctx.resolve_awakeable(name, "awakeable")
    futures: list[RestateDurableFuture[Any]] = [
        ctx.sleep(ms(30)),
        ctx.run_typed("good", lambda: "step"),
        ctx.run_typed("bad", explode),
        promised,
    ]
    done = await gather(*futures)
    results: list[Any] = [len(done)]
    for future in futures:
        try:
            results.append(await future)
        except TerminalError as error:
            results.append(f"{error.status_code} {error.message}")
    ledger.fail_first(req["t"], "crash")
    return results


@waits.handler()
async def partition(ctx: Context, req: Request) -> dict[str, int]:
    """`wait_completed` splits into completed and not completed."""
    name, quick = ctx.awakeable()
    slow = ctx.sleep(ms(3_600_000))
    ctx.resolve_awakeable(name, "now")
    completed, waiting = await wait_completed(quick, slow)
    again, _ = await wait_completed(*completed)
    return {"completed": len(completed), "waiting": len(waiting), "again": len(again), "empty": len(await gather())}


@waits.handler()
async def awaited_twice(ctx: Context, req: Request) -> list[Any]:
    """A future may be awaited again; the step does not run again."""
    future = ctx.run_typed("step", lambda: ledger.record(req["t"], "step"))
    return [await future, await future]
