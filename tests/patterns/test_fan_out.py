"""Fan-out: bounded, patient with failures, and readable while it runs."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.patterns import Progress, batches, fan_out
from tests.patterns import world
from tests.patterns.conftest import Side, until


async def test_every_item_has_its_outcome_in_order(side: Side, key: str) -> None:
    answer = await side.call(f"/Campaign/{key}/run", {"targets": ["a", "bad-b", "c"], "concurrency": 2})
    assert [(one["index"], one["item"], one["status"], one["value"]) for one in answer] == [
        (0, "a", "succeeded", "A"),
        (1, "bad-b", "failed", None),
        (2, "c", "succeeded", "C"),
    ]
    assert (answer[1]["error"], answer[1]["error_code"]) == ("bad-b is no target", 400)
    assert sorted(world.effects[key]) == ["a", "bad-b", "c"]


async def test_no_items_are_no_work(side: Side, key: str) -> None:
    assert await side.call(f"/Campaign/{key}/run", {"targets": [], "concurrency": 2}) == []
    assert await side.call(f"/Campaign/{key}/progress") == Progress(0).as_dict()


async def test_as_many_as_allowed_run_at_a_time_and_progress_tells(side: Side, key: str) -> None:
    targets = ["a", "bad", *(f"gated-{number}" for number in range(7))]
    await side.send(f"/Campaign/{key}/run", {"targets": targets, "concurrency": 3})

    async def progress() -> dict[str, int] | None:
        return await side.call(f"/Campaign/{key}/progress")

    async def is_in_the_middle() -> bool:
        return world.running[key] == 3 and await progress() == {
            "total": 9,
            "succeeded": 1,
            "failed": 1,
            "running": 2,  # reported when the second had ended and its successor was about to start
            "done": 2,
        }

    await until(is_in_the_middle)
    world.gates[key] = True
    assert (await side.attach("Campaign", key)).status_code == 200
    assert await progress() == {"total": 9, "succeeded": 8, "failed": 1, "running": 0, "done": 9}
    assert world.running_max[key] == 3


async def test_too_many_failures_start_nothing_more(side: Side, key: str) -> None:
    request = {"targets": ["a", "bad-1", "bad-2", "b", "c"], "concurrency": 1, "failures_max": 2}
    answer = await side.call(f"/Campaign/{key}/run", request)
    assert [one["status"] for one in answer] == ["succeeded", "failed", "failed", "skipped", "skipped"]
    assert world.effects[key] == ["a", "bad-1", "bad-2"]


async def test_cancelled_between_items_it_starts_nothing_more(side: Side, key: str) -> None:
    targets = [f"gated-{number}" for number in range(6)]
    invocation_id = await side.send(f"/Campaign/{key}/run", {"targets": targets, "concurrency": 2})
    await until(lambda: world.running[key] == 2)
    await side.cancel(invocation_id)
    answer = await side.attach("Campaign", key)
    assert (answer.status_code, "cancelled" in answer.text) == (409, True)
    world.gates[key] = True
    await until(lambda: world.running[key] == 0)
    assert set(world.effects[key]) <= {"gated-0", "gated-1"}


async def test_cancelled_it_cancels_the_calls_that_run(side: Side, key: str) -> None:
    invocation_id = await side.send(f"/Campaign/{key}/run", {"targets": ["asleep"] * 3, "concurrency": 2})
    await until(lambda: len(world.effects[key]) == 2)
    await side.cancel(invocation_id)
    assert (await side.attach("Campaign", key)).status_code == 409

    async def nothing_is_left() -> bool:
        return not await side.unfinished("Scans")

    await until(nothing_is_left)


async def test_a_cancelled_item_is_a_failed_item(side: Side, key: str) -> None:
    await side.send(f"/Campaign/{key}/run", {"targets": ["asleep"], "concurrency": 1})
    await until(lambda: world.effects[key])
    [item] = await side.unfinished("Scans")
    await side.cancel(item)
    [outcome] = (await side.attach("Campaign", key)).json()
    assert (outcome["status"], outcome["error_code"]) == ("failed", 409)


async def test_batches_keep_each_journal_short(side: Side) -> None:
    words = [f"w{number}" for number in range(250)]
    assert await side.call("/Wide/upper_in_batches", {"words": words, "size": 100}) == [word.upper() for word in words]


def test_batches_are_cut_in_order() -> None:
    assert batches("abcde", 2) == [["a", "b"], ["c", "d"], ["e"]]
    assert batches([], 3) == []
    with pytest.raises(ValueError, match="at least 1"):
        batches([1], 0)


@pytest.mark.parametrize("limits", [{"concurrency": 0}, {"failures_max": 0}])
def test_a_limit_below_one_is_refused(limits: dict[str, int]) -> None:
    def start(_: str) -> None:
        pytest.fail("nothing may be started")

    with pytest.raises(ValueError, match="at least 1"):
        asyncio.run(fan_out(["a"], start, **limits))  # pyright: ignore[reportArgumentType]
