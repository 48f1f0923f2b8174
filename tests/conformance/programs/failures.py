"""Handlers that fail, are retried, paused, killed, or cancelled."""

from __future__ import annotations

import asyncio
from typing import Any

from restate import (
    Context,
    InvocationRetryPolicy,
    ObjectContext,
    ObjectSharedContext,
    RunOptions,
    Service,
    TerminalError,
    VirtualObject,
)
from restate._preview import explicit_recovery
from restate.exceptions import RetryableError

from tests.conformance import ledger
from tests.conformance.programs.calls import echo, held, sleeps_for_long
from tests.conformance.programs.common import RETRY, Request, id_from_key, ms, policy

failing = Service("Failing", invocation_retry_policy=RETRY)
locked = VirtualObject("Locked", invocation_retry_policy=RETRY)


@failing.handler()
async def terminal(ctx: Context, req: Request) -> None:
    ledger.record(req["t"], "attempt")
    raise TerminalError(req["message"], status_code=req["code"], metadata=req.get("metadata"))


@failing.handler()
async def wrapped_terminal(ctx: Context, req: Request) -> None:
    """A terminal error as the cause of another error is still terminal."""
    try:
        raise TerminalError("inner", status_code=412)
    except TerminalError as error:
        ledger.record(req["t"], "attempt")
        raise RuntimeError("outer") from error


@failing.handler()
async def recovers(ctx: Context, req: Request) -> str:
    await ctx.run_typed("before", lambda: ledger.record(req["t"], "before"))
    ledger.fail_first(req["t"], "attempt", req["failures"])
    return "recovered"


@failing.handler(invocation_retry_policy=policy(2, "kill"))
async def retryable(ctx: Context, req: Request) -> str:
    """An error that names its delay does not use up the attempts of the policy (2 here)."""
    if ledger.record(req["t"], "attempt") <= req["failures"]:
        raise RetryableError("later", retry_after=ms(10))
    return "recovered"


@failing.handler(
    invocation_retry_policy=InvocationRetryPolicy(initial_interval=ms(3_600_000), max_interval=ms(3_600_000))
)
async def slow_retry(ctx: Context, req: Request) -> str:
    """The retry comes after an hour, unless an operator resumes it."""
    ledger.fail_first(req["t"], "attempt", req["failures"])
    return "recovered"


@failing.handler(invocation_retry_policy=policy(3, "kill"))
async def killed_at_last(ctx: Context, req: Request) -> None:
    raise ValueError(f"attempt {ledger.record(req['t'], 'attempt')}")


@failing.handler(invocation_retry_policy=policy(1, "kill"))
async def killed_at_once(ctx: Context, req: Request) -> None:
    ledger.record(req["t"], "attempt")
    raise ValueError("only attempt")


@failing.handler(invocation_retry_policy=policy(2, "kill"))
async def step_killed(ctx: Context, req: Request) -> str:
    """A step without options is retried by the invocation's policy, here twice."""

    def action() -> str:
        ledger.record(req["t"], "step")
        raise ValueError("broken step")

    return await ctx.run_typed("step", action)


@failing.handler(invocation_retry_policy=policy(2, "kill"))
async def step_options_beat_policy(ctx: Context, req: Request) -> str:
    """Retries of a step with options do not count as attempts of the invocation."""

    def action() -> str:
        ledger.fail_first(req["t"], "step", 4)
        return "done"

    options: RunOptions[str] = RunOptions(max_attempts=5, initial_retry_interval=ms(5), retry_interval_factor=1.0)
    return await ctx.run_typed("step", action, options)


@failing.handler(invocation_retry_policy=policy(2, "pause"))
async def paused_at_last(ctx: Context, req: Request) -> str:
    """Fails until the test opens the gate (asked without waiting)."""
    await ctx.run_typed("before", lambda: ledger.record(req["t"], "before"))
    if ledger.record(req["t"], "attempt") <= req["failures"]:
        raise ValueError("still broken")
    return "repaired"


