"""The application that is killed. Every real side effect is a line in a ledger that no engine can falsify."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import restate
from restate import (
    Context,
    InvocationRetryPolicy,
    ObjectContext,
    Service,
    TerminalError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    gather,
    select,
)

Request = dict[str, Any]

RETRY = InvocationRetryPolicy(initial_interval=timedelta(milliseconds=5), exponentiation_factor=1.0, max_attempts=1000)


class Ledger:
    """Appends one JSON line per side effect; the line is on disk before the effect counts as done."""

    def __init__(self, path: Path, *, fsync: bool) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._fsync = fsync

    def write(self, what: str, u: str, **fields: Any) -> None:
        line = {"what": what, "u": u, "pid": os.getpid(), "at_ms": now_ms(), **fields}
        # One write per line: a SIGKILL comes before or after it, and lines of threads do not mix.
        os.write(self._file, json.dumps(line).encode() + b"\n")
        if self._fsync:
            os.fsync(self._file)


class Here:
    """What belongs to the process that runs the application, which sets it."""

    ledger: Ledger
    opened: asyncio.Event
    """The gate at which `Bulk/hold` and `Slow/step` wait; closed in every new process."""


here = Here()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def _ms(milliseconds: float) -> timedelta:
    return timedelta(milliseconds=milliseconds)


def effect(u: str, step: int) -> str:
    """A side effect with a result that is different each time, so that a second execution shows."""
    value = os.urandom(6).hex()
    here.ledger.write("step", u, step=step, value=value)
    return value


async def slow_effect(u: str, step: int) -> str:
    await asyncio.sleep(random.random() * 0.004)  # so that kills also come in the middle of a step
    return effect(u, step)


flow = Service("Flow", invocation_retry_policy=RETRY)


@flow.handler()
async def steps(ctx: Context, req: Request) -> list[str]:
    """Steps in a row, in the loop and in threads, some of them failing at first."""
    u: str = req["u"]
    values: list[str] = []

    def flaky(step: int) -> str:
        if random.random() < 0.2:
            raise OSError("not this time")
        return effect(u, step)

    for step in range(req["n"]):
        match step % 3:
            case 0:
                values.append(await ctx.run_typed(f"s{step}", slow_effect, u=u, step=step))
            case 1:
                values.append(await ctx.run_typed(f"s{step}", effect, u=u, step=step))
            case _:
                values.append(await ctx.run_typed(f"s{step}", flaky, step=step))
    return values


@flow.handler()
async def parallel(ctx: Context, req: Request) -> list[str]:
    """Three steps at once."""
    futures = [ctx.run_typed(f"p{step}", slow_effect, u=req["u"], step=step) for step in range(3)]
    await gather(*futures)
    return [await future for future in futures]


@flow.handler()
async def parent(ctx: Context, req: Request) -> dict[str, Any]:
    """Calls children at the same time, one of which fails; then adds up."""
    u: str = req["u"]
    calls = [ctx.service_call(steps, {"u": f"{u}.{index}", "n": 2}) for index in range(2)]
    await gather(*calls)
    try:
        failure = await ctx.service_call(refuse, {"u": u})
    except TerminalError as error:
        failure = f"{error.status_code} {error.message}"
    return {"children": [await call for call in calls], "failure": failure}


@flow.handler()
async def refuse(ctx: Context, req: Request) -> str:
    raise TerminalError(f"no {req['u']}", status_code=418)


@flow.handler()
async def nap(ctx: Context, req: Request) -> int:
    """Returns how long a sleep really took, in milliseconds."""
    before = await ctx.run_typed("before", now_ms)
    await ctx.sleep(_ms(req["ms"]))
    after = await ctx.run_typed("after", now_ms)
    return after - before


@flow.handler()
async def wait(ctx: Context, req: Request) -> str:
    """Tells its awakeable's id to the ledger and waits."""
    awakeable_id, promise = ctx.awakeable(type_hint=str)
    await ctx.run_typed("tell", lambda: here.ledger.write("awakeable", req["u"], id=awakeable_id))
    return await promise


@flow.handler()
async def race(ctx: Context, req: Request) -> list[str]:
    """Who wins must not change when the invocation is replayed."""
    u: str = req["u"]
    winner = await select(fast=ctx.service_call(steps, {"u": f"{u}.call", "n": 1}), slept=ctx.sleep(_ms(req["ms"])))
    first = await ctx.run_typed("first", lambda: winner[0])
    await ctx.sleep(_ms(1))
    return [winner[0], first]


