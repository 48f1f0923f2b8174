"""The application under test: every command of the protocol that the SDK can send, and a ledger of what really happened.

A step is a side effect: each execution has a number, which is in its result, so that a result tells which execution it
is of. The ledger belongs to the outside world: it survives every crash of the engine and cannot be rolled back.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any

import restate
from restate import (
    Context,
    InvocationRetryPolicy,
    ObjectContext,
    ObjectSharedContext,
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

TICK_MS = 100
"""Programs sleep and delay by multiples of this."""
STRETCH = 1000
"""They ask the SDK for so many times as long, and the wire gives it back: beside it, what the real machine takes between
the SDK's look at its clock and ours is nothing, however busy it is."""

RETRY = InvocationRetryPolicy(
    initial_interval=timedelta(milliseconds=5),
    exponentiation_factor=2.0,
    max_interval=timedelta(milliseconds=500),
    max_attempts=10_000,
)
SETTINGS: dict[str, Any] = {
    "invocation_retry_policy": RETRY,
    # Versions 5 and 6 have no other way to tell that an attempt only waits; a minute each would look like a lost timer.
    "inactivity_timeout": timedelta(seconds=1),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that really happened."""

    incarnation: int
    at_ms: int
    what: str
    u: str
    detail: Any = None
    number: int = 0
    """Of a step: which execution of it, from 1."""


@dataclass
class Here:
    """The world around the program; whoever runs it sets this up."""

    random: Random = field(default_factory=lambda: Random(0))
    now_ms: Callable[[], int] = lambda: 0
    incarnation: int = 0
    is_dead: Callable[[], bool] = lambda: False
    """The process has died, only its coroutines do not know yet: what they do does not happen."""
    slowest_step_s: float = 0.0
    flakiness: float = 0.0
    ledger: list[Entry] = field(default_factory=list[Entry])
    executions: Counter[tuple[str, Any]] = field(default_factory=Counter[tuple[str, Any]])
    on_entry: Callable[[Entry], None] = lambda entry: None


here = Here()


def note(what: str, u: str, detail: Any = None) -> None:
    """Something the outside world sees."""
    _write(what, u, detail, 0)


def _write(what: str, u: str, detail: Any, number: int) -> None:
    _alive()
    entry = Entry(here.incarnation, here.now_ms(), what, u, detail, number)
    here.ledger.append(entry)
    here.on_entry(entry)


def _alive() -> None:
    if here.is_dead():
        raise asyncio.CancelledError("the process has died")


def effect(u: str, step: Any) -> str:
    """A side effect; its result names the execution."""
    _alive()
    here.executions[u, step] += 1
    number = here.executions[u, step]
    _write("step", u, step, number)
    return f"{u}/{step}#{number}"


async def slow_effect(u: str, step: Any) -> str:
    await asyncio.sleep(here.random.random() * here.slowest_step_s)
    return effect(u, step)


def _ms(milliseconds: int) -> timedelta:
    return timedelta(milliseconds=milliseconds * STRETCH)


def _flaky() -> None:
    if here.random.random() < here.flakiness:
        raise OSError("not this time")


flow = Service("Flow", **SETTINGS)


@flow.handler()
async def steps(ctx: Context, req: Request) -> list[str]:
    """Steps in a row, in the loop and in threads, some of them failing at first."""
    u: str = req["u"]
    values: list[str] = []

    def flaky(step: int) -> str:
        _flaky()
        return effect(u, step)

    for step in range(req["n"]):
        match step % 3:
            case 0:
                values.append(await ctx.run_typed(f"s{step}", slow_effect, u=u, step=step))
            case 1:
                values.append(await ctx.run_typed(f"s{step}", effect, u=u, step=step))
            case _:
                values.append(await ctx.run_typed(f"s{step}", flaky, step=step))
        _flaky()
    return values


@flow.handler()
async def parallel(ctx: Context, req: Request) -> list[str]:
    """Three steps at once."""
    u: str = req["u"]

    async def in_turn(step: int) -> str:
        # The SDK's native core picks what starts first at random, from no seed of ours.
        await asyncio.sleep(0.0001 * (step + 1))
        return await slow_effect(u, step)

    futures = [ctx.run_typed(f"p{step}", in_turn, step=step) for step in range(3)]
    await gather(*futures)
    return [await future for future in futures]


@flow.handler()
async def parent(ctx: Context, req: Request) -> dict[str, Any]:
    """Calls children at the same time, one of which fails."""
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
async def nap(ctx: Context, req: Request) -> list[int]:
    """When it fell asleep and when it woke, by the wall clock."""
    before = await ctx.run_typed("before", here.now_ms)
    await ctx.sleep(_ms(req["ms"]))
    return [before, await ctx.run_typed("after", here.now_ms)]


@flow.handler()
async def wait(ctx: Context, req: Request) -> Any:
    """Tells its awakeable's id to the outside and waits."""
    awakeable_id, promise = ctx.awakeable()
    await ctx.run_typed("tell", lambda: note("awakeable", req["u"], awakeable_id))
    return await promise


@flow.handler()
async def answer(ctx: Context, req: Request) -> str:
    """Resolves an awakeable from a handler, and then rejects it, which comes too late."""
    ctx.resolve_awakeable(req["awakeable"], req["value"])
    ctx.reject_awakeable(req["awakeable"], "too late")
    return "answered"


@flow.handler()
async def talk(ctx: Context, req: Request) -> list[Any]:
    """A child that waits for two named signals, and gets them."""
    child = ctx.service_send(listen, {"u": req["u"]})
    invocation_id = await child.invocation_id()
    ctx.resolve_signal(invocation_id, "go", req["u"])
    ctx.reject_signal(invocation_id, "stop", "enough", 418)
    return await ctx.attach_invocation(invocation_id, type_hint=list)


@flow.handler()
async def listen(ctx: Context, req: Request) -> list[Any]:
    go = await ctx.signal("go")
    try:
        stop = await ctx.signal("stop")
    except TerminalError as error:
        stop = f"{error.status_code} {error.message}"
    return [go, stop]


@flow.handler()
async def race(ctx: Context, req: Request) -> list[Any]:
    """Who wins must not change when the invocation is replayed."""
    u: str = req["u"]
    winner = await select(call=ctx.service_call(steps, {"u": f"{u}.call", "n": 1}), slept=ctx.sleep(_ms(req["ms"])))
    first = await ctx.run_typed("first", lambda: winner[0])
    await ctx.sleep(_ms(100))
    return [winner[0], first]


@flow.handler()
async def post(ctx: Context, req: Request) -> str:
    """A delayed and an immediate send; waits for the delayed one."""
    u: str = req["u"]
    sent_ms = await ctx.run_typed("sent", here.now_ms)
    ctx.object_send(receive, key=f"{u}.now", arg={"u": u, "due_ms": sent_ms})
    later = ctx.object_send(
        receive, key=f"{u}.later", arg={"u": u, "due_ms": sent_ms + req["ms"]}, send_delay=_ms(req["ms"])
    )
    return await ctx.attach_invocation(await later.invocation_id(), type_hint=str)


@flow.handler()
async def chain(ctx: Context, req: Request) -> list[int]:
    """One increment of each of two counters, the second by the first."""
    return await ctx.object_call(add, key=req["keys"][0], arg={"u": req["u"], "then": req["keys"][1]})


@flow.handler()
async def tree(ctx: Context, req: Request) -> str:
    """Children and grandchildren that sleep for a day: something to cancel."""
    u, depth = req["u"], req["depth"]
    note("node", u, ctx.request().id)
    if depth == 0:
        await ctx.sleep(_ms(86_400_000))
        return "overslept"
    children = [ctx.service_call(tree, {"u": f"{u}.{index}", "depth": depth - 1}) for index in range(2)]
    await gather(*children)
    return "overslept"


@flow.handler()
async def ends_child(ctx: Context, req: Request) -> str:
    """Cancels what it started, and waits for the end of it."""
    handle = ctx.service_send(tree, {"u": req["u"], "depth": 0})
    invocation_id = await handle.invocation_id()
    ctx.cancel_invocation(invocation_id)
    try:
        return await ctx.attach_invocation(invocation_id, type_hint=str)
    except TerminalError as error:
        return f"{error.status_code}"


counter = VirtualObject("Counter", **SETTINGS)


@counter.handler()
async def add(ctx: ObjectContext, req: Request) -> list[int]:
    """Adds one; `log` tells in which order the increments were applied."""
    count = (await ctx.get("count", type_hint=int) or 0) + 1
    log = await ctx.get("log", type_hint=list) or []
    for step in range(req.get("n", 1)):
        await ctx.run_typed(f"add{step}", slow_effect, u=f"{req['u']}@{ctx.key()}", step=step)
    ctx.set("count", count)
    ctx.set("log", [*log, req["u"]])
    if req.get("pause_ms"):
        await ctx.sleep(_ms(req["pause_ms"]))
        await ctx.run_typed("rested", slow_effect, u=f"{req['u']}@{ctx.key()}", step="rested")
    if req.get("then"):
        return [count, *await ctx.object_call(add, key=req["then"], arg={"u": req["u"]})]
    return [count]


@counter.handler(kind="shared")
async def read(ctx: ObjectSharedContext) -> int:
    return await ctx.get("count", type_hint=int) or 0


store = VirtualObject("Store", **SETTINGS, state_preload=False)
eager_store = VirtualObject("EagerStore", **SETTINGS)


async def _use_state(ctx: ObjectContext, u: str) -> list[Any]:
    """Every state command, with steps between so that each commits by itself."""
    out: list[Any] = [await ctx.get("a"), sorted(await ctx.state_keys())]
    ctx.set("a", u)
    ctx.set("b", 2)
    await ctx.run_typed("one", effect, u=u, step=0)
    ctx.clear("b")
    out.append(await ctx.get("b"))
    await ctx.run_typed("two", effect, u=u, step=1)
    out += [await ctx.get("a"), sorted(await ctx.state_keys())]
    ctx.clear_all()
    await ctx.run_typed("three", effect, u=u, step=2)
    ctx.set("left", u)
    return [*out, await ctx.get("a"), sorted(await ctx.state_keys())]


@store.handler(name="use")
async def use_lazily(ctx: ObjectContext, req: Request) -> list[Any]:
    return await _use_state(ctx, req["u"])


@eager_store.handler(name="use")
async def use_eagerly(ctx: ObjectContext, req: Request) -> list[Any]:
    return await _use_state(ctx, req["u"])


mailbox = VirtualObject("Mailbox", **SETTINGS)


@mailbox.handler()
async def receive(ctx: ObjectContext, req: Request) -> str:
    """Keeps by how much each message came later than it was due."""
    at_ms = await ctx.run_typed("at", here.now_ms)
    arrivals = await ctx.get("arrivals", type_hint=list) or []
    ctx.set("arrivals", [*arrivals, at_ms - req["due_ms"]])
    return req["u"]


approval = Workflow("Approval", **SETTINGS)


@approval.main()
async def run(ctx: WorkflowContext, req: Request) -> list[Any]:
    value = await ctx.run_typed("before", effect, u=req["u"], step=0)
    decision = await ctx.promise("decision").value()
    await ctx.promise("closed").reject("closed", 410)
    return [value, decision]


@approval.handler()
async def decide(ctx: WorkflowSharedContext, decision: Any) -> str:
    """The first one wins; whoever comes later is told so."""
    try:
        await ctx.promise("decision").resolve(decision)
    except TerminalError as error:
        return f"{error.status_code}"
    return "accepted"


@approval.handler()
async def watch(ctx: WorkflowSharedContext) -> list[Any]:
    """What was decided, before and after waiting for it."""
    before = await ctx.promise("decision").peek()
    decision = await ctx.promise("decision").value()
    try:
        closed = await ctx.promise("closed").value()
    except TerminalError as error:
        closed = f"{error.status_code}"
    return [before, decision, closed]


SERVICES = (flow, counter, store, eager_store, mailbox, approval)
app = restate.app(list(SERVICES))
