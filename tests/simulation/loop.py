"""An event loop whose time is a number: a sleep of an hour takes nothing, and the same seed gives the same history.

Threads do not exist in it. What would run in one runs in the loop, some time later, as if the thread had been slow.
"""

from __future__ import annotations

import asyncio
import gc
import selectors
from collections.abc import Callable
from random import Random
from typing import Any

from tests.support.violation import Violation

START_MS = 1_750_000_000_000


class Stuck(AssertionError):
    """Everybody waits and nothing will ever happen: a wake-up was lost."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time passes when there is nothing to do, and jumps to the next thing that is due."""

    def __init__(self, random: Random) -> None:
        self._now_s = 0.0
        self._random = random
        self._jobs: set[asyncio.TimerHandle] = set()
        self.slowest_job_s = 0.002
        """Jobs for threads take up to this long, virtually."""
        self.broken_callbacks: list[BaseException] = []
        """Errors that escaped from callbacks: whatever they were to do is lost."""
        super().__init__(_NoWaiting(self))
        self.set_exception_handler(self._escaped)

    def time(self) -> float:
        return self._now_s

    def pass_time(self, delay_s: float) -> None:
        self._now_s += delay_s

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        future: asyncio.Future[Any] = self.create_future()

        def work() -> None:
            self._jobs.discard(handle)
            try:
                outcome = func(*args)
            except BaseException as error:  # noqa: BLE001 - a thread hands over whatever it was
                if not future.cancelled():
                    future.set_exception(error)
                return
            if not future.cancelled():
                future.set_result(outcome)

        handle = self.call_later(self._random.random() * self.slowest_job_s, work)
        self._jobs.add(handle)
        return future

    def _escaped(self, loop: Any, context: dict[str, Any]) -> None:
        # Of tasks that die with their process nobody asks for the error; that is no news.
        if "handle" in context and context.get("exception") is not None:
            self.broken_callbacks.append(context["exception"])

    def kill_threads(self) -> None:
        """The process died, and its threads with it."""
        for handle in self._jobs:
            handle.cancel()
        self._jobs.clear()


class _NoWaiting(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise Stuck("everybody waits, and nothing is scheduled")
            self._loop.pass_time(timeout)
        return ready


class VirtualClock:
    """The engine's wall clock: the loop's time."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def now_ms(self) -> int:
        return START_MS + int(self._loop.time() * 1000 + 1e-6)


def run_virtually(main: Callable[[VirtualLoop], Any], random: Random) -> Any:
    """Run `main(loop)` to its end; what it left running is cancelled."""
    loop = VirtualLoop(random)
    asyncio.set_event_loop(loop)
    try:
        outcome = loop.run_until_complete(main(loop))
        if loop.broken_callbacks:
            error = loop.broken_callbacks[0]
            raise Violation("engine_goes_on", f"a callback has failed: {error!r}") from error
        return outcome
    finally:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=10))
        loop.kill_threads()
        asyncio.set_event_loop(None)
        loop.close()
        gc.collect(1)  # dead tasks are let go of here, not in the middle of something else
