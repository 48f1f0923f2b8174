"""Callers who wait for a result, and letting go of those who hung up meanwhile.

An invocation may run for days, and callers with a timeout of seconds give up, call again, and wait again. Each of them
would hold a coroutine until the invocation ends. To notice that one is gone, somebody must listen to its connection
while it waits; a task per request for that would cost as much as the rest of the ingress. So only the callers who have
waited for a whole sweep get one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeVar

T = TypeVar("T")
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

SWEEP_S = 5.0
"""Longer than nearly every call; shorter than it takes to fill the memory with callers who gave up."""


class CallerGone(Exception):
    """The caller closed the connection."""


class _Caller:
    __slots__ = ("has_waited", "is_gone", "listener", "receive", "task")

    def __init__(self, task: asyncio.Task[Any] | None, receive: Receive) -> None:
        self.task = task
        self.receive = receive
        self.has_waited = False
        self.is_gone = False
        self.listener: asyncio.Task[None] | None = None

    async def listen(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass  # an empty end of the request that came late
        if self.task is not None:
            self.is_gone = True
            self.task.cancel()


class Callers:
    """Everybody who waits for a result at one ingress."""

    def __init__(self, sweep_s: float = SWEEP_S) -> None:
        self._sweep_s = sweep_s
        self._waiting: dict[_Caller, None] = {}  # in the order in which they came
        self._loop: asyncio.AbstractEventLoop | None = None
        """The loop in which the next sweep is due; None when nobody waits who is not listened to."""

    async def wait(self, receive: Receive, result: Awaitable[T]) -> T:
        """The result, unless the caller hangs up first.

        Args:
            receive: of the request, whose body was read to its end.
            result: what is waited for. It is cancelled when the caller is gone, which must not stop the invocation.
        Raises:
            CallerGone: nobody is there to be told the result.
        """
        caller = _Caller(asyncio.current_task(), receive)
        self._waiting[caller] = None
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            loop.call_later(self._sweep_s, self._sweep, loop)
        try:
            return await result
        except asyncio.CancelledError:
            if not caller.is_gone or caller.task is None:
                raise
            caller.task.uncancel()
            raise CallerGone from None
        finally:
            self._waiting.pop(caller, None)
            if caller.listener is not None:
                caller.listener.cancel()

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        has_new = False
        for caller in self._waiting:
            if caller.has_waited and caller.listener is None:
                caller.listener = loop.create_task(caller.listen())
            has_new |= not caller.has_waited
            caller.has_waited = True
        if has_new:
            loop.call_later(self._sweep_s, self._sweep, loop)
        else:
            self._loop = None
