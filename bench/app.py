"""The application that is measured: the same file on holdfast, on Restate and on the bare SDK.

    holdfast serve bench.app:app
    granian --interface asgi --http 2 bench.app:app

`Empty`, `FiveSteps` and `FiveSyncSteps`, `Counter` are the workloads of the comparison; `Sleeper` and `Gated` serve the
footprint measures.
"""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from pathlib import Path

import restate
from restate import Context, ObjectContext, Service, VirtualObject, Workflow, WorkflowContext

STEPS = 5

empty_service = Service("Empty")
five_steps = Workflow("FiveSteps")
five_sync_steps = Workflow("FiveSyncSteps")
counter = VirtualObject("Counter")
sleeper = Service("Sleeper")
gated = Service("Gated")


@empty_service.handler()
async def call(ctx: Context, text: str) -> str:
    """Does nothing: what an invocation costs by itself."""
    return text


async def _one() -> int:
    return 1


def _one_sync() -> int:
    return 1


@five_steps.main()
async def run(ctx: WorkflowContext, text: str) -> int:
    """Five steps one after another, each an async function that returns at once."""
    total = 0
    for number in range(STEPS):
        total += await ctx.run_typed(f"step {number}", _one)
    return total


@five_sync_steps.main()
async def run_sync(ctx: WorkflowContext, text: str) -> int:
    """The same with plain functions, which the SDK runs in a thread."""
    total = 0
    for number in range(STEPS):
        total += await ctx.run_typed(f"step {number}", _one_sync)
    return total


@counter.handler()
async def add(ctx: ObjectContext, amount: int) -> int:
    """One read and one write of the key's state, under its lock."""
    value = (await ctx.get("value", type_hint=int) or 0) + amount
    ctx.set("value", value)
    return value


@counter.handler(kind="shared")
async def value(ctx: ObjectContext) -> int:
    """The count of this key; lets the benchmark check that no addition was lost."""
    return await ctx.get("value", type_hint=int) or 0


@sleeper.handler()
async def nap(ctx: Context, seconds: int) -> None:
    """Waits durably; the engine is expected to take it out of memory."""
    await ctx.sleep(timedelta(seconds=seconds))


@gated.handler()
async def pass_gate(ctx: Context, number: int) -> int:
    """Three steps; the second one cannot finish while the environment says that the gate is shut.

    The engine is killed with the gate shut, so that every accepted invocation is unfinished; the next engine is
    started with the gate open. The third step leaves a mark: when it runs, the second one's result is on disk.
    """
    await ctx.run_typed("before", _one)
    await ctx.run_typed("gate", _wait_for_gate)
    await ctx.run_typed("after", _leave_mark)
    return number


async def _wait_for_gate() -> int:
    if os.environ.get("BENCH_GATE") == "shut":
        await asyncio.Event().wait()  # for ever: this process is going to be killed
    return 1


async def _leave_mark() -> int:
    mark = os.environ.get("BENCH_MARK")
    if mark and not Path(mark).exists():
        Path(mark).touch()
    return 1


app = restate.app([empty_service, five_steps, five_sync_steps, counter, sleeper, gated])
