"""Calls and sends between services, objects and workflows."""

from __future__ import annotations

import json
from typing import Any

from restate import (
    Context,
    ObjectContext,
    ObjectSharedContext,
    RestateDurableCallFuture,
    SendHandle,
    Service,
    TerminalError,
    VirtualObject,
    gather,
)

from tests.conformance import ledger
from tests.conformance.programs.common import RETRY, Request, id_from_key, ms, policy
from tests.conformance.programs.workflows import flow

callee = Service("Callee", invocation_retry_policy=RETRY)
hidden = Service("Hidden", ingress_private=True, invocation_retry_policy=RETRY)
diary = VirtualObject("Diary", invocation_retry_policy=RETRY)
caller = Service("Caller", invocation_retry_policy=RETRY)


# --- those who are called ---------------------------------------------------------------------------------------


@callee.handler()
async def echo(ctx: Context, req: Request) -> Any:
    ledger.record(req["t"], "echo")
    return req.get("value")


@callee.handler()
async def refuse(ctx: Context, req: Request) -> None:
    ledger.record(req["t"], "refuse")
    raise TerminalError(req["message"], status_code=req["code"], metadata=req.get("metadata"))


@callee.handler()
async def flaky(ctx: Context, req: Request) -> str:
    ledger.fail_first(req["t"], "flaky", 2)
    return "recovered"


@callee.handler()
async def held(ctx: Context, req: Request) -> str:
    """Stays busy until the test opens the gate."""
    ledger.record(req["t"], "held")
    await ledger.gate(req["t"], "release")
    return "released"


@callee.handler()
async def headers(ctx: Context) -> dict[str, str]:
    """The headers that a caller can choose."""
    return {name: value for name, value in ctx.request().headers.items() if name.startswith("x-test")}


@callee.handler()
async def own_id(ctx: Context, req: Request) -> str:
    ledger.record(req["t"], "own_id")
    return ctx.request().id


@callee.handler()
async def nothing(ctx: Context) -> None:
    """No input, no output."""


@callee.handler(ingress_private=True)
async def secret(ctx: Context) -> str:
    return "secret"


@hidden.handler(name="secret")
async def hidden_secret(ctx: Context) -> str:
    return "hidden secret"


@callee.handler()
async def countdown(ctx: Context, req: Request) -> int:
    """Recursion: calls itself down to zero; returns the depth."""
    await ctx.run_typed("count", lambda: ledger.record(req["t"], "countdown"))
    if req["n"] == 0:
        return 0
    return 1 + await ctx.service_call(countdown, {**req, "n": req["n"] - 1})


@diary.handler()
async def append(ctx: ObjectContext, line: str) -> list[str]:
    lines = [*(await ctx.get("lines", type_hint=list) or []), line]
    ctx.set("lines", lines)
    ledger.record(id_from_key(ctx.key()), line)
    return lines


@diary.handler(kind="shared")
async def lines(ctx: ObjectSharedContext) -> list[str]:
    return await ctx.get("lines", type_hint=list) or []


# --- those who call ---------------------------------------------------------------------------------------------


@caller.handler()
async def all_kinds(ctx: Context, req: Request) -> dict[str, Any]:
    t = req["t"]
    results = {
        "service": await ctx.service_call(echo, {"t": t, "value": {"a": [1, "ü"]}}),
        "void": await ctx.service_call(nothing, None),
        "private handler": await ctx.service_call(secret, None),
        "private service": await ctx.service_call(hidden_secret, None),
        "object": await ctx.object_call(append, key=f"{t}~kinds", arg="first"),
        "shared": await ctx.object_call(lines, key=f"{t}~kinds", arg=None),
        "workflow": await ctx.workflow_call(flow, key=f"{t}~kinds", arg={"t": t, "value": 7}),
        "generic": json.loads(
            await ctx.generic_call("Diary", "append", json.dumps("second").encode(), key=f"{t}~kinds")
        ),
    }
    ledger.fail_first(t, "crash")
    return results


