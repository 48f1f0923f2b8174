"""Workflows: run once per key, shared handlers, durable promises, state."""

from __future__ import annotations

from typing import Any

from restate import Context, Service, TerminalError, Workflow, WorkflowContext, WorkflowSharedContext, gather, select

from tests.conformance import ledger
from tests.conformance.programs.common import RETRY, Request, id_from_key, ms

simple_flow = Workflow("SimpleFlow", invocation_retry_policy=RETRY)
short_flow = Workflow("ShortFlow", invocation_retry_policy=RETRY)
forgetful_flow = Workflow("ForgetfulFlow", invocation_retry_policy=RETRY)
approval = Workflow("Approval", invocation_retry_policy=RETRY)
runs_workflows = Service("RunsWorkflows", invocation_retry_policy=RETRY)


@simple_flow.main()
async def flow(ctx: WorkflowContext, req: Request) -> dict[str, Any]:
    step = await ctx.run_typed("step", lambda: ledger.record(req["t"], "flow step"))
    if req.get("fail"):
        raise TerminalError(req["fail"], status_code=422)
    ledger.fail_first(req["t"], "flow crash")
    return {"value": req.get("value"), "step": step, "key": ctx.key().partition("~")[2]}


@short_flow.main(workflow_retention=ms(0), journal_retention=ms(0))
async def short(ctx: WorkflowContext, req: Request) -> int:
    """Is forgotten as soon as it ends."""
    return await ctx.run_typed("run", lambda: ledger.record(req["t"], "short run"))


@forgetful_flow.main(workflow_retention=ms(0), journal_retention=ms(0))
async def forget(ctx: WorkflowContext) -> None:
    ctx.set("kept", "still here")


@forgetful_flow.handler()
async def look(ctx: WorkflowSharedContext) -> str | None:
    return await ctx.get("kept", type_hint=str)


@approval.main()
async def run(ctx: WorkflowContext, req: Request) -> dict[str, Any]:
    """Sets state, waits for the promise `decision`, resolves the promise `outcome`."""
    ctx.set("status", "waiting")
    ledger.record(req["t"], "waiting")
    try:
        decision = await ctx.promise("decision").value()
    except TerminalError as error:
        decision = f"rejected {error.status_code} {error.message}"
    ctx.set("status", "decided")
    ctx.set("decision", decision)
    await ctx.promise("outcome").resolve({"decision": decision})
    ledger.fail_first(req["t"], "crash")
    return {"decision": decision, "keys": sorted(await ctx.state_keys())}


@approval.handler()
async def decide(ctx: WorkflowSharedContext, decision: Any) -> str:
    await ctx.promise("decision").resolve(decision)
    return "accepted"


@approval.handler()
async def reject(ctx: WorkflowSharedContext, req: Request) -> str:
    await ctx.promise("decision").reject(req["message"], req["code"])
    return "rejected"


@approval.handler()
async def decide_again(ctx: WorkflowSharedContext, decision: Any) -> str:
    """Completing twice is a failure that the handler can catch."""
    try:
        await ctx.promise("decision").resolve(decision)
    except TerminalError as error:
        return f"{error.status_code} {error.message}"
    return "accepted"


@approval.handler()
async def peek(ctx: WorkflowSharedContext, name: str) -> Any:
    try:
        return {"peek": await ctx.promise(name).peek()}
    except TerminalError as error:
        return f"{error.status_code} {error.message}"


@approval.handler()
async def outcome(ctx: WorkflowSharedContext) -> Any:
    """Waits until the workflow has an outcome. `await promise` is short for `await promise.value()`."""
    ledger.record(id_from_key(ctx.key()), "awaits outcome")
    return await ctx.promise("outcome")


@approval.handler()
async def status(ctx: WorkflowSharedContext) -> dict[str, Any]:
    return {"status": await ctx.get("status"), "keys": sorted(await ctx.state_keys())}


@approval.handler()
async def outcome_or_timeout(ctx: WorkflowSharedContext, timeout_ms: int) -> Any:
    match await select(outcome=ctx.promise("outcome").value(), timeout=ctx.sleep(ms(timeout_ms))):
        case ["outcome", value]:
            return value
        case _:
            return "timeout"


@approval.handler()
async def both_promises(ctx: WorkflowSharedContext) -> list[Any]:
    decision, outcome_value = ctx.promise("decision").value(), ctx.promise("outcome").value()
    await gather(decision, outcome_value)
    return [await decision, await outcome_value]


@runs_workflows.handler()
async def twice(ctx: Context, req: Request) -> list[Any]:
    """The second call of one key fails; a second send is the first invocation again."""
    key = f"{req['t']}~twice"
    first = await ctx.workflow_call(flow, key=key, arg=req)
    try:
        second: Any = await ctx.workflow_call(flow, key=key, arg=req)
    except TerminalError as error:
        second = f"{error.status_code} {error.message}"
    one = ctx.workflow_send(flow, key=f"{key} sent", arg=req)
    two = ctx.workflow_send(flow, key=f"{key} sent", arg=req)
    same = await one.invocation_id() == await two.invocation_id()
    return [first, second, same]


@runs_workflows.handler()
async def drives_approval(ctx: Context, req: Request) -> Any:
    """Starts a workflow, talks to its shared handlers, and attaches to its run."""
    key = f"{req['t']}~driven"
    handle = ctx.workflow_send(run, key=key, arg=req)
    await ctx.workflow_call(decide, key=key, arg="yes")
    announced = await ctx.workflow_call(outcome, key=key, arg=None)
    result = await ctx.attach_invocation(await handle.invocation_id())
    return [announced, result]
