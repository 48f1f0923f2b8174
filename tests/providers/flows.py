"""Definitions for tests, importable by reference."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import restate

from holdfast import providers

greeter = restate.Service("Greeter")
counter = restate.VirtualObject("Counter")
order = restate.Workflow("Order")
forgetful = restate.Workflow("Forgetful")
parent = restate.Service("Parent")
child = restate.VirtualObject("Child")


@greeter.handler()
async def greet(ctx: restate.Context, name: str) -> str:
    return f"Hello {name}"


@greeter.handler()
async def wave(ctx: restate.Context) -> str:
    return "waves"


@counter.handler()
async def add(ctx: restate.ObjectContext, by: int) -> int:
    count = (await ctx.get("count", type_hint=int) or 0) + by
    ctx.set("count", count)
    return count


@counter.handler()
async def add_elsewhere(ctx: restate.ObjectContext, by: int) -> int:
    """Calls itself by every way there is: reference, send, and its own name."""
    there = f"{ctx.key()}-elsewhere"
    first = await ctx.object_call(add, there, by)
    await ctx.object_send(add, there, by).invocation_id()
    third = await ctx.generic_call("Counter", "add", str(by).encode(), key=there)
    return first + int(third)


@order.main()
async def run(ctx: restate.WorkflowContext, item: str) -> str:
    return f"{item} for {ctx.key()}"


@order.handler()
async def look(ctx: restate.WorkflowSharedContext) -> str:
    return ctx.key()


@forgetful.main(workflow_retention=timedelta(0))
async def forget(ctx: restate.WorkflowContext) -> None: ...


@child.handler()
async def count_child(ctx: restate.ObjectContext) -> int:
    seen = (await ctx.get("seen", type_hint=int) or 0) + 1
    ctx.set("seen", seen)
    return seen


@parent.handler()
async def ask_child(ctx: restate.Context, key: str) -> int:
    return await ctx.object_call(count_child, key, None)


async def plain(ctx: restate.WorkflowContext, request: Any) -> Any:
    """A coroutine function."""
    return request


async def without_input(ctx: restate.WorkflowContext) -> str:
    return ctx.key()


async def with_three(one: Any, two: Any, three: int, four: int) -> None: ...


def not_async(ctx: Any) -> None: ...


async def asleep(ctx: restate.WorkflowContext, request: dict[str, Any]) -> str:
    """Leaves a mark, sleeps, leaves another one."""
    await ctx.run_typed("before", lambda: _mark(request, "before"))
    await ctx.sleep(timedelta(seconds=request["seconds"]))
    await ctx.run_typed("after", lambda: _mark(request, "after"))
    return "slept"


async def five_steps(ctx: restate.WorkflowContext, request: dict[str, Any]) -> list[str]:
    """Each step leaves a mark; between the steps it waits a little."""
    done: list[str] = []
    for number in range(1, 6):
        done.append(await ctx.run_typed(f"step {number}", lambda number=number: _mark(request, f"step {number}")))
        ctx.set("progress", number)
        await ctx.sleep(timedelta(milliseconds=request.get("pause_ms", 0)))
    return done


async def counts_cancellations(ctx: restate.WorkflowContext, request: dict[str, Any]) -> int:
    """Works for a while and then cleans up for a while; returns how often it was interrupted."""
    interrupted = 0
    for seconds in (request["work_s"], request["tidy_s"], request["tidy_s"]):
        try:
            await ctx.sleep(timedelta(seconds=seconds))
        except restate.TerminalError:
            interrupted += 1
    return interrupted


async def far_away(ctx: restate.WorkflowContext, request: dict[str, Any]) -> Any:
    """Calls a workflow of another provider."""
    return await providers.call_remote(ctx, **request, first_pause=timedelta(milliseconds=100))


def _mark(request: dict[str, Any], text: str) -> str:
    if "marks" in request:
        with Path(request["marks"]).open("a") as file:
            file.write(f"{text}\n")
    return text


both = [parent, child]
app = restate.app([greeter])
app_of_two = restate.app([greeter, counter])
number = 42
without_handlers = restate.Service("Empty")