@flow.handler()
async def post(ctx: Context, req: Request) -> None:
    """A delayed and an immediate send."""
    u: str = req["u"]
    due_ms = await ctx.run_typed("due", lambda: now_ms() + req["ms"])
    ctx.object_send(receive, key=f"{u}.later", arg={"due_ms": due_ms}, send_delay=_ms(req["ms"]))
    ctx.object_send(receive, key=f"{u}.now", arg={"due_ms": due_ms - req["ms"]})


@flow.handler()
async def chain(ctx: Context, req: Request) -> list[int]:
    """One increment of each of two counters, the second by the first."""
    return await ctx.object_call(add, key=req["keys"][0], arg={"u": req["u"], "then": req["keys"][1]})


counter = VirtualObject("Counter", invocation_retry_policy=RETRY)


@counter.handler()
async def add(ctx: ObjectContext, req: Request) -> list[int]:
    """Adds one; `log` in the state tells in which order the increments were applied."""
    count = (await ctx.get("count", type_hint=int) or 0) + 1
    log = await ctx.get("log", type_hint=list) or []
    await ctx.run_typed("add", effect, u=f"{req['u']}@{ctx.key()}", step=0)
    ctx.set("count", count)
    ctx.set("log", [*log, req["u"]])
    if req.get("then"):
        return [count, *await ctx.object_call(add, key=req["then"], arg={"u": req["u"]})]
    return [count]


@counter.handler(kind="shared")
async def read(ctx: restate.ObjectSharedContext) -> int:
    return await ctx.get("count", type_hint=int) or 0


mailbox = VirtualObject("Mailbox", invocation_retry_policy=RETRY)


@mailbox.handler()
async def receive(ctx: ObjectContext, req: Request) -> None:
    at_ms = await ctx.run_typed("at", now_ms)
    arrivals = await ctx.get("arrivals", type_hint=list) or []
    ctx.set("arrivals", [*arrivals, at_ms - req["due_ms"]])


approval = Workflow("Approval", invocation_retry_policy=RETRY)


@approval.main()
async def run(ctx: WorkflowContext, req: Request) -> list[str]:
    value = await ctx.run_typed("before", effect, u=req["u"], step=0)
    decision = await ctx.promise("decision", type_hint=str).value()
    return [value, decision]


@approval.handler()
async def decide(ctx: WorkflowSharedContext, req: Request) -> None:
    await ctx.promise("decision", type_hint=str).resolve(req["decision"])


slow = Service("Slow", invocation_retry_policy=RETRY)


@slow.handler()
async def step(ctx: Context, req: Request) -> list[str]:
    """A step before, a step that waits for the gate, a step after."""
    u: str = req["u"]

    async def gated() -> str:
        here.ledger.write("gated", u)
        await here.opened.wait()
        return effect(u, 1)

    first = await ctx.run_typed("first", effect, u=u, step=0)
    second = await ctx.run_typed("gated", gated)
    return [first, second, await ctx.run_typed("last", effect, u=u, step=2)]


@slow.handler()
async def open_gate(ctx: Context) -> None:
    here.opened.set()


bulk = Service("Bulk", invocation_retry_policy=RETRY)


@bulk.handler()
async def start(ctx: Context, req: Request) -> None:
    """Sends a range of work: one journal with as many entries."""
    handlers: dict[str, Any] = {"hold": hold, "sleep": sleep, "await": await_}
    for index in range(req["first"], req["first"] + req["count"]):
        ctx.service_send(handlers[req["kind"]], {**req, "u": f"{req['kind']}{index}"})


@bulk.handler()
async def hold(ctx: Context, req: Request) -> str:
    """Runs until the gate opens, without telling the engine what it waits for."""
    here.ledger.write("running", req["u"])
    await here.opened.wait()
    here.ledger.write("done", req["u"])
    return req["u"]


@bulk.handler()
async def sleep(ctx: Context, req: Request) -> str:
    await ctx.sleep(_ms(max(0, req["until_ms"] - now_ms())))
    here.ledger.write("done", req["u"], late_ms=now_ms() - req["until_ms"])
    return req["u"]


@bulk.handler(name="await")
async def await_(ctx: Context, req: Request) -> str:
    awakeable_id, promise = ctx.awakeable(type_hint=str)
    here.ledger.write("awakeable", req["u"], id=awakeable_id)
    value = await promise
    here.ledger.write("done", req["u"])
    return value


@bulk.handler()
async def resolve(ctx: Context, req: Request) -> None:
    for awakeable_id in req["ids"]:
        ctx.resolve_awakeable(awakeable_id, "resolved")


app = restate.app([flow, counter, mailbox, approval, slow, bulk])
