"""Cache: one computation while it lasts, none kept when it is over."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from restate import ObjectContext

from holdfast.patterns import Cache
from tests.patterns import world
from tests.patterns.conftest import Side, until


async def test_many_callers_are_one_computation(side: Side, key: str) -> None:
    answers = await asyncio.gather(*(side.call(f"/Lasting/{key}/get") for _ in range(5)))
    assert answers == [{"answer": 1}] * 5
    assert world.effects[key] == ["asked"]


async def test_peek_computes_nothing(side: Side, key: str) -> None:
    assert await side.call(f"/Lasting/{key}/peek") is None
    await side.call(f"/Lasting/{key}/get")
    entry = await side.call(f"/Lasting/{key}/peek")
    assert entry["value"] == {"answer": 1}
    assert entry["expires_at_ms"] - entry["computed_at_ms"] == 3_600_000
    assert world.effects[key] == ["asked"]


async def test_invalidated_it_is_computed_again(side: Side, key: str) -> None:
    await side.call(f"/Lasting/{key}/get")
    await side.call(f"/Lasting/{key}/invalidate")
    assert await side.call(f"/Lasting/{key}/get") == {"answer": 2}


async def test_expired_it_is_removed_and_computed_again(side: Side, key: str) -> None:
    await side.call(f"/Brief/{key}/get")

    async def is_removed() -> bool:
        return await side.call(f"/Brief/{key}/peek") is None

    await until(is_removed)
    assert await side.call(f"/Brief/{key}/get") == {"answer": 2}


async def test_errors_are_not_kept(side: Side, key: str) -> None:
    bad = f"{key}-bad"
    assert "no answer" in await side.call(f"/Lasting/{bad}/get", status=503)
    assert await side.call(f"/Lasting/{bad}/get") == {"answer": 2}


def test_no_time_to_live_is_refused() -> None:
    async def compute(ctx: ObjectContext, key: str) -> None:
        pytest.fail(f"{ctx} {key}")

    with pytest.raises(ValueError, match="millisecond"):
        Cache("Never", compute, ttl=timedelta(0))
