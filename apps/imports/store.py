"""What imports keeps in DuckDB: the register's rows by extract, and what is known about every import.

Each call is one transaction. The ones that a workflow's steps make may be repeated: a batch that is completed answers
what it did, an extract that was switched to stays switched to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar

import duckdb

from apps.imports import history, jobs
from apps.imports.batches import NeedsCare
from apps.imports.database import Database, StoreBroken, StoreError, StoreInUse, StoreRefused
from apps.imports.files import Batch
from apps.imports.formats import Meta
from apps.imports.history import Statistics
from apps.imports.jobs import BatchDone, Claim, Plan, Refused
from apps.imports.model import (
    HistoryEntry,
    ImportRequest,
    ImportResult,
    Operation,
    RejectedRow,
    Status,
    TableResult,
    job_id_of,
)
from apps.imports.schema import SCHEMA_VERSION, ddl
from apps.imports.settings import Settings

__all__ = ["Refused", "Statistics", "Store", "StoreError", "StoreInUse", "StoreRefused"]

_T = TypeVar("_T")


class Store:
    """The database. Opened by the first call that needs it; all calls may overlap.

    Any call raises `StoreInUse` when another process has the file, `StoreRefused` when it is not ours or cannot be
    reached, and `StoreError` when the database fails.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._database: Database | None = None
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Open or create it now."""
        await self._open()

    async def close(self) -> None:
        """Wait for the calls that run, then close. A later call opens it again."""
        async with self._opening:
            if self._database is not None:
                await self._database.close()
                self._database = None

    async def _open(self) -> Database:
        if self._database is not None:
            return self._database
        async with self._opening:
            if self._database is None:
                database = await asyncio.to_thread(Database.open, self._settings)
                try:
                    await database.write(_migrate)
                except BaseException:
                    await database.close()
                    raise
                self._database = database
            return self._database

    async def _write(self, work: Callable[[duckdb.DuckDBPyConnection], _T]) -> _T:
        try:
            return await (await self._open()).write(work)
        except StoreBroken:
            await self.close()  # what was committed is safe; the next attempt opens the file again
            raise

    async def _read(self, work: Callable[[duckdb.DuckDBPyConnection], _T]) -> _T:
        return await (await self._open()).read(work)

    # Steps of the workflow.

    async def begin(self, request: ImportRequest) -> None:
        """Make the import's row, or make it new after a failure or a cancellation.

        Raises:
            Refused: it is completed.
        """
        await self._write(lambda con: jobs.begin(con, request))

    async def fetched(self, job_id: str, sha256: str) -> None:
        """Write down what was downloaded."""
        await self._write(lambda con: jobs.fetched(con, job_id, sha256))

    async def claim(self, job_id: str, meta: Meta) -> Claim:
        """Reserve the extract for this import. From here on it is the only one at work.

        Raises:
            Refused: the extract was imported, or is older than one that was, or another import is at work.
        """
        return await self._write(lambda con: jobs.claim(con, job_id, meta, self._settings))

    async def plan(self, job_id: str, batches: list[Batch]) -> Plan:
        """Write down the batches, if that was not done, and begin."""
        return await self._write(lambda con: jobs.plan(con, job_id, batches))

    async def batch(self, job_id: str, table: str, operation: Operation, number: int) -> tuple[Batch, bool]:
        """One batch as it was planned, and whether it is completed."""
        return await self._read(lambda con: jobs.batch(con, job_id, table, operation, number))

    async def apply(self, job_id: str, batch: Batch, path: Path) -> BatchDone:
        """Apply a batch; if it is completed, only say what it did.

        Raises:
            BrokenExtract: the file is broken. Nothing of this batch is there.
            Refused: the import is not at work any more.
        """
        rejected_max = self._settings.rejected_rows_max
        try:
            return await self._write(lambda con: jobs.apply(con, job_id, batch, path, rejected_max, with_care=False))
        except NeedsCare:  # and nothing of it is there
            return await self._write(lambda con: jobs.apply(con, job_id, batch, path, rejected_max, with_care=True))

    async def finalizing(self, job_id: str) -> None:
        """Shows in the history that all batches are done."""
        await self._write(lambda con: jobs.begin_finalizing(con, job_id))

    async def finalize(self, job_id: str) -> ImportResult:
        """Resolve names, write down figures, switch readers to the extract: all at once.

        Raises:
            Refused: batches are missing, or the import is not at work any more.
        """
        return await self._write(lambda con: jobs.finish(con, job_id))

    async def roll_back(
        self, job_id: str, status: Status, error: str, completed: int | None = None
    ) -> ImportResult | None:
        """Take everything of this import out again and end it with `status`.

        Args:
            completed: Batches that the workflow knows to be done; None if nobody can say. A cancelled one may have been
                written and not counted.
        Returns:
            None; or what the import came to, if it was completed before: then it stays.
        """
        return await self._write(lambda con: jobs.roll_back(con, job_id, status, error, completed))

    # Questions.

    async def history(self, *, limit: int = 50, offset: int = 0) -> list[HistoryEntry]:
        """All imports that this database knows, the last begun first."""
        sql = f"{history.ENTRIES} ORDER BY created_at DESC, import_id DESC LIMIT $limit OFFSET $offset"
        return await self._read(lambda con: history.entries(con, sql, {"limit": limit, "offset": offset}))

    async def job(self, import_id: str) -> HistoryEntry | None:
        """One import."""
        sql = f"{history.ENTRIES} WHERE job_id = $job"
        entries = await self._read(lambda con: history.entries(con, sql, {"job": job_id_of(import_id)}))
        return entries[0] if entries else None

    async def open_jobs(self) -> list[HistoryEntry]:
        """The imports that are not over, as far as the database knows."""
        sql = f"{history.ENTRIES} WHERE NOT list_contains($final, status)"
        final = [status for status in Status if status.is_final]
        return await self._read(lambda con: history.entries(con, sql, {"final": final}))

    async def by_source(self, source: str) -> list[HistoryEntry]:
        """All imports that were started with this source."""
        sql = f"{history.ENTRIES} WHERE source = $source"
        return await self._read(lambda con: history.entries(con, sql, {"source": source}))

    async def tables(self, import_id: str) -> list[TableResult]:
        """Figures of a completed import per table; empty for any other."""
        return await self._read(lambda con: history.tables(con, job_id_of(import_id)))

    async def rejected(self, import_id: str, *, limit: int = 100, offset: int = 0) -> list[RejectedRow]:
        """Rows that were left out, in the order of files and lines."""
        parameters = {"job": job_id_of(import_id), "limit": limit, "offset": offset}
        return await self._read(lambda con: history.rejected(con, parameters))

    async def statistics(self) -> Statistics:
        """What readers see now."""
        return await self._read(history.statistics)

    async def query(self, sql: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        """Any question, on one state of the database."""
        return await self._read(lambda con: con.execute(sql, parameters).fetchall())


def _migrate(con: duckdb.DuckDBPyConnection) -> None:
    (tables,) = con.execute(
        "SELECT list(table_name) FROM information_schema.tables WHERE table_catalog = current_database()"
    ).fetchall()[0]
    if not tables:
        con.execute(ddl())
        return
    if "imports_meta" not in tables:
        raise StoreRefused(f"the database holds other tables ({', '.join(sorted(tables)[:3])}); choose another one")
    (version,) = con.execute("SELECT schema_version FROM imports_meta").fetchall()[0]
    if version != SCHEMA_VERSION:
        raise StoreRefused(f"the database has schema version {version}; this program knows {SCHEMA_VERSION}")
