"""Ticker: goes on whatever happens, and leaves nothing behind when it is stopped."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from restate import ObjectContext

from holdfast.patterns import Ticker
from tests.patterns import world
from tests.patterns.conftest import Side, until


async def test_it_ticks_until_it_is_stopped(side: Side, key: str) -> None:
    await side.call(f"/QuickTicks/{key}/start")
    await until(lambda: len(world.effects[key]) >= 4)
    await side.call(f"/QuickTicks/{key}/stop")
    status = await side.call(f"/QuickTicks/{key}/get")
    assert (status["is_running"], status["next_at_ms"]) == (False, 0)
    assert status["ticks"] >= 4

    async def nothing_is_left() -> bool:
        return not await side.unfinished("QuickTicks")

    await until(nothing_is_left)
    assert len(world.effects[key]) >= status["ticks"]
    assert (await side.call(f"/QuickTicks/{key}/get"))["ticks"] == status["ticks"]


async def test_a_failing_tick_does_not_stop_it(side: Side, key: str) -> None:
    bad = f"{key}-bad"
    await side.call(f"/QuickTicks/{bad}/start")
    await until(lambda: len(world.effects[bad]) >= 3)
    await side.call(f"/QuickTicks/{bad}/stop")
    assert (await side.call(f"/QuickTicks/{bad}/get"))["last_error"] == "this tick failed"


async def test_between_ticks_the_key_is_free_and_the_next_one_is_known(side: Side, key: str) -> None:
    await side.call(f"/SlowTicks/{key}/start")

    async def has_ticked() -> bool:
        return (await side.call(f"/SlowTicks/{key}/get"))["ticks"] == 1

    await until(has_ticked)
    status = await side.call(f"/SlowTicks/{key}/get")
    assert status["next_at_ms"] == pytest.approx((time.time() + 3600) * 1000, abs=60_000)
    # Started again it goes on as it was: no second tick, no second timer.
    await side.call(f"/SlowTicks/{key}/start")
    assert await side.call(f"/SlowTicks/{key}/get") == status
    await side.call(f"/SlowTicks/{key}/stop")


async def test_stopped_and_started_again_it_ticks_at_once(side: Side, key: str) -> None:
    for count in (1, 2):
        await side.call(f"/SlowTicks/{key}/start")
        await until(lambda count=count: len(world.effects[key]) >= count)
        await side.call(f"/SlowTicks/{key}/stop")
    assert (await side.call(f"/SlowTicks/{key}/get"))["ticks"] == 2


def test_no_interval_is_refused() -> None:
    async def tick(ctx: ObjectContext) -> None:
        pytest.fail(ctx.key())

    with pytest.raises(ValueError, match="millisecond"):
        Ticker("Never", tick, every=timedelta(0))
