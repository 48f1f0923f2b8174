"""Counters only grow, and what several looks see is counted once."""

from __future__ import annotations

from typing import Any

from holdfast.metrics.tally import OVERLAP_MS, Completion, Look, Tally


def look(*completions: Completion, **retries: int) -> Look:
    nothing: dict[Any, int] = {}
    seen = {(invocation_id, ("S", "h")): count for invocation_id, count in retries.items()}
    return Look(nothing, completions, seen, nothing, nothing, nothing, nothing)


def done(invocation_id: str, at_ms: int) -> Completion:
    return Completion(invocation_id, "S", "h", at_ms - 1500, at_ms, "success")


def counted(tally: Tally) -> int:
    return sum(sum(histogram.counts) for histogram in tally.durations.values())


def test_a_row_that_is_seen_twice_is_counted_once() -> None:
    tally = Tally()
    tally.add(look(done("a", 100_000)))
    tally.add(look(done("a", 100_000), done("b", 100_001)))
    assert counted(tally) == 2
    assert tally.durations["S", "h", "success"].sum_s == 3.0


def test_a_row_that_became_visible_late_is_counted() -> None:
    tally = Tally()
    tally.add(look(done("b", 100_000)))
    assert tally.since_ms == 100_000 - OVERLAP_MS
    tally.add(look(done("a", 99_000), done("b", 100_000)))
    assert counted(tally) == 2


def test_what_is_removed_stays_counted_and_memory_is_bounded() -> None:
    tally = Tally()
    for number in range(100):
        tally.add(look(done(str(number), number * OVERLAP_MS)))
    tally.add(look())
    assert counted(tally) == 100
    assert len(tally._seen) <= 2


def test_retries_of_one_invocation_are_the_difference_between_looks() -> None:
    tally = Tally()
    for count in (2, 2, 5):
        tally.add(look(a=count))
    assert tally.retries["S", "h"] == 5
    tally.add(look(a=1))  # it got on, and failed once at the next step
    assert tally.retries["S", "h"] == 6
    tally.add(look())
    tally.add(look(b=1))
    assert tally.retries["S", "h"] == 7
