"""Drain events -> apply -> commit -> perform effects. The durable path's spine.

Events that arrive in one turn of the event loop share one transaction and one fsync. The commit runs in the loop's own
thread while the disk is quick, because a thread hop costs as much as a quick fsync; on a slow disk it moves to a
thread so that user code in the same loop is not held up.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Callable, Sized
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import apsw

from holdfast.core.effects import Effect
from holdfast.core.events import Event
from holdfast.core.machine import Machine
from holdfast.errors import DiskFull, EngineError
from holdfast.runtime.clock import Clock
from holdfast.store.failures import disk_full, is_full, unusable
from holdfast.store.sqlite import SqliteTables

log = logging.getLogger("holdfast.engine")

SLOW_COMMIT_S = 0.0015
"""Commits slower than this on average go to a thread: the hop costs about 0.1 ms, a quick fsync as much."""

CROWD = 8
CROWD_TURNS = 4
"""With this many attempts in flight, a batch waits some more turns of the loop for company. Turns without work take
microseconds; over HTTP, requests that belong together are spread over several. (Five-step workflows at 50 at a time:
1,070/s without, 1,400/s with 4, no more with 8.)"""

LAZY_DELAY_S = 0.02
"""How long an entry that nobody waits for (a Run command) may wait for company before it is committed."""


class Processor:
    """Owns the machine and the one connection that writes."""

    def __init__(
        self,
        machine: Machine,
        tables: SqliteTables,
        clock: Clock,
        perform: dict[type, Callable[[Any], None]],
        on_failure: Callable[[EngineError], None],
        on_full: Callable[[], bool],
        refuse: Callable[[Event, DiskFull], None],
        in_flight: Sized,
        *,
        in_memory: bool,
    ) -> None:
        """
        Args:
            on_failure: Told why no batch will ever be committed again.
            on_full: Told that the disk is full; False when the engine cannot wait for space, so that this is a failure
                like any other.
            refuse: Told which events did not happen because of it.
            in_flight: Attempts, as many as there are.
        """
        self.machine = machine
        self.failure: EngineError | None = None
        self.disk_full: DiskFull | None = None
        """Set while every event is refused. Rows can be read; memory has nothing that is not in them."""
        self._tables = tables
        self._clock = clock
        self._perform = perform
        self._on_failure = on_failure
        self._on_full = on_full
        self._refuse = refuse
        self._in_flight = in_flight
        self._turns = 0
        self._inbox: list[Event] = []
        self._batch: list[Event] = []
        self._scheduled = False
        self._lazy: asyncio.TimerHandle | None = None
        self._committing = False
        self._commit_s = 0.0
        self._in_memory = in_memory
        self._thread: ThreadPoolExecutor | None = None
        self._readers: list[Callable[[], None]] = []
        self._idle: list[asyncio.Future[None]] = []
        self._loop = asyncio.get_running_loop()
        # Work is done in the engine's own context, not in that of the handler whose frame came first: its variables
        # (spans, the SDK's replay flag) must not leak into the next attempt.
        self._context = contextvars.copy_context()

    def post(self, event: Event, *, lazy: bool = False) -> None:
        """Take an event; it is applied soon, and its effects are performed after the commit.

        Args:
            lazy: nothing waits for it, so it may share the next commit instead of causing one.
        """
        if self.disk_full is not None:
            self._refuse(event, self.disk_full)
            return
        self._inbox.append(event)
        if self._scheduled:
            return
        if lazy:
            if self._lazy is None:
                self._lazy = self._loop.call_later(LAZY_DELAY_S, self._schedule, context=self._context)
            return
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._turns = CROWD_TURNS if len(self._in_flight) >= CROWD else 0
            self._loop.call_soon(self._turn, context=self._context)

    def _turn(self) -> None:
        if self._turns:
            self._turns -= 1
            self._loop.call_soon(self._turn, context=self._context)
        else:
            self.drain()

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._loop.call_soon(callback, context=self._context)

    def call_later(self, delay_s: float, callback: Callable[..., None], *args: Any) -> asyncio.TimerHandle:
        return self._loop.call_later(delay_s, callback, *args, context=self._context)

    def when_readable(self, callback: Callable[[], None]) -> None:
        """Run `callback` now, or as soon as the connection is not busy with a commit in the other thread.

        Whatever uses the tables outside of an event goes through here.
        """
        if self._committing:
            self._readers.append(callback)
        elif self.failure is None:
            try:
                callback()
            except apsw.Error as error:  # what the callback was to find would be lost
                self.fail(unusable(error, "the database could not be read"))

    def drain(self) -> None:
        """Apply and commit everything that has arrived, then perform the effects."""
        self._scheduled = False
        if self._committing or self.failure is not None or self.disk_full is not None:
            return  # what is in the inbox goes on when the commit is done
        if self._lazy is not None:
            self._lazy.cancel()
            self._lazy = None
        events = self._inbox
        if not events:
            self._settle()
            return
        self._inbox = []
        self._batch = events
        machine, tables = self.machine, self._tables
        try:
            tables.begin()
            for event in events:
                machine.apply(event)
            effects = machine.flush(self._clock.now_ms())
            if self._commit_s > SLOW_COMMIT_S and not self._in_memory:
                self._commit_in_thread(effects)
                return
            self._commit()
        except Exception as error:  # noqa: BLE001 whatever it is, memory is ahead of the rows now
            self._fail(error)
            return
        self._perform_all(effects)

    def _perform_all(self, effects: list[Effect]) -> None:
        perform = self._perform
        try:
            for effect in effects:
                perform[type(effect)](effect)
        except Exception as error:  # noqa: BLE001 the effects behind it would be lost; a restart derives them again
            self._fail(error)
            return
        if not self._inbox:
            self._settle()

    def _commit(self) -> None:
        started = time.perf_counter()
        self._tables.commit()
        # Timed here, in whichever thread: waiting for the loop's turn is not the disk's fault.
        self._commit_s += 0.1 * (time.perf_counter() - started - self._commit_s)

    def _commit_in_thread(self, effects: list[Effect]) -> None:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "holdfast-commit")
        self._committing = True
        future = self._loop.run_in_executor(self._thread, self._commit)

        def committed(done: asyncio.Future[None]) -> None:
            self._committing = False
            error = done.exception()
            if error is not None:
                self._fail(error)
                return
            self._perform_all(effects)
            readers, self._readers = self._readers, []
            for callback in readers:
                self.when_readable(callback)  # the one before may have started the next commit
            if self._inbox:
                self._schedule()

        future.add_done_callback(committed, context=self._context)

    def _fail(self, error: BaseException) -> None:
        """A batch that cannot be committed leaves memory ahead of the rows, and rows are the truth.

        A full disk holds the engine still until there is space; everything else ends it.
        """
        tables = self._tables
        is_about_space = is_full(error, tables.connection)
        try:
            tables.rollback()
        except apsw.Error as another:  # SQLite rolls back by itself when the file is opened again
            is_about_space = is_about_space and is_full(another, tables.connection) and not tables.is_in_batch
        if is_about_space:
            self.stand_still()
            return
        self.fail(unusable(error, "a commit failed" if isinstance(error, apsw.Error) else "a batch was not completed"))

    def stand_still(self) -> None:
        """Nothing can be written: refuse every event from now on, those of the last batch among them."""
        self.disk_full = failure = disk_full()
        lost, self._batch, self._inbox = self._batch + self._inbox, [], []
        if self._lazy is not None:
            self._lazy.cancel()
            self._lazy = None
        if not self._on_full():
            self.disk_full = None
            self.fail(disk_full(is_final=True))
            return
        for event in lost:
            self._refuse(event, failure)
        self._settle()

    def fail(self, failure: EngineError) -> None:
        """End the engine."""
        self.failure = failure
        log.error("engine stopped", extra={"error": str(failure)}, exc_info=failure.__cause__)
        self._on_failure(failure)
        self._settle()

    async def settled(self) -> None:
        """Wait until everything posted so far is committed and performed."""
        while (self._inbox or self._committing) and self.failure is None:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._idle.append(waiter)
            self._schedule()
            await waiter

    def _settle(self) -> None:
        if self._idle:
            idle, self._idle = self._idle, []
            for waiter in idle:
                if not waiter.done():
                    waiter.set_result(None)

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown()
