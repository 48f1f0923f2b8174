"""Tells the processor what is due: stored timers, and results whose retention is over."""

from __future__ import annotations

import asyncio

from holdfast.core.events import PurgeRequested, TimerFired
from holdfast.runtime.clock import Clock
from holdfast.runtime.processor import Processor
from holdfast.store.sqlite import SqliteTables

PER_TURN = 512
LONGEST_NAP_S = 60.0
"""Timers are looked at this often at least, so that a changed wall clock is noticed."""

EXPIRED_PER_TURN = 1000
CLEANING_PAUSE_S = 0.05
"""Between two turns of cleaning."""

_FIRST_CLEANING = 0.3  # of the interval, as the server's first run


class Timers:
    """Only the earliest due time is in memory; the rest are rows."""

    def __init__(self, processor: Processor, tables: SqliteTables, clock: Clock, cleanup_interval_ms: int) -> None:
        self._processor = processor
        self._tables = tables
        self._clock = clock
        self._cleanup_interval_s = cleanup_interval_ms / 1000
        self._timer: asyncio.TimerHandle | None = None
        self._due_ms: int | None = None
        self._cleaner: asyncio.TimerHandle | None = None
        self._cleaned_seq = 0
        self._is_on = False

    def start(self) -> None:
        self._is_on = True
        self._rearm()
        self._cleaner = self._processor.call_later(self._cleanup_interval_s * _FIRST_CLEANING, self._clean)

    def stop(self) -> None:
        self._is_on = False
        for handle in (self._timer, self._cleaner):
            if handle is not None:
                handle.cancel()

    def arm(self, due_ms: int) -> None:
        """A timer that is due then was stored."""
        if self._due_ms is not None:
            if self._due_ms <= due_ms:
                return
            if self._timer is not None:
                self._timer.cancel()
        self._due_ms = due_ms
        # Rounded up: the loop may call a little early, and a timer that is not due yet is only looked at again.
        delay_s = min(LONGEST_NAP_S, max(0, due_ms - self._clock.now_ms() + 1) / 1000)
        self._timer = self._processor.call_later(delay_s, self._fire)

    def _rearm(self) -> None:
        self._due_ms = None
        if not self._is_on:
            return  # the batch of what was due has ended the engine, or met a full disk
        next_ms = self._tables.next_timer_ms()
        if next_ms is not None:
            self.arm(next_ms)

    def _fire(self) -> None:
        self._processor.when_readable(self._fire_due)

    def _fire_due(self) -> None:
        now_ms = self._clock.now_ms()
        for due_ms, seq, completion_id in self._tables.due_timers(now_ms, PER_TURN):
            self._processor.post(TimerFired(due_ms, seq, completion_id, now_ms))
        self._processor.drain()
        # Behind the commit, so that what has fired is not found again.
        self._processor.when_readable(self._rearm)

    def _clean(self) -> None:
        if self._is_on:
            self._processor.when_readable(self._clean_some)

    def _clean_some(self) -> None:
        """Forget results whose retention is over, some rows at a time so that nobody waits for it."""
        if not self._is_on:
            return
        now_ms = self._clock.now_ms()
        self._cleaned_seq, expired = self._tables.expired(now_ms, self._cleaned_seq, EXPIRED_PER_TURN)
        for invocation_id, journal_only in expired:
            self._processor.post(PurgeRequested(None, invocation_id, journal_only, now_ms))
        delay_s = CLEANING_PAUSE_S if self._cleaned_seq else self._cleanup_interval_s
        self._cleaner = self._processor.call_later(delay_s, self._clean)
