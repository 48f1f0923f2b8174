"""Fan-out over calls and over steps."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Any

from restate import Context, RunOptions, Service, TerminalError, Workflow, WorkflowContext, WorkflowSharedContext

from holdfast.patterns import batches, fan_out, progress_to_state
from tests.patterns import world

scans = Service("Scans")
campaign = Workflow("Campaign")
wide = Service("Wide")


@scans.handler()
async def scan(ctx: Context, request: dict[str, Any]) -> str:
    if request["target"] == "asleep":
        world.effects[request["key"]].append("asleep")
        await ctx.sleep(timedelta(hours=1))
    return await ctx.run_typed("scan", _scan, RunOptions(), request["key"], request["target"])


async def _scan(key: str, target: str) -> str:
    world.running[key] += 1
    world.running_max[key] = max(world.running_max[key], world.running[key])
    try:
        if target.startswith("gated"):
            await world.gate(key)
        world.effects[key].append(target)
    finally:
        world.running[key] -= 1
    if target.startswith("bad"):
        raise TerminalError(f"{target} is no target", status_code=400)
    return target.upper()


@campaign.main()
async def run(ctx: WorkflowContext, request: dict[str, Any]) -> list[dict[str, Any]]:
    outcomes = await fan_out(
        request["targets"],
        lambda target: ctx.service_call(scan, {"key": ctx.key(), "target": target}),
        concurrency=request["concurrency"],
        failures_max=request.get("failures_max"),
        on_progress=progress_to_state(ctx),
    )
    return [asdict(outcome) for outcome in outcomes]


@campaign.handler()
async def progress(ctx: WorkflowSharedContext) -> dict[str, int] | None:
    return await ctx.get("progress", type_hint=dict[str, int])


@wide.handler()
async def upper_all(ctx: Context, words: list[str]) -> list[str]:
    outcomes = await fan_out(words, lambda word: ctx.run_typed("upper", word.upper), concurrency=20)
    return [outcome.value or "" for outcome in outcomes]


@wide.handler()
async def upper_in_batches(ctx: Context, request: dict[str, Any]) -> list[str]:
    outcomes = await fan_out(
        batches(request["words"], request["size"]), lambda batch: ctx.service_call(upper_all, batch), concurrency=4
    )
    return [word for outcome in outcomes for word in outcome.value or []]


SERVICES = (scans, campaign, wide)
