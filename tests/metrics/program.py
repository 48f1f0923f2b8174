"""An application that has something of everything that is counted."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import restate
from restate import Context, ObjectContext, Service, TerminalError, VirtualObject, Workflow, WorkflowContext

UNFINISHED_ENTRIES = 4
"""Of `Sleeper` while it sleeps: its input, the step, the step's result, the sleep."""


def application() -> Any:
    seen: set[str] = set()
    greeter, counter, sleeper = Service("Greeter"), VirtualObject("Counter"), Workflow("Sleeper")

    @greeter.handler()
    async def greet(ctx: Context, name: str) -> str:
        def fails_once() -> None:
            if name not in seen:
                seen.add(name)
                raise OSError("the line is busy")

        await ctx.run_typed("call", fails_once)
        return name

    @greeter.handler()
    async def refuse(ctx: Context, name: str) -> None:
        raise TerminalError(f"{name} is not welcome", status_code=403)

    @counter.handler()
    async def remember(ctx: ObjectContext, text: str) -> None:
        ctx.set("text", text)

    @sleeper.main()
    async def run(ctx: WorkflowContext) -> None:
        await ctx.run_typed("once", lambda: None)
        await ctx.sleep(timedelta(hours=1))

    assert greet
    assert refuse
    assert remember
    assert run
    return restate.app([greeter, counter, sleeper])
