"""How much the API lets a user start: the limits of the wallet's tier, counted in the database, so a restart forgets nothing."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

from apps.leads.database import now_ms
from apps.leads.errors import LeadsError
from apps.leads.jobs import Jobs
from apps.leads.store import Store
from apps.leads.tiers import TierLimits

WINDOWS = (("minute", 60), ("hour", 3_600), ("day", 86_400))


class TooMany(LeadsError):
    """429. `retry_after_s`: when it may work."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(429, f"{message}; next: try again in {retry_after_s} s", is_retryable=True)
        self.retry_after_s = retry_after_s


class Limits:
    """Asked before a user starts something."""

    def __init__(self, store: Store, jobs: Jobs, tiers: Mapping[str, TierLimits]) -> None:
        self._store = store
        self._jobs = jobs
        self._tiers = tiers
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @asynccontextmanager
    async def may_start(self, user_id: str) -> AsyncGenerator[None]:
        """Hold this user's turn while something is started, so that two requests do not both take the last place.

        Raises:
            TooMany: the tier's limit is reached.
        """
        async with self._locks[user_id]:
            wallet = await self._jobs.wallets.get(user_id)
            now = now_ms()
            started, open_count = await self._store.started_since(user_id, now - WINDOWS[-1][1] * 1000)
            check(self._tiers[wallet.tier], started, open_count, now)
            yield


def check(limits: TierLimits, started_at_ms: list[int], open_count: int, now_ms: int) -> None:
    """Is there room for one more?

    Args:
        started_at_ms: When the jobs of the last day were started, oldest first.
        open_count: Jobs that are not over.
    Raises:
        TooMany: no.
    """
    if open_count >= limits.parallel:
        raise TooMany(f"{open_count} jobs are running, which is this tier's limit", 5)
    for (name, seconds), most in zip(WINDOWS, (limits.per_minute, limits.per_hour, limits.per_day), strict=True):
        inside = [at for at in started_at_ms if at > now_ms - seconds * 1000]
        if len(inside) >= most:
            # The window has room again when the oldest that counts leaves it.
            wait_ms = inside[len(inside) - most] + seconds * 1000 - now_ms
            raise TooMany(f"{most} jobs per {name} is this tier's limit", max(1, -(-wait_ms // 1000)))
