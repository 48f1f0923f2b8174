"""Schedules: fire when they should, once each, whatever else happens."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from holdfast import Engine
from holdfast.patterns.cron import Cron, InvalidSchedule
from holdfast.patterns.schedules import CATCH_UP_MAX, LATE_MS, _Spec, plan_firings
from holdfast.testing import run_virtually
from tests.patterns import world
from tests.patterns.conftest import Side, until
from tests.patterns.program import application

EVERY_SECOND = "* * * * * *"
NEVER_SOON = "0 0 29 2 *"  # the next leap day


def ms(text: str) -> int:
    """Of local time with its offset."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


# --- when


@pytest.mark.parametrize(
    ("expression", "zone", "after", "expected"),
    [
        ("30 2 * * *", "UTC", "2026-01-01T02:30:00+00:00", "2026-01-02T02:30:00+00:00"),
        ("@daily", "Europe/Brussels", "2026-06-01T12:00:00+02:00", "2026-06-02T00:00:00+02:00"),
        ("0 9 * * MON-FRI", "UTC", "2026-11-20T10:00:00+00:00", "2026-11-23T09:00:00+00:00"),
        # The hour from 2 to 3 does not exist that night: fired right after it.
        ("30 2 * * *", "Europe/Brussels", "2026-03-28T12:00:00+01:00", "2026-03-29T03:00:00+02:00"),
        # It exists twice: fired the first time only.
        ("30 2 * * *", "Europe/Brussels", "2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"),
        # Every quarter of an hour goes on in both.
        ("*/15 * * * *", "Europe/Brussels", "2026-10-25T02:45:00+02:00", "2026-10-25T02:00:00+01:00"),
        ("0 0 29 2 *", "UTC", "2026-01-01T00:00:00+00:00", "2028-02-29T00:00:00+00:00"),
        ("*/10 * * * * *", "UTC", "2026-01-01T00:00:01+00:00", "2026-01-01T00:00:10+00:00"),
        ("0 0 L * *", "UTC", "2026-02-01T00:00:00+00:00", "2026-02-28T00:00:00+00:00"),
    ],
)
def test_the_next_time(expression: str, zone: str, after: str, expected: str) -> None:
    due_ms = Cron(expression, zone).next_ms(ms(after))
    assert due_ms is not None
    assert datetime.fromtimestamp(due_ms / 1000, UTC) == datetime.fromisoformat(expected)


def test_one_that_is_due_this_very_millisecond_is_not_its_own_next() -> None:
    cron = Cron("* * * * *")
    at_ms = ms("2026-01-01T00:01:00+00:00")
    assert cron.next_ms(at_ms) == at_ms + 60_000
    assert cron.next_ms(at_ms - 1) == at_ms


@pytest.mark.parametrize(
    "expression", ["", "* * * *", "61 * * * *", "0 0 31 2 *", "every day", "@never", "* * * * MOO"]
)
def test_an_expression_that_is_none(expression: str) -> None:
    with pytest.raises(InvalidSchedule, match="cron expression"):
        Cron(expression)


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "../etc/passwd", "/etc/localtime", "europe/brussels\0"])
def test_a_time_zone_that_is_none(zone: str) -> None:
    with pytest.raises(InvalidSchedule, match="time zone"):
        Cron("@daily", zone)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Brussels", "America/New_York"])
def test_at_the_end_of_the_calendar_there_are_no_more_times(zone: str) -> None:
    assert Cron("30 2 * * *", zone).between(ms("9999-12-31T12:00:00Z"), ms("9999-12-31T23:59:59Z"), 10) == []


def spec(**given: Any) -> _Spec:
    return _Spec.of({"cron": "* * * * *", **given})


MINUTE_MS = 60_000
NOON_MS = ms("2026-01-01T12:00:00+00:00")


@pytest.mark.parametrize(
    ("catch_up", "late_ms", "times", "skipped"),
    [
        ("latest", 30, [0], 0),
        ("none", 30, [0], 0),
        ("all", 30, [0], 0),
        ("latest", 10 * MINUTE_MS + 5, [10], 10),
        ("all", 3 * MINUTE_MS + 5, [0, 1, 2, 3], 0),
        ("all", (CATCH_UP_MAX + 500) * MINUTE_MS, range(CATCH_UP_MAX), 1),
        ("none", 10 * MINUTE_MS + 5, [10], 10),
    ],
)
def test_what_was_missed(catch_up: str, late_ms: int, times: Any, skipped: int) -> None:
    plan = plan_firings(spec(catch_up=catch_up), NOON_MS, NOON_MS + late_ms)
    assert plan["times"] == [NOON_MS + minute * MINUTE_MS for minute in times]
    assert plan["skipped"] == skipped
    next_minute = late_ms // MINUTE_MS + 1
    assert plan["next_at_ms"] == NOON_MS + next_minute * MINUTE_MS


