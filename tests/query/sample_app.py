"""The application whose invocations are queried: a handler for every kind of journal entry, every way to wait or end."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import restate
from restate.serde import BytesSerde

HOUR = timedelta(hours=1)

worker = restate.Service("Worker")


@worker.handler()
async def echo(ctx: restate.Context, value: Any) -> Any:
    return value


@worker.handler()
async def steps(ctx: restate.Context, number: int) -> int:
    """One of each: steps, timers, calls, sends, attach, cancel."""
    first = await ctx.run_typed("first step", lambda: number + 1)
    await ctx.sleep(timedelta(milliseconds=1), name="breath")
    await ctx.sleep(timedelta(milliseconds=1))
    called = await ctx.service_call(echo, arg=first, idempotency_key=f"steps-{number}", headers={"x-from": "steps"})
    added = await ctx.object_call(add, key=f"steps-{number}", arg=called)
    sent = ctx.service_send(echo, arg="sent", send_delay=HOUR)
    sent_id = await sent.invocation_id()
    ctx.cancel_invocation(sent_id)
    other = ctx.service_send(echo, arg="attached")
    await ctx.attach_invocation(await other.invocation_id())
    return added


@worker.handler()
async def notify(ctx: restate.Context, whom: dict[str, str]) -> None:
    """Completes what others wait for."""
    if "awakeable" in whom:
        ctx.resolve_awakeable(whom["awakeable"], {"by": "notify"})
    if "rejected" in whom:
        ctx.reject_awakeable(whom["rejected"], "not today", 418)
    if "signalled" in whom:
        ctx.resolve_signal(whom["signalled"], "go", "now")


@worker.handler()
async def refuse(ctx: restate.Context, code: int) -> None:
    raise restate.TerminalError("refused as asked", status_code=code, metadata={"by": "refuse", "at": "once"})


@worker.handler(
    journal_retention=timedelta(hours=3),
    idempotency_retention=timedelta(hours=5),
    inactivity_timeout=timedelta(hours=2),
)
async def tuned(ctx: restate.Context, value: Any) -> Any:
    return value


@worker.handler()
async def calls(ctx: restate.Context, key: str) -> None:
    """Calls of every kind of handler, with and without idempotency key."""
    await ctx.service_call(tuned, arg=1)
    await ctx.service_call(tuned, arg=2, idempotency_key=f"calls-{key}")
    await ctx.object_call(peek, key=key, arg=None)
    await ctx.object_call(empty, key=key, arg=None)
    ctx.object_send(add, key=key, arg=1, headers={"a": "b"})
    ctx.workflow_send(run, key=f"calls-{key}", arg="calls@x")
    await ctx.workflow_call(approve, key=f"calls-{key}", arg="calls")


@worker.handler()
async def failing_step(ctx: restate.Context, _value: None) -> str:
    """A step that fails for good, which the handler survives."""

    def step() -> str:
        raise restate.TerminalError("no such step", status_code=404)

    try:
        return await ctx.run_typed("broken step", step)
    except restate.TerminalError as error:
        return f"{error.status_code} {error.message}"


@worker.handler(invocation_retry_policy=restate.InvocationRetryPolicy(initial_interval=HOUR, max_interval=HOUR))
async def stumble(ctx: restate.Context, why: str) -> None:
    """Its first attempt fails behind a step; the second is an hour away."""
    await ctx.run_typed("before", lambda: 1)
    raise RuntimeError(why)


@worker.handler(invocation_retry_policy=restate.InvocationRetryPolicy(initial_interval=HOUR, max_interval=HOUR))
async def stumble_in_step(ctx: restate.Context, why: str) -> None:
    """Its step fails; it is tried again in an hour."""

    def step() -> None:
        raise RuntimeError(why)

    await ctx.run_typed("slippery step", step, restate.RunOptions(initial_retry_interval=HOUR, max_retry_interval=HOUR))


@worker.handler(
    invocation_retry_policy=restate.InvocationRetryPolicy(
        initial_interval=timedelta(milliseconds=1), max_attempts=2, on_max_attempts="pause"
    )
)
async def give_up(ctx: restate.Context, why: str) -> None:
    """Paused after two attempts."""
    raise RuntimeError(why)


@worker.handler()
async def wait_timer(ctx: restate.Context, _value: None) -> None:
    await ctx.sleep(HOUR, name="long")


@worker.handler()
async def wait_awakeable(ctx: restate.Context, key: str) -> Any:
    """Tells `Board/key` the id of the awakeable it waits for."""
    name, value = ctx.awakeable()
    await ctx.object_call(pin, key=key, arg=name)
    return await value


@worker.handler()
async def wait_signal(ctx: restate.Context, _value: None) -> Any:
    return await ctx.signal("go")


@worker.handler()
async def wait_any(ctx: restate.Context, _value: None) -> Any:
    _, first = ctx.awakeable()
    return await restate.select(first=first, timer=ctx.sleep(HOUR), signal=ctx.signal("go"))


@worker.handler()
async def wait_all(ctx: restate.Context, _value: None) -> Any:
    _, first = ctx.awakeable()
    _, second = ctx.awakeable()
    return await restate.gather(first, second, ctx.sleep(HOUR))


@worker.handler()
async def call_waiting(ctx: restate.Context, _value: None) -> None:
    await ctx.service_call(wait_timer, arg=None)


@worker.handler(
    accept="application/octet-stream",
    content_type="application/octet-stream",
    input_serde=BytesSerde(),
    output_serde=BytesSerde(),
)
async def raw(ctx: restate.Context, data: bytes) -> bytes:
    return data


counter = restate.VirtualObject("Counter")


@counter.handler()
async def add(ctx: restate.ObjectContext, amount: int) -> int:
    total = (await ctx.get("total", type_hint=int) or 0) + amount
    ctx.set("total", total)
    return total


@counter.handler()
async def fill(ctx: restate.ObjectContext, values: dict[str, str]) -> list[str]:
    for name, value in values.items():
        ctx.set(name, value)
    ctx.set("blob", b"\x00\xff", serde=BytesSerde())
    ctx.clear("absent")
    return sorted(await ctx.state_keys())


@counter.handler()
async def empty(ctx: restate.ObjectContext) -> None:
    ctx.clear_all()


@counter.handler()
async def hold(ctx: restate.ObjectContext, _value: None) -> None:
    """Keeps the lock for an hour."""
    await ctx.sleep(HOUR)


@counter.handler(kind="shared")
async def peek(ctx: restate.ObjectSharedContext) -> int:
    return await ctx.get("total", type_hint=int) or 0


board = restate.VirtualObject("Board")


@board.handler()
async def pin(ctx: restate.ObjectContext, name: str) -> None:
    ctx.set("awakeable", name)


lazy = restate.VirtualObject("Lazy", enable_lazy_state=True)


@lazy.handler()
async def look(ctx: restate.ObjectContext, name: str) -> Any:
    ctx.set("known", 1)
    return [await ctx.get(name), await ctx.state_keys()]


signup = restate.Workflow("Signup")


@signup.main()
async def run(ctx: restate.WorkflowContext, email: str) -> Any:
    ctx.set("email", email)
    who = await ctx.promise("approved").value()
    return [who, await ctx.promise("approved").peek(), await ctx.promise("never").peek()]


@signup.handler()
async def approve(ctx: restate.WorkflowSharedContext, who: str) -> None:
    await ctx.promise("approved").resolve(who)


@signup.handler()
async def reject(ctx: restate.WorkflowSharedContext, why: str) -> None:
    await ctx.promise("approved").reject(why, 409)


app = restate.app([worker, counter, board, lazy, signup])
