"""Small programs for tests of the engine as a library. They report to module-level records that a test clears."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections import Counter, defaultdict
from datetime import timedelta
from typing import Any

import restate
from restate import (
    Context,
    InvocationRetryPolicy,
    ObjectContext,
    ObjectSharedContext,
    Service,
    TerminalError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    gather,
    select,
)

RETRY = InvocationRetryPolicy(initial_interval=timedelta(milliseconds=5), exponentiation_factor=1.0, max_attempts=200)

seen: Counter[str] = Counter()
"""How often something was done."""

notes: defaultdict[str, list[Any]] = defaultdict(list)
gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

leak: contextvars.ContextVar[str] = contextvars.ContextVar("leak", default="clean")


def clear() -> None:
    seen.clear()
    notes.clear()
    gates.clear()


def ms(milliseconds: float) -> timedelta:
    return timedelta(milliseconds=milliseconds)


greeter = Service("Greeter", invocation_retry_policy=RETRY)


@greeter.handler()
async def greet(ctx: Context, name: str) -> str:
    return await ctx.run_typed("greeting", lambda: f"Hello, {name}!")


@greeter.handler()
async def size(ctx: Context, text: str) -> int:
    return await ctx.run_typed("size", lambda: len(text))


@greeter.handler()
async def echo(ctx: Context, body: bytes) -> bytes:
    return body


@greeter.handler()
async def refuse(ctx: Context, name: str) -> str:
    raise TerminalError(f"no {name}", status_code=418)


@greeter.handler()
async def thread_name(ctx: Context) -> str:
    return await ctx.run_typed("thread", lambda: threading.current_thread().name)


@greeter.handler()
async def many_steps(ctx: Context, count: int) -> int:
    """A long journal, then a pause on an awakeable, so that all of it is replayed."""
    total = 0
    for index in range(count):
        total += await ctx.run_typed("step", lambda index=index: index)
    seen["replays"] += 1
    awakeable_id, promise = ctx.awakeable(type_hint=int)
    notes["awakeable"].append(awakeable_id)
    return total + await promise


@greeter.handler()
async def fan_out(ctx: Context, count: int) -> list[int]:
    calls = [ctx.service_call(size, "x" * index) for index in range(count)]
    await gather(*calls)
    return [await call for call in calls]


counter = VirtualObject("Counter", invocation_retry_policy=RETRY)


@counter.handler()
async def add(ctx: ObjectContext, amount: int) -> int:
    value = (await ctx.get("value", type_hint=int) or 0) + amount
    ctx.set("value", value)
    return value


@counter.handler(kind="shared")
async def value(ctx: ObjectSharedContext) -> int:
    return await ctx.get("value", type_hint=int) or 0


@counter.handler()
async def fill(ctx: ObjectContext, text: str) -> None:
    ctx.set("text", text)


signup = Workflow("Signup", invocation_retry_policy=RETRY)


@signup.main()
async def run(ctx: WorkflowContext, email: str) -> str:
    code = await ctx.run_typed("mail", lambda: f"code for {email}")
    given = await ctx.promise("code", type_hint=str).value()
    return "welcome" if given == code else "wrong code"


@signup.handler()
async def confirm(ctx: WorkflowSharedContext, code: str) -> None:
    await ctx.promise("code", type_hint=str).resolve(code)


waiter = Service("Waiter", invocation_retry_policy=RETRY)


@waiter.handler()
async def awakeable(ctx: Context, name: str) -> str:
    awakeable_id, promise = ctx.awakeable(type_hint=str)
    seen[f"attempt {name}"] += 1
    notes[name].append(awakeable_id)
    return await promise


@waiter.handler()
async def crowd(ctx: Context, count: int) -> None:
    """Starts many who wait, all in one moment."""
    for index in range(count):
        ctx.service_send(awakeable, f"w{index}")


@waiter.handler()
async def nap(ctx: Context, nap_ms: int) -> int:
    before = await ctx.run_typed("before", lambda: time.time_ns() // 1_000_000)
    await ctx.sleep(ms(nap_ms))
    return await ctx.run_typed("after", lambda: time.time_ns() // 1_000_000) - before


@waiter.handler()
async def blocked(ctx: Context, name: str) -> str:
    """Waits for something that the engine knows nothing of."""
    seen[f"blocked {name}"] += 1
    try:
        await gates[name].wait()
    except asyncio.CancelledError:
        seen[f"cancelled {name}"] += 1
        raise
    return f"{name} went on"


@waiter.handler()
async def blocked_then_waits(ctx: Context, name: str) -> str:
    seen[f"blocked {name}"] += 1
    await gates[name].wait()
    return await awakeable_of(ctx, name)


async def awakeable_of(ctx: Context, name: str) -> str:
    awakeable_id, promise = ctx.awakeable(type_hint=str)
    notes[name].append(awakeable_id)
    return await promise


@waiter.handler()
async def blocked_step(ctx: Context, name: str) -> str:
    """A step that waits at a gate."""

    async def action() -> str:
        seen[f"step {name}"] += 1
        await gates[name].wait()
        return name

    first = await ctx.run_typed("step", action)
    return await ctx.run_typed("more", lambda: first + "!")


@waiter.handler(inactivity_timeout=ms(50), abort_timeout=ms(60_000))
async def soon_inactive(ctx: Context, name: str) -> str:
    return await awakeable(ctx, name)


@waiter.handler(inactivity_timeout=ms(30), abort_timeout=ms(30))
async def soon_aborted(ctx: Context, name: str) -> str:
    """Its first attempt hangs outside of the SDK."""
    seen[f"attempt {name}"] += 1
    if seen[f"attempt {name}"] == 1:
        await asyncio.Event().wait()
    return "second attempt"


@waiter.handler(inactivity_timeout=ms(0))
async def request_response(ctx: Context, name: str) -> str:
    seen[f"attempt {name}"] += 1
    one = await ctx.run_typed("one", lambda: "one")
    two = await ctx.run_typed("two", lambda: "two")
    return one + two


@waiter.handler()
async def variables(ctx: Context, name: str) -> list[str]:
    """What it finds in a context variable at first and after a suspension; it sets the variable in between."""
    found = leak.get()
    leak.set(name)
    awakeable_id, promise = ctx.awakeable(type_hint=str)
    if found != "clean":
        seen["leaks"] += 1
    notes[name].append(awakeable_id)
    await promise
    nested = await ctx.service_call(child_variable, name)
    return [found, nested]


@waiter.handler()
async def child_variable(ctx: Context, name: str) -> str:
    found = leak.get()
    leak.set(f"child of {name}")
    return found


@waiter.handler(inactivity_timeout=ms(30))
async def raises_cancelled(ctx: Context, name: str) -> str:
    """As if it had cancelled a task of its own and let the exception escape. The SDK then says nothing any more."""
    seen[f"attempt {name}"] += 1
    if seen[f"attempt {name}"] == 1:
        raise asyncio.CancelledError
    return "fine"


@waiter.handler()
async def unawaited_race(ctx: Context, name: str) -> list[str]:
    awakeable_id, promise = ctx.awakeable(type_hint=str)
    notes[name].append(awakeable_id)
    winner = await select(slept=ctx.sleep(ms(20)), answered=promise)
    seen[f"attempt {name}"] += 1
    again = await ctx.run_typed("again", lambda: winner[0])
    await ctx.sleep(ms(10))
    return [winner[0], again]


flaky = Service("Flaky", invocation_retry_policy=RETRY)


@flaky.handler()
async def twice(ctx: Context, name: str) -> list[str]:
    def action() -> str:
        seen[f"step {name}"] += 1
        if seen[f"step {name}"] < 3:
            raise OSError("not yet")
        return f"run {seen[f'step {name}']}"

    done = await ctx.run_typed("flaky", action)
    seen[f"handler {name}"] += 1
    if seen[f"handler {name}"] < 3:
        raise OSError("nor yet")
    return [done]


app = restate.app([greeter, counter, signup, waiter, flaky])
