"""What a person may do with imports: start, look, cancel, list. Used by the API and the pages alike.

The engine knows what runs, the store what came of it. An import that the engine has forgotten (it keeps finished
workflows for a time) is answered from the store.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import msgspec

from apps.imports.engine import EngineAway, EngineClient
from apps.imports.messages import Accepted, HistoryPage, Outcome, shown_source
from apps.imports.model import HistoryEntry, ImportRequest, Progress, Status, check_import_id, job_id_of
from apps.imports.store import Store

KILLED = "its workflow was killed; what it wrote is taken out again"
LOOK_S = 1.0
"""Between two looks at an import that somebody follows."""


class NotFound(Exception):
    """No import has this id."""

    def __init__(self, import_id: str) -> None:
        super().__init__(f"there is no import {import_id[:140]!r}")


class AlreadyThere(Exception):
    """The id was started before, so nothing was started. `status` says how far that one is."""

    def __init__(self, import_id: str, status: Status) -> None:
        hint = "choose another id to import again" if status.is_final else "it goes on"
        super().__init__(f"import {import_id!r} was started before and is {status}; {hint}")
        self.status = status


class AlreadyOver(Exception):
    """The import ended before it could be cancelled. `status` says how."""

    def __init__(self, import_id: str, status: Status) -> None:
        super().__init__(f"import {import_id!r} is {status} already; there is nothing to cancel")
        self.status = status


class InvalidCursor(ValueError):
    """The cursor was not made by an earlier page."""


@dataclass(frozen=True, slots=True)
class Imports:
    """The operations. `engine` runs the workflow `KboImport`, which works on `store`."""

    engine: EngineClient
    store: Store

    async def start(self, request: ImportRequest, *, is_id_given: bool = True) -> Accepted:
        """Start an import under `request.import_id`. Durable when it returns.

        Args:
            is_id_given: If not, `-2`, `-3` … is added to the id when imports of it failed or were cancelled.
        Raises:
            AlreadyThere: nothing was started.
            EngineAway: it is not known whether it was started; the same request again is safe.
        """
        for job in await self.store.open_jobs():
            await self.progress(job.import_id)  # one that was killed would be waited for, for ever
        if not is_id_given:
            request = msgspec.structs.replace(request, import_id=await self._next_id(request.import_id))
        import_id = request.import_id
        if (job := await self.store.job(import_id)) is not None and job.status.is_final:
            raise AlreadyThere(import_id, job.status)
        if await self.engine.state(import_id) != "unknown":
            raise await self._already_there(import_id)
        started = await self.engine.start(import_id, msgspec.to_builtins(request))
        # Unknown a moment ago, and asked for more than once: the answer to our own first request got lost.
        if not (started.is_new or started.is_repeated):
            raise await self._already_there(import_id)
        address = f"/imports/{import_id}"
        return Accepted(
            import_id, "started", job_id_of(import_id), started.invocation_id, f"/api{address}/progress", address
        )

    async def _next_id(self, import_id: str) -> str:
        for number in itertools.count(1):
            candidate = import_id if number == 1 else f"{import_id}-{number}"
            progress = await self.progress(candidate)
            if progress is None or progress.status not in (Status.FAILED, Status.CANCELLED):
                return candidate
        raise AssertionError("unreachable")

    async def _already_there(self, import_id: str) -> AlreadyThere:
        progress = await self.progress(import_id)
        return AlreadyThere(import_id, Status.PENDING if progress is None else progress.status)

    async def progress(self, import_id: str) -> Progress | None:
        """How far an import is; None if no import has this id.

        Raises:
            EngineAway
        """
        try:
            check_import_id(import_id)
        except ValueError:
            return None
        progress = await self._told(import_id)
        if progress.status.is_final:
            return progress
        state = await self.engine.state(import_id)
        if state == "running":
            return progress
        if state == "ended" and (last := await self._told(import_id)).status.is_final:
            return last  # between the two questions
        # Pending is also what the handler says of an id that never ran, or ran so long ago that it is forgotten.
        job = await self.store.job(import_id)
        if job is None:
            killed = msgspec.structs.replace(progress, import_id=import_id, status=Status.FAILED, error=KILLED)
            return killed if state == "ended" else None
        if state == "ended" and not job.status.is_final:
            job = await self._settled(import_id, Status.FAILED, KILLED)
        return _progress_of(job) if job.status.is_final else progress

    async def _told(self, import_id: str) -> Progress:
        return msgspec.json.decode(await self.engine.progress(import_id), type=Progress)

    async def _settled(self, import_id: str, status: Status, error: str) -> HistoryEntry:
        """Take out what an import left that has no workflow any more. A step of it that still runs is refused."""
        await self.store.roll_back(job_id_of(import_id), status, error)
        job = await self.store.job(import_id)
        assert job is not None
        return job

    async def follow(self, import_id: str) -> AsyncGenerator[Progress | EngineAway]:
        """Every change of the progress from now on, the first at once; ends after a final one.

        An engine that does not answer is told as the error, and asked again.

        Raises:
            NotFound: at the first look only.
        """
        last: Progress | EngineAway | None = None
        while True:
            try:
                found = await self.progress(import_id)
            except EngineAway as error:
                yield error
            else:
                if found is None:
                    raise NotFound(import_id)
                if found != last:
                    last = found
                    yield found
                if found.status.is_final:
                    return
            await asyncio.sleep(LOOK_S)  # between two looks; whoever listens may go at any time

    async def cancel(self, import_id: str) -> None:
        """Ask for the end of an import. It stops before its next batch and rolls back; its progress then says cancelled.

        Raises:
            NotFound, EngineAway
            AlreadyOver: it is completed, failed or cancelled.
        """
        progress = await self.progress(import_id)
        if progress is None:
            raise NotFound(import_id)
        if progress.status.is_final:
            raise AlreadyOver(import_id, progress.status)
        if await self.engine.state(import_id) == "unknown":
            await self._settled(import_id, Status.CANCELLED, "cancelled; the engine had forgotten it")
            return
        invocation_id = progress.invocation_id or await self.engine.invocation_id(import_id)
        if not await self.engine.cancel(invocation_id):
            ended = await self.progress(import_id)
            if ended is not None and ended.status.is_final:
                raise AlreadyOver(import_id, ended.status)

    async def outcome(self, import_id: str, rejected_max: int) -> Outcome | None:
        """What is recorded of an import so far; None before its first record.

        Args:
            rejected_max: How many of the rows that were left out are told.
        """
        job = await self.store.job(import_id)
        if job is None:
            return None
        tables = await self.store.tables(import_id)
        return Outcome(_shown(job), tables, await self.store.rejected(import_id, limit=rejected_max))

    async def history(self, limit: int, cursor: str | None = None) -> HistoryPage:
        """Imports, newest first.

        Args:
            cursor: `next_cursor` of an earlier page.
        Raises:
            InvalidCursor
        """
        offset = await self._offset(cursor) if cursor else 0
        entries = await self.store.history(limit=limit + 1, offset=offset)
        shown = [_shown(entry) for entry in entries[:limit]]
        return HistoryPage(shown, shown[-1].import_id if len(entries) > limit else None)

    async def _offset(self, cursor: str) -> int:
        """How many imports are as new as the one that the last page ended with, or newer."""
        rows = await self.store.query(
            "SELECT count(*) FROM import_jobs, (SELECT created_at c, import_id i FROM import_jobs WHERE import_id = ?) "
            "WHERE (created_at, import_id) >= (c, i)",
            [cursor],
        )
        if not rows[0][0]:
            raise InvalidCursor(f"cursor {cursor[:140]!r} was not made by an earlier page")
        return rows[0][0]

    async def is_engine_there(self) -> bool:
        """One look, without patience."""
        try:
            await self.engine.check()
        except EngineAway:
            return False
        return True


def _shown(job: HistoryEntry) -> HistoryEntry:
    return msgspec.structs.replace(job, source=shown_source(job.source))


def _progress_of(job: HistoryEntry) -> Progress:
    return Progress(
        status=job.status,
        import_id=job.import_id,
        job_id=job.job_id,
        extract_number=job.extract_number,
        extract_type=job.extract_type,
        snapshot_date=job.snapshot_date,
        completed=job.completed_batches,
        total=job.total_batches,
        rows_completed=job.rows,
        rows_total=job.rows,
        rejected_rows=job.rejected_rows,
        names_resolved=job.names_resolved,
        error=job.error,
    )
