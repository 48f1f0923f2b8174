"""The application behind the tests of admin API and CLI: every kind of service, handlers that end in every way."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import restate
from restate.serde import BytesSerde

log = logging.getLogger("sample")

greeter = restate.Service("Greeter", description="Says hello", metadata={"team": "a"})


@greeter.handler()
async def greet(ctx: restate.Context, name: str) -> str:
    return f"Hello {name}"


@greeter.handler()
async def shape(ctx: restate.Context, numbers: list[int]) -> dict[str, int]:
    return {"count": len(numbers)}


@greeter.handler()
async def untyped(ctx: restate.Context, value):
    return value


@greeter.handler()
async def void(ctx: restate.Context) -> None:
    return None


@greeter.handler(
    accept="application/octet-stream",
    content_type="application/octet-stream",
    input_serde=BytesSerde(),
    output_serde=BytesSerde(),
)
async def blob(ctx: restate.Context, data: bytes) -> bytes:
    return data


@greeter.handler()
async def refuse(ctx: restate.Context, how: dict[str, Any]) -> None:
    raise restate.TerminalError(how["message"], status_code=how["code"])


@greeter.handler(
    invocation_retry_policy=restate.InvocationRetryPolicy(
        initial_interval=timedelta(hours=1), max_interval=timedelta(hours=1)
    )
)
async def stumble(ctx: restate.Context, why: str) -> None:
    """Its first attempt fails; the second is an hour away."""
    raise RuntimeError(why)


@greeter.handler()
async def steps(ctx: restate.Context, name: str) -> str:
    """A journal with a step, a timer that is due at once and a result."""

    def measure() -> int:
        log.info("measuring %s", name)
        return len(name)

    log.info("started with %s", name)
    length = await ctx.run_typed("measure", measure)
    await ctx.sleep(timedelta(milliseconds=1), name="breath")
    log.info("measured %s", length)
    return f"{name} has {length}"


_stumbled: set[str] = set()


@greeter.handler(invocation_retry_policy=restate.InvocationRetryPolicy(initial_interval=timedelta(milliseconds=1)))
async def flaky(ctx: restate.Context, name: str) -> str:
    """Its first attempt fails behind a step, so the second one replays that step."""
    log.info("begins with %s", name)
    await ctx.run_typed("prepare", lambda: log.info("prepares %s", name))
    log.info("prepared %s", name)
    if name not in _stumbled:
        _stumbled.add(name)
        raise RuntimeError(f"stumbled over {name}")
    log.warning("ends with %s", name, extra={"length": len(name)})
    return name


@greeter.handler()
async def header(ctx: restate.Context, name: str) -> str:
    return ctx.request().headers[name]


@greeter.handler()
async def wait(ctx: restate.Context, name: str) -> str:
    """Live for an hour unless somebody ends it."""
    await ctx.sleep(timedelta(hours=1), name=name)
    return name


@greeter.handler(
    inactivity_timeout=timedelta(minutes=90),
    abort_timeout=timedelta(seconds=90),
    journal_retention=timedelta(days=40),
    idempotency_retention=timedelta(milliseconds=1500),
    ingress_private=True,
    metadata={"k": "v"},
    invocation_retry_policy=restate.InvocationRetryPolicy(
        initial_interval=timedelta(milliseconds=250),
        exponentiation_factor=1.5,
        max_attempts=3,
        max_interval=timedelta(seconds=5),
        on_max_attempts="kill",
    ),
)
async def tuned(ctx: restate.Context, flag: bool) -> None:
    """Every setting of a handler."""


counter = restate.VirtualObject(
    "Counter",
    inactivity_timeout=timedelta(hours=26),
    abort_timeout=timedelta(0),
    journal_retention=timedelta(days=2),
    idempotency_retention=timedelta(days=7),
    invocation_retry_policy=restate.InvocationRetryPolicy(initial_interval=timedelta(seconds=1)),
)


@counter.handler()
async def add(ctx: restate.ObjectContext, amount: int) -> int:
    total = (await ctx.get("total", type_hint=int) or 0) + amount
    ctx.set("total", total)
    return total


@counter.handler()
async def hold(ctx: restate.ObjectContext) -> str:
    """Keeps the key's lock until somebody resolves its awakeable."""
    awakeable_id, value = ctx.awakeable(type_hint=str)
    ctx.set("awakeable", awakeable_id)
    return await value


@counter.handler(kind="shared")
async def peek(ctx: restate.ObjectSharedContext) -> int:
    return await ctx.get("total", type_hint=int) or 0


signup = restate.Workflow("Signup", idempotency_retention=timedelta(days=2))


@signup.main(workflow_retention=timedelta(days=3, hours=4, minutes=5, seconds=6, milliseconds=7))
async def run(ctx: restate.WorkflowContext, email: str) -> str:
    return f"{email} approved by {await ctx.promise('approved', type_hint=str).value()}"


@signup.handler()
async def approve(ctx: restate.WorkflowSharedContext, who: str) -> None:
    await ctx.promise("approved", type_hint=str).resolve(who)


app = restate.app([greeter, counter, signup])