def test_none_of_what_was_missed() -> None:
    hourly = spec(cron="@hourly", catch_up="none")
    assert plan_firings(hourly, NOON_MS, NOON_MS + LATE_MS)["times"] == [NOON_MS], "merely late"
    plan = plan_firings(hourly, NOON_MS, NOON_MS + LATE_MS + 1)
    assert (plan["times"], plan["skipped"], plan["next_at_ms"]) == ([], 1, NOON_MS + 60 * MINUTE_MS)


# --- that


async def test_it_fires_each_time_once(side: Side, key: str) -> None:
    await side.call(f"/Reports/{key}/put", {"cron": EVERY_SECOND, "payload": {"for": "Ada"}})
    await until(lambda: len(world.effects[key]) >= 2)
    await side.call(f"/Reports/{key}/remove")
    times = [int(effect.split()[0]) for effect in world.effects[key]]
    assert times == sorted(set(times))
    assert all(at_ms % 1000 == 0 for at_ms in times)
    assert world.effects[key][0].endswith("{'for': 'Ada'}")
    assert "there is no schedule" in await side.call(f"/Reports/{key}/get", status=404)


async def test_its_status(side: Side, key: str) -> None:
    bad = f"{key}-bad"
    await side.call(f"/Reports/{bad}/put", {"cron": NEVER_SOON, "time_zone": "Europe/Brussels"})
    await side.call(f"/Reports/{bad}/fire")

    async def has_failed() -> bool:
        return (await side.call(f"/Reports/{bad}/get"))["failed"] == 1

    await until(has_failed)
    status = await side.call(f"/Reports/{bad}/get")
    assert status == {
        "cron": NEVER_SOON,
        "time_zone": "Europe/Brussels",
        "overlap": "skip",
        "catch_up": "latest",
        "payload": None,
        "is_paused": False,
        "next_at_ms": Cron(NEVER_SOON, "Europe/Brussels").next_ms(time.time_ns() // 1_000_000),
        "running": [],
        "queued": [],
        "fired": 1,
        "skipped": 0,
        "succeeded": 0,
        "failed": 1,
        "last_error": "no paper",
    }


async def test_paused_it_does_not_fire_until_it_is_resumed(side: Side, key: str) -> None:
    await side.call(f"/Reports/{key}/put", {"cron": EVERY_SECOND, "catch_up": "all"})
    await side.call(f"/Reports/{key}/pause")
    before = len(world.effects[key])
    due_ms = (await side.call(f"/Reports/{key}/get"))["next_at_ms"]
    await until(lambda: time.time_ns() // 1_000_000 > due_ms + 1_100)
    assert len(world.effects[key]) == before
    await side.call(f"/Reports/{key}/resume")
    await until(lambda: len(world.effects[key]) >= before + 2)
    times = [int(effect.split()[0]) for effect in world.effects[key]]
    assert due_ms in times, "what was missed is made up for"
    await side.call(f"/Reports/{key}/remove")


async def test_one_that_runs_still(side: Side, key: str) -> None:
    """Fired by hand it waits; by the clock it is skipped, queued, cancelled or runs beside, as was said."""
    slow = f"{key}-slow"
    await side.call(f"/Reports/{slow}/put", {"cron": NEVER_SOON, "overlap": "queue"})
    for _ in range(3):
        await side.call(f"/Reports/{slow}/fire")
    await until(lambda: len(world.effects[slow]) == 1)
    status = await side.call(f"/Reports/{slow}/get")
    assert (len(status["running"]), len(status["queued"])) == (1, 2)
    world.gates[slow] = True
    await until(lambda: len(world.effects[slow]) == 3)
    assert world.running_max[slow] == 1


async def test_several_at_a_time_where_that_is_wanted(side: Side, key: str) -> None:
    slow = f"{key}-slow"
    await side.call(f"/Reports/{slow}/put", {"cron": NEVER_SOON, "overlap": "allow"})
    for _ in range(3):
        await side.call(f"/Reports/{slow}/fire")
    await until(lambda: world.running[slow] == 3)
    world.gates[slow] = True
    await succeeded(side, slow, 3)


async def test_the_newest_takes_the_place_of_the_one_that_runs(side: Side, key: str) -> None:
    slow = f"{key}-slow"
    await side.call(f"/Reports/{slow}/put", {"cron": NEVER_SOON, "overlap": "cancel"})
    await side.call(f"/Reports/{slow}/fire")
    await until(lambda: len(world.effects[slow]) == 1)
    await side.call(f"/Reports/{slow}/fire")
    await until(lambda: len(world.effects[slow]) == 2)
    world.gates[slow] = True
    await succeeded(side, slow, 1)

    async def first_has_ended() -> bool:
        return (await side.call(f"/Reports/{slow}/get"))["failed"] == 1

    await until(first_has_ended)


async def succeeded(side: Side, key: str, count: int) -> None:
    async def have() -> bool:
        return (await side.call(f"/Reports/{key}/get"))["succeeded"] == count

    await until(have)


async def test_a_span_is_back_filled_in_order(side: Side, key: str) -> None:
    await side.call(f"/Reports/{key}/put", {"cron": "@daily", "payload": "old"})
    span = {"after_ms": ms("2025-12-31T12:00:00+00:00"), "until_ms": ms("2026-01-03T00:00:00+00:00")}
    assert await side.call(f"/Reports/{key}/backfill", span) == 3
    await until(lambda: len(world.effects[key]) == 3)
    days = [ms(f"2026-01-0{day}T00:00:00+00:00") for day in (1, 2, 3)]
    assert world.effects[key] == [f"{day} old" for day in days]
    await side.call(f"/Reports/{key}/remove")


async def test_what_was_killed_is_forgotten_by_release(side: Side, key: str) -> None:
    slow = f"{key}-slow"
    await side.call(f"/Reports/{slow}/put", {"cron": NEVER_SOON})
    await side.call(f"/Reports/{slow}/fire")
    await side.call(f"/Reports/{slow}/fire")
    await side.call(f"/Reports/{slow}/release")
    await until(lambda: len(world.effects[slow]) == 2)
    assert len((await side.call(f"/Reports/{slow}/get"))["running"]) == 1
    world.gates[slow] = True  # or the engine would give it ten seconds when it stops


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "cron is text"),
        ("@daily", "an object"),
        ({"cron": "often"}, "cron expression"),
        ({"cron": "@daily", "time_zone": "Mars"}, "time zone"),
        ({"cron": "@daily", "overlap": "maybe"}, "overlap is"),
        ({"cron": "@daily", "catch_up": 3}, "catch_up is"),
        ({"cron": "@daily", "when": "now"}, "unknown field when"),
    ],
)
async def test_what_is_refused(side: Side, key: str, given: Any, message: str) -> None:
    assert message in await side.call(f"/Reports/{key}/put", given, status=400)
    assert "there is no schedule" in await side.call(f"/Reports/{key}/get", status=404)


