"""Reading from the database with a time limit."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from apps.recon.http import ApiError
from apps.recon.store import Store, StoreError

logger = logging.getLogger("recon.queries")

TIME_LIMIT_S = 5.0
QUERY_TIMEOUT = "TIMEOUT 5s"
"""At the end of the expensive statements: the database gives up as well, and does not work on for nobody."""
SLOW_S = 1.0


class Reading:
    """Reads within the time limit, and knows how long it took."""

    def __init__(self, store: Store, what: str, *, time_limit_s: float | None = None) -> None:
        """`what`: for the log, when it is slow."""
        self._store = store
        self._what = what
        self._time_limit_s = TIME_LIMIT_S if time_limit_s is None else time_limit_s
        self._begun = time.perf_counter()

    async def __call__(self, sql: str, **params: Any) -> list[Any]:
        """The result of each statement.

        Raises:
            ApiError: 408, it takes too long.
            StoreError: the database failed.
        """
        left_s = self._time_limit_s - (time.perf_counter() - self._begun)
        try:
            async with asyncio.timeout(left_s):
                return await self._store.read(sql, **params)
        except TimeoutError as error:
            raise self._too_slow() from error
        except StoreError as error:
            if "exceeded the timeout" in str(error):
                raise self._too_slow() from error
            raise

    def elapsed_ms(self) -> float:
        """Since the beginning. A slow one is told to the log."""
        elapsed_s = time.perf_counter() - self._begun
        if elapsed_s > SLOW_S:
            logger.warning("slow_query", extra={"query": self._what, "elapsed_ms": round(elapsed_s * 1000)})
        return round(elapsed_s * 1000, 1)

    def _too_slow(self) -> ApiError:
        logger.warning("query_timeout", extra={"query": self._what})
        return ApiError(408, "query_timeout", f"the query took longer than {self._time_limit_s:g} s; ask for less")
