"""Starting workflows: one alone at once, and those that come while a call to the engine is under way together.

A call costs more than what it starts. When a hundred scanners send at once, their hundred jobs are handed to the engine
by a few calls; the engine has each of them on disk before any of these scanners is answered.
"""

from __future__ import annotations

import asyncio

import restate

from apps.recon.control import start_together
from apps.recon.model import IngestRequest
from apps.recon.workflow import start_ingest

TOGETHER_MAX = 100
"""Jobs in one call: each is an entry of its journal."""


class Starter:
    """Hands jobs to the engine."""

    def __init__(self, client: restate.RestateClient) -> None:
        self._client = client
        self._waiting: list[tuple[IngestRequest, asyncio.Future[None]]] = []
        self._calling: asyncio.Task[None] | None = None

    async def start(self, request: IngestRequest) -> None:
        """Start a job, or find it started. When it returns, the engine has it on disk.

        Raises:
            restate.HttpError: the engine refused.
            httpx.TransportError: the engine could not be reached.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, done))
        if self._calling is None or self._calling.done():
            self._calling = asyncio.create_task(self._call(), name="recon starts")
        await done

    async def _call(self) -> None:
        """Until nobody waits. Whoever comes meanwhile is in the next call."""
        while self._waiting:
            taken, self._waiting = self._waiting[:TOGETHER_MAX], self._waiting[TOGETHER_MAX:]
            error: Exception | None = None
            try:
                if len(taken) == 1:
                    await start_ingest(self._client, taken[0][0])
                else:
                    await start_together(self._client, [request for request, _ in taken])
            except Exception as raised:  # noqa: BLE001 whatever it is, those who wait must hear of it
                error = raised
            for _, done in taken:
                if done.done():  # its caller has gone, or waited long enough; the sweeper looks after the job
                    continue
                if error is None:
                    done.set_result(None)
                else:
                    done.set_exception(error)
