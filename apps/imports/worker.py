"""What the steps of an import do, outside the engine: fetch, unpack, apply, finish, roll back.

Every method may run again, also while an attempt before it has not ended yet: work on one import takes turns, and what
is asked to end ends soon. What can never succeed is a TerminalError; everything else is the engine's to repeat.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import threading
from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from restate import TerminalError

from apps.imports import fetch
from apps.imports.fetch import Fetched, NotFetchable
from apps.imports.files import Batch, Extract, Limits
from apps.imports.formats import BrokenExtract
from apps.imports.jobs import BatchDone, Plan
from apps.imports.model import ImportRequest, ImportResult, Operation, Status, job_id_of
from apps.imports.settings import Settings
from apps.imports.store import Refused, Store

_P = ParamSpec("_P")
_T = TypeVar("_T")

# A delayed message may come a little early, as clocks go.
_EARLY = timedelta(minutes=1)


@contextmanager
def _terminal() -> Generator[None]:
    """Failures that no repetition can mend, in the engine's words."""
    try:
        yield
    except BrokenExtract as error:
        raise TerminalError(str(error), 422) from error
    except NotFetchable as error:
        raise TerminalError(str(error), 400) from error
    except Refused as error:
        raise TerminalError(str(error), 409) from error


class Worker:
    """Works on one store and in one directory. One per application."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._busy: dict[str, tuple[asyncio.Future[Any], threading.Event]] = {}
        self._fetching: defaultdict[Path, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def download(self, request: ImportRequest) -> Fetched:
        """Step 1. Raises `fetch.FetchFailed` if it may succeed later."""
        with _terminal():
            await self._store.begin(request)
            fetched = await self._fetch(request, request.sha256)
            await self._store.fetched(job_id_of(request.import_id), fetched.sha256)
            return fetched

    async def prepare(self, request: ImportRequest, fetched: Fetched) -> Plan:
        """Step 2: reserve the extract, unpack and cut it, write the batches down."""
        job_id = job_id_of(request.import_id)
        with _terminal():
            await self._fetch_again_if_missing(request, fetched.sha256)
            limits = self._limits(self._settings.batch_rows, self._settings.delete_batch_rows)
            with await self._blocking(job_id, _opened, self._zip(request), limits) as extract:
                claim = await self._store.claim(job_id, extract.meta)
            await self._remove(*self._abandoned(job_id))
            batches = await self._stage(request, claim.batch_rows, claim.delete_batch_rows)
            return await self._store.plan(job_id, batches)

    async def batch(
        self, request: ImportRequest, sha256: str, plan: Plan, table: str, operation: Operation, number: int
    ) -> BatchDone:
        """One batch, in one transaction."""
        job_id = job_id_of(request.import_id)
        directory = self._batches(job_id)
        with _terminal():
            batch, is_done = await self._store.batch(job_id, table, operation, number)
            path = batch.path(directory)
            if not is_done and not _is_whole(path, batch):  # another machine, or a cleaned disk
                await self._fetch_again_if_missing(request, sha256)
                await self._stage(request, plan.batch_rows, plan.delete_batch_rows)
            done = await self._store.apply(job_id, batch, path)
        path.unlink(missing_ok=True)
        return done

    async def finalize(self, request: ImportRequest) -> ImportResult:
        """Last step: readers see the extract; its files are not needed any more."""
        job_id = job_id_of(request.import_id)
        with _terminal():
            await self._store.finalizing(job_id)
            result = await self._store.finalize(job_id)
        await self._remove(self._batches(job_id), self._zip(request).parent)
        return result

    async def roll_back(
        self, request: ImportRequest, status: Status, error: str, completed: int
    ) -> ImportResult | None:
        """Instead of the last step: take everything out again, keep the zip. Answers like `Store.roll_back`."""
        job_id = job_id_of(request.import_id)
        await self._stopped(job_id)
        result = await self._store.roll_back(job_id, status, error, completed)
        await self._remove(self._batches(job_id))
        if result is not None:
            await self._remove(self._zip(request).parent)
        return result

    async def expire(self, request: ImportRequest) -> bool:
        """Remove the zip of an import that has been failed or cancelled for long enough. Returns whether it did."""
        jobs = [job for job in await self._store.by_source(request.source) if job.status is not Status.COMPLETED]
        expired = datetime.now(UTC) + _EARLY - timedelta(hours=self._settings.keep_zip_hours)
        if any(job.completed_at is None or job.completed_at > expired for job in jobs):
            return False  # it is being tried again; or was, and has a message of its own
        await self._remove(self._zip(request).parent)
        return True

    def _zip(self, request: ImportRequest) -> Path:
        """Named by where it comes from, so that another try under another id finds it."""
        name = hashlib.sha256(request.source.encode()).hexdigest()[:32]
        return self._settings.files / "zips" / name / "extract.zip"

    def _batches(self, job_id: str) -> Path:
        return self._settings.files / "batches" / job_id

    def _abandoned(self, job_id: str) -> list[Path]:
        """Batches of imports that were killed. An import at work is the only one, so the others' are nobody's."""
        return [path for path in self._settings.files.glob("batches/*") if path.name != job_id]

    async def _remove(self, *directories: Path) -> None:
        for directory in directories:
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)

    def _limits(self, batch_rows: int, delete_batch_rows: int) -> Limits:
        return Limits(self._settings.unzipped_bytes_max, batch_rows, delete_batch_rows)

    async def _fetch(self, request: ImportRequest, sha256: str | None) -> Fetched:
        path = self._zip(request)

        def work(stop: threading.Event) -> Fetched:
            size_bytes, settings = request.size_bytes, self._settings
            return fetch.fetch(request.source, path, settings=settings, sha256=sha256, size_bytes=size_bytes, stop=stop)

        async with self._fetching[path]:
            return await self._blocking(job_id_of(request.import_id), work)

    async def _fetch_again_if_missing(self, request: ImportRequest, sha256: str) -> None:
        if not self._zip(request).exists():
            await self._fetch(request, sha256)

    async def _stage(self, request: ImportRequest, batch_rows: int, delete_batch_rows: int) -> list[Batch]:
        job_id = job_id_of(request.import_id)
        limits = self._limits(batch_rows, delete_batch_rows)
        return await self._blocking(job_id, _staged, self._zip(request), limits, self._batches(job_id))

    async def _blocking(
        self, job_id: str, work: Callable[Concatenate[threading.Event, _P], _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        """Run `work` in a thread, after what else runs for this import was asked to end and did."""
        await self._stopped(job_id)
        stop = threading.Event()
        future = asyncio.get_running_loop().run_in_executor(None, lambda: work(stop, *args, **kwargs))
        self._busy[job_id] = (future, stop)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait([future])  # nobody else may touch the files before
            raise
        finally:
            if future.done() and self._busy.get(job_id) == (future, stop):
                del self._busy[job_id]

    async def _stopped(self, job_id: str) -> None:
        while (busy := self._busy.get(job_id)) is not None:
            future, stop = busy
            stop.set()
            await asyncio.wait([future])
            if self._busy.get(job_id) is busy:
                del self._busy[job_id]
            if not future.cancelled():
                future.exception()  # whatever it was, the one who waited for it has seen it or is gone


def _opened(_stop: threading.Event, path: Path, limits: Limits) -> Extract:
    return Extract(path, limits)


def _staged(stop: threading.Event, path: Path, limits: Limits, directory: Path) -> list[Batch]:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    with Extract(path, limits) as extract:
        return extract.stage(directory, stop)


def _is_whole(path: Path, batch: Batch) -> bool:
    return path.exists() and path.stat().st_size == batch.byte_count
