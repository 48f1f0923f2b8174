"""What a job may cost us: a paid question is noted before it is asked, and is not asked if the limit would be passed."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from apps.leads.model import CostEvent
from apps.leads.store import Store
from apps.leads.web import OwnerSource, OwnerSourceFailed
from apps.leads.web.types import Owner, SiteScan


def over_limit(limit_usd: float | None) -> str:
    """Why something was not asked."""
    return f"not asked: over the tier's limit of ${limit_usd or 0:.2f} for one job"


class Budget:
    """The money of one job, for one step of one business.

    Args:
        limit_usd: Of the job, all its runs and businesses together; None: no limit.
    """

    def __init__(self, store: Store, job_id: str, run: int, subject: str, limit_usd: float | None) -> None:
        self._store = store
        self._job_id = job_id
        self._run = run
        self._subject = subject
        self.limit_usd = limit_usd

    @asynccontextmanager
    async def question(self, step: str, type_: str, provider: str, cost_usd: float) -> AsyncGenerator[bool]:
        """Ask something inside it, if it gives True. False: its cost would pass the limit.

        The cost is noted before, the duration after; a question that fails costs nothing. The same question again is the
        same cost: a step that was running when the process died runs again.
        """
        if not await self.note(step, type_, provider, cost_usd):
            yield False
            return
        began_s = time.monotonic()
        try:
            yield True
        except Exception:
            if self._job_id:
                await self._store.drop_cost(self._job_id, self.event(step, type_, provider))
            raise
        if self._job_id:
            duration_ms = math.ceil((time.monotonic() - began_s) * 1000)
            await self._store.set_cost_duration(
                self._job_id, self.event(step, type_, provider, duration_ms=duration_ms)
            )

    async def note(self, step: str, type_: str, provider: str, cost_usd: float = 0.0) -> bool:
        """Note a cost. False: it would pass the limit, and nothing was noted."""
        if not self._job_id:
            return True
        return await self._store.take_cost(self._job_id, self.event(step, type_, provider, cost_usd), self.limit_usd)

    def event(self, step: str, type_: str, provider: str, cost_usd: float = 0.0, *, duration_ms: int = 0) -> CostEvent:
        """One request of this step of this business."""
        return CostEvent(
            step=step,
            subject=self._subject,
            type=type_,
            provider=provider,
            quantity=1,
            unit="request",
            cost_usd=cost_usd,
            duration_ms=duration_ms,
            run=self._run,
        )


class PaidSource:
    """An owner source that is asked as long as the budget lasts. What it costs is noted."""

    def __init__(self, source: OwnerSource, budget: Budget) -> None:
        self._source = source
        self._budget = budget
        self.name = source.name
        self.cost_usd = source.cost_usd

    async def ask(self, business_name: str, scan: SiteScan) -> Owner | None:
        """Raises: OwnerSourceFailed: its own; or over the limit."""
        async with self._budget.question("find-owner", "owner_search", self.name, self.cost_usd) as may_ask:
            if not may_ask:
                raise OwnerSourceFailed(over_limit(self._budget.limit_usd))
            return await self._source.ask(business_name, scan)
