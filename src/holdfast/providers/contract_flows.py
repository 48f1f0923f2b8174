"""Workflows that the contract suite runs.

Several leave marks: a line in a file that the input names, so that a suite on the same machine can count what really ran.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import restate
from restate.exceptions import TerminalError

steps = restate.Workflow("ContractSteps")
"""Two steps with a promise in between; knows its progress."""

signalled = restate.Service("ContractSignalled")
failing = restate.Workflow("ContractFailing")
stubborn = restate.Workflow("ContractStubborn")
"""Does not react to its cancellation."""

tidy = restate.Workflow("ContractTidy")
"""Cleans up when it is cancelled."""

counter = restate.VirtualObject("ContractCounter")


@steps.main()
async def steps_run(ctx: restate.WorkflowContext, request: dict[str, Any]) -> dict[str, Any]:
    ctx.set("progress", {"done": 0, "of": 2})
    first = await ctx.run_typed("first step", lambda: mark(request, "first"))
    ctx.set("progress", {"done": 1, "of": 2})
    answer: Any = await ctx.promise("go", type_hint=dict) if request.get("wait") else None
    second = await ctx.run_typed("second step", lambda: mark(request, "second"))
    ctx.set("progress", {"done": 2, "of": 2})
    return {"marks": [first, second], "answer": answer, "itself": await ctx.workflow_call(whoami, ctx.key(), None)}


@steps.handler()
async def whoami(ctx: restate.WorkflowSharedContext) -> dict[str, Any]:
    """A reference to a handler of its own must reach this very workflow."""
    return {"key": ctx.key(), "progress": await ctx.get("progress", type_hint=dict)}


async def asleep(ctx: restate.WorkflowContext, request: dict[str, Any]) -> str:
    """A plain coroutine function is a workflow too."""
    await ctx.sleep(timedelta(seconds=request.get("seconds", 3600)))
    await ctx.run_typed("after the sleep", lambda: mark(request, "awake"))
    return "slept"


@signalled.handler()
async def receive(ctx: restate.Context, request: dict[str, Any] | None) -> Any:
    return await ctx.signal("go", type_hint=dict)


@failing.main()
async def failing_run(ctx: restate.WorkflowContext, request: dict[str, Any]) -> str:
    attempt = len(marks(request))
    mark(request, "attempt")
    if attempt < request.get("fail_times", 0):
        raise RuntimeError(f"attempt {attempt + 1} fails")
    if "code" in request:
        raise TerminalError("as it was told", request["code"])
    return "in the end"


@stubborn.main()
async def stubborn_run(ctx: restate.WorkflowContext) -> None:
    while True:
        try:
            await ctx.sleep(timedelta(hours=1))
        except TerminalError:
            continue


@tidy.main()
async def tidy_run(ctx: restate.WorkflowContext, request: dict[str, Any]) -> str:
    try:
        await ctx.sleep(timedelta(hours=1))
    except TerminalError:
        await ctx.run_typed("tidy up", lambda: mark(request, "tidied"))
        return "tidied up"
    return "slept"


@counter.handler()
async def add(ctx: restate.ObjectContext, request: dict[str, Any]) -> int:
    count = (await ctx.get("count", type_hint=int) or 0) + request["by"]
    ctx.set("count", count)
    return count


def mark(request: dict[str, Any], text: str) -> str:
    """One more line in the request's file, if it names one."""
    if path := request.get("marks"):
        with Path(path).open("a") as file:
            file.write(f"{text}\n")
    return text


def marks(request: dict[str, Any]) -> list[str]:
    """What was marked so far."""
    path = Path(request["marks"]) if request.get("marks") else None
    return path.read_text().splitlines() if path is not None and path.exists() else []
