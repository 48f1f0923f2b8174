"""Virtual time: waiting costs nothing, nothing else is different."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import restate
from restate import Context, Service

from holdfast import Engine
from holdfast.testing import START, NothingHappens, run_virtually

DAY_S = 86_400


def sleeper() -> tuple[Service, Any]:
    service = Service("Sleeper")

    @service.handler()
    async def sleep(ctx: Context, days: int) -> list[float]:
        begin_s = await ctx.time()
        seen_s = await ctx.run_typed("look at the clock", time.time)  # sync: the SDK gives it to a thread
        await ctx.sleep(timedelta(days=days))
        return [begin_s, seen_s, await ctx.time()]

    return service, sleep


@pytest.mark.parametrize("where", ["memory", "file"])
def test_a_sleep_of_three_days_is_over_at_once(where: str, tmp_path: Path) -> None:
    service, sleep = sleeper()

    async def main() -> list[float]:
        async with Engine(restate.app([service]), db=":memory:" if where == "memory" else tmp_path / "e.db") as engine:
            return await engine.client.service_call(sleep, arg=3)

    real_s = time.monotonic()
    begin_s, seen_s, end_s = run_virtually(main)
    assert time.monotonic() - real_s < 30, "three days of real time it was not"
    assert begin_s == pytest.approx(START.timestamp(), abs=1)
    assert seen_s == pytest.approx(begin_s, abs=1)
    assert end_s - begin_s == pytest.approx(3 * DAY_S, abs=2)


def test_the_clock_starts_where_it_is_told_and_is_put_back() -> None:
    start = datetime(2051, 3, 4, 5, 6, 7, tzinfo=UTC)

    async def main() -> float:
        await asyncio.sleep(60)
        return time.time()

    assert run_virtually(main, start=start) == start.timestamp() + 60
    assert time.time() < start.timestamp()


def test_the_order_of_waits_is_that_of_time() -> None:
    async def main() -> list[int]:
        order: list[int] = []

        async def after(delay_s: int) -> None:
            await asyncio.sleep(delay_s)
            order.append(delay_s)

        await asyncio.gather(*(after(delay_s) for delay_s in (3_000, 1, 50)))
        return order

    assert run_virtually(main) == [1, 50, 3_000]


def test_what_would_hang_is_an_error() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(NothingHappens, match="next:"):
        run_virtually(main)


def test_an_error_and_what_it_returns_come_through() -> None:
    async def fails() -> None:
        raise LookupError("as it was")

    with pytest.raises(LookupError, match="as it was"):
        run_virtually(fails)


def test_a_start_without_a_time_zone_is_refused() -> None:
    async def main() -> None:
        pytest.fail("never runs")

    with pytest.raises(ValueError, match="time zone"):
        run_virtually(main, start=datetime(2040, 1, 1))  # noqa: DTZ001 that is the point
    with pytest.raises(ValueError, match="at least a day from now"):
        run_virtually(main, start=datetime(2026, 1, 1, tzinfo=UTC))


def test_a_delayed_send_comes_when_it_is_due() -> None:
    service = Service("Later")
    came: list[float] = []

    @service.handler()
    async def come(ctx: Context) -> None:
        came.append(await ctx.time())

    @service.handler()
    async def plan(ctx: Context) -> None:
        ctx.service_send(come, arg=None, send_delay=timedelta(hours=7))

    async def main() -> None:
        async with Engine(restate.app([service])) as engine:
            await engine.client.service_call(plan, arg=None)
            await asyncio.sleep(7 * 3600 - 1)
            assert came == []
            await asyncio.sleep(2)

    run_virtually(main)
    assert came == [pytest.approx(START.timestamp() + 7 * 3600, abs=1)]