@pytest.mark.parametrize("span", [{}, {"after_ms": 5, "until_ms": 5}, {"after_ms": 0, "until_ms": True}, [1, 2]])
async def test_a_span_that_is_none(side: Side, key: str, span: Any) -> None:
    await side.call(f"/Reports/{key}/put", {"cron": "@daily"})
    assert "milliseconds" in await side.call(f"/Reports/{key}/backfill", span, status=400)
    await side.call(f"/Reports/{key}/remove")


async def test_a_span_with_too_many(side: Side, key: str) -> None:
    await side.call(f"/Reports/{key}/put", {"cron": "* * * * *"})
    span = {"after_ms": 0, "until_ms": (CATCH_UP_MAX + 1) * MINUTE_MS}
    assert "shorter span" in await side.call(f"/Reports/{key}/backfill", span, status=400)
    assert world.effects[key] == []
    await side.call(f"/Reports/{key}/remove")


# --- over days, in virtual time


def test_the_night_in_which_the_clock_changes(tmp_path: Path) -> None:
    async def main() -> list[str]:
        async with Engine(application(), db=tmp_path / "engine.db") as engine:
            client = engine.client
            put = schedules().put
            await client.object_call(put, key="dst", arg={"cron": "30 2 * * *", "time_zone": "Europe/Brussels"})
            await asyncio.sleep(3 * 86_400)
            return world.effects.pop("dst")

    effects = run_virtually(main, start=datetime(2041, 3, 29, 12, tzinfo=UTC))
    assert [int(effect.split()[0]) for effect in effects] == [
        ms("2041-03-30T02:30:00+01:00"),
        ms("2041-03-31T03:00:00+02:00"),
        ms("2041-04-01T02:30:00+02:00"),
    ]


@pytest.mark.parametrize(("catch_up", "days"), [("all", [2, 3, 4]), ("latest", [4]), ("none", [])])
def test_days_without_an_engine(catch_up: str, days: list[int], tmp_path: Path) -> None:
    async def main() -> list[str]:
        async with Engine(application(), db=tmp_path / "engine.db") as engine:
            await engine.client.object_call(schedules().put, key="away", arg={"cron": "@daily", "catch_up": catch_up})
        await asyncio.sleep(3.25 * 86_400)
        async with Engine(application(), db=tmp_path / "engine.db"):
            await asyncio.sleep(60)
        return world.effects.pop("away", [])

    effects = run_virtually(main, start=datetime(2041, 1, 1, 12, tzinfo=UTC))
    expected = [ms(f"2041-01-0{day}T00:00:00+00:00") for day in days]
    # One that waits for the one before it comes when that is done.
    assert [int(effect.split()[0]) for effect in effects] == expected[: 1 if catch_up == "all" else None]


def schedules() -> Any:
    from tests.patterns.schedules_program import schedules

    return schedules
