"""A booking of three steps, of which each can be made to fail, wait or be flaky."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

from restate import Context, RunOptions, Service, TerminalError, Workflow, WorkflowContext

from holdfast.patterns import Saga
from tests.patterns import world

booking = Workflow("Booking")
seats = Service("Seats")
QUICK = RunOptions[Any](max_attempts=3, initial_retry_interval=timedelta(milliseconds=1))
PATIENT = RunOptions[Any](initial_retry_interval=timedelta(milliseconds=1))
attempts: Counter[tuple[str, str]] = Counter()


async def act(name: str, key: str, plan: dict[str, str]) -> str:
    how = plan.get(name, "")
    attempts[key, name] += 1
    if how == "flaky" and attempts[key, name] < 3:
        raise ConnectionError("the line is down")
    if how == "gated":
        world.effects[key].append(f"{name} begins")
        await world.gate(key)
    world.effects[key].append(name)
    if how == "refused":
        raise TerminalError(f"{name} refused", status_code=422)
    if how == "broken":
        raise ConnectionError("the line is down")
    return f"{name}-id"


@seats.handler()
async def release(ctx: Context, request: dict[str, Any]) -> None:
    await ctx.run_typed("release", act, RunOptions(), "release", request["key"], request["plan"])


@booking.main()
async def book(ctx: WorkflowContext, plan: dict[str, str]) -> str:
    key = ctx.key()
    async with Saga(ctx, step_retry=QUICK, compensation_retry=PATIENT) as saga:
        saga.compensate_by("release", lambda: ctx.service_call(release, {"key": key, "plan": plan}))
        await ctx.run_typed("reserve", act, QUICK, "reserve", key, plan)
        payment = await saga.step(
            "charge", lambda name: act(name, key, plan), lambda result: act(f"refund {result}", key, plan), "charge"
        )
        try:
            await ctx.run_typed("ship", act, QUICK, "ship", key, plan)
        except TerminalError as error:
            if plan.get("ship") != "refused":
                raise
            raise RuntimeError("wrapped by the application") from error
    return payment


@seats.handler()
async def book_for(ctx: Context, request: dict[str, Any]) -> dict[str, str] | None:
    """What a calling handler learns of a failed saga."""
    try:
        await ctx.workflow_call(book, key=request["key"], arg=request["plan"])
    except TerminalError as error:
        return error.metadata
    return None


SERVICES = (booking, seats)
