"""Rates and permits: bounded, in turn, and never lost."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest

from holdfast.patterns import RateLimiter, Semaphore
from tests.patterns import world
from tests.patterns.conftest import Side, until

HOUR_MS = 3_600_000


async def test_after_the_burst_turns_come_at_the_rate(side: Side, key: str) -> None:
    delays_ms = [await side.call(f"/SlowRate/{key}/reserve") for _ in range(4)]
    assert delays_ms[:2] == [0, 0]
    assert delays_ms[2] == pytest.approx(HOUR_MS, abs=30_000)
    assert delays_ms[3] == pytest.approx(2 * HOUR_MS, abs=30_000)


async def test_a_turn_too_far_away_is_refused_and_costs_nothing(side: Side, key: str) -> None:
    for _ in range(4):
        await side.call(f"/SlowRate/{key}/reserve")
    for _ in range(2):
        text = await side.call(f"/SlowRate/{key}/reserve", status=429)
        assert "the next turn is in" in text
    assert await side.call(f"/SlowRate/{key}/take") == pytest.approx(3 * HOUR_MS, abs=30_000)


async def test_take_never_waits_and_takes_only_what_is_due(side: Side, key: str) -> None:
    waits_ms = [await side.call(f"/SlowRate/{key}/take") for _ in range(4)]
    assert waits_ms[:2] == [0, 0]
    assert waits_ms[2:] == [pytest.approx(HOUR_MS, abs=30_000)] * 2


async def test_keys_have_rates_of_their_own(side: Side, key: str) -> None:
    for one in (f"{key}-a", f"{key}-b"):
        assert [await side.call(f"/SlowRate/{one}/take") for _ in range(2)] == [0, 0]


async def test_waiting_callers_are_paced(side: Side, key: str) -> None:
    began = time.time()
    both = await asyncio.gather(*(side.call("/Limited/paced", {"key": key, "turns": 3}) for _ in range(2)))
    last = max(turn for turns in both for turn in turns)
    assert last - began >= 0.24  # six turns, 50 ms apart, less a millisecond's rounding each


async def test_as_many_as_permitted_work_at_a_time_in_the_order_they_came(side: Side, key: str) -> None:
    for number in range(4):
        await side.send("/Limited/slot", {"key": key, "name": f"w{number}"})
        await until_status(side, f"/Slots/{key}", held=min(number + 1, 2), waiting=max(number - 1, 0))
    await until(lambda: world.running[key] == 2)
    world.gates[key] = True
    await until_status(side, f"/Slots/{key}", held=0, waiting=0)
    await until(lambda: len(world.effects[key]) == 4)
    assert set(world.effects[key][:2]) == {"w0", "w1"}
    assert world.running_max[key] == 2


async def until_status(side: Side, path: str, **expected: int) -> None:
    async def is_so() -> Any:
        return await side.call(f"{path}/status") == expected

    await until(is_so)


async def test_a_full_queue_refuses(side: Side, key: str) -> None:
    for number in range(4):
        await side.send("/Limited/slot", {"key": key, "name": f"w{number}"})
    await until_status(side, f"/Slots/{key}", held=2, waiting=2)
    assert "2 are waiting already" in await side.call("/Limited/slot", {"key": key, "name": "w"}, status=429)
    await until_status(side, f"/Slots/{key}", held=2, waiting=2)


async def test_failed_and_cancelled_holders_and_waiters_leave(side: Side, key: str) -> None:
    for _ in range(2):
        await side.send("/Limited/slot", {"key": key, "name": "bad"})
    await until_status(side, f"/Slots/{key}", held=2, waiting=0)
    waiter = await side.send("/Limited/slot", {"key": key, "name": "waiter"})
    await until_status(side, f"/Slots/{key}", held=2, waiting=1)
    await side.cancel(waiter)
    await until_status(side, f"/Slots/{key}", held=2, waiting=0)
    world.gates[key] = True
    await until_status(side, f"/Slots/{key}", held=0, waiting=0)
    assert world.effects[key] == ["bad", "bad"]


async def test_a_lease_ends_by_itself_and_an_ended_one_leaves_no_timer(side: Side, key: str) -> None:
    for _ in range(2):
        await side.send("/Limited/forget", key)
    await until(lambda: world.running[key] == 2)  # one permit, but the first lease has ended
    world.gates[key] = True
    await until_status(side, f"/Leases/{key}", held=0, waiting=0)


async def test_given_back_a_permit_leaves_nothing_scheduled(side: Side, key: str) -> None:
    world.gates[key] = True
    await side.call("/Limited/slot", {"key": key, "name": "w"})

    async def nothing_is_left() -> bool:
        return not await side.unfinished("Slots")

    await until(nothing_is_left)


@pytest.mark.parametrize(("limit", "burst", "per_s"), [(0, None, 1), (1, 0, 1), (1, None, 0)])
def test_a_rate_of_nothing_is_refused(limit: int, burst: int | None, per_s: int) -> None:
    with pytest.raises(ValueError, match="positive"):
        RateLimiter(limit=limit, burst=burst, per=timedelta(seconds=per_s))


def test_no_permits_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Semaphore(permits=0)
