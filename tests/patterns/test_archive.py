"""Bounded log: nothing is lost, nothing is twice, and what is at hand stays bounded."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.patterns import BoundedLog
from tests.patterns.conftest import Side, until


async def chunk(side: Side, path: str) -> list[Any]:
    """A chunk that is on its way to the archive."""

    async def look() -> list[Any] | None:
        answer = await side.ingress.post(f"{path}/get")
        return answer.json() if answer.status_code == 200 else None

    return await until(look)


async def test_the_oldest_move_into_chunks_and_the_newest_stay(side: Side, key: str) -> None:
    indices = [await side.call(f"/Small/{key}/append", {"n": number}) for number in range(8)]
    assert indices == list(range(8))
    assert await side.call(f"/Small/{key}/status") == {"first": 4, "next": 8, "chunks": 2}
    assert await side.call(f"/Small/{key}/recent", 100) == [{"n": number} for number in range(4, 8)]
    assert await side.call(f"/Small/{key}/recent", 2) == [{"n": 6}, {"n": 7}]
    assert await chunk(side, f"/SmallArchive/{key}:0") == [{"n": 0}, {"n": 1}]
    assert await chunk(side, f"/SmallArchive/{key}:1") == [{"n": 2}, {"n": 3}]
    assert "no chunk" in await side.call(f"/SmallArchive/{key}:2/get", status=404)


async def test_an_empty_log_is_empty(side: Side, key: str) -> None:
    assert await side.call(f"/Small/{key}/recent", 5) == []
    assert await side.call(f"/Small/{key}/status") == {"first": 0, "next": 0, "chunks": 0}


@pytest.mark.parametrize("count", ["5", None, 1.5, [1]])
async def test_a_number_of_entries_that_is_none(side: Side, key: str, count: Any) -> None:
    answer = await side.ingress.post(f"/Small/{key}/recent", json=count)
    assert (answer.status_code, "a whole number" in answer.text) == (400, True)


@pytest.mark.slow
async def test_of_1500_events_1000_are_at_hand_and_500_are_archived(side: Side, key: str) -> None:
    for first in range(0, 1500, 50):
        await side.call("/LogWriter/write", {"key": key, "first": first})
    at_hand = await side.call(f"/Events/{key}/recent", 10_000)
    archived = [entry for number in range(5) for entry in await chunk(side, f"/EventsArchive/{key}:{number}")]
    assert (len(at_hand), len(archived)) == (1000, 500)
    assert archived + at_hand == list(range(1500))


@pytest.mark.parametrize("sizes", [{"keep": 0}, {"chunk": 0}])
def test_sizes_below_one_are_refused(sizes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        BoundedLog("Nothing", **sizes)


def test_a_chunk_that_is_written_elsewhere_must_be_read_from_there_too() -> None:
    with pytest.raises(ValueError, match="go together"):
        BoundedLog("Nothing", write_chunk=lambda key, entries: None)