@failing.handler(invocation_retry_policy=policy(3, "kill"))
async def nondeterministic(ctx: Context, req: Request) -> str:
    """Each attempt calls its step differently: the journal does not match."""
    attempt = ledger.record(req["t"], "attempt")
    await ctx.run_typed(f"step of attempt {attempt}", lambda: None)
    raise ledger.ForcedRetry("again")


@failing.handler(invocation_retry_policy=policy(3, "kill"))
async def forgetful(ctx: Context, req: Request) -> str:
    """Later attempts leave out the step of the first: the journal holds more than the code does."""
    if ledger.record(req["t"], "attempt") == 1:
        await ctx.run_typed("step", lambda: None)
        raise ledger.ForcedRetry("again")
    return "done"


@failing.handler(invocation_retry_policy=policy(2, "kill"))
async def scoped(ctx: Context, req: Request) -> Any:
    """Scopes need a protocol that is off by default."""
    return await ctx.scope("tenant").service_call(held, req)


@explicit_recovery
@failing.handler()
async def recovers_explicitly(ctx: Context, req: Request) -> list[int]:
    """Every attempt issues its commands anew, behind those of the attempts before."""
    step = await ctx.run_typed("step", lambda: ledger.record(req["t"], "step"))
    called = await ctx.service_call(echo, {"t": req["t"], "value": step})
    ledger.fail_first(req["t"], "crash", 2)
    return [step, called]


@failing.handler(inactivity_timeout=ms(150), abort_timeout=ms(250))
async def hangs_once(ctx: Context, req: Request) -> str:
    """The first attempt never reacts: it is aborted and tried again."""
    await ctx.run_typed("before", lambda: ledger.record(req["t"], "before"))
    if ledger.record(req["t"], "attempt") == 1:
        await ledger.gate(req["t"], "never")
    return "done"


@failing.handler(inactivity_timeout=ms(150), abort_timeout=ms(1000))
async def lets_cancellation_escape(ctx: Context, req: Request) -> str:
    """Of an asyncio task of its own, once. The SDK ends without a word, and waits for the engine to hang up."""
    await ctx.run_typed("before", lambda: ledger.record(req["t"], "before"))
    if ledger.record(req["t"], "attempt") == 1:
        raise asyncio.CancelledError
    return "done"


@failing.handler(journal_retention=ms(0), idempotency_retention=ms(0))
async def forgotten(ctx: Context, req: Request) -> str:
    """Keeps no result."""
    ledger.record(req["t"], "forgotten")
    return "forgotten"


@failing.handler(invocation_retry_policy=policy(2, "kill"))
async def uses_state(ctx: Context, req: Request) -> str:
    """A plain service has no state."""
    ctx.set("a", 1)  # type: ignore[attr-defined]
    await ctx.sleep(ms(1))
    return "stored"


@failing.handler(invocation_retry_policy=policy(2, "kill"))
async def uses_promise(ctx: Context, req: Request) -> Any:
    """A plain service has no promises."""
    return await ctx.promise("a").peek()  # type: ignore[attr-defined]


# --- cancellation -----------------------------------------------------------------------------------------------


@failing.handler()
async def sleeps_until_cancelled(ctx: Context, req: Request) -> str:
    ledger.record(req["t"], "waiting")
    await ctx.sleep(ms(3_600_000))
    return "overslept"


@failing.handler()
async def cleans_up(ctx: Context, req: Request) -> str:
    """Catches its cancellation, compensates durably, and ends as it likes."""
    ledger.record(req["t"], "waiting")
    try:
        await ctx.sleep(ms(3_600_000))
    except TerminalError as error:
        await ctx.sleep(ms(10))
        await ctx.run_typed("undo", lambda: ledger.record(req["t"], "undo"))
        ledger.fail_first(req["t"], "crash")
        if req.get("swallow"):
            return f"cleaned up after {error.status_code} {error.message}"
        raise
    return "overslept"


@failing.handler()
async def cancelled_twice(ctx: Context, req: Request) -> list[str]:
    """Each cancel interrupts one wait."""
    seen: list[str] = []
    for index in range(2):
        ledger.record(req["t"], f"waiting {index}")
        try:
            await ctx.sleep(ms(3_600_000))
        except TerminalError as error:
            seen.append(f"{error.status_code} {error.message}")
    return seen


