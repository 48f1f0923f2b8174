"""A workflow that waits for a promise and a service that waits for an awakeable."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from restate import Context, Service, Workflow, WorkflowContext, WorkflowSharedContext

from holdfast.patterns import ask_for_approval, decide, wait_for_approval
from tests.patterns import world

release = Workflow("Release")
mails = Service("Mails")


@release.main()
async def run(ctx: WorkflowContext, timeout_ms: int) -> dict[str, Any]:
    decided = await wait_for_approval(ctx, within=timedelta(milliseconds=timeout_ms))
    return decided.as_dict()


@release.handler()
async def answer(ctx: WorkflowSharedContext, given: Any) -> dict[str, Any]:
    return (await decide(ctx, given)).as_dict()


@release.handler()
async def reject(ctx: WorkflowSharedContext, why: str) -> None:
    await ctx.promise("approval").reject(why)


@mails.handler()
async def ask(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    async def mail(awakeable_id: str) -> None:
        world.effects[request["key"]].append(awakeable_id)

    decided = await ask_for_approval(ctx, mail, within=timedelta(milliseconds=request["timeout_ms"]))
    return decided.as_dict()


SERVICES = (release, mails)
