"""Ticker: something short again and again, without a handler that sleeps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypedDict

from restate import ObjectContext, ObjectSharedContext, TerminalError, VirtualObject

from holdfast.patterns.context import now_ms, read_state


class TickerStatus(TypedDict):
    """Of one key. Times are milliseconds since the epoch."""

    is_running: bool
    ticks: int
    next_at_ms: int
    last_error: str
    """Of the newest tick, if it ended with a terminal error."""


class Ticker:
    """A virtual object that calls `tick` at an interval, for each key that was started, across restarts.

        async def sweep(ctx: ObjectContext) -> None: ...

        sweeps = Ticker("Sweeps", sweep, every=timedelta(minutes=5))
        app = restate.app([sweeps.service])
        POST /Sweeps/jobs/start

    Use it instead of `while True: await ctx.sleep(…)`: there the journal grows with every round, in a virtual object
    the key is locked for ever, and new code can never replace the old. Here each tick is an invocation of its own that
    sends the next one with a delay. Not for work that takes long: it runs in an exclusive handler, so send it on.

    A tick that fails does not stop the ticker. Ticks that were due while nothing ran are not made up for: one comes,
    then the interval goes on.

    Handlers: `start()` ticks at once and from then on, and changes nothing where that goes on already; `stop()`; and
    shared `get()`, a `TickerStatus`.

    Args:
        name: Of the virtual object.
        tick: Runs with the key's context; the state names "ticker" and "last_error" are taken.
        every: From one tick's due time to the next.
    Raises:
        ValueError: `every` is less than a millisecond.
    """

    def __init__(self, name: str, tick: Callable[[ObjectContext], Awaitable[None]], *, every: timedelta) -> None:
        every_ms = int(every.total_seconds() * 1000)
        if every_ms < 1:
            raise ValueError("every must be at least a millisecond")
        service = self.service = VirtualObject(name, description=f"Ticks every {every}")

        async def plan(ctx: ObjectContext, ticker: dict[str, Any], due_at_ms: int, delay_ms: int) -> None:
            ticker["round"] += 1
            ticker["next_at_ms"] = due_at_ms
            sent = ctx.object_send(run, key=ctx.key(), arg=ticker["round"], send_delay=timedelta(milliseconds=delay_ms))
            ticker["next_id"] = await sent.invocation_id()
            ctx.set("ticker", ticker)

        @service.handler(name="tick", ingress_private=True)
        async def run(ctx: ObjectContext, planned_round: int) -> None:
            ticker = await _ticker(ctx)
            if not ticker["is_running"] or ticker["round"] != planned_round:
                return  # stopped, or started anew, when this was on its way
            # First the next one: whatever happens to this tick, the ticker goes on.
            at_ms = await now_ms(ctx)
            ticker["ticks"] += 1
            late_ms = max(0, at_ms - ticker["next_at_ms"])
            due_at_ms = ticker["next_at_ms"] + (late_ms // every_ms + 1) * every_ms
            await plan(ctx, ticker, due_at_ms, max(1, due_at_ms - at_ms))
            ctx.clear("last_error")
            try:
                await tick(ctx)
            except TerminalError as error:
                ctx.set("last_error", error.message)

        @service.handler()
        async def start(ctx: ObjectContext) -> None:
            ticker = await _ticker(ctx)
            at_ms = await now_ms(ctx)
            # Long overdue means that somebody cancelled or killed the next tick: begin anew.
            if ticker["is_running"] and at_ms < ticker["next_at_ms"] + every_ms:
                return
            ticker["is_running"] = True
            await plan(ctx, ticker, at_ms, 0)

        @service.handler()
        async def stop(ctx: ObjectContext) -> None:
            ticker = await _ticker(ctx)
            if ticker["is_running"]:
                ctx.cancel_invocation(ticker["next_id"])
                ctx.set("ticker", {**ticker, "is_running": False, "next_at_ms": 0})

        @service.handler(kind="shared")
        async def get(ctx: ObjectSharedContext) -> TickerStatus:
            ticker = await _ticker(ctx)
            last_error = await read_state(ctx, "last_error") or ""
            return TickerStatus(
                is_running=ticker["is_running"],
                ticks=ticker["ticks"],
                next_at_ms=ticker["next_at_ms"],
                last_error=last_error,
            )

        self.start, self.stop, self.get = start, stop, get


async def _ticker(ctx: ObjectContext | ObjectSharedContext) -> dict[str, Any]:
    begun: dict[str, Any] = {"is_running": False, "round": 0, "ticks": 0, "next_at_ms": 0, "next_id": ""}
    return await read_state(ctx, "ticker") or begun
