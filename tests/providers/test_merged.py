"""Lookups that come while a query runs share the next one."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.providers.merged import KEYS_MAX, Merged


class Store:
    """Answers when it is told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.may_answer = asyncio.Event()
        self.failure: Exception | None = None

    async def ask(self, keys: list[str]) -> dict[str, int]:
        self.asked.append(keys)
        await self.may_answer.wait()
        if self.failure is not None:
            raise self.failure
        return {key: len(key) for key in keys if not key.startswith("-")}


async def test_a_single_lookup_is_a_query_of_its_own() -> None:
    store = Store()
    store.may_answer.set()
    merged = Merged(store.ask)
    assert await merged.get(["a", "bb", "-"]) == {"a": 1, "bb": 2}
    assert await merged.get([]) == {}
    assert store.asked == [["-", "a", "bb"]]


async def test_lookups_during_a_query_share_the_next_one() -> None:
    store = Store()
    merged = Merged(store.ask)
    askers = [asyncio.create_task(merged.get([name])) for name in ("a", "b", "cc", "b")]
    await asyncio.sleep(0)
    late = asyncio.create_task(merged.get(["a"]))  # never answered by what was asked before it came
    store.may_answer.set()
    assert await asyncio.gather(*askers) == [{"a": 1}, {"b": 1}, {"cc": 2}, {"b": 1}]
    assert await late == {"a": 1}
    assert sum(len(keys) for keys in store.asked) <= 4 + 1
    assert len(store.asked) == 2


async def test_a_failure_reaches_everybody_who_waits_and_nobody_else() -> None:
    store = Store()
    store.failure = ValueError("no")
    store.may_answer.set()
    merged = Merged(store.ask)
    found = await asyncio.gather(merged.get(["a"]), merged.get(["b"]), return_exceptions=True)
    assert [str(each) for each in found] == ["no", "no"]
    store.failure = None
    assert await merged.get(["a"]) == {"a": 1}


async def test_somebody_who_went_away_holds_up_nobody() -> None:
    store = Store()
    merged = Merged(store.ask)
    gone, there = asyncio.create_task(merged.get(["a"])), asyncio.create_task(merged.get(["b"]))
    await asyncio.sleep(0)
    gone.cancel()
    store.may_answer.set()
    assert await there == {"b": 1}


async def test_large_lookups_are_cut_and_put_together_again() -> None:
    store = Store()
    store.may_answer.set()
    merged = Merged(store.ask)
    keys = [f"k{number}" for number in range(2 * KEYS_MAX + 1)]
    assert len(await merged.get(keys)) == len(keys)
    assert [len(each) for each in store.asked] == [KEYS_MAX, KEYS_MAX, 1]


@pytest.mark.parametrize("turns", [1, 2, 5])  # before the query began, and while it runs
async def test_closing_lets_nobody_wait(turns: int) -> None:
    store = Store()
    merged = Merged(store.ask)
    askers = [asyncio.create_task(merged.get([name])) for name in ("a", "b")]
    for _ in range(turns):
        await asyncio.sleep(0)
    askers.append(asyncio.create_task(merged.get(["c"])))
    await asyncio.sleep(0)
    await merged.close()
    done, waiting = await asyncio.wait(askers, timeout=30)
    assert not waiting
    assert all(each.cancelled() for each in done)
