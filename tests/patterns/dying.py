"""The process that is killed: `python -m tests.patterns.dying DB LEDGER WORKFLOW KEY INPUT`.

It starts a workflow of this module on an engine of its own, unless the file already knows it, waits for its end and
prints the answer. Every effect is a line in the ledger, written at once.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import httpx
import restate
from restate import Context, RunOptions, Service, TerminalError, Workflow, WorkflowContext

from holdfast import Engine
from holdfast.patterns import Saga, fan_out, progress_to_state

work = Service("Work")
batch = Workflow("Batch")
trip = Workflow("Trip")
ledger = 0


async def effect(name: str) -> str:
    os.write(ledger, f"{name} begins\n".encode())
    await asyncio.sleep(0.05)  # work, so that a kill finds it half done
    os.write(ledger, f"{name}\n".encode())
    return name


@work.handler()
async def one(ctx: Context, name: str) -> str:
    return await ctx.run_typed("effect", effect, RunOptions(), name)


@batch.main()
async def run(ctx: WorkflowContext, count: int) -> dict[str, Any]:
    names = [f"item-{number}" for number in range(count)]
    outcomes = await fan_out(
        names, lambda name: ctx.service_call(one, name), concurrency=3, on_progress=progress_to_state(ctx)
    )
    return {"values": [outcome.value for outcome in outcomes], "progress": await ctx.get("progress")}


@trip.main()
async def travel(ctx: WorkflowContext, steps: int) -> None:
    async with Saga(ctx) as saga:
        for number in range(steps):

            async def undo(name: str) -> None:
                await effect(f"undo {name}")

            await saga.step(f"step-{number}", effect, undo, f"step-{number}")
        raise TerminalError("no seat is left", status_code=422)


async def main(db: str, ledger_path: str, workflow: str, key: str, body: str) -> None:
    global ledger  # noqa: PLW0603 one process, one ledger
    ledger = os.open(ledger_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    async with (
        Engine(restate.app([work, batch, trip]), db=db) as engine,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(engine.ingress), base_url="http://engine", timeout=60
        ) as ingress,
    ):
        handler = {"Batch": "run", "Trip": "travel"}[workflow]
        await ingress.post(
            f"/{workflow}/{key}/{handler}/send", content=body, headers={"content-type": "application/json"}
        )
        answer = await ingress.get(f"/restate/workflow/{workflow}/{key}/attach")
        print(f"{answer.status_code} {answer.text}", flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