@failing.handler()
async def cancelled_while_busy(ctx: Context, req: Request) -> str:
    """The signal is kept until the next await of the SDK."""

    async def slow() -> str:
        ledger.record(req["t"], "busy")
        await ledger.gate(req["t"], "release")
        return "finished"

    ledger.record(req["t"], "attempt")
    try:
        outcome = await ctx.run_typed("slow", slow)
    except TerminalError as error:
        return f"interrupted {error.status_code}"
    try:
        await ctx.sleep(ms(3_600_000))
    except TerminalError as error:
        return f"{outcome}, then {error.status_code}"
    return "overslept"


@failing.handler()
async def calls_until_cancelled(ctx: Context, req: Request) -> str:
    """Cancelling the parent cancels the child it waits for."""
    future = ctx.service_call(sleeps_for_long, req)
    ledger.record(req["t"], f"child {await future.invocation_id()}")
    return await future


@failing.handler()
async def awaits_until_cancelled(ctx: Context, req: Request) -> Any:
    name, future = ctx.awakeable()
    ledger.record(req["t"], f"awakeable {name}")
    return await future


@failing.handler(invocation_retry_policy=policy(2, "pause"))
async def broken_until_cancelled(ctx: Context, req: Request) -> str:
    """Pauses; a cancel wakes it and reaches the sleep that the code now gets to."""
    if ledger.record(req["t"], "attempt") <= 2:
        raise ValueError("broken")
    try:
        await ctx.sleep(ms(3_600_000))
    except TerminalError as error:
        return f"{error.status_code} {error.message}"
    return "overslept"


# --- one at a time per key --------------------------------------------------------------------------------------


@locked.handler()
async def enter(ctx: ObjectContext, req: Request) -> str:
    """Holds the key's lock until the named gate opens."""
    t, name = id_from_key(ctx.key()), req["name"]
    ledger.record(t, f"enter {name}")
    if "gate" in req:
        await ledger.gate(t, req["gate"])
    if "sleep_ms" in req:
        await ctx.sleep(ms(req["sleep_ms"]))
    if "fail" in req:
        raise TerminalError(req["fail"])
    ledger.fail_first(t, f"crash {name}", req.get("crashes", 0))
    ledger.record(t, f"leave {name}")
    return name


@locked.handler(invocation_retry_policy=policy(2, "pause"))
async def breaks(ctx: ObjectContext, req: Request) -> str:
    """Pauses after two attempts and keeps the lock."""
    t = id_from_key(ctx.key())
    if ledger.record(t, "break") <= 2:
        raise ValueError("broken")
    return "repaired"


@locked.handler()
async def waits_for_signal(ctx: ObjectContext, req: Request) -> Any:
    ledger.record(id_from_key(ctx.key()), f"id {ctx.request().id}")
    return await ctx.signal("go")


@locked.handler(kind="shared")
async def glance(ctx: ObjectSharedContext, name: str) -> str:
    """All that have the same name wait for each other: only concurrent execution ends."""
    t = id_from_key(ctx.key())
    if ledger.record(t, f"glance {name}") == 3:
        ledger.open_gate(t, f"all glance {name}")
    await ledger.gate(t, f"all glance {name}")
    return name


# --- the request --------------------------------------------------------------------------------------------------


@failing.handler()
async def request(ctx: Context, body: Any) -> dict[str, Any]:
    seen = ctx.request()
    attempt_headers = seen.attempt_headers
    return {
        "body": seen.body.decode(),
        "parsed": body,
        "headers": {name: value for name, value in sorted(seen.headers.items()) if name.startswith("x-")},
        "content type": seen.headers.get("content-type"),
        "id is own": seen.id == attempt_headers.get("x-restate-invocation-id"),
        "id": seen.id,
        "protocol": attempt_headers["content-type"].rpartition(".")[0],
        "has host": "host" in seen.headers,
        "has idempotency key": "idempotency-key" in seen.headers,
        "finished": seen.attempt_finished_event.is_set(),
    }
