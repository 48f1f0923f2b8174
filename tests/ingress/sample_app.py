"""The application behind the ingress behaviour table: one handler for every kind of answer."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import restate
from restate.serde import BytesSerde

plain = restate.Service("S")


@plain.handler()
async def echo(ctx: restate.Context, text: str) -> str:
    return text


@plain.handler()
async def untyped(ctx: restate.Context, value):
    return value


@plain.handler()
async def void(ctx: restate.Context) -> None:
    return None


@plain.handler(
    accept="application/octet-stream",
    content_type="application/octet-stream",
    input_serde=BytesSerde(),
    output_serde=BytesSerde(),
)
async def raw(ctx: restate.Context, data: bytes) -> bytes:
    return data


@plain.handler()
async def headers(ctx: restate.Context) -> list[list[str]]:
    # As the journal holds them: `ctx.request().headers` is a dict and hides repeated names.
    return [[str(name), str(value)] for name, value in ctx.invocation.headers]  # type: ignore[attr-defined]


@plain.handler(accept="*/*", content_type="text/plain", input_serde=BytesSerde(), output_serde=BytesSerde())
async def anything(ctx: restate.Context, data: bytes) -> bytes:
    return data


@plain.handler(accept="text/*", content_type="text/plain", input_serde=BytesSerde(), output_serde=BytesSerde())
async def text(ctx: restate.Context, data: bytes) -> bytes:
    return data


@plain.handler()
async def fail(ctx: restate.Context, how: dict[str, Any]) -> str:
    raise restate.TerminalError(how["message"], status_code=how["code"], metadata=how.get("metadata"))


@plain.handler()
async def wait(ctx: restate.Context, text: str) -> str:
    """Stays live for an hour unless cancelled or killed."""
    await ctx.sleep(timedelta(hours=1))
    return text


@plain.handler()
async def gate(ctx: restate.Context, name: str) -> str:
    """Announces an awakeable under `name` (see `Holder.announced`) and returns what it is resolved with."""
    awakeable_id, value = ctx.awakeable()
    ctx.object_send(announce, key=name, arg=awakeable_id)
    return await value


@plain.handler(journal_retention=timedelta(0))
async def unlogged(ctx: restate.Context, text: str) -> str:
    return text


@plain.handler(idempotency_retention=timedelta(0))
async def forgotten(ctx: restate.Context, text: str) -> str:
    return text


@plain.handler(ingress_private=True)
async def inner(ctx: restate.Context, text: str) -> str:
    return text


private = restate.Service("P", ingress_private=True)


@private.handler()
async def hidden(ctx: restate.Context, text: str) -> str:
    return text


counter = restate.VirtualObject("O")


@counter.handler()
async def add(ctx: restate.ObjectContext, amount: int) -> int:
    total = (await ctx.get("total", type_hint=int) or 0) + amount
    ctx.set("total", total)
    return total


@counter.handler("key")
async def own_key(ctx: restate.ObjectContext) -> str:
    return ctx.key()


@counter.handler(kind="shared")
async def total(ctx: restate.ObjectSharedContext) -> int:
    return await ctx.get("total", type_hint=int) or 0


holder = restate.VirtualObject("Holder")


@holder.handler()
async def announce(ctx: restate.ObjectContext, value: str) -> None:
    ctx.set("value", value)


@holder.handler(kind="shared")
async def announced(ctx: restate.ObjectSharedContext) -> str | None:
    return await ctx.get("value", type_hint=str)


flow = restate.Workflow("W")


@flow.main()
async def run(ctx: restate.WorkflowContext, text: str) -> str:
    if text == "wait":
        return await ctx.promise("go", type_hint=str).value()
    return text


@flow.handler()
async def go(ctx: restate.WorkflowSharedContext, text: str) -> None:
    await ctx.promise("go", type_hint=str).resolve(text)


def make_app() -> Any:
    """A fresh application object over the same services."""
    return restate.app([plain, private, counter, holder, flow])


app = make_app()
