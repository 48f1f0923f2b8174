"""Live changes of jobs as server-sent events.

The jobs may change in another process than the one that is asked, so the database is asked for what changed: by one
task per process, and only while somebody listens.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import msgspec
from starlette.responses import StreamingResponse

from apps.recon.model import FINAL_STATES, Job
from apps.recon.store import Store
from apps.recon.surreal import StoreError

logger = logging.getLogger("recon.events")

POLL_S = 0.25
"""Between two looks at the database; also how late an event may be."""

KEEPALIVE_S = 15
"""Silence after which a comment is sent, so that proxies keep the connection."""

LISTENERS_MAX = 500

_OVERLAP = timedelta(seconds=2)
"""Looked at again each time: a transaction's time is when it began, so an older one may appear after a newer one."""

_BACKLOG_MAX = 1000
"""Changes kept for a listener that does not read; then it is cut off, and connects again."""


class JobFeed:
    """Tells every listener of every change, from the moment it listens."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._listeners: set[asyncio.Queue[Job | None]] = set()
        self._watching: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def is_full(self) -> bool:
        """No more than `LISTENERS_MAX` listen at a time."""
        return len(self._listeners) >= LISTENERS_MAX

    async def changes(self, job_id: str | None = None) -> AsyncGenerator[Job | None]:
        """Jobs as they change. With a `job_id` that job's state now, then its changes, up to its end.

        Yields None when nothing changed for `KEEPALIVE_S`.
        """
        queue: asyncio.Queue[Job | None] = asyncio.Queue(_BACKLOG_MAX)
        if self._is_closed:
            return
        self._listeners.add(queue)
        self._watch()
        try:
            known_at: datetime | None = None
            if job_id is not None:
                job = await self._store.job(job_id)  # after listening began: nothing falls in between
                if job is not None:
                    known_at = job.updated_at
                    yield job
                    if job.state in FINAL_STATES:
                        return
            while True:
                try:
                    async with asyncio.timeout(KEEPALIVE_S):
                        changed = await queue.get()
                except TimeoutError:
                    yield None
                    continue
                if changed is None:
                    return  # closed, or too slow
                if job_id is None or (changed.id == job_id and (known_at is None or changed.updated_at > known_at)):
                    yield changed
                    if job_id is not None and changed.state in FINAL_STATES:
                        return
        finally:
            self._listeners.discard(queue)

    async def close(self) -> None:
        """End every stream, and take no more."""
        self._is_closed = True
        for queue in list(self._listeners):
            _end(queue)
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching

    def _watch(self) -> None:
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._poll(), name="recon job feed")

    async def _poll(self) -> None:
        since = datetime.now(UTC)
        told: dict[str, datetime] = {}
        """What was told of each job within the overlap."""
        while self._listeners:
            try:
                changed = await self._store.changed_jobs(since - _OVERLAP)
            except StoreError as error:
                logger.warning("the job feed cannot read: %s", error)
                changed = []
            for job in changed:
                if told.get(job.id) != job.updated_at:
                    told[job.id] = job.updated_at
                    self._tell(job)
                since = max(since, job.updated_at)
            told = {job_id: at for job_id, at in told.items() if at >= since - 2 * _OVERLAP}
            await asyncio.sleep(POLL_S)

    def _tell(self, job: Job) -> None:
        for queue in list(self._listeners):
            if queue.full():
                self._listeners.discard(queue)
                queue.get_nowait()
                _end(queue)
            else:
                queue.put_nowait(job)


def _end(queue: asyncio.Queue[Job | None]) -> None:
    with suppress(asyncio.QueueFull):
        queue.put_nowait(None)


def as_events(changes: AsyncIterator[Job | None]) -> StreamingResponse:
    """The changes as `text/event-stream`: events named `job`, whose data is the job as JSON."""

    async def lines() -> AsyncGenerator[bytes]:
        yield b"retry: 1000\n\n"
        async for job in changes:
            yield b": nothing new\n\n" if job is None else b"event: job\ndata: %b\n\n" % msgspec.json.encode(job)

    return StreamingResponse(
        lines(), media_type="text/event-stream", headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    )
