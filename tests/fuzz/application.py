"""Services of every kind whose handlers come to an end whatever they are given: a call that hangs is the engine's fault."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

import restate
from pydantic import BaseModel, Field
from restate.serde import BytesSerde


class Order(BaseModel):
    """Something with a schema that has a little of everything."""

    article: str = Field(min_length=1, max_length=20)
    count: int = Field(ge=1, le=99)
    price: float | None = None
    size: Literal["small", "large"] = "small"
    notes: list[str] = Field(default_factory=list[str], max_length=3)


def given(order: Order | None) -> Order:
    """The SDK makes None of an empty body, whatever the type says."""
    if order is None:
        raise restate.TerminalError("an order is needed", status_code=400)
    return order


shop = restate.Service("Shop")


@shop.handler()
async def order(ctx: restate.Context, wanted: Order) -> Order:
    given(wanted)
    await ctx.sleep(timedelta(milliseconds=1))
    return given(wanted)


@shop.handler()
async def count(ctx: restate.Context, wanted: Order) -> int:
    return await ctx.run_typed("count", lambda: given(wanted).count)


@shop.handler()
async def anything(ctx: restate.Context, value):
    return value


@shop.handler()
async def nothing(ctx: restate.Context) -> None:
    return None


@shop.handler(
    accept="application/octet-stream",
    content_type="application/octet-stream",
    input_serde=BytesSerde(),
    output_serde=BytesSerde(),
)
async def raw(ctx: restate.Context, content: bytes) -> bytes:
    return content


@shop.handler()
async def refuse(ctx: restate.Context, wanted: Order) -> None:
    raise restate.TerminalError("no", status_code=400 + given(wanted).count)


cart = restate.VirtualObject("Cart")


@cart.handler()
async def put(ctx: restate.ObjectContext, wanted: Order) -> int:
    articles = [*(await ctx.get("articles", type_hint=list) or []), given(wanted).article]
    ctx.set("articles", articles[-5:])
    return len(articles)


@cart.handler(kind="shared")
async def look(ctx: restate.ObjectSharedContext) -> list[Any]:
    return await ctx.get("articles", type_hint=list) or []


delivery = restate.Workflow("Delivery")


@delivery.main()
async def run(ctx: restate.WorkflowContext, address: str) -> str:
    ctx.set("address", str(address or ""))
    return str(address or "")


@delivery.handler()
async def where(ctx: restate.WorkflowSharedContext) -> str:
    return await ctx.get("address", type_hint=str) or ""


app = restate.app([shop, cart, delivery])