@caller.handler()
async def failures(ctx: Context, req: Request) -> list[str]:
    """Failures of children arrive as terminal errors with code, message and metadata; here as text."""
    caught: list[str] = []
    for code, message in ((500, "plain"), (418, "teapot"), (409, ""), (599, "ünïcode")):
        try:
            await ctx.service_call(
                refuse, {"t": req["t"], "code": code, "message": message, "metadata": {"why": message}}
            )
        except TerminalError as error:
            caught.append(f"{error.status_code} {error.message} {error.metadata}")
    ledger.fail_first(req["t"], "crash")
    return caught


@caller.handler()
async def failure_passes_through(ctx: Context, req: Request) -> None:
    await ctx.service_call(refuse, req)


@caller.handler()
async def child_recovers(ctx: Context, req: Request) -> str:
    return await ctx.service_call(flaky, req)


@caller.handler()
async def with_headers(ctx: Context, req: Request) -> list[dict[str, str]]:
    chosen = {"x-test-one": "1", "x-test-two": "zwei ☃"}
    called = await ctx.service_call(headers, None, headers=chosen)
    generic = await ctx.generic_call("Callee", "headers", b"", headers={"x-test-three": ""})
    return [called, json.loads(generic), await ctx.service_call(headers, None)]


@caller.handler()
async def with_idempotency_key(ctx: Context, req: Request) -> dict[str, Any]:
    """Same key: same child, one execution, the first argument counts."""
    key = req["t"]
    first = ctx.service_call(echo, {"t": key, "value": 1}, idempotency_key=key)
    second = ctx.service_call(echo, {"t": key, "value": 2}, idempotency_key=key)
    other = ctx.service_call(echo, {"t": key, "value": 3}, idempotency_key=f"{key} other")
    sent = ctx.service_send(echo, {"t": key, "value": 4}, idempotency_key=key)
    ids = [await first.invocation_id(), await second.invocation_id(), await other.invocation_id()]
    return {
        "values": [await first, await second, await other],
        "same child": [ids[0] == ids[1], ids[0] == ids[2], ids[0] == await sent.invocation_id()],
    }


@caller.handler()
async def parallel(ctx: Context, req: Request) -> list[Any]:
    futures = [ctx.service_call(echo, {"t": req["t"], "value": index}) for index in range(req["count"])]
    await gather(*futures)
    ledger.fail_first(req["t"], "crash")
    return [await future for future in futures]


@caller.handler()
async def sends_in_order(ctx: Context, req: Request) -> list[str]:
    """Sends to one key arrive in the order of the code; the call queues behind them."""
    key = f"{req['t']}~diary"
    for index in range(req["count"]):
        ctx.object_send(append, key=key, arg=f"line {index}")
    return await ctx.object_call(append, key=key, arg="last")


@caller.handler()
async def send_kinds(ctx: Context, req: Request) -> dict[str, Any]:
    t = req["t"]
    handles: dict[str, SendHandle] = {
        "service": ctx.service_send(echo, {"t": t, "value": 1}),
        "object": ctx.object_send(append, key=f"{t}~sent", arg="sent"),
        "workflow": ctx.workflow_send(flow, key=f"{t}~sent", arg={"t": t, "value": 1}),
        "generic": ctx.generic_send("Callee", "echo", json.dumps({"t": t, "value": 2}).encode()),
        "delayed": ctx.service_send(own_id, {"t": t}, send_delay=ms(50)),
        "generic delayed": ctx.generic_send("Callee", "own_id", json.dumps({"t": t}).encode(), send_delay=ms(50)),
    }
    ids = {name: await handle.invocation_id() for name, handle in handles.items()}
    ledger.fail_first(t, "crash")
    results: dict[str, Any] = {name: await ctx.attach_invocation(inv) for name, inv in ids.items()}
    for name in ("delayed", "generic delayed"):
        results[name] = results[name] == ids[name]
    return results


@caller.handler()
async def delayed_send(ctx: Context, req: Request) -> str:
    handle = ctx.service_send(echo, req, send_delay=ms(req["delay_ms"]))
    return await handle.invocation_id()


