"""Many small lookups as few large ones: what is asked for while a query runs goes into the next one.

A server's SQL costs milliseconds for a query and next to nothing for a row. A hundred executions that are waited for at
once would be hundreds of queries; merged they are a handful. A single lookup is not delayed: it is a query of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, TypeVar

Value = TypeVar("Value")

KEYS_MAX = 500
"""Of one query."""


class Merged(Generic[Value]):
    """Lookups by key.

    Args:
        ask: Looks several keys up; those that there are not are missing in its answer.
    """

    def __init__(self, ask: Callable[[list[str]], Awaitable[dict[str, Value]]]) -> None:
        self._ask = ask
        self._waiting: list[tuple[frozenset[str], asyncio.Future[dict[str, Value]]]] = []
        self._worker: asyncio.Task[None] | None = None

    async def get(self, keys: Iterable[str]) -> dict[str, Value]:
        """Values of those keys that there are.

        Raises: what `ask` raises.
        """
        wanted = frozenset(keys)
        if not wanted:
            return {}
        answer: asyncio.Future[dict[str, Value]] = asyncio.get_running_loop().create_future()
        self._waiting.append((wanted, answer))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        found = await answer
        return {key: found[key] for key in wanted if key in found}

    async def _work(self) -> None:
        while self._waiting:
            some, keys = self._next()
            try:
                found: dict[str, Value] = {}
                for start in range(0, len(keys), KEYS_MAX):
                    found |= await self._ask(keys[start : start + KEYS_MAX])
            except asyncio.CancelledError:
                for _, answer in some:
                    answer.cancel()
                raise
            except Exception as error:  # noqa: BLE001 handed to those who wait
                for _, answer in some:
                    if not answer.done():
                        answer.set_exception(error)
            else:
                for _, answer in some:
                    if not answer.done():  # whoever asked may be gone
                        answer.set_result(found)

    def _next(self) -> tuple[list[tuple[frozenset[str], asyncio.Future[dict[str, Value]]]], list[str]]:
        """Those who are served together, and their keys: as many as one query takes, at least one asker's."""
        some: list[tuple[frozenset[str], asyncio.Future[dict[str, Value]]]] = []
        keys: set[str] = set()
        while self._waiting and (not some or len(keys | self._waiting[0][0]) <= KEYS_MAX):
            some.append(self._waiting.pop(0))
            keys |= some[-1][0]
        return some, sorted(keys)

    async def close(self) -> None:
        """Nobody asks any more."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        for _, answer in self._waiting:
            answer.cancel()
        self._waiting.clear()
