"""Workflows of the tests: one that ends by itself, one that waits, one that fails, one of each other kind."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import restate

hello = restate.Workflow("hello")


@hello.main()
async def run(ctx: restate.WorkflowContext, name: str) -> str:
    greeting = await ctx.run_typed("greet", lambda: f"Hello {name}")
    ctx.set("progress", {"completed": 1, "total": 1})
    return greeting


approval = restate.Workflow("approval")


@approval.main(name="run")
async def approval_run(ctx: restate.WorkflowContext, document: dict[str, Any]) -> dict[str, Any]:
    """Waits for somebody, through a durable promise."""
    ctx.set("progress", "waiting for approval")
    approved = await ctx.promise("approved", type_hint=bool).value()
    ctx.set("progress", "decided")
    return {"document": document, "approved": approved}


@approval.handler()
async def ask(ctx: restate.WorkflowSharedContext, question: str) -> str:
    if question == "forbidden":
        raise restate.TerminalError("not your business", status_code=403)
    return f"{question}? {await ctx.get('progress', type_hint=str)}"


failing = restate.Workflow("failing")


@failing.main(name="run")
async def failing_run(ctx: restate.WorkflowContext, why: str) -> None:
    raise restate.TerminalError(why, status_code=418)


sleepy = restate.Workflow("sleepy")


@sleepy.main(name="run")
async def sleepy_run(ctx: restate.WorkflowContext, seconds: float) -> str:
    await ctx.sleep(timedelta(seconds=seconds), name="nap")
    return "awake"


async def plain(ctx: restate.WorkflowContext, value: Any) -> Any:
    """A coroutine function is enough."""
    return {"plain": value}


odd = restate.Workflow("odd")


@odd.main(name="run")
async def odd_run(ctx: restate.WorkflowContext) -> dict[str, Any]:
    """What Python's JSON writes and nobody else's reads."""
    ctx.set("half", "\ud83d")
    return {"ratio": float("nan"), "most": float("inf"), "half": "\ud83d"}