@caller.handler()
async def delayed_object_sends(ctx: Context, req: Request) -> list[str]:
    """The later send is due first. Both queue when due, not when sent."""
    key = f"{req['t']}~delayed"
    late = ctx.object_send(append, key=key, arg="late", send_delay=ms(600))
    soon = ctx.object_send(append, key=key, arg="soon", send_delay=ms(200))
    ctx.object_send(append, key=key, arg="now")
    await ctx.attach_invocation(await soon.invocation_id())
    await ctx.attach_invocation(await late.invocation_id())
    return await ctx.object_call(lines, key=key, arg=None)


@caller.handler(invocation_retry_policy=policy(1000, "kill"))
async def calls_generic(ctx: Context, req: Request) -> str:
    """Calls whatever the scenario names, for instance what does not exist."""
    result = await ctx.generic_call(
        req["service"], req["handler"], b"", key=req.get("object_key"), idempotency_key=req.get("idempotency_key")
    )
    return result.decode()


@caller.handler(invocation_retry_policy=policy(2, "kill"))
async def calls_generic_twice(ctx: Context, req: Request) -> str:
    """As `calls_generic`, with two attempts only."""
    return await calls_generic(ctx, req)


@caller.handler()
async def calls_held(ctx: Context, req: Request) -> str:
    """One child that is called and two that are sent to, one of them far in the future; all ids to the ledger."""
    t = req["t"]
    call: RestateDurableCallFuture[str] = ctx.service_call(held, req)
    sent = ctx.service_send(held, req)
    delayed = ctx.service_send(held, req, send_delay=ms(3_600_000))
    for name, handle in (("call", call), ("sent", sent), ("delayed", delayed)):
        ledger.record(t, f"{name} {await handle.invocation_id()}")
    ledger.record(t, "waiting")
    return await call


@caller.handler()
async def calls_sleeper(ctx: Context, req: Request) -> str:
    """As `calls_held`, but the called child sleeps durably, so that a cancel gets through to it."""
    t = req["t"]
    call: RestateDurableCallFuture[str] = ctx.service_call(sleeps_for_long, req)
    sent = ctx.service_send(held, req)
    delayed = ctx.service_send(held, req, send_delay=ms(3_600_000))
    for name, handle in (("call", call), ("sent", sent), ("delayed", delayed)):
        ledger.record(t, f"{name} {await handle.invocation_id()}")
    return await call


@caller.handler()
async def cancels_child(ctx: Context, req: Request) -> str:
    future = ctx.service_call(sleeps_for_long, req)
    await future.cancel_invocation()
    try:
        return await future
    except TerminalError as error:
        return f"{error.status_code} {error.message}"


@callee.handler()
async def sleeps_for_long(ctx: Context, req: Request) -> str:
    ledger.record(req["t"], "sleeping")
    await ctx.sleep(ms(3_600_000))
    return "overslept"


@caller.handler()
async def cancels_send(ctx: Context, req: Request) -> str:
    """Cancels by handle; learns the outcome by attaching."""
    handle = ctx.service_send(sleeps_for_long, req)
    invocation_id = await handle.invocation_id()
    await handle.cancel_invocation()
    try:
        return await ctx.attach_invocation(invocation_id)
    except TerminalError as error:
        return f"{error.status_code} {error.message}"


@caller.handler()
async def cancels_by_id(ctx: Context, req: Request) -> str:
    ctx.cancel_invocation(req["invocation_id"])
    return "cancelled"


@caller.handler()
async def attaches(ctx: Context, req: Request) -> Any:
    try:
        return await ctx.attach_invocation(req["invocation_id"])
    except TerminalError as error:
        return f"{error.status_code} {error.message}"


@diary.handler()
async def calls_itself(ctx: ObjectContext, line: str) -> list[str]:
    """Deadlock: the callee waits for the lock that the caller keeps."""
    future = ctx.object_call(append, key=ctx.key(), arg=line)
    ledger.record(id_from_key(ctx.key()), f"called {await future.invocation_id()}")
    return await future


@diary.handler()
async def calls_neighbour(ctx: ObjectContext, line: str) -> list[str]:
    """Another key of the same object is no deadlock; nor is a shared handler of its own key."""
    await ctx.object_call(append, key=f"{ctx.key()}+", arg=line)
    return [
        *await ctx.object_call(lines, key=f"{ctx.key()}+", arg=None),
        *await ctx.object_call(lines, key=ctx.key(), arg=None),
    ]
