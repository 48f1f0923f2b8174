"""Tests in virtual time: a handler that waits a day, or a schedule of a year, is over in milliseconds.

    async def approved_too_late() -> None:
        async with holdfast.Engine(app) as engine:
            assert await engine.client.workflow_call(release, key="r", arg=None) == "timed out after 24 h"

    def test_the_time_out():
        run_virtually(approved_too_late)

The whole engine runs, with the real SDK and your real code; only waiting takes no time. Whatever has to wait for the
world outside the process cannot be used: time jumps ahead as soon as the process has nothing to do.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, cast
from unittest import mock

from restate.vm import VMWrapper

__all__ = ["START", "NothingHappens", "run_virtually"]

T = TypeVar("T")

START = datetime(2040, 1, 1, tzinfo=UTC)
"""The wall clock's first moment, unless another is given."""


class NothingHappens(AssertionError):
    """Everybody waits, and nothing is due: in real time the test would hang for ever."""


def run_virtually(main: Callable[[], Awaitable[T]], *, start: datetime = START) -> T:
    """Run `main()` to its end in an event loop of its own, whose time jumps to what is due next.

    `time.time`, `time.time_ns`, the loop's clock and whatever a context tells or waits for follow; `time.monotonic` and
    `datetime.now` do not. Work for threads
    (sync steps, `asyncio.to_thread`) is run in the loop itself.

    Args:
        main: Typically starts a `holdfast.Engine`, in memory or on a file, and talks to it through `engine.client` or the
            ASGI applications `engine.ingress` and `engine.admin`.
        start: The wall clock's first moment, with a time zone. It must lie in the future, because the SDK's native part
            counts from the machine's clock, and only forward.
    Raises:
        NothingHappens: Everybody waits for something that will never come.
        ValueError: `start` has no time zone, or is not in the future.
    """
    if start.tzinfo is None:
        raise ValueError("start needs a time zone: datetime(2040, 1, 1, tzinfo=UTC)")
    if start < datetime.now(UTC) + timedelta(days=1):
        raise ValueError(f"start must be at least a day from now, because the SDK counts from now on; next: {START}")
    loop = _VirtualLoop()
    begin_ns = round(start.timestamp() * 1_000_000) * 1_000

    def now_s() -> float:
        return now_ns() / 1_000_000_000

    def now_ns() -> int:
        return begin_ns + round(loop.time() * 1_000_000_000)

    real_time = time.time
    sleep, send = VMWrapper.sys_sleep, VMWrapper.sys_send

    def counted_from_now(delay_ms: int) -> int:
        return delay_ms + round((now_s() - real_time()) * 1000)

    def sys_sleep(vm: VMWrapper, millis: int, name: str | None = None) -> Any:
        return cast(Any, sleep)(vm, counted_from_now(millis), name)

    def sys_send(
        vm: VMWrapper,
        service: str,
        handler: str,
        parameter: bytes,
        key: str | None = None,
        delay: int | None = None,
        *rest: Any,
        **named: Any,
    ) -> int:
        return send(vm, service, handler, parameter, key, counted_from_now(delay) if delay else delay, *rest, **named)

    with (
        mock.patch.object(VMWrapper, "sys_sleep", sys_sleep),
        mock.patch.object(VMWrapper, "sys_send", sys_send),
        mock.patch.object(time, "time", now_s),
        mock.patch.object(time, "time_ns", now_ns),
        asyncio.Runner(loop_factory=lambda: loop) as runner,
    ):

        async def body() -> T:
            return await main()

        return runner.run(body())


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._now_s = 0.0
        super().__init__(_NoWaiting(self))

    def time(self) -> float:
        return self._now_s

    def advance(self, delay_s: float) -> None:
        self._now_s += delay_s

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        # A thread would need real time to come back.
        future: asyncio.Future[Any] = self.create_future()

        def work() -> None:
            try:
                outcome = func(*args)
            except BaseException as error:  # noqa: BLE001 a thread hands over whatever it was
                with suppress(asyncio.InvalidStateError):
                    future.set_exception(error)
            else:
                with suppress(asyncio.InvalidStateError):
                    future.set_result(outcome)

        self.call_soon(work)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 its signature
        """There is none."""


class _NoWaiting(selectors.SelectSelector):
    def __init__(self, loop: _VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise NothingHappens("everybody waits, and nothing is due; next: look at what main() awaits")
            self._loop.advance(timeout)
        return ready
