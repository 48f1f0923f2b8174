"""Payments at a provider that knows idempotency keys, over a line that breaks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from restate import Context, RunOptions, Service

from holdfast.patterns import idempotency_key, raise_for_status
from tests.patterns import world

payments = Service("Payments")
QUICK = RunOptions[Any](max_attempts=3, initial_retry_interval=timedelta(milliseconds=1))
calls: dict[str, list[str]] = {}
"""Test's key -> the idempotency key of each request that reached the provider."""


async def charge(idempotency: str, key: str, answers: list[int]) -> str:
    seen = calls.setdefault(key, [])
    seen.append(idempotency)
    status = answers[len(seen) - 1] if len(seen) <= len(answers) else 200
    if status in (0, 200) and idempotency not in world.effects[key]:
        world.effects[key].append(idempotency)  # money moves
    if status == 0:
        raise ConnectionError("the answer is lost")
    raise_for_status(status, f"provider: {status}", retry_after_s=0.001 if status == 429 else None)
    return "paid"


@payments.handler()
async def pay(ctx: Context, request: dict[str, Any]) -> str:
    identity = request["order"] if request.get("order") else ctx.uuid()
    key = idempotency_key("charge", identity)
    return await ctx.run_typed("charge", charge, QUICK, key, request["key"], request["answers"])


SERVICES = (payments,)
