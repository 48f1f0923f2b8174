"""What is counted, and how looks at an engine's rows become counters that only grow. Pure: no clock, no I/O.

An engine keeps rows of what is over for their retention, then removes them. A counter must not shrink with them, so a
tally remembers what it has counted: each look asks for what was completed since shortly before the last one.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

OVERLAP_MS = 10_000
"""Looks overlap by this much: rows with an earlier time may become visible after rows with a later one, because commits
and partitions do not wait for each other."""

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0)
"""From a call that is answered at once to a workflow that takes a day."""

Handler = tuple[str, str]
"""Service and handler."""


@dataclass(frozen=True, slots=True)
class Completion:
    """An invocation that is over."""

    id: str
    service: str
    handler: str
    started_at_ms: int
    """When it was accepted; for a delayed one, when it was due."""
    completed_at_ms: int
    outcome: str
    """`success`, `failure` or `cancelled`."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at an engine sees."""

    counts: Mapping[tuple[str, str], int]
    """(service, status) -> invocations."""
    completions: Iterable[Completion]
    """Those that were completed at `since_ms` or later."""
    retries: Mapping[tuple[str, Handler], int]
    """(invocation id, handler) -> attempts that failed and were, or will be, repeated; of those that are not over.
    An engine that counts by itself gives totals under the id ''."""
    journal_entries: Mapping[str, int]
    """service -> journal entries of invocations that are not completed."""
    journal_entries_max: Mapping[str, int]
    """service -> entries of its longest journal among them."""
    state_keys: Mapping[str, int]
    state_bytes: Mapping[str, int]


class Source(Protocol):
    """An engine that can be looked at."""

    engine: str
    """`embedded` or `restate`, the label `engine` of every metric."""

    tally: Tally
    lock: asyncio.Lock
    """One look at a time."""

    async def look(self, since_ms: int) -> Look:
        """
        Args:
            since_ms: completions from this time on, epoch milliseconds, are asked for.
        Raises:
            HoldfastError: the engine did not answer.
        """
        ...


@dataclass(slots=True)
class Histogram:
    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    sum_s: float = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.sum_s += seconds


class Tally:
    """Counters of one engine, for as long as this process lives."""

    def __init__(self) -> None:
        self.durations: dict[tuple[str, str, str], Histogram] = {}
        """(service, handler, outcome) -> how long they took."""
        self.retries: Counter[Handler] = Counter()
        self.since_ms = 0
        """What the next look should ask for."""
        self._seen: dict[str, int] = {}
        self._retries_seen: dict[tuple[str, Handler], int] = {}

    def add(self, look: Look) -> None:
        """Count what this look has that none before had."""
        newest_ms = self.since_ms
        for done in look.completions:
            newest_ms = max(newest_ms, done.completed_at_ms - OVERLAP_MS)
            if done.id in self._seen or done.completed_at_ms < self.since_ms:
                continue
            self._seen[done.id] = done.completed_at_ms
            histogram = self.durations.setdefault((done.service, done.handler, done.outcome), Histogram())
            histogram.add(max(0, done.completed_at_ms - done.started_at_ms) / 1000)
        self.since_ms = newest_ms
        self._seen = {seen: at_ms for seen, at_ms in self._seen.items() if at_ms >= newest_ms}
        for (invocation_id, handler), count in look.retries.items():
            # Fewer than before: the attempt got on, and the engine began to count anew.
            before = self._retries_seen.get((invocation_id, handler), 0)
            self.retries[handler] += count - before if count >= before else count
        self._retries_seen = dict(look.retries)
